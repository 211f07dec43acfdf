import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test, type TestContext } from 'node:test'
import fc from 'fast-check'
import { planDeliveries, planOrders } from '../../src/core/plan.js'
import { pruned } from '../../src/core/memory.js'
import type { State } from '../../src/core/types.js'
import { loadState, saveFailures, saveReceipts } from '../../src/edge/store.js'
import { configuration, held, now, section } from '../helpers/held.js'
import { hidden, modeOf, temporaryStore } from '../helpers/store.js'

const empty: State = { receipts: {}, orderFailures: {}, deliveryFailures: {}, hostFailures: {} }
const failure = { count: 2, last: now.toISOString(), message: 'refused', of: 'a.example', notBefore: now.toISOString() }
const full: State = {
  receipts: { default: { 'update reload': { abc: now.toISOString() } } },
  orderFailures: { 'a.example ec': failure },
  deliveryFailures: { default: failure },
  hostFailures: { 'mx1 mail': failure },
  accountBar: { until: now.toISOString(), message: 'too many', since: now.toISOString(), authority: 'a CA' },
}

async function place(t: TestContext): Promise<{ directory: string; receipts: string; failures: string; hidden: () => string[] }> {
  const paths = await temporaryStore(t)
  return { directory: paths.state, receipts: join(paths.state, 'receipts.json'), failures: join(paths.state, 'failures.json'), hidden: () => hidden(paths) }
}

/** Nothing that loads may break the plan. */
function isUsable(state: State): void {
  const of = configuration([section('default', { uploadCerts: ['copy CERTS'], update: ['reload'] })])
  const inventory = [held('a.example', { certificate: { state: 'missing' } }), held('b.example')]
  planOrders({ authority: 'a CA', configuration: of, inventory, state, now })
  planDeliveries({ configuration: of, inventory, state, now })
  pruned(state, of, inventory, now)
}

test('what is saved is loaded again, readable by the operator, with no temp file', async t => {
  const { directory, receipts, failures, hidden: left } = await place(t)
  assert.deepEqual(await loadState(directory), { state: empty, warnings: [] }, 'nothing yet is no warning')
  await saveReceipts(directory, full.receipts)
  await saveFailures(directory, full)
  const { state, warnings } = await loadState(directory)
  assert.deepEqual(warnings, [])
  assert.deepEqual(JSON.parse(JSON.stringify(state)), JSON.parse(JSON.stringify(full)))
  assert.deepEqual([receipts, failures].map(modeOf), ['644', '644'])
  assert.ok(readFileSync(receipts, 'utf8').endsWith('\n'))
  assert.deepEqual(left(), [])
  await saveFailures(directory, empty)
  assert.equal((await loadState(directory)).state.accountBar, undefined, 'a bar that is over goes')
})

test('any receipts come back as they were, also with names that JavaScript gives a meaning', async t => {
  const { directory } = await place(t)
  const name = fc.oneof(fc.string(), fc.constantFrom('__proto__', 'constructor', 'toString'))
  await fc.assert(fc.asyncProperty(fc.array(fc.tuple(name, name, fc.string()), { maxLength: 5 }), async entries => {
    const receipts = Object.fromEntries(entries.map(([of, step, when]) => [of, Object.fromEntries([[step, Object.fromEntries([[step, when]])]])]))
    await saveReceipts(directory, receipts)
    const { state, warnings } = await loadState(directory)
    assert.deepEqual(warnings, [])
    assert.equal(JSON.stringify(state.receipts), JSON.stringify(receipts))
  }), { numRuns: 50 })
})

describe('a damaged file is a warning that names it and what follows, never a crash', () => {
  test('cut off at any byte', async t => {
    const { directory, receipts, failures } = await place(t)
    await saveReceipts(directory, full.receipts)
    await saveFailures(directory, full)
    for (const [path, consequence] of [[receipts, 'every certificate is delivered again'], [failures, 'earlier failures are forgotten']] as const) {
      const whole = readFileSync(path, 'utf8')
      for (let length = 0; length < whole.length - 1; length += 3) {
        writeFileSync(path, whole.slice(0, length))
        const { warnings } = await loadState(directory)
        assert.deepEqual(warnings, [`${path} is unreadable (damaged): ${consequence}`], `${length} of ${whole.length}`)
      }
      writeFileSync(path, whole)
    }
  })

  test('any JSON at all', async t => {
    const { directory, receipts, failures } = await place(t)
    const some = fc.oneof(fc.jsonValue(), fc.record({ version: fc.constantFrom(1, 2, '1'), data: fc.oneof(fc.jsonValue(), fc.record({
      orderFailures: fc.dictionary(fc.constant('a.example ec'), fc.oneof(fc.constant(failure), fc.jsonValue())), deliveryFailures: fc.dictionary(fc.constant('default'), fc.oneof(fc.constant(failure), fc.jsonValue())),
      accountBar: fc.oneof(fc.jsonValue(), fc.constant({ until: 'never', message: '', since: '', authority: '' })),
    })) }))
    await fc.assert(fc.asyncProperty(some, some, async (one, other) => {
      writeFileSync(receipts, JSON.stringify(one))
      writeFileSync(failures, JSON.stringify(other))
      const { state, warnings } = await loadState(directory)
      assert.ok(warnings.length <= 2)
      isUsable(state)
    }), { numRuns: 200 })
  })

  test('wrong shapes one by one', async t => {
    const { directory, failures } = await place(t)
    const wrong: unknown[] = [
      { ...full, orderFailures: { a: { ...failure, count: '2' } } }, { ...full, orderFailures: [] }, { orderFailures: {} }, { ...full, accountBar: {} },
      { ...full, accountBar: { until: 5, message: 'x', since: '', authority: '' } }, { ...full, deliveryFailures: { a: { ...failure, notBefore: 7 } } }, { ...full, deliveryFailures: { a: null } },
    ]
    for (const data of wrong) {
      writeFileSync(failures, JSON.stringify({ version: 1, data }))
      const { state, warnings } = await loadState(directory)
      assert.deepEqual(state, empty)
      assert.deepEqual(warnings, [`${failures} is unreadable (not of this form): earlier failures are forgotten`])
    }
  })

  test('one file is lost: the other one counts', async t => {
    const { directory, receipts, failures } = await place(t)
    await saveReceipts(directory, full.receipts)
    await saveFailures(directory, full)
    writeFileSync(receipts, '\u0000\u0000')
    const loaded = await loadState(directory)
    assert.deepEqual(loaded.state, { ...full, receipts: {} })
    assert.equal(loaded.warnings.length, 1)
    rmSync(failures)
    mkdirSync(failures)
    const { state, warnings } = await loadState(directory)
    assert.deepEqual(state, empty)
    assert.equal(warnings.length, 2)
    assert.match(warnings[1] ?? '', /failures\.json is unreadable \(EISDIR/u)
  })
})
