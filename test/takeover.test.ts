/** A directory of the Python program's is taken over: nothing is ordered that is not due, everything is delivered once. */
import assert from 'node:assert/strict'
import { chmodSync, lstatSync, readFileSync, readlinkSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { FaultyNight, lines, store } from './helpers/faultyNight.js'
import { labSkip } from './helpers/lab.js'
import { must } from './helpers/lab-process.js'
import type { Night } from './helpers/night.js'
import { OldCa, writePythonStore, type OldSubject } from './helpers/pythonStore.js'

const subjects: readonly OldSubject[] = [
  { names: ['a.example.com', 'www.a.example.com'], name: 'a.example.com_www.a.example.com', left: 60 },
  {
    names: ['mail.example.com', 'imap.mail.example.com', 'smtp.mail.example.com', 'example.org'],
    name: 'mail.example.com_example.org_imap.mail.example.com_smtp.mail.example.com', left: 60,
  },
  // The same names as in `domains`, in an order that we would not choose: the files keep their name.
  { names: ['odd.example.com', 'z.odd.example.com', 'b.odd.example.com'], name: 'odd.example.com_z.odd.example.com_b.odd.example.com', left: 60 },
  { names: ['single.example.com'], name: 'single.example.com', left: 15.5 },
]
const due: OldSubject = { names: ['due.example.com', 'x.due.example.com'], name: 'due.example.com_x.due.example.com', left: 14.5 }
const tags = ['rsa2048', 'prime256v1']

describe('taking over from the Python program', { skip: labSkip() }, () => {
  let ca: OldCa
  let faulty: FaultyNight
  let night: Night
  let old: Map<string, string>
  const record = (): string => join(night.lab.dir, 'record')
  before(async () => {
    [ca, faulty] = await Promise.all([OldCa.make(), FaultyNight.open()])
    night = faulty.night
    const accountKey = join(night.lab.dir, 'account.key.pem')
    await must('openssl', ['genrsa', '-traditional', '-out', accountKey, '2048'])
    chmodSync(accountKey, 0o600)
    night.write('lematt.conf', `# This is the configuration of lematt.
[config]
# where the web server looks
challengeDropDir: ${night.challenges}/

accountKey: ${accountKey}
; days before expiry
reauthorizeDays: 15
generateNewCertsAfterDays: 0
alwaysGenerateNewKeys: no
# 2048 is fine
keyBitsRSA: 2048
curve: prime256v1
rsaTag = rsa2048
curveTag = prime256v1

prodDirectory: ${faulty.proxy.directoryUrl}
caBundle: ${night.pebble.certFile}
`)
    await night.domains(`# our names
a.example.com www

mail.example.com imap smtp example.org   # with a comment
odd.example.com b z
single.example.com
`, ['a.example.com'])
    night.actions(`[default]
# to the web server
uploadCerts: ["echo default certs CERTS >> ${record()}"]
uploadKeys: ["echo default keys KEYS >> ${record()}"]
update: ["echo default update DOMAINS_CN >> ${record()}",
    "echo second >> ${record()}"
  ]

[override-mail]
domains: mail.example.com imap.mail.example.com smtp.mail.example.com
ocspStapleRequired: yes
uploadCerts: ["echo mail certs CERTS >> ${record()}"]
uploadKeys: ["echo mail keys KEYS >> ${record()}"]
update: ["echo mail update DOMAINS_ALL >> ${record()}"]

[every]
uploadCerts: []
uploadKeys: []
update: ["echo every DOMAINS_CN >> ${record()}"]
`)
    await writePythonStore(ca, night.path('prod'), subjects)
    old = store(night, 'prod')
  })
  after(async () => {
    ca.remove()
    await faulty.close()
  })

  /** Every file of the old store, byte for byte, each link still a link. */
  function untouched(except: RegExp = /$^/u): void {
    const now = store(night, 'prod')
    for (const [file, bytes] of old) if (!except.test(file)) assert.equal(now.get(file), bytes, `${file} was touched`)
  }

  test('the plan orders nothing, and says what is delivered', async () => {
    const { code, stdout, stderr } = await night.lematt(['--prod', '--dry-run'])
    assert.equal(code, 0, stderr)
    assert.match(stdout, /^warning: conf\/actions\.conf:\d+:\d+: .*ocspStapleRequired/mu)
    assert.match(stdout, /^nothing is due$/mu)
    assert.match(stdout, /\[default\] deliver: never delivered to this section/u)
    assert.deepEqual(night.files('prod', 'state'), [], 'a plan writes nothing')
    assert.deepEqual(faulty.proxy.seen, [])
    untouched()
  })

  test('the first night asks the CA for nothing at all and delivers everything once', async () => {
    const inodes = [...old.keys()].map(file => lstatSync(night.path(file)).ino)
    const { code, stdout, stderr } = await night.lematt(['--prod'])
    assert.equal(code, 0, stdout + stderr)
    assert.match(stdout, /^3 delivered \(prod, /mu)
    assert.deepEqual(faulty.proxy.seen, [], 'the CA was asked')
    untouched()
    assert.deepEqual([...old.keys()].map(file => lstatSync(night.path(file)).ino), inodes, 'a file was replaced')
    assert.deepEqual(new Set(store(night, 'prod').keys()), new Set(old.keys()), 'files came or went')
    for (const [directory, mode] of [['key', 0o700], ['state', 0o700], ['cert', 0o755], ['csr', 0o755]] as const) {
      assert.equal(statSync(night.path('prod', directory)).mode & 0o777, mode, directory)
    }
    const ran = lines(record())
    assert.deepEqual(ran.map(line => line.replace(/ \/.*$/u, '')), [
      'default certs', 'default keys', 'default update a.example.com mail.example.com odd.example.com single.example.com', 'second',
      'mail certs', 'mail keys', 'mail update example.org imap.mail.example.com mail.example.com smtp.mail.example.com',
      'every a.example.com mail.example.com odd.example.com single.example.com',
    ])
    const paths = (line: string | undefined): string[] => (line ?? '').split(' ').slice(2)
    const all = [...old.keys()].filter(file => file.includes('/cert/')).map(file => night.path(file))
    assert.deepEqual(paths(ran[0]).sort(), all.sort(), 'every file and link, each once')
    assert.deepEqual(paths(ran[5]).sort(), [...old.keys()].filter(file => /\/key\/(?:.*mail|example\.org)/u.test(file))
      .map(file => night.path(file)).sort())
    night.assertWhole('prod')
  })

  test('the second night has nothing to do', async () => {
    const ran = lines(record()).length
    const { code, stdout } = await night.lematt(['--prod'])
    assert.equal(code, 0)
    assert.match(stdout, /^nothing to do \(prod, /mu)
    const cron = await night.lematt(['--prod', '--cron'])
    assert.deepEqual([cron.code, cron.stdout, cron.stderr], [0, '', ''])
    assert.equal(lines(record()).length, ran)
    assert.deepEqual(faulty.proxy.seen, [])
    untouched()
  })

  test('a due certificate is renewed with its old key, byte for byte', async () => {
    await writePythonStore(ca, night.path('prod'), [due])
    const before = store(night, 'prod')
    await night.domains(`${night.read('domains')}due.example.com x\n`, [...due.names])
    const ran = lines(record()).length
    const plan = await night.lematt(['--prod', '--dry-run'])
    assert.match(plan.stdout, /^ {2}due\.example\.com \+1 {2}rsa {2}renew: 1[45] days left of 90 days$/mu)
    const { code, stdout } = await night.lematt(['--prod'])
    assert.equal(code, 0, stdout)
    assert.match(stdout, /^2 issued, 2 delivered \(prod/mu)
    assert.deepEqual(faulty.ordered(), [due.names.join(' '), due.names.join(' ')])
    const now = store(night, 'prod')
    for (const tag of tags) {
      const [key, certificate] = [`${due.name}-key.${tag}.pem`, `${due.name}-cert-combined.${tag}.pem`]
      assert.equal(now.get(`prod/key/${key}`), before.get(`prod/key/${key}`), 'the key changed')
      assert.match(now.get(`prod/key/${key}`) ?? '', tag === 'rsa2048' ? /^-----BEGIN RSA/u : /^-----BEGIN EC PARAMETERS/u)
      assert.notEqual(now.get(`prod/cert/${certificate}`), before.get(`prod/cert/${certificate}`))
      assert.equal(now.get(`prod/previous/${certificate}`), before.get(`prod/cert/${certificate}`))
      assert.ok(night.certificate(due.name, tag, 'prod').belongs)
      assert.equal(readlinkSync(night.path('prod', 'cert', `x.due.example.com-cert-combined.${tag}.pem`)), certificate)
    }
    const steps = lines(record()).slice(ran)
    assert.equal(steps.length, 5, steps.join('\n'))
    assert.ok(steps.every(step => !/mail|single|odd|\/a\.example/u.test(step)), 'something else was delivered again')
    untouched()
    night.assertWhole('prod')
  })

  test('a name more gives new files under a new name, and the old ones stay', async () => {
    await night.domains(night.read('domains').replace('a.example.com www', 'a.example.com www ftp'),
      ['a.example.com', 'www.a.example.com', 'ftp.a.example.com'])
    faulty.proxy.use()
    const plan = await night.lematt(['--prod', '--dry-run'])
    assert.match(plan.stdout, /^ {2}a\.example\.com \+2 {2}ec {3}new: .* \(new key\)$/mu)
    const { code, stdout } = await night.lematt(['--prod'])
    assert.equal(code, 0, stdout)
    assert.match(stdout, /^2 issued, 2 delivered \(prod/mu)
    const name = 'a.example.com_ftp.a.example.com_www.a.example.com'
    assert.equal(new Set(faulty.ordered()).size, 1)
    for (const tag of tags) {
      const { names, belongs } = night.certificate(name, tag, 'prod')
      assert.deepEqual([names, belongs], [['a.example.com', 'ftp.a.example.com', 'www.a.example.com'], true])
      for (const one of names) {
        assert.equal(readlinkSync(night.path('prod', 'key', `${one}-key.${tag}.pem`)), `${name}-key.${tag}.pem`)
      }
    }
    // Links now lead to the new files; the old files themselves are as they were.
    untouched(/\/(?:www\.)?a\.example\.com-(?:key|cert)/u)
    const old1 = night.path('prod', 'key', 'a.example.com_www.a.example.com-key.rsa2048.pem')
    assert.equal(readFileSync(old1, 'latin1'), old.get('prod/key/a.example.com_www.a.example.com-key.rsa2048.pem'))
    night.assertWhole('prod')
  })

  test('with the receipts lost it delivers again, and orders nothing', async () => {
    rmSync(night.path('prod', 'state'), { recursive: true })
    const before = store(night, 'prod')
    faulty.proxy.use()
    const { code, stdout } = await night.lematt(['--prod'])
    assert.equal(code, 0, stdout)
    assert.match(stdout, /^3 delivered \(prod/mu)
    assert.deepEqual(faulty.proxy.seen, [])
    assert.deepEqual(store(night, 'prod'), before)
  })
})
