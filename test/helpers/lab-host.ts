// A remote host: network, mount, process and name namespaces of its own, joined to the lab's bridge.
import { join } from 'node:path'
import { Machine } from './lab-machine.js'
import { Daemon, must } from './lab-process.js'

/** The network of a lab: 10.20.N.0/24 and fd00:20:N::/64 on the bridge labN; .1 and ::1 are the central host. */
export interface Network { number: number; bridge: string; dir: string; resolver: string }

/** The machine's first process: waits for its orphans, for ever. */
const FIRST = `set -e
hostname "$1"
ip link set lo up
mount --bind "$2" /etc/resolv.conf
echo up
sleep infinity & wait`

/** The address of a lab's n-th machine. */
export function addresses(network: Network, n: number): { v4: string; v6: string } {
  return { v4: `10.20.${network.number}.${n}`, v6: `fd00:20:${network.number}::${n}` }
}

export class Host extends Machine {
  /** The bridge's end of its cable. */
  private readonly port: string

  private constructor(name: string, network: Network, n: number, private readonly first: Daemon) {
    const { v4, v6 } = addresses(network, n)
    // unshare itself is in the new namespaces too, but for that of its children's process ids.
    const ns = `/proc/${first.pid}/ns`
    super(name, v4, v6, join(network.dir, name), (command, args, cwd) => ['nsenter', [
      `--net=${ns}/net`, `--mount=${ns}/mnt`, `--uts=${ns}/uts`, `--pid=${ns}/pid_for_children`, `--wd=${cwd}`,
      '--', command, ...args,
    ]])
    this.port = `${network.bridge}h${n}`
  }

  /**
   * Makes a host and joins it to the lab.
   * @param n its number in the network, 11 to 254
   * @param more further addresses of it (IPv4 or IPv6), which the central host can reach
   */
  static async create(name: string, network: Network, n: number, more: readonly string[]): Promise<Host> {
    const first = new Daemon('unshare', [
      '--net', '--mount', '--uts', '--pid', '--fork', '--kill-child', '--mount-proc',
      'sh', '-c', FIRST, 'first', name, network.resolver,
    ])
    await first.ready('namespaces', () => first.stdout.includes('up'))
    const host = new Host(name, network, n, first)
    try {
      await host.join(network, more)
    } catch (error) {
      await host.stop()
      throw error
    }
    return host
  }

  private async join(network: Network, more: readonly string[]): Promise<void> {
    const central = addresses(network, 1)
    await must('sh', ['-ec', `
      ip link add ${this.port} type veth peer name eth0 netns ${this.first.pid}
      ip link set ${this.port} master ${network.bridge} up`])
    await this.must('sh', ['-ec', `
      ip link set eth0 up
      ip addr add ${this.address}/24 dev eth0
      ip route add default via ${central.v4}
      ip -6 addr add ${this.address6}/64 dev eth0 nodad
      ip -6 route add default via ${central.v6}`])
    for (const address of more) {
      await this.must('ip', ['addr', 'add', address, 'dev', 'eth0', ...(address.includes(':') ? ['nodad'] : [])])
      await must('ip', ['route', 'add', address, 'dev', network.bridge])
    }
  }

  /** Unplugs the host's network (down) or plugs it in again (up). */
  async setLink(state: 'up' | 'down'): Promise<void> {
    await must('ip', ['link', 'set', this.port, state])
  }

  /** The power switch: every process of the host is killed, its network is gone. */
  override async stop(): Promise<void> {
    this.first.kill('SIGKILL')
    await this.first.ended
    await super.stop()
  }
}
