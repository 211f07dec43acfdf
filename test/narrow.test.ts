import assert from 'node:assert/strict'
import { test } from 'node:test'
import { UsageError } from '../src/core/errors.js'
import { isWanted } from '../src/core/plan.js'
import { namesAny, narrow } from '../src/narrow.js'
import { configuration, held, section, subject } from './helpers/held.js'

const [mail, every] = [section('Mail.Example.com', { domains: ['a.example'] }), section('every')]
const of = configuration([mail, every])
const inventory = [held('a.example'), held('', { subject: subject('b.example xn--bcher-kva.example', 'www') })]

test('--only takes a name as it is typed: any case, a final dot, Unicode, a label', () => {
  for (const [word, meant] of [['A.Example.', 'a.example'], ['B\u00dcCHER.example', 'xn--bcher-kva.example'], ['WWW', 'www'], ['www', 'www']] as const) {
    assert.deepEqual(narrow({ only: [word] }, inventory, of), { force: false, only: new Set([meant]) })
  }
  assert.throws(() => narrow({ only: ['nobody.example'] }, inventory, of), UsageError)
})

test('deliver: sections whole, subjects in all their sections; what is both means both', () => {
  const narrowing = narrow({ deliver: { targets: ['Mail.Example.com', 'b.example'], again: true } }, inventory, of)
  const wanted = [mail, every].map(s => inventory.map(h => isWanted(narrowing, s, h)))
  assert.deepEqual(wanted, [[true, true], [false, true]])
  const all = narrow({ deliver: { targets: [], again: false } }, inventory, of)
  assert.deepEqual([mail, every].map(s => inventory.map(h => isWanted(all, s, h))), [[true, true], [true, true]])
  const both = narrow({ deliver: { targets: ['a.example'], again: false } }, inventory, configuration([section('a.example', { domains: ['b.example'] }), every]))
  assert.deepEqual(both.deliver?.targets, { sections: new Set(['a.example']), subjects: new Set(['a.example']), hosts: new Set() })
  assert.throws(() => narrow({ deliver: { targets: ['mail'], again: false } }, inventory, of), /neither a section or host of actions\.conf nor a subject/u)
})

test('only what names something needs to be looked up', () => {
  assert.deepEqual([{}, { only: ['x'] }, { deliver: { targets: [], again: true } }, { deliver: { targets: ['x'], again: false } }].map(namesAny), [false, true, false, true])
})
