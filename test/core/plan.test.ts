import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { failedAgain } from '../../src/core/backoff.js'
import { pruned } from '../../src/core/memory.js'
import { slotKey } from '../../src/core/names.js'
import { afterIssuing, deliverySubject, isNarrowedTo, orderSubject, planDeliveries, planOrders } from '../../src/core/plan.js'
import { receiptId, stepKeys, withReceipts } from '../../src/core/receipts.js'
import type { Delivery, Held, State } from '../../src/core/types.js'
import { configuration, held, inDays, now, section, subject } from '../helpers/held.js'

const authority = 'https://ca.example/directory (an account)'
const empty: State = { receipts: {}, orderFailures: {}, deliveryFailures: {}, hostFailures: {} }
const missing: Held['certificate'] = { state: 'missing' }
const names = (deliveries: readonly Delivery[]): [string, string[]][] =>
  deliveries.map(d => [d.section.name, d.certificates.map(h => `${h.name} ${h.keyType}`)])

describe('orders', () => {
  const of = configuration([section('default')])

  test('what is due, in the order of the inventory, each with its reason', () => {
    const inventory = [held('b.example', { certificate: missing }), held('ok.example'), held('a.example', { leaf: { notAfter: inDays(12), notBefore: inDays(-78) } })]
    const orders = planOrders({ authority, configuration: of, inventory, state: empty, now })
    assert.deepEqual(orders.map(o => [o.held.name, o.reason, o.newKey, o.parked]), [
      ['b.example', 'new: there is no certificate yet', false, undefined],
      ['a.example', 'renew: 12 days left of 90 days', false, undefined],
    ])
  })

  test('a file that may not be read is no reason for a new certificate: the order waits and says why', () => {
    const denied = { state: 'unreadable', why: 'EACCES: permission denied, open /k', denied: true } as const
    const damaged = { state: 'unreadable', why: 'no PEM' } as const
    const inventory = [held('a.example', { key: denied }), held('b.example', { certificate: denied }), held('c.example', { key: damaged })]
    const orders = planOrders({ authority, configuration: of, inventory, state: empty, now, narrowing: { only: new Set(['a.example', 'b.example', 'c.example']), force: true } })
    assert.deepEqual(orders.map(o => [o.held.name, o.parked !== undefined]), [['a.example', true], ['b.example', true], ['c.example', false]])
    assert.match(orders[0]?.parked?.why ?? '', /permission denied, open \/k: no new certificate .*chown/u)
  })

  test('a bar or failure of another CA or account means nothing, nor one that a clock ahead of ours has left', () => {
    const inventory = [held('a.example', { certificate: missing })]
    const until = inDays(5).toISOString()
    const parked = (state: State): boolean => planOrders({ configuration: of, inventory, state, authority, now })[0]?.parked !== undefined
    const bar = { until, message: 'too many', since: inDays(-0.1).toISOString(), authority }
    assert.equal(parked({ ...empty, accountBar: bar }), true)
    assert.equal(parked({ ...empty, accountBar: { ...bar, authority: 'https://other.example (an account)' } }), false)
    assert.equal(parked({ ...empty, accountBar: { ...bar, since: inDays(1).toISOString() } }), false)
    const failure = failedAgain(undefined, orderSubject(subject('a.example'), authority), 'too many', inDays(-0.1), new Date(until))
    assert.equal(parked({ ...empty, orderFailures: { 'a.example ec': failure } }), true)
    assert.equal(parked({ ...empty, orderFailures: { 'a.example ec': { ...failure, of: orderSubject(subject('a.example'), 'another') } } }), false)
  })

  test('--only takes a label, a NAME or any identifier, --force reissues what is not due', () => {
    const labelled = held('', { subject: subject('a.example b.example', 'web1') })
    const inventory = [labelled, held('c.example d.example'), held('e.example')]
    const only = (...words: string[]): string[] =>
      planOrders({ authority, configuration: of, inventory, state: empty, now, narrowing: { only: new Set(words), force: true } }).map(o => o.held.name)
    assert.deepEqual(only('web1'), ['web1'])
    assert.deepEqual(only('b.example'), ['web1'])
    assert.deepEqual(only('c.example_d.example'), ['c.example_d.example'])
    assert.deepEqual(only('d.example', 'e.example'), ['c.example_d.example', 'e.example'])
    assert.deepEqual(only('example'), [])
    assert.deepEqual(planOrders({ authority, configuration: of, inventory, state: empty, now, narrowing: { only: new Set(['web1']) } }), [], 'not due and not forced')
    assert.equal(isNarrowedTo(labelled, undefined), true)
  })

  test('what failed again and again is parked; --only overrides that, not what the CA said', () => {
    const one = held('a.example', { certificate: missing })
    const failing = (notBefore?: Date): State => {
      const once = failedAgain(undefined, orderSubject(one.subject, authority), 'refused', now)
      return { ...empty, orderFailures: { [slotKey(one)]: failedAgain(once, orderSubject(one.subject, authority), 'refused', now, notBefore) } }
    }
    const parked = (state: State, only?: string): string | undefined =>
      planOrders({ authority, configuration: of, inventory: [one], state, now, narrowing: only === undefined ? {} : { only: new Set([only]) } })[0]?.parked?.why
    assert.equal(parked(failing()), 'failed 2 times in a row: refused (to try it now: --only a.example)')
    assert.equal(parked(failing(), 'a.example'), undefined)
    assert.equal(parked(failing(inDays(1)), 'a.example'), 'failed 2 times in a row: refused')
    // The same NAME for other names, as a label has it: the record is void.
    const changed = held('', { subject: subject('a.example b.example', 'a.example'), certificate: missing })
    assert.equal(slotKey(changed), slotKey(one))
    assert.equal(planOrders({ authority, configuration: of, inventory: [changed], state: failing(inDays(1)), now })[0]?.parked, undefined)
  })

  test('a barred account parks every order until it may be asked again, also with --only', () => {
    const inventory = [held('a.example', { certificate: missing }), held('b.example', { certificate: missing })]
    const at = (until: Date): (string | undefined)[] =>
      planOrders({ authority, configuration: of, inventory, state: { ...empty, accountBar: { until: until.toISOString(), message: 'too many orders', since: now.toISOString(), authority } }, now, narrowing: { only: new Set(['a.example', 'b.example']) } })
        .map(o => o.parked?.why)
    assert.deepEqual(at(inDays(1)), ['too many orders', 'too many orders'])
    assert.deepEqual(at(now), [undefined, undefined])
    assert.deepEqual(at(inDays(9)), [undefined, undefined], 'longer than any limit: a clock that jumped')
  })

  test('a dry run sees the deliveries that will follow, but none for what is parked', () => {
    const inventory = [held('a.example', { certificate: missing }), held('b.example', { certificate: missing })]
    const state = { ...empty, orderFailures: { 'b.example ec': { count: 5, last: now.toISOString(), message: 'refused', of: orderSubject(subject('b.example'), authority) } } }
    const orders = planOrders({ authority, configuration: of, inventory, state, now })
    const shell = configuration([section('default', { update: ['reload'] })])
    assert.deepEqual(names(planDeliveries({ configuration: shell, inventory: afterIssuing(inventory, orders, now), state, now })), [['default', ['a.example ec']]])
  })
})

