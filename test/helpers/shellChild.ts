/**
 * A lematt of its own that runs a command, to be killed: `shellChild.ts run|start COMMAND [SECONDS]`. Says `started` when the
 * command was begun, and then its result. What was started is not ended.
 */
import { runCommand, startCommand } from '../../src/edge/shell.js'

const [how = '', command = '', seconds = '600'] = process.argv.slice(2)
const options = { env: {}, cwd: process.cwd(), signal: new AbortController().signal }
const ended = how === 'start' ? startCommand(command, options).result : runCommand(command, { ...options, timeoutSeconds: Number(seconds) })
process.stdout.write('started\n')
process.stdout.write(`${JSON.stringify(await ended)}\n`)
