/**
 * Deliveries to hosts → outcomes (spec §8). All hosts at once, one connection each; on a host one section after the other:
 * look what is there, send what is lacking, reload, see the ports show it. A receipt after each thing that was seen done.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { OperationalError } from './core/errors.js'
import { hostKey, hostMembers, lookOnly, parkedHost, planHost, type HostMembers } from './core/hostPlan.js'
import { filesKey, hasReceipt, reloadKey, verifyKey, withoutHost, withoutPort } from './core/hostReceipts.js'
import { askedAgain, type Narrowing } from './core/plan.js'
import { deliverAnswer, deliverCommand, deliverInput, hostStatus, type DeliverAnswer, type HostStatus } from './core/receiver.js'
import { withReceipts } from './core/receipts.js'
import { doneText } from './core/hostReport.js'
import { parkedMessage } from './core/report.js'
import { cleanLine } from './core/text.js'
import type { Configuration, Failure, Held, HostDelivery, HostDone, HostName, HostOutcome, Mode, Receipts, State } from './core/types.js'
import type { Connection, RemoteResult, Ssh } from './edge/ssh.js'
import type { StorePaths } from './edge/store.js'
import { look } from './look.js'
import { Parcels } from './parcel.js'
import type { Listener } from './progress.js'
import { Queue } from './queue.js'
import { seen, shown, type Before } from './verify.js'

export interface HostsContext {
  readonly configuration: Configuration
  readonly mode: Mode
  readonly paths: StorePaths
  readonly narrowing: Narrowing
  readonly clock: () => Date
  readonly signal: AbortSignal
  readonly listen: Listener
  readonly ssh: Pick<Ssh, 'connect'>
  /** Saves the receipts; never rejects for what can be expected. */
  readonly keep: (receipts: Receipts) => Promise<void>
}

/** How many hosts are worked on at once; those that do not answer do not count. */
const hostsAtOnce = 32
const nothing: HostDone = { files: 0, reloaded: [], verified: [] }

/** What it came to, in the order of the file, and the receipts as they are now. */
export interface Served {
  readonly outcomes: readonly HostOutcome[]
  readonly receipts: Receipts
  /** Errors that nobody expected: the others go on, and the run ends as a bug. */
  readonly bugs: readonly unknown[]
}

/** Tries whatever is lacking on some host, looks at what is not, and tells of what was lacking or has failed. */
export async function serveHosts(inventory: readonly Held[], state: State, context: HostsContext): Promise<Served> {
  const members = hostMembers({ configuration: context.configuration, inventory, now: context.clock(), narrowing: context.narrowing })
  const run = new HostsRun(state, context)
  const byHost = new Map<HostName, HostMembers[]>()
  for (const each of members) byHost.set(each.host, [...byHost.get(each.host) ?? [], each])
  await Promise.all([...byHost].map(([host, sections]) => run.host(host, sections)))
  return { outcomes: members.flatMap(each => run.outcomes.get(hostKey(each)) ?? []), receipts: run.receipts, bugs: run.bugs }
}

class HostsRun {
  readonly outcomes = new Map<string, HostOutcome>()
  readonly bugs: unknown[] = []
  receipts: Receipts
  private readonly work = new Queue({ concurrency: hostsAtOnce })
  private readonly parcels: Parcels
  private current: Promise<void> | undefined
  private next: Promise<void> | undefined
  private saveMs = 0

  constructor(private readonly state: State, private readonly context: HostsContext) {
    this.receipts = state.receipts
    this.parcels = new Parcels(context.paths)
  }

  /** Never rejects for what can be expected of a host. */
  async host(host: HostName, sections: readonly HostMembers[]): Promise<void> {
    const active = sections.filter(members => !this.isParked(members))
    if (active.length === 0) return
    try {
      for (const members of active) this.doing(lookOnly(members), 'connecting')
      // Whoever does not answer waits here, where nobody waits for him.
      const connection = await this.context.ssh.connect(host)
      await this.work.add(() => this.connected(connection, active))
    } catch (error) {
      for (const members of active) this.failed(members, 'connect', error)
    }
  }

