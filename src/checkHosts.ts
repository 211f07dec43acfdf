/**
 * `lematt check --hosts` (spec §8): for each host of actions.conf whether it is reachable, its key pinned, its receiver current,
 * each service and base URL allowed, each port answering TLS from here, and the files there. Changes nothing.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Finding } from './checkStore.js'
import { tunnel } from './core/enrolment.js'
import { hostMembers } from './core/hostPlan.js'
import { OperationalError } from './core/errors.js'
import { isIp } from './core/identifier.js'
import { hostStatus, sha256, asLines, type HostStatus } from './core/receiver.js'
import { formatTime } from './core/report.js'
import { identifiersRoutedTo } from './core/routing.js'
import { cleanLine, count } from './core/text.js'
import type { Configuration, Held, HostName, Mode, Section } from './core/types.js'
import { serverName } from './core/verify.js'
import { openSsh, type Connection, type Ssh } from './edge/ssh.js'
import { explained, storePaths } from './edge/store.js'
import { probe } from './edge/tls.js'
import { observe } from './observe.js'
import { filesOf, Parcels } from './parcel.js'

export interface CheckHostsContext {
  readonly configuration: Configuration
  /** Whose files are compared. */
  readonly mode: Mode
  /** The directory of package.json, which holds our lematt-receive. */
  readonly packageRoot: string
  readonly environment: Readonly<Record<string, string | undefined>>
  readonly signal: AbortSignal
  readonly clock: () => Date
}

/** Seconds for the receiver's answer. */
const statusSeconds = 60

/** All hosts at once; findings in the order of actions.conf. Rejects for an abort, and for what is amiss here. */
export async function checkHosts(context: CheckHostsContext): Promise<Finding[]> {
  const { configuration, mode, signal, environment } = context
  const hosts = [...new Set(configuration.sections.flatMap(s => s.hosts))]
  if (hosts.length === 0) return [{ level: 'ok', text: 'hosts: none in actions.conf' }]
  const paths = storePaths(configuration.directory, mode)
  const ours = await readFile(join(context.packageRoot, 'remote/lematt-receive'), 'utf8').catch((error: unknown) => {
    throw explained(error, 'remote/lematt-receive of lematt itself cannot be read; install lematt again')
  })
  const members = hostMembers({ configuration, inventory: await observe(configuration, mode, paths), now: context.clock() })
  const ssh = openSsh({ signal, environment, configFile: configuration.settings.sshConfig })
  const parcels = new Parcels(paths)
  try {
    const found = await Promise.all(hosts.map(async host => {
      const sections = configuration.sections.filter(s => s.hosts.includes(host))
      const certificates = [...new Set(members.filter(m => m.host === host).flatMap(m => m.certificates))]
      const one = new HostCheck(host, sections, certificates, { ...context, ssh, parcels, receiver: sha256(asLines(ours)) })
      return (await one.findings()).map(({ level, text }) => ({ level, text: cleanLine(text, 1000) }))
    }))
    return found.flat()
  } finally {
    await ssh.close()
  }
}

interface HostCheckContext extends CheckHostsContext {
  readonly ssh: Ssh
  readonly parcels: Parcels
  /** SHA-256 of our receiver. */
  readonly receiver: string
}

class HostCheck {
  constructor(readonly host: HostName, readonly sections: readonly Section[], readonly certificates: readonly Held[], readonly context: HostCheckContext) {}

  async findings(): Promise<Finding[]> {
    const [login, ports] = await Promise.all([this.login(), this.ports()])
    // A name that ssh does not take is one finding, not two.
    return [...login, ...ports.filter(({ text }) => !login.some(other => other.text === text))]
  }

  private say(level: Finding['level'], text: string): Finding {
    return { level, text: `${this.host}: ${text}` }
  }

  /**
   * What an operational error says; it names the host already. Anything else is a bug, which a host may have hit on purpose
   * by what it shows: no reason to leave out the others.
   */
  private async expecting(work: () => Promise<Finding[]>): Promise<Finding[]> {
    try {
      return await work()
    } catch (error) {
      this.context.signal.throwIfAborted()
      if (!(error instanceof OperationalError)) return [this.say('error', `internal error: ${String(error)}; please report it, the rest was looked at`)]
      return [error.message.startsWith(`${this.host}: `) ? { level: 'error', text: error.message } : this.say('error', error.message)]
    }
  }

