/** What the CA can do to a night, at the command line: limits, outages, wrong certificates, strange answers. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, beforeEach, describe, test } from 'node:test'
import { at, clockOff, FaultyNight, lines, orderFailures, refusing, rewriting, store } from './helpers/faultyNight.js'
import { labSkip } from './helpers/lab.js'
import { freePort, pebbleVersions } from './helpers/pebble.js'
import type { Night } from './helpers/night.js'
import type { Seen } from './helpers/faultProxy.js'

const hour = 3_600_000
const asksFor = (name: string) => ({ path, payload }: Seen): boolean => at.newOrder.test(path) && payload.includes(name)
const pem = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n?/gu

describe('faults of a CA', { skip: labSkip(), concurrency: 2 }, () => {
  describe('limits', { concurrency: 1 }, () => {
    let faulty: FaultyNight
    let night: Night
    const record = (): string => join(night.lab.dir, 'record')
    const deliveries = (more = ''): string =>
      `[default]\nuploadCerts: ["echo certs CERTS >> ${record()}"]\nupdate: ["echo update DOMAINS_ALL >> ${record()}"${more}]\n`
    before(async () => {
      faulty = await FaultyNight.open({ settings: { keyTypes: 'ec rsa' } })
      night = faulty.night
      await night.domains('held.example.com\n')
      night.actions(deliveries())
      const { code, stdout } = await night.lematt(['--test'])
      assert.equal(code, 0, stdout)
    })
    after(() => faulty.close())

    test('429 for the account parks every order, also in the next run, and nothing else', async () => {
      await night.domains('held.example.com\none.example.com\ntwo.example.com\nthree.example.com\n')
      night.actions(deliveries(`, "echo second >> ${record()}"`))
      const held = store(night)
      const before = lines(record()).length
      faulty.proxy.use(refusing(asksFor('example.com'), {
        status: 429, type: 'rateLimited', retryAfter: 3600,
        detail: 'too many new orders (300) from this account in the last 3h0m0s',
      }))
      const said = Date.now()
      const limited = await night.lematt(['--test', '--parallel', '1'])
      assert.equal(limited.code, 1, limited.stdout)
      assert.match(limited.stdout, /^failed: one\.example\.com ec: too many new orders \(300\).* \(rateLimited\)$/mu)
      const same = 'not tried, for the same reason as one.example.com ec'
      for (const name of ['one.example.com rsa', 'two.example.com ec', 'three.example.com rsa']) {
        assert.ok(limited.stdout.includes(`parked: ${name}: ${same}\n`), limited.stdout)
      }
      assert.deepEqual(faulty.ordered(), ['one.example.com'], 'not one more order')
      assert.deepEqual(store(night), held)
      assert.deepEqual(lines(record()).slice(before), ['second'], 'the delivery of what is held goes on')
      const { data } = JSON.parse(night.read('test', 'state', 'failures.json')) as
        { data: { accountBar: { until: string }; orderFailures: object } }
      const until = Date.parse(data.accountBar.until)
      assert.ok(until >= said + hour && until <= Date.now() + hour, data.accountBar.until)
      assert.deepEqual(data.orderFailures, {}, 'an account\'s limit is no failure of a certificate')

      faulty.proxy.use()
      const until16 = data.accountBar.until.slice(0, 16).replace('T', ' ')
      for (const args of [['--test'], ['--test', '--only', 'two.example.com'], ['--test', '--dry-run']]) {
        const again = await night.lematt(args)
        assert.equal(again.code, args.includes('--dry-run') ? 0 : 1, again.stdout)
        assert.match(again.stdout, new RegExp(`parked.* until ${until16} UTC: too many new orders`, 'u'))
      }
      assert.deepEqual(faulty.proxy.seen, [], 'the CA was left alone')
      assert.deepEqual(store(night), held)

      const later = await night.lematt(['--test'], { env: clockOff(hour + 60_000) })
      assert.equal(later.code, 0, later.stdout)
      assert.match(later.stdout, /6 issued, 1 delivered \(test, /u)
      night.assertWhole()
    })

    test('with many in progress, each subject meets the limit once at most', async () => {
      const names = ['p1', 'p2', 'p3', 'p4', 'p5', 'p6'].map(p => `${p}.example.com`)
      await night.domains(`held.example.com\n${names.join('\n')}\n`)
      let nth = 0
      faulty.proxy.use((request) => refusing(asksFor('example.com'), {
        status: 429, type: 'rateLimited', retryAfter: 3600, detail: `too many new orders (${++nth})`,
      })(request))
      const limited = await night.lematt(['--test'])
      assert.equal(limited.code, 1, limited.stdout + limited.stderr)
      assert.equal(new Set(faulty.ordered()).size, faulty.ordered().length, faulty.ordered().join())
      assert.deepEqual(orderFailures(night), {}, 'an account\'s limit is no failure of a certificate')
      await night.domains('held.example.com\n')
      assert.equal((await night.lematt(['--test'])).code, 0, 'nothing due, nothing parked')
    })

    test('429 for one name set parks that one until the CA said', async () => {
      await night.domains('held.example.com\nfull.example.com www.full.example.com\nfree.example.com\n')
      faulty.proxy.use(refusing(asksFor('full.example.com'), {
        status: 429, type: 'rateLimited', retryAfter: 7200,
        detail: 'too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s: '
          + '"full.example.com,www.full.example.com"',
      }))
      const first = await night.lematt(['--test'], { env: clockOff(2 * hour) })
      assert.equal(first.code, 1, first.stdout)
      assert.match(first.stdout, /^failed: full\.example\.com \+1 ec: too many certificates \(5\)/mu)
      assert.match(first.stdout, /^failed: full\.example\.com \+1 rsa: not tried, for ec failed: too many/mu)
      assert.match(first.stdout, /2 issued, 1 delivered, 2 failed/u)
      const full = 'full.example.com www.full.example.com'
      assert.deepEqual(faulty.ordered(), ['free.example.com', 'free.example.com', full], 'RSA was not tried')
      assert.ok(!lines(record()).some(line => line.includes('full')), 'a step ran for a failed order')
      assert.deepEqual(night.files('test', 'cert').filter(file => file.startsWith('full')), [])
      night.assertWhole()

      faulty.proxy.use()
      const again = await night.lematt(['--test', '--only', 'full.example.com'], { env: clockOff(2 * hour) })
      assert.equal(again.code, 1)
      assert.match(again.stdout, /^parked: full\.example\.com \+1 ec: until .* UTC: failed once: too many/mu)
      assert.match(again.stdout, /^parked: full\.example\.com \+1 rsa: until .* UTC: failed once: not tried, for ec failed/mu)
      assert.deepEqual(faulty.proxy.seen, [])
      const later = await night.lematt(['--test'], { env: clockOff(4 * hour + 60_000) })
      assert.equal(later.code, 0, later.stdout)
      assert.match(later.stdout, /2 issued, 1 delivered \(/u)
    })

    test('a limit between EC and RSA: what was issued is delivered, the rest follows', async () => {
      await night.domains('held.example.com\nhalf.example.com\n')
      const before = lines(record()).length
      faulty.proxy.use((request) => request.nth === 1 ? undefined : refusing(asksFor('half.example.com'), {
        status: 429, type: 'rateLimited', retryAfter: 3600, detail: 'too many new orders (300)',
      })(request))
      const first = await night.lematt(['--test'])
      assert.equal(first.code, 1)
      assert.match(first.stdout, /^issued: half\.example\.com ec by/mu)
      assert.match(first.stdout, /^failed: half\.example\.com rsa: too many new orders/mu)
      assert.match(first.stdout, /^1 issued, 1 delivered, 1 failed/mu)
      const [certs = '', ...others] = lines(record()).slice(before)
      assert.match(certs, /^certs \S+\/half\.example\.com-cert-combined\.prime256v1\.test\.pem$/u)
      assert.deepEqual(others, ['update half.example.com', 'second'])
      assert.deepEqual(night.files('test', 'key').filter(file => file.startsWith('half')).length, 1, 'a key without its certificate')
      night.assertWhole()
      faulty.proxy.use()
      const later = await night.lematt(['--test'], { env: clockOff(hour + 60_000) })
      assert.equal(later.code, 0, later.stdout)
      assert.match(later.stdout, /^1 issued, 1 delivered/mu)
      assert.deepEqual(faulty.ordered(), ['half.example.com'])
      assert.match(lines(record()).at(-3) ?? '', /half\.example\.com-cert-combined\.rsa2048/u)
    })

    test('429 for the account itself bars all of it as well', async () => {
      await night.domains('held.example.com\nonemore.example.com\n')
      faulty.proxy.use(refusing(({ path }) => path === '/sign-me-up', {
        status: 429, type: 'rateLimited', retryAfter: 1800, detail: 'too many registrations for this IP',
      }))
      const first = await night.lematt(['--test'])
      assert.equal(first.code, 1)
      assert.match(first.stdout, /^failed: onemore\.example\.com ec: too many registrations for this IP \(rateLimited\)$/mu)
      assert.match(first.stdout, /^parked: onemore\.example\.com rsa: not tried, for the same reason as onemore\.example\.com ec$/mu)
      assert.deepEqual(faulty.ordered(), [])
      faulty.proxy.use()
      const again = await night.lematt(['--test'])
      assert.equal(again.code, 1)
      assert.match(again.stdout, /^parked: onemore\.example\.com ec: until \S+ \S+ UTC: too many registrations/mu)
      assert.deepEqual(faulty.proxy.seen, [])
      assert.equal((await night.lematt(['--test'], { env: clockOff(hour / 2 + 60_000) })).code, 0)
      night.assertWhole()
    })

    test('503 with Retry-After 2 is waited for', async () => {
      await night.domains('held.example.com\nbusy.example.com\n')
      faulty.proxy.use((request) => request.nth > 1 ? undefined
        : refusing(asksFor('busy.example.com'), { status: 503, type: 'rateLimited', retryAfter: 2, detail: 'busy' })(request))
      const start = performance.now()
      const { code, stdout } = await night.lematt(['--test'])
      assert.equal(code, 0, stdout)
      assert.ok(performance.now() - start >= 2000)
      assert.equal(faulty.ordered().length, 3, 'EC once more, RSA')
      night.assertWhole()
    })
  })

  describe('outages and strangers', { concurrency: 1 }, () => {
    let faulty: FaultyNight
    let night: Night
    let held: Map<string, string>
    const record = (): string => join(night.lab.dir, 'record')
    before(async () => {
      faulty = await FaultyNight.open({ settings: { keyTypes: 'ec' }, domains: 'held.example.com\n' })
      night = faulty.night
      const { code, stdout } = await night.lematt(['--test'])
      assert.equal(code, 0, stdout)
      held = store(night)
      await night.domains('held.example.com\nnew.example.com\nother.example.com\n')
    })
    after(() => faulty.close())
    beforeEach(() => {
      faulty.settings({ keyTypes: 'ec' })
      faulty.proxy.use()
    })

    /** A run that must fail by the CA, and do everything else. */
    async function fails(message: RegExp, step: string): Promise<string> {
      night.actions(`[default]\nupdate: ["echo ${step} DOMAINS_ALL >> ${record()}"]\n`)
      const start = performance.now()
      const { code, stdout, stderr } = await night.lematt(['--test'])
      assert.equal(code, 1, stdout + stderr)
      assert.match(stdout, message)
      assert.equal(stderr, '')
      assert.ok(performance.now() - start < 20_000)
      assert.deepEqual(store(night), held, 'the store was touched')
      assert.equal(lines(record()).at(-1), `${step} held.example.com`, 'a delivery that is due is made all the same')
      assert.deepEqual(orderFailures(night), {}, 'counted against a certificate')
      night.assertWhole()
      return stdout
    }

    test('nobody listens', async () => {
      const directory = `https://${night.lab.address}:${await freePort(night.lab.address)}/dir`
      faulty.settings({ keyTypes: 'ec', testDirectory: directory })
      const stdout = await fails(/^failed: new\.example\.com ec: cannot reach .*ECONNREFUSED.*; check the network/mu, 'down')
      assert.equal(stdout.match(/ECONNREFUSED/gu)?.length, 1, `said once is enough:\n${stdout}`)
      assert.match(stdout, /^parked: other\.example\.com ec: not tried, for the same reason as new\.example\.com ec$/mu)
    })

    test('an outage after the account was found', async () => {
      faulty.proxy.use(request => at.newOrder.test(request.path) ? { do: 'answer', status: 502, body: '<h1>Bad gateway' } : undefined)
      await fails(/^failed: .*: .* answered 502 with .*Bad gateway/mu, 'gateway')
    })

    test('its TLS certificate is not trusted', async () => {
      faulty.settings({ keyTypes: 'ec' }, ['caBundle'])
      await fails(/^failed: new\.example\.com ec: the TLS certificate of .* is not trusted: .*caBundle/mu, 'untrusted')
      assert.deepEqual(faulty.proxy.seen, [], 'a stranger got a request')
    })

    test('a web page in place of the directory', async () => {
      const page = { do: 'answer', status: 200, headers: { 'content-type': 'text/html' }, body: '<title>Welcome' } as const
      faulty.proxy.use(() => page)
      await fails(/^failed: .* answered 200 with text\/html instead of a JSON object: “<title>Welcome”; check the directory/mu, 'page')
      assert.equal(faulty.proxy.seen.length, 1)
    })

    test('when it is back, the next run issues at once', async () => {
      const { code, stdout } = await night.lematt(['--test', '--cron'])
      assert.equal(code, 0, stdout)
      assert.match(stdout, /2 issued, 1 delivered \(test, /u)
      assert.deepEqual(night.read('test', 'cert', 'held.example.com-cert-combined.prime256v1.test.pem'),
        held.get('test/cert/held.example.com-cert-combined.prime256v1.test.pem'))
      night.assertWhole()
    })
  })

  describe('wrong certificates', { concurrency: 1 }, () => {
    let faulty: FaultyNight
    let night: Night
    const certificate = 'test/cert/a.example.com-cert-combined.prime256v1.test.pem'
    before(async () => {
      faulty = await FaultyNight.open({ settings: { keyTypes: 'ec' }, domains: 'a.example.com\nb.example.com\n' })
      night = faulty.night
      for (const mode of ['--test', '--prod']) {
        const { code, stdout } = await night.lematt([mode])
        assert.equal(code, 0, stdout)
      }
    })
    after(() => faulty.close())

    /** A reissue of a.example.com that must be refused. */
    async function refused(rewrite: (body: string) => string, why: RegExp): Promise<void> {
      const record = join(night.lab.dir, 'record')
      night.actions(`[default]\nupdate: ["echo DOMAINS_ALL >> ${record}"]\n`)
      assert.equal((await night.lematt(['--test'])).code, 0)
      const [before, steps] = [store(night), lines(record).length]
      faulty.proxy.use(rewriting(at.certificate, (reply) => { reply.body = rewrite(reply.body) }))
      const { code, stdout } = await night.lematt(['--test', '--only', 'a.example.com', '--force'])
      assert.equal(code, 1, stdout)
      assert.match(stdout, /^failed: a\.example\.com ec: .*; nothing was replaced/mu)
      assert.match(stdout, why)
      assert.equal(faulty.ordered().length, 1)
      assert.equal(faulty.seen(at.certificate).length, 1)
      assert.deepEqual(store(night), before, 'the store was touched')
      assert.equal(lines(record).length, steps, 'a step ran')
      night.assertWhole()
    }

    test('for other names', async () => {
      const others = night.read('test', 'cert', 'b.example.com-cert-combined.prime256v1.test.pem')
      await refused(() => others, /the CA returned a certificate that is refused: it is for b\.example\.com, not for a\.example\.com;/u)
    })

    test('for another key', async () => {
      const others = night.read('prod', 'cert', 'a.example.com-cert-combined.prime256v1.pem')
      await refused(() => others, /refused: its public key is not ours;/u)
    })

    test('with a chain that does not link', async () => {
      const strange = night.pebble.roots
      await refused(body => (body.match(pem)?.[0] ?? '') + strange, /certificate 1 of the chain is not issued by the next one/u)
    })

    test('cut off, or none at all', async () => {
      await refused(body => `${body.match(pem)?.[0] ?? ''}-----BEGIN CERTIFICATE-----\nMIIB`, /certZ\/.* sent a certificate chain that is cut off/u)
      assert.ok(store(night).get(certificate))
    })

    test('and a good one is taken afterwards', async () => {
      faulty.proxy.use()
      const before = store(night)
      const { code, stdout } = await night.lematt(['--test', '--only', 'a.example.com', '--force'])
      assert.equal(code, 0, stdout)
      assert.notEqual(store(night).get(certificate), before.get(certificate))
      assert.equal(store(night).get('test/previous/a.example.com-cert-combined.prime256v1.test.pem'), before.get(certificate))
      night.assertWhole()
    })
  })

  for (const program of pebbleVersions()) {
    test(`slow, forgetful, without reuse, with challenges that nobody knows: Pebble ${program.version}`, async (t) => {
      const faulty = await FaultyNight.open({
        pebble: { program, nonceReject: 15, authzReuse: 0, sleepSeconds: 1 },
        domains: 'a.example.com www.a.example.com\nb.example.com\nc.example.com\n',
      })
      t.after(() => faulty.close())
      const { night } = faulty
      night.actions(`[default]\nupdate: ["echo DOMAINS_ALL >> ${join(night.lab.dir, 'record')}"]\n`)
      faulty.proxy.use(({ path }) => ({
        do: 'pass', delayMs: 50, rewrite: (reply) => {
          if (!at.authorization.test(path)) return
          const authorization = JSON.parse(reply.body) as { challenges: object[] }
          authorization.challenges.unshift({ type: 'dns-persist-01', url: 'about:blank', issuer: ['x'], status: 'pending' })
          reply.body = JSON.stringify(authorization)
        },
      }))
      const { code, stdout } = await night.lematt(['--test'])
      assert.equal(code, 0, stdout)
      assert.match(stdout, /6 issued, 1 delivered \(test, /u)
      assert.deepEqual(lines(join(night.lab.dir, 'record')), ['a.example.com b.example.com c.example.com www.a.example.com'])
      const accepted = new Set(faulty.seen(at.challenge).map(({ path }) => path))
      // Pebble's "0 percent" still reuses one authorization in a hundred (wfe.go: rand.Intn(100) > 0).
      assert.ok(accepted.size >= 6 && accepted.size <= 8, `names were not validated again for RSA: ${accepted.size}`)
      night.assertWhole()
      assert.match((await night.lematt(['--test'])).stdout, /^nothing to do/mu)
    })
  }
})
