/**
 * What an ACME server gives us (RFC 8555 §7.1), read and checked: nothing of it is used before it passed here. Pure.
 */
import { identifierIn, isObject, malformed, problemIn, readJson, text, type AcmeAnswer } from './acmeProblem.js'
import type { AcmeProblem } from './errors.js'
import type { Identifier } from './types.js'

/** Where the server takes requests (RFC 8555 §7.1.1). */
export interface AcmeDirectory { readonly newNonce: string; readonly newAccount: string; readonly newOrder: string }

export interface AcmeOrder {
  readonly url: string
  /** `pending`, `ready`, `processing`, `valid` or `invalid` (RFC 8555 §7.1.6). */
  readonly status: string
  readonly authorizations: readonly string[]
  readonly finalize: string
  readonly certificate?: string
  /** Why it is invalid, where the server says so. */
  readonly error?: AcmeProblem
}

export interface AcmeChallenge {
  readonly type: string
  readonly url: string
  /** base64url and nothing else (RFC 8555 §8.3): safe as a file name and in a URL. */
  readonly token: string
  readonly status: string
  readonly error?: AcmeProblem
}

export interface AcmeAuthorization {
  readonly url: string
  /** With `*.` in front when it is for a wildcard. */
  readonly identifier: Identifier
  readonly status: string
  /** Those in a form that we can use; kinds that we do not know may be among them. */
  readonly challenges: readonly AcmeChallenge[]
}

/** An https URL without a user name, as given; undefined when it is something else. */
export function secureUrl(value: unknown): string | undefined {
  if (typeof value !== 'string' || value.length > 2000 || !URL.canParse(value)) return undefined
  const { protocol, username, password } = new URL(value)
  return protocol === 'https:' && username === '' && password === '' ? value : undefined
}

/** A URL that the server hands out: we send signed requests there, so https alone. */
export function readUrl(value: unknown, what: string, answer: AcmeAnswer): string {
  const url = secureUrl(value)
  if (url !== undefined) return url
  const given = text(value, 100)
  throw malformed(answer, `gave ${given === '' ? 'no' : `“${given}” as`} ${what} URL; it must be https`)
}

/** RFC 8555 §7.1.1. */
export function readDirectory(answer: AcmeAnswer): AcmeDirectory {
  const object = readJson(answer)
  if (object.newOrder === undefined) throw malformed(answer, 'is not an ACME directory; check the directory URL')
  return {
    newNonce: readUrl(object.newNonce, 'newNonce', answer),
    newAccount: readUrl(object.newAccount, 'newAccount', answer),
    newOrder: readUrl(object.newOrder, 'newOrder', answer),
  }
}

/** RFC 8555 §7.1.3; `url` is the order's own, from the Location of newOrder. */
export function readOrder(answer: AcmeAnswer, url: string): AcmeOrder {
  const object = readJson(answer)
  if (!Array.isArray(object.authorizations)) throw malformed(answer, 'gave an order without authorizations')
  return {
    url,
    status: text(object.status, 40),
    authorizations: object.authorizations.map((value) => readUrl(value, 'authorization', answer)),
    finalize: readUrl(object.finalize, 'finalize', answer),
    ...object.certificate !== undefined && { certificate: readUrl(object.certificate, 'certificate', answer) },
    ...isObject(object.error) && { error: problemIn(object.error, answer) },
  }
}

/** RFC 8555 §7.1.4. An http-01 challenge without a proper token is an error; other kinds are left out then. */
export function readAuthorization(answer: AcmeAnswer, url: string): AcmeAuthorization {
  const object = readJson(answer)
  const name = identifierIn(object.identifier)
  if (name === undefined) throw malformed(answer, 'gave an authorization without a proper identifier')
  const identifier = object.wildcard === true && !name.startsWith('*.') ? `*.${name}` : name
  const challenges: AcmeChallenge[] = []
  for (const entry of (Array.isArray(object.challenges) ? object.challenges : []).filter(isObject)) {
    const type = text(entry.type, 40)
    if (typeof entry.token !== 'string' || !isToken(entry.token)) {
      if (type === 'http-01') throw malformed(answer, `gave a challenge for ${identifier} whose token is not base64url`)
      continue
    }
    challenges.push({
      type, url: readUrl(entry.url, 'challenge', answer), token: entry.token, status: text(entry.status, 40),
      ...isObject(entry.error) && { error: problemIn(entry.error, answer, identifier) },
    })
  }
  return { url, identifier, status: text(object.status, 40), challenges }
}

/** RFC 8555 §8.3: base64url alphabet without padding; short enough for a file name. */
export function isToken(token: string): boolean {
  return /^[A-Za-z0-9_-]{1,200}$/u.test(token)
}

/** The certificates of a PEM chain (RFC 8555 §9.1), and nothing else that the answer may hold. */
export function readChain(answer: AcmeAnswer): string {
  const blocks = answer.body.match(/-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----/gu)
  if (blocks === null) throw malformed(answer, `answered ${answer.status} without a PEM certificate in it`)
  const begun = answer.body.split('-----BEGIN CERTIFICATE-----').length - 1
  // Without its end a chain may still begin well; servers would then show a leaf that nobody can verify.
  if (begun !== blocks.length) throw malformed(answer, 'sent a certificate chain that is cut off or damaged; nothing was replaced')
  return blocks.map((block) => `${block.replace(/\r\n/gu, '\n')}\n`).join('')
}