  private login(): Promise<Finding[]> {
    return this.expecting(async () => {
      const connection = await this.context.ssh.connect(this.host)
      const { user, hostName, port } = connection.target
      const here = this.say('ok', `logged in as ${user} at ${hostName} port ${port}, host key known`)
      const ran = await connection.run('status', { timeoutSeconds: statusSeconds })
      const status = ran.ok ? hostStatus(ran.stdout) : undefined
      if (status === undefined) {
        const said = [ran.ok ? 'no status' : ran.how, ran.stderr || ran.stdout].filter(text => text !== '').join(': ')
        return [here, this.say('error', `there is no receiver behind this key (${said}): run there as root what ${this.enrol()} prints`)]
      }
      return [here, ...this.receiver(status), ...await this.forward(status, connection), ...await this.files(status)]
    })
  }

  private enrol(): string {
    return `lematt enroll ${this.host}`
  }

  private receiver(status: HostStatus): Finding[] {
    const services = [...new Set(this.sections.flatMap(s => s.reload))]
    const refused = services.filter(service => !status.services.includes(service))
    return [
      status.receiver === this.context.receiver
        ? this.say('ok', 'its lematt-receive is this version\'s')
        : this.say('warning', `its lematt-receive is not that of this lematt: run there as root what ${this.enrol()} prints`),
      ...refused.map(service => this.say('error', `it does not let this key reload ${service}: run there as root what ${this.enrol()} --reload ${service}='/usr/bin/systemctl reload ${service}' (and its other --reload) prints`)),
      ...services.length > 0 && refused.length === 0 ? [this.say('ok', `may reload ${services.join(', ')}`)] : [],
    ]
  }

  private async forward(status: HostStatus, connection: Connection): Promise<Finding[]> {
    const kinds = new Set(this.sections.flatMap(s => s.forward ?? []))
    const found: Finding[] = []
    if (kinds.has('redirect')) {
      const { challengeUrl } = this.context.configuration.settings
      const remedy = `run there as root what ${this.enrol()} --forward redirect (and its --reload) prints; it needs Node.js 18 there`
      found.push(challengeUrl !== undefined && status.forward.includes(challengeUrl)
        ? this.say('ok', `may redirect challenges to ${challengeUrl}`)
        : this.say('error', `it does not redirect challenges to ${challengeUrl ?? '(challengeUrl is not set)'}: ${remedy}`))
    }
    if (kinds.has('tunnel')) found.push(...await this.expecting(async () => {
      const end = await connection.listen(tunnel.address, tunnel.port, channel => channel.destroy())
      await end()
      return [this.say('ok', `lets us listen on ${tunnel.address} port ${tunnel.port} for challenges`)]
    }))
    return found
  }

  /** Compared by digest with those of the store. */
  private async files(status: HostStatus): Promise<Finding[]> {
    const { mode } = this.context
    if (this.certificates.length === 0) return [this.say('ok', `no certificate for it is held yet: lematt --${mode} orders and delivers it`)]
    return this.expecting(async () => {
      const wrong = (await Promise.all(this.certificates.map(held => this.context.parcels.notOn(status, held)))).flat()
      const [first] = wrong
      return first === undefined
        ? [this.say('ok', `has ${count(this.certificates.flatMap(filesOf).length, 'file')}, as conf/${mode}`)]
        : [this.say('warning', `${count(wrong.length, 'file or link', 'files or links')} not as in conf/${mode} (${first}${wrong.length > 1 ? ', …' : ''}): lematt deliver ${this.host} --${mode} sends what is lacking`)]
    })
  }

  /** Whether each port of `verify:` answers from here; which certificate it shows is the run's matter. */
  private ports(): Promise<Finding[]> {
    return this.expecting(async () => {
      const asked = new Map(this.sections.flatMap(section => section.verify.map(port => {
        const at = section.verifyAddress[this.host]
        return [`${port.port} ${port.protocol} ${at ?? ''}`, { section, port, at }] as const
      })))
      if (asked.size === 0) return []
      const { hostName } = await this.context.ssh.resolve(this.host)
      return Promise.all([...asked.values()].map(async ({ section, port: { text, port, protocol }, at }) => {
        const address = at ?? hostName
        const servername = this.serverName(section)
        const shown = await probe({ address, port, protocol, signal: this.context.signal, ...(servername === undefined ? {} : { servername }) })
        return shown.ok
          ? this.say('ok', `${text} at ${address} shows a certificate for ${shown.names.slice(0, 3).join(' ')}${shown.names.length > 3 ? ' …' : ''} until ${formatTime(shown.notAfter)}`)
          : this.say('error', `verify: ${text} at ${address}: ${shown.message}`)
      }))
    })
  }

  /** A name that the section serves; under a wildcard any will do. */
  private serverName(section: Section): string | undefined {
    const { subjects, sections } = this.context.configuration
    const names = subjects.flatMap(subject => identifiersRoutedTo(section, subject, sections)).filter(id => !isIp(id))
    const name = names.find(each => !each.startsWith('*')) ?? names[0]
    return name === undefined ? undefined : serverName(name)
  }
}
