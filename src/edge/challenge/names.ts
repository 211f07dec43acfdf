/**
 * Looks up host names in DNS as a CA does: A and AAAA records of the configured name servers. `/etc/hosts` and the rest of
 * nsswitch are not asked, for the CA does not know them either. Not getaddrinfo(3), which occupies one of Node's four threads
 * for half a minute when a name server is silent, cannot be cancelled, and keeps the process from ending.
 */
import { NODATA, NOTFOUND, REFUSED, SERVFAIL, TIMEOUT, CONNREFUSED } from 'node:dns'
import { Resolver } from 'node:dns/promises'

export interface Address {
  readonly address: string
  /** 4 or 6. */
  readonly family: number
}

/** Gives the addresses of a host name. Rejects with an `Error` that has a `code` of node:dns; ends early on abort. */
export type Resolve = (host: string, signal: AbortSignal) => Promise<readonly Address[]>

/** Each name server is asked twice: for 2 s, and then a little longer. */
const patience = { timeout: 2000, tries: 2 }

/** @param servers asked in place of those of /etc/resolv.conf, as `127.0.0.1:5300` */
export function dnsResolver(servers?: readonly string[]): Resolve {
  return async (host, signal) => {
    // One for each look-up: cancelling ends all that a resolver does, and no other's quick answers shorten its patience.
    const resolver = new Resolver(patience)
    if (servers !== undefined) resolver.setServers(servers)
    const cancel = (): void => resolver.cancel()
    signal.addEventListener('abort', cancel, { once: true })
    try {
      signal.throwIfAborted()
      const [v6, v4] = await Promise.allSettled([resolver.resolve6(host), resolver.resolve4(host)])
      const found = [...addresses(v6, 6), ...addresses(v4, 4)]
      if (found.length > 0) return found
      const reasons = [v4, v6].flatMap(one => one.status === 'rejected' ? [one.reason as NodeJS.ErrnoException] : [])
      // That a family has no records is the least interesting.
      const reason = reasons.find(({ code }) => code !== NODATA) ?? reasons[0]
      if (reason !== undefined) throw reason
      return []
    } finally {
      signal.removeEventListener('abort', cancel)
    }
  }
}

function addresses(result: PromiseSettledResult<readonly string[]>, family: number): Address[] {
  return result.status === 'fulfilled' ? result.value.map(address => ({ address, family })) : []
}

/** Why a name has no address, for a message: from the `code` of node:dns. */
export function whyNoAddress(code: string | undefined): string {
  const reasons: Record<string, string> = {
    [NODATA]: 'it has neither an A nor an AAAA record in DNS',
    [NOTFOUND]: 'it does not exist in DNS (NXDOMAIN)',
    [SERVFAIL]: 'the name server cannot tell (SERVFAIL); are the servers of its zone up, and its DNSSEC signatures valid?',
    [REFUSED]: 'the name server refuses to tell (REFUSED)',
    [TIMEOUT]: 'the name server does not answer',
    [CONNREFUSED]: 'no name server can be reached; see /etc/resolv.conf',
  }
  return reasons[code ?? ''] ?? `the name server’s answer is of no use (${code ?? 'unknown'})`
}
