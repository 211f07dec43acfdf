/**
 * What the operator reads, as text and as JSON (spec §6). Rules of output: lower case; what, why, what to do; one line per
 * fact; nothing from outside that was not cleaned; the same facts in text and JSON. Nothing here prints: cli.ts does.
 */
import { hostDeliveryJson, hostOutcomeJson, hostPlanLine, hostRow, hostWord } from './hostReport.js'
import { formatDays } from './renewal.js'
import { certificateJson, firstLine, formatTime, parkedJson, parkedText, title } from './reportWords.js'
import { count } from './text.js'
import type { Delivery, DeliveryOutcome, HostDelivery, HostOutcome, Mode, Order, OrderOutcome } from './types.js'

export { formatTime, parkedMessage, title } from './reportWords.js'
export { hostLine, hostTitle } from './hostReport.js'

/** All that a run came to. */
export interface Report {
  readonly mode: Mode
  readonly started: Date
  readonly ended: Date
  readonly orders: readonly OrderOutcome[]
  readonly deliveries: readonly DeliveryOutcome[]
  readonly hosts: readonly HostOutcome[]
  /** What was changed besides: mended pairs, links, a new account key. */
  readonly notes: readonly string[]
  /** Standing warnings: of the configuration, of damaged state files. */
  readonly warnings: readonly string[]
  /** What failed besides orders, deliveries and hosts. */
  readonly failures: readonly string[]
}

/** The plan of `--dry-run`. */
export interface PlanReport {
  readonly mode: Mode
  readonly now: Date
  readonly orders: readonly Order[]
  readonly deliveries: readonly Delivery[]
  readonly hosts: readonly HostDelivery[]
  readonly warnings: readonly string[]
}

/** Columns side by side, two blanks apart; the last one is not padded. */
export function table(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = []
  for (const row of rows) for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length)
  return rows.map(row => row.map((cell, i) => (i === row.length - 1 ? cell : cell.padEnd(widths[i] ?? 0))).join('  ').trimEnd())
}

const indented = (lines: readonly string[]): string[] => lines.map(line => `  ${line}`)

/** The plan for the terminal: a line per order, per host and per step of a delivery, each with its reason. */
export function planText(plan: PlanReport): string[] {
  const orders = plan.orders.map(o => [title(o.held), o.held.keyType, o.reason + (o.newKey ? ' (new key)' : ''), o.parked === undefined ? '' : parkedText(o.parked)])
  const steps = plan.deliveries.flatMap(d => [
    `  [${d.section.name}] deliver: ${d.parked === undefined ? d.reason : parkedText(d.parked)}`,
    ...d.steps.map(s => `    ${s.kind}: ${s.command} (${count(s.certificates.length, 'certificate')})`),
  ])
  const deliveries = [...indented(plan.hosts.map(hostPlanLine)), ...steps]
  return [
    ...plan.warnings.map(w => `warning: ${w}`),
    ...(orders.length === 0 ? ['nothing is due'] : [`to be issued (${plan.mode}):`, ...indented(table(orders))]),
    ...(deliveries.length === 0 ? ['nothing is to be delivered'] : ['to be delivered:', ...deliveries]),
  ]
}

/** One line for an outcome, as it comes. */
export function orderLine(outcome: OrderOutcome): string {
  const { held } = outcome.order
  const what = `${title(held)} ${held.keyType}`
  if (outcome.status !== 'done') return `${outcome.status}: ${what}: ${outcome.message}`
  return `issued: ${what} by ${outcome.leaf.issuer}, until ${formatTime(outcome.leaf.notAfter)}`
}

export function deliveryLine(outcome: DeliveryOutcome): string {
  const { section, certificates } = outcome.delivery
  const what = `[${section.name}] ${count(certificates.length, 'certificate')}`
  if (outcome.status === 'parked') return `parked: ${what}: ${outcome.message}`
  if (outcome.status === 'failed') return `failed: ${what}: ${outcome.step}: ${outcome.message}`
  return `delivered: ${what}, ${count(outcome.ran.length, 'step')}`
}

