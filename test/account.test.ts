/** The account key at the command line: made, refused, or warned of; and what a run does without one. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdirSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, before, beforeEach, describe, test } from 'node:test'
import { FaultyNight, lines, orderFailures, store } from './helpers/faultyNight.js'
import { labSkip } from './helpers/lab.js'
import { must } from './helpers/lab-process.js'
import { accountKey } from '../src/account.js'
import type { Night } from './helpers/night.js'
import { temporaryDirectory } from './helpers/store.js'

describe('the account key', { skip: labSkip() }, () => {
  let faulty: FaultyNight
  let night: Night
  let key: string
  let good: string
  let held: Map<string, string>
  const record = (): string => join(night.lab.dir, 'record')
  before(async () => {
    faulty = await FaultyNight.open({ settings: { keyTypes: 'ec' }, domains: 'held.example.com\n' })
    night = faulty.night
    key = join(night.lab.dir, 'account.key')
  })
  after(() => faulty.close())
  beforeEach(() => faulty.proxy.use())

  test('missing: it is made for its owner alone, whatever the umask, and kept', async () => {
    const program = [process.execPath, new URL('../dist/src/cli.js', import.meta.url).pathname]
    const { code, stdout } = await night.lab.run('sh', ['-c', 'umask 000; exec "$@"', 'sh', ...program, '--test', '--config', night.conf],
      { cwd: night.lab.dir })
    assert.equal(code, 0, stdout)
    assert.match(stdout, new RegExp(`^made a new account key ${key}: keep a copy of it in a safe place$`, 'mu'))
    assert.equal(statSync(key).mode & 0o777, 0o600)
    good = readFileSync(key, 'utf8')
    assert.ok(!stdout.includes('PRIVATE KEY'))
    held = store(night)
    for (const [directory, mode] of [['key', 0o700], ['state', 0o700], ['cert', 0o755]] as const) {
      assert.equal(statSync(night.path('test', directory)).mode & 0o777, mode, directory)
    }
    await night.domains('held.example.com\nnew.example.com\n')
  })

  /** A run that finds no usable account key: it says so, asks the CA for nothing, and delivers all the same. */
  async function refused(step: string, message: RegExp): Promise<void> {
    night.actions(`[default]\nupdate: ["echo ${step} DOMAINS_ALL >> ${record()}"]\n`)
    const { code, stdout, stderr } = await night.lematt(['--test'])
    assert.equal(code, 1, stdout + stderr)
    assert.match(stdout, message)
    assert.ok(stdout.split('\n').some(line => line.startsWith('failed: new.example.com ec: ') && line.includes(key)), stdout)
    assert.doesNotMatch(stdout + stderr, /secret|PRIVATE|at .*\.js:/u)
    assert.deepEqual(faulty.proxy.seen, [], 'the CA was asked')
    assert.deepEqual(store(night), held)
    assert.equal(lines(record()).at(-1), `${step} held.example.com`)
    assert.deepEqual(orderFailures(night), {}, 'counted against a certificate')
    night.assertWhole()
  }

  test('garbage in it', async () => {
    writeFileSync(key, 'no key, but secret\n')
    await refused('garbage', /the account key \S+ holds no PEM private key; give it/u)
    assert.equal(readFileSync(key, 'utf8'), 'no key, but secret\n', 'it was overwritten')
  })

  test('empty, as a full disk leaves it', async () => {
    writeFileSync(key, '')
    await refused('empty', /the account key \S+ is empty; give it/u)
    assert.equal(readFileSync(key, 'utf8'), '')
  })

  test('encrypted with a passphrase', async () => {
    await must('openssl', ['genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-aes256',
      '-pass', 'pass:secret', '-out', key])
    await refused('encrypted', /is encrypted, and a night run has no passphrase/u)
  })

  test('of a kind that no CA takes', async () => {
    rmSync(key)
    await must('openssl', ['genpkey', '-algorithm', 'ed25519', '-out', key])
    chmodSync(key, 0o600)
    await refused('ed25519', /is of a kind that ACME servers do not take \(ed25519\); give it an RSA/u)
  })

  test('a directory in its place', async () => {
    rmSync(key)
    mkdirSync(key)
    await refused('directory', /cannot be read: .*directory/u)
    rmSync(key, { recursive: true })
  })

  test('writable by others', async () => {
    writeFileSync(key, good)
    chmodSync(key, 0o620)
    await refused('writable', new RegExp(`can be written by others \\(mode 620\\): chmod 600 ${key}, and replace it`, 'u'))
    assert.equal(statSync(key).mode & 0o777, 0o620)
  })

  test('its directory missing', async () => {
    const directory = join(night.lab.dir, 'nowhere')
    const usual = key
    key = join(directory, 'account.key')
    faulty.settings({ keyTypes: 'ec', accountKey: key })
    await refused('nowhere', /is missing, and so is its directory: make the directory \(0700\)/u)
    assert.throws(() => statSync(directory), 'the directory was made')
    key = usual
    faulty.settings({ keyTypes: 'ec' })
  })

  test('not to be read by the user that runs lematt', async (t) => {
    const program = [process.execPath, new URL('../dist/src/cli.js', import.meta.url).pathname]
    const user = ['--reuid', '65534', '--regid', '65534', '--clear-groups', '--']
    const can = await night.lab.run('setpriv', [...user, program[0] ?? '', program[1] ?? '', '--version'])
    if (can.code !== 0) {
      t.skip('needs root, and a checkout that other users can read')
      return
    }
    chmodSync(night.lab.dir, 0o711)
    await must('chown', ['-R', '65534:65534', night.conf, night.challenges])
    writeFileSync(key, good)
    chmodSync(key, 0o600)
    const ran = await night.lab.run('setpriv', [...user, ...program, '--test', '--config', night.conf], { cwd: night.conf })
    await must('chown', ['-R', 'root:root', night.conf, night.challenges])
    assert.equal(ran.code, 1, ran.stdout + ran.stderr)
    assert.match(ran.stdout, new RegExp(`^failed: new\\.example\\.com ec: the account key ${key} cannot be read: .*EACCES.*; `
      + 'make it readable for the user that runs lematt$', 'mu'))
    assert.deepEqual(faulty.proxy.seen, [])
    assert.deepEqual(store(night), held)
  })

  test('readable by others: a warning with its remedy, and the run goes on with the same account', async () => {
    chmodSync(key, 0o644)
    const { code, stdout } = await night.lematt(['--test'])
    assert.equal(code, 0, stdout)
    assert.match(stdout, new RegExp(`^warning: .*${key} can be read by others \\(mode 644\\): chmod 600 ${key}$`, 'mu'))
    assert.match(stdout, /1 issued, 1 delivered/u)
    assert.equal(readFileSync(key, 'utf8'), good)
    assert.doesNotMatch(stdout, /made a new account key/u)
    assert.equal(stdout.match(/can be read by others/gu)?.length, 1)
    const json = await night.lematt(['--test', '--json', '--only', 'held.example.com', '--force'])
    assert.equal(json.code, 0, json.stdout + json.stderr)
    const { warnings } = JSON.parse(json.stdout) as { warnings: string[] }
    assert.deepEqual(warnings.filter(w => w.includes('account')), [`the account key ${key} can be read by others (mode 644): chmod 600 ${key}`])
    night.assertWhole()
  })

  test('as the Python program and openssl write it: PKCS#1 and SEC1 with its parameters', async () => {
    for (const [name, args] of [
      ['rsa', ['genrsa', '-traditional', '-out', key, '2048']],
      ['sec1', ['ecparam', '-genkey', '-name', 'prime256v1', '-out', key]],
    ] as const) {
      await must('openssl', args)
      const pem = readFileSync(key, 'utf8')
      assert.match(pem, name === 'rsa' ? /BEGIN RSA PRIVATE KEY/u : /BEGIN EC PARAMETERS[^]+BEGIN EC PRIVATE KEY/u)
      chmodSync(key, 0o600)
      const { code, stdout } = await night.lematt(['--test', '--only', 'held.example.com', '--force'])
      assert.equal(code, 0, stdout)
      assert.match(stdout, /1 issued/u)
      assert.equal(readFileSync(key, 'utf8'), pem)
    }
    night.assertWhole()
  })
})

