/** What enrolment writes on the central host: a `Host` block of ssh_config(5), in the right place of the operator's own file. */
import { OperationalError } from './errors.js'
import { cleanLine } from './text.js'

export interface HostBlock {
  readonly host: string
  readonly hostName: string
  readonly port: number
  readonly user: string
  /** Through which hosts, the first hop first; as ssh_config has it for the host's own name. */
  readonly proxyJump?: readonly string[]
  /** Absolute path of the private key. */
  readonly keyFile: string
}

/** The block, with a final line feed. @throws OperationalError when ssh_config cannot hold the path */
export function hostBlock({ host, hostName, port, user, proxyJump = [], keyFile }: HostBlock): string {
  if (/["\\\n\r]/u.test(keyFile)) {
    throw new OperationalError(`${cleanLine(keyFile)}: ssh_config cannot hold such a path; set sshConfig in lematt.conf to a file in a directory with a plain name`)
  }
  // A % begins a token there, a $ followed by { a variable of the environment.
  if (keyFile.includes('${')) throw new OperationalError(`${cleanLine(keyFile)}: ssh would expand the \${ in this path; set sshConfig in lematt.conf to a file elsewhere`)
  const path = keyFile.replaceAll('%', '%%')
  return [
    `# lematt enroll ${host}`,
    `Host ${host}`,
    `  HostName ${hostName}`,
    `  Port ${port}`,
    `  User ${user}`,
    ...proxyJump.length === 0 ? [] : [`  ProxyJump ${proxyJump.join(',')}`],
    `  IdentityFile ${/[^A-Za-z0-9._/%@+=:,-]/u.test(path) ? `"${path}"` : path}`,
    '  IdentitiesOnly yes',
    '',
  ].join('\n')
}

/** The words of each `Host` and `Match` line, in lower case for the keyword; `Host=a`, `Host "a"` are the same to ssh. */
function opening(line: string): { readonly keyword: string; readonly words: readonly string[] } | undefined {
  const [, keyword = '', rest = ''] = /^\s*(host|match)(?:\s*=\s*|\s+)(.*)$/iu.exec(line) ?? []
  if (keyword === '') return undefined
  return { keyword: keyword.toLowerCase(), words: rest.split(/\s+/u).map(word => word.replace(/^"(.*)"$/u, '$1')).filter(word => word !== '') }
}

/** Whether a `Host` line of this very text names `host` itself (patterns do not count). */
export function namesHost(text: string, host: string): boolean {
  return text.split('\n').some(line => opening(line)?.keyword === 'host' && opening(line)?.words.includes(host) === true)
}

/**
 * `text` with the block in it. ssh takes the first value that it finds, so ours must stand before a `Host *`; and after what
 * stands outside of blocks, which would become part of ours. So it is put before the first `Host` or `Match`, and before the
 * comment lines that belong to that.
 */
export function withHostBlock(text: string, block: string): string {
  const lines = text.split('\n')
  const first = lines.findIndex(line => opening(line) !== undefined)
  if (first === -1) return text.trim() === '' ? block : `${text.replace(/\n*$/u, '\n\n')}${block}`
  let at = first
  while (at > 0 && (lines[at - 1] ?? '').trimStart().startsWith('#')) at--
  const before = lines.slice(0, at).join('\n')
  return `${before}${before === '' ? '' : '\n'}${block}\n${lines.slice(at).join('\n')}`
}
