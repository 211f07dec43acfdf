/** The host keys that a host shows, without logging in: for enrolment and for check. */
import type { Duplex } from 'node:stream'
import { algorithmsByKind, keyFingerprint, keyType, knownHostsName, type Judgement } from '../../core/knownHosts.js'
import { logIn } from './handshake.js'
import { HostError } from './hostError.js'
import type { Links } from './links.js'
import type { SshTarget } from './resolve.js'

export interface ShownKey {
  readonly type: string
  /** `SHA256:…`. */
  readonly fingerprint: string
  /** A line for known_hosts. */
  readonly line: string
  readonly known: Judgement['known']
}

/** One handshake per kind of key, each broken off at the key. Throws HostError when the host shows none. */
export async function shownKeys(target: SshTarget, links: Links, signal: AbortSignal): Promise<ShownKey[]> {
  const trust = await links.trust(target)
  const shown: ShownKey[] = []
  const name = knownHostsName({ hostName: target.hostName, port: target.port, alias: target.hostKeyAlias })
  let failure: Error | undefined
  for (const algorithms of algorithmsByKind) {
    const key = await keyOf(target, links, algorithms, signal).catch((error: unknown) => {
      if (signal.aborted) throw signal.reason as Error
      failure = error instanceof Error ? error : new Error(String(error))
      return undefined
    })
    const type = key === undefined ? undefined : keyType(key)
    if (key === undefined || type === undefined) {
      // Where the first does not even get to the handshake, the others would not either.
      if (failure instanceof HostError && !/no algorithm in common/u.test(failure.message)) break
      continue
    }
    shown.push({ type, fingerprint: keyFingerprint(key), line: `${name} ${type} ${key.toString('base64')}`, known: trust.judge(key).known })
  }
  if (shown.length === 0) throw failure ?? new HostError(target.name, 'it shows no host key that lematt knows; give it one with ssh-keygen -A')
  return shown
}

async function keyOf(target: SshTarget, links: Links, algorithms: readonly string[], signal: AbortSignal): Promise<Buffer | undefined> {
  const stream: Duplex = await links.stream(target)
  let key: Buffer | undefined
  const judge = (shown: Buffer): Judgement => {
    key = shown
    return { known: 'unknown' } // and so the handshake ends here
  }
  const login = { methods: [], tried: [], notes: [] }
  try {
    await links.handshake(() => logIn(stream, { target, trust: { algorithms, judge, isPinned: false }, login, signal }))
  } catch (error) {
    if (key === undefined) throw error
  }
  return key
}
