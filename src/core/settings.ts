/** lematt.conf → Settings (spec §3.2). */
import { isIP } from 'node:net'
import { posix } from 'node:path'
import { parseKeyTypes, readFields } from './fields.js'
import { isIp, parseIdentifier, quote } from './identifier.js'
import { entriesOf, parseIni } from './ini.js'
import { type ConfigKey, configKeys, letsEncrypt, nearest } from './keys.js'
import type { Place, Problem, Settings } from './types.js'
import { bad, parseBoolean, parseLine, parseNumber, type Parsed, type Value } from './values.js'

export interface ParsedSettings {
  /** There when no problem was found. */
  readonly settings?: Settings
  readonly problems: readonly Problem[]
  readonly warnings: readonly Problem[]
  /** Whether the file has the key, right or wrong. */
  readonly has: (key: ConfigKey) => boolean
}

const curves = new Map(
  [['prime256v1', 'prime256v1'], ['secp256r1', 'prime256v1'], ['secp384r1', 'secp384r1']] as const,
)
const rsaSizes = new Map([['2048', 2048], ['3072', 3072], ['4096', 4096]] as const)

/**
 * Reads the text of lematt.conf. Relative paths are resolved against `workingDirectory` (absolute), as the
 * Python program did, not against the directory of the file.
 */
