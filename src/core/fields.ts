/** What a section says, by key of a table: unknown keys, empty values and bad `%` become problems. */
import type { Entry } from './ini.js'
import { type Key, nearest } from './keys.js'
import type { KeyType, Problem } from './types.js'
import { bad, type Parsed, unpercent, type Value, wordsOf } from './values.js'

export interface Fields<Name extends string> {
  readonly get: (name: Name) => Value | undefined
  /** Notes the problem of a failed reading; gives the value of a good one. */
  readonly take: <T>(parsed: Parsed<T>) => T | undefined
  readonly problems: readonly Problem[]
}

/** Looks up a section's entries in the table of its keys. */
export function readFields<Name extends string>(
  entries: ReadonlyMap<string, Entry>, table: readonly (Key & { readonly name: Name })[],
): Fields<Name> {
  const problems: Problem[] = []
  const values = new Map<string, Value>()
  for (const entry of entries.values()) {
    const key = table.find((each) => each.name.toLowerCase() === entry.key)
    if (!key) {
      const meant = nearest(entry.key, table.map((each) => each.name))
      const hint = meant === undefined ? 'docs/configuration.md has the list' : `did you mean "${meant}"?`
      problems.push({ place: entry.place, message: `unknown key "${entry.written}"; ${hint}` })
      continue
    }
    const { value, problems: percents } = unpercent(entry)
    for (const each of percents) problems.push(each)
    const empty = `${entry.written}: there is no value; give one or take the line out`
    if (value.text === '') problems.push({ place: entry.place, message: empty })
    else if (percents.length === 0) values.set(key.name, value)
  }
  const take = <T>(parsed: Parsed<T>): T | undefined => {
    if (parsed.ok) return parsed.value
    problems.push(parsed.problem)
    return undefined
  }
  return { get: (name) => values.get(name), take, problems }
}

/** `rsa`, `ec` or both, in any order; gives each once, EC first: the order in which they are issued. */
export function parseKeyTypes(value: Value): Parsed<readonly KeyType[]> {
  const words = wordsOf(value)
  const wrong = words.find(({ word }) => word !== 'rsa' && word !== 'ec')
  if (wrong) return bad(value, `"${wrong.word}" is not a key type; write "rsa", "ec" or "rsa ec"`, wrong.offset)
  return { ok: true, value: (['ec', 'rsa'] as const).filter((type) => words.some(({ word }) => word === type)) }
}
