/**
 * Signed requests (RFC 8555 §6.2-§6.5), for edge/acme.ts: nonces kept from answers, refused ones replaced, tries
 * repeated by the transport's rules, and polling.
 */
import { problemOf, malformed, retryAfterOf, stillBusy, type AcmeAnswer } from '../../core/acmeProblem.js'
import type { Identifier } from '../../core/types.js'
import type { Transport } from './transport.js'

/** Each is refused with probability p: 24 repeats hold p = 0.5 to one failure in 3 × 10^7. */
const maxBadNonces = 24
/** More than we ever have in flight; the oldest go stale first. */
const maxNonces = 64
/** For one request with all its repeats: a server that answers slowly and badly must not hold a run for hours. */
const maxRequestMs = 150_000
const firstPollMs = 50
const maxPollMs = 2000

/** Makes the JWS body of a POST; without payload that of a POST-as-GET. */
export type Sign = (url: string, payload: object | null, nonce: string) => object

export interface SignedRequests {
  /** Gives a 2xx answer. Throws `AcmeProblem` for any other, after the retries that it allows. */
  readonly post: (url: string, payload?: object) => Promise<AcmeAnswer>
  /**
   * Asks for `url` until it is `done`, first after 50 ms, then at pauses growing to 2 s, or longer where Retry-After
   * says so, but not past the deadline; then `AcmeProblem` of type `timeout`. `first` is an answer already had.
   */
  readonly poll: <T extends Polled>(
    url: string, read: (answer: AcmeAnswer) => T, done: (value: T) => boolean, first?: AcmeAnswer,
  ) => Promise<T>
}

interface Polled { readonly status: string; readonly identifier?: Identifier }

export function signedRequests(options: {
  readonly transport: Transport
  readonly sign: Sign
  readonly newNonceUrl: string
  readonly pollDeadlineMs: number
}): SignedRequests {
  const { transport, sign, newNonceUrl, pollDeadlineMs } = options
  const nonces: string[] = []

  async function send(url: string, body: string): Promise<AcmeAnswer> {
    const answer = await transport.exchange('POST', url, body)
    if (answer.nonce !== undefined && nonces.push(answer.nonce) > maxNonces) nonces.shift()
    return answer
  }

  /** RFC 8555 §7.2. */
  async function newNonce(): Promise<string> {
    const { nonce, ...answer } = await transport.exchange('HEAD', newNonceUrl)
    if (nonce !== undefined) return nonce
    throw answer.status >= 400 ? problemOf(answer) : malformed(answer, 'gave no nonce')
  }

  function post(url: string, payload: object | null = null): Promise<AcmeAnswer> {
    const deadline = performance.now() + maxRequestMs
    // Signed anew for each try: a nonce may be spent even where the answer was lost.
    return transport.retrying(async () => {
      for (let refused = 0; ; refused++) {
        const body = JSON.stringify(sign(url, payload, nonces.pop() ?? await newNonce()))
        const answer = await send(url, body)
        if (answer.status >= 200 && answer.status < 300) return answer
        const problem = problemOf(answer)
        if (problem.type !== 'badNonce' || refused >= maxBadNonces || performance.now() > deadline) throw problem
      }
    }, deadline)
  }

  async function poll<T extends Polled>(
    url: string, read: (answer: AcmeAnswer) => T, done: (value: T) => boolean, first?: AcmeAnswer,
  ): Promise<T> {
    const deadline = performance.now() + pollDeadlineMs
    let answer = first
    for (let wait = firstPollMs; ; wait = Math.min(wait * 1.6, maxPollMs)) {
      const left = deadline - performance.now()
      let asked = 0
      if (answer !== undefined) {
        const value = read(answer)
        if (done(value)) return value
        if (left <= 0) throw stillBusy(value, answer, pollDeadlineMs)
        asked = (retryAfterOf(answer) ?? 0) * 1000
      }
      await transport.pause(Math.max(Math.min(Math.max(wait, asked), left), 0))
      answer = await post(url)
    }
  }

  return { post, poll }
}