export function parseSettings(text: string, file: string, workingDirectory: string): ParsedSettings {
  const ini = parseIni(text, file)
  const warnings: Problem[] = []
  const section = ini.sections.find(({ name }) => name === 'config')
  for (const { name, place } of ini.sections) {
    const message = `nothing reads the section [${name}]; settings stand in [config]`
    if (name !== 'config') warnings.push({ place, message })
  }
  if (!section) {
    const other = ini.sections.find(({ name }) => nearest(name, ['config']) !== undefined)
    const place = other?.place ?? { file, line: 1, column: 1 }
    const message = 'the section [config] is missing; put "[config]" above the settings'
    return { problems: [...ini.problems, { place, message }], warnings, has: () => true }
  }

  const entries = entriesOf(section, ini)
  const has = (key: ConfigKey): boolean => entries.has(key.toLowerCase())
  const { get, take, problems } = readFields<ConfigKey>(entries, configKeys)
  const read = <T>(name: ConfigKey, parse: (value: Value) => Parsed<T>): T | undefined => {
    const value = get(name)
    return value && take(parse(value))
  }
  const missing: Problem[] = []
  const need = (name: ConfigKey, what: string): void => {
    if (!has(name)) missing.push({ place: section.place, message: `${name} is missing; ${what}` })
  }

  const path = (value: Value): Parsed<string> => parsePath(value, workingDirectory)
  const challengeDropDir = read('challengeDropDir', path)
  const challengeListen = read('challengeListen', parseListen)
  if (!get('challengeListen')) {
    need('challengeDropDir', 'name the directory that your web server serves as /.well-known/acme-challenge/, '
      + 'or set challengeListen')
  }
  const accountKey = read('accountKey', path)
  need('accountKey', 'name a file for the key of your account (it is made if it is not there yet)')
  const reauthorizeDays = read('reauthorizeDays', (value) => parseNumber(value, 0, 36_500))
  const generateNewCertsAfterDays = read('generateNewCertsAfterDays', (value) => parseNumber(value, 0, 36_500)) ?? 0
  const alwaysGenerateNewKeys = read('alwaysGenerateNewKeys', parseBoolean) ?? false
  const keyBitsRSA = read('keyBitsRSA', (value) => choose(value, rsaSizes)) ?? 2048
  const curve = read('curve', (value) => choose(value, curves)) ?? 'prime256v1'
  const rsaTag = read('rsaTag', parseTag) ?? `rsa${keyBitsRSA}`
  const curveTag = read('curveTag', parseTag) ?? get('curve')?.text ?? 'prime256v1'
  const keyTypes = read('keyTypes', parseKeyTypes) ?? ['ec', 'rsa']
  const prodDirectory = read('prodDirectory', parseDirectory) ?? letsEncrypt.prod
  const testDirectory = read('testDirectory', parseDirectory) ?? letsEncrypt.test
  const caBundle = read('caBundle', path)
  const contact = read('contact', parseContact) ?? []
  const parallel = read('parallel', (value) => parseNumber(value, 1, 256, true)) ?? 16
  const commandTimeoutSeconds = read('commandTimeout', (value) => parseNumber(value, 1, 86_400)) ?? 300
  const challengeCheck = read('challengeCheck', parseBoolean) ?? true
  const logFile = read('logFile', path)
  const sshConfig = read('sshConfig', path)
  const verifyGraceSeconds = read('verifyGrace', (value) => parseNumber(value, 0, 3600)) ?? 30
  const challengeUrl = read('challengeUrl', parseChallengeUrl)

  const placeOf = (name: ConfigKey): Place => get(name)?.placeAt(0) ?? section.place
  if (rsaTag === curveTag) {
    const place = placeOf(get('curveTag') ? 'curveTag' : 'rsaTag')
    const message = `rsaTag and curveTag are both "${rsaTag}", so that RSA and EC would share a file; make them differ`
    missing.push({ place, message })
  }
  const often = tooOften(generateNewCertsAfterDays, keyTypes.length)
  if (often !== undefined) warnings.push({ place: placeOf('generateNewCertsAfterDays'), message: often })
  if (prodDirectory === testDirectory) {
    const message = 'prodDirectory and testDirectory are the same, so that --test spends the limits of --prod; '
      + 'give each its own'
    warnings.push({ place: placeOf(get('testDirectory') ? 'testDirectory' : 'prodDirectory'), message })
  }

  const all = [...ini.problems, ...problems, ...missing]
  if (all.length > 0 || accountKey === undefined) return { problems: all, warnings, has }
  const settings: Settings = {
    ...challengeDropDir !== undefined && { challengeDropDir },
    ...challengeListen && { challengeListen },
    ...reauthorizeDays !== undefined && { reauthorizeDays },
    ...caBundle !== undefined && { caBundle },
    ...logFile !== undefined && { logFile },
    ...sshConfig !== undefined && { sshConfig },
    ...challengeUrl !== undefined && { challengeUrl },
    challengeCheck, accountKey, generateNewCertsAfterDays, alwaysGenerateNewKeys, keyBitsRSA, curve, rsaTag, curveTag,
    keyTypes, prodDirectory, testDirectory, contact, parallel, commandTimeoutSeconds,
    verifyGraceSeconds,
  }
  return { settings, problems: [], warnings, has }
}

// Let's Encrypt: 5 certificates for the same set of names in 7 days, and each key type takes one.
function tooOften(days: number, perRenewal: number): string | undefined {
  const renewals = Math.floor(5 / perRenewal)
  const least = 7 / renewals
  if (days === 0 || days >= least) return undefined
  return `generateNewCertsAfterDays: ${days} days is too often for Let's Encrypt, which issues 5 certificates for the `
    + `same names in 7 days: a renewal takes ${perRenewal} of them, so ${renewals} renewals fit into 7 days, `
    + `and 7 / ${renewals} = ${least} days is the least`
}

function choose<T>(value: Value, options: ReadonlyMap<string, T>): Parsed<T> {
  const found = options.get(value.text)
  if (found !== undefined) return { ok: true, value: found }
  const meant = nearest(value.text, options.keys())
  const hint = meant === undefined ? '' : `; did you mean "${meant}"?`
  return bad(value, `${quote(value.text)} is not one of ${[...options.keys()].join(', ')}${hint}`)
}

