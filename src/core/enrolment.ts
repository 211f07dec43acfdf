/**
 * Enrolment of a host (spec §8): the words of `lematt enroll`, checked, and the small files that come from them. Each word
 * ends up in a file that root or sshd obeys, so only what can mean nothing else is let in; the script is in enrolmentScript.ts.
 */
import { parseAddress } from './address.js'
import { UsageError } from './errors.js'
import { cleanLine } from './text.js'

/** A service and the command that reloads it on the host: an absolute path with plain arguments. */
export interface Reload {
  readonly name: string
  readonly command: string
}

/** What `lematt enroll` was asked for; each word has passed its check below. */
export interface EnrolRequest {
  /** The alias: `mx1` in `hosts:` of actions.conf and in `~/.ssh/config`. */
  readonly host: string
  /** Where it is, when that is not the alias. */
  readonly hostName?: string
  readonly port?: number
  readonly user: string
  readonly reloads: readonly Reload[]
  readonly from: readonly string[]
  readonly names: readonly string[]
  readonly forward?: 'redirect' | 'tunnel'
  /** `SHA256:…` of the host key, as `ssh-keygen -lf` on the host says it. */
  readonly fingerprint?: string
  /** Whatever host key is shown is taken. */
  readonly yes: boolean
  /** Show everything, write nothing. */
  readonly print: boolean
}

/** Everything that the host is told. */
export interface Enrolment extends Pick<EnrolRequest, 'host' | 'user' | 'reloads' | 'from' | 'names' | 'forward'> {
  /** `ssh-ed25519 AAAA…`; undefined with --print before there is a key. */
  readonly publicKey?: string
  /** Base URL of our challenges, for `forward: redirect`. */
  readonly challengeUrl?: string
  /** The text of lematt-receive. */
  readonly receiver: string
  /** The text of leforward, for `forward: redirect`. */
  readonly leforward?: string
}

/** Where things are on an enrolled host. */
export const onHost = {
  home: '/var/lib/lematt',
  library: '/usr/local/lib/lematt',
  receiver: '/usr/local/lib/lematt/lematt-receive',
  leforward: '/usr/local/lib/lematt/leforward',
  configuration: '/etc/lematt/receive.conf',
  certificates: '/etc/lematt/tls/cert',
  keys: '/etc/lematt/tls/key',
  group: 'ssl-cert',
  sudo: '/usr/bin/sudo',
  sudoers: '/etc/sudoers.d/lematt-receive',
  sshd: '/etc/ssh/sshd_config.d/lematt.conf',
} as const

/** Seconds for one reload; sudo ends it then (TIMEOUT), for the receiver may not signal what runs as root. */
const reloadTimeoutSeconds = 60
/** On the host's loopback: where its web server passes `/.well-known/acme-challenge/` to, and its sshd listens for us (spec §8). */
export const tunnel = { address: '127.0.0.1', port: 8402 } as const
const tunnelAt = `${tunnel.address}:${tunnel.port}`

function refuse(option: string, value: string, why: string): never {
  throw new UsageError(`${option} ${cleanLine(value, 120)}: ${why}`)
}

/** @throws UsageError */
export function checkHost(host: string): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/u.test(host)) {
    refuse('lematt enroll', host, 'an alias for the host is letters, digits, dots and hyphens, as in mx1; say its address by --hostname, its port by --port')
  }
  return host
}

/** @throws UsageError */
export function checkHostName(name: string): string {
  const address = parseAddress(name)?.address
  if (address === undefined && !/^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$/u.test(name)) {
    refuse('--hostname', name, 'is neither a host name nor an IP address; say one, as in mx1.example.com')
  }
  return address ?? name
}

/** @throws UsageError */
export function checkPort(text: string): number {
  const port = Number(text)
  if (!/^\d{1,5}$/u.test(text) || port < 1 || port > 65535) refuse('--port', text, 'is no port: say a number from 1 to 65535')
  return port
}

/** The account on the host. @throws UsageError */
export function checkUser(user: string): string {
  if (!/^[a-z_][a-z0-9_-]{0,31}$/u.test(user)) refuse('--user', user, 'is no name for an account: lower-case letters, digits, _ and -')
  if (user === 'root') refuse('--user', user, 'the account that takes deliveries may do nothing else: choose another than root, as certmaint')
  return user
}

/** `NAME=COMMAND`. @throws UsageError */
export function parseReload(word: string): Reload {
  const at = word.indexOf('=')
  const [name, command] = [word.slice(0, Math.max(0, at)), word.slice(at + 1).trim()]
  if (at < 1 || command === '') refuse('--reload', word, 'say NAME=COMMAND, as in postfix=\'/usr/bin/systemctl reload postfix\'')
  if (!/^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$/u.test(name)) {
    refuse('--reload', word, 'the name of a service is letters, digits, dots, _, @ and -, as in reload: of actions.conf')
  }
  const odd = /[^A-Za-z0-9._/@:=+ -]/u.exec(command)?.[0]
  if (odd !== undefined) {
    refuse('--reload', word, `"${cleanLine(odd)}" may not be in the command: no shell reads it on the host, so plain arguments only; `
      + 'put what needs more into a script of root\'s there and name that')
  }
  const [program = '', ...args] = command.split(/ +/u)
  if (!program.startsWith('/')) refuse('--reload', word, `${program} is no absolute path: sudo allows exactly one program, so say which, as in /usr/bin/systemctl`)
  if (program.endsWith('/') || /\/\.{0,2}(?:\/|$)/u.test(program)) refuse('--reload', word, `${program} is no plain path of a program: write it without //, . and ..`)
  return { name, command: [program, ...args].join(' ') }
}

