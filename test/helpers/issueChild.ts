/**
 * A lematt of its own that does the first half of a night, to be run in a lab and to be killed: `issueChild.ts CONF`. Prints
 * each outcome and warning as a line. Exit code 0 when all were issued, 1 otherwise.
 */
import { planOrders } from '../../src/core/plan.js'
import { loadConfiguration } from '../../src/edge/configFiles.js'
import { openSsh } from '../../src/edge/ssh.js'
import { loadState, makeStore, storePaths, sweepTokens } from '../../src/edge/store.js'
import { issue } from '../../src/issue.js'
import { observe } from '../../src/observe.js'

const configuration = await loadConfiguration(process.argv[2] ?? '', process.cwd())
const { settings: { sshConfig } } = configuration
const paths = storePaths(configuration.directory, 'test')
await makeStore(paths)
await sweepTokens(paths.state)
const { state } = await loadState(paths.state)
const orders = planOrders({ configuration, inventory: await observe(configuration, 'test', paths), state, authority: 'lab', now: new Date() })
const { signal } = new AbortController()
const ssh = openSsh({ signal, ...(sshConfig === undefined ? {} : { configFile: sshConfig }) })
try {
  const { outcomes, bugs } = await issue(orders, {
    configuration, mode: 'test', paths, workingDirectory: configuration.directory, version: '0', clock: () => new Date(), signal, ssh,
    listen: progress => {
      if (progress.type === 'warning') process.stdout.write(`warning: ${progress.text}\n`)
    },
  })
  for (const bug of bugs) process.stderr.write(`${bug instanceof Error ? bug.stack ?? bug.message : String(bug)}\n`)
  for (const outcome of outcomes) {
    const message = outcome.status === 'done' ? '' : `: ${outcome.message}`
    process.stdout.write(`${outcome.status}: ${outcome.order.held.name}${message}\n`)
  }
  process.exitCode = outcomes.every(({ status }) => status === 'done') && bugs.length === 0 ? 0 : 1
} finally {
  await ssh.close()
}
