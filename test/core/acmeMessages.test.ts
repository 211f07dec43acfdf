import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { readAuthorization, readChain, readDirectory, readOrder, secureUrl } from '../../src/core/acmeMessages.js'
import { problemOf, retryAfterOf, type AcmeAnswer } from '../../src/core/acmeProblem.js'
import { AcmeProblem } from '../../src/core/errors.js'

const at = new Date('2026-11-21T10:00:00Z')
const answer = (body: unknown, more: Partial<AcmeAnswer> = {}): AcmeAnswer => ({
  url: 'https://ca.example/x', at, status: 200, contentType: 'application/json',
  body: typeof body === 'string' ? body : JSON.stringify(body), ...more,
})

test('Retry-After in seconds, as a date, and as nonsense', () => {
  const of = (retryAfter: string) => retryAfterOf({ at, retryAfter })
  assert.equal(of('3600'), 3600)
  assert.equal(of('Sat, 21 Nov 2026 10:00:07 GMT'), 7)
  assert.equal(of('Sat, 21 Nov 2020 10:00:07 GMT'), 0)
  assert.equal(of('9'.repeat(40)), 366 * 86_400)
  assert.equal(of('soon'), undefined)
  assert.equal(retryAfterOf({ at }), undefined)
})

test('a compound problem: type, subproblems, the one identifier, Retry-After, clean texts', () => {
  const problem = problemOf(answer({
    type: 'urn:ietf:params:acme:error:rejectedIdentifier', detail: 'Refused\u001b[2J\n(see sub-problems)',
    subproblems: [{
      type: 'urn:ietf:params:acme:error:caa', detail: 'CAA forbids',
      identifier: { type: 'dns', value: 'A.example.com' },
    }],
  }, { status: 403, retryAfter: '9' }))
  assert.equal(problem.type, 'rejectedIdentifier')
  assert.equal(problem.status, 403)
  assert.equal(problem.message, 'Refused (see sub-problems); a.example.com: CAA forbids')
  assert.equal(problem.identifier, 'a.example.com')
  assert.equal(problem.retryAfterSeconds, 9)
  assert.deepEqual(problem.subproblems, [{ type: 'caa', detail: 'CAA forbids', identifier: 'a.example.com' }])
})

test('a quoted key authorization loses its second half', () => {
  const token = 'evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA'
  const thumbprint = '9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI'
  const { message } = problemOf(answer({ detail: `expected "${token}.${thumbprint}"` }, { status: 403 }))
  assert.equal(message, `expected "${token}.…"`)
})

test('an authorization: wildcards, addresses, unknown kinds, bad tokens', () => {
  const read = (body: object) => readAuthorization(answer({ status: 'pending', ...body }), 'https://ca.example/a')
  const http01 = { type: 'http-01', url: 'https://ca.example/c', token: 'abc-_1', status: 'pending' }
  const dns = { type: 'dns', value: 'Example.com' }
  assert.equal(read({ identifier: dns, wildcard: true }).identifier, '*.example.com')
  assert.equal(read({ identifier: { type: 'ip', value: '2001:DB8:0::1' } }).identifier, '2001:db8::1')
  assert.deepEqual(read({ identifier: dns, challenges: [{ type: 'dns-persist-01' }, 7, http01] }).challenges, [http01])
  for (const token of ['', '../x', 'a.b', 'a b', 'a'.repeat(201), 7]) {
    assert.throws(() => read({ identifier: dns, challenges: [{ ...http01, token }] }), AcmeProblem)
  }
  for (const value of ['', 'a b', 'x;reboot', '$(x)', '../x', 'fe80::1%eth0', 'a'.repeat(64)]) {
    assert.throws(() => read({ identifier: { type: 'dns', value } }), AcmeProblem)
  }
})

test('an order: its error has the identifier’s status, its URLs are https', () => {
  const good = { status: 'invalid', authorizations: ['https://ca.example/a'], finalize: 'https://ca.example/f' }
  const error = { type: 'urn:ietf:params:acme:error:caa', detail: 'no', status: 403 }
  const order = readOrder(answer({ ...good, error }), 'https://ca.example/o')
  assert.equal(order.error?.type, 'caa')
  assert.equal(order.error.status, 403)
  for (const change of [
    { finalize: 'http://ca.example/f' }, { finalize: undefined }, { authorizations: ['ftp://x/'] },
    { authorizations: undefined }, { certificate: 'https://u:p@ca.example/' },
  ]) assert.throws(() => readOrder(answer({ ...good, ...change }), 'https://ca.example/o'), AcmeProblem)
  assert.equal(secureUrl('https://ca.example/x'), 'https://ca.example/x')
})

test('of a chain only the certificates are taken', () => {
  const block = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----'
  const key = '-----BEGIN PRIVATE KEY-----\nBBBB\n-----END PRIVATE KEY-----'
  const chain = readChain(answer(`hello\n${block}\r\n${key}\n${block}`))
  assert.equal(chain, `${block}\n${block}\n`)
  assert.throws(() => readChain(answer(key)), AcmeProblem)
})

test('whatever the server says, it is read or refused with an AcmeProblem in clean text', () => {
  const read = (body: string, status: number) => {
    const given = answer(body, { status })
    for (const reader of [readDirectory, problemOf, readChain,
      (one: AcmeAnswer) => readOrder(one, one.url), (one: AcmeAnswer) => readAuthorization(one, one.url)]) {
      let said: unknown
      try {
        said = reader(given)
      } catch (error) {
        said = error
        assert.ok(error instanceof AcmeProblem, String(error))
      }
      if (said instanceof AcmeProblem) assert.doesNotMatch(said.message, /[\u0000-\u001f\u007f-\u009f]/u)
    }
  }
  const keys = ['type', 'detail', 'status', 'identifier', 'value', 'challenges', 'token', 'url', 'error', 'subproblems',
    'authorizations', 'finalize', 'newOrder', 'newNonce', 'newAccount', 'wildcard', '__proto__']
  const { tree } = fc.letrec((tie) => ({
    tree: fc.oneof({ depthSize: 'small' }, fc.string({ unit: 'binary' }), fc.double(), fc.boolean(), fc.constant(null),
      fc.constant('https://ca.example/'), fc.array(tie('tree'), { maxLength: 3 }),
      fc.dictionary(fc.constantFrom(...keys), tie('tree'), { maxKeys: 6 })),
  }))
  fc.assert(fc.property(tree, fc.constantFrom(200, 400, 403, 429, 500), (value, status) => {
    read(JSON.stringify(value), status)
  }), { numRuns: 500 })
  fc.assert(fc.property(fc.string({ unit: 'binary' }), (text) => read(text, 200)), { numRuns: 200 })
})
