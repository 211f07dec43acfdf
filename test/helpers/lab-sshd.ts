// OpenSSH in a lab: the server on hosts, and the keys and the client configuration on the central host.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import type { Machine } from './lab-machine.js'
import { must, type Daemon } from './lab-process.js'

/** A key pair of the central user. */
export interface SshKey { path: string; publicKey: string }

/** Makes an ed25519 key pair without a passphrase. */
export async function makeSshKey(path: string): Promise<SshKey> {
  await must('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', 'lab', '-f', path])
  return { path, publicKey: readFileSync(`${path}.pub`, 'utf8').trim() }
}

export interface SshdOptions {
  /** Lines of authorized_keys, options and all. */
  authorizedKeys: readonly string[]
  /** Further lines of sshd_config, before ours: sshd takes the first value that it meets. */
  config?: string
}

export interface Sshd {
  daemon: Daemon
  /** The host's public key, as in known_hosts. */
  hostKey: string
  /** Replaces authorized_keys. */
  authorize(lines: readonly string[]): void
  stop(): Promise<void>
}

/**
 * Starts sshd on port 22 of a machine. Only the user who runs this can log in; HOME there is `home` in the
 * machine's directory, but the working directory is the user's own, so paths in commands should be absolute.
 */
export async function startSshd(machine: Machine, options: SshdOptions): Promise<Sshd> {
  const home = join(machine.dir, 'home')
  mkdirSync(join(machine.dir, 'ssh'), { recursive: true })
  mkdirSync(home, { recursive: true })
  const key = await makeSshKey(join(machine.dir, 'ssh', 'host_key'))
  const authorized = join(machine.dir, 'ssh', 'authorized_keys')
  const authorize = (lines: readonly string[]) => writeFileSync(authorized, lines.join('\n') + '\n')
  authorize(options.authorizedKeys)
  // StrictModes would refuse any file below a directory like /tmp.
  const config = machine.write('ssh/sshd_config', `
${options.config ?? ''}
Port 22
ListenAddress ${machine.address}
HostKey ${key.path}
AuthorizedKeysFile ${authorized}
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
PrintMotd no
SetEnv HOME=${home}
MaxStartups 200:30:400
LogLevel VERBOSE
`)
  // sshd insists on being called by its full path.
  const path = (await machine.must('sh', ['-c', 'command -v sshd'])).trim()
  const daemon = machine.spawn(path, ['-D', '-e', '-f', config])
  await daemon.ready('a listening port', () => daemon.stderr.includes('Server listening on'))
  return { daemon, hostKey: key.publicKey, authorize, stop: async () => { await daemon.stop() } }
}

/** The central user's SSH configuration: `ssh -F path ALIAS` knows the hosts by name and trusts only their keys. */
export class SshClient {
  readonly path: string
  private readonly known: string
  private config = ''

  constructor(private readonly dir: string) {
    mkdirSync(dir, { recursive: true, mode: 0o700 })
    this.path = join(dir, 'config')
    this.known = join(dir, 'known_hosts')
    writeFileSync(this.path, '')
    writeFileSync(this.known, '')
  }

  /** Makes a key pair with this name. */
  async key(name: string): Promise<SshKey> {
    return makeSshKey(join(this.dir, name))
  }

  /** Trusts a host's key from now on. */
  trust(address: string, hostKey: string): void {
    writeFileSync(this.known, `${address} ${hostKey}\n`, { flag: 'a' })
  }

  /** Adds an alias. @param more further lines of its block */
  alias(alias: string, address: string, key: SshKey, more: readonly string[] = []): void {
    const lines = [
      `HostName ${address}`, `User ${userInfo().username}`, `IdentityFile ${key.path}`, 'IdentitiesOnly yes',
      'IdentityAgent none', 'BatchMode yes', 'StrictHostKeyChecking yes', `UserKnownHostsFile ${this.known}`,
      'GlobalKnownHostsFile /dev/null', 'UpdateHostKeys no', 'ConnectTimeout 5', 'LogLevel ERROR', ...more,
    ]
    this.config += `Host ${alias}\n${lines.map(line => `  ${line}\n`).join('')}\n`
    writeFileSync(this.path, this.config)
  }
}
