/**
 * Which certificate a service shows: one TLS handshake with one address, over STARTTLS where the service asks for it
 * (spec §8). Nothing is trusted and nothing is sent but what leads to a handshake: the fingerprint is what counts.
 */
import { createHash, type X509Certificate } from 'node:crypto'
import { once, setMaxListeners } from 'node:events'
import { connect as connectTcp, isIP, type Socket } from 'node:net'
import { connect as connectTls, type ConnectionOptions, type TLSSocket } from 'node:tls'
import type { KeyType, VerifyPort } from '../core/types.js'
import { identifiersOf, issuerOf } from '../core/x509Text.js'
import { explain, ProbeFailure, tooLate, type Stage } from './tls/failure.js'
import { farewell, startTls } from './tls/starttls.js'

export interface ProbeOptions {
  /** IPv4 or IPv6 address, or a name: then the first address that the system's look-up gives, and no other. */
  readonly address: string
  readonly port: number
  readonly protocol: VerifyPort['protocol']
  /** The name asked for (SNI, RFC 6066 §3). Undefined, or an address: none. */
  readonly servername?: string
  /** Offer signature schemes (and suites of TLS 1.2) of this type alone, so that a service with both shows this one. */
  readonly keyType?: KeyType
  /** For the whole probe; default 10 000. */
  readonly timeoutMs?: number
  readonly signal: AbortSignal
}

export type Probe =
  | {
    readonly ok: true
    /** SHA-256 of the leaf's DER, lower-case hex, as `Leaf.fingerprint`. */
    readonly fingerprint: string
    readonly names: readonly string[]
    readonly notAfter: Date
    readonly issuer: string
  }
  /** One clean line: what, and what to do. It names neither host nor port first: the caller does. */
  | {
    readonly ok: false
    readonly message: string
    /** Nothing came in time: whoever asks there again will wait as long. */
    readonly late?: true
  }

/** A service that does not close the connection after our farewell is left without one. */
const farewellMs = 500

// TLS 1.3 chooses the certificate by signature scheme alone (RFC 8446 §4.4.2.2), TLS 1.2 by suite and scheme.
const suites13 = 'TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256'
const offers: Readonly<Record<KeyType, Pick<ConnectionOptions, 'ciphers' | 'sigalgs'>>> = {
  rsa: {
    ciphers: `${suites13}:aRSA:!PSK:!SRP:!eNULL`,
    sigalgs: 'rsa_pss_rsae_sha256:rsa_pss_rsae_sha384:rsa_pss_rsae_sha512:rsa_pss_pss_sha256:rsa_pss_pss_sha384:rsa_pss_pss_sha512:RSA+SHA256:RSA+SHA384:RSA+SHA512',
  },
  ec: { ciphers: `${suites13}:aECDSA:!eNULL`, sigalgs: 'ECDSA+SHA256:ECDSA+SHA384:ECDSA+SHA512' },
}

/**
 * Asks one service for its certificate. Rejects with the signal's reason when that is aborted, and for nothing else
 * that can be expected; all sockets are gone when it settles.
 */
export async function probe(options: ProbeOptions): Promise<Probe> {
  const { signal, timeoutMs = 10_000 } = options
  signal.throwIfAborted()
  setMaxListeners(0, signal) // one for each probe under way: no leak, and no warning is due
  const attempt = new Attempt(options)
  let timer: NodeJS.Timeout | undefined
  const waited = { inVain: false }
  let onAbort: () => void = () => undefined
  const ended = new Promise<never>((_resolve, reject) => {
    onAbort = () => reject(signal.reason as Error)
    signal.addEventListener('abort', onAbort, { once: true })
    timer = setTimeout(() => {
      waited.inVain = true
      reject(tooLate(options, attempt.stage, timeoutMs))
    }, timeoutMs)
  })
  try {
    return { ok: true, ...factsOf(await Promise.race([attempt.certificate(), ended])) }
  } catch (error) {
    if (signal.aborted) throw signal.reason
    // Errors of the system and of OpenSSL have a code; what has none is a bug.
    if (!(error instanceof ProbeFailure) && !(error instanceof Error && 'code' in error)) throw error
    return { ok: false, message: explain(error, options, attempt.stage), ...(waited.inVain ? { late: true } : {}) }
  } finally {
    clearTimeout(timer)
    signal.removeEventListener('abort', onAbort)
    attempt.destroy()
  }
}

class Attempt {
  stage: Stage = 'connect'
  private socket: Socket | undefined
  private tls: TLSSocket | undefined

  constructor(private readonly options: ProbeOptions) {}

  async certificate(): Promise<X509Certificate> {
    const { address, port, protocol } = this.options
    // With autoSelectFamily another address, perhaps of another host, would be tried when the first is slow.
    const socket = this.socket = connectTcp({ host: address, port, autoSelectFamily: false, noDelay: true })
    await once(socket, 'connect')
    socket.on('error', () => undefined) // whoever reads or writes at that moment hears of it too
    if (protocol !== 'tls') {
      this.stage = 'greeting'
      await startTls(socket, protocol)
    }
    this.stage = 'handshake'
    return this.handshake(socket)
  }

  private async handshake(socket: Socket): Promise<X509Certificate> {
    const { servername, keyType, protocol } = this.options
    const tls = this.tls = connectTls({
      socket,
      // No `session`: a resumed one shows no certificate. Names and chain are the caller's business, by fingerprint.
      rejectUnauthorized: false,
      checkServerIdentity: () => undefined,
      minVersion: 'TLSv1.2',
      ...(servername === undefined || isIP(servername) !== 0 ? {} : { servername }),
      ...(keyType === undefined ? {} : offers[keyType]),
    })
    // The certificate is there when the keys are made. A TLS 1.2 service that wants one of us too says so only then,
    // and ends the handshake; what it has shown is what we came for. `shown ??=`: node takes the leaf out of the chain
    // as it gives it away, and has the issuer, or nothing, for whoever asks again.
    let shown: X509Certificate | undefined
    tls.on('keylog', () => { shown ??= tls.getPeerX509Certificate() })
    try {
      await once(tls, 'secureConnect')
    } catch (error) {
      if (shown === undefined) throw error
      return shown
    }
    shown ??= tls.getPeerX509Certificate()
    if (shown === undefined) throw new ProbeFailure('shows no certificate; let the service have one')
    await leave(tls, protocol === 'tls' ? '' : farewell[protocol])
    return shown
  }

  destroy(): void {
    for (const socket of [this.tls, this.socket]) socket?.on('error', () => undefined).destroy()
  }
}

/** Ends a connection as a client does that has got what it wants; else each probe is an error in the service's log. */
async function leave(tls: TLSSocket, words: string): Promise<void> {
  await new Promise<void>(resolve => {
    const late = setTimeout(resolve, farewellMs)
    tls.on('error', () => undefined).on('close', () => {
      clearTimeout(late)
      resolve()
    })
    tls.resume().end(words)
  })
}

function factsOf(certificate: X509Certificate): Omit<Extract<Probe, { ok: true }>, 'ok'> {
  const notAfter = new Date(certificate.validTo)
  if (Number.isNaN(notAfter.getTime())) throw new ProbeFailure('shows a certificate whose dates cannot be read; see what the service loads')
  return {
    fingerprint: createHash('sha256').update(certificate.raw).digest('hex'),
    names: identifiersOf(certificate.subjectAltName),
    notAfter,
    issuer: issuerOf(certificate.issuer),
  }
}
