/**
 * The operator's ssh_config as `ssh -G` resolves it (spec §8): what of it we obey, what ssh leaves unexpanded in that output,
 * and what ssh2 cannot do, which is refused by name and never passed over.
 */
import { isIP } from 'node:net'

/** A host as it is written in `hosts:` or ProxyJump, taken apart. */
export interface HostWords {
  readonly host: string
  readonly user?: string
  readonly port?: number
}

/**
 * `alias`, `user@host`, `host:port`, `user@host:port`, `user@[v6]:port`, a bare IPv6 address, `ssh://user@host:port`. What
 * does not fit a closed set of characters is undefined: ssh puts it into `Match exec` commands and tokens of the operator's.
 */
export function parseHostName(name: string): HostWords | undefined {
  const text = name.replace(/^ssh:\/\//u, '')
  const at = text.lastIndexOf('@')
  const [user, rest] = at < 0 ? [undefined, text] : [text.slice(0, at), text.slice(at + 1)]
  if (user !== undefined && !/^[A-Za-z0-9_.][A-Za-z0-9_.+@-]*$/u.test(user)) return undefined
  const [, bracketed, plain, digits] = /^(?:\[([^\]]*)\]|([^:]*))(?::(\d{1,5}))?$/u.exec(rest) ?? []
  const host = isIP(rest) === 6 ? rest : bracketed ?? plain ?? ''
  const port = isIP(rest) === 6 || digits === undefined ? undefined : Number(digits)
  if (port !== undefined && (port < 1 || port > 65_535)) return undefined
  if (!/^[A-Za-z0-9_.][A-Za-z0-9_.-]*$/u.test(host) && isIP(host) !== 6) return undefined
  if (!/^[A-Za-z0-9_.:%-]+$/u.test(host)) return undefined
  return { host, ...user !== undefined && { user }, ...port !== undefined && { port } }
}

/** What we obey of it. */
export interface SshSettings {
  readonly hostName: string
  readonly port: number
  readonly user: string
  /** Absolute; in the order of the file. They may be missing. */
  readonly identityFiles: readonly string[]
  readonly identitiesOnly: boolean
  /** The agent's socket; undefined for none. */
  readonly identityAgent?: string
  /** Each hop as written, the first hop first. */
  readonly proxyJump: readonly string[]
  readonly hostKeyAlias?: string
  /** User's then global ones, absolute. */
  readonly knownHostsFiles: readonly string[]
  /** 15 when ssh has none. */
  readonly connectTimeoutSeconds: number
  readonly addressFamily?: 4 | 6
  readonly bindAddress?: string
}

/** What ssh leaves to the time of use: the tilde, tokens and environment variables of IdentityFile and IdentityAgent. */
export interface LocalFacts {
  /** The home directory. */
  readonly home: string
  readonly user: string
  readonly uid: number
  readonly hostName: string
  /** The host as given to ssh. */
  readonly original: string
  readonly environment: Readonly<Record<string, string | undefined>>
}

