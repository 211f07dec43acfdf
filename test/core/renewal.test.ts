import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { ageRuleTooLate, deliverable, due, formatDays, lifetimeMs, reauthorizeWindow, ruleWarning } from '../../src/core/renewal.js'
import type { Leaf } from '../../src/core/types.js'
import { dayMs, held, inDays, now, settings, type HeldOptions } from '../helpers/held.js'

const reason = (options: HeldOptions, changed: Partial<typeof settings> = {}, names = 'a.example', at = now): string | undefined =>
  due(held(names, options), { ...settings, ...changed }, at)?.reason

/** A certificate that began at `now` and lives for so many days (both ends included). */
const fresh = (days: number): Partial<Leaf> => ({ notBefore: now, notAfter: new Date(now.getTime() + days * dayMs - 1000) })
const after = (days: number): Date => inDays(days)

describe('what is due, and why', () => {
  test('a healthy certificate is not due', () => {
    assert.equal(due(held(), settings, now), undefined)
    assert.equal(due(held('a.example', { keyType: 'rsa' }), settings, now), undefined)
  })

  test('missing or unreadable files', () => {
    assert.equal(reason({ certificate: { state: 'missing' } }), 'new: there is no certificate yet')
    assert.equal(reason({ certificate: { state: 'unreadable', why: 'no PEM certificate in it' } }), 'reissue: the certificate file is unreadable: no PEM certificate in it')
    assert.equal(reason({ key: { state: 'missing' } }), 'reissue: the key file is missing')
    assert.equal(reason({ key: { state: 'unreadable', why: 'the file is empty' } }), 'reissue: the key file is unreadable: the file is empty')
  })

  test('names that were added or dropped are named; another order is no change', () => {
    assert.equal(reason({ leaf: { identifiers: ['a.example'] } }, {}, 'a.example b.example'), 'reissue: the certificate is without b.example')
    assert.equal(reason({ leaf: { identifiers: ['a.example', 'c.example'] } }), 'reissue: the certificate is with c.example')
    assert.equal(reason({ leaf: { identifiers: ['a.example', 'c.example'] } }, {}, 'a.example b.example'), 'reissue: the certificate is without b.example and with c.example')
    assert.equal(reason({ leaf: { identifiers: ['b.example', 'a.example'] } }, {}, 'a.example b.example'), undefined)
  })

  test('a key of another type or size, in the certificate or in the key file', () => {
    assert.match(reason({ leaf: { keyType: 'rsa', rsaBits: 2048 } }) ?? '', /^reissue: the certificate has a key of another type than ec$/u)
    assert.equal(reason({}, { curve: 'secp384r1' }), 'reissue: the certificate has curve prime256v1, not secp384r1')
    assert.equal(reason({ keyType: 'rsa' }, { keyBitsRSA: 4096 }), 'reissue: the certificate has 2048 bits, not 4096')
    assert.equal(
      reason({ keyType: 'rsa', leaf: { rsaBits: 2048 }, key: { state: 'read', facts: { keyType: 'rsa', rsaBits: 1024, spki: 'other' } } }),
      'reissue: the key file has 1024 bits, not 2048',
    )
    assert.equal(reason({ leaf: { spki: 'of another key' } }), 'reissue: certificate and key file do not belong together')
  })

  test('a new key is made when the old one cannot serve, or by rule; else it is kept', () => {
    const newKey = (options: HeldOptions, changed: Partial<typeof settings> = {}): boolean | undefined =>
      due(held('a.example', options), { ...settings, ...changed }, now)?.newKey
    assert.equal(newKey({ certificate: { state: 'missing' } }), false, 'a good key without certificate is used')
    assert.equal(newKey({ leaf: { spki: 'of another key' } }), false)
    assert.equal(newKey({ leaf: { notAfter: inDays(1) } }), false)
    assert.equal(newKey({ leaf: { notAfter: inDays(1) } }, { alwaysGenerateNewKeys: true }), true)
    assert.equal(newKey({ key: { state: 'missing' } }), true)
    assert.equal(newKey({ key: { state: 'unreadable', why: 'x' } }), true)
    assert.equal(newKey({}, { curve: 'secp384r1' }), true)
    assert.equal(newKey({ certificate: { state: 'missing' }, key: { state: 'read', facts: { keyType: 'other', spki: 'ed25519' } } }), true)
  })

  test('expired from the very instant of notAfter on', () => {
    assert.match(reason({ leaf: { notAfter: now } }) ?? '', /^renew: expired 0 minutes ago$/u)
    assert.match(reason({ leaf: { notAfter: inDays(-3) } }) ?? '', /^renew: expired 3 days ago$/u)
    assert.match(reason({ leaf: { notAfter: new Date(now.getTime() + 1) } }) ?? '', /^renew: 0 minutes left of 10 days$/u)
  })

  test('a clock that jumped back: a certificate from the future is not due', () => {
    for (const changed of [{}, { reauthorizeDays: 60 }, { generateNewCertsAfterDays: 30 }]) {
      assert.equal(reason({ leaf: { notBefore: inDays(300), notAfter: inDays(390) } }, changed), undefined)
    }
  })
})

