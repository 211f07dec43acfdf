import assert from 'node:assert/strict'
import test from 'node:test'
import fc from 'fast-check'
import { parseIni } from '../../src/core/ini.js'
import {
  parseBoolean, parseLine, parseNumber, parseStringList, type Parsed, unpercent, type Value, wordsOf,
} from '../../src/core/values.js'

/** The value of `key` in a section that holds just this text; its first line stands in line 2 from column 4. */
function value(text: string): Value {
  return read(text).value
}

function read(text: string): ReturnType<typeof unpercent> {
  const ini = parseIni(`[s]\nk: ${text}`, 'f')
  assert.deepEqual(ini.problems, [])
  const entry = ini.sections[0]?.entries.get('k')
  assert.ok(entry)
  return unpercent(entry)
}

/** `line:column message`, or the value of a good one. */
function result<T>(parsed: Parsed<T>): T | string {
  if (parsed.ok) return parsed.value
  const { place, message } = parsed.problem
  return `${place.line}:${place.column} ${message}`
}

test('%% is %, %( is an error at its place, any other % stands for itself', () => {
  assert.equal(value('date +%F 100%% %%(x) %').text, 'date +%F 100% %(x) %')
  assert.equal(value('%%%%').text, '%%')
  const { problems } = read('a %(b)s\n  c %% %(d)s')
  assert.deepEqual(problems.map(({ place }) => `${place.line}:${place.column}`), ['2:6', '3:8'])
  assert.match(problems[0]?.message ?? '', /^k: "%\(" would insert another value/)
})

test('places are those of the file, also after %% and on further lines', () => {
  const read = value('a%%b%%c\n    d%%e')
  assert.equal(read.text, 'a%b%c\nd%e')
  const at = Array.from(read.text, (_, offset) => read.placeAt(offset)).map(({ line, column }) => `${line}:${column}`)
  assert.deepEqual(at, ['2:4', '2:5', '2:7', '2:8', '2:10', '2:11', '3:5', '3:6', '3:8'])
  const { line, column } = read.placeAt(999)
  assert.deepEqual([line, column], [3, 9], 'beyond the end is the end')
})

test('booleans', () => {
  for (const yes of ['yes', 'true', 'ON', '1', 'Yes']) assert.equal(result(parseBoolean(value(yes))), true)
  for (const no of ['no', 'False', 'off', '0']) assert.equal(result(parseBoolean(value(no))), false)
  for (const odd of ['y', 'maybe', '2', 'yes please', '']) {
    assert.match(String(result(parseBoolean(value(odd)))), /^2:\d+ k: ".*" is neither yes nor no/)
  }
})

test('numbers', () => {
  const days = (text: string): number | string => result(parseNumber(value(text), 0, 1000))
  assert.deepEqual(['42.42', '3.5', '.5', '7.', '0', '1e2', '+4'].map(days), [42.42, 3.5, 0.5, 7, 0, 100, 4])
  for (const odd of ['-1', 'inf', 'nan', '0x10', '1_000', '1001', '3,5', '3 days', '1e999', '٣']) {
    assert.match(String(days(odd)), /is not a number from 0 to 1000$/, odd)
  }
  assert.match(String(result(parseNumber(value('1.5'), 1, 9, true))), /is not a whole number from 1 to 9$/)
})

test('words and lines', () => {
  const found = wordsOf(value('a  b\n   c')).map(({ word, offset }) => [word, offset])
  assert.deepEqual(found, [['a', 0], ['b', 3], ['c', 5]])
  assert.equal(result(parseLine(value('/srv/a b'))), '/srv/a b')
  assert.equal(result(parseLine(value('/srv\n  /x'))), '2:8 k: it has to stand on one line')
  assert.equal(result(parseLine(value('/srv/\u0007x'))), '2:9 k: it holds a control character')
})