/** @returns the settings, and in `refused` what of the configuration cannot be obeyed: a phrase for each */
export function parseSshConfig(text: string, local: LocalFacts): { settings: SshSettings; refused: string[] } {
  const values = new Map<string, string[]>()
  for (const line of text.split('\n')) {
    const [, key, value] = /^(\S+) (.*?)\r?$/u.exec(line) ?? []
    if (key === undefined || value === undefined || value === '') continue
    values.set(key, [...values.get(key) ?? [], value])
  }
  const one = (key: string): string | undefined => {
    const value = values.get(key)?.[0]
    return value === 'none' ? undefined : value
  }
  const refused = Object.entries(impossible).flatMap(([key, say]) => (values.get(key) ?? []).map(say).filter(said => said !== undefined).slice(0, 1))
  const hostName = one('hostname') ?? local.original
  const port = wholeNumber(one('port'), 65_535) ?? 22
  const user = one('user') ?? local.user
  const tokens: Record<string, string> = {
    '%': '%', d: local.home, h: hostName, i: String(local.uid), j: values.get('proxyjump')?.[0] ?? '', k: one('hostkeyalias') ?? local.original,
    L: local.hostName.split('.')[0] ?? '', l: local.hostName, n: local.original, p: String(port), r: user, u: local.user,
  }
  const path = (written: string): string | undefined => {
    const missing: string[] = []
    const expanded = expandTokens(written, tokens).replace(/^~(?=\/|$)/u, () => local.home).replace(/\$\{(\w+)\}/gu, (_, name: string) => {
      const value = local.environment[name]
      if (value === undefined) missing.push(name)
      return value ?? ''
    })
    if (missing.length === 0 && expanded.startsWith('/')) return expanded
    refused.push(`the path ${written} (it must become an absolute one)`)
    return undefined
  }
  const agent = one('identityagent') ?? (values.has('identityagent') ? undefined : 'SSH_AUTH_SOCK')
  const identityAgent = agent === 'SSH_AUTH_SOCK' || agent?.startsWith('$') === true
    ? local.environment[agent.replace(/^\$\{?|\}$/gu, '')]
    : agent && path(agent)
  const family = one('addressfamily')
  const alias = one('hostkeyalias')
  const bindAddress = one('bindaddress')
  const settings: SshSettings = {
    hostName, port, user,
    identityFiles: (values.get('identityfile') ?? []).filter(file => file !== 'none').map(path).filter(file => file !== undefined),
    identitiesOnly: one('identitiesonly') === 'yes',
    ...identityAgent !== undefined && identityAgent !== '' && { identityAgent },
    proxyJump: one('proxyjump')?.split(',').map(hop => hop.trim()) ?? [],
    ...alias !== undefined && { hostKeyAlias: alias },
    knownHostsFiles: [...pathList(one('userknownhostsfile')), ...pathList(one('globalknownhostsfile'))],
    connectTimeoutSeconds: wholeNumber(one('connecttimeout'), 3600) ?? 15,
    ...(family === 'inet' || family === 'inet6') && { addressFamily: family === 'inet' ? 4 : 6 },
    ...bindAddress !== undefined && { bindAddress },
  }
  return { settings, refused }
}

/** Keys of ssh_config that ssh2 has no answer to: value → what to say of it, or undefined when it means nothing. */
const impossible: Readonly<Record<string, (value: string) => string | undefined>> = {
  proxycommand: value => value === 'none' ? undefined : 'ProxyCommand (use ProxyJump)',
  certificatefile: value => value === 'none' ? undefined : 'CertificateFile (use a plain key)',
  pkcs11provider: value => value === 'none' ? undefined : 'PKCS11Provider (use a key file, or an agent that holds the key)',
  revokedhostkeys: value => value === 'none' ? undefined : 'RevokedHostKeys (use @revoked lines in known_hosts)',
  pubkeyauthentication: value => value === 'no' || value === 'false' ? 'PubkeyAuthentication no (a public key is the only way in)' : undefined,
}

/** `%h` and the like (ssh_config(5), TOKENS); what we do not know stays, and is then no file. */
function expandTokens(text: string, tokens: Readonly<Record<string, string>>): string {
  return text.replace(/%(.)/gu, (whole, letter: string) => Object.hasOwn(tokens, letter) ? tokens[letter] ?? whole : whole)
}

/** ssh prints paths with blanks between and no quotes: all are absolute, so a word that is not belongs to the path before it. */
function pathList(text: string | undefined): string[] {
  return text?.split(/ (?=[/~])/u).filter(path => path.startsWith('/') && path !== '/dev/null') ?? []
}

function wholeNumber(text: string | undefined, most: number): number | undefined {
  return text !== undefined && /^[1-9]\d{0,9}$/u.test(text) ? Math.min(Number(text), most) : undefined
}
