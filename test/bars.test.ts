import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Bars } from '../src/bars.js'
import { AcmeProblem } from '../src/core/errors.js'
import type { Order } from '../src/core/types.js'
import { held, now } from './helpers/held.js'

const order = (name: string): Order => ({ held: held(name), reason: 'new', newKey: true })
const outage = new AcmeProblem({ type: 'serverInternal', status: 500, detail: 'it broke', retryAfterSeconds: 604_800 })
const yes = (): Promise<boolean> => Promise.resolve(true)
const no = (): Promise<boolean> => Promise.resolve(false)

test('one order that a healthy CA cannot serve stops nobody else, and its failure counts', async () => {
  const bars = new Bars(() => now)
  assert.deepEqual(await bars.meet(outage, order('a.example'), 'placed', yes), { blameless: false, subject: false })
  assert.equal(bars.holds(order('b.example')), undefined)
  bars.success()
  assert.equal((await bars.meet(outage, order('a.example'), 'placed', yes)).blameless, false)
  assert.equal((await bars.meet(outage, order('c.example'), 'placed', yes)).blameless, false)
  // Three in a row without a success between: whatever it says of itself, it serves nobody.
  assert.equal((await bars.meet(outage, order('d.example'), 'placed', yes)).blameless, true)
  assert.equal(bars.holds(order('e.example'))?.status, 'parked')
})

test('a CA that does not answer stops new orders at once, without a time', async () => {
  const bars = new Bars(() => now)
  const first = order('a.example')
  assert.equal((await bars.meet(outage, first, 'placed', no)).blameless, true)
  assert.deepEqual(bars.bar, { message: 'it broke (serverInternal)' })
  assert.equal(bars.metBefore(first), false)
  assert.equal(bars.metBefore(order('b.example')), true)
  const parked = bars.holds(order('b.example'))
  assert.ok(parked?.status === 'parked')
  assert.equal(parked.message, 'not tried, for the same reason as a.example ec')
})

test('a name on which newOrder chokes stops nobody; two in a row are an outage', async () => {
  const bars = new Bars(() => now)
  for (let night = 0; night < 3; night++) {
    assert.deepEqual(await bars.meet(outage, order('a.example'), 'placing', yes), { blameless: true, subject: true })
    assert.equal(bars.holds(order('b.example')), undefined)
    bars.success()
  }
  await bars.meet(outage, order('a.example'), 'placing', yes)
  await bars.meet(outage, order('b.example'), 'placing', yes)
  assert.equal(bars.holds(order('c.example'))?.status, 'parked')
})

test('a limit on a registered domain holds for every order under it, and for no other', async () => {
  const bars = new Bars(() => now)
  const problem = new AcmeProblem({ type: 'rateLimited', status: 429, retryAfterSeconds: 3600, detail: 'too many certificates (50) already issued for "example.com" in the last 168h0m0s' })
  const notBefore = new Date(now.getTime() + 3_600_000)
  assert.deepEqual(await bars.meet(problem, order('www.example.com'), 'placing', yes), { blameless: false, subject: true, notBefore })
  for (const name of ['example.com', 'mail.example.com']) {
    const outcome = bars.holds(order(name))
    assert.ok(outcome?.status === 'failed')
    assert.equal(outcome.message, 'not tried: the limit on example.com that www.example.com ec met')
    assert.deepEqual(outcome.notBefore, notBefore)
  }
  assert.equal(bars.holds(order('myexample.com')), undefined)
  assert.equal(bars.holds(order('example.org')), undefined)
  assert.equal(bars.bar, undefined)
})

test('too many failed authorizations for a name hold for this name alone', async () => {
  const bars = new Bars(() => now)
  const problem = new AcmeProblem({ type: 'rateLimited', status: 429, retryAfterSeconds: 720, detail: 'too many failed authorizations (5) for "example.com" in the last 1h0m0s' })
  await bars.meet(problem, order('example.com'), 'placing', yes)
  assert.equal(bars.holds(order('www.example.com')), undefined)
  assert.equal(bars.holds(order('example.com'))?.status, 'failed')
})

test('a limit of the account after an outage: the longest wait, with its own message', async () => {
  const bars = new Bars(() => now)
  await bars.meet(outage, order('a.example'), 'placing', no)
  const limit = (seconds: number): AcmeProblem => new AcmeProblem({ type: 'rateLimited', status: 429, retryAfterSeconds: seconds, detail: 'too many new orders (300) from this account' })
  await bars.meet(limit(7200), order('b.example'), 'placing', yes)
  await bars.meet(limit(60), order('c.example'), 'placing', yes)
  assert.deepEqual(bars.bar, { message: 'too many new orders (300) from this account (rateLimited)', until: new Date(now.getTime() + 7_200_000) })
})
