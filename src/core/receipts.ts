/**
 * Receipts (spec §5): which step of which section has seen which certificate. They are what makes deliveries a desired
 * state: what is held minus what receipts say is what is lacking.
 */
import { createHash } from 'node:crypto'
import type { DeliveryStep, Held, Receipts, Section } from './types.js'

/**
 * Under what a certificate's receipts stand: its fingerprint, and the links it comes with. A name that moves to another
 * subject brings a link to its hosts, which must get it even though no certificate is new. Empty for what was not read.
 */
export function receiptId({ certificate, files }: Held): string {
  if (certificate.state !== 'read') return ''
  const { fingerprint } = certificate.leaf
  if (files.certificateLinks.length === 0) return fingerprint
  return `${fingerprint} ${createHash('sha256').update(files.certificateLinks.join('\n')).digest('hex').slice(0, 12)}`
}

/** Under what key a step's receipts stand: its kind and its command, and which of several alike it is. */
export function stepKeys(kind: DeliveryStep['kind'], commands: readonly string[]): string[] {
  const seen = new Map<string, number>()
  return commands.map(command => {
    const n = (seen.get(command) ?? 0) + 1
    seen.set(command, n)
    return n === 1 ? `${kind} ${command}` : `${kind}#${n} ${command}`
  })
}

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
  return { ...receipts, [section]: { ...ofSection, [key]: { ...ofSection[key], ...added } } }
}

/**
 * The receipts without those of a section's update steps for some certificates. Done before these are uploaded again: if
 * we die between upload and reload, the next run must not take the old reload for one that saw the new files.
 */
export function withoutUpdates(receipts: Receipts, section: Section, certificates: readonly Held[]): Receipts {
  const ofSection = receipts[section.name]
  if (ofSection === undefined) return receipts
  const gone = new Set(certificates.map(receiptId))
  const updates = new Set(stepKeys('update', section.update))
  const kept = Object.entries(ofSection).map(([key, fingerprints]) => [
    key,
    updates.has(key) ? Object.fromEntries(Object.entries(fingerprints).filter(([f]) => !gone.has(f))) : fingerprints,
  ] as const)
  return { ...receipts, [section.name]: Object.fromEntries(kept) }
}

/** The receipts without any for these certificates in these sections: everything is delivered to them again. */
export function withoutReceipts(receipts: Receipts, sections: readonly Section[], certificates: readonly Held[]): Receipts {
  const names = new Set(sections.map(section => section.name))
  const gone = new Set(certificates.map(receiptId))
  return Object.fromEntries(Object.entries(receipts).map(([name, steps]) => [name, !names.has(name) ? steps : Object.fromEntries(
    Object.entries(steps).map(([key, prints]) => [key, Object.fromEntries(Object.entries(prints).filter(([id]) => !gone.has(id)))]),
  )]))
}
