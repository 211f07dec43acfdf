/** A real sshd on a port of its own, for the current user, with real keys and authorized_keys lines. */
import { execFile, spawn } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { connect, createServer, type AddressInfo } from 'node:net'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { until } from './until.js'

const sshdPath = '/usr/sbin/sshd'

export interface SshdOptions {
  /**
   * One key pair per entry: alias (as in `ssh -F config ALIAS`) → the options of its authorized_keys line, for
   * example `restrict,command="…"`; '' for a key without restriction.
   */
  readonly keys: Readonly<Record<string, string>>
  /** The address to listen on. Default: 127.0.0.1. */
  readonly address?: string
  /** The port; by default a free one. */
  readonly port?: number
  /** Put before the sshd command, as ['ip', 'netns', 'exec', 'mx1']; then the caller says address and port too. */
  readonly prefix?: readonly string[]
  /** Lines for sshd_config; they come first, so they win over ours. */
  readonly config?: string
  /** More lines for each alias in the client's configuration, as 'ControlMaster no'. */
  readonly clientConfig?: string
}

export interface Sshd {
  readonly address: string
  readonly port: number
  readonly user: string
  /** Holds everything: host key, client keys (named after their alias), configurations, log. */
  readonly directory: string
  /** The path for `ssh -F` (and `rsync -e 'ssh -F PATH'`); has one Host entry per key. */
  readonly sshConfig: string
  /** authorized_keys, which sshd reads anew at each login. */
  readonly authorizedKeys: string
  /** What sshd has logged so far. */
  log(): string
  /** Ends sshd with all its sessions and removes the directory. */
  stop(): Promise<void>
}

/** Why no sshd can be started here, in one line for `skip:`; false when it can. */
export function sshdMissing(): string | false {
  if (!existsSync(sshdPath)) return 'needs sshd (apt-get install openssh-server)'
  if (!existsSync('/usr/bin/ssh')) return 'needs ssh (apt-get install openssh-client)'
  // sshd runs forced commands by the shell of the account.
  return /\/(?:nologin|false)$/u.test(userInfo().shell ?? '') ? 'needs a user with a shell' : false
}

/** A TCP port that is free on `address` now. */
export async function freePort(address = '127.0.0.1'): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(0, address, resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

function answers(address: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, address)
    socket.once('data', (data) => {
      socket.destroy()
      resolve(data.toString('latin1').startsWith('SSH-2.0-'))
    })
    socket.once('error', () => resolve(false))
    socket.once('close', () => resolve(false))
  })
}

/** Starts sshd and waits until it answers; throws with its log when it does not within 10 s. */
export async function startSshd(options: SshdOptions): Promise<Sshd> {
  const address = options.address ?? '127.0.0.1'
  const port = options.port ?? await freePort(address)
  const user = userInfo().username
  const directory = await mkdtemp(join(tmpdir(), 'lematt-sshd-'))
  const path = (name: string) => join(directory, name)
  const keygen = (name: string) =>
    promisify(execFile)('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', name, '-f', path(name)])
  const aliases = Object.entries(options.keys)
  await Promise.all(['host_key', ...aliases.map(([alias]) => alias)].map(keygen))
  const publicKey = (name: string) => readFileSync(path(`${name}.pub`), 'utf8')

  const name = address.includes(':') || port !== 22 ? `[${address}]:${port}` : address
  await writeFile(path('known_hosts'), `${name} ${publicKey('host_key')}`)
  await writeFile(path('authorized_keys'),
    aliases.map(([alias, restrictions]) => `${restrictions} ${publicKey(alias)}`.trimStart()).join(''))
  await writeFile(path('sshd_config'), `${options.config ?? ''}
ListenAddress ${address.includes(':') ? `[${address}]` : address}:${port}
HostKey ${path('host_key')}
AuthorizedKeysFile ${path('authorized_keys')}
PidFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM no
StrictModes no
LogLevel VERBOSE
Subsystem sftp internal-sftp
`)
  await writeFile(path('ssh_config'), aliases.map(([alias]) => `Host ${alias}
  HostName ${address}
  Port ${port}
  User ${user}
  IdentityFile ${path(alias)}
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile ${path('known_hosts')}
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  BatchMode yes
  ConnectTimeout 10
  LogLevel ERROR
  ${options.clientConfig ?? ''}
`).join('\n'))
  await chmod(path('ssh_config'), 0o600)

  // Debian makes sshd's directory for unprivileged children at boot; in a container nobody did.
  if (process.getuid?.() === 0) mkdirSync('/run/sshd', { recursive: true, mode: 0o755 })
  const command = [...options.prefix ?? [], sshdPath, '-D', '-e', '-f', path('sshd_config')]
  const sshd = spawn(command[0] ?? sshdPath, command.slice(1), { stdio: ['ignore', 'ignore', 'pipe'] })
  let log = ''
  sshd.stderr.setEncoding('utf8').on('data', (text: string) => {
    log += text
  })
  const ended = new Promise<void>((resolve) => {
    sshd.once('close', () => resolve())
    sshd.once('error', () => resolve())
  })
  const stop = async (): Promise<void> => {
    endSessions(sshd.pid)
    sshd.kill('SIGTERM')
    await ended
    await rm(directory, { recursive: true, force: true })
  }
  try {
    await until(async () => {
      if (sshd.exitCode !== null) throw new Error(`sshd ended with ${sshd.exitCode}`)
      // With a prefix sshd listens in another namespace, where we cannot look: there its log says it.
      return options.prefix === undefined ? answers(address, port) : log.includes('Server listening on')
    })
  } catch (error) {
    await stop()
    throw new Error(`sshd does not answer on ${address} port ${port}: ${log}`, { cause: error })
  }
  return {
    address,
    port,
    user,
    directory,
    sshConfig: path('ssh_config'),
    authorizedKeys: path('authorized_keys'),
    log: () => log,
    stop,
  }
}

/** Sessions outlive the listening sshd; each is ended by its parent's id, and what they run with them. */
function endSessions(pid: number | undefined): void {
  if (pid === undefined) return
  const children = new Map<number, number[]>()
  for (const entry of readdirSync('/proc').filter((name) => /^\d+$/u.test(name))) {
    const parent = parentOf(Number(entry))
    children.set(parent, [...children.get(parent) ?? [], Number(entry)])
  }
  const visit = (parent: number): void => {
    for (const child of children.get(parent) ?? []) {
      visit(child)
      try {
        process.kill(child, 'SIGTERM')
      } catch {
        // It has ended by itself meanwhile.
      }
    }
  }
  visit(pid)
}

/** The parent of a process; 0 when it has ended meanwhile. */
function parentOf(pid: number): number {
  try {
    return Number(/^PPid:\s+(\d+)/mu.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0)
  } catch {
    return 0
  }
}
