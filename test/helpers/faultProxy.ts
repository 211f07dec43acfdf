/**
 * A TLS proxy in front of a real Pebble, for what no Pebble does on demand: rate limits, outages, lost answers, pages
 * of other servers. Pebble makes its URLs from the Host header, and that is ours, so the client stays with us.
 */
import { readFileSync } from 'node:fs'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'

/** A request as the client sent it; `payload` is what its JWS holds, `''` for a POST-as-GET. */
export interface Seen {
  readonly method: string
  readonly path: string
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly payload: string
  /** 1 for the first request to this path. */
  readonly nth: number
}

export interface Reply { status: number; headers: Record<string, string | string[]>; body: string }

export type Rewrite = (reply: Reply) => void

/**
 * `pass` it on, perhaps after `delayMs`, with the reply changed by `rewrite`, or lost (`lose`) after Pebble did its
 * work; or answer in Pebble's place; or `cut` the connection; or `hang`; or `flood` with so many bytes.
 */
export type Action =
  | { readonly do: 'pass'; readonly delayMs?: number; readonly lose?: boolean; readonly rewrite?: Rewrite }
  | { readonly do: 'answer'; readonly status: number; readonly headers?: Reply['headers']; readonly body?: string }
  | { readonly do: 'cut' }
  | { readonly do: 'hang' }
  | { readonly do: 'flood'; readonly bytes: number }

export type Rule = (request: Seen) => Action | undefined

export interface FaultProxy {
  readonly directoryUrl: string
  /** Every request since the last `use`, in order. */
  readonly seen: Seen[]
  /** How many bytes a client took of floods. */
  flooded(): number
  /** Sets the rule (undefined, or what it gives for a request: pass) and forgets what was seen. */
  use(rule?: Rule): void
  stop(): Promise<void>
}

/** In front of the Pebble at `address:port`, with its certificate. */
export async function startFaultProxy(
  { address, port, certFile, keyFile, roots }:
  { address: string; port: number; certFile: string; keyFile: string; roots: string },
): Promise<FaultProxy> {
  const seen: Seen[] = []
  let rule: Rule | undefined
  let flooded = 0
  const agent = new https.Agent({ keepAlive: true, ca: roots })
  const server = https.createServer({ cert: readFileSync(certFile), key: readFileSync(keyFile) })

  server.on('request', (request, response) => {
    const chunks: Buffer[] = []
    request.on('error', () => undefined)
    response.on('error', () => undefined)
    request.on('data', (chunk: Buffer) => chunks.push(chunk)).on('end', () => {
      const body = Buffer.concat(chunks)
      const { method = '', url: path = '', headers } = request
      const nth = seen.filter((earlier) => earlier.path === path && earlier.method === method).length + 1
      const entry = { method, path, headers, payload: payloadOf(body), nth }
      seen.push(entry)
      act(rule?.(entry) ?? { do: 'pass' }).catch(() => request.socket.destroy())

      async function act(action: Action): Promise<void> {
        if (action.do === 'hang') return
        if (action.do === 'cut') request.socket.destroy()
        else if (action.do === 'flood') flood(action.bytes)
        else if (action.do === 'answer') response.writeHead(action.status, action.headers).end(action.body ?? '')
        else {
          if (action.delayMs !== undefined) await pause(action.delayMs)
          const reply = await forward({ method, path, headers, body })
          action.rewrite?.(reply)
          if (action.lose === true) request.socket.destroy()
          else response.writeHead(reply.status, reply.headers).end(method === 'HEAD' ? undefined : reply.body)
        }
      }

      function flood(left: number): void {
        if (!response.headersSent) response.writeHead(200, { 'content-type': 'application/json' })
        const piece = Math.min(left, 65_536)
        if (piece <= 0 || response.destroyed) response.end()
        else {
          response.write(Buffer.alloc(piece, ' '), (error) => {
            if (error) return
            flooded += piece
            flood(left - piece)
          })
        }
      }
    })
  })

  function forward(asked: { method: string; path: string; headers: Seen['headers']; body: Buffer }): Promise<Reply> {
    return new Promise((resolve, reject) => {
      const { method, path, headers, body } = asked
      const request = https.request({ host: address, port, method, path, headers: { ...headers }, agent }, (answer) => {
        let text = ''
        answer.setEncoding('utf8').on('data', (part: string) => { text += part }).on('error', reject).on('end', () => {
          // The body may be rewritten, and its length is then another.
          const dropped = ['content-length', 'transfer-encoding', 'connection']
          const kept: Reply['headers'] = {}
          for (const [name, value] of Object.entries(answer.headers)) {
            if (value !== undefined && !dropped.includes(name)) kept[name] = value
          }
          resolve({ status: answer.statusCode ?? 0, headers: kept, body: text })
        })
      }).on('error', reject)
      request.end(body)
    })
  }

  await new Promise<void>((resolve) => server.listen(0, address, resolve))
  return {
    directoryUrl: `https://${address}:${(server.address() as AddressInfo).port}/dir`,
    seen,
    flooded: () => flooded,
    use(next) {
      rule = next
      seen.length = 0
    },
    stop: () => new Promise((resolve) => {
      agent.destroy()
      server.close(() => resolve())
      server.closeAllConnections()
    }),
  }
}

function payloadOf(body: Buffer): string {
  try {
    const jws = JSON.parse(body.toString('utf8')) as { payload?: string }
    return Buffer.from(jws.payload ?? '', 'base64url').toString('utf8')
  } catch {
    return ''
  }
}
