/** What lematt.conf says, as the CA, the clock and the operator see it. */
import assert from 'node:assert/strict'
import { chmodSync, cpSync, existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, beforeEach, describe, test } from 'node:test'
import { clockOff, FaultyNight, lines } from './helpers/faultyNight.js'
import { labSkip } from './helpers/lab.js'
import { cli, Night } from './helpers/night.js'
import { contents } from './helpers/witness.js'

const day = 86_400_000
const shared = { keyTypes: 'ec', challengeCheck: 'no' }

describe('settings at the CA', { skip: labSkip(), concurrency: false }, () => {
  let faulty: FaultyNight
  let night: Night
  before(async () => {
    faulty = await FaultyNight.open({ domains: 'a.example.com\n' })
    night = faulty.night
  })
  after(() => faulty.close())
  beforeEach(() => { faulty.proxy.use() })

  test('contact reaches the account, also when it changes; every request says which program it is from', async () => {
    const again = ['--test', '--only', 'a.example.com', '--force']
    const contacts = (path: RegExp): unknown[] => faulty.seen(path).filter(({ payload }) => payload !== '')
      .map(({ payload }) => (JSON.parse(payload) as { contact?: string[] }).contact)
    faulty.settings({ ...shared, contact: 'ops@example.com' })
    const first = await night.lematt(['--test'])
    assert.equal(first.code, 0, first.stdout)
    assert.deepEqual(contacts(/^\/sign-me-up$/u), [['mailto:ops@example.com']])
    const agents = new Set(faulty.proxy.seen.map(({ headers }) => headers['user-agent']))
    assert.equal(agents.size, 1)
    assert.match(String([...agents][0]), /^lematt\/\d+\.\d+\.\d+ \(\+https:\/\/\S+\) node\/\d+\.\d+/u)

    faulty.proxy.use()
    faulty.settings({ ...shared, contact: 'ops@example.com' })
    assert.equal((await night.lematt(again)).code, 0)
    assert.deepEqual(contacts(/^\/my-account\//u), [], 'an unchanged contact was sent again')

    faulty.proxy.use()
    faulty.settings({ ...shared, contact: 'new@example.com second@example.com' })
    assert.equal((await night.lematt(again)).code, 0)
    assert.deepEqual(contacts(/^\/my-account\//u), [['mailto:new@example.com', 'mailto:second@example.com']])
  })

  test('unset, no contact is told', async () => {
    faulty.settings({ ...shared, accountKey: join(night.lab.dir, 'other.key') })
    assert.equal((await night.lematt(['--test', '--only', 'a.example.com', '--force'])).code, 0)
    const told = faulty.seen(/^\/sign-me-up$/u).map(({ payload }) => payload)
    assert.deepEqual(told, ['{"termsOfServiceAgreed":true}'])
    night.assertWhole()
  })
})

describe('challengeListen', { skip: labSkip() }, () => {
  test('answers on port 80 without any web server, and only while names are validated', async () => {
    const night = await Night.open({ noWebServer: true, domains: 'a.example.com b.example.com\n' })
    try {
      const settings = { keyTypes: 'ec', challengeListen: `${night.lab.address}:80` }
      night.settings(settings, ['challengeDropDir'])
      const ran = await night.lematt(['--test'])
      assert.equal(ran.code, 0, ran.stdout + ran.stderr)
      assert.match(ran.stdout, /^issued: a\.example\.com \+1 ec by /mu)
      night.assertWhole()
      // With a directory as well, the port is what counts, and nothing is written there.
      night.settings(settings)
      await night.domains('c.example.com\n')
      assert.equal((await night.lematt(['--test'])).code, 0)
      assert.deepEqual(readdirSync(night.challenges), [])
      // Nobody listens any more: nothing of it is left behind.
      await assert.rejects(fetch(`http://${night.lab.address}:80/`), (error: unknown) =>
        error instanceof Error && (error.cause as { code?: string }).code === 'ECONNREFUSED')
      night.settings({ keyTypes: 'ec', challengeCheck: 'no' })
      await night.domains('d.example.com\n')
      assert.equal((await night.lematt(['--test'])).code, 1, 'something else answers on port 80')
    } finally {
      await night.close()
    }
  })
})

describe('settings on the disk and the clock', { skip: labSkip(), concurrency: false }, () => {
  let night: Night
  before(async () => {
    night = await Night.open({ settings: shared, domains: 'a.example.com\n' })
    night.actions('[default]\nupdate: ["true"]\n')
  })
  after(() => night.close())

  describe('when a certificate of 90 days is renewed', { concurrency: false }, () => {
    before(async () => {
      const ran = await night.lematt(['--test'])
      assert.equal(ran.code, 0, ran.stdout)
    })

    /** The reasons of the orders that would be made so many days after it was issued, and the warnings. */
    async function planned(days: number): Promise<{ reasons: string[]; warnings: string }> {
      const ran = await night.lematt(['plan', '--test', '--json'], { env: clockOff(days * day) })
      assert.equal(ran.code, 0, ran.stderr)
      const { orders, warnings } = JSON.parse(ran.stdout) as { orders: { reason: string }[]; warnings: string[] }
      return { reasons: orders.map(({ reason }) => reason), warnings: warnings.join('\n') }
    }

    const cases: readonly [why: string, settings: Record<string, string>, day: number, reason: RegExp, warning?: RegExp][] = [
      ['nothing said: with a third left', {}, 60, /^renew: 30 days left of 90 days$/u],
      ['reauthorizeDays', { reauthorizeDays: '20' }, 70, /^renew: 20 days left of 90 days$/u],
      ['reauthorizeDays up to 2/3 of the lifetime', { reauthorizeDays: '59' }, 31, /^renew: 59 days left of 90 days$/u],
      ['reauthorizeDays beyond is cut to 2/3', { reauthorizeDays: '80' }, 30, /^renew: 60 days left of 90 days$/u,
        /reauthorizeDays: 80 is cut to 60 days for a lifetime of 90 days/u],
      ['generateNewCertsAfterDays', { generateNewCertsAfterDays: '10' }, 10, /^renew: 10 days old, the rule is 10 days$/u],
      ['generateNewCertsAfterDays wins over reauthorizeDays', { generateNewCertsAfterDays: '40', reauthorizeDays: '59' }, 40,
        /^renew: 40 days old, the rule is 40 days$/u],
    ]
    for (const [why, settings, at, reason, warning] of cases) {
      test(why, async () => {
        night.settings({ ...shared, ...settings })
        // Pebble's clock is ours; a night of an hour either way is enough to tell the days apart.
        const [early, late] = await Promise.all([planned(at - 1 / 24), planned(at + 1 / 24)])
        assert.deepEqual(early.reasons, [], 'renewed too early')
        assert.equal(late.reasons.length, 1, 'not renewed')
        assert.match(late.reasons[0] ?? '', reason)
        if (warning === undefined) assert.doesNotMatch(late.warnings, /reauthorizeDays|generateNewCertsAfterDays/u)
        else assert.match(late.warnings, warning)
      })
    }

    test('a run under the shifted clock does what the plan says', async () => {
      night.settings({ ...shared, generateNewCertsAfterDays: '10' })
      const { x509 } = night.certificate('a.example.com', 'prime256v1')
      const early = await night.lematt(['--test'], { env: clockOff(10 * day - day / 24) })
      assert.match(early.stdout, /^nothing to do/mu)
      assert.equal(night.certificate('a.example.com', 'prime256v1').x509.fingerprint256, x509.fingerprint256)
      const late = await night.lematt(['--test'], { env: clockOff(10 * day + day / 24) })
      assert.match(late.stdout, /1 issued, 1 delivered/u)
      assert.notEqual(night.certificate('a.example.com', 'prime256v1').x509.fingerprint256, x509.fingerprint256)
    })
  })

  describe('a configuration that others can write, or with a blank in its path, is refused', { concurrency: false }, () => {
    const record = (): string => join(night.lab.dir, 'record')

    async function refused(path: string, message: RegExp): Promise<void> {
      night.actions(`[default]\nupdate: ["echo ran >> ${record()}"]\n`)
      const asked = night.pebble.output().length
      for (const args of [['--test'], ['--prod'], ['plan', '--test'], ['check']]) {
        const witnessed = contents(night.lab.dir)
        const ran = await night.lab.run(process.execPath, [cli, ...args, '--config', path], { cwd: night.lab.dir })
        assert.equal(ran.code, 2, `${args.join(' ')}: ${ran.stdout}${ran.stderr}`)
        assert.equal(ran.stdout, '')
        assert.match(ran.stderr, message)
        assert.deepEqual(contents(night.lab.dir), witnessed, `${args.join(' ')} touched files`)
      }
      assert.equal(night.pebble.output().length, asked, 'something was asked of the CA')
      assert.deepEqual(lines(record()), [])
    }

    for (const [name, mode, message] of [
      ['lematt.conf', 0o664, /^conf\/lematt\.conf:1:1: its group can write this file, .*; run: chmod g-w \S+\/lematt\.conf$/mu],
      ['domains', 0o646, /^conf\/domains:1:1: every user can write this file, .*; run: chmod o-w /mu],
      ['actions.conf', 0o666, /^conf\/actions\.conf:1:1: every user can write this file, .*; run: chmod go-w /mu],
      ['.', 0o775, /^conf:1:1: its group can write this directory, .*; run: chmod g-w /mu],
    ] as const) {
      test(`${name}, ${mode.toString(8)}`, async () => {
        night.settings(shared)
        chmodSync(night.path(name), mode)
        try {
          await refused(night.conf, message)
        } finally {
          chmodSync(night.path(name), name === '.' ? 0o755 : 0o644)
        }
      })
    }

    test('the path', async () => {
      const path = join(night.lab.dir, 'conf of ours')
      cpSync(night.conf, path, { recursive: true })
      await refused(path, /^conf of ours:1:1: the path of the configuration holds a blank, which shells take for something else; /mu)
      await refused(join(path, 'lematt.conf'), /holds a blank/u)
      assert.ok(existsSync(join(path, 'domains')))
    })
  })
})
