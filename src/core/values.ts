/**
 * The values that stand in lematt.conf and actions.conf: `%` as configparser treats it, booleans, numbers,
 * words and lists. A value remembers where each of its characters stands, so that every complaint has a place.
 */
import { parseDocument } from 'yaml'
import type { Entry } from './ini.js'
import { cleanLine } from './text.js'
import type { Place, Problem } from './types.js'

/** The text of a value with `%%` read as `%`. */
export interface Value {
  /** The key as it stands in the file, for messages. */
  readonly key: string
  readonly text: string
  /** Where the character at `offset` of `text` stands in the file. */
  readonly placeAt: (offset: number) => Place
}

export type Parsed<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly problem: Problem }

const good = <T>(value: T): Parsed<T> => ({ ok: true, value })

/** A complaint about `value`, at the character `offset` of its text. */
export function bad(value: Value, message: string, offset = 0): { readonly ok: false; readonly problem: Problem } {
  return { ok: false, problem: { place: value.placeAt(offset), message: `${value.key}: ${message}` } }
}

/**
 * The value of an entry as configparser's interpolation leaves it: `%%` is `%`. `%(` would insert another
 * value there, which no file needs, so it is a problem; any other `%` stands for itself (Python refuses it,
 * and makes `date +%F` needlessly hard).
 */
export function unpercent(entry: Entry): { readonly value: Value; readonly problems: readonly Problem[] } {
  const problems: Problem[] = []
  const lines = entry.lines.map(({ text, line, column }) => {
    const dropped: number[] = []
    const plain = text.replace(/%[%(]/gu, (pair, offset: number) => {
      if (pair === '%%') {
        dropped.push(offset + 1 - dropped.length)
        return '%'
      }
      const message = `${entry.written}: "%(" would insert another value, which lematt does not do; `
        + 'write "%%(" for a plain "%("'
      problems.push({ place: { file: entry.place.file, line, column: column + offset }, message })
      return pair
    })
    return { text: plain, dropped, line, column }
  })
  const placeAt = (offset: number): Place => {
    let rest = offset
    let at = lines[0]
    for (const each of lines) {
      at = each
      if (rest <= each.text.length) break
      rest -= each.text.length + 1
    }
    const { text, dropped, line, column } = at ?? { text: '', dropped: [], ...entry.place }
    const within = Math.min(rest, text.length)
    return { file: entry.place.file, line, column: column + within + dropped.filter((each) => each <= within).length }
  }
  return { value: { key: entry.written, text: lines.map(({ text }) => text).join('\n'), placeAt }, problems }
}

const booleans = new Map([
  ['1', true], ['yes', true], ['true', true], ['on', true],
  ['0', false], ['no', false], ['false', false], ['off', false],
])

/** yes/no, true/false, on/off, 1/0 in any case. */
export function parseBoolean(value: Value): Parsed<boolean> {
  const found = booleans.get(value.text.toLowerCase())
  return found === undefined ? bad(value, `${shown(value)} is neither yes nor no; write one of the two`) : good(found)
}

/** A decimal number between `least` and `most`, both included; `whole` allows no fraction. */
export function parseNumber(value: Value, least: number, most: number, whole = false): Parsed<number> {
  const pattern = whole ? /^\d+$/u : /^\+?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?$/iu
  const number = pattern.test(value.text) ? Number(value.text) : Number.NaN
  if (number >= least && number <= most) return good(number)
  return bad(value, `${shown(value)} is not a ${whole ? 'whole ' : ''}number from ${least} to ${most}`)
}

/** Blank-separated words with the offset of each in the value's text. Over several lines too. */
export function wordsOf(value: Value): { readonly word: string; readonly offset: number }[] {
  return [...value.text.matchAll(/\S+/gu)].map((match) => ({ word: match[0], offset: match.index }))
}

/** One line without control characters, as paths, tags and URLs must be. */
export function parseLine(value: Value): Parsed<string> {
  const at = value.text.search(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/u)
  if (at === -1) return good(value.text)
  return bad(value, value.text[at] === '\n' ? 'it has to stand on one line' : 'it holds a control character', at)
}

const example = 'as in ["service nginx reload", "ssh mail-reload"]'

/** A JSON array of strings (RFC 8259), which may span lines. */
export function parseStringList(value: Value): Parsed<readonly string[]> {
  if (!value.text.startsWith('[')) return bad(value, `a list of strings in JSON belongs here, ${example}`)
  let json: unknown
  try {
    json = JSON.parse(value.text)
  } catch (error) {
    return notJson(value, error)
  }
  if (!Array.isArray(json)) return bad(value, `a list of strings in JSON belongs here, ${example}`)
  const list: readonly unknown[] = json
  const wrong = list.findIndex((each) => typeof each !== 'string')
  if (wrong !== -1) {
    const offset = layout(value.text).items[wrong]?.offset
    return bad(value, 'each entry of the list is a string in double quotes', offset)
  }
  const strings = list as readonly string[]
  const control = strings.findIndex((each) => /[\u0000-\u0008\u000b-\u001f\u007f]/u.test(each))
  if (control !== -1) {
    return bad(value, 'the entry holds a control character', layout(value.text).items[control]?.offset)
  }
  return good(strings)
}

// JSON.parse says that a text is wrong but not always where; the yaml package reads almost the same and does.
function notJson(value: Value, error: unknown): Parsed<never> {
  const { items, complaint } = layout(value.text)
  if (complaint) {
    return bad(value, `${complaint.message}; write a list of strings in JSON, ${example}`, complaint.offset)
  }
  const unquoted = items.find((item) => !item.quoted)
  if (unquoted) return bad(value, `put each entry of the list in double quotes, ${example}`, unquoted.offset)
  const comma = /,\s*\]\s*$/u.exec(value.text)
  if (comma) return bad(value, 'a comma stands after the last entry; take it out', comma.index)
  const position = / at position (\d+)/u.exec(error instanceof Error ? error.message : '')?.[1]
  return bad(value, `this is not a list of strings in JSON, ${example}`, position === undefined ? 0 : Number(position))
}

