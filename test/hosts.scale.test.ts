/** Spec §8 with much to deliver: more certificates than a host takes at once, to two hosts. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { adopt } from './helpers/adopt.js'
import { receiverOn } from './helpers/lab-receiver.js'
import { labSkip } from './helpers/lab.js'
import { Night } from './helpers/night.js'
import { freePort } from './helpers/pebble.js'

test('three hundred certificates to two hosts: all of them, in parcels; then only what is gone', { skip: labSkip(), timeout: 120_000 }, async t => {
  const names = Array.from({ length: 300 }, (_, n) => `n${String(n).padStart(4, '0')}.example.com`)
  const night = await Night.open({ noWebServer: true, actions: '[default]\nhosts: web1 web2\nreload: web\n' })
  t.after(() => night.close())
  // Nobody is to be asked for a certificate: a request would fail, and the run with it.
  night.settings({ keyTypes: 'ec', testDirectory: `https://127.0.0.1:${await freePort()}/dir`, sshConfig: night.lab.sshConfig })
  await night.domains(`${names.join('\n')}\n`, [])
  await adopt(night, names)
  const receivers = await Promise.all(['web1', 'web2'].map(async name => receiverOn(await night.lab.host(name), { services: { web: '/bin/true' } })))
  const ran = await night.lematt(['--test'], { timeoutMs: 100_000 })
  assert.equal(ran.code, 0, ran.stdout + ran.stderr)
  assert.match(ran.stdout, /^delivered: \[default\] web1: 600 files, web reloaded/mu)
  for (const { cert, key, reloads } of receivers) {
    for (const [directory, kind] of [[cert, 'cert-combined'], [key, 'key']] as const) {
      assert.deepEqual(readdirSync(directory).filter(file => file !== '.lematt').sort(), names.map(name => `${name}-${kind}.prime256v1.test.pem`))
    }
    assert.ok(reloads().length <= 4, `${reloads().length} reloads: one for each parcel`)
  }
  const file = `${names[77] ?? ''}-key.prime256v1.test.pem`
  rmSync(join(receivers[0]?.key ?? '', file))
  const before = receivers.map(({ reloads }) => reloads().length)
  const healed = await night.lematt(['--test'])
  assert.match(healed.stdout, /^delivered: \[default\] web1: 2 files, web reloaded .*drifted/mu)
  assert.equal(readFileSync(join(receivers[0]?.key ?? '', file), 'utf8'), night.read('test', 'key', file))
  assert.deepEqual(receivers.map(({ reloads }, i) => reloads().length - (before[i] ?? 0)), [1, 0])
})
