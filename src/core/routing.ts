/**
 * Which section serves which identifier (spec §3.3): each goes to the overrides that list it, or else to
 * `[default]`; all go to `[every]` too. A label in `domains:` lists all identifiers of its subject.
 */
import type { Identifier, KeyType, Section, Settings, Subject } from './types.js'

// A section's list may have thousands of entries and is asked for each identifier.
const sets = new WeakMap<readonly string[], ReadonlySet<string>>()

function lists(section: Section, subject: Subject, identifier: Identifier): boolean {
  if (!section.domains) return false
  let entries = sets.get(section.domains)
  if (!entries) sets.set(section.domains, entries = new Set(section.domains))
  return entries.has(identifier) || (subject.label !== undefined && entries.has(subject.label))
}

/** The identifiers of `subject` that come to `section`, in the subject's order; empty when none does. */
export function identifiersRoutedTo(section: Section, subject: Subject, sections: readonly Section[]): Identifier[] {
  return subject.identifiers.filter((identifier) => {
    if (section.name === 'every') return true
    if (section.name === 'default') return !sections.some((each) => lists(each, subject, identifier))
    return lists(section, subject, identifier)
  })
}

/** The sections that a subject belongs to, in delivery order: those that at least one of its identifiers comes to. */
export function sectionsOf(subject: Subject, sections: readonly Section[]): Section[] {
  return sections.filter((section) => identifiersRoutedTo(section, subject, sections).length > 0)
}

/** The key types of a subject's certificates: what its sections say, or else lematt.conf. Each once, EC first. */
export function keyTypesOf(
  subject: Subject, sections: readonly Section[], settings: Pick<Settings, 'keyTypes'>,
): readonly KeyType[] {
  return sectionsOf(subject, sections).find((section) => section.keyTypes !== undefined)?.keyTypes ?? settings.keyTypes
}
