/** Answers HTTP requests for the presented tokens (RFC 8555 §8.3) on whatever connection it is given, and knows nothing else. */
import http from 'node:http'
import type { Duplex } from 'node:stream'
import { requireToken, type Solver } from './solver.js'

/** So long a connection has for its request and our answer: the CA's takes milliseconds. */
const connectionMs = 5000
/** A CA asks from half a dozen places; the rest is the internet knocking. */
const maxConnections = 256

export interface Answerer extends Solver {
  /** Takes a connection: a socket, or a channel of SSH. It is ended after one answer, or without one after 5 s. Never throws. */
  readonly accept: (connection: Duplex) => void
}

/** Answers GET and HEAD for the presented tokens, everything else with 404. Listens nowhere by itself. */
export function answerer(): Answerer {
  const answers = new Map<string, { readonly body: string; users: number }>()
  /** All connections, with what ends them. */
  const open = new Map<Duplex, NodeJS.Timeout>()
  /** Who has not sent a whole request. Sets keep the order of insertion: the first is the oldest. */
  const waiting = new Set<Duplex>()
  let closed = false
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

  function forget(connection: Duplex): void {
    clearTimeout(open.get(connection))
    open.delete(connection)
    waiting.delete(connection)
  }
  function drop(connection: Duplex): void {
    forget(connection)
    connection.destroy()
  }

  return {
    accept(connection) {
      // What node:http has given up would otherwise end the process when its client resets it.
      connection.on('error', () => undefined).on('close', () => forget(connection))
      if (closed) {
        drop(connection)
        return
      }
      open.set(connection, setTimeout(drop, connectionMs, connection))
      waiting.add(connection)
      // When there are too many the oldest goes, never the new one: the CA's request needs milliseconds, and who holds a
      // connection open for longer is not the CA.
      for (const oldest of waiting) {
        if (waiting.size <= maxConnections) break
        drop(oldest)
      }
      // Any Duplex will do (node:http, event 'connection').
      server.emit('connection', connection)
    },
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
      closed = true
      answers.clear()
      for (const connection of [...open.keys()]) drop(connection)
      return Promise.resolve()
    },
  }
}
