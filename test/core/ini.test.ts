import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import test from 'node:test'
import fc from 'fast-check'
import { entriesOf, parseIni, rawValue, type Ini } from '../../src/core/ini.js'

const values = (ini: Ini, name: string): Record<string, string> => {
  const section = ini.sections.find((each) => each.name === name)
  assert.ok(section, `no section ${name}`)
  return Object.fromEntries([...entriesOf(section, ini)].map(([key, entry]) => [key, rawValue(entry)]))
}

const problems = (ini: Ini): string[] =>
  ini.problems.map(({ place, message }) => `${place.line}:${place.column} ${message}`)

test('keys, both separators, comments that are whole lines only, and continuations', () => {
  const ini = parseIni([
    '[Config]',
    'Key : value ; still the value # and this',
    'url = http://example.com/?a=b:c',
    '; a comment',
    'list: [',
    '    "a",',
    '    # a comment within',
    '    [not a section]',
    '',
    '    k: not a key',
    '',
    'last =',
  ].join('\n'), 'f')
  assert.deepEqual(problems(ini), [])
  assert.deepEqual(values(ini, 'Config'), {
    key: 'value ; still the value # and this',
    url: 'http://example.com/?a=b:c',
    list: '[\n"a",\n[not a section]\n\nk: not a key',
    last: '',
  })
})

test('every value line knows its place', () => {
  const ini = parseIni('[s]\n  key =   one\n     two\n', 'conf/x')
  const entry = ini.sections[0]?.entries.get('key')
  assert.deepEqual(entry?.place, { file: 'conf/x', line: 2, column: 3 })
  assert.deepEqual(entry.lines, [{ text: 'one', line: 2, column: 11 }, { text: 'two', line: 3, column: 6 }])
})

test('[DEFAULT] gives values to all sections, [default] is an ordinary one', () => {
  const ini = parseIni('[DEFAULT]\na: 1\nb: 2\n[default]\nb: 3\n[x]\n', 'f')
  assert.deepEqual(values(ini, 'default'), { a: '1', b: '3' })
  assert.deepEqual(values(ini, 'x'), { a: '1', b: '2' })
  assert.deepEqual(ini.sections.map((each) => each.name), ['default', 'x'])
})

test('a BOM and CRLF are accepted', () => {
  const ini = parseIni('\ufeff[s]\r\na: 1\r\n  2\r\n', 'f')
  assert.deepEqual(problems(ini), [])
  assert.deepEqual(values(ini, 's'), { a: '1\n2' })
})

test('all problems are reported at once, each at its place', () => {
  const ini = parseIni('lost: 1\n[s]\na: 1\nA = 2\n nonsense here\n]\n= x\n[s]\nb: 1\nwhat\n', 'f')
  assert.deepEqual(problems(ini).map((each) => each.split(' ')[0]), ['1:1', '4:1', '6:1', '7:1', '8:1', '10:1'])
  assert.match(problems(ini)[0] ?? '', /before the first \[section\]/)
  assert.match(problems(ini)[1] ?? '', /"A" is there twice, first in line 3/)
  assert.match(problems(ini)[2] ?? '', /indented deeper/)
  assert.match(problems(ini)[4] ?? '', /\[s\] is there twice, first in line 2/)
  assert.deepEqual(values(ini, 's'), { a: '1' }, 'the second of a pair must not win')
})

test('names that are special to JavaScript are ordinary', () => {
  const ini = parseIni('[__proto__]\n__proto__: 1\nconstructor: 2\n', 'f')
  assert.deepEqual([...(ini.sections[0]?.entries.keys() ?? [])], ['__proto__', 'constructor'])
})

test('no input crashes the reader', () => {
  fc.assert(fc.property(fc.string({ unit: 'binary', maxLength: 200 }), (text) => {
    const ini = parseIni(text, 'f')
    for (const section of ini.sections) entriesOf(section, ini)
  }))
})

