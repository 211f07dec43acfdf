/**
 * Receipts (spec §5): which step of which section has seen which certificate. They are what makes deliveries a desired
 * state: what is held minus what receipts say is what is lacking.
 */
import { createHash } from 'node:crypto'
import { slotKey } from './names.js'
import type { DeliveryStep, Held, HostName, Receipts, Section } from './types.js'

/**
 * Under what a certificate's receipts stand: its place (NAME and key type), its fingerprint, and the links it comes with. A name that moves to another
 * subject brings a link to its hosts, which must get it even though no certificate is new. Empty for what was not read.
 */
export function receiptId(held: Held): string {
  const { certificate, files } = held
  if (certificate.state !== 'read') return ''
  const id = `${slotKey(held)} ${certificate.leaf.fingerprint}`
  if (files.certificateLinks.length === 0) return id
  return `${id} ${createHash('sha256').update(files.certificateLinks.join('\n')).digest('hex').slice(0, 12)}`
}

const placeOfId = (id: string): string => id.split(' ', 2).join(' ')

/** Under what key a step's receipts stand: its kind and its command, and which of several alike it is. */
export function stepKeys(kind: DeliveryStep['kind'], commands: readonly string[]): string[] {
  const seen = new Map<string, number>()
  return commands.map(command => {
    const n = (seen.get(command) ?? 0) + 1
    seen.set(command, n)
    return n === 1 ? `${kind} ${command}` : `${kind}#${n} ${command}`
  })
}

/** The host that receipts under this key are of; undefined for those of a step. */
export const hostOfKey = (key: string): HostName | undefined => /^(?:host|reload|verify) (\S+)/u.exec(key)?.[1]

/** A section's steps in the order in which they run, each with the key of its receipts. */
export function stepsOf(section: Section): { kind: DeliveryStep['kind']; command: string; key: string }[] {
  const kinds: DeliveryStep['kind'][] = ['uploadCerts', 'uploadKeys', 'update']
  return kinds.flatMap(kind => {
    const keys = stepKeys(kind, section[kind])
    return section[kind].map((command, i) => ({ kind, command, key: keys[i] ?? '' }))
  })
}

/** The receipts with those of one step for some certificates added. */
export function withReceipts(receipts: Receipts, section: string, key: string, certificates: readonly Held[], now: Date): Receipts {
  const ofSection = receipts[section] ?? {}
  const added = Object.fromEntries(certificates.map(h => [receiptId(h), now.toISOString()]))
  // What a host was given before in the same place is there no more: should it come back, it must be given again.
  const places = new Set(certificates.map(slotKey))
  const kept = Object.entries(ofSection[key] ?? {}).filter(([id]) => !places.has(placeOfId(id)))
  return { ...receipts, [section]: { ...ofSection, [key]: { ...Object.fromEntries(kept), ...added } } }
}

/**
 * The receipts without those of a section's update steps for some certificates. Done before these are uploaded again: if
 * we die between upload and reload, the next run must not take the old reload for one that saw the new files. Also of steps
 * that are not there today: back tomorrow, they must not count as having seen these files.
 */
export const withoutUpdates = (receipts: Receipts, section: Section, certificates: readonly Held[]): Receipts =>
  without(receipts, section, certificates, key => /^update[ #]/u.test(key))

/** The receipts of a section's steps without those for these certificates: the steps are run for them again. */
export const withoutReceipts = (receipts: Receipts, section: Section, certificates: readonly Held[]): Receipts =>
  without(receipts, section, certificates, key => hostOfKey(key) === undefined)

/** The receipts of a section without those for these certificates under the keys that are meant. */
export function without(receipts: Receipts, section: Section, certificates: readonly Held[], isMeant: (key: string) => boolean): Receipts {
  const ofSection = receipts[section.name]
  if (ofSection === undefined || certificates.length === 0) return receipts
  const gone = new Set(certificates.map(receiptId))
  const kept = Object.entries(ofSection).map(([key, ids]) =>
    [key, isMeant(key) ? Object.fromEntries(Object.entries(ids).filter(([id]) => !gone.has(id))) : ids] as const)
  return { ...receipts, [section.name]: Object.fromEntries(kept) }
}
