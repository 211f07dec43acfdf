/** The `domains` file → subjects (spec §3.1): one line is one subject, and one certificate per key type. */
import { isIp, isWildcard, parseIdentifier, quote } from './identifier.js'
import { count } from './text.js'
import type { Identifier, Place, Problem, Subject } from './types.js'

/** Let's Encrypt's limit on identifiers in one certificate; other CAs have the same or more. */
const mostIdentifiers = 100

export interface ParsedDomains {
  /** Those that are well-formed, in the order of the file. */
  readonly subjects: readonly Subject[]
  readonly problems: readonly Problem[]
  readonly warnings: readonly Problem[]
}

interface Word {
  readonly text: string
  readonly place: Place
}

/**
 * Reads the text of `domains`. Never throws.
 * @param nameOf NAME of a subject in the store (names.ts): no two subjects may have the same
 */
export function parseDomains(text: string, file: string, nameOf: (subject: Subject) => string): ParsedDomains {
  const problems: Problem[] = []
  const subjects: Subject[] = []
  text.replace(/^\ufeff/u, '').split(/\r\n|\r|\n/u).forEach((raw, index) => {
    const words = [...raw.replace(/#.*/u, '').matchAll(/\S+/gu)].map((match) =>
      ({ text: match[0], place: { file, line: index + 1, column: match.index + 1 } }))
    const [first] = words
    if (!first) return
    const before = problems.length
    const label = takeLabel(words, problems)
    const identifiers = readIdentifiers(words, problems)
    const [primary, ...others] = identifiers
    if (!primary || problems.length > before) return
    if (identifiers.length > mostIdentifiers) {
      const message = `${count(identifiers.length, 'identifier')} on one line; `
        + `a certificate holds up to ${mostIdentifiers}, so split the line`
      problems.push({ place: first.place, message })
      return
    }
    subjects.push({ identifiers: [primary, ...others], ...label !== undefined && { label }, place: first.place })
  })
  for (const each of [...sameNames(subjects, nameOf), ...labelsThatAreNames(subjects)]) problems.push(each)
  const warnings = twiceNamed(subjects, nameOf)
  if (subjects.length === 0 && problems.length === 0) {
    const message = 'there is no subject, so there is nothing to do; add a line such as "example.com www"'
    warnings.push({ place: { file, line: 1, column: 1 }, message })
  }
  return { subjects, problems, warnings }
}

// Takes `> LABEL` off the end of the words of a line.
function takeLabel(words: Word[], problems: Problem[]): string | undefined {
  const at = words.findIndex(({ text }) => text.includes('>'))
  const sign = words[at]
  if (!sign) return undefined
  const [, label, extra] = words.splice(at)
  const wrong = labelProblem(at, sign, label, extra)
  if (!wrong) return label?.text
  problems.push(wrong)
  return undefined
}

function labelProblem(at: number, sign: Word, label?: Word, extra?: Word): Problem | undefined {
  const problem = ({ place }: Word, message: string): Problem => ({ place, message })
  if (sign.text !== '>') return problem(sign, '">" stands alone, between blanks; write "example.com > label"')
  if (at === 0) return problem(sign, 'there is no name before ">"')
  if (!label) return problem(sign, 'there is no label after ">"; write "example.com > label"')
  if (extra) return problem(extra, 'the label is the last word of a line')
  // It stands in file names and is a key in the state: not hidden, no option, none of JavaScript's own names. A final
  // dot would be taken off where the label is named in `domains:` of actions.conf.
  if (/^(?![.-])[a-z0-9._-]{1,100}(?<!\.)$/u.test(label.text) && !(label.text in {})) return undefined
  return problem(label, `${quote(label.text)} cannot be a label: up to 100 of a-z, 0-9, ".", "_" and "-" can, `
    + 'not beginning with "." or "-", not ending with "."')
}

// A word without a dot is a subdomain of the first name. Repetitions are folded.
function readIdentifiers(words: readonly Word[], problems: Problem[]): Identifier[] {
  const found = new Set<Identifier>()
  let base: string | undefined
  words.forEach(({ text, place }, i) => {
    const short = i > 0 && !/[.:]/u.test(text)
    // Under a first name that is itself wrong, a short word is still checked, so that one look finds all problems.
    const parsed = parseIdentifier(short ? `${text}.${base ?? 'example.com'}` : text)
    if (i === 0 && parsed.ok) base = parsed.identifier
    if (short && base !== undefined && (isIp(base) || isWildcard(base))) {
      const message = `${quote(text)} would be a subdomain of ${base}, which can have none; write the whole name`
      problems.push({ place, message })
    } else if (parsed.ok) found.add(parsed.identifier)
    else problems.push({ place, message: parsed.message })
  })
  return [...found]
}

function sameNames(subjects: readonly Subject[], nameOf: (subject: Subject) => string): Problem[] {
  const first = new Map<string, Subject>()
  return subjects.flatMap((subject) => {
    const name = nameOf(subject)
    const earlier = first.get(name)
    if (!earlier) {
      first.set(name, subject)
      return []
    }
    const message = `this line would have the same files (${name}) as line ${earlier.place.line}; `
      + 'take one out, or give one a label with "> label"'
    return [{ place: subject.place, message }]
  })
}

// In `domains:` of actions.conf such a label would mean two subjects.
function labelsThatAreNames(subjects: readonly Subject[]): Problem[] {
  const owners = ownersOf(subjects)
  return subjects.flatMap(({ label, place }) => {
    const other = label === undefined ? undefined : owners.get(label)?.find((each) => each.place.line !== place.line)
    if (label === undefined || !other) return []
    return [{ place, message: `the label ${quote(label)} is also a name of line ${other.place.line}; choose another` }]
  })
}

// Labels say that the same names in several subjects are meant; without them it is mostly a slip, which costs limits.
function twiceNamed(subjects: readonly Subject[], nameOf: (subject: Subject) => string): Problem[] {
  const warnings: Problem[] = []
  for (const [identifier, [first, ...others]] of ownersOf(subjects)) {
    for (const other of others) {
      if (!first || (first.label !== undefined && other.label !== undefined)) continue
      const [one, two] = [first, other].map((each) => `${nameOf(each)} (line ${each.place.line})`)
      const message = `${identifier} stands in two subjects, ${one ?? ''} and ${two ?? ''}: `
        + 'each gets a certificate for it; take it out of one, or give both a label'
      warnings.push({ place: other.place, message })
    }
  }
  return warnings
}

function ownersOf(subjects: readonly Subject[]): Map<Identifier, Subject[]> {
  const owners = new Map<Identifier, Subject[]>()
  for (const subject of subjects) {
    for (const identifier of subject.identifiers) {
      const list = owners.get(identifier)
      if (list) list.push(subject)
      else owners.set(identifier, [subject])
    }
  }
  return owners
}
