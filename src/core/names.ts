/** Every file name that we write (spec §4). The same as the Python program's, so that its store is ours. */
import { createHash } from 'node:crypto'
import type { CertificateFiles, Held, Identifier, KeyType, Mode, Settings, Subject } from './types.js'

/** Longest NAME in bytes: with `-cert-combined.TAG.test.pem` it stays below the 255 of a file name. */
const longestName = 180

/** NAME of spec §4: the label, or the primary identifier and the sorted others joined by `_`. */
export function subjectName(subject: Subject): string {
  if (subject.label !== undefined) return subject.label
  const [primary, ...others] = subject.identifiers
  const whole = [primary, ...sortByLabels(others)].map(inFileName).join('_')
  return cut(whole)
}

/** Under what key an order's failures and a delivery's receipts remember a certificate: its NAME and key type. */
export const slotKey = ({ name, keyType }: Pick<Held, 'name' | 'keyType'>): string => `${name} ${keyType}`

/** A name over 180 bytes is cut, and told from others that begin alike by the digest of the whole. */
function cut(whole: string): string {
  if (Buffer.byteLength(whole) <= longestName) return whole
  const digest = createHash('sha256').update(whole).digest('hex').slice(0, 16)
  return `${whole.slice(0, longestName - digest.length - 1)}_${digest}`
}

/** By labels from right to left without the top-level one: `a.b.example.com` sorts as `example, b, a`. */
function sortByLabels(identifiers: readonly Identifier[]): Identifier[] {
  const keyed = [...new Set(identifiers)].map(id => ({ id, key: id.split('.').reverse().slice(1) }))
  keyed.sort((a, b) => compareLists(a.key, b.key) || compare(a.id, b.id))
  return keyed.map(({ id }) => id)
}

function compareLists(a: readonly string[], b: readonly string[]): number {
  for (const [i, left] of a.entries()) {
    const right = b[i]
    if (right === undefined) return 1
    if (left !== right) return compare(left, right)
  }
  return a.length - b.length
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)

/** `*` is no character for a file name that ends up on command lines. */
const inFileName = (identifier: Identifier): string => identifier.replace('*', '_wildcard')

/**
 * The NAME that the store already uses for the same primary and the same set of identifiers in another
 * order (the Python program also kept a repeated primary), else `subjectName`.
 * @param stored the NAMEs that stand in the store's `cert` directory
 */
export function nameInStore(subject: Subject, stored: ReadonlySet<string>): string {
  const name = subjectName(subject)
  if (subject.label !== undefined || subject.identifiers.length < 2 || stored.has(name)) return name
  const wanted = canonicalSet(subject.identifiers.map(inFileName))
  const prefix = `${inFileName(subject.identifiers[0])}_`
  for (const candidate of [...stored].filter(n => n.startsWith(prefix)).sort()) {
    // Identifiers hold no "_" of their own, so a "__wildcard" is a joined "_wildcard".
    const parts = candidate.split(/_(?!wildcard\.)|_(?=_wildcard\.)/u)
    if (parts[0] === inFileName(subject.identifiers[0]) && canonicalSet(parts) === wanted) return candidate
  }
  return name
}

const canonicalSet = (names: readonly string[]): string => [...new Set(names)].sort().join(' ')

/** `rsa2048` or `prime256v1`, unless `rsaTag` / `curveTag` say otherwise. */
export const fileTag = (keyType: KeyType, settings: Pick<Settings, 'rsaTag' | 'curveTag'>): string =>
  keyType === 'rsa' ? settings.rsaTag : settings.curveTag

/** The names for one (NAME, key type, mode); `suffix` is what tells them apart in one directory. */
function suffixes(tag: string, mode: Mode): { key: string; certificate: string; csr: string } {
  const test = mode === 'test' ? '.test' : ''
  return { key: `-key.${tag}${test}.pem`, certificate: `-cert-combined.${tag}${test}.pem`, csr: `-csr.${tag}${test}.csr` }
}

/** NAMEs of the certificates of one tag and mode among the entries of the `cert` directory. */
export function storedNames(entries: readonly string[], tag: string, mode: Mode): ReadonlySet<string> {
  const { certificate } = suffixes(tag, mode)
  return new Set(entries.filter(e => e.endsWith(certificate) && !e.startsWith('.')).map(e => e.slice(0, -certificate.length)))
}

/** One subject with the NAME that it has in the store. */
export interface NamedSubject {
  readonly subject: Subject
  readonly name: string
}

/**
 * The files of every subject for one key type. Each identifier of a multi-name subject has links to the
 * combined files, but a name that is another subject's own file stays that, and of two subjects that would
 * have the same link the first one in `domains` owns it.
 */
export function certificateFiles(subjects: readonly NamedSubject[], tag: string, mode: Mode): CertificateFiles[] {
  const suffix = suffixes(tag, mode)
  const taken = new Set(subjects.map(s => s.name))
  return subjects.map(({ subject, name }) => {
    const links = subject.identifiers.length < 2 ? [] : subject.identifiers.map(id => cut(inFileName(id))).filter(link => !taken.has(link))
    for (const link of links) taken.add(link)
    return {
      key: name + suffix.key,
      certificate: name + suffix.certificate,
      csr: name + suffix.csr,
      keyLinks: links.map(link => link + suffix.key),
      certificateLinks: links.map(link => link + suffix.certificate),
    }
  })
}
