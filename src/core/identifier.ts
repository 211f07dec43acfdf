/**
 * The one door through which names and addresses enter: whatever `parseIdentifier` gives holds only lower-case
 * letters, digits, `.`, `-`, `:` and perhaps a leading `*.`, so it can be part of a file name, a command, a
 * URL or a log line. Nothing is silently turned into something else but case, a final dot and Unicode
 * letters (into A-labels, RFC 5890 §2.3.2.1).
 */
import { isIP } from 'node:net'
import { domainToASCII, domainToUnicode } from 'node:url'
import { parseAddress } from './address.js'
import { cleanLine } from './text.js'
import type { Identifier } from './types.js'

/** An identifier in canonical form, or why the text is none. */
export type ParsedIdentifier =
  | { readonly ok: true; readonly identifier: Identifier }
  | { readonly ok: false; readonly message: string }

const refuse = (word: string, why: string): ParsedIdentifier =>
  ({ ok: false, message: `${quote(word)} is not a name that can have a certificate: ${why}` })

/** A word from a file as messages show it: in quotes, without control characters, cut to 80 characters. */
export function quote(word: string): string {
  return `"${cleanLine(word, 80)}"`
}

/**
 * Checks and canonicalises one DNS name (RFC 1034 §3.5, RFC 5890; a wildcard as the whole leftmost label,
 * RFC 9525 §6.3) or IP address (RFC 8738).
 */
export function parseIdentifier(word: string): ParsedIdentifier {
  if (word.includes(':') || isIP(word) !== 0) return parseIp(word)
  const wildcard = word.startsWith('*.')
  const typed = (wildcard ? word.slice(2) : word).replace(/\.$/u, '')
  const named = toAscii(typed)
  if (!named.ok) return refuse(word, named.message)
  const wrong = wrongName(named.identifier)
  if (wrong !== undefined) return refuse(word, wrong)
  const identifier = wildcard ? `*.${named.identifier}` : named.identifier
  if (identifier.length > 253) return refuse(word, `it has ${identifier.length} octets, and 253 is the limit`)
  return { ok: true, identifier }
}

function parseIp(word: string): ParsedIdentifier {
  if (/[[\]]/u.test(word)) return refuse(word, 'write an IPv6 address without brackets')
  if (word.includes('%')) return refuse(word, 'an address with a zone is known on one machine only')
  const parsed = parseAddress(word)
  if (!parsed) return refuse(word, 'it is neither a DNS name nor an IPv6 address (a port does not belong here)')
  if (parsed.special !== undefined) {
    return refuse(word, `no CA can reach this address (${parsed.special}); use a public address or a name`)
  }
  return { ok: true, identifier: parsed.address }
}

// Unicode to A-labels. domainToASCII follows the URL standard and would also decode, drop and map characters
// (full-width letters, soft hyphens, ideographic dots), so a name is taken only if it comes back as it was typed.
function toAscii(typed: string): ParsedIdentifier {
  // The Kelvin sign is the one character outside of ASCII that lower case would bring into it.
  const lower = typed.replace(/\u212a/gu, '\ufffd').toLowerCase()
  if (/^[\u0000-\u007f]*$/u.test(lower)) return { ok: true, identifier: lower }
  if (/[^-.a-z0-9\p{L}\p{M}\p{N}\u00b7\u30fb\p{Join_Control}]/u.test(lower)) {
    return { ok: false, message: 'it holds a character that no name can hold' }
  }
  const ascii = domainToASCII(lower)
  if (ascii === '') return { ok: false, message: 'it has no form in ASCII (IDNA)' }
  const unicode = domainToUnicode(ascii)
  if (unicode !== lower.normalize('NFC')) {
    return { ok: false, message: `it would become ${quote(unicode)} (${quote(ascii)}); if that is meant, write it so` }
  }
  return { ok: true, identifier: ascii }
}

// What is wrong with a lower-case name in ASCII, if anything.
function wrongName(name: string): string | undefined {
  const labels = name.split('.')
  const last = labels.at(-1) ?? ''
  if (name === '') return 'it is empty'
  if (name.includes('*')) return 'a wildcard is the whole leftmost label, as in *.example.com'
  if (name.includes('_')) return 'an underscore cannot stand in a host name'
  if (!/^[-a-z0-9.]*$/u.test(name)) return 'only letters, digits, hyphens and dots can stand in a name'
  if (labels.includes('')) return 'it has an empty label (two dots, or one at the start)'
  const hyphen = labels.find((label) => label.startsWith('-') || label.endsWith('-'))
  if (hyphen !== undefined) return `the label ${quote(hyphen)} begins or ends with a hyphen`
  const long = labels.find((label) => label.length > 63)
  if (long !== undefined) return `a label has ${long.length} octets, and 63 is the limit`
  if (name.length > 253) return `it has ${name.length} octets, and 253 is the limit`
  if (labels.length < 2) return 'it has only one label, and no CA certifies that'
  // Browsers, resolvers and curl read `1.2` and `0x7f.1` as addresses, whatever we mean by them.
  if (/^(?:\d+|0x[0-9a-f]*)$/u.test(last)) return 'it ends in a number, as an address does, but is no IPv4 address'
  // RFC 5890 §2.3.1: `--` in the third and fourth place is kept for A-labels, which must be well-formed.
  const reserved = labels.find((label) => label.slice(2, 4) === '--' && !label.startsWith('xn--'))
  if (reserved !== undefined) return `the label ${quote(reserved)} has "--" in the third and fourth place`
  if (labels.some((label) => label.startsWith('xn--'))) {
    const unicode = domainToASCII(name) === name ? domainToUnicode(name) : '-'
    if (/(?:^|\.)-|-(?:\.|$)/u.test(unicode)) return 'it has an international label that is not well-formed (IDNA)'
  }
  return undefined
}

/** Whether an identifier is an IP address. */
export function isIp(identifier: Identifier): boolean {
  return isIP(identifier) !== 0
}

/** Whether an identifier is a wildcard name. */
export function isWildcard(identifier: Identifier): boolean {
  return identifier.startsWith('*.')
}

/** Whether a wildcard stands for `name`: exactly one more label (RFC 9525 §6.3). Never for an address. */
export function coveredBy(name: Identifier, wildcard: Identifier): boolean {
  if (!isWildcard(wildcard) || isWildcard(name) || isIp(name)) return false
  return name.slice(name.indexOf('.')) === wildcard.slice(1)
}
