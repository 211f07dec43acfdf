/** Names whose name server is silent, at the command line: they hold up neither the others nor the end. */
import assert from 'node:assert/strict'
import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { startDnsServer } from './helpers/dnsServer.js'
import { labSkip } from './helpers/lab.js'
import { Night } from './helpers/night.js'
import { asked } from './helpers/witness.js'

/** Of ours in the lab's network; its own name server is asked for all names but the dead ones. */
const silent = '127.0.0.9'

describe('a silent name server', { skip: labSkip(), concurrency: false, timeout: 120_000 }, () => {
  test('sixty names that it holds back: healthy subjects are served at once, and TERM ends the run within two seconds', async (t) => {
    const dead = Array.from({ length: 60 }, (_, n) => `n${n}.dead.example.com`)
    const healthy = Array.from({ length: 8 }, (_, n) => `ok${n}.example.com`)
    const night = await Night.open({ settings: { keyTypes: 'ec' } })
    t.after(() => night.close())
    await night.domains(`${dead.join(' ')}\n${healthy.join('\n')}\n`, healthy)
    const server = await startDnsServer(name => name.includes('.dead.') ? 'silence' : { forward: night.lab.address }, { address: silent, port: 53 })
    t.after(() => server.close())
    writeFileSync(join(night.lab.dir, 'resolv.conf'), `nameserver ${silent}\n`)

    const run = night.start(['--test', '--verbose'])
    const begun = performance.now()
    await run.ready('the healthy ones', () => night.files('test', 'cert').length === healthy.length)
    const served = performance.now() - begun
    assert.ok(served < 12_000, `${served} ms`)
    assert.ok(server.asked.some(name => name.includes('.dead.')), 'no dead name was looked up')
    assert.equal(asked(night.pebble).challenges, healthy.length, 'a name that we cannot find was validated')
    assert.equal(readdirSync(night.challenges).length, dead.length, 'the dead ones are still being looked for')
    const told = performance.now()
    run.kill('SIGTERM')
    const { code } = await run.ended
    const took = performance.now() - told
    assert.equal(code, 143)
    assert.ok(took < 2000, `${took} ms`)
    night.assertWhole()
  })
})