describe('deliveries', () => {
  const both = section('default', { uploadCerts: ['copy CERTS'], uploadKeys: ['copy KEYS'], update: ['reload'] })

  test('each certificate goes to the sections of its names, all to [every]; a section is named once', () => {
    const sections = [
      section('default', { update: ['default'] }), section('mail', { domains: ['mail.example'], update: ['mail'] }),
      section('web', { domains: ['web1'], update: ['web'] }), section('idle', { domains: ['nobody.example'], update: ['idle'] }), section('every', { update: ['every'] }),
    ]
    const inventory = [
      held('mail.example'), held('mail.example', { keyType: 'rsa' }), held('a.example mail.example'), held('', { subject: subject('mail.example b.example', 'web1') }), held('c.example'),
    ]
    assert.deepEqual(names(planDeliveries({ configuration: configuration(sections), inventory, state: empty, now })), [
      ['default', ['a.example_mail.example ec', 'c.example ec']],
      ['mail', ['mail.example ec', 'mail.example rsa', 'a.example_mail.example ec', 'web1 ec']],
      ['web', ['web1 ec']],
      ['every', ['mail.example ec', 'mail.example rsa', 'a.example_mail.example ec', 'web1 ec', 'c.example ec']],
    ])
  })

  test('what is no valid pair is never delivered', () => {
    const inventory = [
      held('a.example', { certificate: missing }), held('b.example', { leaf: { spki: 'of another key' } }), held('c.example', { leaf: { notAfter: now } }),
      held('d.example', { key: { state: 'unreadable', why: 'x' } }),
    ]
    assert.deepEqual(planDeliveries({ configuration: configuration([both]), inventory, state: empty, now }), [])
  })

  test('a section that only prepares has nothing to deliver', () => {
    assert.deepEqual(planDeliveries({ configuration: configuration([section('default', { prepare: ['open'] })]), inventory: [held()], state: empty, now }), [])
  })

  test('--only narrows the certificates, and overrides the back-off', () => {
    const inventory = [held('a.example'), held('b.example')]
    const failure = { count: 3, last: now.toISOString(), message: 'no route to host', of: deliverySubject(both) }
    const state = { ...empty, deliveryFailures: { default: failure } }
    const [all] = planDeliveries({ configuration: configuration([both]), inventory, state, now })
    assert.equal(all?.parked?.why, 'failed 3 times in a row: no route to host (to try it now: lematt deliver default)')
    assert.equal(all.reason, 'failed last time (2026-11-20 03:30 UTC): no route to host')
    const [one] = planDeliveries({ configuration: configuration([both]), inventory, state, now, narrowing: { only: new Set(['b.example']) } })
    assert.equal(one?.parked, undefined)
    assert.deepEqual(one?.certificates.map(h => h.name), ['b.example'])
    const changed = section('default', { ...both, update: ['reload --now'] })
    assert.equal(planDeliveries({ configuration: configuration([changed]), inventory, state, now })[0]?.parked, undefined, 'the operator changed a step')
  })

  test('the reason says whether it is new, renewed, an added step or unfinished', () => {
    const of = configuration([both])
    const [a, b] = [held('a.example'), held('b.example')]
    const reason = (receipts: State['receipts'], changed = of): string | undefined =>
      planDeliveries({ configuration: changed, inventory: [a, b], state: { ...empty, receipts }, now })[0]?.reason
    const give = (receipts: State['receipts'], keys: string[], certificates: Held[]): State['receipts'] =>
      keys.reduce((sum, key) => withReceipts(sum, 'default', key, certificates, now), receipts)
    const keys = ['uploadCerts copy CERTS', 'uploadKeys copy KEYS', 'update reload']
    assert.equal(reason({}), 'never delivered to this section')
    assert.equal(reason(give({}, keys, [a])), '1 of its certificates is new or renewed')
    assert.equal(reason(give(give({}, keys, [a]), keys.slice(0, 1), [b])), 'an earlier delivery was not finished')
    assert.equal(reason(give({}, keys, [a, b])), undefined, 'nothing is lacking')
    assert.equal(reason(give({}, keys, [a, b]), configuration([section('default', { ...both, update: ['reload', 'mail'] })])), 'step added: mail')
  })

  test('equal commands have receipts of their own, whatever they look like', () => {
    const keys = stepKeys('update', ['x', 'x', 'x #2', 'x'])
    assert.equal(new Set(keys).size, 4)
    assert.equal(keys[0], stepKeys('update', ['x'])[0], 'one that is doubled is not run again')
  })
})