// Pieces that collide often: few names, both separators, all kinds of indentation and blank.
const names = ['a', 'A', 'b', 'key', 'DEFAULT', 'default', 'x y', 'é', '__proto__']
const any = (options: readonly string[]): fc.Arbitrary<string> => fc.constantFrom(...options)
const indent = any(['', '', '', '', ' ', '  ', '\t', '    ', '\u00a0', '\u001c'])
const valueText = any([
  '', '1', '["a", "b"]', '[', '"c",', ']', 'x = y', 'a:b', '# no', 'v ; w', '%', '%%(x)', '\u2028x', 'x\u0085',
  '\ufeff',
  '=', ' [q]', 'é',
])
const tail = any(['', '', ' ', '\t', ' trailing', '\u001f'])
const joined = (...parts: fc.Arbitrary<string>[]): fc.Arbitrary<string> =>
  fc.tuple(...parts).map((each) => each.join(''))
const pair = joined(indent, any(names), any([':', '=', ' : ', ' = ', ':=', '=\t']), valueText, tail)
const line = fc.oneof(
  { weight: 5, arbitrary: pair },
  { weight: 2, arbitrary: joined(indent, any(['[']), any(names), any([']', ']', ']x', ' ]', '', ']]'])) },
  { weight: 3, arbitrary: joined(any(['  ', '\t\t', '     ']), valueText) },
  { weight: 1, arbitrary: joined(indent, any(['# c', ';c', '#', '; [x]', '#a: b'])) },
  { weight: 1, arbitrary: any(['', '', ' ', '\t', '[]', '[[]', '[]]', 'nonsense', ':', '= v']) },
)
// Valid ones need names that differ; broken ones come from chance.
const more = fc.oneof(any(['', '# c']), valueText.map((text) => `   ${text}`))
const entry = fc.tuple(joined(any([':', ' = ']), valueText), fc.array(more, { maxLength: 3 }))
const validSection = (name: string): fc.Arbitrary<string[]> => fc.tuple(
  fc.uniqueArray(any(['a', 'bb', 'c c', 'é']), { maxLength: 4 }),
  fc.array(entry, { minLength: 4, maxLength: 4 }),
).map(([keys, entries]) => [`[${name}]`, ...entries.flatMap(([text, rest], i) => {
  const key = keys[i]
  return key === undefined ? [] : [key + text, ...rest]
})])
const validFile = fc.uniqueArray(any(['s', 't', '[u', 'DEFAULT', 'v w']), { minLength: 1 })
  .chain((sections) => fc.tuple(...sections.map(validSection))).map((blocks) => blocks.flat())
const anyFile = fc.array(line, { maxLength: 12 })
const oneSection = fc.array(line, { maxLength: 6 }).map((lines) => ['[s]', ...lines])
const generatedFile = fc.tuple(fc.oneof(validFile, anyFile, oneSection), any(['\n', '\n', '\r\n', '\r']))
  .map(([lines, end]) => lines.join(end))

const python = `
import configparser, io, json, sys
out = []
for text in json.load(sys.stdin):
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_file(io.StringIO(text, newline=None))
        out.append([[name, sorted(parser.items(name))] for name in parser.sections()])
    except configparser.Error:
        out.append(None)
json.dump(out, sys.stdout)
`
const hasPython = spawnSync('python3', ['-c', 'import configparser']).status === 0

const skip = hasPython ? false : 'python3 is not here'

test('thousands of files are read as Python\'s configparser reads them', { skip }, () => {
  const files = fc.sample(generatedFile, { numRuns: 6000, seed: 20211 })
  const options = { input: JSON.stringify(files), maxBuffer: 1 << 28, encoding: 'utf8', timeout: 60_000 } as const
  const run = spawnSync('python3', ['-c', python], options)
  assert.equal(run.status, 0, run.stderr)
  const theirs = JSON.parse(run.stdout) as unknown[]
  const byCodePoint = (a: string, b: string): number => a < b ? -1 : 1
  const ours = files.map((text) => {
    const ini = parseIni(text, 'f')
    if (ini.problems.length > 0) return null
    return ini.sections.map((section) => [section.name, [...entriesOf(section, ini)]
      .map(([key, entry]) => [key, rawValue(entry)] as const).sort(([a], [b]) => byCodePoint(a, b))])
  })
  files.forEach((text, i) => assert.deepEqual(ours[i], theirs[i], JSON.stringify(text)))
  const accepted = ours.filter((each) => each !== null).length
  assert.ok(accepted > 1500 && files.length - accepted > 1500, `${accepted} accepted: both kinds must be many`)
})
