/** When is a certificate due, and why (spec §3.2, §4). The clock is an argument. */
import type { Held, Leaf, Settings } from './types.js'

const dayMs = 86_400_000

/** The settings that decide; `keyBitsRSA` and `curve` are what a certificate should have. */
export type RenewalSettings = Pick<Settings, 'reauthorizeDays' | 'generateNewCertsAfterDays' | 'alwaysGenerateNewKeys' | 'keyBitsRSA' | 'curve'>

export interface Due {
  /** What the operator reads in the plan: `renew: 12 days left of 90 days`. */
  readonly reason: string
  readonly newKey: boolean
}

/**
 * Whether the certificate must be had anew. Missing, unlike the configuration, not belonging to its key, expired,
 * or past the renewal rule: in this order, and the first one that holds is the reason.
 */
export function due(held: Held, settings: RenewalSettings, now: Date): Due | undefined {
  const badKey = keyProblem(held, settings)
  const newKey = badKey !== undefined || settings.alwaysGenerateNewKeys
  const because = (reason: string): Due => ({ reason, newKey })
  const { certificate } = held

  if (certificate.state === 'missing') return because('new: there is no certificate yet')
  if (certificate.state === 'unreadable') return because(`reissue: the certificate file is unreadable: ${certificate.why}`)
  const { leaf } = certificate
  const names = nameChanges(held, leaf)
  if (names !== undefined) return because(`reissue: ${names}`)
  const unlike = keyUnlike(leaf, held, settings)
  if (unlike !== undefined) return because(`reissue: the certificate has ${unlike}`)
  if (badKey !== undefined) return because(`reissue: ${badKey}`)
  if (held.key.state === 'read' && held.key.facts.spki !== leaf.spki) return because('reissue: certificate and key file do not belong together')
  if (leaf.notAfter <= now) return because(`renew: expired ${formatDays(now.getTime() - leaf.notAfter.getTime())} ago`)
  const rule = pastRule(leaf, settings, now)
  return rule === undefined ? undefined : because(`renew: ${rule}`)
}

/** Whether key and certificate on disk form a valid pair that may be delivered, due or not. */
export function deliverable(held: Held, now: Date): held is Held & { certificate: { state: 'read'; leaf: Leaf } } {
  return held.certificate.state === 'read' && held.key.state === 'read'
    && held.key.facts.spki === held.certificate.leaf.spki && held.certificate.leaf.notAfter > now
}

function keyProblem(held: Held, settings: RenewalSettings): string | undefined {
  if (held.key.state === 'missing') return 'the key file is missing'
  if (held.key.state === 'unreadable') return `the key file is unreadable: ${held.key.why}`
  const unlike = keyUnlike(held.key.facts, held, settings)
  return unlike === undefined ? undefined : `the key file has ${unlike}`
}

function keyUnlike(facts: Pick<Leaf, 'keyType' | 'rsaBits' | 'curve'>, held: Held, settings: RenewalSettings): string | undefined {
  if (facts.keyType !== held.keyType) return `a key of another type than ${held.keyType}`
  if (held.keyType === 'rsa' && facts.rsaBits !== settings.keyBitsRSA) return `${facts.rsaBits ?? '?'} bits, not ${settings.keyBitsRSA}`
  if (held.keyType === 'ec' && facts.curve !== settings.curve) return `curve ${facts.curve ?? '?'}, not ${settings.curve}`
  return undefined
}

function nameChanges(held: Held, leaf: Leaf): string | undefined {
  const wanted = new Set(held.subject.identifiers)
  const present = new Set(leaf.identifiers)
  const added = [...wanted].filter(id => !present.has(id))
  const gone = [...present].filter(id => !wanted.has(id))
  if (added.length === 0 && gone.length === 0) return undefined
  const parts = [added.length > 0 ? `without ${added.join(' ')}` : '', gone.length > 0 ? `with ${gone.join(' ')}` : '']
  return `the certificate is ${parts.filter(p => p !== '').join(' and ')}`
}

