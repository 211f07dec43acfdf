/** Files that are there whole or not at all, with their mode from the first byte (spec §4). */
import { constants } from 'node:fs'
import { chmod, copyFile, link, lstat, mkdir, open, rename, rm, stat, symlink } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { OperationalError } from '../../core/errors.js'

/** Hidden, so that no pattern like `NAME*` ever sends one; `.new`, so that the next start knows it (pairs.ts). */
export const tempName = (file: string): string => `.${file}.new`

/** The file that a temp name is for, or undefined when it is no temp name of ours. */
export const tempTarget = (entry: string): string | undefined =>
  entry.startsWith('.') && entry.endsWith('.new') && entry.length > 5 ? entry.slice(1, -4) : undefined

/** Writes `data` to the temp file of `path` and syncs it; returns the temp file's path. Nothing is left on failure. */
export async function writeTemp(path: string, data: string, mode: number): Promise<string> {
  const temp = join(dirname(path), tempName(basename(path)))
  try {
    await rm(temp, { force: true })
    // O_EXCL: never through a link that somebody else put there.
    const file = await open(temp, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, mode)
    try {
      await file.chmod(mode) // open() leaves out what the umask forbids
      await file.writeFile(data)
      await file.sync()
    } finally {
      await file.close()
    }
    return temp
  } catch (error) {
    await rm(temp, { force: true }).catch(() => undefined)
    throw explained(error, `cannot write ${path}`)
  }
}

/** Replaces `path` by `data` in one step. */
export async function writeAtomically(path: string, data: string, mode: number): Promise<void> {
  const temp = await writeTemp(path, data, mode)
  try {
    await rename(temp, path)
    await syncDirectory(dirname(path))
  } catch (error) {
    await rm(temp, { force: true }).catch(() => undefined)
    throw explained(error, `cannot write ${path}`)
  }
}

/**
 * Makes `path` when there is none, whole from the first moment; several processes may try at once.
 * @returns false when something stands there already, which is left as it is
 */
export async function createFile(path: string, data: string, mode: number): Promise<boolean> {
  // Of this process alone: another one that tries at the same time must not take it away.
  const temp = await writeTemp(`${path}.${process.pid}`, data, mode)
  try {
    await link(temp, path).catch(async (error: unknown) => {
      if (isThere(error)) throw error
      await copyFile(temp, path, constants.COPYFILE_EXCL) // where the file system has no hard links
    })
    await syncDirectory(dirname(path))
    return true
  } catch (error) {
    if (isThere(error)) return false
    throw explained(error, `cannot write ${path}`)
  } finally {
    await rm(temp, { force: true }).catch(() => undefined)
  }
}

const isThere = (error: unknown): boolean => error instanceof Error && 'code' in error && error.code === 'EEXIST'

/** Makes renames in a directory durable. */
export async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** Puts a second name of `path` at `kept`, replacing what stood there; a copy where the file system has no hard links. */
export async function keepAs(path: string, kept: string): Promise<void> {
  const present = await lstat(path).catch(() => undefined)
  if (present?.isFile() !== true) return
  const temp = join(dirname(kept), tempName(basename(kept)))
  try {
    await rm(temp, { force: true })
    await link(path, temp).catch(async () => {
      await copyFile(path, temp, constants.COPYFILE_EXCL)
      await chmod(temp, present.mode & 0o777)
    })
    // Two names of one file: rename(2) does nothing then and leaves the temp name behind.
    await rename(temp, kept)
    await rm(temp, { force: true })
  } catch (error) {
    await rm(temp, { force: true }).catch(() => undefined)
    throw explained(error, `cannot keep ${path} as ${kept}`)
  }
}

/** Makes or replaces a symbolic link in one step. */
export async function linkAtomically(path: string, target: string): Promise<void> {
  const temp = join(dirname(path), tempName(basename(path)))
  try {
    await rm(temp, { force: true })
    await symlink(target, temp)
    await rename(temp, path)
  } catch (error) {
    await rm(temp, { force: true }).catch(() => undefined)
    throw explained(error, `cannot link ${path}`)
  }
}

/** Makes a directory with exactly this mode, whatever the umask; an existing one is only ever made tighter. */
export async function makeDirectory(path: string, mode: number): Promise<void> {
  try {
    const made = await mkdir(path, { recursive: true, mode })
    const { mode: present } = await stat(path) // of the directory itself, where a link leads to it
    if (made !== undefined || (present & 0o777 & ~mode) !== 0) await chmod(path, made !== undefined ? mode : present & mode)
  } catch (error) {
    throw explained(error, `cannot make the directory ${path}`)
  }
}

const remedies: Readonly<Record<string, string>> = {
  ENOSPC: 'the disk is full: make room and run again; nothing was replaced',
  EDQUOT: 'the disk quota is used up: make room and run again; nothing was replaced',
  EACCES: 'permission denied: run lematt as the owner of the configuration directory, or chown it to this user',
  EPERM: 'not permitted: run lematt as the owner of the configuration directory, or chown it to this user',
  EROFS: 'the file system is read-only: remount it',
  EISDIR: 'a directory stands in its place: move it away',
  ENOTDIR: 'something that is no directory stands in its way',
}

/** A file system error as an `OperationalError` that says what to do. */
export function explained(error: unknown, what: string): OperationalError {
  if (error instanceof OperationalError) return error
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  return new OperationalError(`${what}: ${remedies[code] ?? (error instanceof Error ? error.message : String(error))}`, { cause: error })
}