test('lists of strings in JSON, over lines and with comments between', () => {
  const list = (text: string): unknown => result(parseStringList(value(text)))
  assert.deepEqual(list('["service nginx reload", "x \\"y\\" \\u00e9 %%"]'), ['service nginx reload', 'x "y" é %'])
  assert.deepEqual(list('[\n  "a",\n# why\n  "b",\n\n  ; and\n  "c # d"\n  ]'), ['a', 'b', 'c # d'])
  assert.deepEqual(list('[]'), [])
  assert.deepEqual(list('["a\\nb", "tab\\t"]'), ['a\nb', 'tab\t'])
})

test('what is not a list of strings has a place and says what to do', () => {
  const wrong: [string, RegExp][] = [
    ['service nginx reload', /^2:4 k: a list of strings in JSON belongs here, as in \["/],
    ['"service nginx reload"', /^2:4 k: a list of strings/],
    ['{"a": "b"}', /^2:4 k: a list of strings/],
    ['["a", "b"', /^2:13 k: the list is not closed with "\]"/],
    ['["a" "b"]', /^2:9 k: a comma is missing here/],
    ['["a", "b",]', /^2:13 k: a comma stands after the last entry/],
    ['[\n  "a",\n  \'b\'\n  ]', /^4:3 k: put each entry of the list in double quotes/],
    ['["a", b]', /^2:10 k: put each entry/],
    ['["a", 3]', /^2:10 k: each entry of the list is a string/],
    ['["a", ["b"]]', /^2:10 k: each entry of the list is a string/],
    ['[null]', /^2:5 k: each entry of the list is a string/],
    ['["a", "b\\q"]', /^2:\d+ k: after a backslash only/],
    ['["a"] x', /^2:10 k: this does not belong/],
    ['["a": "b"]', /^2:5 k: put each entry/],
    ['["a\n  b"]', /^2:\d+ k: this is not a list of strings in JSON/],
    ['["a", # b\n  "c"]', /^2:\d+ k: this is not a list of strings in JSON/],
    ['["a", "b\\u0000c"]', /^2:10 k: the entry holds a control character/],
    ['[&x "a", *x]', /^2:\d+ k: put each entry/],
    ['[!!str "a"]', /^2:\d+ k: this is not a list of strings in JSON/],
    ['['.repeat(5000), /^2:4 k: this is not a list/],
    [`${'['.repeat(5000)}${']'.repeat(5000)}`, /^2:4 k: each entry of the list is a string/],
  ]
  for (const [text, expected] of wrong) assert.match(String(result(parseStringList(value(text)))), expected, text)
})

test('no list crashes the reader, and what it takes is what JSON says', () => {
  const piece = fc.constantFrom(
    '[', ']', '"a"', '"', ',', ' ', '\n ', '{', '}', ':', '&a', '*a', '!x', '\\', '#', '%%', 'x', '1', '- ', '? ', '|',
  )
  fc.assert(fc.property(fc.array(piece, { maxLength: 20 }), (pieces) => {
    const ini = parseIni(`[s]\nk: [${pieces.join('')}`, 'f')
    const entry = ini.sections[0]?.entries.get('k')
    assert.ok(entry)
    const { value } = unpercent(entry)
    const parsed = parseStringList(value)
    if (parsed.ok) assert.deepEqual(parsed.value, JSON.parse(value.text))
    else assert.ok(parsed.problem.place.line >= 2 && parsed.problem.place.column >= 1)
  }), { numRuns: 500 })
})

test('a list written by JSON.stringify comes back as it was', () => {
  const string = fc.string({ unit: 'binary' }).filter((text) => !/[\u0000-\u0008\u000b-\u001f\u007f]/u.test(text))
  fc.assert(fc.property(fc.array(string, { maxLength: 5 }), (list) => {
    const written = JSON.stringify(list).replaceAll('%', '%%')
    assert.deepEqual(result(parseStringList(value(written))), list)
  }), { numRuns: 300 })
})
