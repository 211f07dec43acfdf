import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { commandsOf, longestCommand, prepareCommand, shellQuote } from '../../src/core/substitute.js'
import type { DeliveryStep, Held } from '../../src/core/types.js'
import { held } from '../helpers/held.js'

const directories = { key: '/conf/prod/key', certificate: '/conf/prod/cert' }
const step = (kind: DeliveryStep['kind'], command: string, certificates: readonly Held[]): DeliveryStep => ({ kind, command, key: command, certificates })
const only = (s: DeliveryStep): string => {
  const parts = commandsOf(s, directories)
  assert.equal(parts.length, 1)
  assert.deepEqual(parts[0]?.certificates, s.certificates)
  return parts[0].command
}
/** What /bin/sh makes of a command line: its words, after `set --`. */
const wordsIn = (command: string): string[] =>
  execFileSync('/bin/sh', ['-c', `set -- ${command}\nfor w; do printf '%s\\0' "$w"; done`], { maxBuffer: 1 << 24 }).toString().split('\0').slice(0, -1)

describe('what the placeholders become', () => {
  test('CERTS and KEYS: the files and the links, exactly these', () => {
    const one = held('a.example b.example')
    assert.equal(
      only(step('uploadCerts', 'rsync -l CERTS host:', [one])),
      'rsync -l /conf/prod/cert/a.example_b.example-cert-combined.prime256v1.pem /conf/prod/cert/a.example-cert-combined.prime256v1.pem /conf/prod/cert/b.example-cert-combined.prime256v1.pem host:',
    )
    assert.equal(
      only(step('uploadKeys', 'rsync -l KEYS host:', [one])),
      'rsync -l /conf/prod/key/a.example_b.example-key.prime256v1.pem /conf/prod/key/a.example-key.prime256v1.pem /conf/prod/key/b.example-key.prime256v1.pem host:',
    )
  })

  test('mail.example never brings mail.example.org with it', () => {
    const [mine, other] = [held('mail.example'), held('mail.example.org')]
    for (const kind of ['uploadCerts', 'uploadKeys'] as const) {
      const command = only(step(kind, 'copy CERTS KEYS', [mine]))
      assert.ok(command.includes('mail.example-key.'))
      assert.doesNotMatch(command, /mail\.example\.org|\*/u)
      assert.ok(only(step(kind, 'copy CERTS KEYS', [mine, other])).includes('mail.example.org-key.'))
    }
  })

  test('both key types of a subject, each name once', () => {
    const both = [held('b.example a.example'), held('b.example a.example', { keyType: 'rsa' }), held('c.example a.example')]
    assert.equal(only(step('update', 'reload DOMAINS_CN -- DOMAINS_ALL', both)), 'reload b.example c.example -- a.example b.example c.example')
    const words = wordsIn(only(step('uploadCerts', 'CERTS', both)))
    assert.equal(new Set(words).size, words.length)
    assert.ok(words.includes('/conf/prod/cert/b.example_a.example-cert-combined.rsa2048.pem'))
  })

  test('only whole words, only those of the step, as often as they stand there', () => {
    const one = [held('a.example')]
    for (const command of ['MYKEYS KEYS2 CERTS_DIR XCERTS', 'DOMAIN DOMAINS_CN DOMAINS_ALL']) assert.equal(only(step('uploadCerts', command, one)), command)
    for (const command of ['DOMAINS_ALLOWED DOMAINS MY_DOMAINS_CN', 'CERTS KEYS DOMAIN']) assert.equal(only(step('update', command, one)), command)
    assert.equal(prepareCommand('open DOMAIN http://DOMAIN/ DOMAINS MYDOMAIN DOMAIN_X', 'a.example'), 'open a.example http://a.example/ DOMAINS MYDOMAIN DOMAIN_X')
    assert.equal(prepareCommand('open $& DOMAIN', 'a.example'), 'open $& a.example', 'patterns of replace() are nothing special')
  })

  test('a wildcard is quoted in names and has no star in files; IPv6 needs no quotes', () => {
    assert.equal(prepareCommand('open DOMAIN', '*.example.com'), "open '*.example.com'")
    assert.equal(prepareCommand('open DOMAIN', '2001:db8::1'), 'open 2001:db8::1')
    assert.deepEqual(wordsIn(only(step('update', 'DOMAINS_ALL', [held('*.example.com example.com')]))), ['*.example.com', 'example.com'])
    assert.ok(only(step('uploadCerts', 'CERTS', [held('*.example.com')])).includes('/_wildcard.example.com-cert'))
  })

  test('a directory with blanks and quotes arrives as one word', () => {
    const odd = { key: "/o'dd dir/$(id)/key", certificate: '/x' }
    const [part] = commandsOf(step('uploadKeys', 'KEYS', [held('a.example')]), odd)
    assert.deepEqual(wordsIn(part?.command ?? ''), ["/o'dd dir/$(id)/key/a.example-key.prime256v1.pem"])
  })
})

