/**
 * The ACME server (RFC 8555), in the order in which the RFC tells it: directory, account, order, authorization,
 * challenge, finalize, certificate. acme-client signs (JWS, thumbprint); errors, retries, nonces, polling and
 * bounds are ours, because a night run must neither hang nor lose what the CA said. Every refusal is an
 * `AcmeProblem`; an abort throws the signal's reason.
 */
import { isIP } from 'node:net'
import { normalizeAccountKey } from '../core/accountKey.js'
import {
  isToken, readAuthorization, readChain, readDirectory, readOrder, readUrl, secureUrl,
} from '../core/acmeMessages.js'
import type { AcmeAuthorization, AcmeChallenge, AcmeOrder } from '../core/acmeMessages.js'
import { malformed, problemOf, readJson, type AcmeAnswer } from '../core/acmeProblem.js'
import { AcmeProblem, OperationalError } from '../core/errors.js'
import { cleanLine } from '../core/text.js'
import type { Identifier } from '../core/types.js'
import { signedRequests, type Sign } from './acme/requests.js'
import { openTransport, type Transport } from './acme/transport.js'

export type { AcmeAuthorization, AcmeChallenge, AcmeOrder } from '../core/acmeMessages.js'

export interface AcmeOptions {
  /** https only. */
  readonly directoryUrl: string
  /** RSA, P-256 or P-384, as PKCS#1, SEC1 or PKCS#8. */
  readonly accountKeyPem: string
  /** Mail addresses, without `mailto:`. */
  readonly contact: readonly string[]
  /** PEM roots trusted for this server besides those that Node brings (`caBundle`). */
  readonly extraRoots?: string
  readonly userAgent: string
  /** Ends whatever is under way, with its reason. */
  readonly signal: AbortSignal
  /** For one request; default 30 000. */
  readonly requestTimeoutMs?: number
  /** For a validation, and for the making of a certificate; default 120 000. */
  readonly pollDeadlineMs?: number
}

export interface Acme {
  readonly accountUrl: string
  /** RFC 8555 §7.4. The same names twice at once may give one order twice: finish one key type first. */
  newOrder(identifiers: readonly Identifier[]): Promise<AcmeOrder>
  /** RFC 8555 §7.5. */
  authorization(url: string): Promise<AcmeAuthorization>
  /** What the challenge URL must answer (RFC 8555 §8.1). Not to be logged. */
  keyAuthorization(token: string): string
  /**
   * Tells the server to validate (RFC 8555 §7.5.1): only when the challenge is in place. A refusal is no failure when the
   * authorization is under way or valid already: the answer to an earlier try was lost, or another order had it validated.
   */
  accept(challenge: AcmeChallenge, authorizationUrl: string): Promise<void>
  /** Waits until the authorization is valid; else throws the challenge's own problem, with the identifier. */
  validated(authorizationUrl: string): Promise<AcmeAuthorization>
  /** Sends the request (PKCS#10, DER), waits for the certificate and gives it as PEM: leaf, then intermediates. */
  finalize(order: AcmeOrder, csrDer: Buffer): Promise<string>
  /** Whether the server answers at all, asked once: one order may be broken while all else is well. Never rejects. */
  answers(): Promise<boolean>
  close(): void
}

/** The part of acme-client that we keep; it has no types for it. */
interface Signer {
  createSignedBody(url: string, payload: object | null, header: { nonce: string; kid: string | null }): object
}

/**
 * Reads the directory and finds the account of this key, or makes it (RFC 8555 §7.1.1, §7.3).
 * Throws `OperationalError` when the options cannot work, `AcmeProblem` when the server does not.
 */
export async function openAcme(options: AcmeOptions): Promise<Acme> {
  const directoryUrl = secureUrl(options.directoryUrl)
  if (directoryUrl === undefined) {
    // The name that it must not hold may come with a password.
    const shown = cleanLine(options.directoryUrl.replace(/\/\/[^/]*@/u, '//…@'), 200)
    throw new OperationalError(`the directory URL “${shown}” is not usable; it must start with https:// `
      + '(RFC 8555 §6.1) and hold no user name')
  }
  const accountKey = normalizeAccountKey(options.accountKeyPem)
  const transport = openTransport({ ...options, requestTimeoutMs: options.requestTimeoutMs ?? 30_000 })
  try {
    return await openSession(options, directoryUrl, accountKey, transport)
  } catch (error) {
    transport.close()
    throw error
  }
}

