/** `prepare` commands at the command line (spec §3.3): when they start, what their failure means, and that they always end. */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { answers } from './helpers/lab-nginx.js'
import { must } from './helpers/lab-process.js'
import { labSkip, type LabHost } from './helpers/lab.js'
import { Night } from './helpers/night.js'
import { until } from './helpers/until.js'
import { asked, processesIn } from './helpers/witness.js'

const leforward = new URL('../dist/forwarder/leforward.cjs', import.meta.url).pathname
/** An address of the central host where nobody listens: our own look at the challenge waits there. */
const nowhere = '127.0.0.9'

/** One where the test's own web server listens. */
const elsewhere = '127.0.0.8'

describe('prepare', { skip: labSkip(), concurrency: false }, () => {
  let night: Night
  const record = (): string => join(night.lab.dir, 'record')
  const recorded = (): string[] => (existsSync(record()) ? readFileSync(record(), 'utf8').trim().split('\n') : [])
  const list = (...commands: string[]): string => JSON.stringify(commands)
  before(async () => { night = await Night.open({ settings: { keyTypes: 'ec' } }) })
  after(() => night.close())

  /** New names for each test, so that their authorizations are pending. @returns the output of a run that ended as it should */
  async function run(code: number, args: string[] = []): Promise<string> {
    const ran = await night.lematt(['--test', ...args])
    assert.equal(ran.code, code, ran.stdout + ran.stderr)
    assert.equal(ran.stderr, '')
    assert.deepEqual(processesIn(night.lab.dir), [], 'a prepare command is left')
    night.assertWhole()
    return ran.stdout
  }

  test('one that exits with an error: only its subjects fail, at once, with its last lines; the CA is not asked to validate', async () => {
    await night.domains('bad1.example.com\nbad2.example.com other.example.com\ngood.example.com\n')
    for (const name of ['bad1.example.com', 'bad2.example.com']) await night.lab.dns.set(name, [nowhere])
    night.actions(`[forwarded]\ndomains: bad1.example.com bad2.example.com\nprepare: ${list('seq 1 20; printf "\\033[31mHost key verification failed.\\n" >&2; exit 255')}\n[default]\nupdate: ["echo DOMAINS_ALL >> ${record()}"]\n`)
    const challenges = asked(night.pebble).challenges
    const started = performance.now()
    const text = await run(1)
    assert.ok(performance.now() - started < 8000, 'the failure was not noticed at once')
    for (const title of ['bad1.example.com', 'bad2.example.com +1']) {
      const at = text.indexOf(`failed: ${title} ec: `)
      assert.ok(at >= 0, text)
      assert.match(text.slice(at), /^[^\n]*prepare of \[forwarded\] failed: [^\n]*exit status 255\n17\n18\n19\n20\nHost key verification failed\.\n/u)
    }
    assert.match(text, /^issued: good\.example\.com ec/mu)
    assert.ok(asked(night.pebble).challenges <= challenges + 2, 'a name of the failed section was validated')
    assert.deepEqual(recorded(), ['good.example.com'])
    assert.deepEqual(night.files('test', 'cert'), ['good.example.com-cert-combined.prime256v1.test.pem'])
  })

  test('what has failed for one subject spends no order on the others that need it', async () => {
    await night.domains('first.example.com\nsecond.example.com\nthird.example.com\n')
    night.actions(`[default]\nprepare: ${list('echo no way; exit 3')}\n`)
    const { orders } = asked(night.pebble)
    const text = await run(1, ['--parallel', '1'])
    assert.equal(asked(night.pebble).orders, orders + 1)
    assert.equal(text.match(/^failed: .* ec: .*prepare of \[default\] failed: echo no way; exit 3: exit status 3$/gmu)?.length, 3, text)
  })

  test('one that fails while the challenge cannot be put in place either: both are outcomes, not a crash', async () => {
    await night.domains('crash1.example.com\ncrash2.example.com\n')
    const full = join(night.lab.dir, 'full')
    mkdirSync(full)
    await must('mount', ['-t', 'tmpfs', '-o', 'nr_inodes=1', 'none', full])
    night.settings({ keyTypes: 'ec', challengeDropDir: full })
    night.actions(`[default]\nprepare: ${list('exit 3', 'exit 4')}\n`)
    const text = await run(1)
    night.settings({ keyTypes: 'ec' })
    await must('umount', [full])
    assert.match(text, /^failed: crash1\.example\.com ec: .*full is on a full disk; make room$/mu)
    assert.match(text, /^2 failed/mu)
  })

  test('challengeCheck: no: the CA is asked when the command has said that it is ready', async () => {
    // Nobody but the command brings the file to where the name leads.
    await night.domains('unchecked.example.com\n')
    await night.lab.dns.set('unchecked.example.com', [elsewhere])
    const web = join(night.lab.dir, 'web')
    mkdirSync(join(web, '.well-known'), { recursive: true })
    symlinkSync(night.challenges, join(web, '.well-known', 'acme-challenge'))
    const python = `import http.server as h; s = h.ThreadingHTTPServer(("${elsewhere}", 80), h.SimpleHTTPRequestHandler); print("listening", flush=True); s.serve_forever()`
    night.settings({ keyTypes: 'ec', challengeCheck: 'no' })
    night.actions(`[default]\nprepare: ${list(`sleep 1; cd ${web} && exec python3 -c '${python}'`)}\n`)
    const challenges = asked(night.pebble).challenges
    assert.match(await run(0), /1 issued/u)
    assert.equal(asked(night.pebble).challenges, challenges + 1)

    // One that fails with a message: the CA is not asked.
    await night.domains('unready.example.com\n')
    night.actions(`[default]\nprepare: ${list('sleep 1; echo Permission denied; exit 255')}\n`)
    assert.match(await run(1), /^failed: unready\.example\.com ec: prepare of \[default\] failed: .*exit status 255\nPermission denied$/mu)
    assert.equal(asked(night.pebble).challenges, challenges + 1, 'a name was validated in vain')
    night.settings({ keyTypes: 'ec' })
  })

  test('one that exits 0 has done its work: it is started once for all subjects, and not again', async () => {
    await night.domains('zero1.example.com\nzero2.example.com zero3.example.com\nzero4.example.com\n')
    night.actions(`[default]\nprepare: ${list(`echo opened $LEMATT_SECTION $LEMATT_MODE >> ${record()}`)}\n`)
    night.settings({ keyTypes: 'ec', parallel: '1' })
    rmSync(record(), { force: true })
    const text = await run(0)
    night.settings({ keyTypes: 'ec' })
    assert.match(text, /3 issued/u)
    assert.deepEqual(recorded(), ['opened default test'])
  })

  test('DOMAIN: one per name, only for names that are routed to the section; others run beside it', async () => {
    await night.domains('one.example.com two.example.com three.example.com\nfour.example.com\n')
    night.actions(`[default]\n[some]\ndomains: one.example.com three.example.com\nprepare: ${list(`echo DOMAIN >> ${record()}; exec sleep 1000`, `echo shared >> ${record()}; exec sleep 1000`)}\n[every]\nprepare: ${list(`echo every >> ${record()}; exec sleep 1000`)}\n`)
    rmSync(record(), { force: true })
    await run(0)
    assert.deepEqual(recorded().sort(), ['every', 'one.example.com', 'shared', 'three.example.com'])
  })

  test('nothing is started when nothing is due, for the plan, and when every authorization is valid', async () => {
    rmSync(record(), { force: true })
    assert.match(await run(0), /^nothing to do/mu)
    await night.lematt(['--test', '--dry-run'])
    const challenges = asked(night.pebble).challenges
    assert.match(await run(0, ['--only', 'one.example.com', '--force']), /1 issued/u)
    assert.equal(asked(night.pebble).challenges, challenges, 'this test needs an authorization that is still valid')
    assert.deepEqual(recorded(), [])
  })

  test('it ends when the last subject that needs it is done, though the run goes on', async () => {
    await night.domains('early1.example.com\nearly2.example.com\nlate.example.com\n')
    await night.lab.dns.set('late.example.com', [nowhere])
    night.actions(`[early]\ndomains: early1.example.com early2.example.com\nprepare: ${list(`trap "echo ended >> ${record()}; exit" TERM; echo started >> ${record()}; while :; do sleep 0.05; done`)}\n[default]\n`)
    rmSync(record(), { force: true })
    const daemon = night.start(['--test'])
    await daemon.ready('the end of prepare', () => recorded().includes('ended'))
    assert.equal(readdirSync(night.challenges).length, 1, 'only the late token is still there')
    assert.deepEqual(night.files('test', 'cert').filter(f => f.startsWith('early')).length, 2)
    await night.lab.dns.set('late.example.com', [night.lab.address])
    const { code, stdout } = await daemon.ended
    assert.equal(code, 0, stdout)
    assert.match(stdout, /3 issued/u)
    assert.deepEqual(recorded(), ['started', 'ended'])
    night.assertWhole()
  })

  test('one that prints much and ignores TERM is killed, and costs no certificate', async () => {
    await night.domains('stubborn.example.com\n')
    night.actions(`[default]\nprepare: ${list('trap "" TERM HUP INT; head -c 3000000 /dev/zero; (sleep 1000) & while :; do sleep 0.1; done')}\n`)
    const started = performance.now()
    assert.match(await run(0), /1 issued/u)
    assert.ok(performance.now() - started < 15_000)
  })
})

