/** A TCP proxy for what networks do: it cuts, delays, swallows, refuses. */
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'

/**
 * What becomes of a new connection: passed on, perhaps `delayMs` later in each direction; `silent`: taken, and nothing ever
 * said; `close`: closed at once; `reset`: with a RST. `cutAfter`: so many bytes of the client, then cut with a RST.
 */
export type TcpMode = { readonly do: 'pass'; readonly delayMs?: number; readonly cutAfter?: number } | { readonly do: 'silent' | 'close' | 'reset' }

export interface TcpProxy {
  readonly port: number
  /** Bytes that clients have sent. */
  sent(): number
  /** Connections so far. */
  connections(): number
  /** For new connections; given a function, by their number from 1. */
  use(mode: TcpMode | ((nth: number) => TcpMode)): void
  /** Cuts all connections that stand now, with a RST. */
  cut(): void
  /** From now on nothing passes, but nothing is closed: the cable is out. */
  freeze(): void
  stop(): Promise<void>
}

export async function startTcpProxy(target: { readonly address: string; readonly port: number }): Promise<TcpProxy> {
  let [sent, nth, frozen] = [0, 0, false]
  let mode: (nth: number) => TcpMode = () => ({ do: 'pass' })
  const sockets = new Set<Socket>()
  const keep = (socket: Socket): Socket => {
    sockets.add(socket)
    return socket.on('error', () => undefined).on('close', () => sockets.delete(socket))
  }
  const server = createServer({ noDelay: true }, client => {
    keep(client)
    const now = mode(nth += 1)
    if (now.do === 'silent') return
    if (now.do !== 'pass') {
      if (now.do === 'reset') client.resetAndDestroy()
      else client.destroy()
      return
    }
    const { delayMs = 0, cutAfter = Infinity } = now
    let left = cutAfter
    const upstream = keep(connect({ host: target.address, port: target.port, noDelay: true }))
    const pass = (from: Socket, to: Socket): void => {
      const later = (what: () => void): void => {
        if (delayMs === 0) what()
        else setTimeout(what, delayMs)
      }
      from.on('data', (chunk: Buffer) => {
        if (from === client) sent += chunk.length
        if (from === client && (left -= chunk.length) < 0) {
          client.resetAndDestroy()
          upstream.resetAndDestroy()
          return
        }
        if (!frozen) later(() => to.write(chunk))
      })
      from.on('end', () => { if (!frozen) later(() => to.end()) })
      from.on('close', () => { if (!frozen) later(() => to.destroy()) })
    }
    pass(client, upstream)
    pass(upstream, client)
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  return {
    port: (server.address() as AddressInfo).port,
    sent: () => sent,
    connections: () => nth,
    use(next) {
      mode = typeof next === 'function' ? next : () => next
    },
    cut: () => sockets.forEach(socket => socket.resetAndDestroy()),
    freeze() {
      frozen = true
    },
    stop: () => new Promise(resolve => {
      server.close(() => resolve())
      for (const socket of sockets) socket.destroy()
    }),
  }
}
