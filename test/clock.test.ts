/** A clock that jumped, at the command line: nothing reissued needlessly, nothing parked for years. */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { clockOff, FaultyNight, lines, refusing, store } from './helpers/faultyNight.js'
import { labSkip } from './helpers/lab.js'
import type { Night } from './helpers/night.js'

const day = 86_400_000

describe('a clock that jumped', { skip: labSkip() }, () => {
  let faulty: FaultyNight
  let night: Night
  let held: Map<string, string>
  const record = (): string => join(night.lab.dir, 'record')
  const failures = (): string => night.path('test', 'state', 'failures.json')
  before(async () => {
    faulty = await FaultyNight.open({ settings: { keyTypes: 'ec', challengeCheck: 'no' }, domains: 'held.example.com\n' })
    night = faulty.night
    night.actions(`[default]\nupdate: ["echo DOMAINS_ALL >> ${record()}"]\n`)
    const { code, stdout } = await night.lematt(['--test'])
    assert.equal(code, 0, stdout)
    held = store(night)
  })
  after(() => faulty.close())

  test('back by years: certificates from the future are not reissued, nor delivered again', async () => {
    faulty.proxy.use()
    for (const jump of [-1, -400, -2000]) {
      const { code, stdout } = await night.lematt(['--test'], { env: clockOff(jump * day) })
      assert.equal(code, 0, stdout)
      assert.match(stdout, /^nothing to do \(/mu)
    }
    assert.deepEqual(faulty.proxy.seen, [])
    assert.deepEqual(store(night), held)
    assert.deepEqual(lines(record()), ['held.example.com'])
  })

  test('back by years: a certificate that the CA dates in our future is refused by name, for it is our clock', async () => {
    await night.domains('held.example.com\nnew.example.com\n')
    const { code, stdout } = await night.lematt(['--test'], { env: clockOff(-400 * day) })
    assert.equal(code, 1)
    assert.match(stdout, /^failed: new\.example\.com ec: .* it is valid only from 20.* \(is this host's clock right\?\); nothing was replaced$/mu)
    assert.deepEqual(store(night), held)
    assert.deepEqual(lines(record()), ['held.example.com'], 'a step ran for a refused certificate')
    // The clock is mended: the failure of 400 days ago holds nothing back.
    const mended = await night.lematt(['--test'])
    assert.equal(mended.code, 0, mended.stdout)
    assert.match(mended.stdout, /1 issued, 1 delivered/u)
    night.assertWhole()
    held = store(night)
  })

  test('failures and limits from the future park nothing', async () => {
    await night.domains('held.example.com\nnew.example.com\nnext.example.com\n')
    faulty.proxy.use(refusing(({ path }) => path === '/order-plz', {
      status: 429, type: 'rateLimited', detail: 'too many new orders', retryAfter: 3600,
    }))
    const ahead = clockOff(3000 * day)
    night.actions(`[default]\nupdate: ["echo DOMAINS_ALL >> ${record()}", "exit 5"]\n`)
    for (let n = 0; n < 3; n++) {
      // Years ahead all is expired and due, and nothing expired is delivered.
      const { code, stdout } = await night.lematt(['--test'], { env: ahead })
      assert.equal(code, 1, stdout)
      assert.match(stdout, n === 0 ? /too many new orders/u : /until 20\d\d-.*: too many new orders/u)
    }
    assert.equal(faulty.ordered().length <= 3, true)
    assert.deepEqual(store(night), held)

    faulty.proxy.use()
    const now = await night.lematt(['--test'])
    assert.match(now.stdout, /^issued: next\.example\.com ec /mu, 'parked by a limit from the future')
    assert.match(now.stdout, /^failed: \[default\] 3 certificates: update "exit 5": exit status 5$/mu)
    assert.equal(now.code, 1)
    night.assertWhole()
    held = store(night)
  })

  test('records of failures that lie years ahead are no reason to wait', async () => {
    const state = JSON.parse(night.read('test', 'state', 'failures.json')) as
      { data: { deliveryFailures: Record<string, { last: string; count: number }>; accountBar?: object } }
    const failure = state.data.deliveryFailures['default']
    assert.ok(failure !== undefined)
    const ahead = new Date(Date.now() + 1000 * day).toISOString()
    state.data.deliveryFailures['default'] = { ...failure, count: 9, last: ahead }
    state.data.accountBar = { until: ahead, message: 'a limit of another age' }
    writeFileSync(failures(), JSON.stringify(state))
    await night.domains('held.example.com\nnew.example.com\nnext.example.com\nlast.example.com\n')
    night.actions(`[default]\nupdate: ["echo DOMAINS_ALL >> ${record()}", "exit 6"]\n`)
    const { code, stdout } = await night.lematt(['--test'])
    assert.equal(code, 1)
    assert.match(stdout, /^issued: last\.example\.com ec /mu)
    assert.match(stdout, /^failed: \[default\] .*"exit 6": exit status 6$/mu)
    assert.doesNotMatch(stdout, /parked|another age/u)
    for (const [file, bytes] of held) assert.equal(store(night).get(file), bytes, `${file} was touched`)
    night.assertWhole()
  })

  test('ahead by years: what expired is not delivered, and what is held is not lost', async () => {
    faulty.proxy.use()
    const before = store(night)
    const steps = lines(record()).length
    const { code, stdout } = await night.lematt(['--test', '--dry-run'], { env: clockOff(3000 * day) })
    assert.equal(code, 0)
    assert.match(stdout, /renew: expired \d+ days ago/u)
    assert.deepEqual(faulty.proxy.seen, [])
    const ran = await night.lematt(['--test'], { env: clockOff(3000 * day) })
    assert.equal(ran.code, 1, ran.stdout)
    assert.match(ran.stdout, /refused: it expired at 20\S+.*nothing was replaced/u)
    assert.deepEqual(store(night), before)
    assert.equal(lines(record()).length, steps, 'an expired certificate was delivered')
    night.assertWhole()
  })
})