  private isParked(members: HostMembers): boolean {
    const parked = parkedHost(members, this.failureOf(members), { narrowing: this.context.narrowing, now: this.context.clock() })
    if (parked === undefined) return false
    this.end({ status: 'parked', delivery: { ...this.planned(members), parked }, message: parkedMessage(parked) })
    return true
  }

  private async connected(connection: Connection, sections: readonly HostMembers[]): Promise<void> {
    try {
      const status = await this.status(connection, sections)
      for (const members of sections) await this.serve(members, status, connection).then(outcome => this.end(outcome ?? members), (error: unknown) => this.failed(members, 'deliver', error))
    } catch (error) {
      for (const members of sections) this.failed(members, 'status', error)
    }
  }

  /** What the host says of itself; not asked where nothing has been delivered that could have drifted. */
  private async status(connection: Connection, sections: readonly HostMembers[]): Promise<HostStatus | undefined> {
    if (!sections.some(({ section, host, certificates }) => certificates.some(h => hasReceipt(this.receipts, section, filesKey(host), h)))) return undefined
    const asked = await connection.run('status', { timeoutSeconds: this.context.configuration.settings.commandTimeoutSeconds })
    const status = asked.ok ? hostStatus(asked.stdout) : undefined
    if (status === undefined) throw new OperationalError(noAnswer(asked))
    return status
  }

  /** One section on one host; undefined when all is as it should be, and was the last time too. */
  private async serve(members: HostMembers, status: HostStatus | undefined, connection: Connection): Promise<HostOutcome | undefined> {
    const { section, host } = members
    if (this.interrupted()) return { status: 'parked', delivery: lookOnly(members), message: 'interrupted' }
    const failure = this.failureOf(members)
    const at = { ...this.context, address: section.verifyAddress[host] ?? connection.target.hostName }
    const drift = await look(members, this.receipts, status, { ...at, parcels: this.parcels })
    if (this.interrupted()) return { status: 'parked', delivery: lookOnly(members), message: 'interrupted' }
    this.receipts = withoutHost(this.receipts, section, host, drift.certificates)
    for (const { port, held } of drift.silent) this.receipts = withoutPort(this.receipts, section, host, port, [held])
    const delivery = planHost(members, this.receipts, failure, drift.found ?? askedAgain(this.context.narrowing))
    // What failed the last time and is well now, by itself, is told once more.
    if (delivery === undefined) {
      const verified = this.context.mode === 'prod' ? section.verify.map(p => p.text) : []
      return failure === undefined ? undefined : { status: 'done', delivery: lookOnly(members, `failed last time: ${failure.message}`), done: { ...nothing, verified } }
    }

    const before: Before = this.context.mode === 'test' ? failure?.before ?? await shown(delivery, at) : {}
    const sent = await this.send(delivery, members, connection)
    if (sent.outcome !== undefined) return sent.outcome
    if (delivery.verify.length > 0) this.doing(delivery, `looks at ${delivery.verify.map(p => p.text).join(' ')}`)
    const { verified, idle, failed } = await seen(delivery, before, at)
    const now = this.context.clock()
    for (const port of [...verified, ...idle]) this.receipts = withReceipts(this.receipts, section.name, verifyKey(host, port), delivery.certificates, now)
    // A service that was told to reload and shows something else is told again the next time, with the files.
    if (failed !== undefined && !this.interrupted()) this.receipts = withoutHost(this.receipts, section, host, failed.certificates)
    await this.save()
    const done = { ...sent.done, verified: verified.map(p => p.text) }
    if (failed === undefined) return { status: 'done', delivery, done }
    if (this.interrupted()) return { status: 'parked', delivery, message: `interrupted (${doneText(delivery, sent.done)})` }
    return { status: 'failed', delivery, done, step: `verify ${failed.ports.map(p => p.text).join(' ')}`, message: failed.message, ...this.context.mode === 'test' && { before } }
  }

