/** One run per mode at a time (spec §4). A holder that was killed must not block the next run. */
import { link, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { LockedError, OperationalError } from '../../core/errors.js'
import { explained } from './atomic.js'

/** Who holds it: a pid alone may have been given to another process since, so its start and the boot are noted too. */
interface Holder {
  readonly pid: number
  readonly start: string
  readonly boot: string
}

/**
 * Takes the lock of a state directory.
 * @param what names it in messages
 * @returns what gives it back
 * @throws LockedError when a living process holds it
 */
export async function takeLock(stateDirectory: string, what: string): Promise<() => Promise<void>> {
  const path = join(stateDirectory, 'lock')
  const mine = join(stateDirectory, `.lock.${process.pid}`)
  const me = await holderOf(process.pid)
  if (me === undefined) throw new OperationalError('cannot take the lock: /proc is not mounted, and lematt needs it to tell a living holder from a dead one')
  const text = JSON.stringify(me)
  try {
    await rm(mine, { force: true })
    await writeFile(mine, text, { flag: 'wx', mode: 0o644 })
    for (let attempt = 0; attempt < 10; attempt++) {
      if (await linked(mine, path)) return () => release(path, text)
      const seen = await readFile(path, 'utf8').catch(() => undefined)
      if (seen === undefined) continue // given back this moment
      const holder = parse(seen)
      if (holder !== undefined && await lives(holder)) throw new LockedError(holder.pid, what)
      await takeAway(path, seen, what)
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

/** Removes a dead holder's lock, but puts back one that another run took in between. */
async function takeAway(path: string, seen: string, what: string): Promise<void> {
  const aside = `${path}.${process.pid}`
  await rename(path, aside).catch(() => undefined)
  const got = await readFile(aside, 'utf8').catch(() => undefined)
  if (got === undefined) return
  const holder = got === seen ? undefined : parse(got)
  if (holder !== undefined && await linked(aside, path)) {
    await rm(aside, { force: true })
    throw new LockedError(holder.pid, what)
  }
  await rm(aside, { force: true })
}

async function release(path: string, text: string): Promise<void> {
  if (await readFile(path, 'utf8').catch(() => undefined) === text) await rm(path, { force: true })
}

function parse(text: string): Holder | undefined {
  try {
    const { pid, start, boot } = JSON.parse(text) as Partial<Holder>
    return typeof pid === 'number' && typeof start === 'string' && typeof boot === 'string' ? { pid, start, boot } : undefined
  } catch {
    return undefined // a damaged lock is nobody's
  }
}

async function lives(holder: Holder): Promise<boolean> {
  const now = await holderOf(holder.pid)
  return now !== undefined && now.start === holder.start && now.boot === holder.boot
}

/** Identity of a process: its start in clock ticks since boot (proc(5), field 22) and the boot's id. A zombie is dead. */
async function holderOf(pid: number): Promise<Holder | undefined> {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8')
    // The command name, in parentheses, may itself hold blanks and parentheses.
    const [state, ...fields] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    const boot = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()
    return state === 'Z' || state === 'X' ? undefined : { pid, start: fields[18] ?? '', boot }
  } catch {
    return undefined
  }
}
