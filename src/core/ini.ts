/**
 * The dialect of Python's configparser (spec §3), in which existing files are written, with the place of every
 * key and value. All problems are collected, so that a file is mended in one go. The rules are those of
 * CPython's RawConfigParser._read; the test compares thousands of files with the real thing.
 */
import type { Place, Problem } from './types.js'

/** One line of a value, stripped, with the place of its first character in the file. */
export interface ValueLine {
  readonly text: string
  readonly line: number
  readonly column: number
}

/** `key: value`. A value is what its lines give when joined by line feeds. */
export interface Entry {
  /** Lower case: keys are compared without regard to case. */
  readonly key: string
  /** As it stands in the file. */
  readonly written: string
  readonly place: Place
  readonly lines: readonly ValueLine[]
}

/** `[name]` with its entries by lower-case key. */
export interface IniSection {
  readonly name: string
  readonly place: Place
  readonly entries: ReadonlyMap<string, Entry>
}

export interface Ini {
  readonly file: string
  /** What all `[DEFAULT]` sections together say. */
  readonly defaults: ReadonlyMap<string, Entry>
  /** In the order of the file; one that is there twice (a problem) stands here twice. */
  readonly sections: readonly IniSection[]
  readonly problems: readonly Problem[]
}

// What Python's str.strip() and \s take for blank; JavaScript's trim() differs in U+001C-1F, U+0085 and U+FEFF.
const blank = '[\\t-\\r\\u001c-\\u0020\\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]'
const leadingBlanks = new RegExp(`^${blank}*`, 'u')
const onlyBlank = new RegExp(`^${blank}$`, 'u')

function strip(text: string): string {
  let end = text.length
  while (end > 0 && onlyBlank.test(text.charAt(end - 1))) end--
  return text.slice(indentOf(text), end)
}

const indentOf = (text: string): number => (leadingBlanks.exec(text)?.[0] ?? '').length

interface OpenEntry extends Entry { readonly lines: ValueLine[] }
interface OpenSection extends IniSection { readonly entries: Map<string, OpenEntry> }

/** Reads a whole file (`file` is its name for places). Never throws. Values are raw: see `unpercent` in values.ts. */
export function parseIni(text: string, file: string): Ini {
  const defaults = new Map<string, OpenEntry>()
  const sections: OpenSection[] = []
  const headers = new Map<string, Place>()
  const problems: Problem[] = []
  let section: OpenSection | undefined
  let entry: OpenEntry | undefined
  let keyIndent = 0
  let lost = false

  const lines = text.replace(/^\ufeff/u, '').split(/\r\n|\r|\n/u)
  lines.forEach((raw, index) => {
    const line = index + 1
    const stripped = strip(raw)
    const indent = indentOf(raw)
    const place = (offset = 0): Place => ({ file, line, column: indent + offset + 1 })
    const problem = (message: string): void => void problems.push({ place: place(), message })

    if (stripped.startsWith('#') || stripped.startsWith(';')) return
    if (stripped === '') {
      entry?.lines.push({ text: '', line, column: 1 })
      return
    }
    if (entry && indent > keyIndent) {
      entry.lines.push({ text: stripped, line, column: indent + 1 })
      return
    }
    keyIndent = indent

    // Python's pattern is greedy and looks at the start only: `[a]b]` names `a]b`, what follows is ignored.
    const close = stripped.startsWith('[') ? stripped.lastIndexOf(']') : -1
    if (close >= 2) {
      const name = stripped.slice(1, close)
      const isDefault = name === 'DEFAULT'
      const earlier = isDefault ? undefined : headers.get(name)
      if (earlier) problem(`the section [${name}] is there twice, first in line ${earlier.line}; put both into one`)
      else headers.set(name, place())
      section = { name, place: place(), entries: isDefault ? defaults : new Map<string, OpenEntry>() }
      if (!isDefault) sections.push(section)
      entry = undefined
      return
    }
    if (!section) {
      if (!lost) problem('there is text before the first [section]; put the section\'s header above it')
      lost = true
      return
    }
    const split = stripped.search(/[=:]/u)
    if (split === -1) {
      problem('this is neither "[section]" nor "key: value"; a value\'s further lines are indented deeper than its key')
      return
    }
    const written = strip(stripped.slice(0, split))
    const key = written.toLowerCase()
    const value = strip(stripped.slice(split + 1))
    const column = value === '' ? indent + split + 2 : indent + split + 2 + indentOf(stripped.slice(split + 1))
    entry = { key, written, place: place(), lines: [{ text: value, line, column }] }
    const earlier = section.entries.get(key)
    if (key === '') problem('there is no key before the separator; write "key: value"')
    else if (earlier) problem(`"${written}" is there twice, first in line ${earlier.place.line}; keep one of the two`)
    else section.entries.set(key, entry)
  })

  for (const entries of [defaults, ...sections.map((each) => each.entries)]) {
    for (const { lines } of entries.values()) {
      while (lines.length > 1 && lines.at(-1)?.text === '') lines.pop()
    }
  }
  return { file, defaults, sections, problems }
}

/** The value as configparser gives it without interpolation. */
export function rawValue(entry: Entry): string {
  return entry.lines.map((line) => line.text).join('\n')
}

/** A section's entries by key, with those of `[DEFAULT]` that it does not set itself. */
export function entriesOf(section: IniSection, ini: Ini): ReadonlyMap<string, Entry> {
  return new Map([...ini.defaults, ...section.entries])
}
