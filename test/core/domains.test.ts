import assert from 'node:assert/strict'
import test from 'node:test'
import fc from 'fast-check'
import { parseDomains, type ParsedDomains } from '../../src/core/domains.js'
import { subjectName } from '../../src/core/names.js'
import type { Problem } from '../../src/core/types.js'

const parse = (...lines: string[]): ParsedDomains => parseDomains(lines.join('\n'), 'domains', subjectName)
const identifiers = (parsed: ParsedDomains): string[] => parsed.subjects.map((subject) => subject.identifiers.join(' '))
const lines = (problems: readonly Problem[]): string[] =>
  problems.map(({ place, message }) => `${place.line}:${place.column} ${message}`)

test('one subject per line, comments, short words, folded repetitions', () => {
  const parsed = parse(
    '# a comment',
    'example.com www  # and one here',
    '',
    '   ',
    '  corp.example.com\tinternal hr INTERNAL corp.example.com',
    'bücher.example *.bücher.example * www',
    'ip.example 8.8.8.8 2606:4700:0::1',
    '8.8.4.4',
  )
  assert.deepEqual(lines(parsed.problems), [])
  assert.deepEqual(lines(parsed.warnings), [])
  assert.deepEqual(identifiers(parsed), [
    'example.com www.example.com',
    'corp.example.com internal.corp.example.com hr.corp.example.com',
    'xn--bcher-kva.example *.xn--bcher-kva.example www.xn--bcher-kva.example',
    'ip.example 8.8.8.8 2606:4700::1',
    '8.8.4.4',
  ])
  assert.deepEqual(parsed.subjects[1]?.place, { file: 'domains', line: 5, column: 3 })
})

test('a BOM and CRLF are accepted', () => {
  const parsed = parseDomains('\ufeffa.example\r\nb.example\r\n', 'domains', subjectName)
  assert.deepEqual(identifiers(parsed), ['a.example', 'b.example'])
})

test('labels name subjects, and allow the same names several times', () => {
  const parsed = parse('cdn.example.com www > web-1', 'cdn.example.com www > web_2.x', 'cdn.example.com > 3')
  assert.deepEqual(lines(parsed.problems), [])
  assert.deepEqual(lines(parsed.warnings), [], 'with labels it is meant')
  assert.deepEqual(parsed.subjects.map(({ label }) => label), ['web-1', 'web_2.x', '3'])
})

test('what is wrong with labels', () => {
  const cases: [string, RegExp][] = [
    ['a.example>x', /^1:1 ">" stands alone/], ['a.example >x', /^1:11 ">" stands alone/],
    ['a.example x>', /^1:11 ">" stands alone/], ['a.example >', /^1:11 there is no label/],
    ['> x', /^1:1 there is no name before/], ['a.example > x y', /^1:15 the label is the last/],
    ['a.example > x > y', /^1:15 the label is the last/], ['a.example > X', /^1:13 "X" cannot be a label/],
    ['a.example > -x', /cannot be a label/], ['a.example > x.y.', /cannot be a label/],
    ['a.example > .x', /cannot be a label/],
    ['a.example > x/y', /cannot be a label/],
    ['a.example > $(x)', /cannot be a label/], ['a.example > __proto__', /cannot be a label/],
    ['a.example > constructor', /cannot be a label/],
    [`a.example > ${'x'.repeat(101)}`, /cannot be a label/],
  ]
  for (const [line, expected] of cases) {
    const parsed = parse(line)
    assert.deepEqual(parsed.subjects, [], line)
    assert.equal(parsed.problems.length, 1, line)
    assert.match(lines(parsed.problems)[0] ?? '', expected, line)
  }
})

test('a label is unique, and not a name of another subject', () => {
  const twice = lines(parse('a.example > x', 'b.example > x').problems).join()
  assert.match(twice, /^2:1 this line would have the same files \(x\) as line 1/)
  const label = lines(parse('a.example b.example', 'c.example > b.example').problems).join()
  assert.match(label, /^2:1 the label "b\.example" is also a name of line 1/)
  assert.deepEqual(parse('a.example b.example > a.example').problems, [])
})

