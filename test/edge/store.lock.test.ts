import assert from 'node:assert/strict'
import { spawn, type ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test, type TestContext } from 'node:test'
import { LockedError, OperationalError } from '../../src/core/errors.js'
import { lockHolder, makeStore, storePaths, takeLock } from '../../src/edge/store.js'
import { isAlive } from '../../src/edge/store/lock.js'
import { othersSkip } from '../helpers/others.js'
import { run } from '../helpers/run.js'
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

  /** @param prefix a command that runs another one @param who `lock`, or `lockAsNobody` */
  constructor(t: TestContext, directory: string, prefix: readonly string[] = [], who = 'lock') {
    const command = [...prefix, process.execPath, '--import', 'tsx', 'test/helpers/storeChild.ts', who, directory]
    this.child = spawn(command[0] ?? '', command.slice(1), { stdio: ['pipe', 'pipe', 'inherit'] })
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
  assert.equal(await release(), undefined)
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

test('a lock that cannot be given back is said, not thrown, and in nobody\'s way', async t => {
  const { state, lock } = await place(t)
  const mounted = await run('mount', ['-t', 'tmpfs', 'tmpfs', state])
  if (mounted.code !== 0) {
    t.skip(`needs the right to mount: ${mounted.stderr.trim()}`)
    return
  }
  try {
    const release = await takeLock(state, 'prod')
    assert.equal((await run('mount', ['-o', 'remount,ro', state])).code, 0)
    assert.equal(await release(), `cannot remove the lock ${lock}: the file system is read-only: remount it`)
    assert.equal((await run('mount', ['-o', 'remount,rw', state])).code, 0)
    // As by the process of another night.
    writeFileSync(lock, readFileSync(lock, 'utf8').replace(/"pid":\d+/u, '"pid":999999999'))
    assert.equal(await (await takeLock(state, 'prod'))(), undefined)
  } finally {
    await run('umount', ['-l', state])
  }
})

test('alive or not: the boot, the start, and where /proc shows nothing the signal', () => {
  const holder = { pid: 7, start: '100', boot: 'b' }
  const signal = (code?: string) => (): void => {
    if (code !== undefined) throw Object.assign(new Error(code), { code })
  }
  const cases: [string | undefined, string | undefined, string | undefined, boolean][] = [
    // boot now, start of the process with that pid, errno of the signal, alive
    ['b', '100', undefined, true],
    ['b', '100', 'EPERM', true],
    ['b', '101', undefined, false],
    ['b', 'dead', undefined, false],
    ['b', undefined, 'EPERM', true],
    ['b', undefined, undefined, true],
    ['b', undefined, 'ESRCH', false],
    ['b', undefined, 'ERR_INVALID_ARG_TYPE', false],
    ['c', '100', undefined, false],
    ['c', undefined, 'EPERM', false],
    [undefined, '100', undefined, true],
    [undefined, undefined, 'EPERM', true],
    [undefined, undefined, 'ESRCH', false],
  ]
  for (const [boot, start, errno, alive] of cases) assert.equal(isAlive(holder, boot, start, signal(errno)), alive, JSON.stringify([boot, start, errno]))
})

test('a pid that no process can have is no holder', async t => {
  const { state, lock, read } = await place(t)
  const release = await takeLock(state, 'prod')
  const mine = read()
  await release()
  for (const pid of [0, -1, 1.5, 1e15]) {
    writeFileSync(lock, JSON.stringify({ ...mine, pid }))
    assert.equal(await lockHolder(state), undefined, `${pid}`)
  }
})

test('a holder that /proc hides (hidepid) holds its lock', { skip: othersSkip() }, async t => {
  const { directory, state, read } = await place(t)
  for (const each of [directory, join(directory, 'prod')]) chmodSync(each, 0o755)
  chmodSync(state, 0o777)
  const hiding = ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', 'mount -t proc -o hidepid=2 proc /proc && exec "$@"', 'sh']
  const can = await run('unshare', [...hiding.slice(1), 'setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups', 'test', '!', '-e', `/proc/${process.pid}`])
  if (can.code !== 0) {
    t.skip(`needs a /proc with hidepid: ${can.stderr.trim()}`)
    return
  }
  const release = await takeLock(state, 'prod')
  const other = new Contender(t, directory, hiding, 'lockAsNobody')
  assert.equal(await other.says(), 'ready')
  const held = read()
  assert.equal(await other.is('go'), `held by ${process.pid}`)
  assert.deepEqual(read(), held, 'the lock was taken away')
  await release()
  assert.equal(await other.is('go'), 'took')
  assert.equal(await other.is('give'), 'gave')
})
