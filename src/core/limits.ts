/**
 * What a refusal means for the orders to come: a rate limit holds for the account or for some names, an outage for
 * everybody (spec §5) once it is confirmed (bars.ts). Nothing waits for a limit; what it bars is parked until a later run. Pure: the clock is an
 * argument. Texts are those of Boulder's ratelimits/transaction.go and wfe2 (acme-facts.md §1).
 */
import { isIP } from 'node:net'
import type { AcmeProblem } from './errors.js'
import type { Identifier } from './types.js'

export interface Limit {
  /**
   * `account`: no new order this run. `order`: this one's names only. `outage`: the server did not answer, or not well;
   * perhaps for this order alone. `none`: a failure, but no limit.
   */
  readonly scope: 'account' | 'order' | 'outage' | 'none'
  /** The registered domain, or (`exact`) the name that the limit is about, where the CA quotes it: other orders may have it too. */
  readonly name?: string
  readonly exact?: boolean
  /** Seconds from now after which it is worth asking again, where the CA says so. */
  readonly untilSeconds?: number
}

const aboutNames = [
  /too many certificates \(?\d*\)?\s*already issued/iu, // registered domain, address, or exact set of identifiers
  /too many failed authorizations/iu,
  // Paused after many failures: the text holds the URL where the operator lifts it; asking again does not.
  /temporarily prevented from requesting certificates for/iu,
]
const aboutAccount = [
  /too many (?:new )?(?:orders|registrations|accounts|currently pending)/iu,
  /rate limit of this service/iu,
]

/** Sorts a refused order's problem, for the identifiers that were ordered. */
export function limitOf(problem: AcmeProblem, identifiers: readonly Identifier[], now: Date): Limit {
  const seconds = problem.retryAfterSeconds ?? retryAfterInText(problem.message, now)
  const until = seconds === undefined ? {} : { untilSeconds: seconds }
  const limited = problem.type === 'rateLimited' || problem.status === 429
  // What stands in an order or a challenge was said by a server that is well, about this order.
  if (problem.inObject) return limited ? { scope: 'order', ...until } : { scope: 'none' }
  const unreachable = problem.status === 0 && ['connection-failed', 'timeout'].includes(problem.type)
  if (unreachable || (problem.status >= 500 && problem.identifier === undefined)) return { scope: 'outage' }
  if (!limited) return { scope: 'none' }
  const says = (patterns: readonly RegExp[]) => patterns.some((pattern) => pattern.test(problem.message))
  if (says(aboutNames)) return { scope: 'order', ...until, ...quotedName(problem.message) }
  if (says(aboutAccount)) return { scope: 'account', ...until }
  const named = problem.subproblems.some((sub) => sub.identifier !== undefined || mentions(sub.detail, identifiers))
  return { scope: named || mentions(problem.message, identifiers) ? 'order' : 'account', ...until }
}

/** `too many certificates (50) already issued for "example.com"`, `too many failed authorizations (5) for "www.example.com"`. */
function quotedName(text: string): { name?: string; exact?: boolean } {
  const [, what = '', name] = /(already issued|failed authorizations \(?\d*\)?)\s*for "([a-z0-9*.-]{1,253})"/iu.exec(text) ?? []
  return name === undefined ? {} : { name: name.toLowerCase(), ...(what.startsWith('failed') ? { exact: true } : {}) }
}

/** Whether a text names one of the identifiers or a parent domain of one. */
function mentions(text: string, identifiers: readonly Identifier[]): boolean {
  // URLs first: the link to the CA's documentation names the CA's own domain.
  const words = text.toLowerCase().replace(/https?:\/\/\S+/gu, ' ').match(/[a-z0-9*_:.-]+/gu) ?? []
  const names = new Set(words.map((word) => word.replace(/^[.:-]+|[.:-]+$/gu, '')))
  return identifiers.some((identifier) => {
    if (names.has(identifier)) return true
    if (isIP(identifier) > 0) return false
    const labels = identifier.split('.')
    // A parent of one label ("com") is a word like any other.
    return labels.some((_, cut) => cut > 0 && labels.length - cut > 1 && names.has(labels.slice(cut).join('.')))
  })
}

/** `… retry after 2006-01-02 15:04:05 UTC` (also written as RFC 3339) in seconds from now, rounded up. */
function retryAfterInText(text: string, now: Date): number | undefined {
  const match = /retry after (\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?: UTC|Z)/iu.exec(text)
  const seconds = match === null ? NaN : Math.ceil((Date.parse(`${match[1]}T${match[2]}Z`) - now.getTime()) / 1000)
  return Number.isNaN(seconds) ? undefined : Math.max(seconds, 0)
}
