/** Delivery steps that misbehave (spec §3.3), each beside one that does not. */
import assert from 'node:assert/strict'
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { labSkip } from './helpers/lab.js'
import { Night } from './helpers/night.js'
import { until } from './helpers/until.js'
import { processesIn } from './helpers/witness.js'

describe('steps that misbehave', { skip: labSkip(), concurrency: false }, () => {
  let night: Night
  const record = (): string => join(night.lab.dir, 'record')
  const recorded = (): string[] => (existsSync(record()) ? readFileSync(record(), 'utf8').trim().split('\n') : [])
  before(async () => {
    night = await Night.open({ settings: { keyTypes: 'ec', commandTimeout: '1' } })
    await night.domains('a.example.com\nb.example.com\n')
    assert.equal((await night.lematt(['--test'])).code, 0)
  })
  after(() => night.close())
  const step = (command: string): string => JSON.stringify([command])

  /** One section with one step, every other section going on. @returns what was printed and how long it took */
  async function withStep(command: string, args: string[] = []): Promise<{ code: number | null; stdout: string; seconds: number }> {
    rmSync(record(), { force: true })
    night.actions(`[default]\nupdate: ${step(command)}\n[every]\nupdate: ["echo every >> ${record()}"]\n`)
    for (const file of ['receipts.json', 'failures.json']) rmSync(night.path('test', 'state', file), { force: true })
    const started = performance.now()
    const { code, stdout, stderr } = await night.lematt(['--test', ...args])
    assert.equal(stderr, '')
    assert.deepEqual(recorded(), ['every'], 'the other section did not run once')
    assert.deepEqual(processesIn(night.lab.dir), [], 'a process of a step is left')
    night.assertWhole()
    return { code, stdout, seconds: (performance.now() - started) / 1000 }
  }

  test('one that hangs is ended after commandTimeout', async () => {
    const { code, stdout, seconds } = await withStep('echo before; sleep 1000; echo after')
    assert.equal(code, 1)
    assert.match(stdout, /^failed: \[default\] 2 certificates: update "echo before; sleep 1000; echo after": no end after 1 s \(commandTimeout\)\nbefore$/mu)
    assert.doesNotMatch(stdout, /^after$/mu)
    assert.ok(seconds < 10, `${seconds} s`)
  })

  test('one that ignores TERM, and whose children do, is killed 5 s later', async () => {
    const { code, stdout, seconds } = await withStep('trap "" TERM HUP INT; (trap "" TERM; sleep 1000) & sleep 1000; sleep 1000')
    assert.equal(code, 1)
    assert.match(stdout, /no end after 1 s \(commandTimeout\)/u)
    assert.ok(seconds > 5 && seconds < 20, `${seconds} s`)
  })

  test('one that leaves a child in the background, holding its pipes, is not waited for when it went well', async () => {
    rmSync(record(), { force: true })
    night.actions(`[default]\nupdate: ["sleep 8 & echo $! > ${join(night.lab.dir, 'child')}; echo started"]\n`)
    rmSync(night.path('test', 'state', 'receipts.json'), { force: true })
    const started = performance.now()
    const { code, stdout } = await night.lematt(['--test', '--verbose'])
    assert.equal(code, 0, stdout)
    assert.match(stdout, /^ {2}started$/mu)
    assert.ok(performance.now() - started < 6000)
    // It is the operator's: a daemon that a reload starts must live on.
    const child = readFileSync(join(night.lab.dir, 'child'), 'utf8').trim()
    assert.equal(readFileSync(`/proc/${child}/comm`, 'utf8').trim(), 'sleep')
    process.kill(Number(child))
    await until(() => processesIn(night.lab.dir).length === 0)
  })

  test('one that prints 10 MB: its last lines are shown, and memory stays bounded', async () => {
    const usage = join(night.lab.dir, 'peak')
    const parent = 'p=$PPID; while read -r k v _ < /proc/$p/comm; [ "$k" != node ]; do while read -r k v _; do [ "$k" = PPid: ] && n=$v; done < /proc/$p/status; p=$n; done'
    const { code, stdout } = await withStep(`head -c 10000000 /dev/zero | tr "\\0" "x" | fold -w 100; seq 1 30; ${parent}; grep VmHWM /proc/$p/status > ${usage}; exit 9`)
    assert.equal(code, 1)
    assert.match(stdout, /exit status 9$/mu)
    const [, said = ''] = /exit status 9\n([^]*?)\ndelivered/u.exec(stdout) ?? []
    assert.deepEqual(said.split('\n'), Array.from({ length: 20 }, (_, i) => String(i + 11)))
    assert.ok(stdout.length < 10_000, `${stdout.length} characters printed`)
    const [, peak = ''] = /(\d+) kB/u.exec(readFileSync(usage, 'utf8')) ?? []
    assert.ok(Number(peak) > 30_000 && Number(peak) < 160_000, `${peak} kB: the output was kept whole`)
    assert.ok(night.read('test', 'state', 'failures.json').length < 5000)
  })

  test('one that prints terminal escapes and control characters: they reach neither the screen nor the state', async () => {
    const { code, stdout } = await withStep('printf "\\033[2J\\033]0;ow""ned\\007red\\033[31m alert\\r\\b\\b\\342\\200\\256txet\\n"; exit 1', ['--verbose'])
    assert.equal(code, 1)
    assert.match(stdout, /^red alerttxet$/mu)
    assert.doesNotMatch(stdout, /[\u0000-\u0008\u000b-\u001f\u007f\u202e]|owned/u)
    const { data } = JSON.parse(night.read('test', 'state', 'failures.json')) as { data: { deliveryFailures: { default: { message: string } } } }
    assert.match(data.deliveryFailures.default.message, /red alerttxet/u)
    assert.doesNotMatch(data.deliveryFailures.default.message, /[\u0000-\u001f\u202e]/u)
  })

  test('one that a signal ends, one that is no command, one that fails in the middle of its section', async () => {
    assert.match((await withStep('kill -KILL $$')).stdout, /killed by SIGKILL/u)
    assert.match((await withStep('no-such-program --x')).stdout, /exit status 127\n.*no-such-program.*(?:not found|Permission denied)/u)
    rmSync(record(), { force: true })
    night.actions(`[default]\nuploadCerts: ["echo certs >> ${record()}", "false", "echo never >> ${record()}"]\nuploadKeys: ["echo never >> ${record()}"]\nupdate: ["echo never >> ${record()}"]\n`)
    const ran = await night.lematt(['--test'])
    assert.equal(ran.code, 1)
    assert.match(ran.stdout, /uploadCerts "false": exit status 1$/mu)
    assert.deepEqual(recorded(), ['certs'])
    // The one that went well is not repeated.
    night.actions(night.read('actions.conf').replace('"false"', '"true"'))
    assert.equal((await night.lematt(['--test'])).code, 0)
    assert.deepEqual(recorded(), ['certs', 'never', 'never', 'never'])
  })

  test('sections run in the order of the file, every last; each knows its mode and section; stdin is /dev/null', async () => {
    rmSync(record(), { force: true })
    const say = `echo $LEMATT_SECTION $LEMATT_MODE $(readlink /proc/self/fd/0) $(pwd) >> ${record()}`
    night.actions(`[every]\nupdate: ${step(say)}\n[zebra]\ndomains: b.example.com\nupdate: ${step(say)}\n[default]\nupdate: ${step(say)}\n[ant hill]\ndomains: b.example.com\nupdate: ${step(say)}\n`)
    rmSync(night.path('test', 'state', 'receipts.json'), { force: true })
    const ran = await night.lematt(['--test'], { input: 'not for the steps\n' })
    assert.equal(ran.code, 0, ran.stdout)
    const rest = `test /dev/null ${night.lab.dir}`
    assert.deepEqual(recorded(), [`zebra ${rest}`, `default ${rest}`, `ant hill ${rest}`, `every ${rest}`])
  })
})