test('all problems of all lines at once, and no subject from a bad line', () => {
  const parsed = parse(
    'ok.example', 'a_b.example $(reboot) www', 'x.example ../etc 10.0.0.1', 'localhost', '8.8.8.8 www',
    '*.w.example www',
  )
  assert.deepEqual(identifiers(parsed), ['ok.example'])
  const places = lines(parsed.problems).map((each) => each.split(' ')[0])
  assert.deepEqual(places, ['2:1', '2:13', '3:11', '3:18', '4:1', '5:9', '6:13'])
  assert.match(lines(parsed.problems)[5] ?? '', /"www" would be a subdomain of 8\.8\.8\.8, which can have none/)
})

test('a hundred identifiers are the limit, counted after folding', () => {
  const names = Array.from({ length: 100 }, (_, i) => `h${i}`)
  assert.equal(parse(`example.com ${names.slice(1).join(' ')} h5 h6`).subjects[0]?.identifiers.length, 100)
  const parsed = parse(`example.com ${names.join(' ')}`)
  assert.deepEqual(parsed.subjects, [])
  assert.match(lines(parsed.problems).join(), /^1:1 101 identifiers on one line; a certificate holds up to 100/)
})

test('the same NAME twice is an error at the second place', () => {
  const parsed = parse('example.com www mail', '# between', 'Example.com mail www')
  assert.deepEqual(lines(parsed.problems), [
    '3:1 this line would have the same files (example.com_mail.example.com_www.example.com) as line 1; '
    + 'take one out, or give one a label with "> label"',
  ])
})

test('a name in two subjects is a warning that names both', () => {
  const parsed = parse('example.com mail', 'mail.example.com', 'mail.example.com > own')
  assert.deepEqual(lines(parsed.problems), [])
  assert.equal(parsed.warnings.length, 2)
  const both = /^2:1 mail\.example\.com stands in two subjects, (\S+) \(line 1\) and (\S+) \(line 2\)/
  const names = both.exec(lines(parsed.warnings)[0] ?? '')?.slice(1)
  assert.deepEqual(names, ['example.com_mail.example.com', 'mail.example.com'])
  assert.match(lines(parsed.warnings)[1] ?? '', /^3:1 .* and own \(line 3\)/)
})

test('no subject at all is a warning, not a problem', () => {
  for (const text of ['', '# nothing\n\n']) {
    const parsed = parse(text)
    assert.deepEqual(parsed.problems, [])
    assert.match(lines(parsed.warnings).join(), /^1:1 there is no subject/)
  }
  assert.deepEqual(parse('a_b.example').warnings, [], 'a broken line is told once')
})

test('no input crashes the reader, and its subjects keep their promises', () => {
  const piece = fc.constantFrom(
    'example.com', 'www', ' ', ' ', '\n', '\r', '>', ' > ', '#', '*', '.', '-', 'é', '$(x)', '8.8.8.8', '::',
    '\0', '\ufeff', 'x',
  )
  const word = fc.oneof(
    { weight: 4, arbitrary: fc.domain() }, fc.constantFrom('www', '*', 'é', '8.8.4.4', '__proto__'), piece, fc.ipV6(),
  )
  const line = fc.tuple(fc.domain(), fc.array(word, { maxLength: 3 }), fc.constantFrom('', '', ' > x', ' > $(y)', '#'))
    .map(([first, more, tail]) => [first, ...more].join(' ') + tail)
  const text = fc.oneof(
    fc.array(line, { maxLength: 4 }).map((lines) => lines.join('\n')),
    fc.array(piece, { maxLength: 30 }).map((pieces) => pieces.join('')),
    fc.string({ unit: 'binary' }),
  )
  let taken = 0
  fc.assert(fc.property(text, (typed) => {
    const { subjects } = parseDomains(typed, 'domains', subjectName)
    for (const { identifiers, label } of subjects) {
      taken++
      assert.equal(new Set(identifiers).size, identifiers.length)
      for (const each of identifiers) assert.match(each, /^(?:\*\.)?[a-z0-9][a-z0-9.:-]*$|^[0-9a-f:]+$/)
      if (label !== undefined) assert.match(label, /^[a-z0-9_][a-z0-9._-]*$/)
    }
  }), { numRuns: 1000 })
  assert.ok(taken > 100, `only ${taken} subjects`)
})
