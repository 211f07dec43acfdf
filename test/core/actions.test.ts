import assert from 'node:assert/strict'
import test from 'node:test'
import fc from 'fast-check'
import { parseActions, type ParsedActions } from '../../src/core/actions.js'
import { parseDomains } from '../../src/core/domains.js'
import { subjectName } from '../../src/core/names.js'
import { identifiersRoutedTo, keyTypesOf, sectionsOf } from '../../src/core/routing.js'
import type { Problem, Subject } from '../../src/core/types.js'

const subjectsOf = (...lines: string[]): readonly Subject[] => {
  const parsed = parseDomains(lines.join('\n'), 'domains', subjectName)
  assert.deepEqual(parsed.problems, [])
  return parsed.subjects
}
const parse = (text: string, subjects?: readonly Subject[]): ParsedActions =>
  parseActions(text, 'actions.conf', subjects)
const lines = (problems: readonly Problem[]): string[] =>
  problems.map(({ place, message }) => `${place.line}:${place.column} ${message}`)

const ordinary = [
  '[every]',
  'uploadCerts: ["rsync -tL CERTS cm:"]',
  '[default]',
  'update: ["service nginx reload"]',
  '[mail]',
  'domains: Mail.example.com web-1',
  'prepare: ["ssh -t mail-forward http://example.com"]',
  'uploadKeys: ["a",',
  '  "b %%F"]',
].join('\n')

test('sections in delivery order: that of the file, [every] last', () => {
  const parsed = parse(ordinary)
  assert.deepEqual(lines([...parsed.problems, ...parsed.warnings]), [])
  assert.deepEqual(parsed.sections.map(({ name }) => name), ['default', 'mail', 'every'])
  assert.deepEqual(parsed.sections[1], {
    name: 'mail',
    place: { file: 'actions.conf', line: 5, column: 1 },
    domains: ['mail.example.com', 'web-1'],
    prepare: ['ssh -t mail-forward http://example.com'],
    uploadCerts: [],
    uploadKeys: ['a', 'b %F'],
    update: [],
    hosts: [],
    reload: [],
    verify: [],
    verifyAddress: {},
  })
  assert.equal(parsed.sections[0]?.domains, undefined)
})

test('identifiers go to the overrides that list them or to [default], and all to [every]', () => {
  const subjects = subjectsOf('example.com www mail', 'other.example', 'other.example x > web-1', 'mail.example.com')
  const { sections } = parse(`${ordinary}\n[two]\ndomains: www.example.com mail.example.com`, subjects)
  const routed = subjects.map((subject) => Object.fromEntries(
    sections.map((section) => [section.name, identifiersRoutedTo(section, subject, sections)])))
  assert.deepEqual(routed, [
    {
      default: ['example.com'], mail: ['mail.example.com'], two: ['www.example.com', 'mail.example.com'],
      every: ['example.com', 'www.example.com', 'mail.example.com'],
    },
    { default: ['other.example'], mail: [], two: [], every: ['other.example'] },
    { default: [], mail: ['other.example', 'x.other.example'], two: [], every: ['other.example', 'x.other.example'] },
    { default: [], mail: ['mail.example.com'], two: ['mail.example.com'], every: ['mail.example.com'] },
  ])
  assert.deepEqual(subjects.map((subject) => sectionsOf(subject, sections).map(({ name }) => name).join(' ')), [
    'default mail two every', 'default every', 'mail every', 'mail two every',
  ])
})

test('every identifier is routed to [every] and to [default] or an override, whatever the sections', () => {
  const subjects = subjectsOf('a.example b c', 'd.example', 'a.b.example > l1', 'e.example f > l2')
  const entries = ['a.example', 'b.a.example', 'd.example', 'l1', 'l2', 'f.e.example', 'nobody.example']
  const override = fc.subarray(entries, { minLength: 1 }).map((domains) => `domains: ${domains.join(' ')}`)
  fc.assert(fc.property(fc.array(override, { maxLength: 4 }), (overrides) => {
    const text = ['[default]', '[every]', ...overrides.flatMap((domains, i) => [`[o${i}]`, domains])].join('\n')
    const { sections, problems } = parse(text, subjects)
    assert.deepEqual(problems, [])
    for (const subject of subjects) {
      const routed = (name: (name: string) => boolean): string[] => sections.filter((each) => name(each.name))
        .flatMap((section) => identifiersRoutedTo(section, subject, sections))
      const toOverrides = new Set(routed((name) => name.startsWith('o')))
      const toDefault = new Set(routed((name) => name === 'default'))
      assert.deepEqual(routed((name) => name === 'every'), subject.identifiers)
      for (const each of subject.identifiers) assert.notEqual(toOverrides.has(each), toDefault.has(each))
    }
  }))
})

