/** Fifty subjects issued in one run with the default settings; two thousand certificates delivered by one section. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { adopt } from './helpers/adopt.js'
import { lines, store } from './helpers/faultyNight.js'
import { labSkip } from './helpers/lab.js'
import { Night } from './helpers/night.js'
import { freePort } from './helpers/pebble.js'

/** The shortest of some runs with nothing to do: how long they took by themselves, and with the start of Node. */
async function idle(night: Night, runs: number): Promise<{ inside: number; outside: number }> {
  const best = { inside: Infinity, outside: Infinity }
  for (let n = 0; n < runs; n++) {
    const start = performance.now()
    const { code, stdout, stderr } = await night.lematt(['--test'])
    best.outside = Math.min(best.outside, performance.now() - start)
    assert.equal(code, 0, stdout + stderr)
    const [, seconds] = /^nothing to do \(test, (\d+\.\d) s\)$/mu.exec(stdout) ?? []
    assert.ok(seconds !== undefined, stdout)
    best.inside = Math.min(best.inside, Number(seconds) * 1000)
  }
  return best
}

test('fifty subjects in one run, and then nothing to do', { skip: labSkip(), timeout: 240_000 }, async (t) => {
  const names = Array.from({ length: 50 }, (_, n) => `s${String(n).padStart(2, '0')}.example.com`)
  const night = await Night.open({ domains: `${names.join('\n')}\n`, pebble: { authzReuse: 50, nonceReject: 5 } })
  t.after(() => night.close())
  const record = join(night.lab.dir, 'record')
  night.actions(`[default]\nuploadCerts: ["printf '%s\\\\n' CERTS >> ${record}"]\nupdate: ["echo reload >> ${record}"]\n`)
  const { code, stdout, stderr } = await night.lematt(['--test'], { timeoutMs: 200_000 })
  assert.equal(code, 0, stdout.replace(/^issued: .*\n/gmu, '') + stderr)
  assert.match(stdout, /^100 issued, 1 delivered \(test, /mu)
  assert.doesNotMatch(stdout, /failed|parked/u)
  assert.equal(night.files('test', 'cert').length, 100)
  night.assertWhole()
  for (const name of names) {
    for (const tag of ['rsa2048', 'prime256v1']) assert.deepEqual(night.certificate(name, tag).names, [name])
  }
  assert.deepEqual(lines(record).sort(),
    [...night.files('test', 'cert').map(file => night.path('test', 'cert', file)), 'reload'].sort(), 'one copy, one reload')

  const held = store(night)
  const { inside, outside } = await idle(night, 3)
  t.diagnostic(`nothing to do: ${inside} ms, with the start of Node ${outside.toFixed(0)} ms`)
  assert.ok(inside < 1000 && outside < 2000, `${inside} ms, ${outside} ms`)
  assert.deepEqual(store(night), held)
  assert.equal(lines(record).length, 101, 'a step ran again')
})

test('two thousand certificates in one section', { skip: labSkip(), timeout: 120_000 }, async (t) => {
  const names = Array.from({ length: 2000 }, (_, n) => `n${String(n).padStart(4, '0')}.example.com`)
  const night = await Night.open({ noWebServer: true })
  t.after(() => night.close())
  // Nobody is to be asked: a request would fail, and the run with it.
  night.settings({ keyTypes: 'ec', testDirectory: `https://127.0.0.1:${await freePort()}/dir` })
  await night.domains(`${names.join('\n')}\n`, [])
  await adopt(night, names)
  const file = (name: string): string => join(night.lab.dir, name)
  // Each command line, as the kernel has it, is measured too. /usr/bin/printf gets it all once more, as arguments.
  const measured = `wc -c < /proc/$$/cmdline >> ${file('sizes')}`
  night.actions(`[default]
uploadCerts: ["printf '%s\\\\n' CERTS >> ${file('certs')}; ${measured}"]
uploadKeys: ["/usr/bin/printf '%s\\\\n' KEYS >> ${file('keys')}; ${measured}"]
update: ["echo DOMAINS_CN >> ${file('updates')}; ${measured}"]
`)
  const held = store(night)
  const { code, stdout, stderr } = await night.lematt(['--test'])
  assert.equal(code, 0, stdout + stderr)
  assert.match(stdout, /^1 delivered \(test, /mu)
  assert.doesNotMatch(stdout + stderr, /E2BIG|too long/u)
  const paths = (directory: string, kind: string): string[] =>
    names.map(name => night.path('test', directory, `${name}-${kind}.prime256v1.test.pem`))
  assert.deepEqual(lines(file('certs')).sort(), paths('cert', 'cert-combined'), 'every path exactly once')
  assert.deepEqual(lines(file('keys')).sort(), paths('key', 'key'), 'every path exactly once')
  assert.deepEqual(lines(file('updates')).flatMap(line => line.split(' ')).sort(), names)
  const sizes = lines(file('sizes')).map(Number)
  assert.ok(sizes.length >= 3 && sizes.every(size => size > 1000 && size <= 100_020), sizes.join(' '))
  // Full parts: not one command for each certificate.
  assert.ok(sizes.length <= 8, sizes.join(' '))
  assert.deepEqual(store(night), held)

  const { inside, outside } = await idle(night, 1)
  t.diagnostic(`2,000 held, nothing to do: ${inside} ms, with the start of Node ${outside.toFixed(0)} ms`)
  // A millisecond each, where the processor is ours alone; what grows with the square would take minutes.
  assert.ok(inside < 20_000, `${inside} ms`)
  assert.equal(lines(file('sizes')).length, sizes.length, 'a step ran again')
})
