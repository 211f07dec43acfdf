/** Spec §8's own example: a mail host with postfix and dovecot, proved at 993, 465 and through STARTTLS. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { mailSkip, startDovecot, startPostfix, type MailService } from './helpers/lab-mail.js'
import { receiverOn, type Receiver } from './helpers/lab-receiver.js'
import { Night } from './helpers/night.js'

describe('a mail host', { skip: mailSkip() }, () => {
  let night: Night
  let receiver: Receiver
  let dovecot: MailService
  before(async () => {
    night = await Night.open({ domains: 'mail.example.com\n', actions: '[mail]\ndomains: mail.example.com\nhosts: mx1\nreload: postfix dovecot\nverify: 993 465 25/smtp 143/imap 110/pop3\n[default]\n' })
    night.settings({ sshConfig: night.lab.sshConfig })
    const host = await night.lab.host('mx1')
    const pair = (tag: string): { cert: string; key: string } => ({ cert: join(host.dir, 'tls', 'cert', `mail.example.com-cert-combined.${tag}.pem`), key: join(host.dir, 'tls', 'key', `mail.example.com-key.${tag}.pem`) })
    const postfix = await startPostfix(host, [pair('prime256v1'), pair('rsa2048')])
    dovecot = await startDovecot(host, [pair('prime256v1'), pair('rsa2048')])
    receiver = await receiverOn(host, { services: { postfix: postfix.reloadCommand, dovecot: dovecot.reloadCommand } })
  })
  after(async () => { await night.close() })

  test('4 files, both services reloaded, every port shows the new certificate of both key types', async () => {
    const ran = await night.lematt(['--prod'])
    assert.equal(ran.code, 0, ran.stdout + ran.stderr)
    assert.match(ran.stdout, /^delivered: \[mail\] mx1: 4 files, postfix and dovecot reloaded, 993, 465, 25\/smtp, 143\/imap and 110\/pop3 show the new certificate/mu)
    assert.deepEqual(receiver.reloads(), ['postfix', 'dovecot'])
    const second = await night.lematt(['--prod', '--cron'])
    assert.deepEqual([second.code, second.stdout, second.stderr], [0, '', ''], 'every port still shows it')
  })

  test('a renewal reaches them all; a service that is down is named with its ports, and nothing else is touched', async () => {
    const renewed = await night.lematt(['--prod', '--only', 'mail.example.com', '--force'])
    assert.equal(renewed.code, 0, renewed.stdout + renewed.stderr)
    await dovecot.stop()
    night.settings({ sshConfig: night.lab.sshConfig, verifyGrace: '2' })
    const down = await night.lematt(['--prod', '--json'], { timeoutMs: 90_000 })
    assert.equal(down.code, 1)
    const { hosts: [failed] } = JSON.parse(down.stdout) as { hosts: { status: string; step: string; message: string; reason: string; verified: string[] }[] }
    assert.match(failed?.reason ?? '', /^993 .*(?:refused|connect)/u)
    assert.deepEqual([failed?.status, failed?.step], ['failed', 'verify 993 143/imap 110/pop3'])
    assert.deepEqual(failed?.verified.filter(port => port.startsWith('993')), [])
    night.assertWhole('prod')
  })
})
