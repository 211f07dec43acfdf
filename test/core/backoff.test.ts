import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { failedAgain, future, parkedUntil, saidUntil, waitHours } from '../../src/core/backoff.js'
import type { Failure } from '../../src/core/types.js'
import { inDays, now } from '../helpers/held.js'

const hours = (n: number): Date => inDays(n / 24)
const failure = (fields: Partial<Failure> = {}): Failure => ({ count: 4, last: now.toISOString(), message: 'refused', of: 'a.example', ...fields })

test('the first failure costs nothing, each further one doubles the wait, 16 hours is the most', () => {
  assert.deepEqual([0, 1, 2, 3, 4, 5, 6, 7, 1000, Infinity].map(waitHours), [0, 0, 1, 2, 4, 8, 16, 16, 16, 16])
})

test('it is parked until the wait is over, to the millisecond', () => {
  const until = parkedUntil(failure(), 'a.example', now)
  assert.deepEqual(until, new Date(hours(4).getTime() - 10 * 60_000), 'ten minutes of slack for cron')
  assert.ok(until)
  assert.deepEqual(parkedUntil(failure(), 'a.example', new Date(until.getTime() - 1)), until)
  assert.equal(parkedUntil(failure(), 'a.example', until), undefined)
})

test('what was not tried before, or has changed since, is not parked', () => {
  assert.equal(parkedUntil(undefined, 'a.example', now), undefined)
  assert.equal(parkedUntil(failure({ notBefore: hours(5).toISOString() }), 'a.example b.example', now), undefined)
  assert.equal(failedAgain(failure(), 'a.example b.example', 'again', now).count, 1, 'another thing begins anew')
  assert.equal(failedAgain(failure(), 'a.example', 'again', now).count, 5)
})

test('what the CA said counts, but no more than eight days and not from a clock that has jumped back since', () => {
  const said = (notBefore: Date, last = now): Failure => failure({ count: 1, last: last.toISOString(), notBefore: notBefore.toISOString() })
  assert.deepEqual(parkedUntil(said(inDays(7)), 'a.example', now), inDays(7))
  assert.equal(parkedUntil(said(inDays(30)), 'a.example', now), undefined)
  assert.equal(parkedUntil(said(inDays(-1), inDays(-2)), 'a.example', now), undefined)
  // Recorded two days ahead of what the clock says now, with an hour to wait: 49 hours would be too long.
  assert.equal(parkedUntil(said(hours(49), hours(48)), 'a.example', now), undefined)
  assert.equal(saidUntil(said(hours(49), hours(48)), now), undefined)
  assert.deepEqual(saidUntil(said(hours(1)), now), hours(1))
})

test('damaged instants park nothing', () => {
  assert.equal(parkedUntil(failure({ last: 'yesterday' }), 'a.example', now), undefined)
  assert.equal(parkedUntil(failure({ count: 1, notBefore: 'soon' }), 'a.example', now), undefined)
  assert.equal(future(new Date('never'), now), undefined)
})

test('a nightly run always tries, however often it failed and whatever the clock did; an hourly one waits at most 16 hours', () => {
  const offset = fc.integer({ min: -400 * 24 * 60, max: 400 * 24 * 60 })
  fc.assert(fc.property(fc.nat(200), offset, (count, minutesSince) => {
    const last = new Date(now.getTime() - minutesSince * 60_000)
    const until = parkedUntil(failure({ count, last: last.toISOString() }), 'a.example', now)
    if (minutesSince >= 16 * 60 || minutesSince < 0) assert.equal(until, undefined)
    if (until !== undefined) {
      assert.ok(until > now && until.getTime() - last.getTime() <= 16 * 3_600_000)
      assert.ok(count >= 2)
    }
  }))
})
