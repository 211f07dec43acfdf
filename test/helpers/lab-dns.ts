// The name server of a lab: pebble-challtestsrv, answering with what it was told and with nothing else.
import { existsSync } from 'node:fs'
import { Resolver } from 'node:dns/promises'
import { isIPv6 } from 'node:net'
import type { Machine } from './lab-machine.js'
import { run, type Daemon } from './lab-process.js'

const BUILT = new URL('../../.cache/go/bin/', import.meta.url).pathname

/** The newest that is installed of pebble's two programs (scripts/setup builds newer ones than Debian's). */
export function pebbleProgram(name: 'pebble' | 'pebble-challtestsrv'): string {
  return existsSync(BUILT + name) ? BUILT + name : name
}

export class Dns {
  private constructor(private readonly management: string, readonly daemon: Daemon) {}

  /** Starts it on port 53 of the machine's address; it is ready when this resolves. */
  static async start(machine: Machine): Promise<Dns> {
    const program = pebbleProgram('pebble-challtestsrv')
    const { stderr } = await run(program, ['-help'])
    const listen = `${machine.address}:53`
    const dns = stderr.includes('-dnsserver') ? ['-dnsserver', listen, '-doh', ''] : ['-dns01', listen]
    const daemon = machine.spawn(program, [
      ...dns, '-management', `${machine.address}:8055`, '-defaultIPv4', '', '-defaultIPv6', '',
      '-http01', '', '-https01', '', '-tlsalpn01', '',
    ])
    const server = new Dns(`http://${machine.address}:8055`, daemon)
    const resolver = new Resolver({ timeout: 200, tries: 1 })
    resolver.setServers([machine.address])
    await daemon.ready('an answer', async () => {
      await server.set('ready.lab.test', [machine.address])
      const [address] = await resolver.resolve4('ready.lab.test')
      return address === machine.address
    })
    return server
  }

  /** Gives a name these addresses (A for IPv4, AAAA for IPv6) in place of those it had. */
  async set(name: string, addresses: readonly string[]): Promise<void> {
    await this.clear(name)
    const v6 = addresses.filter(isIPv6)
    const v4 = addresses.filter(address => !isIPv6(address))
    if (v4.length > 0) await this.post('add-a', { host: name, addresses: v4 })
    if (v6.length > 0) await this.post('add-aaaa', { host: name, addresses: v6 })
  }

  /** Takes a name's addresses away, and its failure: it has none then, like every name that was never set. */
  async clear(name: string): Promise<void> {
    for (const what of ['clear-a', 'clear-aaaa', 'clear-servfail']) await this.post(what, { host: name })
  }

  /** Answers SERVFAIL for a name until it is set or cleared. */
  async fail(name: string): Promise<void> {
    await this.post('set-servfail', { host: name })
  }

  /** Sends one of challtestsrv's management requests, as in `post('set-txt', { host: 'a.test.', value: 'x' })`. */
  async post(what: string, body: Record<string, unknown>): Promise<void> {
    const answer = await fetch(`${this.management}/${what}`, { method: 'POST', body: JSON.stringify(body) })
    if (!answer.ok) throw new Error(`challtestsrv: ${what}: ${answer.status} ${await answer.text()}`)
  }
}
