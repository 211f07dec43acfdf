import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AcmeProblem } from '../../src/core/errors.js'
import { limitOf } from '../../src/core/limits.js'

const now = new Date('2026-11-21T10:00:00Z')
const docs = 'see https://letsencrypt.org/docs/rate-limits/#new-orders-per-account'
type Fields = Partial<ConstructorParameters<typeof AcmeProblem>[0]>
const limit = (detail: string, fields: Fields = {}, identifiers: readonly string[] = ['www.shop.example.com']) =>
  limitOf(new AcmeProblem({ type: 'rateLimited', status: 429, detail, ...fields }), identifiers, now)

test('limits of the account', () => {
  const until = 'retry after 2026-11-21 11:00:00 UTC'
  assert.deepEqual(limit(`too many new orders (300) from this account in the last 3h0m0s, ${until}: ${docs}`),
    { scope: 'account', untilSeconds: 3600 })
  assert.deepEqual(limit(`too many new registrations (10) from this IP address in the last 3h0m0s, ${until}: ${docs}`),
    { scope: 'account', untilSeconds: 3600 })
  assert.deepEqual(limit('Your IP, 192.0.2.1, is over the rate limit of this service'), { scope: 'account' })
})

test('limits of names', () => {
  const named = (text: string, identifiers?: readonly string[]) =>
    limit(`${text} in the last 168h0m0s, retry after 2026-11-22 10:00:00 UTC: ${docs}`, {}, identifiers)
  const order = { scope: 'order', untilSeconds: 86_400 }
  assert.deepEqual(named('too many certificates (5) already issued for this exact set of identifiers'), order)
  assert.deepEqual(named('too many certificates (50) already issued for "example.com"'), { ...order, name: 'example.com' })
  assert.deepEqual(named('too many certificates (50) already issued for "2001:db8::/64"', ['2001:db8::1']), order)
  assert.deepEqual(named('too many failed authorizations (5) for "www.shop.example.com"'), { ...order, name: 'www.shop.example.com', exact: true })
})

test('a paused name has no time at which it helps to ask again', () => {
  assert.deepEqual(limit('Your account is temporarily prevented from requesting certificates for www.shop.example.com '
    + 'and possibly others. Please visit: https://portal.letsencrypt.org/sfe/v1/unpause?jwt=x'), { scope: 'order' })
})

test('texts that we do not know: by the names in them', () => {
  assert.deepEqual(limit('quota exceeded'), { scope: 'account' })
  assert.deepEqual(limit('quota exceeded for www.shop.example.com.'), { scope: 'order' })
  assert.deepEqual(limit('quota exceeded for "EXAMPLE.com"'), { scope: 'order' })
  assert.deepEqual(limit('quota exceeded for othershop.example.com'), { scope: 'account' })
  assert.deepEqual(limit('quota exceeded for sub.www.shop.example.com'), { scope: 'account' }, 'a child is no parent')
  assert.deepEqual(limit('no more com today'), { scope: 'account' }, 'a single label is a word')
  assert.deepEqual(limit('quota exceeded for 192.0.2.7', {}, ['192.0.2.7']), { scope: 'order' })
  assert.deepEqual(limit('quota exceeded for 192.0.2.70', {}, ['192.0.2.7']), { scope: 'account' })
  assert.deepEqual(limit('quota exceeded for example.com', {}, ['*.example.com']), { scope: 'order' })
  assert.deepEqual(limit(`no more, ${docs}`, {}, ['www.letsencrypt.org']), { scope: 'account' }, 'a link is no name')
  const sub = { type: 'rateLimited', detail: 'too many', identifier: 'www.shop.example.com' }
  assert.deepEqual(limit('see sub-problems', { subproblems: [sub] }), { scope: 'order' })
})

test('a load balancer’s 429 without a type is a limit too', () => {
  const fields = { type: 'malformed-answer', retryAfterSeconds: 9 }
  assert.deepEqual(limit('https://ca.example/ answered 429 with text/html', fields),
    { scope: 'account', untilSeconds: 9 })
})

test('the header goes before the text, dates may be RFC 3339, and what is past is now', () => {
  const text = 'too many new orders, retry after 2026-11-21 11:00:00 UTC'
  assert.equal(limit(text, { retryAfterSeconds: 5 }).untilSeconds, 5)
  assert.equal(limit('too many new orders, retry after 2026-11-21T10:00:30Z').untilSeconds, 30)
  assert.equal(limit('too many new orders, retry after 2020-01-01 00:00:00 UTC').untilSeconds, 0)
  assert.equal(limit('too many new orders, retry after 2026-99-99 00:00:00 UTC').untilSeconds, undefined)
})

test('what may be an outage has no time, whatever the server asks for; single failures bar nothing', () => {
  const of = (type: string, status: number, more: Fields = {}) => limit('it failed', { type, status, ...more })
  assert.deepEqual(of('connection-failed', 0), { scope: 'outage' })
  assert.deepEqual(of('timeout', 0), { scope: 'outage' })
  assert.deepEqual(of('serverInternal', 503, { retryAfterSeconds: 604_800 }), { scope: 'outage' })
  assert.deepEqual(of('malformed-answer', 502), { scope: 'outage' })
  // An order that turned invalid with the CA's own 500 inside it was told by a server that is well.
  assert.deepEqual(of('serverInternal', 500, { inObject: true }), { scope: 'none' })
  assert.deepEqual(of('rateLimited', 429, { inObject: true }), { scope: 'order' })
  const validation = { identifier: 'www.shop.example.com' }
  assert.deepEqual(of('timeout', 200, validation), { scope: 'none' })
  assert.deepEqual(of('serverInternal', 500, validation), { scope: 'none' })
  assert.deepEqual(of('unauthorized', 403), { scope: 'none' })
  assert.deepEqual(of('rejectedIdentifier', 400), { scope: 'none' })
  assert.deepEqual(of('orderNotReady', 403), { scope: 'none' })
})
