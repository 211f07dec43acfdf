/**
 * The plan: what is to be had and what is to be delivered, each with its reason, as plain values (spec §5). Orders are
 * planned before issuing, deliveries after it and from the disk again, so that a failed order is never delivered.
 */
import { sectionsOf } from './actions.js'
import { future, parkedUntil, saidUntil } from './backoff.js'
import { isWildcard } from './identifier.js'
import { slotKey } from './names.js'
import { hostOfKey, receiptId, stepsOf } from './receipts.js'
import { deliverable, due } from './renewal.js'
import type {
  Configuration, Delivery, DeliveryStep, Failure, Held, Identifier, Leaf, Order, Receipts, Section, State, Subject, UploadKind,
} from './types.js'

/** What the command line narrows: `--only` takes identifiers, labels and NAMEs; `--force` reissues those. */
export interface Narrowing {
  readonly only?: ReadonlySet<string>
  readonly force?: boolean
  /** `lematt deliver`: no orders; what is named is delivered now, whatever failed lately. */
  readonly deliver?: {
    /** These sections whole, these subjects (as `only` names them) in all their sections, these hosts; all when undefined. */
    readonly targets?: { readonly sections: ReadonlySet<string>; readonly subjects: ReadonlySet<string>; readonly hosts: ReadonlySet<string> }
    /** Also what was delivered before. */
    readonly again: boolean
  }
}

export interface PlanInput {
  readonly configuration: Configuration
  readonly inventory: readonly Held[]
  readonly state: State
  /** Which CA and account are asked: what another one said, or refused, means nothing here. */
  readonly authority: string
  readonly now: Date
  readonly narrowing?: Narrowing
}

/** What an order asks for: when it changes, earlier failures say nothing about it. */
export const orderSubject = (subject: Subject, authority: string): string => `${[...subject.identifiers].sort().join(' ')} at ${authority}`

/** Whether `--only` means this subject: by label, NAME or any of its identifiers. */
export function isNarrowedTo(held: Pick<Held, 'subject' | 'name'>, only: ReadonlySet<string> | undefined): boolean {
  if (only === undefined) return true
  return only.has(held.name) || (held.subject.label !== undefined && only.has(held.subject.label))
    || held.subject.identifiers.some(id => only.has(id))
}

/** Whether a certificate is to be delivered to a section, as far as the command line has a say. */
export function isWanted({ only, deliver }: Narrowing, section: Section, held: Held): boolean {
  const targets = deliver?.targets
  return targets === undefined ? isNarrowedTo(held, only) : targets.sections.has(section.name) || isNarrowedTo(held, targets.subjects)
}

/**
 * The orders due, in the order of the inventory (EC before RSA within a subject). What failed lately is parked until its
 * back-off is over, what the CA barred until it may be asked again; `--only` overrides the former, never the latter.
 */
export function planOrders({ configuration, inventory, state, authority, now, narrowing = {} }: PlanInput): Order[] {
  const orders: Order[] = []
  for (const held of narrowing.deliver === undefined ? inventory : []) {
    if (!isNarrowedTo(held, narrowing.only)) continue
    const found = due(held, configuration.settings, now)
      ?? (narrowing.force === true ? { reason: 'reissue: asked for with --force', newKey: configuration.settings.alwaysGenerateNewKeys } : undefined)
    if (found === undefined) continue
    const parked = parkedOrder(held, state, authority, now, narrowing)
    orders.push({ held, ...found, ...(parked === undefined ? {} : { parked }) })
  }
  return orders
}

function parkedOrder(held: Held, state: State, authority: string, now: Date, narrowing: Narrowing): Order['parked'] {
  const wildcard = held.subject.identifiers.find(isWildcard)
  if (wildcard !== undefined) return { why: wildcardProblem(wildcard) }
  const denied = [held.key, held.certificate].find(file => file.state === 'unreadable' && file.denied === true)
  if (denied?.state === 'unreadable') {
    // One run as root leaves files of root: to reissue everything for that would use up the CA's limits.
    return { why: `${denied.why}: no new certificate is had while this stands in its place; make it readable (chown) for the user that runs lematt, or move it away` }
  }
  const bar = state.accountBar
  // One that is from the future, or from another CA or account, says nothing.
  const holds = bar !== undefined && bar.authority === authority && new Date(bar.since) <= now
  const barred = holds ? future(new Date(bar.until), now) : undefined
  if (bar !== undefined && barred !== undefined) return { why: bar.message, until: barred }
  const failure = state.orderFailures[slotKey(held)]
  if (failure === undefined) return undefined
  const of = orderSubject(held.subject, authority)
  const said = failure.of === of ? saidUntil(failure, now) : undefined
  const until = said ?? (narrowing.only === undefined ? parkedUntil(failure, of, now) : undefined)
  if (until === undefined) return undefined
  const hint = said === undefined ? ` (to try it now: --only ${held.subject.label ?? held.subject.identifiers[0]})` : ''
  return { why: `${failure.count === 0 ? '' : `failed ${times(failure.count)}: `}${failure.message}${hint}`, until }
}

/** A wildcard is proved in DNS (RFC 8555 §8.4), and lematt answers http-01: an order would be spent for nothing. */
export const wildcardProblem = (wildcard: Identifier): string =>
  `${wildcard} needs a DNS challenge (dns-01), which lematt does not answer yet; take it out of domains, or write its names one by one`