test('pruned: failures of what is gone go; receipts of what is gone stay for as long as it may come back', () => {
  const kept = held('a.example')
  const of = configuration([section('default', { update: ['reload'] })])
  const failure = { count: 1, last: now.toISOString(), message: 'x', of: 'y' }
  const [long, lately] = [inDays(-101).toISOString(), inDays(-99).toISOString()]
  const state: State = {
    receipts: {
      default: { 'update reload': { [receiptId(kept)]: long, gone: long, away: lately }, 'update old': { x: long, y: lately } },
      mail: { 'update reload': { x: long } }, web: { 'update reload': { x: lately } },
    },
    orderFailures: { 'a.example ec': failure, 'gone.example ec': failure },
    deliveryFailures: { default: failure, mail: failure }, hostFailures: {},
    accountBar: { until: inDays(1).toISOString(), message: 'barred', since: now.toISOString(), authority },
  }
  assert.deepEqual(pruned(state, of, [kept], now), {
    receipts: {
      default: { 'update reload': { [receiptId(kept)]: long, away: lately }, 'update old': { y: lately } },
      web: { 'update reload': { x: lately } },
    },
    orderFailures: { 'a.example ec': failure }, deliveryFailures: { default: failure }, accountBar: state.accountBar, hostFailures: {},
  })
})

test('ten thousand subjects and two hundred sections are planned in well under two seconds', () => {
  const sections = [section('default', { uploadCerts: ['copy CERTS'], update: ['reload'] })]
  for (let s = 0; s < 198; s++) {
    const domains = Array.from({ length: 50 }, (_, i) => `host${s * 50 + i}.example`)
    sections.push(section(`s${s}`, { domains, uploadCerts: ['copy CERTS'], uploadKeys: ['copy KEYS'], update: ['reload'] }))
  }
  sections.push(section('every', { update: ['reload'] }))
  const inventory = Array.from({ length: 10_000 }, (_, i) => held(`host${i}.example alias${i}.example`))
  const before = process.cpuUsage() // other tests run beside this one
  const input = { configuration: configuration(sections), inventory, state: empty, now }
  assert.equal(planOrders({ ...input, authority }).length, 0)
  const deliveries = planDeliveries(input)
  const { user, system } = process.cpuUsage(before)
  const took = (user + system) / 1000
  let { receipts } = empty
  for (const { section: of, steps } of deliveries) for (const s of steps) receipts = withReceipts(receipts, of.name, s.key, s.certificates, now)
  assert.equal(planDeliveries({ ...input, state: pruned({ ...empty, receipts }, input.configuration, inventory, now) }).length, 0)
  assert.equal(deliveries.length, 200)
  assert.ok(took < 2000, `${Math.round(took)} ms`)
})
