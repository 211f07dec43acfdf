/** `challengeListen`: our own web server, which knows the presented tokens and nothing else. */
import http from 'node:http'
import type { Socket } from 'node:net'
import { OperationalError } from '../../core/errors.js'
import { cleanLine } from '../../core/text.js'
import { requireToken, type Solver } from './solver.js'

/** Without a whole request for so long, a connection ends. */
const connectionMs = 5000
/** A CA asks from half a dozen places; the rest is the internet knocking. */
const maxConnections = 256

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
  /** Who has not sent a whole request. Sets keep the order of insertion: the first is the oldest. */
  const waiting = new Set<Socket>()
  const server = http.createServer({ maxHeaderSize: 8192 }, (request, response) => {
    waiting.delete(request.socket)
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
  // When there are too many the oldest goes, never the new one: the CA's request needs milliseconds, and who holds a
  // connection open for longer is not the CA.
  server.on('connection', (socket) => {
    const timer = setTimeout(() => socket.destroy(), connectionMs)
    waiting.add(socket)
    socket.on('close', () => {
      clearTimeout(timer)
      waiting.delete(socket)
    })
    for (const oldest of waiting) {
      if (waiting.size <= maxConnections) break
      waiting.delete(oldest)
      oldest.destroy()
    }
  })

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
        for (const socket of waiting) socket.destroy()
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
