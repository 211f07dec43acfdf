/** What a night does when its own machine fails it: full and read-only disks, damaged files. */
import assert from 'node:assert/strict'
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { labSkip } from './helpers/lab.js'
import { must } from './helpers/lab-process.js'
import { Night } from './helpers/night.js'
import { asked, contents } from './helpers/witness.js'

describe('a disk that fails', { skip: labSkip(), concurrency: false }, () => {
  let night: Night
  const record = (): string => join(night.lab.dir, 'record')
  const recorded = (): string[] => (existsSync(record()) ? readFileSync(record(), 'utf8').trim().split('\n') : [])
  const mounts: string[] = []
  async function mount(directory: string, options: string): Promise<void> {
    await must('mount', ['-t', 'tmpfs', '-o', `mode=0755,${options}`, 'tmpfs', directory])
    mounts.push(directory)
  }
  async function unmount(): Promise<void> {
    for (const directory of mounts.splice(0)) await must('umount', ['-l', directory])
  }
  /** Leaves no block free; @returns the file to remove to make room */
  function fill(directory: string): string {
    const file = join(directory, 'filler')
    for (const size of [65_536, 4096]) {
      try {
        for (;;) appendFileSync(file, Buffer.alloc(size))
      } catch (error) {
        assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC')
      }
    }
    return file
  }
  before(async () => {
    night = await Night.open({ settings: { keyTypes: 'ec' } })
    await night.domains('a.example.com b.example.com\nc.example.com\n')
    night.actions(`[default]\nuploadCerts: ["echo CERTS >> ${record()}"]\n`)
  })
  after(async () => {
    await unmount()
    await night.close()
  })

  test('the challenge directory is missing, a file, or mounted read-only: no challenge is asked for, nothing is delivered', async () => {
    const cases: [string, () => Promise<void> | void, RegExp][] = [
      ['nowhere', () => undefined, /does not exist; create it and let the web server serve it/u],
      ['file', () => writeFileSync(join(night.lab.dir, 'file'), ''), /is not a directory; name the one/u],
      ['read-only', async () => {
        mkdirSync(join(night.lab.dir, 'read-only'))
        await mount(join(night.lab.dir, 'read-only'), 'ro')
      }, /is on a file system mounted read-only; remount it/u],
    ]
    for (const [name, make, remedy] of cases) {
      await make()
      const directory = join(night.lab.dir, name)
      night.settings({ keyTypes: 'ec', challengeDropDir: directory })
      const ran = await night.lematt(['--test', '--only', 'a.example.com', 'c.example.com'])
      assert.equal(ran.code, 1, ran.stdout + ran.stderr)
      assert.match(ran.stdout, new RegExp(`^failed: a\\.example\\.com \\+1 ec: challengeDropDir ${directory} `, 'mu'))
      assert.match(ran.stdout, remedy)
      assert.match(ran.stdout, /^1 failed, 1 parked \(test/mu)
      assert.equal(asked(night.pebble).orders, 0, 'an order was spent')
      assert.equal(ran.stderr, '')
      if (name === 'read-only') {
        const check = await night.lematt(['check', '--test'])
        assert.equal(check.code, 1)
        assert.match(check.stdout, new RegExp(`^error: challengeDropDir ${directory} is on a file system mounted read-only; remount it`, 'mu'))
      }
    }
    assert.equal(asked(night.pebble).challenges, 0)
    assert.deepEqual(recorded(), [])
    assert.deepEqual(night.files('test', 'cert'), [])
    night.assertWhole()
    await unmount()
  })

  test('the challenge directory is on a full disk', async () => {
    const directory = join(night.lab.dir, 'full')
    mkdirSync(directory)
    await mount(directory, 'size=64k')
    const filler = fill(directory)
    night.settings({ keyTypes: 'ec', challengeDropDir: directory })
    const ran = await night.lematt(['--test', '--only', 'c.example.com'])
    assert.equal(ran.code, 1)
    assert.match(ran.stdout, new RegExp(`^failed: c\\.example\\.com ec: challengeDropDir ${directory} is on a full disk; make room$`, 'mu'))
    assert.deepEqual(readdirSync(directory), ['filler'], 'a half written challenge is left')
    assert.equal(asked(night.pebble).challenges, 0)
    unlinkSync(filler)
    await unmount()
  })

  test('the store is on a full disk: the old pairs stay byte for byte, and the night after makes up for it', async () => {
    await mount(night.conf, 'size=512k')
    night.settings({ keyTypes: 'ec', alwaysGenerateNewKeys: 'yes' })
    await night.domains('a.example.com b.example.com\nc.example.com\n')
    night.actions(`[default]\nuploadCerts: ["echo CERTS >> ${record()}"]\n`)
    const first = await night.lematt(['--test'])
    assert.equal(first.code, 0, first.stdout + first.stderr)
    assert.equal(recorded().length, 1)

    const old = { key: contents(night.path('test', 'key')), cert: contents(night.path('test', 'cert')), csr: contents(night.path('test', 'csr')), previous: contents(night.path('test', 'previous')) }
    const filler = fill(night.conf)
    const full = await night.lematt(['--test', '--only', 'c.example.com', '--force'])
    assert.equal(full.code, 1, full.stdout + full.stderr)
    const said = full.stdout + full.stderr
    assert.match(said, /the disk is full: make room and run again; nothing was replaced/u)
    assert.doesNotMatch(said, /bug|at .*\.js:\d/u)
    assert.deepEqual({ key: contents(night.path('test', 'key')), cert: contents(night.path('test', 'cert')), csr: contents(night.path('test', 'csr')), previous: contents(night.path('test', 'previous')) }, old)
    night.assertWhole()
    assert.ok(!existsSync(night.path('test', 'state', 'lock')))
    assert.equal(recorded().length, 1, 'a step ran for a certificate that was not saved')

    unlinkSync(filler)
    const room = await night.lematt(['--test', '--only', 'c.example.com', '--force'])
    assert.equal(room.code, 0, room.stdout + room.stderr)
    assert.equal(recorded().length, 2)
    night.assertWhole()
    await unmount()
  })

  test('the disk is full for one pair, and has room again for the next', async () => {
    // Only the directory of requests: the last file of a pair to be written.
    rmSync(record(), { force: true })
    night.settings({ keyTypes: 'ec' })
    assert.equal((await night.lematt(['--test', '--only', 'a.example.com'])).code, 0)
    const csr = night.path('test', 'csr')
    await mount(csr, 'size=32k,nr_inodes=16')
    fill(csr)
    const keys = contents(night.path('test', 'key'))
    const { orders } = asked(night.pebble)
    const ran = await night.lematt(['--test', '--only', 'c.example.com'])
    assert.equal(ran.code, 1)
    assert.match(ran.stdout, new RegExp(`^failed: c\\.example\\.com ec: cannot write into the directory ${csr}: the disk is full: make room`, 'mu'))
    assert.equal(asked(night.pebble).orders, orders, 'an order was spent on what cannot be saved')
    assert.deepEqual(contents(night.path('test', 'key')), keys)

    // It fills up after that was looked at. A new name, for the CA has to ask for a challenge.
    rmSync(join(csr, 'filler'))
    await night.domains('a.example.com b.example.com\nc.example.com\nlate.example.com\n')
    night.actions(`[default]\nprepare: ["dd if=/dev/zero of=${csr}/filler bs=4k 2>/dev/null; sleep 60"]\n`)
    const late = await night.lematt(['--test', '--only', 'late.example.com'])
    assert.equal(late.code, 1)
    assert.match(late.stdout, /^failed: late\.example\.com ec: cannot write \S+late\.example\.com-csr\.prime256v1\.test\.csr: the disk is full: make room/mu)
    assert.deepEqual(contents(night.path('test', 'key')), keys, 'a key without its certificate')
    assert.deepEqual(night.files('test', 'csr'), ['filler'])
    night.assertWhole()
    await unmount()
    night.actions('[default]\n')
    assert.equal((await night.lematt(['--test', '--only', 'c.example.com', 'late.example.com'])).code, 0)
    night.assertWhole()
  })

  test('the state alone is on a full disk: nothing is started without a lock, and the message says what to do', async () => {
    rmSync(record(), { force: true })
    await mount(night.path('test', 'state'), 'size=8k')
    fill(night.path('test', 'state'))
    const before = asked(night.pebble).requests
    const pairs = contents(night.path('test', 'cert'))
    const ran = await night.lematt(['--test', '--only', 'c.example.com', '--force'])
    assert.equal(ran.code, 1, ran.stdout)
    assert.match(ran.stderr, /^lematt: cannot take the lock \S+\/test\/state\/lock: the disk is full: make room and run again/mu)
    assert.equal(asked(night.pebble).requests, before)
    assert.deepEqual(contents(night.path('test', 'cert')), pairs)
    assert.deepEqual(recorded(), [])
    assert.deepEqual(readdirSync(night.path('test', 'state')), ['filler'])
    await unmount()
  })

  test('room for the lock, but not for receipts: the night goes on, says so, exits 1, and delivers again', async () => {
    rmSync(record(), { force: true })
    night.actions(`[default]\nuploadCerts: ["echo default >> ${record()}"]\n[every]\nuploadCerts: ["echo every >> ${record()}"]\n`)
    // Something stands where receipts belong.
    for (const file of ['receipts.json', 'failures.json']) {
      rmSync(night.path('test', 'state', file), { force: true })
      mkdirSync(night.path('test', 'state', file))
      writeFileSync(night.path('test', 'state', file, 'x'), '')
    }
    const ran = await night.lematt(['--test', '--cron'])
    assert.equal(ran.code, 1, ran.stdout + ran.stderr)
    assert.deepEqual(recorded(), ['default', 'every'])
    assert.match(ran.stdout, /^\S+receipts\.json is unreadable \(.*\): every certificate is delivered again$/mu)
    assert.match(ran.stdout, /^failed: cannot write \S+receipts\.json: a directory stands in its place: move it away$/mu)
    assert.doesNotMatch(ran.stdout + ran.stderr, /bug/u)
    night.assertWhole()
    for (const file of ['receipts.json', 'failures.json']) rmSync(night.path('test', 'state', file), { recursive: true })
    assert.equal((await night.lematt(['--test'])).code, 0)
    assert.deepEqual(recorded(), ['default', 'every', 'default', 'every'])
  })

  test('the disk becomes read-only in the middle of a night: all that was done and all that was not is in the report', async () => {
    await mount(night.conf, 'size=4m')
    night.settings({ keyTypes: 'ec' })
    await night.domains('a.example.com b.example.com\nc.example.com\n')
    night.actions(`[default]\nupdate: ["mount -o remount,ro ${night.conf}"]\n`)
    const ran = await night.lematt(['--test'])
    assert.equal(ran.code, 1, ran.stdout + ran.stderr)
    assert.equal(ran.stderr, '')
    assert.match(ran.stdout, /^issued: a\.example\.com \+1 ec/mu)
    assert.match(ran.stdout, /^delivered: \[default\] 2 certificates/mu)
    for (const what of ['cannot write \\S+/receipts\\.json', 'cannot remove the lock \\S+/test/state/lock']) {
      assert.match(ran.stdout, new RegExp(`^failed: ${what}: the file system is read-only: remount it$`, 'mu'))
    }
    assert.match(ran.stdout, /^2 issued, 1 delivered, 2 failed \(test/mu)
    assert.doesNotMatch(ran.stdout, /bug|at .*\.js:\d/u)
    const orders = asked(night.pebble).orders

    await must('mount', ['-o', 'remount,rw', night.conf])
    night.actions('[default]\nupdate: ["true"]\n')
    const next = await night.lematt(['--test', '--json'])
    assert.equal(next.code, 0, next.stdout + next.stderr)
    assert.equal(asked(night.pebble).orders, orders, 'what was saved was issued again')
    night.assertWhole()
    await unmount()
  })

  test('it becomes read-only while an order is under way: nothing is delivered, and the report is there, as text and as JSON', async () => {
    await mount(night.conf, 'size=4m')
    // The CA is asked when the command has said that it is done; busy, while a file is open, it tries again.
    night.settings({ keyTypes: 'ec', challengeCheck: 'no' })
    night.actions(`[default]\nprepare: ["until mount -o remount,ro ${night.conf}; do sleep 0.05; done; echo done; sleep 60"]\nupdate: ["echo update >> ${record()}"]\n`)
    rmSync(record(), { force: true })
    // New names, for the CA has to ask for a challenge.
    for (const [name, format] of [['text.example.com', '--cron'], ['json.example.com', '--json']] as const) {
      await night.domains(`${name}\n`)
      const ran = await night.lematt(['--test', format])
      assert.equal(ran.code, 1, ran.stdout + ran.stderr)
      assert.equal(ran.stderr, '')
      assert.match(ran.stdout, /cannot (?:write|save) \S+: the file system is read-only: remount it/u)
      assert.match(ran.stdout, /cannot remove the lock \S+: the file system is read-only: remount it/u)
      if (format === '--json') assert.equal((JSON.parse(ran.stdout) as { exitCode: number }).exitCode, 1)
      assert.deepEqual(recorded(), [])
      assert.deepEqual(night.files('test', 'cert'), [])
      await must('mount', ['-o', 'remount,rw', night.conf])
      night.assertWhole()
    }
    await unmount()
  })
})

describe('damaged files', { skip: labSkip(), concurrency: false }, () => {
  let night: Night
  const record = (): string => join(night.lab.dir, 'record')
  const recorded = (): string[] => (existsSync(record()) ? readFileSync(record(), 'utf8').trim().split('\n') : [])
  const name = 'a.example.com'
  const key = (): string => night.path('test', 'key', `${name}-key.prime256v1.test.pem`)
  const certificate = (): string => night.path('test', 'cert', `${name}-cert-combined.prime256v1.test.pem`)
  before(async () => {
    night = await Night.open({ settings: { keyTypes: 'ec' } })
    await night.domains(`${name}\nb.example.com\n`)
    night.actions(`[default]\nuploadCerts: ["printf '%s\\n' CERTS >> ${record()}"]\n`)
    assert.equal((await night.lematt(['--test'])).code, 0)
  })
  after(() => night.close())

  const halfOf = (path: string): string => readFileSync(path, 'utf8').slice(0, 300)
  const damages: [string, () => string, (path: string) => void, RegExp][] = [
    ['a truncated certificate', certificate, p => writeFileSync(p, halfOf(p)), /reissue: the certificate file is unreadable: .*cut off/u],
    ['an empty certificate', certificate, p => writeFileSync(p, ''), /reissue: the certificate file is unreadable: the file is empty/u],
    ['a chain that is cut off', certificate, p => writeFileSync(p, readFileSync(p, 'utf8').slice(0, -200)), /reissue: the certificate file is unreadable/u],
    ['garbage for a key', key, p => writeFileSync(p, Buffer.from([0, 255, 254, 27, 91, 51, 49, 109, 10])), /reissue: the key file is unreadable: no whole PEM private key/u],
    ['a key of 2 MB', key, p => writeFileSync(p, 'x'.repeat(2_000_000)), /reissue: the key file is unreadable: larger than a megabyte/u],
  ]
  for (const [what, path, damage, reason] of damages) {
    test(`${what}: the plan says why, one order mends it, and it is delivered`, async () => {
      const other = contents(night.path('test'))
      damage(path())
      const plan = await night.lematt(['--test', '--dry-run'])
      assert.equal(plan.code, 0)
      assert.match(plan.stdout, reason)
      assert.doesNotMatch(plan.stdout, /\u001b/u)
      const [orders, delivered] = [asked(night.pebble).orders, recorded().length]
      const ran = await night.lematt(['--test'])
      assert.equal(ran.code, 0, ran.stdout + ran.stderr)
      assert.match(ran.stdout, /1 issued, 1 delivered/u)
      assert.equal(asked(night.pebble).orders, orders + 1)
      assert.deepEqual(recorded().slice(delivered), [certificate()])
      assert.ok(night.certificate(name, 'prime256v1').belongs)
      const now = contents(night.path('test'))
      for (const file of Object.keys(now).filter(f => f.includes('b.example.com'))) assert.equal(now[file], other[file], `${file} has changed`)
      assert.equal(statSync(key()).mode & 0o777, 0o600)
      night.assertWhole()
      assert.match((await night.lematt(['--test'])).stdout, /^nothing to do/mu)
    })
  }

  test('a directory in place of a key: said, not mended by force, and nothing else suffers', async () => {
    rmSync(key())
    mkdirSync(key())
    writeFileSync(join(key(), 'precious'), 'x')
    const old = contents(night.path('test', 'cert'))
    const { orders } = asked(night.pebble)
    const ran = await night.lematt(['--test'])
    assert.equal(ran.code, 1)
    assert.match(ran.stdout, new RegExp(`^parked: a\\.example\\.com ec: ${key()} is a directory: no new certificate is had while this stands in its place; .* move it away$`, 'mu'))
    assert.equal(asked(night.pebble).orders, orders, 'an order was spent on what cannot be saved')
    assert.deepEqual(contents(night.path('test', 'cert')), old, 'the certificate was replaced without its key')
    assert.ok(existsSync(join(key(), 'precious')))
    rmSync(key(), { recursive: true })
    assert.equal((await night.lematt(['--test'])).code, 0)
    night.assertWhole()
  })

  for (const [what, damage] of [
    ['garbage', (p: string) => writeFileSync(p, '\u0000garbage')],
    ['truncated', (p: string) => writeFileSync(p, readFileSync(p, 'utf8').slice(0, 40))],
    ['empty', (p: string) => writeFileSync(p, '')],
    ['of another shape', (p: string) => writeFileSync(p, '{"version":1,"data":{"default":{"uploadCerts x":[1]},"__proto__":{"x":{}}}}')],
    ['2 MB', (p: string) => writeFileSync(p, `"${'x'.repeat(2_000_000)}"`)],
  ] as [string, (p: string) => void][]) {
    test(`state files ${what}: every certificate is delivered again, once, and said so; nothing is reissued`, async () => {
      const [orders, delivered] = [asked(night.pebble).orders, recorded().length]
      for (const file of ['receipts.json', 'failures.json']) damage(night.path('test', 'state', file))
      const ran = await night.lematt(['--test', '--cron'])
      assert.equal(ran.code, 0, ran.stdout + ran.stderr)
      assert.match(ran.stdout, /^\S+receipts\.json is unreadable \([^)]*\): every certificate is delivered again$/mu)
      assert.match(ran.stdout, /^\S+failures\.json is unreadable \([^)]*\): earlier failures are forgotten$/mu)
      assert.equal(asked(night.pebble).orders, orders)
      assert.equal(recorded().length, delivered + 2)
      assert.deepEqual((await night.lematt(['--test', '--cron'])).stdout, '')
    })
  }
})
