import assert from 'node:assert/strict'
import { spawn, type ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test, type TestContext } from 'node:test'
import { LockedError, OperationalError } from '../../src/core/errors.js'
import { lockHolder, makeStore, storePaths, takeLock } from '../../src/edge/store.js'
import { temporaryDirectory } from '../helpers/store.js'

interface Lock { readonly pid: number; readonly start: string; readonly boot: string }

async function place(t: TestContext): Promise<{ directory: string; state: string; lock: string; read: () => Lock }> {
  const directory = temporaryDirectory(t)
  const paths = storePaths(directory, 'prod')
  await makeStore(paths)
  const lock = join(paths.state, 'lock')
  return { directory, state: paths.state, lock, read: () => JSON.parse(readFileSync(lock, 'utf8')) as Lock }
}

/** A process of its own that takes and gives back the lock when told. */
class Contender {
  private readonly child: ChildProcess
  private readonly lines: AsyncIterator<string>
  private readonly ended: Promise<unknown>

  constructor(t: TestContext, directory: string) {
    this.child = spawn(process.execPath, ['--import', 'tsx', 'test/helpers/storeChild.ts', 'lock', directory], { stdio: ['pipe', 'pipe', 'inherit'] })
    this.ended = once(this.child, 'exit')
    assert.ok(this.child.stdout)
    this.lines = createInterface(this.child.stdout)[Symbol.asyncIterator]()
    t.after(() => this.kill())
  }

  get pid(): number {
    return this.child.pid ?? 0
  }

  /** What it says next: `ready`, `took`, `held by PID`, `gave`. */
  async says(): Promise<string> {
    const { value } = await this.lines.next() as IteratorResult<string, undefined>
    return value ?? 'nothing: it has ended'
  }

  async is(word: 'go' | 'give'): Promise<string> {
    this.child.stdin?.write(`${word}\n`)
    return this.says()
  }

  async kill(): Promise<void> {
    this.child.kill('SIGKILL')
    await this.ended
  }
}

test('one process at a time: the second is told who holds it, and reading takes no lock', async t => {
  const { state, lock } = await place(t)
  const release = await takeLock(state, 'prod')
  await assert.rejects(takeLock(state, 'prod'), (error: unknown) => error instanceof LockedError && error.pid === process.pid && /another lematt \(pid \d+\) is running on prod/u.test(error.message))
  assert.equal(await lockHolder(state), process.pid)
  await release()
  assert.equal(existsSync(lock), false)
  assert.equal(await lockHolder(state), undefined)
  await (await takeLock(state, 'prod'))()
  assert.deepEqual(readdirSync(state), [])
})

test('of eight at once exactly one wins: over no lock, over that of a killed holder, over a damaged one', async t => {
  const { directory, state, lock, read } = await place(t)
  const eight = Array.from({ length: 8 }, () => new Contender(t, directory))
  await Promise.all(eight.map(c => c.says()))

  /** All try at once. @returns who won */
  async function race(what: string): Promise<Contender> {
    const said = await Promise.all(eight.map(c => c.is('go')))
    const [winner, ...more] = eight.filter((_, i) => said[i] === 'took')
    assert.ok(winner !== undefined && more.length === 0, `${what}: ${said.join(', ')}`)
    assert.equal(said.filter(s => s === `held by ${winner.pid}`).length, 7, `${what}: ${said.join(', ')}`)
    assert.equal(await lockHolder(state), winner.pid)
    return winner
  }

  for (let n = 0; n < 10; n++) {
    assert.equal(await (await race(`no lock, round ${n}`)).is('give'), 'gave')
    const damaged = ['', '{"pid": 1, "sta', 'null', JSON.stringify({ pid: 999_999_999, start: String(n), boot: 'b' })][n % 4] ?? ''
    writeFileSync(lock, damaged)
    assert.equal(await (await race(`over ${damaged}, round ${n}`)).is('give'), 'gave')
    assert.deepEqual(readdirSync(state), [])
  }
  for (let n = 0; n < 2; n++) {
    const holder = await race('before the kill')
    const dead = read()
    await holder.kill()
    assert.equal(await lockHolder(state), undefined, 'killed: nobody holds it')
    const fresh = new Contender(t, directory)
    assert.equal(await fresh.says(), 'ready')
    eight[eight.indexOf(holder)] = fresh
    const winner = await race('over a killed holder')
    assert.notEqual(read().pid, dead.pid)
    assert.equal(await winner.is('give'), 'gave')
  }
  assert.deepEqual(readdirSync(state), [])
})

test('a pid that lives but belongs to another process now is no holder; nor is one of another boot', async t => {
  const { state, lock, read } = await place(t)
  await (await takeLock(state, 'prod'))()
  const release = await takeLock(state, 'prod')
  const mine = read()
  await release()
  for (const other of [{ ...mine, start: String(Number(mine.start) - 100) }, { ...mine, boot: 'b-o-o-t' }, { ...mine, pid: 999_999_999 }, { pid: mine.pid }, [], null, 'x']) {
    writeFileSync(lock, JSON.stringify(other))
    assert.equal(await lockHolder(state), undefined)
    await (await takeLock(state, 'prod'))()
    assert.deepEqual(readdirSync(state), [], JSON.stringify(other))
  }
  // The same process, told apart from nobody: it does hold it.
  writeFileSync(lock, JSON.stringify(mine))
  await assert.rejects(takeLock(state, 'prod'), LockedError)
})

test('release removes only its own lock', async t => {
  const { state, lock } = await place(t)
  const release = await takeLock(state, 'prod')
  const foreign = JSON.stringify({ pid: 1, start: '1', boot: 'b' })
  writeFileSync(lock, foreign)
  await release()
  assert.equal(readFileSync(lock, 'utf8'), foreign)
})

test('who was killed while taking a dead lock over blocks nobody', async t => {
  const { directory, state, lock, read } = await place(t)
  const first = new Contender(t, directory)
  await first.says()
  assert.equal(await first.is('go'), 'took')
  const dead = read()
  await first.kill()
  // The guard for this dead holder is there, held by another dead process.
  const guard = `${lock}.${createHash('sha256').update(JSON.stringify(dead)).digest('hex').slice(0, 16)}`
  writeFileSync(guard, JSON.stringify({ ...dead, pid: 999_999_999 }))
  const release = await takeLock(state, 'prod')
  assert.equal(await lockHolder(state), process.pid)
  assert.deepEqual(readdirSync(state), ['lock'])
  await release()
})

test('a lock that cannot be read or made is an error that says so, and no lock', async t => {
  const { state, lock } = await place(t)
  mkdirSync(lock)
  await assert.rejects(takeLock(state, 'prod'), (error: unknown) => error instanceof OperationalError && error.message.startsWith(`cannot take the lock ${lock}: `))
  assert.deepEqual(readdirSync(state), ['lock'])
  await assert.rejects(takeLock(join(state, 'gone'), 'prod'), OperationalError)
})
