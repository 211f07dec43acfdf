/** What a run leaves for the next one: failures with their count, bars of the CA, receipts that still mean something. */
import { failedAgain } from './backoff.js'
import { hostKey, hostSubject } from './hostPlan.js'
import { keysOfHosts } from './hostReceipts.js'
import { slotKey } from './names.js'
import { deliverySubject, orderSubject } from './plan.js'
import { hostOfKey, receiptId, stepsOf } from './receipts.js'
import { cleanLine } from './text.js'
import type { Configuration, DeliveryOutcome, Held, HostOutcome, OrderOutcome, State } from './types.js'

/** What the CA said about more than one order: its message, and from when on it may be asked again. */
export interface Bar {
  readonly message: string
  readonly until?: Date
}

/** Failures are counted, successes forget them, and what the CA said of when to come back is kept. */
export function afterOrders(state: State, outcomes: readonly OrderOutcome[], bar: Bar | undefined, authority: string, now: Date): State {
  const failures = new Map(Object.entries(state.orderFailures))
  for (const outcome of outcomes) {
    const key = slotKey(outcome.order.held)
    if (outcome.status === 'done') failures.delete(key)
    if (outcome.status !== 'failed' || (outcome.blameless === true && outcome.notBefore === undefined)) continue
    const of = orderSubject(outcome.order.held.subject, authority)
    const before = failures.get(key)
    const failure = failedAgain(before, of, cleanLine(outcome.message), now, outcome.notBefore)
    // What another order met holds for this one too, but is no failure of its own.
    failures.set(key, outcome.blameless === true ? { ...failure, count: failure.count - 1 } : failure)
  }
  const { accountBar: before, ...rest } = state
  const accountBar = bar?.until !== undefined
    ? { until: bar.until.toISOString(), message: cleanLine(bar.message), since: now.toISOString(), authority }
    : before?.authority === authority && outcomes.some(o => o.status === 'done') ? undefined : before
  return { ...rest, orderFailures: Object.fromEntries(failures), ...(accountBar === undefined ? {} : { accountBar }) }
}

export function afterDeliveries(state: State, outcomes: readonly DeliveryOutcome[], now: Date): State {
  const failures = new Map(Object.entries(state.deliveryFailures))
  for (const outcome of outcomes) {
    const { section } = outcome.delivery
    if (outcome.status === 'done') failures.delete(section.name)
    if (outcome.status !== 'failed') continue
    const message = cleanLine(`${outcome.step}: ${outcome.message}`)
    failures.set(section.name, failedAgain(failures.get(section.name), deliverySubject(section), message, now))
  }
  return { ...state, deliveryFailures: Object.fromEntries(failures) }
}

export function afterHosts(state: State, outcomes: readonly HostOutcome[], now: Date): State {
  const failures = new Map(Object.entries(state.hostFailures))
  for (const outcome of outcomes) {
    const key = hostKey(outcome.delivery)
    if (outcome.status === 'done') failures.delete(key)
    if (outcome.status !== 'failed') continue
    const failure = failedAgain(failures.get(key), hostSubject(outcome.delivery), cleanLine(`${outcome.step}: ${outcome.message}`), now)
    failures.set(key, { ...failure, ...outcome.before && { before: outcome.before } })
  }
  return { ...state, hostFailures: Object.fromEntries(failures) }
}

/** Longer than any certificate lives by then: what has been away for so long does not come back. */
const forgottenMs = 100 * 86_400_000

/**
 * The state without what no longer matters: failures of orders and sections that are gone, and receipts of what is neither
 * held nor was delivered lately. A subject, section or step that is away for a night is not delivered anew when it is back;
 * a host that leaves a section is forgotten at once, for nobody knows what becomes of it.
 */
export function pruned(state: State, configuration: Configuration, inventory: readonly Held[], now: Date): State {
  const held = new Set(inventory.map(receiptId))
  const keys = new Map(configuration.sections.map(section => [section.name, new Set([...stepsOf(section).map(s => s.key), ...keysOfHosts(section)])]))
  const hosts = new Map(configuration.sections.map(section => [section.name, new Set(section.hosts)]))
  const isForgotten = (section: string, key: string): boolean => {
    const host = hostOfKey(key)
    return host !== undefined && hosts.get(section)?.has(host) === false
  }
  const matters = (section: string, key: string, id: string, when: string): boolean =>
    (keys.get(section)?.has(key) === true && held.has(id)) || now.getTime() - Date.parse(when) < forgottenMs
  const receipts = filled(Object.entries(state.receipts).map(([section, steps]) => [section, filled(Object.entries(steps).filter(([key]) => !isForgotten(section, key)).map(([key, prints]) =>
    [key, Object.fromEntries(Object.entries(prints).filter(([id, when]) => matters(section, key, id, when)))]))]))
  const hostKeys = new Set(configuration.sections.flatMap(section => section.hosts.map(host => hostKey({ section, host }))))
  const orderKeys = new Set(inventory.map(slotKey))
  return {
    ...state,
    receipts,
    orderFailures: Object.fromEntries(Object.entries(state.orderFailures).filter(([key]) => orderKeys.has(key))),
    deliveryFailures: Object.fromEntries(Object.entries(state.deliveryFailures).filter(([name]) => keys.has(name))),
    hostFailures: Object.fromEntries(Object.entries(state.hostFailures).filter(([key]) => hostKeys.has(key))),
  }
}

/** The record of those entries that have something in them. */
function filled<T extends object>(entries: readonly (readonly [string, T])[]): Record<string, T> {
  return Object.fromEntries(entries.filter(([, value]) => Object.keys(value).length > 0))
}
