/**
 * What holds back further orders of a run (spec §5): a rate limit of the account, one of a name, an outage, a store that
 * cannot be written. Nothing waits; what is held back is told with its reason and left to a later run.
 */
import type { AcmeProblem } from './core/errors.js'
import { limitOf } from './core/limits.js'
import type { Bar } from './core/memory.js'
import { title } from './core/report.js'
import type { Identifier, Order, OrderOutcome } from './core/types.js'
import { expectedMessage } from './validate.js'

/** What a failed order means for others. */
export interface Met {
  /** The order itself is to blame for nothing: no back-off begins. */
  readonly blameless: boolean
  /** The other key type of the subject would meet the same. */
  readonly subject: boolean
  readonly notBefore?: Date
}

/**
 * Orders in a row, without a success between, that meet a 5xx before it is taken for an outage: a server may choke on one
 * order's names, or on one order's own URLs, and serve all others.
 */
const strikesForOutage = { placing: 2, placed: 3 } as const

export class Bars {
  bar: Bar | undefined
  /** The order that met the bar first, and whose outcome tells of it. */
  private by: Order | undefined
  private readonly names: { readonly name: string; readonly exact: boolean; readonly notBefore?: Date; readonly by: Order }[] = []
  private strikes = 0

  constructor(private readonly clock: () => Date) {}

  /** The outcome of an order that is not to be tried; undefined when it may be. */
  holds(order: Order): OrderOutcome | undefined {
    if (this.bar !== undefined) return { status: 'parked', order, message: this.sameReason() }
    const limit = this.names.find(({ name, exact }) => order.held.subject.identifiers.some(id => id === name || (!exact && id.endsWith(`.${name}`))))
    if (limit === undefined) return undefined
    const message = `not tried: the limit on ${limit.name} that ${title(limit.by.held)} ${limit.by.held.keyType} met`
    return { status: 'failed', order, message, blameless: true, ...(limit.notBefore === undefined ? {} : { notBefore: limit.notBefore }) }
  }

  /** What is long, and the same for a hundred orders, is said once. */
  sameReason(): string {
    return this.by === undefined ? 'not tried' : `not tried, for the same reason as ${title(this.by.held)} ${this.by.held.keyType}`
  }

  /** Whether another order met the bar before this one: of those in progress then, one fails and the others are parked. */
  metBefore(order: Order): boolean {
    return this.by !== undefined && this.by !== order
  }

  success(): void {
    this.strikes = 0
  }

  /** The CA refused before the first order: what it says of the time is kept. */
  refused(problem: AcmeProblem, order: Order): void {
    const { limit, notBefore } = this.limitOf(problem, [])
    if (limit.scope === 'account') this.barAccount(problem, order, notBefore)
  }

  /** No order is tried any more, for a reason that has nothing to do with the CA. */
  shut(message: string, order: Order | undefined): void {
    this.bar ??= { message }
    this.by ??= order
  }

  /**
   * Sorts what the CA said to an order.
   * @param stage whether the order was being placed (newOrder, a URL for all) or stood already (URLs of its own)
   * @param answers asks whether the CA answers at all
   */
  async meet(problem: AcmeProblem, order: Order, stage: 'placing' | 'placed', answers: () => Promise<boolean>): Promise<Met> {
    const { limit, notBefore } = this.limitOf(problem, order.held.subject.identifiers)
    switch (limit.scope) {
      case 'none': return { blameless: false, subject: false }
      case 'order':
        if (limit.name !== undefined) this.names.push({ name: limit.name, exact: limit.exact === true, by: order, ...notBefore })
        return { blameless: false, subject: true, ...notBefore }
      case 'outage':
        this.strikes += 1
        if (this.strikes < strikesForOutage[stage] && await answers()) return { blameless: stage === 'placing', subject: stage === 'placing' }
        this.barAccount(problem, order, {})
        return { blameless: true, subject: false }
      case 'account':
        this.barAccount(problem, order, notBefore)
        return { blameless: true, subject: false }
    }
  }

  /** What the problem bars, and the instant until when it does where the CA says so. */
  private limitOf(problem: AcmeProblem, identifiers: readonly Identifier[]): { limit: ReturnType<typeof limitOf>; notBefore: { notBefore?: Date } } {
    const now = this.clock()
    const limit = limitOf(problem, identifiers, now)
    return { limit, notBefore: limit.untilSeconds === undefined ? {} : { notBefore: new Date(now.getTime() + limit.untilSeconds * 1000) } }
  }

  /** The first message, and the longest wait with its own: an outage may come before the limit that says how long. */
  private barAccount(problem: AcmeProblem, order: Order | undefined, { notBefore: until }: { notBefore?: Date }): void {
    const message = expectedMessage(problem) ?? ''
    if (this.bar === undefined || (until !== undefined && until > (this.bar.until ?? new Date(0)))) this.bar = { message, ...(until === undefined ? {} : { until }) }
    this.by ??= order
  }
}