  /** Files and reloads, in one transaction on the host, or several where one would be too much for it; `outcome` when it ends there. */
  private async send(delivery: HostDelivery, { certificates }: HostMembers, connection: Connection): Promise<{ done: HostDone; outcome?: HostOutcome }> {
    const { section, host, send, reload } = delivery
    if (send.length === 0 && reload.length === 0) return { done: nothing }
    const { clock, configuration: { settings } } = this.context
    this.doing(delivery, send.length === 0 ? `reloads ${reload.join(' ')}` : 'sends')
    // If we die between placing and reloading, no old reload may count as one that saw the new files.
    this.receipts = withoutHost(this.receipts, section, host, send)
    await this.save()
    let done = nothing
    for await (const parcel of this.parcels.of(send)) {
      const ran = await connection.run(deliverCommand(reload), { input: deliverInput(parcel.bodies, parcel.links), timeoutSeconds: settings.commandTimeoutSeconds })
      const answer = deliverAnswer(ran.stdout)
      // A host that says less than was asked has not done it.
      if (answer?.ok !== true || !ran.ok || !reload.every(service => answer.reloaded.includes(service))) return { done, outcome: this.notSent(delivery, done, answer?.ok === false ? answer : undefined, ran) }
      this.receipts = withReceipts(this.receipts, section.name, filesKey(host), parcel.certificates, clock())
      const there = certificates.filter(h => hasReceipt(this.receipts, section, filesKey(host), h))
      for (const service of reload) this.receipts = withReceipts(this.receipts, section.name, reloadKey(host, service), there, clock())
      await this.save()
      done = { files: done.files + parcel.bodies.length, reloaded: answer.reloaded, verified: [] }
    }
    return { done }
  }

  private notSent(delivery: HostDelivery, done: HostDone, refused: Extract<DeliverAnswer, { ok: false }> | undefined, ran: RemoteResult): HostOutcome {
    if (this.interrupted()) return { status: 'parked', delivery, message: 'interrupted' }
    const step = refused?.step.startsWith('reload ') === true ? refused.step : 'deliver'
    return { status: 'failed', delivery, done, step, message: refused?.message ?? noAnswer(ran) }
  }

  private failed(members: HostMembers, step: string, error: unknown): void {
    const delivery = this.planned(members)
    if (this.interrupted()) this.end({ status: 'parked', delivery, message: 'interrupted' })
    else this.end({ status: 'failed', delivery, done: nothing, step, message: this.messageOf(error) })
  }

  private messageOf(error: unknown): string {
    if (error instanceof OperationalError) return error.message
    this.bugs.push(error)
    return `internal error: ${cleanLine(error instanceof Error ? error.message : String(error))}`
  }

  /** What receipts say is lacking, or a look at the host where they say nothing. */
  private planned(members: HostMembers): HostDelivery {
    return planHost(members, this.receipts, this.failureOf(members)) ?? lookOnly(members)
  }

  private failureOf(members: HostMembers): Failure | undefined {
    return this.state.hostFailures[hostKey(members)]
  }

  private interrupted(): boolean {
    return this.context.signal.aborted
  }

  private doing(delivery: HostDelivery, doing: string): void {
    this.context.listen({ type: 'host', delivery, doing })
  }

  /** @param outcome or whose turn it was, when there was nothing to do */
  private end(outcome: HostOutcome | HostMembers): void {
    if ('status' in outcome) {
      this.outcomes.set(hostKey(outcome.delivery), outcome)
      this.context.listen({ type: 'hosted', outcome })
    } else this.context.listen({ type: 'well', delivery: lookOnly(outcome) })
  }

  /**
   * Resolves when the receipts are saved. One save at a time; what comes meanwhile, and for as long as the last one took, goes
   * along with the next: a hundred hosts end within seconds, and their receipts may be megabytes.
   */
  private save(): Promise<void> {
    return this.next ??= this.gather()
  }

  private async gather(): Promise<void> {
    await this.current
    await pause(this.saveMs)
    this.next = undefined
    const begun = performance.now()
    await (this.current = this.context.keep(this.receipts))
    this.saveMs = performance.now() - begun
  }
}

const noAnswer = ({ how, stderr, ok }: RemoteResult): string =>
  `${ok ? 'no answer that lematt-receive would give: is it the forced command of this key?' : how}${stderr === '' ? '' : `\n${stderr}`}`
