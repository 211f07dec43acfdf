/**
 * The words of `hosts:`, `reload:`, `verify:`, `verifyAddress:` and `forward:` in a section of actions.conf (spec §8). They go
 * into arguments of ssh(1), into what the receiver is asked and into the keys of receipts, so this is the one door through
 * which they enter: no blank, no control character, nothing that begins with "-", nothing that a shell would read.
 */
import { isIP } from 'node:net'
import { parseAddress } from './address.js'
import type { Fields } from './fields.js'
import { quote } from './identifier.js'
import { nearest, type SectionKey } from './keys.js'
import type { HostName, KeyType, Place, Problem, Section } from './types.js'
import { bad, type Parsed, type Value, wordsOf } from './values.js'
import { parsePorts } from './verifyWords.js'
import { notPlainWords, type Warn } from './wordList.js'

export type HostWords = Pick<Section, 'hosts' | 'reload' | 'verify' | 'verifyAddress' | 'forward'>

/** Where what depends on the other files stands (hostRules.ts). */
export interface HostPlaces {
  /** Of `forward: redirect`. */
  readonly redirect?: Place
  /** Of the ports with a key type. */
  readonly typed: readonly { readonly text: string; readonly keyType: KeyType; readonly place: Place }[]
}

export interface HostContext {
  readonly section: string
  readonly fields: Fields<SectionKey>
  readonly given: (key: SectionKey) => boolean
  /** Whether the section itself has the key; else its value may come from `[DEFAULT]`, which speaks to other sections too. */
  readonly own: (key: SectionKey) => boolean
  /** Every word of every `hosts:` in the file, right or wrong. */
  readonly allHosts: ReadonlySet<string>
  readonly keyTypes: readonly KeyType[] | undefined
  readonly complain: (problem: Problem) => void
  readonly warn: Warn
}

/** What a section says of hosts. */
export function readHostWords(context: HostContext): { readonly words: HostWords; readonly places: HostPlaces } {
  const { fields, warn } = context
  const given = fields.get('hosts')
  if (!given) {
    // A wrong or empty hosts: has its problem already, and the rest would only follow from it.
    if (!context.given('hosts')) complainWithoutHosts(context)
    return { words: { hosts: [], reload: [], verify: [], verifyAddress: {} }, places: { typed: [] } }
  }
  const read = <T>(key: SectionKey, parse: (value: Value) => Parsed<T>): T | undefined => {
    const value = fields.get(key)
    return value && fields.take(parse(value))
  }
  const hosts = fields.take(parseHosts(given, warn))
  const reload = read('reload', (value) => parseServices(value, warn)) ?? []
  const ports = read('verify', (value) => parsePorts(value, context.keyTypes, warn)) ?? []
  const verifyAddress = hosts && read('verifyAddress', (value) => parseAddresses(value, hosts, context)) || {}
  const forward = read('forward', parseForward)

  const redirect = forward === 'redirect' ? fields.get('forward')?.placeAt(0) : undefined
  const typed = ports.flatMap(({ port: { text, keyType }, place }) => keyType ? [{ text, keyType, place }] : [])
  return {
    words: { hosts: hosts ?? [], reload, verify: ports.map(({ port }) => port), verifyAddress, ...forward && { forward } },
    places: { typed, ...redirect && { redirect } },
  }
}

function complainWithoutHosts({ section, fields, own, allHosts, complain }: HostContext): void {
  for (const key of ['reload', 'verify', 'verifyAddress', 'forward'] as const) {
    const value = fields.get(key)
    // What [DEFAULT] says is for the sections with hosts, if there is one.
    if (!value || (!own(key) && allHosts.size > 0)) continue
    const message = `${key}: speaks of hosts, and [${section}] has none; name them with hosts: or take this line out`
    complain({ place: value.placeAt(0), message })
  }
}

const hostForm = /^(?:(\w[\w.-]*)@)?(?:(\w[\w.-]*)|\[([^[\]%]+)(?:%\w[\w.-]*)?\])(?::([1-9]\d{0,4}))?$/u

/** What is wrong with a word of `hosts:`; undefined when it is an alias or `user@host:port`. */
export function wrongHost(word: string): string | undefined {
  if (isIP(word) === 6) return `put the IPv6 address into brackets: [${word}]`
  const [whole, , , v6, port] = hostForm.exec(word) ?? []
  const wrong = whole === undefined || word.length > 255 || (v6 !== undefined && isIP(v6) !== 6) || Number(port ?? 1) > 65_535
  if (wrong) return `${quote(word)} is not a host; write an alias of ~/.ssh/config, or user@host:port (IPv6 in brackets)`
  // It becomes the key of objects.
  return word in {} ? `${quote(word)} cannot be the name of a host; choose another alias` : undefined
}

