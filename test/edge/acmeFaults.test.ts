/** What a server can do to a night run: limits, outages, silence, strange pages. A real Pebble behind a fault proxy. */
import assert from 'node:assert/strict'
import { after, before, describe, test, type TestContext } from 'node:test'
import { AcmeProblem } from '../../src/core/errors.js'
import { openAcme, type AcmeOptions } from '../../src/edge/acme.js'
import { makeCsr } from '../../src/edge/x509.js'
import { issue, newKey, startWorld, validate, type World } from '../helpers/acmeWorld.js'
import { freePort, pebbleVersions, startPebble } from '../helpers/pebble.js'
import { startFaultProxy, type Rewrite, type Rule, type Seen } from '../helpers/faultProxy.js'
import { until } from '../helpers/until.js'

const [program] = pebbleVersions()

const skip = program === undefined && 'no pebble is installed (scripts/setup installs it)'
describe('acme faults', { skip, timeout: 120_000, concurrency: true }, () => {
  let world: World
  before(async () => { if (program !== undefined) world = await startWorld({ program }) })
  after(() => world.stop())

  /** A proxy of its own for each test, so that they run at the same time. */
  async function faults(t: TestContext) {
    const proxy = await startFaultProxy(world.pebble)
    t.after(() => proxy.stop())
    return {
      proxy,
      count: (path: RegExp) => proxy.seen.filter((request) => path.test(request.path)).length,
      open: (own: Partial<AcmeOptions> = {}) => world.open({ directoryUrl: proxy.directoryUrl, ...own }),
    }
  }

  const newOrder = /order-plz/u
  const at = (path: RegExp, action: ReturnType<Rule>, nth = (n: number) => n > 0): Rule =>
    (request) => path.test(request.path) && nth(request.nth) ? action : undefined
  const problem = (type: string, detail: string) =>
    JSON.stringify({ type: `urn:ietf:params:acme:error:${type}`, detail })
  const json = { 'content-type': 'application/problem+json' }
  const outage = { type: 'connection-failed', status: 0 }
  const html = { 'content-type': 'text/html' }

  /** Expects an `AcmeProblem` whose fields and message are these; gives the milliseconds it took. */
  async function refused(what: Promise<unknown>, fields: Partial<AcmeProblem>, message: RegExp): Promise<number> {
    const start = performance.now()
    await assert.rejects(what, (error) => {
      assert.ok(error instanceof AcmeProblem, String(error))
      for (const [name, value] of Object.entries(fields)) {
        assert.deepEqual(error[name as keyof AcmeProblem], value, name)
      }
      assert.match(error.message, message)
      assert.doesNotMatch(error.message, /[\u0000-\u001f]/u)
      return true
    })
    return performance.now() - start
  }

  test('429 is thrown at once, with its Retry-After, and asked once', async (t) => {
    const { proxy, count, open } = await faults(t)
    const acme = await open()
    const body = problem('rateLimited', 'too many\u001b[31m new orders\r\n(300)')
    proxy.use(at(newOrder, { do: 'answer', status: 429, headers: { ...json, 'retry-after': '3600' }, body }))
    const ms = await refused(acme.newOrder(['a.example.com']),
      { type: 'rateLimited', status: 429, retryAfterSeconds: 3600 }, /^too many new orders \(300\)$/u)
    assert.ok(ms < 3000)
    assert.equal(count(newOrder), 1)
    assert.equal(proxy.seen.length, 1)
  })

  test('503 with Retry-After 2 is sat out', async (t) => {
    const { proxy, count, open } = await faults(t)
    const acme = await open()
    proxy.use(at(newOrder, { do: 'answer', status: 503, headers: { 'retry-after': '2' } }, (n) => n === 1))
    const start = performance.now()
    const order = await acme.newOrder(['b.example.com'])
    assert.equal(order.status, 'pending')
    const ms = performance.now() - start
    assert.ok(ms >= 1990 && ms < 8000, `${ms} ms`)
    assert.equal(count(newOrder), 2)
  })

  test('503 with Retry-After 3600 is not', async (t) => {
    const { proxy, count, open } = await faults(t)
    const acme = await open()
    const headers = { ...json, 'retry-after': '3600' }
    proxy.use(at(newOrder, { do: 'answer', status: 503, headers, body: problem('rateLimited', 'Service busy') }))
    const fields = { type: 'rateLimited', status: 503, retryAfterSeconds: 3600 }
    const ms = await refused(acme.newOrder(['c.example.com']), fields, /Service busy/u)
    assert.ok(ms < 3000)
    assert.equal(count(newOrder), 1)
  })

  test('an outage without Retry-After is tried four times, then thrown', async (t) => {
    const { proxy, count, open } = await faults(t)
    const acme = await open()
    proxy.use(at(newOrder, { do: 'answer', status: 502, headers: html, body: '<h1>Bad' }))
    await refused(acme.newOrder(['d.example.com']), { status: 502 },
      /order-plz answered 502 with text\/html.*“<h1>Bad”/u)
    assert.equal(count(newOrder), 4)
  })

  test('a lost answer and a cut connection are repeated, with a new nonce', async (t) => {
    const { proxy, count, open } = await faults(t)
    const acme = await open()
    proxy.use(({ path, nth }) => {
      if (nth > 1) return undefined
      if (/finalize/u.test(path)) return { do: 'pass', lose: true }
      return newOrder.test(path) ? { do: 'cut' } : undefined
    })
    const keyPem = await newKey('ec')
    const chain = await issue({ acme, challenges: world.challenges, names: ['lost.example.com'], keyPem })
    assert.match(chain, /BEGIN CERTIFICATE/u)
    assert.equal(count(newOrder), 2)
    assert.equal(count(/finalize/u), 2, 'the order was found further on, and not finalized a third time')
  })

  test('a server that does not answer is a timeout, not a hang', async (t) => {
    const { proxy, count, open } = await faults(t)
    const acme = await open({ requestTimeoutMs: 1500 }) // enough for the other requests, on a loaded machine too
    proxy.use(at(newOrder, { do: 'hang' }))
    const ms = await refused(acme.newOrder(['e.example.com']), { type: 'timeout', status: 0 },
      /no answer from https.* in 1\.5 s/u)
    assert.ok(ms >= 3000 && ms < 20_000, `${ms} ms`)
    assert.equal(count(newOrder), 2)
  })

  test('nobody there: the host and what to do are named', async (t) => {
    const { open } = await faults(t)
    const port = await freePort()
    await refused(open({ directoryUrl: `https://127.0.0.1:${port}/dir` }), outage,
      new RegExp(`cannot reach 127\\.0\\.0\\.1:${port}: .*ECONNREFUSED.*check`, 'u'))
  })

  test('an untrusted certificate names the host, the reason and caBundle, and nothing was sent', async (t) => {
    const { proxy } = await faults(t)
    const { directoryUrl } = proxy
    const signal = new AbortController().signal
    const opened = openAcme({ directoryUrl, accountKeyPem: await newKey('ec'), contact: [], userAgent: 'x', signal })
    const ms = await refused(opened, outage, /certificate of 127\.0\.0\.1:\d+ is not trusted: self-signed.*caBundle/u)
    assert.ok(ms < 3000, 'it is not tried again')
    assert.equal(proxy.seen.length, 0)
  })

  test('a page of another server is named for what it is', async (t) => {
    const { proxy, open } = await faults(t)
    proxy.use(at(/dir/u, { do: 'answer', status: 200, headers: html, body: '<!doctype html>' }))
    await refused(open(), { type: 'malformed-answer', status: 200 },
      /https:.*\/dir answered 200 with text\/html/u)
    proxy.use(at(/dir/u, { do: 'answer', status: 301, headers: { location: 'https://else.example/' } }))
    await refused(open(), { type: 'malformed-answer', status: 301 }, /else\.example/u)
    const body = JSON.stringify({ newNonce: 'http://127.0.0.1/n', newAccount: 'https://x/', newOrder: 'https://x/' })
    proxy.use(at(/dir/u, { do: 'answer', status: 200, headers: json, body }))
    await refused(open(), { type: 'malformed-answer' }, /newNonce URL; it must be https/u)
    assert.equal(proxy.seen.length, 1, 'no account request went anywhere')
  })

  test('an endless answer is refused after a megabyte', async (t) => {
    const { proxy, count, open } = await faults(t)
    const acme = await open()
    proxy.use(at(newOrder, { do: 'flood', bytes: 200_000_000 }))
    await refused(acme.newOrder(['f.example.com']), { type: 'malformed-answer' }, /more than 1000000 bytes/u)
    assert.equal(count(newOrder), 1)
    // What the sockets' buffers hold comes on top.
    assert.ok(proxy.flooded() < 20_000_000, `${proxy.flooded()} bytes`)
  })

  test('an abort ends a poll, and no request follows', async (t) => {
    const { proxy, count, open } = await faults(t)
    const stop = new AbortController()
    const acme = await open({ signal: stop.signal })
    const order = await acme.newOrder(['g.example.com'])
    const polled = acme.validated(order.authorizations[0] ?? '')
    await until(() => count(/authZ/u) >= 2)
    stop.abort(new Error('told to stop'))
    await assert.rejects(polled, /told to stop/u)
    const seen = proxy.seen.length
    await assert.rejects(acme.newOrder(['h.example.com']), /told to stop/u)
    assert.equal(proxy.seen.length, seen)
  })

  test('polling ends at its deadline, and that is no outage', async (t) => {
    const { open } = await faults(t)
    const acme = await open({ pollDeadlineMs: 400 })
    const order = await acme.newOrder(['i.example.com'])
    const ms = await refused(acme.validated(order.authorizations[0] ?? ''),
      { type: 'timeout', status: 200, identifier: 'i.example.com' },
      /for i\.example\.com is still pending .* after 0\.4 s/u)
    assert.ok(ms >= 390 && ms < 8000)
  })

  test('Retry-After of a poll is honoured', async (t) => {
    const { proxy, count, open } = await faults(t)
    const acme = await open()
    const rewrite: Rewrite = (reply) => { reply.headers['retry-after'] = '1' }
    proxy.use(at(/finalize/u, { do: 'pass', rewrite }))
    const order = await acme.newOrder(['j.example.com'])
    for (const url of order.authorizations) await validate(acme, world.challenges, await acme.authorization(url))
    const { der } = await makeCsr(await newKey('ec'), ['j.example.com'])
    const start = performance.now()
    await acme.finalize(order, der)
    assert.ok(performance.now() - start >= 990)
    assert.equal(count(/my-order/u), 1)
  })

  test('an order that turns invalid tells its own reason, also after orderNotReady', async (t) => {
    const { proxy, count, open } = await faults(t)
    const acme = await open()
    const keyPem = await newKey('ec')
    const rewrite: Rewrite = (reply) => {
      const error = { type: 'urn:ietf:params:acme:error:caa', detail: 'CAA forbids m.example.com', status: 403 }
      reply.body = JSON.stringify({ ...JSON.parse(reply.body) as object, status: 'invalid', error })
    }
    const invalid = at(/my-order/u, { do: 'pass', rewrite })
    const notReady = at(/finalize/u, { do: 'answer', status: 403, headers: json, body: problem('orderNotReady', 'no') })
    for (const rule of [invalid, (request: Seen) => notReady(request) ?? invalid(request)]) {
      proxy.use(rule)
      const issued = issue({ acme, challenges: world.challenges, names: ['m.example.com'], keyPem })
      await refused(issued, { type: 'caa', status: 403 }, /^CAA forbids m\.example\.com$/u)
      assert.equal(count(/certZ/u), 0, 'no certificate was asked for')
    }
    proxy.use(notReady)
    const issued = issue({ acme, challenges: world.challenges, names: ['n.example.com'], keyPem })
    await refused(issued, { type: 'orderNotReady', status: 403 }, /^no$/u)
    assert.equal(count(/finalize/u), 1)
  })

  test('an account that is deactivated is not used', async (t) => {
    const { proxy, open } = await faults(t)
    const rewrite: Rewrite = (reply) => { reply.body = reply.body.replace('"valid"', '"deactivated"') }
    proxy.use(at(/sign-me-up/u, { do: 'pass', rewrite }))
    await refused(open(), { type: 'malformed-answer' }, /says that the account is deactivated; use another accountKey/u)
  })

  test('challenges that we do not know are passed by; a token that is none is refused', async (t) => {
    const { proxy, count, open } = await faults(t)
    const acme = await open()
    const change = (edit: (challenges: Record<string, unknown>[]) => void) => at(/authZ/u, {
      do: 'pass',
      rewrite(reply) {
        const body = JSON.parse(reply.body) as { challenges: Record<string, unknown>[] }
        edit(body.challenges)
        reply.body = JSON.stringify(body)
      },
    })
    const unknown = { type: 'dns-persist-01', 'issuer-domain-names': ['x'], status: 'pending' }
    proxy.use(change((all) => all.unshift(unknown, { ...unknown, type: 'new', token: 'x', url: 'https://x/' })))
    const keyPem = await newKey('ec')
    await issue({ acme, challenges: world.challenges, names: ['k.example.com'], keyPem })
    proxy.use(change((all) => all.forEach((one) => { one.token = '../../etc/cron.d/x' })))
    await refused(issue({ acme, challenges: world.challenges, names: ['l.example.com'], keyPem }),
      { type: 'malformed-answer' }, /l\.example\.com whose token is not base64url/u)
    assert.equal(count(/chalZ/u), 0, 'no challenge was accepted')
  })

  test('a slow server is only slow, and forty orders at once are all served', async (t) => {
    const { proxy, open } = await faults(t)
    const acme = await open()
    const warnings: Error[] = []
    const listen = (warning: Error) => warnings.push(warning)
    process.on('warning', listen)
    proxy.use(at(newOrder, { do: 'pass', delayMs: 500 }, (n) => n <= 5))
    const keyPem = await newKey('ec')
    const chains = await Promise.all(Array.from({ length: 40 }, (_, i) =>
      issue({ acme, challenges: world.challenges, names: [`s${i}.example.com`], keyPem })))
    assert.equal(new Set(chains).size, 40)
    process.off('warning', listen)
    assert.deepEqual(warnings, [], 'no listeners pile up on the signal')
  })

  test('contacts that changed are told once', async (t) => {
    const { proxy, open } = await faults(t)
    const accountKeyPem = await newKey('ec')
    const { accountUrl } = await open({ accountKeyPem, contact: ['a@example.com'] })
    proxy.use()
    await open({ accountKeyPem, contact: ['b@example.com'] })
    const [update] = proxy.seen.filter(({ path }) => accountUrl.endsWith(path))
    assert.deepEqual(JSON.parse(update?.payload ?? ''), { contact: ['mailto:b@example.com'] })
    proxy.use()
    await open({ accountKeyPem, contact: ['b@example.com'] })
    assert.equal(proxy.seen.filter(({ path }) => accountUrl.endsWith(path)).length, 0)
  })

  test('a CA that takes seconds to validate', async () => {
    assert.ok(program)
    const { port: httpPort } = world.challenges
    const slow = await startPebble({ program, httpPort, dns: world.dns.address, sleepSeconds: 3 })
    try {
      const acme = await world.open({ directoryUrl: slow.directoryUrl, extraRoots: slow.roots })
      const keyPem = await newKey('ec')
      assert.match(await issue({ acme, challenges: world.challenges, names: ['slow.example.com'], keyPem }), /BEGIN/u)
    } finally {
      await slow.stop()
    }
  })
})
