/**
 * The hosts of the comparison: one sshd each with a host key and an address of its own, all configured alike, and for each of the
 * ways to deliver a key of its own kind. They share this machine's processor with whoever delivers to them.
 */
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createHash } from 'node:crypto'
import { userInfo } from 'node:os'
import { Daemon, must } from '../../test/helpers/lab-process.js'
import { startSshd, type Sshd } from '../../test/helpers/sshd.js'

const repository = new URL('../../', import.meta.url).pathname

export interface FleetHost {
  readonly name: string
  /** Holds `cert`, `key`, the command `reload`, and `reloads`, to which that adds a line. */
  readonly dir: string
  readonly sshd: Sshd
}

/** The four files that every host is to get, by path under its directory. */
export type Files = Readonly<Record<string, string>>

export class Fleet {
  private proxy: Daemon | undefined

  private constructor(private readonly dir: string, readonly hosts: readonly FleetHost[]) {}

  /** Starts so many. */
  static async start(dir: string, count: number): Promise<Fleet> {
    // bash reads it for every command that comes by ssh. What whoever runs this has in theirs is not what hosts have.
    const { homedir } = userInfo()
    if (existsSync(join(homedir, '.bashrc'))) await must('mount', ['--bind', '/dev/null', join(homedir, '.bashrc')])
    const hosts: FleetHost[] = []
    const start = async (n: number): Promise<void> => {
      const name = `h${n}`
      const host = join(dir, name)
      for (const part of ['cert', 'key']) mkdirSync(join(host, part), { recursive: true, mode: 0o755 })
      const script = (file: string, text: string): string => {
        writeFileSync(join(host, file), `#!/bin/sh\n${text}\n`)
        chmodSync(join(host, file), 0o755)
        return join(host, file)
      }
      const reload = script('reload', `echo reloaded >>${host}/reloads`)
      const unpack = script('unpack', `tar -xf - -C ${host} && exec ${reload}`)
      writeFileSync(join(host, 'receive.conf'), `cert ${host}/cert\nkey ${host}/key\nreload mark ${reload}\n`, { mode: 0o644 })
      const sshd = await startSshd({
        address: `127.0.1.${n}`, port: 22, config: 'LogLevel ERROR',
        keys: {
          [`${name}-shell`]: '',
          [`${name}-tar`]: `restrict,command="${unpack}"`,
          [name]: `restrict,command="${repository}remote/lematt-receive ${host}/receive.conf"`,
        },
      })
      hosts[n - 1] = { name, dir: host, sshd }
    }
    let next = 1
    await Promise.all(Array.from({ length: 8 }, async () => {
      while (next <= count) await start(next++)
    }))
    return new Fleet(dir, hosts)
  }

  /**
   * Puts a latency between them and us, in milliseconds there and back; 0 takes it away.
   * @returns the ssh configuration to reach the first `count` of them in that way
   */
  async behind(delayMs: number, count: number): Promise<string> {
    await this.proxy?.stop()
    this.proxy = undefined
    const far = (address: string): string => delayMs === 0 ? address : address.replace('127.0.1.', '127.0.2.')
    const used = this.hosts.slice(0, count)
    if (delayMs > 0) {
      const ways = used.map(({ sshd: { address } }) => `${far(address)}=${address}`)
      this.proxy = new Daemon('node', ['--import', 'tsx', join(repository, 'bench/delay.ts'), String(delayMs), '22', ...ways])
      await this.proxy.ready('listens', () => this.proxy?.stdout.includes('up') === true)
    }
    const known = used.map(({ sshd }) => `${far(sshd.address)} ${readFileSync(join(sshd.directory, 'host_key.pub'), 'utf8')}`)
    writeFileSync(join(this.dir, 'known_hosts'), known.join(''))
    const path = join(this.dir, 'ssh_config')
    writeFileSync(path, used.flatMap(({ name, sshd }) => [name, `${name}-shell`, `${name}-tar`].map(alias => `Host ${alias}
  HostName ${far(sshd.address)}
  User ${sshd.user}
  IdentityFile ${join(sshd.directory, alias)}
`)).concat(`Host *
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile ${join(this.dir, 'known_hosts')}
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  BatchMode yes
  ConnectTimeout 30
  LogLevel ERROR
`).join(''), { mode: 0o600 })
    return path
  }

  /** Takes away what was delivered. */
  clear(): void {
    for (const { dir } of this.hosts) {
      for (const part of ['cert', 'key']) {
        for (const name of readdirSync(join(dir, part))) rmSync(join(dir, part, name), { recursive: true })
      }
      rmSync(join(dir, 'reloads'), { force: true })
    }
  }

  /** @throws Error unless exactly the first `count` hosts have these files, whole, and were reloaded once */
  check(files: Files, count: number): void {
    for (const [i, { name, dir }] of this.hosts.entries()) {
      const reloads = existsSync(join(dir, 'reloads')) ? readFileSync(join(dir, 'reloads'), 'utf8') : ''
      if (reloads !== (i < count ? 'reloaded\n' : '')) throw new Error(`${name}: reloaded ${reloads.split('\n').length - 1} times`)
      for (const [path, text] of Object.entries(files)) {
        const there = existsSync(join(dir, path)) ? digest(readFileSync(join(dir, path), 'utf8')) : undefined
        if (there !== (i < count ? digest(text) : undefined)) throw new Error(`${name}: ${path} is not what it should be`)
      }
    }
  }

  async stop(): Promise<void> {
    await this.proxy?.stop()
    await Promise.all(this.hosts.map(({ sshd }) => sshd.stop()))
  }
}

const digest = (text: string): string => createHash('sha256').update(text).digest('hex')