export const times = (n: number): string => (n === 1 ? 'once' : `${n} times in a row`)

// ---------------------------------------------------------------------------------------------------

const isUpload = (kind: DeliveryStep['kind']): kind is UploadKind => kind !== 'update'

/**
 * What each section still lacks: each upload step the certificates that have no receipt for it, then each update step
 * those that have no receipt for it, and all that are uploaded now. Sections with nothing to do are left out.
 */
export function planDeliveries({ configuration, inventory, state, now, narrowing = {} }: Omit<PlanInput, 'authority'>): Delivery[] {
  const held = inventory.filter(h => deliverable(h, now))
  const members = membersOf(configuration.sections, held)
  const deliveries: Delivery[] = []
  for (const section of configuration.sections) {
    const mine = (members.get(section) ?? []).filter(h => isWanted(narrowing, section, h))
    const steps = lackingSteps(section, mine, state.receipts)
    if (steps.length === 0) continue
    const concerned = new Set(steps.flatMap(s => s.certificates))
    const failure = state.deliveryFailures[section.name]
    const until = narrowing.only === undefined && narrowing.deliver === undefined ? parkedUntil(failure, deliverySubject(section), now) : undefined
    deliveries.push({
      section,
      steps,
      certificates: mine.filter(h => concerned.has(h)),
      reason: askedAgain(narrowing) ?? deliveryReason(section, steps, state.receipts, failure),
      ...(failure === undefined || until === undefined ? {} : { parked: { why: `failed ${times(failure.count)}: ${failure.message} (to try it now: lematt deliver ${section.name})`, until } }),
    })
  }
  return deliveries
}

/** The certificates that belong to each section. */
export function membersOf(sections: readonly Section[], held: readonly Held[]): Map<Section, Held[]> {
  const members = new Map<Section, Held[]>(sections.map(section => [section, []]))
  const routed = new Map<Subject, Section[]>()
  for (const h of held) {
    const mine = routed.get(h.subject) ?? sectionsOf(h.subject, sections)
    routed.set(h.subject, mine)
    for (const section of mine) members.get(section)?.push(h)
  }
  return members
}

/** What a section's failure was about: when the operator changes a step, the back-off is void. */
export const deliverySubject = (section: Section): string => stepsOf(section).map(s => s.key).join('\n')

function lackingSteps(section: Section, mine: readonly Held[], receipts: Receipts): DeliveryStep[] {
  const steps: DeliveryStep[] = []
  const uploaded = new Set<Held>()
  for (const { kind, command, key } of stepsOf(section)) {
    const received = receipts[section.name]?.[key] ?? {}
    const lacking = mine.filter(h => received[receiptId(h)] === undefined || (!isUpload(kind) && uploaded.has(h)))
    if (lacking.length === 0) continue
    if (isUpload(kind)) for (const h of lacking) uploaded.add(h)
    steps.push({ kind, command, key, certificates: lacking })
  }
  return steps
}

function deliveryReason(section: Section, steps: readonly DeliveryStep[], receipts: Receipts, failure: Failure | undefined): string {
  if (failure !== undefined) return saidOfFailure(failure)
  const known = Object.fromEntries(Object.entries(receipts[section.name] ?? {}).filter(([key]) => hostOfKey(key) === undefined))
  if (Object.keys(known).length === 0) return 'never delivered to this section'
  const seen = new Set(Object.values(known).flatMap(fingerprints => Object.keys(fingerprints)))
  const certificates = new Set(steps.flatMap(s => s.certificates))
  const fresh = [...certificates].filter(h => !seen.has(receiptId(h))).length
  if (fresh > 0) return `${fresh} of its certificates ${fresh === 1 ? 'is' : 'are'} new or renewed`
  const added = steps.filter(s => known[s.key] === undefined)
  return added.length > 0 ? `step added: ${added.map(s => s.command).join('; ')}` : 'an earlier delivery was not finished'
}

/** The reason for what receipts would not ask for. */
export const askedAgain = ({ deliver }: Narrowing): string | undefined => (deliver?.again === true ? 'asked for with --again' : undefined)

/** What went wrong the last time, as the reason for trying again. */
export const saidOfFailure = ({ last, message }: Failure): string => `failed last time (${last.slice(0, 16).replace('T', ' ')} UTC): ${message}`

/**
 * The inventory as it would be if every order that is not parked succeeded: for the deliveries of a dry run. The
 * fingerprints are none that a certificate can have, so no receipt holds them.
 */
export function afterIssuing(inventory: readonly Held[], orders: readonly Order[], now: Date): Held[] {
  const issued = new Set(orders.filter(o => o.parked === undefined).map(o => o.held))
  return inventory.map(held => {
    if (!issued.has(held)) return held
    const facts: Leaf = {
      keyType: held.keyType, spki: 'to come', fingerprint: `to be issued: ${slotKey(held)}`, identifiers: held.subject.identifiers,
      notBefore: now, notAfter: new Date(now.getTime() + 90 * 86_400_000), issuer: 'to come', serial: 'to come',
    }
    return { ...held, key: { state: 'read', facts }, certificate: { state: 'read', leaf: facts } }
  })
}
