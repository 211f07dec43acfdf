import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { certificateFiles, nameInStore, storedNames, subjectName } from '../../src/core/names.js'
import type { Identifier, Subject } from '../../src/core/types.js'

const place = { file: 'domains', line: 1, column: 1 }
const subject = (identifiers: string, label?: string): Subject => ({
  identifiers: identifiers.split(' ') as [Identifier, ...Identifier[]],
  ...(label === undefined ? {} : { label }),
  place,
})

test('NAME is the primary, or the primary and the others by labels from right to left', () => {
  assert.equal(subjectName(subject('mail.example.com')), 'mail.example.com')
  assert.equal(
    subjectName(subject('dev.example.com dev3.example.com dev2.example.com')),
    'dev.example.com_dev2.example.com_dev3.example.com',
  )
  // The top-level label does not count: example < other, then the whole name breaks the tie org/com.
  assert.equal(
    subjectName(subject('x.org a.b.example.com b.example.com other.net example.org example.com')),
    'x.org_example.com_example.org_b.example.com_a.b.example.com_other.net',
  )
})

test('repeats are folded, a wildcard has no star, a label stands for the whole', () => {
  assert.equal(subjectName(subject('a.example a.example *.a.example')), 'a.example_a.example__wildcard.a.example')
  assert.equal(subjectName(subject('*.example.com example.com')), '_wildcard.example.com_example.com')
  assert.equal(subjectName(subject('a.example b.example', 'web1')), 'web1')
})

test('a long NAME is cut to 180 bytes, ends in 16 hex digits of its digest, and differs where the whole differs', () => {
  const names = Array.from({ length: 60 }, (_, i) => `host${i}.example.com`).join(' ')
  const name = subjectName(subject(names))
  assert.equal(Buffer.byteLength(name), 180)
  assert.match(name, /_[0-9a-f]{16}$/u)
  assert.notEqual(name, subjectName(subject(`${names} one-more.example.com`)))
})

test('a store that has the same names in another order keeps its NAME', () => {
  const wanted = subject('a.example c.example b.example')
  const old = 'a.example_c.example_b.example'
  assert.equal(nameInStore(wanted, new Set([old])), old)
  assert.equal(nameInStore(wanted, new Set(['c.example_a.example_b.example'])), subjectName(wanted), 'another primary')
  assert.equal(nameInStore(wanted, new Set(['a.example_c.example'])), subjectName(wanted), 'another set')
  assert.equal(nameInStore(wanted, new Set([old, subjectName(wanted)])), subjectName(wanted), 'the right one is there too')
  const wild = subject('a.example *.a.example b.example')
  assert.equal(nameInStore(wild, new Set(['a.example_b.example__wildcard.a.example'])), 'a.example_b.example__wildcard.a.example')
})

test('any order of the line is found again in the store under whatever order it was stored', () => {
  const ids = fc.uniqueArray(fc.constantFrom('a.example', 'b.example', '*.a.example', '*.b.example', 'x.y.example', '192.0.2.1'), { minLength: 3 })
  fc.assert(fc.property(ids, fc.infiniteStream(fc.nat()), (names, seeds) => {
    const [primary = '', ...rest] = names
    const shuffled = rest.map(id => ({ id, n: Number(seeds.next().value) })).sort((a, b) => a.n - b.n).map(x => x.id)
    const stored = [primary, ...shuffled].map(n => n.replace('*', '_wildcard')).join('_')
    assert.equal(nameInStore(subject(names.join(' ')), new Set([stored])), stored)
  }))
})

test('files and links carry tag and mode; a name of another subject is never a link', () => {
  const subjects = [subject('a.example b.example c.example'), subject('b.example'), subject('d.example c.example'), subject('a.example z.example', 'a.example')]
  const files = certificateFiles(subjects.map(s => ({ subject: s, name: subjectName(s) })), 'rsa2048', 'test')
  assert.equal(files[0]?.key, 'a.example_b.example_c.example-key.rsa2048.test.pem')
  assert.equal(files[0].certificate, 'a.example_b.example_c.example-cert-combined.rsa2048.test.pem')
  assert.equal(files[0].csr, 'a.example_b.example_c.example-csr.rsa2048.test.csr')
  // b.example is a subject of its own, a.example the label of another: both are real files, not links.
  assert.deepEqual(files[0].keyLinks, ['c.example-key.rsa2048.test.pem'])
  assert.deepEqual(files[1]?.keyLinks, [])
  // c.example is already linked by the first line.
  assert.deepEqual(files[2]?.certificateLinks, ['d.example-cert-combined.rsa2048.test.pem'])
  assert.deepEqual(files[3]?.keyLinks, ['z.example-key.rsa2048.test.pem'])
})

test('a link of a very long name is cut like its NAME, so that the file system takes it', () => {
  const long = `${'a'.repeat(60)}.${'b'.repeat(60)}.${'c'.repeat(60)}.${'d'.repeat(60)}.example`
  const [files, own] = certificateFiles([subject(`x.example ${long}`), subject(`y.example *.${long}`)].map(s => ({ subject: s, name: subjectName(s) })), 'prime256v1', 'test')
  for (const link of [...files?.keyLinks ?? [], ...own?.certificateLinks ?? []]) assert.ok(Buffer.byteLength(`.${link}.new`) <= 255, link)
  assert.equal(files?.keyLinks[1], `${subjectName(subject(long))}-key.prime256v1.test.pem`)
  // A subject of its own has that file: no link.
  const both = [subject(`x.example ${long}`), subject(long)]
  assert.deepEqual(certificateFiles(both.map(s => ({ subject: s, name: subjectName(s) })), 'prime256v1', 'test')[0]?.keyLinks, ['x.example-key.prime256v1.test.pem'])
})

test('stored names are those of the tag and mode, without hidden temp files', () => {
  const entries = ['a-cert-combined.rsa2048.pem', 'b-cert-combined.rsa2048.test.pem', '.c-cert-combined.rsa2048.pem', 'd-cert-combined.prime256v1.pem']
  assert.deepEqual([...storedNames(entries, 'rsa2048', 'prod')], ['a'])
  assert.deepEqual([...storedNames(entries, 'rsa2048', 'test')], ['b'])
})