// What of yaml's nodes we look at: a scalar or collection has a range, a `key: value` pair one in its key.
interface ListNode {
  readonly range?: readonly number[]
  readonly type?: string
  readonly key?: { readonly range?: readonly number[] }
}

interface Layout {
  readonly items: readonly { readonly offset: number; readonly quoted: boolean }[]
  readonly complaint?: { readonly message: string; readonly offset: number }
}

// Where the entries of a list stand, and the first thing wrong with it as YAML. Beyond 100 kB, or 50 brackets
// deep, nobody needs the exact place and YAML would be slow.
function layout(text: string): Layout {
  if (text.length > 100_000 || /(?:[[{]\s*){50}/u.test(text)) return { items: [] }
  try {
    const document = parseDocument(text, { prettyErrors: false, schema: 'core', logLevel: 'silent' })
    const nodes = (document.contents as { readonly items?: readonly unknown[] } | null)?.items ?? []
    const items = (nodes as readonly ListNode[]).map(({ key, range, type }) => {
      return { offset: (range ?? key?.range)?.[0] ?? 0, quoted: type === 'QUOTE_DOUBLE' }
    })
    const [first] = [...document.errors].sort((a, b) => a.pos[0] - b.pos[0])
    if (!first) return { items }
    return { items, complaint: { message: inOurWords(first.code, first.message), offset: first.pos[0] } }
  } catch {
    return { items: [] }
  }
}

function inOurWords(code: string, message: string): string {
  if (message.includes('must end with a ]')) return 'the list is not closed with "]"'
  if (message.startsWith('Missing , or :')) return 'a comma is missing here'
  if (code === 'BAD_DQ_ESCAPE') return 'after a backslash only one of " \\ / b f n r t u can follow'
  if (message.includes('quote')) return 'a quote is not closed'
  return 'this does not belong into a list'
}

function shown(value: Value): string {
  return `"${cleanLine(value.text, 60)}"`
}
