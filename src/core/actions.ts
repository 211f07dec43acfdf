/** actions.conf → sections (spec §3.3). Who is served by which section: routing.ts. */
import { type Fields, parseKeyTypes, readFields } from './fields.js'
import { type HostPlaces, readHostWords } from './hostWords.js'
import { coveredBy, parseIdentifier, quote } from './identifier.js'
import { entriesOf, type Ini, type IniSection, parseIni } from './ini.js'
import { nearest, type SectionKey, sectionKeys } from './keys.js'
import { sectionsOf } from './routing.js'
import type { Identifier, Problem, Section, StepKind, Subject } from './types.js'
import { bad, parseStringList, type Parsed, unpercent, type Value, wordsOf } from './values.js'

export { identifiersRoutedTo, keyTypesOf, sectionsOf } from './routing.js'

export interface ParsedActions {
  /** In delivery order: that of the file, `[every]` last. */
  readonly sections: readonly Section[]
  readonly problems: readonly Problem[]
  readonly warnings: readonly Problem[]
  /** By section: what is to be held against the other two files (hostRules.ts). */
  readonly hostPlaces: ReadonlyMap<Section, HostPlaces>
}

/**
 * Reads the text of actions.conf. Never throws.
 * @param subjects those of `domains`; undefined when that could not be read, so that nothing can be said about them
 */
export function parseActions(text: string, file: string, subjects?: readonly Subject[]): ParsedActions {
  const ini = parseIni(text, file)
  const problems: Problem[] = []
  const warnings: Problem[] = []
  const hostPlaces = new Map<Section, HostPlaces>()
  const allHosts = hostsOf(ini)
  const inFileOrder = ini.sections.map((section) => {
    const read = readSection(section, ini, allHosts, problems, warnings)
    hostPlaces.set(read.section, read.places)
    return read.section
  })
  const isEvery = (section: Section): boolean => section.name === 'every'
  const sections = [...inFileOrder.filter((section) => !isEvery(section)), ...inFileOrder.filter(isEvery)]

  if (!sections.some(({ name }) => name === 'default')) {
    const message = 'the section [default] is missing, so names that no other section lists go nowhere'
    const hint = '; [DEFAULT] in capitals is another thing: it gives values to all sections'
    warnings.push({ place: { file, line: 1, column: 1 }, message: message + (ini.defaults.size > 0 ? hint : '') })
  }
  return {
    sections,
    problems: [...ini.problems, ...problems, ...disagreements(sections, subjects ?? [])],
    warnings: [...warnings, ...subjects ? unknownEntries(ini, subjects) : []],
    hostPlaces,
  }
}

// Every word of every hosts:, so that [DEFAULT] can speak of hosts that only some sections have.
function hostsOf(ini: Ini): ReadonlySet<string> {
  const entries = [ini.defaults, ...ini.sections.map((section) => section.entries)].map((each) => each.get('hosts'))
  return new Set(entries.flatMap((entry) => entry ? wordsOf(unpercent(entry).value).map(({ word }) => word) : []))
}

interface ReadSection {
  readonly section: Section
  readonly places: HostPlaces
}

function readSection(
  section: IniSection, ini: Ini, allHosts: ReadonlySet<string>, problems: Problem[], warnings: Problem[],
): ReadSection {
  const { name, place } = section
  const all = entriesOf(section, ini)
  const fields = readFields<SectionKey>(all, sectionKeys)
  const problem = (message: string, at = place): void => void problems.push({ place: at, message })

  // The name is shown, is in the environment of steps and is a key in the state.
  if (/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/u.test(name) || name.length > 100 || name in {}) {
    problem(`${quote(name)} cannot be the name of a section; choose up to 100 printable characters`)
  }
  const override = name !== 'default' && name !== 'every'
  const listed = all.get('domains')
  if (!override && listed) {
    const served = name === 'every' ? 'all names' : 'the names that no other section lists'
    problem(`domains: has no place in [${name}], which serves ${served}; take it out`, listed.place)
  }
  if (override && !listed) {
    const meant = nearest(name, ['default', 'every'])
    const hint = meant === undefined ? '' : `, or did you mean [${meant}]?`
    problem(`[${name}] has no domains: and so serves nothing; list its names${hint}`)
  }
  const stapling = all.get('ocspstaplerequired')
  if (stapling) {
    const message = 'ocspStapleRequired is ignored, for CAs no longer issue must-staple certificates; take the line out'
    warnings.push({ place: stapling.place, message })
  }

  const domains = override ? read(fields, 'domains', parseEntries) : undefined
  const keyTypes = read(fields, 'keyTypes', parseKeyTypes)
  const steps = (kind: StepKind): string[] => {
    const value = fields.get(kind)
    const list = value && fields.take(parseStringList(value)) || []
    const message = `${kind}: an empty command is left out`
    if (value && list.some(isBlank)) warnings.push({ place: value.placeAt(0), message })
    return list.filter((command) => !isBlank(command))
  }
  const { words, places } = readHostWords({
    section: name, fields, keyTypes, allHosts,
    given: (key) => all.has(key.toLowerCase()),
    own: (key) => section.entries.has(key.toLowerCase()),
    complain: (each) => problems.push(each),
    warn: (each) => warnings.push(each),
  })
  const result: Section = {
    name,
    place,
    prepare: steps('prepare'),
    uploadCerts: steps('uploadCerts'),
    uploadKeys: steps('uploadKeys'),
    update: steps('update'),
    ...words,
    ...domains && { domains },
    ...keyTypes && { keyTypes },
  }
  for (const each of fields.problems) problems.push(each)
  return { section: result, places }
}

