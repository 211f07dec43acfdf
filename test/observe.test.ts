import assert from 'node:assert/strict'
import { chmodSync, lstatSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { due } from '../src/core/renewal.js'
import type { Configuration, Held } from '../src/core/types.js'
import { savePair, storePaths, makeStore, syncLinks } from '../src/edge/store.js'
import { belongTogether } from '../src/edge/x509.js'
import { observe } from '../src/observe.js'
import { certify } from './helpers/certificates.js'
import { configuration, section, subject } from './helpers/held.js'
import { pairOnDisk, temporaryDirectory, temporaryStore } from './helpers/store.js'

const of = (...lines: string[]): Configuration =>
  ({ ...configuration([section('default')], { keyTypes: ['ec'] }), subjects: lines.map(line => subject(line)) })
const slots = (inventory: readonly Held[]): string[] => inventory.map(h => `${h.name}: key ${h.key.state}, certificate ${h.certificate.state}`)
const names = (line: string): string => line.split(' ').map(name => `DNS:${name}`).join(',')

test('a name that becomes a subject of its own is not fooled by the links of the combined one: new key, new certificate', async t => {
  const paths = await temporaryStore(t)
  const combined = of('a.example b.example')
  const [slot] = await observe(combined, 'prod', paths)
  assert.ok(slot)
  const pair = certify(names('a.example b.example'))
  await savePair(paths, slot.files, { ...pair, csr: 'x' })
  await syncLinks(paths, [slot.files])
  assert.deepEqual(slots(await observe(combined, 'prod', paths)), ['a.example_b.example: key read, certificate read'])

  const split = of('a.example', 'b.example')
  const apart = await observe(split, 'prod', paths)
  assert.deepEqual(slots(apart), ['a.example: key missing, certificate missing', 'b.example: key missing, certificate missing'])
  assert.deepEqual(apart.map(h => due(h, split.settings, new Date())), Array(2).fill({ reason: 'new: there is no certificate yet', newKey: true }))
  const own = certify(names('a.example'))
  await savePair(paths, apart[0]?.files ?? slot.files, { ...own, csr: 'x' })
  await syncLinks(paths, apart.map(h => h.files))
  assert.equal(lstatSync(join(paths.key, 'a.example-key.prime256v1.pem')).isSymbolicLink(), false)
  const { key, certificate } = pairOnDisk(paths, apart[0]?.files ?? slot.files)
  assert.ok(key === own.key && belongTogether(key, certificate))
  assert.equal(readFileSync(join(paths.key, slot.files.key), 'utf8'), pair.key, 'the combined key is as it was')
})

test('another order of the names on the line keeps the files; a store that is not there is empty', async t => {
  const paths = storePaths(temporaryDirectory(t), 'prod')
  assert.deepEqual(slots(await observe(of('a.example'), 'prod', paths)), ['a.example: key missing, certificate missing'])
  await makeStore(paths)
  const before = of('a.example c.example b.example')
  // As the Python program may have written it.
  const name = 'a.example_c.example_b.example'
  const pair = certify(names('a.example b.example c.example'))
  writeFileSync(join(paths.key, `${name}-key.prime256v1.pem`), pair.key)
  writeFileSync(join(paths.certificate, `${name}-cert-combined.prime256v1.pem`), pair.certificate)
  const [held] = await observe(before, 'prod', paths)
  assert.ok(held)
  assert.equal(held.name, name)
  assert.equal(due(held, before.settings, new Date()), undefined)
  assert.deepEqual(slots(await observe(before, 'test', storePaths(join(paths.key, '../..'), 'test'))), ['a.example_b.example_c.example: key missing, certificate missing'])
})

test('damaged and unreadable files are told from missing ones, with the reason', async t => {
  const paths = await temporaryStore(t)
  const [slot] = await observe(of('a.example'), 'prod', paths)
  assert.ok(slot)
  writeFileSync(join(paths.key, slot.files.key), '')
  writeFileSync(join(paths.certificate, slot.files.certificate), certify('DNS:a.example').certificate.slice(0, 200))
  const [damaged] = await observe(of('a.example'), 'prod', paths)
  assert.deepEqual([damaged?.key, damaged?.certificate], [{ state: 'unreadable', why: 'the file is empty' }, { state: 'unreadable', why: 'a certificate in it is cut off' }])
  if (process.getuid?.() === 0) return // root reads everything
  chmodSync(join(paths.key, slot.files.key), 0)
  const [denied] = await observe(of('a.example'), 'prod', paths)
  assert.match(denied?.key.state === 'unreadable' ? denied.key.why : '', /EACCES/u)
})
