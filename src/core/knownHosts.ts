/**
 * known_hosts (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"): which keys are known for a host, and what they say of the one that
 * it shows. Decides as ssh itself does with StrictHostKeyChecking yes, but for host certificates, which ssh2 cannot check.
 */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto'

/** One line that can be used. */
export interface KnownLine {
  readonly file: string
  /** From 1. */
  readonly line: number
  readonly marker?: 'cert-authority' | 'revoked'
  /** The first field as written: patterns, or one hashed name. */
  readonly hosts: string
  readonly type: string
  /** The key as it goes over the wire (RFC 4253 §6.6). */
  readonly key: Buffer
}

/** Under what a host's key is looked for. */
export interface HostLookup {
  /** As ssh resolves the name, in any case. */
  readonly hostName: string
  readonly port: number
  /** HostKeyAlias: takes the place of name and port. */
  readonly alias?: string | undefined
}

export interface Judgement {
  /** `changed`: another key of the same type is known. `unknown`: none of this type. */
  readonly known: 'known' | 'unknown' | 'changed' | 'revoked'
  /** The line that decided. */
  readonly line?: KnownLine
  /** The host is in the hands of a certificate authority (`@cert-authority`), which does not help us. */
  readonly authority?: KnownLine
}

/** The lines that can be used; what ssh would skip (comments, unknown markers, keys that are none) is skipped. Never throws. */
export function parseKnownHosts(text: string, file: string): KnownLine[] {
  const lines: KnownLine[] = []
  for (const [index, whole] of text.split('\n').entries()) {
    const words = whole.trim().split(/[ \t]+/u)
    const marker = words[0]?.startsWith('@') === true ? words.shift() : undefined
    const [hosts = '', type = '', base64 = ''] = words
    if (hosts === '' || hosts.startsWith('#') || !/^[A-Za-z0-9+/]+={0,2}$/u.test(base64)) continue
    if (marker !== undefined && marker !== '@cert-authority' && marker !== '@revoked') continue
    const key = Buffer.from(base64, 'base64')
    if (keyType(key) !== type) continue
    const line = { file, line: index + 1, hosts, type, key }
    if (marker === undefined) lines.push(line)
    else lines.push({ ...line, marker: marker === '@revoked' ? 'revoked' : 'cert-authority' })
  }
  return lines
}

/** The name that stands in known_hosts: `host`, `[host]:port` for another port than 22, or the alias. */
export function knownHostsName({ hostName, port, alias }: HostLookup): string {
  const name = (alias ?? hostName).toLowerCase()
  return alias !== undefined || port === 22 ? name : `[${name}]:${port}`
}

/** Whether the first field of a line means `name` (from `knownHostsName`). */
export function hostsMatch(hosts: string, name: string): boolean {
  if (hosts.startsWith('|')) return hashMatches(hosts, name)
  let found = false
  // As ssh does it, whatever case the line is written in.
  for (const pattern of hosts.toLowerCase().split(',')) {
    if (pattern.startsWith('!')) {
      if (globMatches(pattern.slice(1), name)) return false
    } else if (globMatches(pattern, name)) found = true
  }
  return found
}

/** `|1|SALT|HASH`: HMAC-SHA1 of the name, keyed with the salt (HashKnownHosts). */
function hashMatches(hosts: string, name: string): boolean {
  const [, version, salt = '', hash = '', ...more] = hosts.split('|')
  if (version !== '1' || more.length > 0) return false
  const [key, wanted] = [Buffer.from(salt, 'base64'), Buffer.from(hash, 'base64')]
  return wanted.length === 20 && timingSafeEqual(createHmac('sha1', key).update(name).digest(), wanted)
}

/** `*` and `?`, anchored at both ends. Without backtracking beyond the last `*`, so no pattern takes long. */
function globMatches(pattern: string, name: string): boolean {
  let [p, n, star, mark] = [0, 0, -1, 0]
  while (n < name.length) {
    if (pattern[p] === '*') [star, mark, p] = [p, n, p + 1]
    else if (p < pattern.length && (pattern[p] === '?' || pattern[p] === name[n])) [p, n] = [p + 1, n + 1]
    else if (star >= 0) [p, mark, n] = [star + 1, mark + 1, mark + 1]
    else return false
  }
  while (pattern[p] === '*') p += 1
  return p === pattern.length
}

