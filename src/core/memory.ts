/** What a run leaves for the next one: failures with their count, bars of the CA, receipts that still mean something. */
import { failedAgain } from './backoff.js'
import { deliverySubject, fingerprintOf, orderKey, orderSubject, stepsOf } from './plan.js'
import { cleanLine } from './text.js'
import type { Configuration, DeliveryOutcome, Held, OrderOutcome, State } from './types.js'

/** What the CA said about more than one order: its message, and from when on it may be asked again. */
export interface Bar {
  readonly message: string
  readonly until?: Date
}

/** Failures are counted, successes forget them, and what the CA said of when to come back is kept. */
export function afterOrders(state: State, outcomes: readonly OrderOutcome[], bar: Bar | undefined, authority: string, now: Date): State {
  const failures = new Map(Object.entries(state.orderFailures))
  for (const outcome of outcomes) {
    const key = orderKey(outcome.order.held)
    if (outcome.status === 'done') failures.delete(key)
    if (outcome.status === 'failed' && outcome.blameless !== true) {
      const of = orderSubject(outcome.order.held.subject, authority)
      failures.set(key, failedAgain(failures.get(key), of, cleanLine(outcome.message), now, outcome.notBefore))
    }
  }
  const { accountBar: before, ...rest } = state
  const accountBar = bar?.until !== undefined
    ? { until: bar.until.toISOString(), message: cleanLine(bar.message), since: now.toISOString(), authority }
    : outcomes.some(o => o.status === 'done') ? undefined : before
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

/**
 * The state without what can never matter again: receipts of sections and steps that are gone or of certificates that
 * are held no more, failures of orders and sections that are gone.
 */
export function pruned(state: State, configuration: Configuration, inventory: readonly Held[]): State {
  const held = new Set(inventory.map(fingerprintOf))
  const receipts = Object.fromEntries(configuration.sections.flatMap(section => {
    const ofSection = state.receipts[section.name]
    if (ofSection === undefined) return []
    const keys = new Set(stepsOf(section).map(s => s.key))
    const steps = Object.entries(ofSection).filter(([key]) => keys.has(key))
      .map(([key, prints]) => [key, Object.fromEntries(Object.entries(prints).filter(([f]) => held.has(f)))] as const)
    return [[section.name, Object.fromEntries(steps)] as const]
  }))
  const orderKeys = new Set(inventory.map(orderKey))
  const sections = new Set(configuration.sections.map(s => s.name))
  return {
    ...state,
    receipts,
    orderFailures: Object.fromEntries(Object.entries(state.orderFailures).filter(([key]) => orderKeys.has(key))),
    deliveryFailures: Object.fromEntries(Object.entries(state.deliveryFailures).filter(([name]) => sections.has(name))),
  }
}
