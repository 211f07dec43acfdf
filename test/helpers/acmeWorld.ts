/** An ACME server, its name server, a fault proxy and our challenge listener, wired to each other on loopback. */
import { openAcme, type Acme, type AcmeAuthorization, type AcmeOptions } from '../../src/edge/acme.js'
import { listener, type Listener } from '../../src/edge/challenge.js'
import { makeCsr, makeKey } from '../../src/edge/x509.js'
import { startFaultProxy, type FaultProxy } from './faultProxy.js'
import { startNameServer, startPebble, type NameServer, type Pebble, type PebbleOptions } from './pebble.js'

export interface World {
  readonly pebble: Pebble
  readonly proxy: FaultProxy
  readonly dns: NameServer
  readonly challenges: Listener
  /** Opens a session through the proxy, with a new account key unless one is given. */
  open(options?: Partial<AcmeOptions>): Promise<Acme>
  stop(): Promise<void>
}

export async function startWorld(options: Omit<PebbleOptions, 'httpPort' | 'dns'>): Promise<World> {
  const [challenges, dns] = await Promise.all([
    listener({ address: '127.0.0.1', port: 0 }), startNameServer(options.program),
  ])
  const pebble = await startPebble({ ...options, httpPort: challenges.port, dns: dns.address })
  const proxy = await startFaultProxy(pebble)
  const sessions: Acme[] = []
  return {
    pebble, proxy, dns, challenges,
    async open(own = {}) {
      const accountKeyPem = own.accountKeyPem ?? await newKey('ec')
      const acme = await openAcme({
        directoryUrl: proxy.directoryUrl, accountKeyPem, contact: [], extraRoots: pebble.roots,
        userAgent: 'lematt-test/1', signal: new AbortController().signal, ...own,
      })
      sessions.push(acme)
      return acme
    },
    async stop() {
      sessions.forEach((acme) => acme.close())
      await Promise.all([proxy.stop(), dns.stop(), pebble.stop(), challenges.close()])
    },
  }
}

export function newKey(keyType: 'rsa' | 'ec'): Promise<string> {
  return makeKey(keyType, { keyBitsRSA: 2048, curve: 'prime256v1' })
}

/** The way of issue.ts, in short: order, challenges, finalize. Gives the chain. */
export async function issue(
  { acme, challenges, names, keyPem }:
  { acme: Acme; challenges: Listener; names: readonly string[]; keyPem: string },
): Promise<string> {
  const order = await acme.newOrder(names)
  for (const url of order.authorizations) await validate(acme, challenges, await acme.authorization(url))
  const { der } = await makeCsr(keyPem, names)
  return acme.finalize(order, der)
}

export async function validate(acme: Acme, challenges: Listener, authorization: AcmeAuthorization): Promise<void> {
  if (authorization.status === 'valid') return
  const challenge = authorization.challenges.find(({ type }) => type === 'http-01')
  if (challenge === undefined) throw new Error(`no http-01 challenge for ${authorization.identifier}`)
  await challenges.present(challenge.token, acme.keyAuthorization(challenge.token))
  try {
    await acme.accept(challenge, authorization.url)
    await acme.validated(authorization.url)
  } finally {
    await challenges.cleanUp(challenge.token)
  }
}