async function openSession(
  options: AcmeOptions, directoryUrl: string, accountKey: string, transport: Transport,
): Promise<Acme> {
  const pollDeadlineMs = options.pollDeadlineMs ?? 120_000
  let kid: string | null = null

  // Loaded here and not above: it takes 200 ms, which --help and nights with nothing to do need not pay.
  const { Client } = await import('acme-client')
  const client = new Client({ directoryUrl, accountKey })
  const signer = (client as unknown as { http: Signer }).http
  const suffix = await client.getChallengeKeyAuthorization({ type: 'http-01', token: '', url: '', status: 'pending' })

  const sign: Sign = (url, payload, nonce) => signer.createSignedBody(url, payload, { nonce, kid })

  const directory = await transport.retrying(async () => {
    const answer = await transport.exchange('GET', directoryUrl)
    if (answer.status !== 200) throw problemOf(answer)
    return readDirectory(answer)
  })
  const { post, poll } = signedRequests({ transport, sign, newNonceUrl: directory.newNonce, pollDeadlineMs })

  const contact = options.contact.map((address) => `mailto:${address}`)
  const account = await post(directory.newAccount, { termsOfServiceAgreed: true, ...contact.length > 0 && { contact } })
  const accountUrl = readUrl(account.location, 'account', account)
  const { status, contact: known } = readJson(account)
  if (status !== 'valid') {
    throw malformed(account, `says that the account is ${cleanLine(String(status), 40)}; use another accountKey`)
  }
  kid = accountUrl
  // Let's Encrypt keeps no contacts and shows none; where they are shown, a changed one is told (RFC 8555 §7.3.2).
  if (contact.length > 0 && Array.isArray(known) && JSON.stringify(known) !== JSON.stringify(contact)) {
    await post(accountUrl, { contact })
  }

  return {
    accountUrl,

    async newOrder(identifiers) {
      const answer = await post(directory.newOrder, {
        identifiers: identifiers.map((value) => ({ type: isIP(value) === 0 ? 'dns' : 'ip', value })),
      })
      return readOrder(answer, readUrl(answer.location, 'order', answer))
    },

    authorization: async (url) => readAuthorization(await post(url), url),

    keyAuthorization(token) {
      if (!isToken(token)) throw new Error('a challenge token that is not base64url came past acmeMessages.ts')
      return `${token}${suffix}`
    },

    async accept(challenge, authorizationUrl) {
      try {
        await post(challenge.url, {})
      } catch (error) {
        if (!(error instanceof AcmeProblem) || error.status < 400 || error.status >= 500 || error.status === 429) throw error
        const { status, challenges } = readAuthorization(await post(authorizationUrl), authorizationUrl)
        const ours = challenges.find(({ url }) => url === challenge.url)
        if (status !== 'valid' && !['processing', 'valid', 'invalid'].includes(ours?.status ?? '')) throw error
      }
    },

    async validated(url) {
      // A server may leave the authorization pending after a failed challenge (RFC 8555 §8.2); we do not try again.
      const failed = ({ challenges }: AcmeAuthorization) => challenges.find(({ status }) => status === 'invalid')
      const done = (value: AcmeAuthorization) => value.status !== 'pending' || failed(value) !== undefined
      const authorization = await poll(url, (answer) => readAuthorization(answer, url), done)
      if (authorization.status === 'valid') return authorization
      const { identifier, status } = authorization
      throw failed(authorization)?.error ?? new AcmeProblem({
        type: 'unauthorized', status: 403, identifier,
        detail: `the authorization for ${identifier} is ${status}, and the server gives no reason`,
      })
    },

    async finalize(order, csrDer) {
      const read = (answer: AcmeAnswer) => readOrder(answer, order.url)
      let first: AcmeAnswer
      try {
        first = await post(order.finalize, { csr: csrDer.toString('base64url') })
      } catch (error) {
        if (!(error instanceof AcmeProblem) || error.type !== 'orderNotReady') throw error
        // The order knows why. It may also be further on: when the answer to our first try was lost on the way.
        first = await post(order.url)
        if (!['processing', 'valid', 'invalid'].includes(read(first).status)) throw error
      }
      const made = await poll(order.url, read, (value) => ['valid', 'invalid'].includes(value.status), first)
      if (made.status === 'valid' && made.certificate !== undefined) return readChain(await post(made.certificate))
      throw made.error ?? malformed(first, `says that the order is ${made.status}, and neither why nor where it is`)
    },

    answers: () => transport.exchange('HEAD', directory.newNonce).then(({ status }) => status < 500, () => false),

    close: () => transport.close(),
  }
}
