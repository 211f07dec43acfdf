// A lab: a small organisation in network namespaces, with real parts. One central host (this process's own
// network namespace, which scripts/netns made), remote hosts, a bridge between them, and a name server. Labs of
// several test files share the central network namespace; each has a network, addresses and files of its own.
import { appendFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { spawnSync } from 'node:child_process'
import { Dns } from './lab-dns.js'
import { addresses, Host, type Network } from './lab-host.js'
import { Machine } from './lab-machine.js'
import { challengeServer, placeholders, startNginx, tlsServer, type Nginx, type Pair } from './lab-nginx.js'
import { must, run } from './lab-process.js'
import { pebbleVersions, startPebble, type Pebble, type PebbleOptions } from './pebble.js'
import { startSshd, type Sshd, type SshdOptions } from './sshd.js'

/** Why a lab cannot be made here, for the `skip` option of a test; false when it can. */
export function labSkip(): string | false {
  if (process.env['LEMATT_NETNS'] !== '1') return 'needs a machine of its own: run it by scripts/netns'
  const programs = ['sshd', 'ssh', 'rsync', 'nginx', 'ip', 'openssl', 'nsenter']
  const missing = programs.filter(name => spawnSync('sh', ['-c', `command -v ${name}`]).status !== 0)
  return missing.length > 0 ? `needs ${missing.join(', ')}: run scripts/setup` : false
}

/** A remote host of a lab, with the services it can be given. */
export class LabHost {
  private sshds: Sshd[] = []

  constructor(readonly machine: Host, private readonly sshConfig: string) {}

  get name(): string { return this.machine.name }
  get address(): string { return this.machine.address }
  get address6(): string { return this.machine.address6 }
  /** The host's directory for files; the central host sees it under the same path. */
  get dir(): string { return this.machine.dir }

  readonly exec: Machine['exec'] = (command, args, options) => this.machine.exec(command, args, options)
  readonly must: Machine['must'] = (command, args, options) => this.machine.must(command, args, options)
  readonly spawn: Machine['spawn'] = (command, args, options) => this.machine.spawn(command, args, options)

  /** Unplugs the host, as when it is down: connections to it time out or find no route. */
  async unplug(): Promise<void> {
    await this.machine.setLink('down')
  }

  /** Undoes unplug. */
  async plug(): Promise<void> {
    await this.machine.setLink('up')
  }

  /**
   * Starts sshd on port 22, for the user who runs this; `ssh -F lab.sshConfig ALIAS` reaches it by each of the keys.
   * HOME is `home` in the host's directory, but sessions start in the user's own, so paths should be absolute.
   */
  async sshd(options: Pick<SshdOptions, 'keys' | 'config' | 'clientConfig'>): Promise<Sshd> {
    const home = join(this.dir, 'home')
    mkdirSync(home, { recursive: true })
    const [command, args] = this.machine.command('', [])
    const sshd = await startSshd({
      ...options, address: this.address, port: 22, prefix: [command, ...args.slice(0, -1)],
      config: `${options.config ?? ''}\nSetEnv HOME=${home}\nMaxStartups 200:30:400`,
    })
    this.sshds.push(sshd)
    appendFileSync(this.sshConfig, `Include ${sshd.sshConfig}\n`)
    return sshd
  }

  /** Starts nginx. @param http its `http { }` block @param ports those to wait for */
  async nginx(http: string, ports: readonly number[]): Promise<Nginx> {
    return startNginx(this.machine, http, ports)
  }

  /** Starts a TLS server that shows these pairs, self-signed ones until the files have been pushed. */
  async tlsServer(names: readonly string[], pairs: readonly Pair[], port = 443): Promise<Nginx> {
    await placeholders(pairs)
    return startNginx(this.machine, tlsServer(this.address, port, names, pairs), [port])
  }

  /** The power switch: every process of the host is killed, its network is gone. */
  async stop(): Promise<void> {
    await this.machine.stop()
    await Promise.all(this.sshds.map(sshd => sshd.stop()))
    this.sshds = []
  }
}

export class Lab {
  readonly dns: Dns
  /** For `ssh -F`: the aliases, keys and host keys of every sshd in the lab. */
  readonly sshConfig: string
  private next = 11
  private readonly hosts: LabHost[] = []
  private readonly pebbles: Pebble[] = []

  private constructor(readonly network: Network, readonly central: Machine, dns: Dns) {
    this.dns = dns
    this.sshConfig = central.write('ssh_config', '', 0o600)
  }

  /** Makes a lab with a central host and a name server. Close it whatever happens. */
  static async open(): Promise<Lab> {
    const why = labSkip()
    if (why !== false) throw new Error(`lab: ${why}`)
    const dir = mkdtempSync(join(tmpdir(), 'lab-'))
    const number = await takeNumber()
    const network = { number, bridge: `lab${number}`, dir, resolver: join(dir, 'resolv.conf') }
    const { v4, v6 } = addresses(network, 1)
    const central = new Machine('central', v4, v6, join(dir, 'central'), (command, args) => ['unshare', [
      '--mount', 'sh', '-c', 'mount --bind "$0" /etc/resolv.conf && exec "$@"', network.resolver, command, ...args,
    ]])
    central.write('../resolv.conf', `nameserver ${v4}\noptions timeout:2 attempts:1\n`)
    await must('sh', ['-ec', `
      ip addr add ${v4}/24 dev ${network.bridge}
      ip -6 addr add ${v6}/64 dev ${network.bridge} nodad
      ip link set ${network.bridge} up`])
    return new Lab(network, central, await Dns.start(central))
  }

  /** A directory for the lab's files; removed by close. */
  get dir(): string { return this.network.dir }
  /** The central host's address. */
  get address(): string { return this.central.address }

  /** Runs a program on the central host, which resolves names by the lab's name server. Never rejects. */
  readonly run: Machine['exec'] = (command, args, options) => this.central.exec(command, args, options)
  /** Starts a program there. */
  readonly spawn: Machine['spawn'] = (command, args, options) => this.central.spawn(command, args, options)

  /** Adds a remote host. @param options.addresses further addresses of it, in no other lab's use */
  async host(name: string, options: { addresses?: readonly string[] } = {}): Promise<LabHost> {
    const host = new LabHost(
      await Host.create(name, this.network, this.next++, options.addresses ?? []), this.sshConfig)
    this.hosts.push(host)
    return host
  }

  /** Starts the central web server: `root` is served as /.well-known/acme-challenge/ on port 80. */
  async nginx(options: { root: string }): Promise<Nginx> {
    return startNginx(this.central, challengeServer(this.address, options.root), [80])
  }

  /** Starts a certificate authority that resolves names by the lab and validates on port 80; the newest Pebble. */
  async pebble(options: Partial<PebbleOptions> = {}): Promise<Pebble> {
    const [program] = pebbleVersions()
    if (program === undefined) throw new Error('lab: no pebble: run scripts/setup')
    const pebble = await startPebble({
      program, listen: this.address, dns: `${this.address}:53`, httpPort: 80, ...options,
    })
    this.pebbles.push(pebble)
    return pebble
  }

  /** Ends every process of the lab and removes its network and files. */
  async close(): Promise<void> {
    await Promise.all(this.hosts.map(host => host.stop()))
    await Promise.all(this.pebbles.map(pebble => pebble.stop()))
    await this.central.stop()
    // One by one: the kernel takes its time to clean up after a namespace that is gone, and our ends of the cables with it.
    const { stdout } = await run('ip', ['-o', 'link'])
    const ours = stdout.match(new RegExp(`(?<=^\\d+: )${this.network.bridge}(?:h[^@:]*)?(?=[@:])`, 'gmu')) ?? []
    for (const name of ours) await run('ip', ['link', 'del', name])
    rmSync(this.dir, { recursive: true, force: true })
  }
}

/** Takes a number that no other lab has: the bridge of that name is the lock. */
async function takeNumber(): Promise<number> {
  // From a place of its own: a name that a closing lab has just freed should not be taken while that one still looks.
  const first = process.pid % 254
  for (let tried = 0; tried < 254; tried++) {
    const number = 1 + (first + tried) % 254
    const { code, stderr } = await run('ip', ['link', 'add', `lab${number}`, 'type', 'bridge'])
    if (code === 0) return number
    if (!stderr.includes('File exists')) throw new Error(`lab: cannot make a bridge: ${stderr}`)
  }
  throw new Error('lab: 254 labs are open')
}
