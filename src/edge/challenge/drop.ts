/** `challengeDropDir`: answers as files in the web server's directory. */
import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { access, open, rename, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { OperationalError } from '../../core/errors.js'
import { cleanLine } from '../../core/text.js'
import { requireToken, type Solver } from './solver.js'

/**
 * Files in `challengeDropDir`, named after their token, readable by the web server whatever the umask.
 * @param warn gets one line for each file that could not be removed
 * @param note gets the paths of files before they are made, for whoever must remove them should we be killed
 */
export function dropDirectory(
  directory: string, warn: (message: string) => void,
  note: (files: readonly string[]) => Promise<void> = () => Promise.resolve(),
): Solver {
  // Counted as soon as it is asked for, and one after the other on the disk: the removal for one order must not meet
  // the file that another has just been promised.
  const users = new Map<string, number>()
  const written = new Set<string>()
  const turns = new Map<string, Promise<void>>()

  function inTurn(token: string, work: () => Promise<void>): Promise<void> {
    const done = (turns.get(token) ?? Promise.resolve()).then(work)
    const turn = done.catch(() => undefined).then(() => {
      if (turns.get(token) === turn) turns.delete(token)
    })
    turns.set(token, turn)
    return done
  }

  async function write(token: string, keyAuthorization: string): Promise<void> {
    // Hidden, so that no web server lists or serves it half written; exclusive, so that no link is followed.
    const temporary = join(directory, `.lematt-${randomBytes(8).toString('hex')}`)
    await note([temporary, join(directory, token)])
    try {
      const file = await open(temporary, 'wx', 0o600)
      try {
        await file.writeFile(keyAuthorization)
        await file.chmod(0o644)
      } finally {
        await file.close()
      }
      await rename(temporary, join(directory, token))
      written.add(token)
    } catch (error) {
      await unlink(temporary).catch(() => undefined)
      throw new OperationalError(whyNotDropped(directory, error as NodeJS.ErrnoException), { cause: error })
    }
  }

  async function removeUnused(token: string): Promise<void> {
    if (users.has(token) || !written.delete(token)) return
    try {
      await unlink(join(directory, token))
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code !== 'ENOENT') warn(`cannot remove ${token} from ${directory} (${String(code)}); remove it by hand`)
    }
  }

  function cleanUp(token: string): Promise<void> {
    const count = users.get(token)
    if (count === undefined) return Promise.resolve()
    if (count > 1) users.set(token, count - 1)
    else users.delete(token)
    return inTurn(token, () => removeUnused(token))
  }

  return {
    async present(token, keyAuthorization) {
      requireToken(token)
      users.set(token, (users.get(token) ?? 0) + 1)
      try {
        await inTurn(token, () => write(token, keyAuthorization))
      } catch (error) {
        await cleanUp(token)
        throw error
      }
    },
    cleanUp,
    async close() {
      const tokens = new Set([...users.keys(), ...written])
      users.clear()
      await Promise.all([...tokens].map(token => inTurn(token, () => removeUnused(token))))
    },
  }
}

/**
 * Looks whether files can be put into the directory: before the first order, for an order whose challenges cannot be
 * answered is spent for nothing. @throws OperationalError with the remedy
 */
export async function checkDropDirectory(directory: string): Promise<void> {
  try {
    // The dot asks for a directory.
    await access(`${directory}/.`, constants.W_OK | constants.X_OK)
  } catch (error) {
    throw new OperationalError(whyNotDropped(directory, error as NodeJS.ErrnoException), { cause: error })
  }
}

function whyNotDropped(directory: string, error: NodeJS.ErrnoException): string {
  const user = process.getuid?.() ?? 'ours'
  const remedies: Record<string, string> = {
    ENOENT: 'does not exist; create it and let the web server serve it as /.well-known/acme-challenge/',
    ENOTDIR: 'is not a directory; name the one that the web server serves as /.well-known/acme-challenge/',
    EACCES: `is not writable for uid ${user}; give it to this user (chown), or allow it: setfacl -m u:${user}:rwx`,
    EROFS: 'is on a file system mounted read-only; remount it, or name another directory',
    ENOSPC: 'is on a full disk; make room',
    EDQUOT: 'is over the quota of this user; make room',
    EISDIR: 'holds a directory with the name of a challenge token; remove it',
  }
  const code = error.code === 'EPERM' ? 'EACCES' : error.code ?? ''
  return `challengeDropDir ${directory} ${remedies[code] ?? `cannot be written to: ${cleanLine(error.message)}`}`
}
