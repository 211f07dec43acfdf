/** A run that is cut short: killed at any moment, kept out by another, ended by a signal. */
import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { after, before, describe, test } from 'node:test'
import { labSkip } from './helpers/lab.js'
import { Night } from './helpers/night.js'
import { until } from './helpers/until.js'
import { asked, contents, processesIn } from './helpers/witness.js'

describe('a power cut', { skip: labSkip(), concurrency: false }, () => {
  test('20 kills at random moments under new keys for each renewal, then one clean run', async () => {
    const night = await Night.open({ settings: { keyTypes: 'ec', alwaysGenerateNewKeys: 'yes' }, pebble: { authzReuse: 0 } })
    try {
      const target = join(night.lab.dir, 'target')
      mkdirSync(target)
      await night.domains('a.example.com b.example.com\nc.example.com\nd.example.com\n')
      night.actions(`[default]\nuploadCerts: ["cp CERTS ${target}"]\nuploadKeys: ["cp KEYS ${target}"]\nupdate: ["cp ${target}/*.pem ${target}.loaded"]\n`)
      mkdirSync(`${target}.loaded`)
      const args = ['--test', '--only', 'a.example.com', 'c.example.com', 'd.example.com', '--force']
      const started = performance.now()
      assert.equal((await night.lematt(args)).code, 0)
      const whole = performance.now() - started
      const moments: number[] = []
      let cut = 0
      for (let i = 0; i < 20; i++) {
        // The first half is Node's start; a tenth over, for the load changes.
        const moment = randomInt(Math.round(whole * 0.4), Math.round(whole * 1.1))
        moments.push(moment)
        const run = night.start(args)
        await Promise.race([pause(moment), run.ended])
        run.kill('SIGKILL')
        const { signal } = await run.ended
        if (signal === 'SIGKILL') cut++
        // Whatever moment it was: a certificate in place has its key, or the temp file beside it is the one that has.
        for (const file of night.files('test', 'cert').filter(f => !f.startsWith('.'))) {
          const half = existsSync(night.path('test', 'cert', `.${file}.new`))
          const name = file.replace(/-cert-combined.*$/u, '')
          assert.ok(half || night.certificate(name, 'prime256v1').belongs, `${file} after ${moments.join(' ')} ms`)
        }
      }
      assert.ok(cut >= 10, `only ${cut} of 20 runs were cut short`)
      const clean = await night.lematt(['--test'])
      const context = `${moments.join(' ')}\n${clean.stdout}${clean.stderr}`
      assert.equal(clean.code, 0, context)
      night.assertWhole()
      assert.deepEqual(readdirSync(night.path('test', 'state')).sort(), ['receipts.json'], context)
      for (const each of ['key', 'cert-combined']) {
        const directory = night.path('test', each === 'key' ? 'key' : 'cert')
        for (const link of ['a.example.com', 'b.example.com']) {
          assert.equal(readFileSync(join(directory, `${link}-${each}.prime256v1.test.pem`), 'utf8'), readFileSync(join(directory, `a.example.com_b.example.com-${each}.prime256v1.test.pem`), 'utf8'))
        }
        // What a killed run did not deliver, this one has; and the reload came after the last upload.
        for (const file of readdirSync(directory)) {
          for (const place of [target, `${target}.loaded`]) assert.equal(readFileSync(join(place, file), 'utf8'), readFileSync(join(directory, file), 'utf8'), `${file} in ${place}: ${context}`)
        }
      }
      const { data } = JSON.parse(night.read('test', 'state', 'receipts.json')) as { data: { default: Record<string, Record<string, string>> } }
      const prints = ['a.example.com_b.example.com', 'c.example.com', 'd.example.com'].map(n => night.certificate(n, 'prime256v1').x509.fingerprint256.replaceAll(':', '').toLowerCase()).sort()
      for (const [key, received] of Object.entries(data.default)) {
        const ids = Object.keys(received).map(id => id.split(' ')[2])
        assert.deepEqual(prints.filter(print => !ids.includes(print)), [], `without a receipt for ${key}`)
      }
      assert.match((await night.lematt(['--test'])).stdout, /^nothing to do/mu)
    } finally {
      await night.close()
    }
  })
})

