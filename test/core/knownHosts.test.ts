/** known_hosts: what ssh-keygen -F finds, we find; what ssh would refuse, we refuse. */
import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { algorithmsFor, hostsMatch, judge, keyFingerprint, keyType, knownHostsName, linesFor, parseKnownHosts } from '../../src/core/knownHosts.js'

/** A key as it goes over the wire; it only has to be well-formed here. */
function wire(type: string, filler: string): Buffer {
  const body = Buffer.alloc(32, filler)
  const length = (n: number): Buffer => Buffer.from([0, 0, 0, n])
  return Buffer.concat([length(type.length), Buffer.from(type), length(32), body])
}
const a = wire('ssh-ed25519', 'a')
const b = wire('ssh-ed25519', 'b')
const rsa = wire('ssh-rsa', 'r')
const line = (hosts: string, key: Buffer): string => `${hosts} ${keyType(key) ?? ''} ${key.toString('base64')} a comment`
const hashed = (name: string): string => {
  const salt = Buffer.alloc(20, 's')
  return `|1|${salt.toString('base64')}|${createHmac('sha1', salt).update(name).digest('base64')}`
}
const look = (text: string, hostName: string, port = 22, alias?: string): ReturnType<typeof linesFor> =>
  linesFor(parseKnownHosts(text, 'kh'), { hostName, port, alias })

describe('lines', () => {
  test('comments, empty lines, unknown markers, keys that are none and types that the key is not: skipped; the rest has its number', () => {
    const text = ['# c', '', line('one', a), '@other x ssh-ed25519 AAAA', 'two ssh-ed25519 AAAA', 'three ssh-ed25519 !!!', `four ssh-rsa ${a.toString('base64')}`, 'five',
      `  ${line('six,seven', rsa)}\r`, `@revoked\t${line('*', b)}`, `@cert-authority ${line('*.example.com', a)}`].join('\n')
    assert.deepEqual(parseKnownHosts(text, 'kh').map(each => [each.line, each.hosts, each.type, each.marker]), [
      [3, 'one', 'ssh-ed25519', undefined], [9, 'six,seven', 'ssh-rsa', undefined], [10, '*', 'ssh-ed25519', 'revoked'], [11, '*.example.com', 'ssh-ed25519', 'cert-authority'],
    ])
  })

  test('capitals mean nothing: a revoked key is revoked, a line is the host\'s, an exception is one', () => {
    assert.equal(judge(look(`${line('mx1', a)}\n@revoked ${line('MX1', a)}`, 'mx1'), a).known, 'revoked')
    assert.equal(judge(look(line('MX1.Example.com', a), 'mx1.example.com'), a).known, 'known')
    assert.equal(judge(look(line('*,!MX1', a), 'mx1'), a).known, 'unknown')
  })

  test('nothing makes it throw', () => {
    const word = fc.oneof(fc.string(), fc.constantFrom('@revoked', '@cert-authority', '|1|', '|1|a|b', '*', '!', 'ssh-ed25519', a.toString('base64'), '[h]:22', ','))
    fc.assert(fc.property(fc.array(fc.array(word).map(words => words.join(' '))), fc.string(), fc.integer({ min: 1, max: 65_535 }), (lines, hostName, port) => {
      const found = linesFor(parseKnownHosts(lines.join('\n'), 'kh'), { hostName, port })
      assert.ok(['known', 'unknown', 'changed', 'revoked'].includes(judge(found, a).known))
      assert.equal(algorithmsFor(found).length, 6)
    }))
    fc.assert(fc.property(fc.uint8Array(), bytes => {
      assert.ok(keyType(Buffer.from(bytes)) !== '')
      assert.match(keyFingerprint(Buffer.from(bytes)), /^SHA256:[A-Za-z0-9+/]{43}$/u)
    }))
  })
})

