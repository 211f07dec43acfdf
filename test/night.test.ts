/** The main job at the command line: a real CA, a real web server, real commands. */
import assert from 'node:assert/strict'
import { appendFileSync, existsSync, lstatSync, readFileSync, readlinkSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { labSkip } from './helpers/lab.js'
import { Night } from './helpers/night.js'

describe('a night', { skip: labSkip() }, () => {
  let night: Night
  const record = (): string => join(night.lab.dir, 'record')
  const recorded = (): string[] => (existsSync(record()) ? readFileSync(record(), 'utf8').trim().split('\n') : [])
  before(async () => { night = await Night.open() })
  after(async () => { await night.close() })

  test('issues RSA and EC, delivers by section, and has nothing to do the second night', async () => {
    await night.domains('a.example.com b.example.com\nmail.example.com imap\n', ['a.example.com', 'b.example.com', 'mail.example.com', 'imap.mail.example.com'])
    night.actions(`[default]
uploadCerts: ["echo default certs CERTS >> ${record()}"]
uploadKeys: ["echo default keys KEYS >> ${record()}"]
update: ["echo default update DOMAINS_CN / DOMAINS_ALL in $LEMATT_MODE $LEMATT_SECTION >> ${record()}"]
[override-mail]
domains: mail.example.com
update: ["echo mail update DOMAINS_ALL >> ${record()}"]
[every]
update: ["echo every DOMAINS_CN >> ${record()}"]
`)
    const first = await night.lematt(['--test'])
    assert.equal(first.code, 0, first.stdout + first.stderr)
    assert.match(first.stdout, /^issued: a\.example\.com \+1 ec by .*$/mu)
    assert.match(first.stdout, /4 issued, 3 delivered \(test, /u)
    for (const tag of ['rsa2048', 'prime256v1']) {
      const { names, belongs } = night.certificate('a.example.com_b.example.com', tag)
      assert.deepEqual(names, ['a.example.com', 'b.example.com'])
      assert.ok(belongs)
      assert.equal(readlinkSync(night.path('test', 'key', `b.example.com-key.${tag}.test.pem`)), `a.example.com_b.example.com-key.${tag}.test.pem`)
    }
    assert.equal(statSync(night.path('test', 'key')).mode & 0o777, 0o700)
    assert.equal(statSync(night.path('test', 'key', 'a.example.com_b.example.com-key.rsa2048.test.pem')).mode & 0o777, 0o600)
    night.assertWhole()

    const lines = recorded()
    const certs = `${night.path('test', 'cert')}/`
    const both = (name: string, kind: string): string[] => ['prime256v1', 'rsa2048'].flatMap(tag => [name, ...name.split('_')].map(n => `${certs}${n}-${kind}.${tag}.test.pem`))
    // imap.mail.example.com is not listed by the override, so [default] serves it.
    assert.equal(lines[0], `default certs ${[...both('a.example.com_b.example.com', 'cert-combined'), ...both('mail.example.com_imap.mail.example.com', 'cert-combined')].join(' ')}`)
    assert.match(lines[1] ?? '', /^default keys .*\/test\/key\/a\.example\.com_b\.example\.com-key\.prime256v1\.test\.pem /u)
    assert.deepEqual(lines.slice(2), [
      'default update a.example.com mail.example.com / a.example.com b.example.com imap.mail.example.com mail.example.com in test default',
      'mail update imap.mail.example.com mail.example.com',
      'every a.example.com mail.example.com',
    ])

    const second = await night.lematt(['--test'])
    assert.equal(second.code, 0)
    assert.match(second.stdout, /^nothing to do \(test, 0\.\d s\)$/mu)
    assert.equal(recorded().length, lines.length, 'no step ran again')
    const cron = await night.lematt(['--test', '--cron'])
    assert.deepEqual([cron.code, cron.stdout, cron.stderr], [0, '', ''])
    assert.ok(!existsSync(night.path('prod')), 'staging touched production')
  })

  test('a step added is caught up with, and what was delivered is not repeated', async () => {
    const before = recorded().length
    appendFileSync(night.path('actions.conf'), `[override-b]\ndomains: b.example.com\nupdate: ["echo b reloads >> ${record()}"]\n`)
    const ran = await night.lematt(['--test', '--cron'])
    assert.equal(ran.code, 0)
    assert.match(ran.stdout, /^delivered: \[override-b\] 2 certificates, 1 step$/mu)
    assert.deepEqual(recorded().slice(before), ['b reloads'])
  })

  test('the plan names each certificate with its reason and changes nothing', async () => {
    const files = night.files('test', 'cert')
    await night.domains('a.example.com b.example.com c.example.com\nmail.example.com imap\n', ['c.example.com'])
    const plan = await night.lematt(['--test', '--dry-run'])
    assert.equal(plan.code, 0, plan.stderr)
    assert.match(plan.stdout, /a\.example\.com \+2 {2}ec {3}new: there is no certificate yet \(new key\)/u)
    const json = JSON.parse((await night.lematt(['plan', '--test', '--json'])).stdout) as { orders: { keyType: string; reason: string }[]; deliveries: { section: string }[] }
    assert.deepEqual(json.orders.map(o => o.keyType), ['ec', 'rsa'])
    assert.deepEqual(json.deliveries.map(d => d.section), ['default', 'override-b', 'every'])
    assert.deepEqual(night.files('test', 'cert'), files)
    assert.equal((await night.lematt(['--test'])).code, 0)
    assert.ok(lstatSync(night.path('test', 'key', 'b.example.com-key.rsa2048.test.pem')).isSymbolicLink())
    night.assertWhole()
  })

  test('a failed upload is delivered the next night without reissuing', async () => {
    const flag = join(night.lab.dir, 'host-is-up')
    const { x509 } = night.certificate('mail.example.com_imap.mail.example.com', 'rsa2048')
    night.actions(`[default]\nuploadCerts: ["echo up CERTS > /dev/null; test -e ${flag} || { echo host is down; exit 7; }"]\nuploadKeys: ["echo keys >> ${record()}"]\nupdate: ["echo reload >> ${record()}"]\n`)
    const before = recorded().length
    const down = await night.lematt(['--test'])
    assert.equal(down.code, 1)
    assert.match(down.stdout, /^failed: \[default\] 4 certificates: uploadCerts ".*": exit status 7\nhost is down$/mu)
    assert.equal(recorded().length, before, 'no step ran after the failed one')
    const plan = await night.lematt(['--test', '--dry-run'])
    assert.match(plan.stdout, /\[default\] deliver: failed last time \(.* UTC\): uploadCerts .*host is down/u)
    writeFileSync(flag, '')
    const up = await night.lematt(['--test'])
    assert.equal(up.code, 0, up.stdout)
    assert.match(up.stdout, /^0?.*1 delivered \(test/mu)
    assert.deepEqual(recorded().slice(before), ['keys', 'reload'])
    assert.equal(night.certificate('mail.example.com_imap.mail.example.com', 'rsa2048').x509.fingerprint256, x509.fingerprint256)
  })
})
