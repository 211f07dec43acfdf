/** What the ports of a host must show (spec §8, Verify), and what is said when they show something else. */
import { isIp } from './identifier.js'
import { formatTime } from './report.js'
import { identifiersRoutedTo } from './routing.js'
import type { Held, HostDelivery, Identifier, KeyType, Section, VerifyPort } from './types.js'

/** One handshake: a port, the name that is asked for, and the certificate that must come. */
export interface Expectation {
  readonly port: VerifyPort
  /** The server name to ask for (RFC 6066 §3); undefined for an address, for which there is none. */
  readonly servername?: string
  readonly identifier: Identifier
  readonly keyType: KeyType
  readonly held: Held
  readonly fingerprint: string
}

/**
 * Every handshake that proves these certificates at these ports of one host: each name routed to the section, each key type.
 * Of IP addresses, where one is the host's own, only that: without a server name it cannot show two.
 * @param address where the host is reached
 */
export function expectations(
  { section, verify, certificates }: Pick<HostDelivery, 'section' | 'verify' | 'certificates'>, sections: readonly Section[], address: string,
): Expectation[] {
  const identifiers = (held: Held): Identifier[] => identifiersRoutedTo(section, held.subject, sections)
  const isOwn = certificates.some(held => identifiers(held).includes(address))
  return verify.flatMap(port => certificates.flatMap(held => {
    const { keyType, certificate } = held
    if (certificate.state !== 'read' || (port.keyType !== undefined && port.keyType !== keyType)) return []
    return identifiers(held).filter(identifier => !isOwn || !isIp(identifier) || identifier === address).map(identifier => ({
      port, identifier, keyType, held, fingerprint: certificate.leaf.fingerprint,
      ...(isIp(identifier) ? {} : { servername: serverName(identifier) }),
    }))
  }))
}

/** Some name under a wildcard: which one is the same to the server, unless it has that very name. */
export const serverName = (identifier: Identifier): string => identifier.replace(/^\*\./u, 'lematt-verify.')

/** Under what an expectation is remembered: two that ask for the same are one question. */
export const question = ({ port, servername = '', keyType }: Expectation): string => `${port.port} ${port.protocol} ${keyType} ${servername}`

/** What a handshake came to, as far as it matters here. */
export type Shown = { readonly ok: true; readonly fingerprint: string; readonly notAfter: Date; readonly issuer: string } | { readonly ok: false; readonly message: string; readonly late?: true }

const spoken = { ec: 'EC', rsa: 'RSA' } as const

/** Why a port fails: what it shows, to whom, and where to look. */
export function mismatch({ port, identifier, keyType, held, fingerprint }: Expectation, shown: Shown): string {
  const asked = `${port.text} (${identifier}, ${spoken[keyType]})`
  if (!shown.ok) return `${asked}: ${shown.message}`
  return `${asked} shows another certificate: SHA-256 ${shown.fingerprint.slice(0, 16)}…, by ${shown.issuer}, until ${formatTime(shown.notAfter)}; it should be ${fingerprint.slice(0, 16)}…: `
    + `does the service load ${held.files.certificate}, and does its reload read it again?`
}