describe('prepare: a forwarder on a remote host, behind a key that can do nothing else', { skip: labSkip(), concurrency: false }, () => {
  let night: Night
  let mail: LabHost
  before(async () => {
    night = await Night.open({ settings: { keyTypes: 'ec' } })
    mail = await night.lab.host('mail')
    await mail.sshd({ keys: { 'mail-forward': `restrict,from="${night.lab.address}",command="${process.execPath} ${leforward} --ssh --allow http://central.example.com"` } })
    await night.lab.dns.set('central.example.com', [night.lab.address])
    // Slow to start, as over the internet.
    night.actions(`[mail]\ndomains: mail.example.com smtp.example.com imap.example.com\nprepare: ["sleep 1.5; exec ssh -F ${night.lab.sshConfig} mail-forward http://central.example.com"]\n`)
  })
  after(() => night.close())
  async function names(text: string): Promise<void> {
    await night.domains(text)
    for (const name of ['mail.example.com', 'smtp.example.com', 'imap.example.com']) await night.lab.dns.set(name, [mail.address])
  }
  const portIsFree = (): Promise<void> => until(async () => !await answers(mail.address, 80), { ms: 8000, what: 'the end of the forwarder' })

  test('validation waits until the URL really answers; afterwards the port is free again', async () => {
    await names('mail.example.com smtp.example.com\nimap.example.com\n')
    assert.equal(await answers(mail.address, 80), false)
    const { code, stdout, stderr } = await night.lematt(['--test', '--verbose'])
    assert.equal(code, 0, stdout + stderr)
    assert.match(stdout, /2 issued/u)
    assert.equal(asked(night.pebble).challenges, 3, 'each name was validated once')
    await portIsFree()
    assert.deepEqual(processesIn(night.lab.dir), [])
    night.assertWhole()
  })

  test('after kill -9 of lematt the command and the remote forwarder are gone within seconds', async () => {
    await names('smtp.example.com mail.example.com imap.example.com\nslow.example.com\n')
    await night.lab.dns.set('slow.example.com', [nowhere]) // keeps the run going
    night.actions(night.read('actions.conf').replace('imap.example.com', 'slow.example.com').replace('sleep 1.5; ', ''))
    const run = night.start(['--test'])
    await run.ready('the forwarder', () => answers(mail.address, 80))
    run.kill('SIGKILL')
    await run.ended
    const started = performance.now()
    await portIsFree()
    await until(() => processesIn(night.lab.dir).length === 0, { ms: 8000, what: 'the end of the command' })
    assert.ok(performance.now() - started < 8000)
    await night.domains('')
    assert.equal((await night.lematt(['--test'])).code, 0)
    night.assertWhole()
  })

  test('so is a command that has put itself into the background', async () => {
    await names('slow.example.com\n')
    await night.lab.dns.set('slow.example.com', [nowhere])
    const up = join(night.lab.dir, 'up')
    night.actions(`[default]\nprepare: ["(sleep 0.5; touch ${up}; sleep 3333) >/dev/null 2>&1 &"]\n`)
    const run = night.start(['--test'])
    await run.ready('the command', () => existsSync(up))
    run.kill('SIGKILL')
    await run.ended
    assert.ok(processesIn(night.lab.dir).length > 0, 'nothing was running')
    await until(() => processesIn(night.lab.dir).length === 0, { ms: 8000, what: 'the end of the command' })
  })
})