test('any text comes through a real shell as it was', () => {
  const words = fc.sample(fc.string({ unit: 'grapheme' }), 300).map(w => w.replaceAll('\0', ''))
  const nasty = ['', '-n', '*', '~', '$HOME', '`id`', "'", "''", '"', '\\', 'a\nb', '!', '#', '\u0085', 'é']
  assert.deepEqual(wordsIn([...nasty, ...words].map(shellQuote).join(' ')), [...nasty, ...words])
})

describe('long command lines', () => {
  const many = Array.from({ length: 1000 }, (_, i) => [held(`host${i}.example.com www.host${i}.example.com`), held(`host${i}.example.com www.host${i}.example.com`, { keyType: 'rsa' })]).flat()

  test('two thousand certificates: every one exactly once, in order, each part at most 100 kB', () => {
    for (const [kind, command] of [['uploadCerts', 'rsync CERTS host:'], ['uploadKeys', 'rsync KEYS CERTS host:'], ['update', 'reload DOMAINS_ALL']] as const) {
      const parts = commandsOf(step(kind, command, many), directories)
      assert.deepEqual(parts.flatMap(p => p.certificates), many)
      for (const part of parts) {
        assert.ok(Buffer.byteLength(part.command) <= longestCommand, kind)
        assert.equal(part.command.split(' ')[0], command.split(' ')[0])
      }
      if (kind !== 'update') assert.ok(parts.length > 3 && parts.slice(0, -1).every(p => Buffer.byteLength(p.command) > longestCommand * 0.9), 'no more parts than needed')
    }
  })

  test('the parts arrive intact in a real shell', () => {
    const parts = commandsOf(step('uploadKeys', 'KEYS', many), directories)
    const expected = many.flatMap(h => [h.files.key, ...h.files.keyLinks].map(f => `/conf/prod/key/${f}`))
    assert.deepEqual(parts.flatMap(p => wordsIn(p.command)), expected)
  })

  test('one certificate that alone is too long is a part of its own, and holds nobody up', () => {
    const huge = held(Array.from({ length: 100 }, (_, i) => `${'x'.repeat(50)}.${'y'.repeat(60)}.${'z'.repeat(60)}.host${i}.example`).join(' '))
    const parts = commandsOf(step('uploadCerts', 'CERTS CERTS CERTS CERTS CERTS', [held('a.example'), huge, held('b.example')]), directories)
    assert.deepEqual(parts.map(p => p.certificates.length), [1, 1, 1])
  })

  test('a command without placeholders runs once for all, and so does one for no certificate', () => {
    assert.deepEqual(commandsOf(step('update', 'service nginx reload', many), directories), [{ command: 'service nginx reload', certificates: many }])
  })

  test('splitting takes no quadratic time', () => {
    const before = performance.now()
    commandsOf(step('uploadCerts', 'CERTS', Array.from({ length: 10 }, () => many).flat()), directories)
    assert.ok(performance.now() - before < 2000)
  })
})
