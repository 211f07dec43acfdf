/** Ports on a host whose connections come to us (RFC 4254 §7). */
import type { Duplex } from 'node:stream'
import { cleanLine } from '../../core/text.js'
import type { LoggedIn } from './handshake.js'
import { HostError } from './hostError.js'
import type { SshTarget } from './resolve.js'
import type { ClientChannel } from './ssh2.js'

/** How long the host may take to give a port back. */
const lateMs = 2000

type Accept = (channel: Duplex) => void

/** The listening ports of one connection. */
export class Listeners {
  private readonly accepts = new Map<string, Accept>()

  constructor(private readonly target: SshTarget, private readonly link: LoggedIn) {
    link.client.on('tcp connection', ({ destIP, destPort }, take, reject) => {
      const accept = this.accepts.get(`${destIP} ${destPort}`)
      if (accept === undefined) reject()
      else {
        const channel: ClientChannel = take()
        channel.on('error', () => undefined) // whoever has it sees its end
        accept(channel)
      }
    })
  }

  /** sshd listens on `address` (as its permitlist has it) and `port` until the function that this gives is called. Throws HostError. */
  async listen(address: string, port: number, accept: Accept): Promise<() => Promise<void>> {
    const { client, closed, isClosed } = this.link
    const place = `${address}:${port}`
    const refusal = (why: string): HostError => new HostError(this.target.name,
      `sshd does not listen on ${place} for us (${why}); the authorized_keys line needs port-forwarding,permitlisten="${place}", and nothing else may have the port`)
    const realPort = await new Promise<number>((resolve, reject) => {
      void closed.then(() => reject(new HostError(this.target.name, 'the connection was lost; is the network well?')))
      try {
        client.forwardIn(address, port, (error, given) => {
          if (error === undefined) resolve(given)
          else if (!isClosed()) reject(refusal(cleanLine(error.message, 200)))
        })
      } catch {
        reject(new HostError(this.target.name, 'the connection is gone; is the network well?'))
      }
    })
    const key = `${address} ${realPort}`
    this.accepts.set(key, accept)
    return async () => {
      if (!this.accepts.delete(key)) return
      await Promise.race([closed, new Promise<void>(resolve => {
        const timer = setTimeout(resolve, lateMs)
        try {
          client.unforwardIn(address, realPort, () => {
            clearTimeout(timer)
            resolve()
          })
        } catch {
          clearTimeout(timer)
          resolve() // the connection is gone, and the port with it
        }
      })])
    }
  }
}