const isBlank = (command: string): boolean => command.trim() === ''

function read<T>(fields: Fields<SectionKey>, name: SectionKey, parse: (value: Value) => Parsed<T>): T | undefined {
  const value = fields.get(name)
  return value && fields.take(parse(value))
}

const isLabel = (word: string): boolean => /^[a-z0-9_][a-z0-9._-]*$/u.test(word)

// One word of `domains:` in canonical form: an identifier, or a label as it stands.
function canonicalEntry(word: string): ReturnType<typeof parseIdentifier> {
  const parsed = parseIdentifier(word)
  return !parsed.ok && isLabel(word) ? { ok: true, identifier: word } : parsed
}

function parseEntries(value: Value): Parsed<readonly string[]> {
  const entries = new Set<string>()
  for (const { word, offset } of wordsOf(value)) {
    const parsed = canonicalEntry(word)
    if (!parsed.ok) return bad(value, parsed.message, offset)
    entries.add(parsed.identifier)
  }
  return { ok: true, value: [...entries] }
}

function unknownEntries(ini: Ini, subjects: readonly Subject[]): Problem[] {
  const known = new Set(subjects.flatMap(({ identifiers }) => identifiers))
  for (const { label } of subjects) if (label !== undefined) known.add(label)
  // Looking for what was meant compares with every name that there is, so only the first few get a hint.
  let hints = 10
  return ini.sections.flatMap((section) => {
    const value = readFields<SectionKey>(entriesOf(section, ini), sectionKeys).get('domains')
    if (!value || section.name === 'default' || section.name === 'every') return []
    return wordsOf(value).flatMap(({ word, offset }) => {
      const parsed = canonicalEntry(word)
      if (!parsed.ok || known.has(parsed.identifier)) return []
      const meant = hints-- > 0 ? wildcardFor(parsed.identifier, known) ?? nearest(parsed.identifier, known) : undefined
      const hint = meant === undefined ? 'add it there or take it out here' : `did you mean "${meant}"?`
      const message = `domains: no subject in the domains file has ${quote(word)}; ${hint}`
      return [{ place: value.placeAt(offset), message }]
    })
  })
}

function wildcardFor(identifier: Identifier, known: ReadonlySet<Identifier>): Identifier | undefined {
  return [...known].find((each) => coveredBy(identifier, each))
}

// A subject has one set of certificates, so its sections have to want the same key types.
function disagreements(sections: readonly Section[], subjects: readonly Subject[]): Problem[] {
  const saying = sections.filter(({ keyTypes }) => keyTypes !== undefined)
  if (saying.length < 2) return []
  const problems = new Map<string, Problem>()
  for (const subject of subjects) {
    const said = sectionsOf(subject, sections).filter(({ keyTypes }) => keyTypes !== undefined)
      .sort((a, b) => a.place.line - b.place.line)
    const [first] = said
    const other = said.find(({ keyTypes }) => keyTypes?.join() !== first?.keyTypes?.join())
    if (!first || !other || problems.has(`${first.place.line} ${other.place.line}`)) continue
    const message = `[${first.name}] and [${other.name}] want different keyTypes for `
      + `${subject.label ?? subject.identifiers[0]}, which belongs to both; make them agree`
    problems.set(`${first.place.line} ${other.place.line}`, { place: other.place, message })
  }
  return [...problems.values()]
}
