/**
 * HTTPS to the ACME server, for edge/acme.ts: one keep-alive pool, a timeout on every request, answers of
 * bounded size, bounded retries. Knows HTTP and TLS; what the answers mean is in core/acmeProblem.ts.
 */
import { setMaxListeners } from 'node:events'
import https from 'node:https'
import tls from 'node:tls'
import { setTimeout as sleep } from 'node:timers/promises'
import type { AcmeAnswer } from '../../core/acmeProblem.js'
import { AcmeProblem, OperationalError } from '../../core/errors.js'
import { cleanLine } from '../../core/text.js'

/** A chain of four certificates is 8 kB, an order for 100 names 20 kB. */
const maxAnswerBytes = 1_000_000
/** The CA's own wait that we sit out within one request, all retries together; Boulder's 500 asks for 60 s. */
const maxWaitMs = 60_000
const maxRetries = 3

export interface TransportOptions {
  /** PEM roots trusted besides those that Node brings. */
  readonly extraRoots?: string
  readonly userAgent: string
  /** Ends every request and every wait with its reason. */
  readonly signal: AbortSignal
  /** For one request, from connecting to the last byte. */
  readonly requestTimeoutMs: number
}

export interface Transport {
  /**
   * One exchange, not retried. Gives the answer whatever its status. Throws `AcmeProblem` (`connection-failed`,
   * `timeout`, `malformed-answer`) when there was none, or too much of it; the signal's reason when aborted.
   */
  exchange(method: 'GET' | 'HEAD' | 'POST', url: string, body?: string): Promise<AcmeAnswer>
  /**
   * Runs `attempt` again, at most three times, after a lost connection or a 5xx, as long as the waiting stays under
   * a minute: a longer Retry-After is thrown at once, for nothing waits for a limit. A timeout gets one more try
   * (a dead keep-alive connection looks like one); 4xx, 429 among them, and untrusted certificates none. Past `deadline`
   * (of performance.now()) nothing is tried again.
   */
  retrying<T>(attempt: () => Promise<T>, deadline?: number): Promise<T>
  pause(milliseconds: number): Promise<void>
  /** Ends every request and every wait. */
  close(): void
}