describe('the renewal rule', () => {
  /** The first millisecond, counted from notBefore, at which a certificate of so many days is due. */
  function dueAt(days: number, changed: Partial<typeof settings> = {}): number {
    let low = 0
    let high = days * dayMs
    while (high - low > 1) {
      const middle = Math.floor((low + high) / 2)
      if (reason({ leaf: fresh(days) }, changed, 'a.example', new Date(now.getTime() + middle)) === undefined) low = middle
      else high = middle
    }
    return high
  }
  // A lifetime counts both its ends, so notAfter is a second before its full length.
  const second = 1000

  test('a third of the lifetime is left, or half of it below ten days', () => {
    assert.equal(dueAt(90), 60 * dayMs - second)
    assert.equal(dueAt(45), 30 * dayMs - second)
    assert.equal(dueAt(6), 3 * dayMs - second)
    assert.equal(dueAt(10), Math.ceil(10 * dayMs * 2 / 3 - second), 'ten days are not short')
    assert.equal(dueAt(10 - second / dayMs), Math.ceil(5 * dayMs - second - 500), 'a second less is')
  })

  test('reauthorizeDays before expiry, with fractions', () => {
    assert.equal(dueAt(90, { reauthorizeDays: 20 }), 70 * dayMs - second)
    assert.equal(dueAt(90, { reauthorizeDays: 2.5 }), 87.5 * dayMs - second)
    assert.equal(reason({ leaf: fresh(90) }, { reauthorizeDays: 20 }, 'a.example', after(75)), 'renew: 15 days left of 90 days')
  })

  test('reauthorizeDays is cut to 2/3 of the lifetime, 1/2 of a short one, and says so', () => {
    assert.equal(dueAt(45, { reauthorizeDays: 60 }), 15 * dayMs - second)
    assert.equal(dueAt(6, { reauthorizeDays: 60 }), 3 * dayMs - second)
    const leaf = (days: number): Leaf => {
      const { certificate } = held('a.example', { leaf: fresh(days) })
      assert.ok(certificate.state === 'read')
      return certificate.leaf
    }
    assert.deepEqual(reauthorizeWindow(leaf(90), 60), { ms: 60 * dayMs, cut: false }, 'exactly 2/3 is not cut')
    assert.deepEqual(reauthorizeWindow(leaf(90), 60.001), { ms: 60 * dayMs, cut: true })
    assert.equal(ruleWarning(leaf(90), { ...settings, reauthorizeDays: 60 }), undefined)
    assert.match(ruleWarning(leaf(45), { ...settings, reauthorizeDays: 60 }) ?? '', /^reauthorizeDays: 60 is cut to 30 days for a lifetime of 45 days/u)
    assert.equal(lifetimeMs(leaf(45)), 45 * dayMs)
  })

  test('reauthorizeDays 0 is off: at expiry would be too late', () => {
    assert.equal(dueAt(90, { reauthorizeDays: 0 }), 60 * dayMs - second)
  })

  test('generateNewCertsAfterDays counts from notBefore and wins over reauthorizeDays', () => {
    assert.equal(dueAt(90, { generateNewCertsAfterDays: 30, reauthorizeDays: 10 }), 30 * dayMs)
    assert.equal(dueAt(6, { generateNewCertsAfterDays: 0.5, reauthorizeDays: 5 }), 0.5 * dayMs)
    assert.equal(reason({ leaf: fresh(90) }, { generateNewCertsAfterDays: 30 }, 'a.example', after(31)), 'renew: 31 days old, the rule is 30 days')
  })

  test('an age at which nine tenths of the lifetime are over is too late: the default rule holds, with a warning', () => {
    assert.equal(dueAt(90, { generateNewCertsAfterDays: 81 }), 81 * dayMs)
    assert.equal(dueAt(90, { generateNewCertsAfterDays: 82, reauthorizeDays: 1 }), 60 * dayMs - second)
    const { certificate } = held('a.example', { leaf: fresh(45) })
    assert.ok(certificate.state === 'read')
    assert.equal(ageRuleTooLate(certificate.leaf, 60), true)
    assert.match(ruleWarning(certificate.leaf, { ...settings, generateNewCertsAfterDays: 60 }) ?? '', /too late for a lifetime of 45 days; the default rule is used/u)
    assert.equal(ruleWarning(certificate.leaf, { ...settings, generateNewCertsAfterDays: 30, reauthorizeDays: 60 }), undefined)
  })

  test('with any settings and lifetime, fresh is never due, and it is due before it expires', () => {
    const days = fc.double({ min: 0, max: 36_500, noNaN: true })
    const lifetime = fc.oneof(fc.double({ min: 0.1, max: 20, noNaN: true }), fc.double({ min: 20, max: 4000, noNaN: true }))
    fc.assert(fc.property(fc.option(days, { nil: undefined }), fc.oneof(fc.constant(0), days), lifetime, (reauthorizeDays, age, life) => {
      const changed = { ...(reauthorizeDays === undefined ? {} : { reauthorizeDays }), generateNewCertsAfterDays: age }
      const leaf = { ...fresh(life), notAfter: new Date(Math.floor(now.getTime() + life * dayMs)) }
      const moment = new Date(leaf.notAfter.getTime() - 1)
      // An age below the interval between runs is what the operator asked for (and is warned of).
      if (!(age > 0 && age < 0.01)) {
        assert.equal(reason({ leaf }, changed), undefined)
        assert.equal(reason({ leaf }, changed, 'a.example', new Date(now.getTime() + Math.min(0.01, life / 20) * dayMs - 1)), undefined)
      }
      // Less than a millisecond before expiry is no instant of ours.
      if (reauthorizeDays === undefined || age > 0 || reauthorizeDays === 0 || reauthorizeDays * dayMs >= 1) {
        assert.ok(reason({ leaf }, changed, 'a.example', moment) !== undefined)
      }
    }), { numRuns: 2000 })
  })
})