/** The table at the end of a run, then what failed, in full. */
export function reportText(report: Report): string[] {
  const rows = [
    ...report.orders.map(o => [o.status === 'done' ? 'issued' : o.status, title(o.order.held), o.order.held.keyType, o.status === 'done' ? `${formatDays(o.leaf.notAfter.getTime() - report.ended.getTime())}, ${o.order.reason}` : firstLine(o.message)]),
    ...report.hosts.map(hostRow),
    ...report.deliveries.map(d => [d.status === 'done' ? 'delivered' : d.status, `[${d.delivery.section.name}]`, '', d.status === 'done' ? `${count(d.delivery.certificates.length, 'certificate')}, ${d.delivery.reason}` : d.status === 'failed' ? firstLine(`${d.step}: ${d.message}`) : firstLine(d.message)]),
  ]
  return [...table(rows), ...report.failures.map(f => `failed: ${f}`), summary(report)]
}

/** The last line: what was done and what was not. */
export function summary(report: Report): string {
  const n = (list: readonly { status: string }[], status: string): number => list.filter(o => o.status === status).length
  const all = [...report.orders, ...report.hosts, ...report.deliveries]
  const looked = report.hosts.filter(h => hostWord(h) === 'verified').length
  const parts = [
    [n(report.orders, 'done'), 'issued'],
    [n([...report.hosts, ...report.deliveries], 'done') - looked, 'delivered'], [looked, 'verified'],
    [n(all, 'failed') + report.failures.length, 'failed'], [n(all, 'parked'), 'parked'],
  ].filter(([number]) => number !== 0).map(([number, word]) => `${number ?? 0} ${word ?? ''}`)
  const took = ((report.ended.getTime() - report.started.getTime()) / 1000).toFixed(1)
  return `${parts.length === 0 ? 'nothing to do' : parts.join(', ')} (${report.mode}, ${took} s)`
}

/** 0 when all is well, 1 when something failed or still waits after a failure. */
export function exitCode(report: Report): 0 | 1 {
  return [...report.orders, ...report.hosts, ...report.deliveries].some(o => o.status !== 'done') || report.failures.length > 0 ? 1 : 0
}

/**
 * Whether `--cron` has something to say: something changed or failed. What still waits after a failure was told when it
 * failed, and is told again when it is tried.
 */
export function isEventful({ orders, hosts, deliveries, notes, failures }: Report): boolean {
  const delivered = [...hosts, ...deliveries]
  const waits = [...orders.filter(o => o.status === 'parked' && o.order.parked?.until !== undefined), ...delivered.filter(d => d.status === 'parked' && d.delivery.parked?.until !== undefined)]
  return orders.length + delivered.length > waits.length || notes.length > 0 || failures.length > 0
}

// --- JSON (docs/json.md describes it; `version` changes when a field changes its meaning) ---

const deliveryJson = (d: Delivery): object => ({
  section: d.section.name,
  reason: d.reason,
  steps: d.steps.map(s => ({ kind: s.kind, command: s.command, certificates: s.certificates.map(certificateJson) })),
  ...parkedJson(d.parked),
})

export function planJson(plan: PlanReport): object {
  return {
    version: 1,
    mode: plan.mode,
    time: plan.now.toISOString(),
    orders: plan.orders.map(o => ({ ...certificateJson(o.held), reason: o.reason, newKey: o.newKey, ...parkedJson(o.parked) })),
    hosts: plan.hosts.map(hostDeliveryJson),
    deliveries: plan.deliveries.map(deliveryJson),
    warnings: plan.warnings,
  }
}

export function reportJson(report: Report): object {
  return {
    version: 1,
    mode: report.mode,
    started: report.started.toISOString(),
    ended: report.ended.toISOString(),
    exitCode: exitCode(report),
    orders: report.orders.map(o => ({
      ...certificateJson(o.order.held),
      reason: o.order.reason,
      status: o.status,
      ...(o.status === 'done' ? { fingerprint: o.leaf.fingerprint, issuer: o.leaf.issuer, notAfter: o.leaf.notAfter.toISOString() } : { message: o.message }),
      ...(o.status === 'parked' ? parkedJson(o.order.parked) : {}),
    })),
    hosts: report.hosts.map(hostOutcomeJson),
    deliveries: report.deliveries.map(d => ({
      ...deliveryJson(d.delivery),
      status: d.status,
      ...(d.status === 'parked' ? {} : { ran: d.ran }),
      ...(d.status === 'failed' ? { step: d.step } : {}),
      ...(d.status === 'done' ? {} : { message: d.message }),
    })),
    notes: report.notes,
    warnings: report.warnings,
    failures: report.failures,
  }
}