/** Milliseconds from notBefore to notAfter, both included (RFC 5280 §4.1.2.5). */
export const lifetimeMs = (leaf: Pick<Leaf, 'notBefore' | 'notAfter'>): number => leaf.notAfter.getTime() - leaf.notBefore.getTime() + 1000

/** Short-lived certificates are renewed at half of their life. */
const isShort = (lifetime: number): boolean => lifetime < 10 * dayMs

/**
 * How long before expiry `reauthorizeDays` means for this certificate, in milliseconds. More than 2/3 of the
 * lifetime (1/2 below 10 days) is cut to that: 60 days with a 45-day certificate would reissue every night.
 */
export function reauthorizeWindow(leaf: Leaf, days: number): { readonly ms: number; readonly cut: boolean } {
  const lifetime = lifetimeMs(leaf)
  const most = isShort(lifetime) ? lifetime / 2 : (lifetime * 2) / 3
  const ms = days * dayMs
  return ms > most ? { ms: most, cut: true } : { ms, cut: false }
}

/** An age rule that would let the certificate expire (or nearly so) is not followed: see `pastRule`. */
export const ageRuleTooLate = (leaf: Leaf, days: number): boolean => days * dayMs > lifetimeMs(leaf) * 0.9

function pastRule(leaf: Leaf, settings: RenewalSettings, now: Date): string | undefined {
  const lifetime = lifetimeMs(leaf)
  const left = leaf.notAfter.getTime() - now.getTime()
  const leftOf = `${formatDays(left)} left of ${formatDays(lifetime)}`
  const ageDays = settings.generateNewCertsAfterDays
  if (ageDays > 0 && !ageRuleTooLate(leaf, ageDays)) {
    const age = now.getTime() - leaf.notBefore.getTime()
    return age >= ageDays * dayMs ? `${formatDays(age)} old, the rule is ${formatDays(ageDays * dayMs)}` : undefined
  }
  // 0 days before expiry would be too late: it is "off", as it is for the age.
  const { reauthorizeDays = 0 } = settings
  const window = reauthorizeDays > 0 && ageDays === 0
    ? reauthorizeWindow(leaf, reauthorizeDays).ms
    : isShort(lifetime) ? lifetime / 2 : lifetime / 3
  return left <= window ? leftOf : undefined
}

/** Standing warnings about a rule that does not fit a certificate's lifetime; undefined when it does. */
export function ruleWarning(leaf: Leaf, settings: RenewalSettings): string | undefined {
  const lifetime = formatDays(lifetimeMs(leaf))
  if (settings.generateNewCertsAfterDays > 0) {
    return ageRuleTooLate(leaf, settings.generateNewCertsAfterDays)
      ? `generateNewCertsAfterDays: ${settings.generateNewCertsAfterDays} is too late for a lifetime of ${lifetime}; the default rule is used`
      : undefined
  }
  if (settings.reauthorizeDays === undefined) return undefined
  const { ms, cut } = reauthorizeWindow(leaf, settings.reauthorizeDays)
  if (settings.reauthorizeDays > 0 && settings.reauthorizeDays < 2) {
    return `reauthorizeDays: ${settings.reauthorizeDays} leaves a nightly run one try or none before expiry; give it a week`
  }
  return cut ? `reauthorizeDays: ${settings.reauthorizeDays} is cut to ${formatDays(ms)} for a lifetime of ${lifetime}, else it would be reissued every night` : undefined
}

/** `12 days`, `1 day`, `2.5 days` (below 10 days), `7 hours` (below 2 days), `5 minutes`. */
export function formatDays(ms: number): string {
  const days = ms / dayMs
  const unit = (n: number, name: string): string => `${n} ${name}${n === 1 ? '' : 's'}`
  if (days >= 10) return unit(Math.round(days), 'day')
  if (days >= 2) return unit(Math.round(days * 10) / 10, 'day')
  if (ms >= 2 * 3_600_000) return unit(Math.round(ms / 3_600_000), 'hour')
  return unit(Math.max(0, Math.round(ms / 60_000)), 'minute')
}