test('what may be delivered: a valid pair, due or not', () => {
  assert.equal(deliverable(held(), now), true)
  assert.equal(deliverable(held('a.example', { leaf: { notAfter: inDays(1) } }), now), true, 'due, but still the best there is')
  assert.equal(deliverable(held('a.example b.example', { leaf: { identifiers: ['a.example'] } }), now), true)
  assert.equal(deliverable(held('a.example', { leaf: { notAfter: now } }), now), false)
  assert.equal(deliverable(held('a.example', { leaf: { spki: 'of another key' } }), now), false)
  assert.equal(deliverable(held('a.example', { key: { state: 'missing' } }), now), false)
  assert.equal(deliverable(held('a.example', { certificate: { state: 'unreadable', why: 'x' } }), now), false)
})

test('durations are written as a person would', () => {
  const minute = 60_000
  const cases: [number, string][] = [
    [90 * dayMs, '90 days'], [10 * dayMs, '10 days'], [9.96 * dayMs, '10 days'], [6.66 * dayMs, '6.7 days'], [2 * dayMs, '2 days'],
    [47 * 60 * minute, '47 hours'], [24 * 60 * minute, '24 hours'], [120 * minute, '2 hours'], [119 * minute, '119 minutes'],
    [minute, '1 minute'], [0, '0 minutes'], [-5 * minute, '0 minutes'],
  ]
  for (const [ms, text] of cases) assert.equal(formatDays(ms), text)
})
