/** The words of `verify:` (spec §8): `993`, `25/smtp`, `443/ec`, `587/smtp/rsa`. */
import { quote } from './identifier.js'
import { nearest } from './keys.js'
import type { KeyType, Place, VerifyPort } from './types.js'
import { bad, type Parsed, type Value, wordsOf } from './values.js'
import { notPlainWords, type Warn } from './wordList.js'

/** A port with its place in the file. */
export interface PlacedPort {
  readonly port: VerifyPort
  readonly place: Place
}

const startTls = ['smtp', 'imap', 'pop3'] as const
const types = ['rsa', 'ec'] as const
const isStartTls = (word: string): word is typeof startTls[number] => startTls.some((each) => each === word)
const isType = (word: string): word is KeyType => types.some((each) => each === word)

// Of the services that these ports are registered for: STARTTLS (RFC 3207, 6409, 9051, 1939) or TLS at once (RFC 8314, 9110).
const speaksStartTls = new Map([[25, 'smtp'], [587, 'smtp'], [143, 'imap'], [110, 'pop3']])
const speaksTls = new Set([443, 465, 636, 853, 993, 995, 8443])

/** What people call these services instead of giving a port. */
const wordsFor = new Map([
  ['https', '443'], ['imaps', '993'], ['pop3s', '995'], ['smtps', '465'], ['submissions', '465'], ['ldaps', '636'],
  ['smtp', '25/smtp'], ['submission', '587/smtp'], ['imap', '143/imap'], ['pop3', '110/pop3'],
])
/** What they write after the port for "TLS from the first byte". */
const tlsWords = new Set(['tls', 'ssl', 'https', 'imaps', 'pop3s', 'smtps', 'submissions', 'ldaps', 'http'])

/**
 * Reads `verify:`. Gives each port once, in the order of the file.
 * @param keyTypes what the section itself says of them; undefined when that stands elsewhere (hostRules.ts)
 */
export function parsePorts(value: Value, keyTypes: readonly KeyType[] | undefined, warn: Warn): Parsed<readonly PlacedPort[]> {
  const found: PlacedPort[] = []
  for (const { word, offset } of wordsOf(value)) {
    const place = value.placeAt(offset)
    const read = notPlainWords(value, word) ?? parsePort(word)
    if (typeof read === 'string') return bad(value, read, offset)
    const { port, protocol, keyType } = read
    if (keyType && keyTypes && !keyTypes.includes(keyType)) {
      const message = `${quote(word)} asks for a certificate of type ${keyType}, and keyTypes: of this section is `
        + `${keyTypes.join(' ')}; make them agree`
      return bad(value, message, offset)
    }
    const other = found.find((each) => each.port.port === port && each.port.protocol !== protocol)
    if (other) {
      const message = `port ${port} is there as ${quote(other.port.text)} too, and it can speak only one of the two; take one out`
      return bad(value, message, offset)
    }
    const covering = found.find((each) => each.port.port === port && (each.port.keyType ?? keyType) === keyType)
    if (covering) {
      warn({ place, message: `${value.key}: ${quote(covering.port.text)} looks at this already; take ${quote(word)} out` })
      continue
    }
    const odd = oddity(read)
    if (odd !== undefined) warn({ place, message: `${value.key}: ${odd}` })
    found.push({ port: read, place })
  }
  return { ok: true, value: found }
}

// What is rarely meant, though it can be.
function oddity({ port, protocol, text }: VerifyPort): string | undefined {
  const usual = speaksStartTls.get(port)
  if (protocol === 'tls' && usual !== undefined) {
    return `services on port ${port} use STARTTLS as a rule; write ${text.replace(String(port), `${port}/${usual}`)} unless this one does not`
  }
  if (protocol === 'tls' || !speaksTls.has(port)) return undefined
  return `port ${port} speaks TLS at once as a rule; write ${text.replace(`/${protocol}`, '')} unless this service does not`
}

/** One word of `verify:`, with its parts after the port in either order; or what is wrong with it. */
export function parsePort(word: string): VerifyPort | string {
  const [digits = '', ...rest] = word.split('/')
  const port = Number(digits)
  if (!/^[1-9]\d{0,4}$/u.test(digits) || port > 65_535) return notAPort(word)
  const protocols = rest.filter(isStartTls)
  const keyTypes = rest.filter(isType)
  const unknown = rest.find((each) => !isStartTls(each) && !isType(each))
  if (unknown !== undefined) return notASuffix(word, port, unknown)
  const [protocol] = protocols
  const [keyType] = keyTypes
  if (protocols.length > 1 || keyTypes.length > 1) {
    return protocols.length > 1 ? `${quote(word)} says two protocols; leave one`
      : `${quote(word)} says two key types; leave one, or none to look at both`
  }
  const text = [digits, ...protocol ? [protocol] : [], ...keyType ? [keyType] : []].join('/')
  return { text, port, protocol: protocol ?? 'tls', ...keyType && { keyType } }
}

function notAPort(word: string): string {
  const lower = word.toLowerCase()
  const turned = /^(smtp|imap|pop3)[/:](\d{1,5})$/u.exec(lower)
  const joined = /^(\d{1,5})[:.-](smtp|imap|pop3|rsa|ec)$/u.exec(lower)
  const service = wordsFor.get(lower)
  const meant = turned ? `${turned[2] ?? ''}/${turned[1] ?? ''}` : joined ? `${joined[1] ?? ''}/${joined[2] ?? ''}` : service
  if (meant !== undefined) return `${quote(word)} is not a port; write ${meant}`
  if (/^\S+:\d+$/u.test(word)) {
    return `${quote(word)} is not a port; each port is looked at on every host of the section, so write it alone`
  }
  return `${quote(word)} is not a port from 1 to 65535, perhaps with /smtp, /imap, /pop3, /rsa or /ec after it`
}

function notASuffix(word: string, port: number, unknown: string): string {
  const lower = unknown.toLowerCase()
  if (tlsWords.has(lower)) return `${quote(word)}: ${port} speaks TLS at once: write ${port}`
  const usual = speaksStartTls.get(port)
  if (/^starttls$|^submission$/u.test(lower)) {
    return `${quote(word)}: name the protocol of STARTTLS, as in ${port}/${usual ?? 'smtp'} (smtp, imap or pop3)`
  }
  const alias = new Map([['ecdsa', 'ec'], ['ecc', 'ec'], ['esmtp', 'smtp'], ['pop', 'pop3']]).get(lower)
  const meant = alias ?? nearest(lower, [...startTls, ...types])
  if (meant !== undefined) return `${quote(word)} has an unknown part ${quote(unknown)}; did you mean ${port}/${meant}?`
  return `${quote(word)} has an unknown part ${quote(unknown)}; after the port can stand `
    + '/smtp, /imap, /pop3 (STARTTLS), /rsa or /ec'
}