test('key types: a section says otherwise, sections that disagree are an error', () => {
  const subjects = subjectsOf('a.example b', 'c.example')
  const settings = { keyTypes: ['ec', 'rsa'] as const }
  const agreed = parse('[default]\n[x]\ndomains: b.a.example\nkeyTypes: ec\n[every]\n', subjects)
  assert.deepEqual(lines(agreed.problems), [])
  assert.deepEqual(subjects.map((subject) => keyTypesOf(subject, agreed.sections, settings)), [['ec'], ['ec', 'rsa']])
  const both = parse('[default]\nkeyTypes: rsa ec\n[every]\nkeyTypes: ec rsa rsa', subjects)
  assert.deepEqual(lines(both.problems), [], 'the order does not matter')
  assert.deepEqual(both.sections.map(({ keyTypes }) => keyTypes), [['ec', 'rsa'], ['ec', 'rsa']])

  const torn = parse('[every]\nkeyTypes: rsa\n[default]\n[x]\ndomains: b.a.example\nkeyTypes: ec', subjects)
  assert.deepEqual(lines(torn.problems), [
    '4:1 [every] and [x] want different keyTypes for a.example, which belongs to both; make them agree',
  ])
  const apart = parse('[default]\nkeyTypes: rsa\n[x]\ndomains: a.example b.a.example\nkeyTypes: ec', subjects)
  assert.deepEqual(lines(apart.problems), [], 'no subject belongs to both')
  assert.match(lines(parse('[default]\nkeyTypes: ec dsa').problems).join(), /^2:14 keyTypes: "dsa" is not a key type/)
})

test('rules of domains:', () => {
  const problem = (text: string): string => lines(parse(text).problems).join()
  assert.match(problem('[default]\ndomains: a.example'), /^2:1 domains: has no place in \[default\]/)
  assert.match(problem('[default]\n[every]\ndomains: a.example'), /^3:1 domains: has no place in \[every\]/)
  assert.match(problem('[default]\n[x]\nupdate: []'), /^2:1 \[x\] has no domains:/)
  assert.match(problem('[Default]\nupdate: []'), /did you mean \[default\]\?$/)
  assert.match(problem('[default]\n[x]\ndomains:'), /^3:1 domains: there is no value/)
  assert.match(problem('[default]\n[x]\ndomains: a.example $(x)'), /^3:20 domains: "\$\(x\)" is not a name/)
})

test('an entry that no subject has is a warning that suggests the nearest', () => {
  const subjects = subjectsOf('example.com mail', '*.w.example', 'a.example > web-1')
  const text = '[default]\n[x]\ndomains: mail.example.com mial.example.com x.w.example\n  web-2 elsewhere.org'
  const warnings = lines(parse(text, subjects).warnings)
  assert.deepEqual(warnings.map((each) => each.replace(/ domains: .*; /, ' ')), [
    '3:27 did you mean "mail.example.com"?', '3:44 did you mean "*.w.example"?', '4:3 did you mean "web-1"?',
    '4:9 add it there or take it out here',
  ])
  assert.deepEqual(parse(text).warnings, [], 'nothing is said when `domains` could not be read')
})

test('[default] missing is a warning, [DEFAULT] is another thing and gives values to all', () => {
  assert.match(lines(parse('').warnings).join(), /^1:1 the section \[default\] is missing/)
  const parsed = parse('[DEFAULT]\nupdate: ["all"]\n[x]\ndomains: a.example\n[y]\ndomains: b.example\nupdate: ["own"]')
  assert.match(lines(parsed.warnings).join(), /\[DEFAULT\] in capitals is another thing/)
  assert.deepEqual(parsed.sections.map(({ update }) => update), [['all'], ['own']])
})

test('what old files hold is accepted: must-staple with a warning, an empty command left out', () => {
  const parsed = parse('[default]\nocspStapleRequired: yes\nupdate: ["", "x", " "]')
  assert.deepEqual(parsed.problems, [])
  const warnings = lines(parsed.warnings).map((each) => each.split(' ', 2).join(' '))
  assert.deepEqual(warnings, ['2:1 ocspStapleRequired', '3:9 update:'])
  assert.deepEqual(parsed.sections[0]?.update, ['x'])
})

test('unknown keys, bad lists and bad names of sections, all at once', () => {
  const parsed = parse([
    '[default]', 'uplaod: ["x"]', 'updtae: ["x"]', 'uploadCerts: "x"', 'UPLOADKEYS: ["y"]',
    '[__proto__]', 'domains: a.example', '[a\u0007b]', 'domains: a.example',
  ].join('\n'))
  const found = lines(parsed.problems).sort()
  assert.deepEqual(found.map((each) => each.split(' ')[0]), ['2:1', '3:1', '4:14', '6:1', '8:1'])
  assert.match(found[1] ?? '', /unknown key "updtae"; did you mean "update"\?/)
  assert.deepEqual(parsed.sections[0]?.uploadKeys, ['y'], 'keys have no case')
})

test('no input crashes the reader', () => {
  const subjects = subjectsOf('example.com www', 'a.example > web-1')
  const piece = fc.constantFrom(
    '[default]', '[every]', '[x]', '\n', '\n', '\n  ', 'domains: ', 'update: ', 'keyTypes: ', 'prepare=', '["a"]',
    '["', '",',
    ']', 'ec', 'rsa', 'example.com ', 'web-1 ', '%(', '%%', '#', '\0', 'x', '[DEFAULT]',
  )
  fc.assert(fc.property(fc.array(piece, { maxLength: 30 }), (pieces) => {
    const parsed = parse(pieces.join(''), subjects)
    for (const subject of subjects) sectionsOf(subject, parsed.sections)
  }), { numRuns: 1000 })
})