describe('names', () => {
  test('the port is part of the name, unless it is 22; an alias stands for both', () => {
    assert.equal(knownHostsName({ hostName: 'MX1.example.com', port: 22 }), 'mx1.example.com')
    assert.equal(knownHostsName({ hostName: 'mx1.example.com', port: 2222 }), '[mx1.example.com]:2222')
    assert.equal(knownHostsName({ hostName: '2001:db8::1', port: 22 }), '2001:db8::1')
    assert.equal(knownHostsName({ hostName: 'mx1', port: 2222, alias: 'Mail' }), 'mail')
  })

  const cases: readonly [string, string, boolean][] = [
    ['mx1', 'mx1', true], ['mx1', 'mx11', false], ['mx1', 'amx1', false], ['a,mx1', 'mx1', true], ['mx?', 'mx1', true], ['mx?', 'mx', false],
    ['*.example.com', 'a.b.example.com', true], ['*.example.com', 'example.com', false], ['*', 'x', true], ['*example*', 'anexampleof', true],
    ['*,!mx1', 'mx1', false], ['*,!mx1', 'mx2', true], ['!mx1', 'mx2', false], ['!mx1,*', 'mx1', false], ['mx1.example.com', 'mx1xexample.com', false],
    ['[mx1]:2222', '[mx1]:2222', true], ['[mx1]:2222', 'mx1', false], ['mx1', '[mx1]:2222', false], ['[*]:2222', '[mx1]:2222', true],
    [hashed('mx1'), 'mx1', true], [hashed('mx1'), 'mx2', false], [hashed('[mx1]:2222'), '[mx1]:2222', true], ['|1|x|y', 'mx1', false], ['|2|x|y', 'mx1', false], ['', 'mx1', false],
  ]
  for (const [hosts, name, matches] of cases) {
    test(`${hosts} ${matches ? 'means' : 'does not mean'} ${name}`, () => assert.equal(hostsMatch(hosts, name), matches))
  }

  test('no pattern takes long', () => {
    const before = performance.now()
    assert.equal(hostsMatch(`${'*a'.repeat(200)}b`, 'a'.repeat(5000)), false)
    assert.ok(performance.now() - before < 2000)
  })
})

describe('judging a key', () => {
  test('known, changed, unknown; a key of another type is not a changed one', () => {
    assert.equal(judge(look(line('mx1', a), 'mx1'), a).known, 'known')
    const changed = judge(look(`#\n${line('mx1', b)}`, 'mx1'), a)
    assert.equal(changed.known, 'changed')
    assert.equal(changed.line?.line, 2)
    assert.equal(judge(look(line('mx2', a), 'mx1'), a).known, 'unknown')
    assert.equal(judge(look(line('mx1', rsa), 'mx1'), a).known, 'unknown')
    assert.equal(judge(look([line('mx1', b), line('mx1', a)].join('\n'), 'mx1'), a).known, 'known')
  })

  test('revoked wins over known, wherever it stands, and only for that key', () => {
    const text = [line('mx1', a), `@revoked ${line('*', a)}`].join('\n')
    assert.equal(judge(look(text, 'mx1'), a).known, 'revoked')
    assert.equal(judge(look(text, 'mx1'), b).known, 'changed')
    assert.equal(judge(look([line('mx1', a), `@revoked ${line('mx2', a)}`].join('\n'), 'mx1'), a).known, 'known')
  })

  test('a key known without the port is good for any port; another key there says nothing', () => {
    assert.equal(judge(look(line('mx1', a), 'mx1', 2222), a).known, 'known')
    assert.equal(judge(look(line('mx1', b), 'mx1', 2222), a).known, 'unknown')
    assert.equal(judge(look([line('[mx1]:2222', b), line('mx1', a)].join('\n'), 'mx1', 2222), a).known, 'changed')
    assert.equal(judge(look(`@revoked ${line('mx1', a)}`, 'mx1', 2222), a).known, 'revoked')
  })

  test('a certificate authority does not make a key known, but is named', () => {
    const text = `@cert-authority ${line('*.example.com', a)}`
    const judgement = judge(look(text, 'mx1.example.com'), a)
    assert.equal(judgement.known, 'unknown')
    assert.equal(judgement.authority?.line, 1)
    assert.equal(judge(look([text, line('mx1.example.com', a)].join('\n'), 'mx1.example.com'), a).known, 'known')
  })

  test('algorithms: those of the known types first, then the others; never ssh-rsa with SHA-1', () => {
    assert.deepEqual(algorithmsFor(look(line('mx1', rsa), 'mx1')).slice(0, 3), ['rsa-sha2-512', 'rsa-sha2-256', 'ssh-ed25519'])
    assert.deepEqual(algorithmsFor(look(line('mx1', rsa), 'mx1', 2222)).slice(0, 2), ['rsa-sha2-512', 'rsa-sha2-256'])
    assert.deepEqual(algorithmsFor(look(`@revoked ${line('mx1', rsa)}`, 'mx1'))[0], 'ssh-ed25519')
    assert.ok(!algorithmsFor(look('', 'mx1')).includes('ssh-rsa'))
  })
})
