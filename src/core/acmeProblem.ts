/**
 * What an ACME server's refusals and unusable answers say, as `AcmeProblem`s. Pure.
 * RFC 8555 §6.7 (problems), RFC 7807 (their form), RFC 9110 §10.2.3 (Retry-After).
 */
import { parseAddress } from './address.js'
import { AcmeProblem, type Subproblem } from './errors.js'
import { cleanLine } from './text.js'
import type { Identifier } from './types.js'

/** One HTTP answer, whole: `body` is bounded by the transport. */
export interface AcmeAnswer {
  readonly url: string
  /** When it arrived: a Retry-After with a date counts from here. */
  readonly at: Date
  readonly status: number
  readonly contentType: string
  readonly retryAfter?: string
  readonly location?: string
  readonly nonce?: string
  readonly body: string
}

export type Json = Readonly<Record<string, unknown>>

export const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** A string of the server, cleaned; empty when it is none. */
export function text(value: unknown, limit = 1000): string {
  // Cut first: a server may send a megabyte of anything.
  return typeof value === 'string' ? cleanLine(redacted(value.slice(0, 4 * limit)), limit) : ''
}

/** Key authorizations belong into no log, and Boulder quotes the one that it expected: their second half goes. */
export function redacted(line: string): string {
  return line.replace(/(?<![A-Za-z0-9_-])([A-Za-z0-9_-]{16,})\.[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])/gu, '$1.…')
}

/** The server answered something that RFC 8555 does not know. */
export function malformed(answer: AcmeAnswer, what: string): AcmeProblem {
  return new AcmeProblem({
    type: 'malformed-answer', status: answer.status, detail: `${cleanLine(answer.url)} ${what}`,
    retryAfterSeconds: retryAfterOf(answer),
  })
}

/** Seconds from a Retry-After header (seconds, or a date); a year at most, so dates stay valid. */
export function retryAfterOf(answer: Pick<AcmeAnswer, 'retryAfter' | 'at'>): number | undefined {
  const header = answer.retryAfter?.trim() ?? ''
  const seconds = /^\d+$/u.test(header) ? Number(header) : Math.ceil((Date.parse(header) - answer.at.getTime()) / 1000)
  return Number.isNaN(seconds) ? undefined : Math.min(Math.max(seconds, 0), 366 * 86_400)
}

/** The body as a JSON object; a page from a proxy, or of the wrong URL, is named for what it is. */
export function readJson(answer: AcmeAnswer): Json {
  try {
    const value: unknown = JSON.parse(answer.body)
    if (isObject(value)) return value
  } catch { /* said below */ }
  const kind = cleanLine(answer.contentType, 80) || 'no content type'
  const start = answer.body === '' ? 'an empty answer' : `“${cleanLine(answer.body.slice(0, 400), 80)}”`
  throw malformed(answer, `answered ${answer.status} with ${kind} instead of a JSON object: ${start}; `
    + 'check the directory URL, and that no proxy answers in place of the ACME server')
}

/** What a refused request (status 400 and up, or a redirect) was refused for. */
export function problemOf(answer: AcmeAnswer): AcmeProblem {
  if (answer.status < 400) {
    const to = answer.location === undefined ? '' : ` to ${cleanLine(answer.location, 200)}`
    return malformed(answer, `answered ${answer.status}${to}, which is not followed; configure the final directory URL`)
  }
  try {
    return problemIn(readJson(answer), answer)
  } catch (error) {
    return error as AcmeProblem
  }
}

/** A problem document, alone or inside an order or challenge, where it brings its own status. */
export function problemIn(document: Json, answer: AcmeAnswer, identifier?: Identifier): AcmeProblem {
  const subproblems = (Array.isArray(document.subproblems) ? document.subproblems : []).filter(isObject)
    .slice(0, 100).map((entry): Subproblem => {
      const about = identifierIn(entry.identifier)
      return { type: kindOf(entry), detail: text(entry.detail), ...about !== undefined && { identifier: about } }
    })
  const type = kindOf(document)
  let detail = text(document.detail) || `${cleanLine(answer.url)} answered ${answer.status} (${type}) without a reason`
  // The sentence on top often says only "see sub-problems": the first few belong to the message.
  for (const sub of subproblems.slice(0, 5)) {
    const about = sub.identifier === undefined ? '' : `${sub.identifier}: `
    if (!detail.includes(sub.detail)) detail += `; ${about}${sub.detail}`
  }
  const about = new Set(subproblems.map((sub) => sub.identifier))
  const only = about.size === 1 ? [...about][0] : undefined
  const own = document.status
  return new AcmeProblem({
    type, detail, subproblems, identifier: identifier ?? only, retryAfterSeconds: retryAfterOf(answer),
    inObject: answer.status < 400,
    status: answer.status < 400 && typeof own === 'number' && own >= 400 && own < 600 ? own : answer.status,
  })
}

function kindOf(document: Json): string {
  return text(document.type, 100).replace(/^urn:(?:ietf:params:)?acme:error:/u, '') || 'about:blank'
}

/** `{type, value}` (RFC 8555 §9.7.7); undefined when it is none. */
export function identifierIn(value: unknown): Identifier | undefined {
  const name = isObject(value) && typeof value.value === 'string' ? value.value.toLowerCase() : ''
  if (/^(?:\*\.)?[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*$/u.test(name) && name.length <= 255) return name
  return parseAddress(name)?.address
}

/** What was polled until the deadline (`ms`) and is not done. */
export function stillBusy(
  value: { readonly status: string; readonly identifier?: Identifier }, answer: AcmeAnswer, ms: number,
): AcmeProblem {
  const what = value.identifier === undefined ? 'the order' : `the authorization for ${value.identifier}`
  return new AcmeProblem({
    // Not status 0: the server does answer, this is no outage.
    type: 'timeout', status: answer.status, identifier: value.identifier,
    detail: `${what} is still ${value.status} at ${cleanLine(answer.url)} after ${ms / 1000} s`,
  })
}