function parsePath(value: Value, workingDirectory: string): Parsed<string> {
  const line = parseLine(value)
  if (!line.ok) return line
  if (line.value.startsWith('~')) return bad(value, '"~" stands for nothing here; write the whole path')
  return { ok: true, value: posix.resolve(workingDirectory, line.value) }
}

function parseTag(value: Value): Parsed<string> {
  if (/^[a-z0-9][a-z0-9._-]{0,29}$/iu.test(value.text)) return { ok: true, value: value.text }
  return bad(value, `${quote(value.text)} cannot be a tag: it stands in file names, so up to 30 letters, digits, `
    + '".", "_" and "-" can be in it, and it begins with a letter or digit')
}

function parseDirectory(value: Value): Parsed<string> {
  const line = parseLine(value)
  if (!line.ok) return line
  const url = URL.canParse(line.value) ? new URL(line.value) : undefined
  if (url?.protocol !== 'https:') {
    return bad(value, 'the URL of an ACME directory belongs here, beginning with https:// (RFC 8555 §6.1)')
  }
  if (url.username !== '' || url.password !== '' || url.hash !== '') {
    return bad(value, 'a user, a password or a # has no place in the URL of a directory')
  }
  return { ok: true, value: url.href }
}

// The rules of the forwarder (parseBaseUrl in forwarder/leforward.cts), which is what gets it; and the path is such that no
// shell on the way could read it as anything else. Without a final slash.
function parseChallengeUrl(value: Value): Parsed<string> {
  const { text } = value
  const refuse = (why: string): Parsed<string> => bad(value, `${quote(text)} ${why}; write one like http://central.example.com`)
  if (!/^https?:\/\//iu.test(text)) return refuse('does not begin with http:// or https://')
  if (/[?#]/u.test(text)) return refuse('has a query or a fragment, which have no place here')
  if (/^[^/]*\/\/[^/]*@/u.test(text)) return refuse('has a user, which has no place here')
  const isPlain = text.length <= 1000 && /^https?:\/\/[\w.:[\]-]+(?:\/[\w.~/%+=:,-]*)?$/iu.test(text)
  if (!isPlain || !URL.canParse(text)) return refuse('is not a plain URL')
  const url = new URL(text)
  if (!['', '80', '443'].includes(url.port)) return refuse('has a port that CAs do not follow (only 80 and 443)')
  const path = url.pathname.replace(/\/+$/u, '')
  const base = path.replace(/\/\.well-known\/acme-challenge$/u, '')
  if (base === path) return { ok: true, value: url.origin + path }
  return bad(value, `lematt adds /.well-known/acme-challenge/ itself; write ${url.origin}${base}`)
}

function parseListen(value: Value): Parsed<{ address: string; port: number }> {
  const [, v6, v4, digits] = /^(?:\[([^\]]*)\]|([^:]*)):(\d{1,5})$/u.exec(value.text) ?? []
  const address = v6 ?? v4 ?? ''
  const port = Number(digits)
  const family = v6 === undefined ? 4 : 6
  if (isIP(address) === family && port >= 1 && port <= 65_535) return { ok: true, value: { address, port } }
  return bad(value, `${quote(value.text)} is not an address and a port; `
    + 'write for example 0.0.0.0:80, or [::]:80 for IPv6 and IPv4')
}

function parseContact(value: Value): Parsed<readonly string[]> {
  const addresses: string[] = []
  for (const { 0: word, index } of value.text.matchAll(/[^\s,]+/gu)) {
    const address = word.replace(/^mailto:/iu, '')
    const [, local, host = ''] = /^([\w!#$&'*+/=^`{|}~.-]+)@([^@]+)$/u.exec(address) ?? []
    const parsed = parseIdentifier(host)
    if (local === undefined || !parsed.ok || isIp(host) || host.includes('*')) {
      return bad(value, `${quote(word)} is not a mail address`, index)
    }
    addresses.push(`${local}@${parsed.identifier}`)
  }
  return { ok: true, value: addresses }
}