/** Opens nothing yet. Throws `OperationalError` when the extra roots are not PEM certificates. */
export function openTransport(options: TransportOptions): Transport {
  // Also what nobody waits for any more (a validation whose prepare command failed) must end with close.
  const closing = new AbortController()
  const signal = AbortSignal.any([options.signal, closing.signal])
  // Every request and wait listens on it while it lasts: dozens at once are no leak, and no warning is due.
  setMaxListeners(0, signal)
  // One context for all connections: reading the 140 roots takes milliseconds each time.
  const agent = new https.Agent({ keepAlive: true, maxSockets: 16, secureContext: secureContext(options.extraRoots) })

  function exchange(method: 'GET' | 'HEAD' | 'POST', url: string, body?: string): Promise<AcmeAnswer> {
    return new Promise((resolve, reject) => {
      signal.throwIfAborted()
      const headers = {
        'user-agent': options.userAgent,
        'accept-language': 'en',
        ...body !== undefined && {
          'content-type': 'application/jose+json', 'content-length': Buffer.byteLength(body),
        },
      }
      const request = https.request(url, { method, headers, agent, signal })
      let timer: NodeJS.Timeout | undefined
      const fail = (error: Error) => {
        clearTimeout(timer)
        request.destroy()
        reject(signal.aborted ? signal.reason as Error : error)
      }
      // From the socket on: waiting for a free one of the pool is not the server's fault.
      request.once('socket', () => {
        timer = setTimeout(() => fail(new AcmeProblem({
          type: 'timeout', status: 0,
          detail: `no answer from ${cleanLine(url)} in ${options.requestTimeoutMs / 1000} s; check the network and the `
            + 'firewalls on the way, and whether the ACME server has an outage',
        })), options.requestTimeoutMs)
      })
      request.on('error', (error: NodeJS.ErrnoException) => fail(connectionFailed(url, error)))
      request.once('response', (response) => {
        const chunks: Buffer[] = []
        let size = 0
        response.on('error', (error) => fail(connectionFailed(url, error)))
        response.on('data', (chunk: Buffer) => {
          size += chunk.length
          if (size <= maxAnswerBytes) chunks.push(chunk)
          else fail(new AcmeProblem({
            type: 'malformed-answer', status: response.statusCode ?? 0,
            detail: `${cleanLine(url)} sent more than ${maxAnswerBytes} bytes; check the directory URL`,
          }))
        })
        response.once('end', () => {
          clearTimeout(timer)
          const { location, 'retry-after': retryAfter, 'replay-nonce': nonce } = response.headers
          resolve({
            url, at: new Date(), status: response.statusCode ?? 0, contentType: response.headers['content-type'] ?? '',
            body: Buffer.concat(chunks).toString('utf8'),
            ...location !== undefined && { location },
            ...retryAfter !== undefined && { retryAfter },
            ...typeof nonce === 'string' && /^[A-Za-z0-9_-]+$/u.test(nonce) && { nonce },
          })
        })
      })
      request.end(body)
    })
  }

  async function pause(milliseconds: number): Promise<void> {
    signal.throwIfAborted()
    await sleep(milliseconds, undefined, { signal }).catch(() => signal.throwIfAborted())
  }

  async function retrying<T>(attempt: () => Promise<T>, deadline = Infinity): Promise<T> {
    let waited = 0
    for (let retries = 0; ; retries++) {
      try {
        return await attempt()
      } catch (error) {
        if (!(error instanceof AcmeProblem) || retries >= triesMore(error) || performance.now() > deadline) throw error
        const wait = error.retryAfterSeconds === undefined ? 250 * 2 ** retries : error.retryAfterSeconds * 1000
        waited += wait
        if (waited > maxWaitMs) throw error
        await pause(wait)
      }
    }
  }

  function close(): void {
    closing.abort(new OperationalError('the connection to the ACME server was closed'))
    agent.destroy()
  }

  return { exchange, retrying, pause, close }
}

function triesMore(problem: AcmeProblem): number {
  if (problem.status >= 500) return maxRetries
  if (problem.type === 'timeout') return 1
  return problem.type === 'connection-failed' && !isUntrusted(problem.cause) ? maxRetries : 0
}

function secureContext(extraRoots: string | undefined): tls.SecureContext {
  if (extraRoots === undefined) return tls.createSecureContext()
  const roots = extraRoots.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/gu)
  try {
    if (roots !== null) return tls.createSecureContext({ ca: [...tls.rootCertificates, ...roots] })
  } catch { /* said below */ }
  throw new OperationalError('caBundle does not hold readable PEM certificates; give it the root of the ACME server, '
    + 'between BEGIN CERTIFICATE and END CERTIFICATE')
}

/** OpenSSL's verification results and Node's own check of the name, by their codes. */
function isUntrusted(error: unknown): boolean {
  const code = String((error as NodeJS.ErrnoException | undefined)?.code)
  return /CERT|ISSUER|SELF_SIGNED|VERIFY|INVALID_CA|INVALID_PURPOSE|CRL|ALTNAME|HOSTNAME_MISMATCH/u.test(code)
}

function connectionFailed(url: string, error: NodeJS.ErrnoException): AcmeProblem {
  const { host } = new URL(url)
  // An AggregateError (several addresses tried) has an empty message and the sentences inside.
  const inner = error instanceof AggregateError ? (error.errors as Error[]).map((one) => one.message).join(', ') : ''
  const why = cleanLine(error.message || inner || error.code || error.name, 300)
  const detail = isUntrusted(error)
    ? `the TLS certificate of ${host} is not trusted: ${why}; if this is your own ACME server, put its root `
      + 'certificate into the file that caBundle names; if not, check the directory URL and the clock'
    : `cannot reach ${host}: ${why}; check the network, the name and the firewall, and that the ACME server runs`
  return new AcmeProblem({ type: 'connection-failed', status: 0, detail, cause: error })
}
