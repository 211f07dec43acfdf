import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { clean, cleanLine, count } from '../../src/core/text.js'

test('terminal escapes go whole, and what they stood around stays', () => {
  assert.equal(clean('\u001b[1;31mred\u001b[0m\r\nnext\tline'), 'red\nnext\tline')
  assert.equal(clean('\u001b]0;new title\u0007here'), 'here')
  assert.equal(clean('\u001b]8;;http://evil.example\u001b\\click\u001b]8;;\u001b\\'), 'click')
  assert.equal(clean('a\rb\bc\u0000d'), 'abcd')
})

test('an escape without its end hides no more than its own line', () => {
  assert.equal(clean('\u001b]0;title without end\nthe error'), '\nthe error')
  assert.equal(clean('\u001b[12\nthe error'), '[12\nthe error')
})

test('what could reorder or break a line is gone: bidi marks, overrides and isolates, separators, C1', () => {
  assert.equal(clean('a\u202eb\u2066c\u200fd\u061ce\u2028f\u2029g\u009b1mh\ufeff'), 'abcdefg1mh')
  assert.equal(clean('Grüße 你好 🙂'), 'Grüße 你好 🙂')
})

test('whatever comes in, nothing that steers a terminal comes out', () => {
  const parts = fc.constantFrom('\u001b', '[', ']', '31', 'm', ';', '\u0007', '\\', '\r', '\n', '\u009b', '\u202e', 'x', '\u0000')
  fc.assert(fc.property(fc.oneof(fc.array(parts).map(p => p.join('')), fc.string({ unit: 'binary' })), text => {
    const out = clean(text)
    assert.doesNotMatch(out, /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/u)
    assert.equal(clean(out), out, 'once is enough')
    assert.doesNotMatch(cleanLine(text), /[\n\t]/u)
  }))
})

test('a hostile megabyte is cleaned in no time', () => {
  const before = performance.now()
  for (const text of ['\u001b['.repeat(500_000), '\u001b[' + '1'.repeat(1_000_000), '\u001b]'.repeat(500_000)]) clean(text)
  assert.ok(performance.now() - before < 2000)
})

test('cleanLine is one line, cut with an ellipsis exactly at the limit', () => {
  assert.equal(cleanLine(' a \n\n b\t c '), 'a b c')
  assert.equal(cleanLine('x'.repeat(10), 10), 'x'.repeat(10))
  assert.equal(cleanLine('x'.repeat(11), 10), `${'x'.repeat(9)}…`)
})

test('count has the singular for one alone', () => {
  assert.deepEqual([0, 1, 2].map(n => count(n, 'certificate')), ['0 certificates', '1 certificate', '2 certificates'])
  assert.equal(count(2, 'delivery', 'deliveries'), '2 deliveries')
})
