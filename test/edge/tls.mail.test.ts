/** The probe with real mail servers: postfix and dovecot, over STARTTLS and TLS from the first byte, before and after a reload. */
import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { copyFileSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { probe, type Probe } from '../../src/edge/tls.js'
import type { KeyType, VerifyPort } from '../../src/core/types.js'
import { mailSkip, startDovecot, startPostfix, type MailService } from '../helpers/lab-mail.js'
import { placeholders, type Pair } from '../helpers/lab-nginx.js'
import { Lab, type LabHost } from '../helpers/lab.js'
import { until } from '../helpers/until.js'

const ports: readonly [number, VerifyPort['protocol']][] = [
  [25, 'smtp'], [465, 'tls'], [143, 'imap'], [993, 'tls'], [110, 'pop3'], [995, 'tls'],
]
const goodbye = / ehlo=1 starttls=1 quit=1 commands=3/u
const keyTypes: readonly KeyType[] = ['rsa', 'ec']

describe('the probe and real mail servers', { skip: mailSkip() }, () => {
  let lab: Lab
  let host: LabHost
  let pairs: Record<KeyType, Pair>
  let next: Record<KeyType, Pair>
  let postfix: MailService
  let dovecot: MailService
  let ready = { postfix: '', dovecot: '' }

  before(async () => {
    lab = await Lab.open()
    host = await lab.host('mx1')
    const pair = (name: string): Pair => ({ key: join(host.dir, `${name}.key`), cert: join(host.dir, `${name}.pem`) })
    pairs = { rsa: pair('rsa'), ec: pair('ec') }
    next = { rsa: pair('next-rsa'), ec: pair('next-ec') }
    await placeholders(Object.values(next))
    postfix = await startPostfix(host, [pairs.rsa, pairs.ec])
    dovecot = await startDovecot(host, [pairs.rsa, pairs.ec])
    // Whoever waited for the ports has left at once: what counts is logged after that.
    await until(() => (postfix.log().match(/ disconnect from/gu) ?? []).length >= 2, { what: 'log of postfix' })
    ready = { postfix: postfix.log(), dovecot: dovecot.log() }
  })
  after(() => lab.close())

  const fingerprint = (pair: Pair): string =>
    new X509Certificate(readFileSync(pair.cert)).fingerprint256.replaceAll(':', '').toLowerCase()
  const ask = (port: number, protocol: VerifyPort['protocol'], keyType?: KeyType, address = host.address): Promise<Probe> =>
    probe({ address, port, protocol, servername: 'mail.example.com', ...(keyType && { keyType }), signal: new AbortController().signal })
  const shown = async (...args: Parameters<typeof ask>): Promise<string> => {
    const seen = await ask(...args)
    return seen.ok ? seen.fingerprint : seen.message
  }

  for (const [port, protocol] of ports) {
    test(`port ${port} (${protocol}) shows the certificate of the key type that is asked for, over IPv4 and IPv6`, async () => {
      for (const keyType of keyTypes) {
        for (const address of [host.address, host.address6]) {
          assert.equal(await shown(port, protocol, keyType, address), fingerprint(pairs[keyType]), `${keyType} ${address}`)
        }
      }
      assert.ok(Object.values(pairs).map(fingerprint).includes(await shown(port, protocol)))
    })
  }

  test('their logs tell of clients that said goodbye, and of none that was lost in between', async () => {
    await until(() => goodbye.test(postfix.log()), { what: 'its log' })
    const [, log = ''] = postfix.log().split(ready.postfix)
    assert.doesNotMatch(log, /lost connection after (?:EHLO|STARTTLS)|SSL_accept error|warning/u)
    assert.doesNotMatch(dovecot.log().split(ready.dovecot)[1] ?? '', /SSL_accept|handshaking: Disconnected|Error|Warning/u)
  })

  test('what is asked of the wrong port says what is there instead', async () => {
    assert.match(await shown(25, 'imap'), /^does not speak IMAP: it says "220 mx1\.lab\.test ESMTP Postfix[^"]*"; see what listens/u)
    assert.match(await shown(143, 'smtp'), /^does not speak SMTP: it says "\* OK /u)
    assert.match(await shown(143, 'pop3'), /^does not speak POP3: it says "\* OK /u)
    assert.match(await shown(25, 'tls'), /^answers, but not in TLS; .*25\/smtp, 25\/imap or 25\/pop3/u)
  })

  test('new files are shown after a reload, by all ports and key types', async () => {
    const before = { rsa: fingerprint(pairs.rsa), ec: fingerprint(pairs.ec) }
    for (const keyType of keyTypes) {
      copyFileSync(next[keyType].key, pairs[keyType].key)
      copyFileSync(next[keyType].cert, pairs[keyType].cert)
    }
    // Dovecot has read its files once; processes of postfix come and go, and each reads them for itself.
    for (const keyType of keyTypes) assert.equal(await shown(993, 'tls', keyType), before[keyType])
    await Promise.all([postfix.reload(), dovecot.reload()])
    for (const [port, protocol] of ports) {
      for (const keyType of keyTypes) {
        await until(async () => await shown(port, protocol, keyType) === fingerprint(next[keyType]), { what: `${port} ${keyType}` })
      }
    }
  })

  test('a service that cannot read its key offers no STARTTLS, and the probe says so', async () => {
    await host.must('truncate', ['-s', '0', pairs.rsa.key, pairs.ec.key])
    await postfix.reload()
    await until(async () => /STARTTLS/u.test(await shown(25, 'smtp')), { what: 'no STARTTLS' })
    assert.match(await shown(25, 'smtp'), /^(?:offers no STARTTLS; switch TLS on|refuses STARTTLS: "454 4\.7\.0 TLS not available)/u)
  })

  test('both end, and leave no process behind', async () => {
    await Promise.all([postfix.stop(), dovecot.stop()])
    const left = await host.must('ps', ['-e', '-o', 'comm='])
    assert.doesNotMatch(left, /master|smtpd|dovecot|imap|pop3|anvil|postlog/u)
    for (const [port, protocol] of ports) assert.match(await shown(port, protocol), /^connection refused; see whether the service runs/u)
  })
})