test('several first runs at once (--test beside --prod) have one account key: who comes second takes that of the first', async t => {
  const directory = temporaryDirectory(t)
  const children = Array.from({ length: 6 }, () => {
    const child = spawn(process.execPath, ['--import', 'tsx', 'test/helpers/storeChild.ts', 'accountKey', directory], { stdio: ['pipe', 'pipe', 'inherit'] })
    t.after(() => child.kill('SIGKILL'))
    return { child, ended: once(child, 'exit'), lines: createInterface(child.stdout)[Symbol.asyncIterator]() }
  })
  const say = async (): Promise<string[]> => Promise.all(children.map(async c => String((await c.lines.next()).value)))
  assert.deepEqual(new Set(await say()), new Set(['ready']))
  for (let round = 0; round < 10; round++) {
    for (const { child } of children) child.stdin.write(`${round}\n`)
    const told = (await say()).map(line => JSON.parse(line) as { pem: string; made: boolean })
    const path = join(directory, `${round}`)
    const pem = readFileSync(path, 'utf8')
    assert.equal(told.filter(each => each.made).length, 1, `round ${round}: how many say that they made it`)
    for (const each of told) assert.equal(each.pem, pem, `round ${round}: a key that is not the one on disk`)
    assert.equal(statSync(path).mode & 0o777, 0o600)
  }
  for (const { child } of children) child.stdin.end()
  await Promise.all(children.map(c => c.ended))
  assert.deepEqual(readdirSync(directory).filter(name => name.startsWith('.')), [])
})

test('a link that leads nowhere is not replaced by an account key', async t => {
  const path = join(temporaryDirectory(t), 'account.key')
  symlinkSync('not-mounted/account.key', path)
  await assert.rejects(accountKey(path), /the account key \S+ is a link that leads nowhere: make what it leads to, or remove the link/u)
  assert.equal(readlinkSync(path), 'not-mounted/account.key')
  assert.deepEqual(readdirSync(join(path, '..')), ['account.key'])
})
