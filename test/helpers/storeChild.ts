/**
 * A process of its own that works on a store, to be killed or to run as somebody else. One line on standard output says
 * what happened: `ready`, `took`, `held by PID`.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { accountKey } from '../../src/account.js'
import { LockedError } from '../../src/core/errors.js'
import { makeStore, savePair, saveReceipts, storePaths, takeLock } from '../../src/edge/store.js'
import { filesOf } from './store.js'
import type { Pair } from './certificates.js'

const [command = '', directory = '', pairsFile = ''] = process.argv.slice(2)
const paths = storePaths(directory, 'prod')
const pairs = (): Pair[] => JSON.parse(readFileSync(pairsFile, 'utf8')) as Pair[]
const say = (text: string): void => void process.stdout.write(`${text}\n`)

/** Saves one pair after the other for ever. */
async function saveLoop(): Promise<void> {
  const all = pairs()
  say('ready')
  for (let n = 0; ; n++) {
    const { key, certificate } = all[n % all.length] ?? { key: '', certificate: '' }
    await savePair(paths, filesOf('a.example'), { key, certificate, csr: 'request\n' })
  }
}

/** Takes the lock at each line `go` on standard input, gives it back at each `give`. */
async function lock(): Promise<void> {
  say('ready')
  let release: (() => Promise<unknown>) | undefined
  for await (const line of createInterface(process.stdin)) {
    if (line === 'give') {
      await release?.()
      release = undefined
      say('gave')
      continue
    }
    try {
      release = await takeLock(paths.state, 'prod')
      say('took')
    } catch (error) {
      if (!(error instanceof LockedError)) throw error
      say(`held by ${error.pid}`)
    }
  }
}

/** Reads or makes the account key that each line of standard input names, and tells it. */
async function accountKeys(): Promise<void> {
  say('ready')
  for await (const line of createInterface(process.stdin)) {
    const { pem, made } = await accountKey(join(directory, line))
    say(JSON.stringify({ pem, made }))
  }
}

function becomeNobody(): void {
  if (process.getuid?.() !== 0) return
  process.setgid?.(65534)
  process.setuid?.(65534)
}

/** The whole store from nothing, as `nobody` and under the umask given: nothing may depend on being root. */
async function fromNothing(umask: string): Promise<void> {
  process.umask(Number.parseInt(umask, 8))
  const [{ key, certificate } = { key: '', certificate: '' }] = pairs()
  becomeNobody()
  await makeStore(paths)
  const release = await takeLock(paths.state, 'prod')
  for (let n = 0; n < 2; n++) await savePair(paths, filesOf('a.example'), { key, certificate, csr: 'request\n' })
  await saveReceipts(paths.state, {})
  await release()
  say('done')
}

if (command === 'save') await saveLoop()
else if (command === 'lock') await lock()
else if (command === 'accountKey') await accountKeys()
else if (command === 'lockAsNobody') {
  becomeNobody()
  await lock()
}
else await fromNothing(command)