/** The lines about a host; as in ssh, those of its name without the port stand in when there is none for its port. */
export function linesFor(lines: readonly KnownLine[], lookup: HostLookup): { exact: KnownLine[]; portless: KnownLine[] } {
  const name = knownHostsName(lookup)
  const portless = knownHostsName({ ...lookup, port: 22 })
  return {
    exact: lines.filter(line => hostsMatch(line.hosts, name)),
    portless: name === portless ? [] : lines.filter(line => hostsMatch(line.hosts, portless)),
  }
}

/** What known_hosts says of the key that a host shows. */
export function judge(found: ReturnType<typeof linesFor>, key: Buffer): Judgement {
  const exact = judgeBy(found.exact, key)
  if (exact.known !== 'unknown') return exact
  const portless = judgeBy(found.portless, key)
  // Another key without the port may well be that of another sshd: it says nothing of this one.
  if (portless.known === 'known' || portless.known === 'revoked') return portless
  const authority = exact.authority ?? portless.authority
  return authority === undefined ? { known: 'unknown' } : { known: 'unknown', authority }
}

function judgeBy(lines: readonly KnownLine[], key: Buffer): Judgement {
  const revoked = lines.find(line => line.marker === 'revoked' && line.key.equals(key))
  if (revoked !== undefined) return { known: 'revoked', line: revoked }
  const plain = lines.filter(line => line.marker === undefined)
  const same = plain.find(line => line.key.equals(key))
  if (same !== undefined) return { known: 'known', line: same }
  const other = plain.find(line => line.type === keyType(key))
  if (other !== undefined) return { known: 'changed', line: other }
  const authority = lines.find(line => line.marker === 'cert-authority')
  return authority === undefined ? { known: 'unknown' } : { known: 'unknown', authority }
}

/** Signature algorithms for host keys (RFC 8332, 8709, 5656) that we take; no SHA-1. */
const hostKeyAlgorithms: readonly { readonly type: string; readonly algorithms: readonly string[] }[] = [
  { type: 'ssh-ed25519', algorithms: ['ssh-ed25519'] },
  { type: 'ecdsa-sha2-nistp256', algorithms: ['ecdsa-sha2-nistp256'] },
  { type: 'ecdsa-sha2-nistp384', algorithms: ['ecdsa-sha2-nistp384'] },
  { type: 'ecdsa-sha2-nistp521', algorithms: ['ecdsa-sha2-nistp521'] },
  { type: 'ssh-rsa', algorithms: ['rsa-sha2-512', 'rsa-sha2-256'] },
]

/**
 * What to ask a host for, in this order: the types that are known for it first, or a host that is known by its RSA key
 * alone would look as if it had another key.
 */
export function algorithmsFor(found: ReturnType<typeof linesFor>): string[] {
  const lines = found.exact.some(isPlain) ? found.exact : found.portless
  const known = new Set(lines.filter(isPlain).map(line => line.type))
  return [true, false].flatMap(first => hostKeyAlgorithms.filter(each => known.has(each.type) === first).flatMap(each => each.algorithms))
}

/** The same by kind of key: each list gets one key out of a host, if it has one of that kind. */
export const algorithmsByKind: readonly (readonly string[])[] = [
  ['ssh-ed25519'],
  ['ecdsa-sha2-nistp256', 'ecdsa-sha2-nistp384', 'ecdsa-sha2-nistp521'],
  ['rsa-sha2-512', 'rsa-sha2-256'],
]

/** Whether some key of the host is known, revoked ones not counted. */
export const isPinned = (found: ReturnType<typeof linesFor>): boolean =>
  [...found.exact, ...found.portless].some(line => isPlain(line) && judge(found, line.key).known === 'known')

const isPlain = (line: KnownLine): boolean => line.marker === undefined

/** The type that a key says it is (RFC 4253 §6.6), `ssh-ed25519`; undefined when it is no key. */
export function keyType(key: Buffer): string | undefined {
  if (key.length < 4) return undefined
  const length = key.readUInt32BE(0)
  if (length === 0 || length > 64 || key.length <= 4 + length) return undefined
  const type = key.toString('latin1', 4, 4 + length)
  return /^[\w.@-]+$/u.test(type) ? type : undefined
}

/** `SHA256:…`, as ssh-keygen -l prints it. */
export function keyFingerprint(key: Buffer): string {
  return `SHA256:${createHash('sha256').update(key).digest('base64').replace(/=+$/u, '')}`
}

/** `ED25519`, `ECDSA`, `RSA`: what people call a key of this type. */
export function typeName(type: string | undefined): string {
  if (type === 'ssh-ed25519') return 'ED25519'
  if (type === 'ssh-rsa') return 'RSA'
  return type?.startsWith('ecdsa-sha2-') === true ? 'ECDSA' : type ?? 'unknown'
}