/** An address, or ADDRESS/BITS, for from= (sshd(8)). @throws UsageError */
export function checkFrom(text: string): string {
  const [, head = '', bits] = /^([^/]*)(?:\/(\d{1,3}))?$/u.exec(text) ?? []
  const address = parseAddress(head)?.address
  const most = address?.includes(':') === true ? 128 : 32
  if (address === undefined || (bits !== undefined && Number(bits) > most)) {
    refuse('--from', text, 'is no IP address and no ADDRESS/BITS: say the address from which the host sees the central host')
  }
  if (bits === '0') refuse('--from', text, 'would let everybody in who has the key: say the central host\'s own address')
  return bits === undefined ? address : `${address}/${Number(bits)}`
}

/** A shell pattern on NAME of the store. @throws UsageError */
export function checkPattern(pattern: string): string {
  if (!/^[A-Za-z0-9._:*?[\]-]{1,180}$/u.test(pattern)) {
    refuse('--names', pattern, 'is no pattern for names of certificates: letters, digits, dots, _, - and the shell\'s * ? [ ], as in \'*.example.com\'')
  }
  return pattern
}

/** @throws UsageError */
export function checkFingerprint(text: string): string {
  const [, digest] = /^(?:SHA256:)?([A-Za-z0-9+/]{43})=?$/u.exec(text) ?? []
  return digest === undefined
    ? refuse('--fingerprint', text, 'is no SHA-256 fingerprint: on the host, ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub shows it (SHA256:…)')
    : `SHA256:${digest}`
}

/** @throws UsageError */
export function checkChallengeUrl(url: string): string {
  if (!/^https?:\/\/[A-Za-z0-9[][A-Za-z0-9.:[\]-]*(?:\/[A-Za-z0-9._~/-]*)?$/u.test(url)) {
    refuse('challengeUrl', url, 'is no plain base URL for --forward redirect: set one in lematt.conf, as in http://central.example.com')
  }
  return url.replace(/\/+$/u, '')
}

/** What the receiver starts on the host, once it has found the URL in receive.conf: exactly this is what sudoers allows. */
const leforwardCommand = (url: string): string => `${onHost.leforward} --baseurl ${url}`

/** The line of authorized_keys: this key, from there, to the receiver, and nothing else (sshd(8)). */
export function authorizedKeysLine({ from, forward, publicKey }: Enrolment): string {
  // A target must be named, or port-forwarding would also open connections from the host to anywhere; nothing listens there.
  const ports = forward === 'tunnel' ? `,port-forwarding,permitlisten="${tunnelAt}",permitopen="localhost:1"` : ''
  return `restrict${ports},from="${from.join(',')}",command="${onHost.receiver}" ${publicKey ?? 'NO-KEY-YET'} lematt`
}

/**
 * What sshd_config says besides, for `forward: tunnel`: port-forwarding in a line of authorized_keys also opens Unix sockets,
 * to listen on and to connect to, wherever the account may, and permitlisten and permitopen do not cover them.
 */
export function sshdFile({ host, user }: Enrolment): string {
  return [
    `# ${onHost.sshd}, made by "lematt enroll ${host}": the key of ${user} may listen on this one port, and nothing else.`,
    `Match User ${user}`,
    '  AllowStreamLocalForwarding no',
    '  AllowTcpForwarding remote',
    `  PermitListen ${tunnelAt}`,
    '  PermitOpen none',
    '  GatewayPorts no',
    '  AllowAgentForwarding no',
    '  X11Forwarding no',
    '  PermitTTY no',
    '  PermitTunnel no',
    '# For what follows: nothing of this is for it.',
    'Match all',
    '',
  ].join('\n')
}

/** receive.conf, without what needs leforward. */
export function receiveConf({ host, reloads, names }: Enrolment): string {
  return [
    `# ${onHost.configuration}, made by "lematt enroll ${host}": what the central host's key may do here.`,
    `cert ${onHost.certificates}`,
    `key ${onHost.keys}`,
    'certmode 0644',
    'keymode 0640',
    `group ${onHost.group}`,
    ...names.length === 0 ? [] : [`names ${names.join(' ')}`],
    ...reloads.map(({ name, command }) => `reload ${name} ${onHost.sudo} -n ${command}`),
    `reloadtimeout ${reloadTimeoutSeconds}`,
    '',
  ].join('\n')
}

/** What receive.conf says besides where challenges are redirected. */
export function receiveConfForward(url: string): string {
  return `forward ${url}\nleforward ${onHost.sudo} -n ${onHost.leforward}\n`
}

/** These have a meaning in the arguments of sudoers(5), the last five in its patterns; without arguments any would be allowed. */
function sudoersCommand(command: string): string {
  const escaped = command.replace(/[\\,:=[\]*?!]/gu, '\\$&')
  return escaped.includes(' ') ? escaped : `${escaped} ""`
}

/** The sudoers file: exactly the reload commands, each ended by sudo itself when it takes too long. */
export function sudoersFile({ host, user, reloads }: Enrolment): string {
  const commands = [...new Set(reloads.map(({ command }) => command))]
  return [
    `# ${onHost.sudoers}, made by "lematt enroll ${host}": exactly these commands, for the deliveries of certificates.`,
    `Defaults:${user} !requiretty`,
    ...commands.map(command => `${user} ALL=(root) TIMEOUT=${reloadTimeoutSeconds} NOPASSWD: ${sudoersCommand(command)}`),
    '',
  ].join('\n')
}

/** What sudoers says besides where challenges are redirected: root binds port 80, then leforward becomes the caller. */
export function sudoersForward(user: string, url: string): string {
  return `${user} ALL=(root) NOPASSWD: ${sudoersCommand(leforwardCommand(url))}\n`
}
