/**
 * What each host of each section still lacks (spec §8): files without a receipt, services that have not been reloaded since,
 * ports that have not shown the certificate. What a look at the host found to be otherwise is made to have no receipt first
 * (`withoutHost`), so that one rule serves the plan on paper and the run.
 */
import { parkedUntil } from './backoff.js'
import { filesKey, hasReceipt, keysOfHost, reloadKey, verifyKey } from './hostReceipts.js'
import { askedAgain, isNarrowedTo, membersOf, saidOfFailure, times, type Narrowing, type PlanInput } from './plan.js'
import { receiptId } from './receipts.js'
import { deliverable } from './renewal.js'
import type { Failure, Held, HostDelivery, HostName, Receipts, Section } from './types.js'

/** One host of one section, with the certificates that belong there. */
export interface HostMembers {
  readonly section: Section
  readonly host: HostName
  readonly certificates: readonly Held[]
}

/** Under what key a host's failures in a section are remembered. */
export const hostKey = ({ host, section }: Pick<HostMembers, 'host' | 'section'>): string => `${host} ${section.name}`

/** What a host's failure was about: when the operator changes it, the back-off is void. */
export const hostSubject = ({ host, section }: Pick<HostMembers, 'host' | 'section'>): string =>
  [...keysOfHost(section, host), section.verifyAddress[host] ?? ''].join('\n')

/** Whether a certificate is to be delivered to a host, as far as the command line has a say. */
export function isWantedAt({ only, deliver }: Narrowing, section: Section, host: HostName, held: Held): boolean {
  const targets = deliver?.targets
  if (targets === undefined) return isNarrowedTo(held, only)
  return targets.hosts.has(host) || targets.sections.has(section.name) || isNarrowedTo(held, targets.subjects)
}

/** Every host of every section that some certificate belongs to, in the order of the file. */
export function hostMembers({ configuration, inventory, now, narrowing = {} }: Omit<PlanInput, 'authority' | 'state'>): HostMembers[] {
  const members = membersOf(configuration.sections, inventory.filter(h => deliverable(h, now)))
  return configuration.sections.flatMap(section => section.hosts.map(host => ({
    section, host, certificates: (members.get(section) ?? []).filter(h => isWantedAt(narrowing, section, host, h)),
  }))).filter(({ certificates }) => certificates.length > 0)
}

/** The deliveries to hosts that receipts alone tell of, for a plan on paper. */
export function planHosts(input: Omit<PlanInput, 'authority'>): HostDelivery[] {
  return hostMembers(input).flatMap(members => {
    const failure = input.state.hostFailures[hostKey(members)]
    const delivery = planHost(members, input.state.receipts, failure, askedAgain(input.narrowing ?? {}))
    const parked = parkedHost(members, failure, input)
    if (parked !== undefined) return [{ ...delivery ?? lookOnly(members), parked }]
    return delivery === undefined ? [] : [delivery]
  })
}

/** A delivery that brings nothing: a host is looked at. */
export const lookOnly = ({ section, host, certificates }: HostMembers, reason = 'nightly look'): HostDelivery =>
  ({ section, host, send: [], reload: [], verify: section.verify, certificates, reason })

/** Until when a host that failed is left alone, and why; a command line that names something overrides it. */
export function parkedHost(members: HostMembers, failure: Failure | undefined, { narrowing = {}, now }: Pick<PlanInput, 'narrowing' | 'now'>): HostDelivery['parked'] {
  if (failure === undefined || narrowing.only !== undefined || narrowing.deliver !== undefined) return undefined
  const until = parkedUntil(failure, hostSubject(members), now)
  return until === undefined ? undefined : { why: `failed ${times(failure.count)}: ${failure.message} (to try it now: lematt deliver ${members.host})`, until }
}

/**
 * What a host lacks of a section; undefined when nothing.
 * @param why what a look at the host found, or the command line asked for; the receipts of what is concerned are gone already
 */
export function planHost({ section, host, certificates }: HostMembers, receipts: Receipts, failure?: Failure, why?: string): HostDelivery | undefined {
  const lacks = (key: string): Held[] => certificates.filter(h => !hasReceipt(receipts, section, key, h))
  const send = lacks(filesKey(host))
  const services = section.reload.filter(service => lacks(reloadKey(host, service)).length > 0)
  const reload = send.length > 0 ? section.reload : services
  const ports = section.verify.filter(port => lacks(verifyKey(host, port)).length > 0)
  const verify = send.length > 0 || reload.length > 0 ? section.verify : ports
  const concerned = new Set([...send, ...services.flatMap(s => lacks(reloadKey(host, s))), ...ports.flatMap(p => lacks(verifyKey(host, p)))])
  if (concerned.size === 0) return undefined
  return {
    section, host, send, reload, verify,
    certificates: certificates.filter(h => concerned.has(h)),
    reason: why ?? reasonFor({ section, host, certificates }, send, receipts, failure),
  }
}

function reasonFor({ section, host }: HostMembers, send: readonly Held[], receipts: Receipts, failure: Failure | undefined): string {
  if (failure !== undefined) return saidOfFailure(failure)
  const ofSection = receipts[section.name] ?? {}
  const known = keysOfHost(section, host).filter(key => Object.keys(ofSection[key] ?? {}).length > 0)
  if (!known.includes(filesKey(host))) return 'never delivered to this host'
  const seen = new Set(known.flatMap(key => Object.keys(ofSection[key] ?? {})))
  const fresh = send.filter(h => !seen.has(receiptId(h))).length
  if (fresh > 0) return `${fresh} of its certificates ${fresh === 1 ? 'is' : 'are'} new or renewed`
  const added = [...section.reload.filter(s => !known.includes(reloadKey(host, s))), ...section.verify.filter(p => !known.includes(verifyKey(host, p))).map(p => p.text)]
  // Where nothing else has been seen since either, it was an end that lacked, not a beginning.
  return added.length > 0 && added.length < section.reload.length + section.verify.length ? `added: ${added.join(', ')}` : 'an earlier delivery was not finished'
}
