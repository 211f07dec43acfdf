/** Between an upload and its reload: what fails or dies there must not be forgotten (spec §5, receipts). */
import assert from 'node:assert/strict'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, beforeEach, describe, test } from 'node:test'
import { lines } from './helpers/faultyNight.js'
import { labSkip } from './helpers/lab.js'
import type { Daemon } from './helpers/lab-process.js'
import { Night } from './helpers/night.js'
import { until } from './helpers/until.js'
import { asked, processesIn } from './helpers/witness.js'

describe('a reload that is due stays due', { skip: labSkip(), concurrency: false }, () => {
  let night: Night
  const file = (name: string): string => join(night.lab.dir, name)
  const recorded = (): string[] => lines(file('record'))

  /** The upload is the `nth` of its kind; the reload records itself first, then does what the file `reload` says. */
  const actions = (nth: number): void => night.actions(`[default]
uploadCerts: ["echo certs ${nth} >> ${file('record')}"]
uploadKeys: ["echo keys >> ${file('record')}"]
update: ["echo reload DOMAINS_CN >> ${file('record')}; sh ${file('reload')}"]
[every]
update: ["echo every >> ${file('record')}"]
`)
  const reload = (script: string): void => writeFileSync(file('reload'), script)

  before(async () => {
    night = await Night.open({ settings: { keyTypes: 'ec', challengeCheck: 'no' }, domains: 'a.example.com\nb.example.com\n' })
    assert.equal((await night.lematt(['--test'])).code, 0)
  })
  after(() => night.close())
  // Everything has been delivered once, the reload as well.
  beforeEach(async () => {
    rmSync(night.path('test', 'state', 'receipts.json'), { force: true })
    reload('exit 0\n')
    actions(1)
    const { code, stdout } = await night.lematt(['--test'])
    assert.equal(code, 0, stdout)
    assert.deepEqual(recorded().slice(-4), ['certs 1', 'keys', 'reload a.example.com b.example.com', 'every'])
    rmSync(file('record'))
  })

  /** The next night does just what is left of [default], once, the reload last; and the night after it nothing. */
  async function finishes(left: readonly string[]): Promise<void> {
    const orders = asked(night.pebble).orders
    rmSync(file('record'), { force: true })
    reload('exit 0\n')
    const plan = await night.lematt(['--test', '--dry-run'])
    assert.match(plan.stdout, /\[default\]/u)
    assert.deepEqual(recorded(), [])
    const next = await night.lematt(['--test'])
    assert.equal(next.code, 0, next.stdout)
    assert.match(next.stdout, /^delivered: \[default\] 2 certificates, \d step/mu)
    assert.deepEqual(recorded(), [...left, 'reload a.example.com b.example.com'])
    assert.match((await night.lematt(['--test'])).stdout, /^nothing to do/mu)
    assert.equal(recorded().length, left.length + 1)
    assert.equal(asked(night.pebble).orders, orders, 'something was reissued')
    night.assertWhole()
  }

  async function kill(run: Daemon): Promise<void> {
    run.kill('SIGKILL')
    assert.equal((await run.ended).signal, 'SIGKILL')
    await until(() => !processesIn(night.lab.dir).some(line => / sleep 60$/u.test(line)), { what: 'the end of the step' })
  }

  test('the upload step changed, and its reload fails', async () => {
    actions(2)
    reload('echo no such service; exit 3\n')
    const ran = await night.lematt(['--test'])
    assert.equal(ran.code, 1, ran.stdout)
    assert.match(ran.stdout, /^failed: \[default\] 2 certificates: update ".*": exit status 3\nno such service$/mu)
    assert.deepEqual(recorded(), ['certs 2', 'reload a.example.com b.example.com'])
    await finishes([])
  })

  test('the upload step changed, and lematt is killed while the reload runs', async () => {
    actions(2)
    reload('sleep 60\n')
    const killed = night.start(['--test'])
    await until(() => recorded().includes('reload a.example.com b.example.com'))
    await kill(killed)
    assert.deepEqual(recorded(), ['certs 2', 'reload a.example.com b.example.com'])
    await finishes([])
  })

  for (const [what, taken, left] of [
    ['upload and reload, once', false, ['certs 2']],
    ['the change is taken back: its receipts are there, so just the reload', true, []],
  ] as const) {
    test(`the upload step changed, and lematt is killed in it; ${what}`, async () => {
      // What it has sent till then is there, and the services have not loaded it.
      actions(2)
      night.actions(night.read('actions.conf').replace('echo certs 2', `sh ${file('upload')}; echo certs 2`))
      writeFileSync(file('upload'), `echo begun >> ${file('record')}; sleep 60`)
      const killed = night.start(['--test'])
      await until(() => recorded().includes('begun'))
      await kill(killed)
      assert.deepEqual(recorded(), ['begun'])
      writeFileSync(file('upload'), '')
      if (taken) actions(1)
      await finishes(left)
    })
  }
})