describe('two runs at once, and signals', { skip: labSkip(), concurrency: false }, () => {
  let night: Night
  const flag = (name: string): string => join(night.lab.dir, name)
  before(async () => {
    night = await Night.open({ settings: { keyTypes: 'ec' } })
    await night.domains('a.example.com\n')
  })
  after(() => night.close())
  /** A run that is in a step, and its pid. */
  async function holding(args: string[] = ['--test']): Promise<{ run: ReturnType<Night['start']>; pid: number }> {
    for (const file of ['in-step', 'delivered']) rmSync(flag(file), { force: true })
    rmSync(night.path('test', 'state', 'receipts.json'), { force: true })
    night.actions(`[default]\nupdate: ["touch ${flag('in-step')}; sleep 1000; touch ${flag('delivered')}"]\n`)
    const run = night.start(args)
    await run.ready('its step', () => existsSync(flag('in-step')))
    return { run, pid: run.pid }
  }
  // Of what earlier tests killed, the watchdog may still be there: a shell with its script, and `sleep 5`.
  const isOurs = (process: string): boolean => !/^\d+ (?:sleep 5|\/bin\/sh -c\s+dying=.*)$/su.test(process)
  const noStepLeft = (): Promise<void> => until(() => !processesIn(night.lab.dir).some(isOurs), { ms: 3000, what: 'the end of the step' })

  test('the second exits 75 and names the pid; looking takes no lock; a killed holder blocks nobody', async () => {
    const { run, pid } = await holding()
    try {
      const state = contents(night.path('test'))
      const second = await night.lematt(['--test'])
      assert.equal(second.code, 75)
      assert.match(second.stderr, new RegExp(`^lematt: another lematt \\(pid ${pid}\\) is running on \\S+ \\(--test\\); wait for it, or end it$`, 'mu'))
      assert.equal(second.stdout, '')
      assert.equal((await night.lematt(['--test', '--cron'])).code, 75)
      const plan = await night.lematt(['--test', '--dry-run'])
      assert.equal(plan.code, 0, plan.stderr)
      assert.match(plan.stdout, /\[default\] deliver/u)
      const check = await night.lematt(['check'])
      assert.equal(check.code, 0, check.stdout)
      assert.match(check.stdout, new RegExp(`^ok: a run is in progress \\(--test, pid ${pid}\\)$`, 'mu'))
      assert.deepEqual(contents(night.path('test')), state)
      assert.ok(run.running, 'the first was disturbed')
    } finally {
      run.kill('SIGKILL')
      await run.ended
    }
    night.actions(`[default]\nupdate: ["touch ${flag('delivered')}"]\n`)
    const next = await night.lematt(['--test'])
    assert.equal(next.code, 0, next.stdout + next.stderr)
    assert.ok(existsSync(flag('delivered')))
    await noStepLeft()
  })

  test('a run in the other mode is not kept out', async () => {
    const { run } = await holding()
    try {
      await night.domains('')
      const prod = await night.lematt(['--prod'])
      assert.equal(prod.code, 0, prod.stdout + prod.stderr)
      assert.match(prod.stdout, /^nothing to do \(prod/mu)
    } finally {
      run.kill('SIGKILL')
      await run.ended
      await night.domains('a.example.com\n')
      await noStepLeft()
    }
  })

  for (const [signal, code, args] of [['SIGTERM', 143, []], ['SIGINT', 130, []], ['SIGTERM', 143, ['--cron']], ['SIGHUP', 129, []]] as [NodeJS.Signals, number, string[]][]) {
    test(`${signal} during a step${args.length > 0 ? ' of a run by cron' : ''}: the step is ended, nothing is taken for delivered, and the next run finishes`, async () => {
      const { run } = await holding(['--test', ...args])
      const started = performance.now()
      process.kill(run.pid, signal)
      const ended = await run.ended
      assert.deepEqual([ended.code, ended.signal], [code, null], ended.stdout + ended.stderr)
      assert.ok(performance.now() - started < 4000, 'it took too long')
      assert.match(ended.stdout, /^parked: \[default\] 1 certificate: interrupted in update$/mu)
      assert.equal(ended.stderr, '')
      assert.ok(!existsSync(night.path('test', 'state', 'lock')))
      assert.ok(!existsSync(flag('delivered')))
      assert.deepEqual(processesIn(night.lab.dir).filter(isOurs), [])
      night.assertWhole()
      // An interruption is no failure: nothing is held back.
      night.actions(`[default]\nupdate: ["touch ${flag('delivered')}"]\n`)
      const next = await night.lematt(['--test'])
      assert.equal(next.code, 0, next.stdout + next.stderr)
      assert.match(next.stdout, /1 delivered/u)
      assert.ok(existsSync(flag('delivered')))
    })
  }

  test('SIGTERM while a prepare command runs and a validation waits: tokens removed, prepare ended, nothing remembered as failed', async () => {
    await night.domains('a.example.com\nwaits.example.com\n')
    await night.lab.dns.set('waits.example.com', ['127.0.0.9']) // nobody listens there: our own check waits
    rmSync(flag('prepared'), { force: true })
    night.actions(`[default]\nprepare: ["trap 'exit 0' TERM; touch ${flag('prepared')}; while :; do sleep 0.05; done"]\n`)
    const run = night.start(['--test'])
    await run.ready('a token and its prepare', () => existsSync(flag('prepared')) && readdirSync(night.challenges).length > 0)
    const challenges = asked(night.pebble).challenges
    const started = performance.now()
    process.kill(run.pid, 'SIGTERM')
    const ended = await run.ended
    assert.equal(ended.code, 143, ended.stdout + ended.stderr)
    assert.ok(performance.now() - started < 4000)
    assert.match(ended.stdout, /^parked: waits\.example\.com ec: interrupted$/mu)
    assert.equal(asked(night.pebble).challenges, challenges, 'the CA was told to validate')
    assert.deepEqual(processesIn(night.lab.dir).filter(isOurs), [])
    assert.ok(!existsSync(night.path('test', 'state', 'lock')))
    night.assertWhole()
    await night.lab.dns.set('waits.example.com', [night.lab.address])
    const next = await night.lematt(['--test'])
    assert.equal(next.code, 0, next.stdout + next.stderr)
    assert.match(next.stdout, /^issued: waits\.example\.com ec/mu)
    night.assertWhole()
  })

  test('a second signal ends at once, and the run after tidies up', async () => {
    await night.domains('a.example.com\nwaits2.example.com\n')
    await night.lab.dns.set('waits2.example.com', ['127.0.0.9'])
    rmSync(flag('prepared'), { force: true })
    night.actions(`[default]\nprepare: ["trap '' TERM; touch ${flag('prepared')}; while :; do sleep 0.05; done"]\n`)
    const run = night.start(['--test'])
    await run.ready('a token and its prepare', () => existsSync(flag('prepared')) && readdirSync(night.challenges).length > 0)
    process.kill(run.pid, 'SIGTERM')
    await pause(100)
    process.kill(run.pid, 'SIGTERM')
    const started = performance.now()
    const ended = await run.ended
    assert.deepEqual([ended.code, ended.signal], [null, 'SIGTERM'])
    assert.ok(performance.now() - started < 1000)
    await night.domains('a.example.com\n')
    night.actions('[default]\n')
    const next = await night.lematt(['--test'])
    assert.equal(next.code, 0, next.stdout + next.stderr)
    night.assertWhole()
    await until(() => processesIn(night.lab.dir).length === 0, { ms: 9000, what: 'the end of a prepare command that ignores TERM' })
  })
})
