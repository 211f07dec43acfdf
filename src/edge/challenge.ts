/**
 * http-01 (RFC 8555 §8.3): puts key authorizations where the CA will look, in the web server's directory or on a
 * listener of our own.
 */
import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { access, open, rename, unlink } from 'node:fs/promises'
import http from 'node:http'
import { join } from 'node:path'
import { isToken } from '../core/acmeMessages.js'
import { OperationalError } from '../core/errors.js'
import { cleanLine } from '../core/text.js'

export { fetchChallenge, waitForChallenge, type Fetched, type FetchOptions, type Resolve } from './challenge/fetch.js'

/**
 * One way to answer challenges. MUST: `present` returns only when the answer is in place; a token presented twice
 * (two orders may share a pending authorization) stays until it is cleaned up twice; `cleanUp` never throws, for it
 * runs when something else has failed, and touches nothing that was not presented; `close` ends all of it.
 */
export interface Solver {
  /** Throws `OperationalError` with the remedy when it cannot. */
  present(token: string, keyAuthorization: string): Promise<void>
  cleanUp(token: string): Promise<void>
  close(): Promise<void>
}

/**
 * Files in `challengeDropDir`, named after their token, readable by the web server whatever the umask.
 * @param warn gets one line for each file that could not be removed
 * @param note gets the paths of files before they are made, for whoever must remove them should we be killed
 */
export function dropDirectory(
  directory: string, warn: (message: string) => void, note: (files: readonly string[]) => Promise<void> = () => Promise.resolve(),
): Solver {
  const users = new Map<string, number>()

  async function remove(token: string): Promise<void> {
    try {
      await unlink(join(directory, token))
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code !== 'ENOENT') warn(`cannot remove ${token} from ${directory} (${String(code)}); remove it by hand`)
    }
  }

  return {
    async present(token, keyAuthorization) {
      requireToken(token)
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
      } catch (error) {
        await unlink(temporary).catch(() => undefined)
        throw new OperationalError(whyNotDropped(directory, error as NodeJS.ErrnoException), { cause: error })
      }
      users.set(token, (users.get(token) ?? 0) + 1)
    },
    async cleanUp(token) {
      const left = (users.get(token) ?? 0) - 1
      if (left > 0) users.set(token, left)
      else if (users.delete(token)) await remove(token)
    },
    async close() {
      const tokens = [...users.keys()]
      users.clear()
      await Promise.all(tokens.map(remove))
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

/** `challengeListen`: our own web server, which knows the presented tokens and nothing else. */
export interface Listener extends Solver {
  /** As bound. */
  readonly port: number
}

/**
 * Listens on `address:port` (port 0: any free one) and answers GET and HEAD for the presented tokens.
 * Throws `OperationalError` with the remedy when it cannot listen.
 */
export async function listener(at: { readonly address: string; readonly port: number }): Promise<Listener> {
  const answers = new Map<string, { readonly body: string; users: number }>()
  const server = http.createServer({
    maxHeaderSize: 8192, headersTimeout: 5000, requestTimeout: 10_000, keepAliveTimeout: 1000,
    connectionsCheckingInterval: 1000,
  }, (request, response) => {
    const [, token = ''] = /^\/\.well-known\/acme-challenge\/([A-Za-z0-9_-]+)$/u.exec(request.url ?? '') ?? []
    const answer = request.method === 'GET' || request.method === 'HEAD' ? answers.get(token) : undefined
    // A body that nobody asked for is not read to its end either.
    response.setHeader('connection', 'close')
    if (answer === undefined) response.writeHead(404, { 'content-length': 0 }).end()
    else {
      const headers = { 'content-type': 'application/octet-stream', 'content-length': Buffer.byteLength(answer.body) }
      response.writeHead(200, headers).end(request.method === 'HEAD' ? undefined : answer.body)
    }
  })
  // A CA asks from half a dozen places; the rest is the internet knocking.
  server.maxConnections = 256
  server.on('connection', (socket) => socket.setTimeout(15_000, () => socket.destroy()))

  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      reject(new OperationalError(whyNotBound(at, error), { cause: error }))
    })
    server.listen({ host: at.address, port: at.port }, resolve)
  })
  const bound = server.address()

  return {
    port: typeof bound === 'object' && bound !== null ? bound.port : at.port,
    present(token, keyAuthorization) {
      requireToken(token)
      const users = (answers.get(token)?.users ?? 0) + 1
      answers.set(token, { body: keyAuthorization, users })
      return Promise.resolve()
    },
    cleanUp(token) {
      const answer = answers.get(token)
      if (answer !== undefined && --answer.users <= 0) answers.delete(token)
      return Promise.resolve()
    },
    close() {
      answers.clear()
      return new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      })
    },
  }
}

function whyNotBound({ address, port }: { address: string; port: number }, error: NodeJS.ErrnoException): string {
  const remedies: Record<string, string> = {
    EADDRINUSE: 'is in use by another program (see ss -ltnp); use challengeDropDir with that one, or another port',
    EACCES: 'needs a right that this user lacks; let the web server pass the challenges on to a port above 1023',
    EADDRNOTAVAIL: 'is not an address of this machine; use one that `ip address` shows',
  }
  const why = remedies[error.code ?? ''] ?? `cannot be listened on: ${cleanLine(error.message)}`
  return `challengeListen ${address.includes(':') ? `[${address}]` : address}:${port} ${why}`
}

/** Tokens become file names: what has not passed core/acmeMessages.ts is a bug. */
function requireToken(token: string): void {
  if (!isToken(token)) throw new TypeError('a challenge token is not base64url')
}