function parseHosts(value: Value, warn: Warn): Parsed<readonly HostName[]> {
  return parseNames(value, warn, wrongHost)
}

/** What is wrong with a word of `reload:`; undefined when it can be the name of a service (service_name in lematt-receive). */
export function wrongService(word: string): string | undefined {
  const command = word.startsWith('/') || word === 'systemctl' || word === 'service'
  if (command) return 'names of services belong here, as in "postfix dovecot"; their commands stand in receive.conf on the hosts'
  const wrong = !/^[A-Za-z0-9][A-Za-z0-9._@-]{0,99}$/u.test(word) || word in {}
  const hint = 'write it as receive.conf on the hosts has it (letters, digits, ._@-)'
  return wrong ? `${quote(word)} is not the name of a service; ${hint}` : undefined
}

function parseServices(value: Value, warn: Warn): Parsed<readonly string[]> {
  return parseNames(value, warn, wrongService)
}

function parseNames(value: Value, warn: Warn, wrong: (word: string) => string | undefined): Parsed<readonly string[]> {
  const names = new Set<string>()
  for (const { word, offset } of wordsOf(value)) {
    const message = notPlainWords(value, word) ?? wrong(word)
    if (message !== undefined) return bad(value, message, offset)
    if (names.has(word)) {
      warn({ place: value.placeAt(offset), message: `${value.key}: ${quote(word)} is there twice; take one out` })
    }
    names.add(word)
  }
  return { ok: true, value: [...names] }
}

function parseForward(value: Value): Parsed<'redirect' | 'tunnel'> {
  if (value.text === 'redirect' || value.text === 'tunnel') return { ok: true, value: value.text }
  const meant = nearest(value.text, ['redirect', 'tunnel'])
  const hint = /^https?:/iu.test(value.text) ? '; the URL belongs to challengeUrl in lematt.conf'
    : meant === undefined ? '' : `; did you mean "${meant}"?`
  return bad(value, `${quote(value.text)} is neither "redirect" nor "tunnel"${hint}`)
}

function parseAddresses(
  value: Value, hosts: readonly HostName[], { section, own, allHosts }: HostContext,
): Parsed<Section['verifyAddress']> {
  const found = new Map<HostName, string>()
  for (const { word, offset } of wordsOf(value)) {
    const plain = notPlainWords(value, word)
    if (plain !== undefined) return bad(value, plain, offset)
    const equals = word.indexOf('=')
    const [only = '', ...others] = hosts
    if (equals === -1 && others.length > 0) {
      const message = `${quote(word)} does not say whose address it is, and [${section}] has ${hosts.length} hosts; `
        + 'write HOST=ADDRESS'
      return bad(value, message, offset)
    }
    const host = equals === -1 ? only : word.slice(0, equals)
    const address = addressOf(word.slice(equals + 1))
    if (!address.ok) return bad(value, address.message, offset + equals + 1)
    if (!hosts.includes(host)) {
      // A table in [DEFAULT] may name the hosts of all sections.
      if (!own('verifyAddress') && allHosts.has(host)) continue
      const meant = nearest(host, hosts)
      const hint = meant === undefined ? 'add it to hosts: or take it out here' : `did you mean "${meant}"?`
      return bad(value, `[${section}] has no host ${quote(host)}; ${hint}`, offset)
    }
    if (found.has(host)) return bad(value, `${quote(host)} has a second address here; take one out`, offset)
    found.set(host, address.address)
  }
  return { ok: true, value: Object.fromEntries(found) }
}

type Address = { readonly ok: true; readonly address: string } | { readonly ok: false; readonly message: string }

// A name (perhaps without a dot: the resolver here knows what it means) or an address, in lower case; private ones are usual.
function addressOf(word: string): Address {
  const bare = word.replace(/^\[(.*)\]$/u, '$1')
  const parsed = parseAddress(bare)
  if (parsed) return { ok: true, address: parsed.address }
  const name = word.toLowerCase().replace(/\.$/u, '')
  const labels = name.split('.')
  // Some inner names have an underscore.
  const isName = name.length <= 253 && labels.every((label) => /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/u.test(label))
  // `1.2` and `0x7f.1` would be read as addresses by the resolver.
  if (isName && !/^(?:\d+|0x[0-9a-f]*)$/u.test(labels.at(-1) ?? '')) return { ok: true, address: name }
  const port = /^(?:[^:]+|\[.*\]):\d+$/u.test(word) ? '; ports are those of verify:' : ''
  return { ok: false, message: `${quote(word)} is neither a host name nor an IP address${port}` }
}
