/** One run per mode at a time (spec §4). A holder that was killed must not block the next run. */
import { createHash } from 'node:crypto'
import { chmod, link, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { LockedError, OperationalError } from '../../core/errors.js'
import { explained } from './atomic.js'

/** Who holds it: a pid alone may have been given to another process since, so its start and the boot are noted too. */
export interface Holder {
  readonly pid: number
  readonly start: string
  readonly boot: string
}

/**
 * Takes the lock of a state directory.
 * @param what names it in messages
 * @returns what gives it back; it never throws, and says what is wrong when the lock stays
 * @throws LockedError when a living process holds it
 */
export async function takeLock(stateDirectory: string, what: string): Promise<() => Promise<string | undefined>> {
  const path = join(stateDirectory, 'lock')
  const mine = join(stateDirectory, `.lock.${process.pid}`)
  const me = await holderOf(process.pid)
  if (me === undefined) throw new OperationalError('cannot take the lock: /proc is not mounted, and lematt needs it to tell a living holder from a dead one')
  const text = JSON.stringify(me)
  try {
    await rm(mine, { force: true })
    await writeFile(mine, text, { flag: 'wx', mode: 0o644 })
    await chmod(mine, 0o644) // whatever the umask: we must be able to read it ourselves
    for (let attempt = 0; attempt < 100; attempt++) {
      if (await linked(mine, path)) return () => release(path, text)
      const seen = await readLock(path)
      if (seen === undefined) continue // given back this moment
      const holder = parse(seen)
      if (holder !== undefined && await lives(holder)) throw new LockedError(holder.pid, what)
      if (!await removeDead(path, seen, mine)) await pause(10)
    }
    throw new OperationalError(`cannot take the lock ${path}: other runs keep coming and going; try again`)
  } catch (error) {
    throw error instanceof LockedError ? error : explained(error, `cannot take the lock ${path}`)
  } finally {
    await rm(mine, { force: true }).catch(() => undefined)
  }
}

/** Who holds the lock now, for those who only read; undefined when nobody does. */
export async function lockHolder(stateDirectory: string): Promise<number | undefined> {
  const holder = parse(await readFile(join(stateDirectory, 'lock'), 'utf8').catch(() => ''))
  return holder !== undefined && await lives(holder) ? holder.pid : undefined
}

/** link(2) is atomic: of several, one gets the name. */
async function linked(mine: string, path: string): Promise<boolean> {
  try {
    await link(mine, path)
    return true
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return false
    throw error
  }
}

/** The text of a lock; undefined when there is none. */
async function readLock(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw error
  }
}

/**
 * Removes a dead holder's lock. Others may be about to do the same, and the slower one would remove the lock that the faster
 * one has taken since. So only who holds the guard, a second lock for just this dead holder, may remove it, after a
 * second look: no other than the dead one ever writes the same text again.
 * @returns false when somebody else is at it
 */
async function removeDead(path: string, seen: string, mine: string): Promise<boolean> {
  const guard = `${path}.${createHash('sha256').update(seen).digest('hex').slice(0, 16)}`
  if (!await linked(mine, guard)) {
    const other = await readLock(guard)
    const holder = other === undefined ? undefined : parse(other)
    // Who was killed while holding the guard is dead in the same way.
    return other === undefined || (holder !== undefined && await lives(holder)) ? false : removeDead(guard, other, mine)
  }
  try {
    if (await readLock(path) === seen) await rm(path, { force: true })
  } finally {
    await rm(guard, { force: true })
  }
  return true
}

async function release(path: string, text: string): Promise<string | undefined> {
  try {
    if (await readLock(path) === text) await rm(path, { force: true })
    return undefined
  } catch (error) {
    // It comes after all that was done, which must be told. We will be dead, so it is in nobody's way.
    return explained(error, `cannot remove the lock ${path}`).message
  }
}

function parse(text: string): Holder | undefined {
  try {
    const { pid, start, boot } = JSON.parse(text) as Partial<Holder>
    return typeof pid === 'number' && Number.isInteger(pid) && pid > 0 && typeof start === 'string' && typeof boot === 'string' ? { pid, start, boot } : undefined
  } catch {
    return undefined // a damaged lock is nobody's
  }
}

async function lives(holder: Holder): Promise<boolean> {
  return isAlive(holder, await bootId(), await startOf(holder.pid), () => process.kill(holder.pid, 0))
}

/**
 * Whether the holder of a lock is still there.
 * @param boot the id of the present boot; undefined when it cannot be read
 * @param start that of the process which has the holder's pid now; `dead` for a zombie; undefined when nothing is to be seen
 * @param signal kill(2) with signal 0
 */
export function isAlive(holder: Holder, boot: string | undefined, start: string | undefined, signal: () => unknown): boolean {
  if (boot !== undefined && boot !== holder.boot) return false
  if (start !== undefined) return start === holder.start
  // Nothing in /proc: it has ended, or is hidden from us as another user's (hidepid of proc(5)), or /proc cannot be read.
  try {
    signal()
    return true
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM'
  }
}

/** Identity of a process: its start in clock ticks since boot (proc(5), field 22) and the boot's id. */
async function holderOf(pid: number): Promise<Holder | undefined> {
  const [start, boot] = [await startOf(pid), await bootId()]
  return start === undefined || boot === undefined ? undefined : { pid, start, boot }
}

async function startOf(pid: number): Promise<string | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
  // The command name, in parentheses, may itself hold blanks and parentheses.
  const [state, ...fields] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return state === 'Z' || state === 'X' ? 'dead' : fields[18]
}

const bootId = (): Promise<string | undefined> => readFile('/proc/sys/kernel/random/boot_id', 'utf8').then(text => text.trim(), () => undefined)
