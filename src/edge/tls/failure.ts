/** Why a probe failed, in the operator's words: one line, what and what to do. */
import { cleanLine } from '../../core/text.js'
import type { KeyType, VerifyPort } from '../../core/types.js'

/** A probe that ends without a certificate; its message is for the operator. */
export class ProbeFailure extends Error {}

/** How far a probe has come: `greeting` is all that is said in plain text before STARTTLS. */
export type Stage = 'connect' | 'greeting' | 'handshake'

export interface Asked {
  readonly address: string
  readonly port: number
  readonly protocol: VerifyPort['protocol']
  readonly servername?: string
  readonly keyType?: KeyType
}

/** What was not answered in time. */
export function tooLate({ port, protocol }: Asked, stage: Stage, timeoutMs: number): ProbeFailure {
  const within = `in ${timeoutMs / 1000} s`
  if (stage === 'connect') return new ProbeFailure(`no answer ${within}; see whether the host is up and a firewall drops port ${port}`)
  if (stage === 'handshake') return new ProbeFailure(`connected, but no whole TLS handshake ${within}; see whether the service on port ${port} hangs or is overloaded`)
  return new ProbeFailure(`connected, but not ready for TLS ${within}; see whether port ${port} speaks TLS from its first byte (then write ${port} without /${protocol}), or hangs`)
}

/** Errors of the system (by node's code for them) and of OpenSSL, told apart as far as that changes what to do. */
export function explain(error: Error & { code?: unknown }, asked: Asked, stage: Stage): string {
  if (error instanceof ProbeFailure) return error.message
  const code = String(error.code)
  return ofNetwork(code, asked, stage) ?? ofTls(code, asked) ?? `${cleanLine(error.message, 200)}; see the log of the service on port ${asked.port}`
}

function ofNetwork(code: string, { address, port }: Asked, stage: Stage): string | undefined {
  switch (code) {
    case 'ECONNREFUSED': return `connection refused; see whether the service runs and listens on port ${port}`
    case 'ETIMEDOUT': return `no answer; see whether the host is up and a firewall drops port ${port}`
    case 'EHOSTUNREACH':
    case 'ENETUNREACH':
    case 'EADDRNOTAVAIL': return `no route to ${cleanLine(address, 100)}; see whether the host is up and this address is right (verifyAddress)`
    case 'ENOTFOUND':
    case 'EAI_AGAIN': return `${cleanLine(address, 100)} has no address; put it into DNS or /etc/hosts, or name its address in verifyAddress`
    case 'ECONNRESET':
    case 'EPIPE': return stage === 'handshake'
      ? `the connection was closed during the TLS handshake; see the log of the service on port ${port}`
      : `the connection was closed before TLS; see the log of the service on port ${port}`
    default: return undefined
  }
}

/** OpenSSL's codes, as node passes them on; alerts are those of RFC 8446 §6.2. Names differ a little between releases. */
function ofTls(code: string, { port, protocol, servername, keyType }: Asked): string | undefined {
  if (!code.startsWith('ERR_SSL_')) return undefined
  if (/ALERT_PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL/u.test(code)) return 'speaks only TLS older than 1.2; let the service speak TLS 1.2 or 1.3'
  if (/UNRECOGNIZED_NAME/u.test(code)) return `refuses ${servername === undefined ? 'a handshake without a name' : `the name ${servername}`} (SNI); let the service on port ${port} serve it`
  if (/ALERT_HANDSHAKE_FAILURE/u.test(code)) {
    return keyType === undefined
      ? `refuses the TLS handshake; see whether the service on port ${port} has a certificate and a cipher suite in common with us`
      : `shows no ${keyType === 'rsa' ? 'RSA' : 'EC'} certificate; let the service have it, or verify the other type alone (${port}${protocol === 'tls' ? '' : `/${protocol}`}/${keyType === 'rsa' ? 'ec' : 'rsa'})`
  }
  if (/WRONG_VERSION_NUMBER|PACKET_LENGTH|DATA_LENGTH|RECORD|UNEXPECTED_MESSAGE|HTTP_REQUEST|UNKNOWN_PROTOCOL/u.test(code)) {
    return protocol === 'tls'
      ? `answers, but not in TLS; see what listens on port ${port}, or write ${port}/smtp, ${port}/imap or ${port}/pop3 where it is STARTTLS`
      : `what follows STARTTLS is not TLS; see what listens on port ${port}`
  }
  const alert = /ALERT_([A-Z_]+)$/u.exec(code)?.[1]
  return alert === undefined ? undefined : `refuses the TLS handshake (${alert.toLowerCase().replaceAll('_', ' ')}); see the log of the service on port ${port}`
}
