/** What tests of our SSH client need beside a real sshd: configurations for it, keys of every kind, an agent. */
import { spawn } from 'node:child_process'
import { appendFile, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { openSsh, type Ssh, type SshOptions } from '../../src/edge/ssh.js'
import { run } from './run.js'
import type { Sshd } from './sshd.js'
import { until } from './until.js'

let configurations = 0

/** An ssh_config for a real sshd with these hosts: alias → its own lines. What they do not say is as in the one of the sshd's helper. */
export async function writeConfig(sshd: Sshd, hosts: Readonly<Record<string, readonly string[]>>): Promise<string> {
  const path = join(sshd.directory, `config-${configurations += 1}`)
  const own = Object.entries(hosts).map(([alias, lines]) => `Host ${alias}\n${lines.map(line => `  ${line}\n`).join('')}`).join('')
  await writeFile(path, `${own}Host *
  HostName ${sshd.address}
  Port ${sshd.port}
  User ${sshd.user}
  IdentityFile ${join(sshd.directory, 'key')}
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile ${join(sshd.directory, 'known_hosts')}
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  BatchMode yes
  ConnectTimeout 10
`, { mode: 0o600 })
  return path
}

/** Does `work` with a client that is closed afterwards. */
export async function withSsh<T>(options: Omit<SshOptions, 'signal'> & { signal?: AbortSignal }, work: (ssh: Ssh) => Promise<T>): Promise<T> {
  const ssh = openSsh({ signal: new AbortController().signal, ...options })
  try {
    return await work(ssh)
  } finally {
    await ssh.close()
  }
}

/** Makes a key pair and lets it log in. @returns the path of the private key */
export async function addKey(sshd: Sshd, name: string, keygen: readonly string[]): Promise<string> {
  const path = await makeKey(join(sshd.directory, name), keygen)
  await appendFile(sshd.authorizedKeys, await readFile(`${path}.pub`))
  return path
}

export async function makeKey(path: string, keygen: readonly string[] = ['-t', 'ed25519']): Promise<string> {
  const passphrase = keygen.includes('-N') ? [] : ['-N', '']
  const made = await run('ssh-keygen', ['-q', ...keygen, ...passphrase, '-C', 'test', '-f', path])
  if (made.code !== 0) throw new Error(made.stderr)
  return path
}

/** A real ssh-agent; `add` gives it a key whose passphrase is `secret`. */
export async function startAgent(directory: string): Promise<{ socket: string; add(path: string): Promise<void>; stop(): Promise<void> }> {
  const socket = join(directory, 'agent')
  const agent = spawn('ssh-agent', ['-D', '-a', socket], { stdio: 'ignore' })
  const ended = new Promise<void>(resolve => agent.once('close', () => resolve()))
  const env = { ...process.env, SSH_AUTH_SOCK: socket }
  await until(async () => (await run('ssh-add', ['-l'], { env })).code !== 2)
  const askpass = join(directory, 'askpass')
  await writeFile(askpass, '#!/bin/sh\necho secret\n', { mode: 0o700 })
  return {
    socket,
    async add(path) {
      const added = await run('ssh-add', [path], { env: { ...env, SSH_ASKPASS: askpass, SSH_ASKPASS_REQUIRE: 'force' } })
      if (added.code !== 0) throw new Error(added.stderr)
    },
    async stop() {
      agent.kill()
      await ended
    },
  }
}

/** How often somebody has logged in, as sshd's own log has it. */
export const logins = (sshd: Sshd): number => [...sshd.log().matchAll(/^Accepted publickey/gmu)].length
