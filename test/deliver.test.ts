/** `lematt deliver`, and deliveries that no new certificate is the reason for. */
import assert from 'node:assert/strict'
import { copyFileSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { labSkip } from './helpers/lab.js'
import { Night } from './helpers/night.js'
import { asked } from './helpers/witness.js'

describe('deliver', { skip: labSkip() }, () => {
  let night: Night
  const record = (): string => join(night.lab.dir, 'record')
  const recorded = (): string[] => (existsSync(record()) ? readFileSync(record(), 'utf8').trim().split('\n') : [])
  before(async () => {
    night = await Night.open({ settings: { keyTypes: 'ec' } })
    await night.domains('a.example.com\nb.example.com\n')
    night.actions(`[default]
uploadKeys: ["echo default keys KEYS >> ${record()}"]
update: ["test ! -e ${night.lab.dir}/down && echo default DOMAINS_ALL >> ${record()}"]
[override-b]
domains: b.example.com
update: ["echo b DOMAINS_ALL >> ${record()}"]
`)
    const first = await night.lematt(['--test'])
    assert.equal(first.code, 0, first.stdout + first.stderr)
    rmSync(record())
  })
  after(async () => { await night.close() })

  test('without --again it delivers what is lacking, which is nothing; it orders nothing', async () => {
    await night.domains('a.example.com\nb.example.com\nnew.example.com\n')
    const { orders } = asked(night.pebble)
    const ran = await night.lematt(['deliver', '--test'])
    assert.equal(ran.code, 0, ran.stdout + ran.stderr)
    assert.match(ran.stdout, /^nothing to do/mu)
    assert.equal(asked(night.pebble).orders, orders, 'deliver ordered a certificate')
    assert.deepEqual(recorded(), [])
    await night.domains('a.example.com\nb.example.com\n')
  })

  test('--again sends everything of a section, or of a subject, once more, and only that', async () => {
    const key = (name: string): string => night.path('test', 'key', `${name}-key.prime256v1.test.pem`)
    const section = await night.lematt(['deliver', 'default', '--again', '--test'])
    assert.equal(section.code, 0, section.stdout + section.stderr)
    assert.match(section.stdout, /^delivered: \[default\] 1 certificate, 2 steps$/mu)
    assert.deepEqual(recorded(), [`default keys ${key('a.example.com')}`, 'default a.example.com'])
    rmSync(record())
    const plan = await night.lematt(['deliver', 'B.example.com.', '--again', '--test', '--dry-run'])
    assert.match(plan.stdout, /\[override-b\] deliver: .*\n {4}update: echo b DOMAINS_ALL .* \(1 certificate\)\n$/u)
    assert.deepEqual(recorded(), [], 'a dry run ran something')
    assert.equal((await night.lematt(['deliver', 'B.example.com.', '--again', '--test'])).code, 0)
    assert.deepEqual(recorded(), ['b b.example.com'])
    assert.match((await night.lematt(['--test'])).stdout, /^nothing to do/mu)
    rmSync(record())
  })

  test('a section whose back-off is not over is delivered at once; --cron says nothing while it waits', async () => {
    const down = join(night.lab.dir, 'down')
    writeFileSync(down, '')
    for (const args of [['deliver', 'default', '--again', '--test'], ['--test']]) {
      const failed = await night.lematt(args)
      assert.equal(failed.code, 1)
      assert.match(failed.stdout, /^failed: \[default\] 1 certificate: update/mu)
    }
    const parked = await night.lematt(['--test'])
    assert.equal(parked.code, 1)
    assert.match(parked.stdout, /^parked: \[default\] 1 certificate: until .* UTC: failed 2 times in a row: .*\(to try it now: lematt deliver default\)$/mu)
    const cron = await night.lematt(['--test', '--cron'])
    assert.deepEqual([cron.code, cron.stdout, cron.stderr], [1, '', ''])
    rmSync(down)
    assert.equal((await night.lematt(['deliver', 'default', '--test'])).code, 0)
    assert.equal(recorded().at(-1), 'default a.example.com')
    assert.deepEqual((await night.lematt(['--test', '--cron'])).code, 0)
    rmSync(record())
  })

  test('what is misspelt is refused, and nothing is touched', async () => {
    for (const [args, message] of [
      [['deliver', 'nosuch', '--test'], /deliver nosuch: neither a section or host of actions\.conf nor a subject in domains/u],
      [['--test', '--again'], /--again goes with lematt deliver/u],
      [['deliver', '--only', 'a.example.com', '--test'], /takes names, sections and hosts without --only/u],
      [['deliver'], /say --test/u],
    ] as const) {
      const ran = await night.lematt(args)
      assert.equal(ran.code, 2, args.join(' '))
      assert.match(ran.stderr, message)
    }
    assert.deepEqual(recorded(), [])
  })

  test('a name that moves to another subject brings its link to the hosts, though no certificate is new', async () => {
    await night.domains('ok.example.com\nm.example.com ok.example.com > web\n')
    night.actions(`[default]\nuploadCerts: ["echo CERTS >> ${record()}"]\n`)
    assert.equal((await night.lematt(['--test'])).code, 0)
    rmSync(record())
    const { orders } = asked(night.pebble)
    await night.domains('m.example.com ok.example.com > web\n')
    const plan = await night.lematt(['plan', '--test'])
    assert.match(plan.stdout, /^nothing is due\nto be delivered:\n {2}\[default\] deliver: /mu)
    const moved = await night.lematt(['--test'])
    assert.equal(moved.code, 0, moved.stdout)
    assert.match(moved.stdout, /^moved ok\.example\.com-cert-combined\.\S+ to previous\/: the name now belongs to web-/mu)
    assert.deepEqual(recorded(), [['web', 'm.example.com', 'ok.example.com'].map(name => night.path('test', 'cert', `${name}-cert-combined.prime256v1.test.pem`)).join(' ')])
    assert.equal(asked(night.pebble).orders, orders, 'a certificate was ordered')
    assert.match((await night.lematt(['--test'])).stdout, /^nothing to do/mu)
  })

  test('what is away for a night is not delivered anew when it is back', async () => {
    rmSync(record())
    await night.domains('')
    assert.equal((await night.lematt(['--test'])).code, 0)
    await night.domains('m.example.com ok.example.com > web\n')
    assert.match((await night.lematt(['--test'])).stdout, /^nothing to do/mu)
    assert.deepEqual(recorded(), [])
  })

  test('a certificate that comes back from previous/ goes to the hosts again, like any change', async () => {
    const copy = (from: string, to: string): void => { copyFileSync(night.path('test', from, file(to)), night.path('test', to, file(to))) }
    const file = (kind: string): string => `web-${kind === 'key' ? 'key' : 'cert-combined'}.prime256v1.test.pem`
    assert.equal((await night.lematt(['--test', '--only', 'web', '--force'])).code, 0)
    rmSync(record())
    for (const kind of ['key', 'cert']) copy('previous', kind)
    const back = await night.lematt(['--test'])
    assert.equal(back.code, 0, back.stdout)
    assert.match(back.stdout, /^delivered: \[default\] 1 certificate/mu)
    assert.equal(recorded().length, 1)
    assert.match((await night.lematt(['--test'])).stdout, /^nothing to do/mu)
  })

  test('an update step that was out while files came runs when it is back', async () => {
    const upload = (n: number): string => `"true ${n} CERTS"`
    const update = `update: ["echo reload >> ${record()}"]`
    rmSync(record(), { force: true })
    night.actions(`[default]\nuploadCerts: [${upload(1)}]\n${update}\n`)
    assert.equal((await night.lematt(['--test'])).code, 0)
    night.actions(`[default]\nuploadCerts: [${upload(1)}, ${upload(2)}]\n`)
    assert.equal((await night.lematt(['--test'])).code, 0)
    assert.deepEqual(recorded(), ['reload'])
    night.actions(`[default]\nuploadCerts: [${upload(1)}, ${upload(2)}]\n${update}\n`)
    assert.equal((await night.lematt(['--test'])).code, 0)
    assert.deepEqual(recorded(), ['reload', 'reload'])
  })
})
