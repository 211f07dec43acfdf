/**
 * From nothing to the first delivery, as docs/hosts.md tells it: a fresh host, `lematt enroll … | sh` there as root, and a
 * night in which the CA reaches the name through that host alone.
 */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { freshen, systemSshd } from './helpers/freshHost.js'
import { labSkip, type LabHost } from './helpers/lab.js'
import { Night } from './helpers/night.js'

const needs = labSkip() || (userInfo().uid !== 0 && 'needs root, for a user database')
  || (!existsSync('/usr/sbin/visudo') && 'needs sudo: run scripts/setup')

describe('from nothing to the first delivery', { skip: needs }, () => {
  let night: Night
  let host: LabHost
  let fingerprint: string
  const enrol = ['enroll', 'mx1', '--reload', 'demo=/usr/local/sbin/reload-demo', '--forward', 'redirect']
  before(async () => {
    night = await Night.open({ actions: '[default]\n[mail]\ndomains: mail.example.com\nhosts: mx1\nreload: demo\nforward: redirect\n' })
    host = await night.lab.host('mx1')
    await freshen(host)
    const sshd = await systemSshd(host)
    fingerprint = (await host.must('ssh-keygen', ['-lf', join(sshd.directory, 'host_key.pub')])).split(' ')[1] ?? ''
    await host.must('sh', ['-ec', `printf '#!/bin/sh\\nid -un >>%s\\n' "$0/reloads" >/usr/local/sbin/reload-demo; chmod 755 /usr/local/sbin/reload-demo`, host.dir])
    const config = join(night.lab.dir, 'ssh', 'config')
    mkdirSync(join(night.lab.dir, 'ssh'), { mode: 0o700 })
    writeFileSync(config, `Host *\n  UserKnownHostsFile ${join(night.lab.dir, 'ssh', 'known_hosts')}\n  GlobalKnownHostsFile /dev/null\n  ConnectTimeout 5\n`, { mode: 0o600 })
    night.settings({ sshConfig: config, challengeUrl: 'http://central.example.com' })
    await night.domains('mail.example.com\n', [])
    await night.lab.dns.set('central.example.com', [night.lab.address])
    await night.lab.dns.set('mail.example.com', [host.address])
  })
  after(async () => { await night.close() })

  test('before: nothing is delivered and nothing is validated, and the message says what to do', async () => {
    const ran = await night.lematt(['--test'], { timeoutMs: 90_000 })
    assert.equal(ran.code, 1)
    assert.match(ran.stdout, /mx1: .*lematt enroll mx1/u)
    assert.deepEqual(night.files('test', 'cert'), [])
    const check = await night.lematt(['check', '--hosts', '--test'])
    assert.equal(check.code, 1)
    assert.match(check.stdout, /^error: .*mx1/mu)
  })

  test('lematt enroll prints the script for root, which makes the host take deliveries; a second time it changes nothing', async () => {
    const words = [...enrol, '--hostname', host.address]
    const wrong = await night.lematt([...words, '--fingerprint', 'SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA'])
    assert.notEqual(wrong.code, 0)
    assert.equal(wrong.stdout, '', 'no script for a host that is not the one meant')
    const ran = await night.lematt([...words, '--fingerprint', fingerprint])
    assert.equal(ran.code, 0, ran.stderr)
    const done = await host.exec('sh', [], { input: ran.stdout })
    assert.equal(done.code, 0, done.stderr)
    const again = await night.lematt([...words, '--fingerprint', fingerprint])
    assert.equal(again.stdout, ran.stdout)
    const twice = await host.exec('sh', [], { input: again.stdout })
    assert.equal(twice.code, 0)
    assert.match(twice.stdout + twice.stderr, /unchanged/u)
    assert.doesNotMatch(twice.stdout + twice.stderr, /^changed/mu)
  })

  test('after: the CA reaches the name through the host, the files are there, the service was reloaded by root', async () => {
    const ran = await night.lematt(['--test', '--only', 'mail.example.com'], { timeoutMs: 90_000 })
    assert.equal(ran.code, 0, ran.stdout + ran.stderr)
    assert.match(ran.stdout, /^delivered: \[mail\] mx1: 4 files, demo reloaded/mu)
    assert.equal(readFileSync(join(host.dir, 'reloads'), 'utf8'), 'root\n')
    const key = 'mail.example.com-key.prime256v1.test.pem'
    assert.equal(await host.must('cat', [`/etc/lematt/tls/key/${key}`]), night.read('test', 'key', key))
    assert.match(await host.must('stat', ['-c', '%U %G %a', `/etc/lematt/tls/key/${key}`]), /^certmaint ssl-cert 640$/mu)
    assert.equal((await host.exec('sh', ['-c', 'ss -Hltn sport = :80'])).stdout.trim(), '', 'nobody is left on port 80')
    const check = await night.lematt(['check', '--hosts', '--test'])
    assert.equal(check.code, 0, check.stdout)
    assert.deepEqual(await night.lematt(['--test', '--cron']).then(({ code, stdout, stderr }) => ({ code, stdout, stderr })), { code: 0, stdout: '', stderr: '' })
  })
})
