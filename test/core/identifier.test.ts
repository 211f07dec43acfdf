import assert from 'node:assert/strict'
import test from 'node:test'
import fc from 'fast-check'
import { coveredBy, isIp, isWildcard, parseIdentifier } from '../../src/core/identifier.js'

/** The canonical form, or the reason against it in brackets. */
function canonical(word: string): string {
  const parsed = parseIdentifier(word)
  return parsed.ok ? parsed.identifier : `(${parsed.message})`
}

test('names in canonical form', () => {
  const label63 = 'a'.repeat(63)
  const cases: Record<string, string> = {
    'example.com': 'example.com',
    'Mail.EXAMPLE.com.': 'mail.example.com',
    '*.Example.com': '*.example.com',
    '1.example.com': '1.example.com',
    'a-b.c--d.example': 'a-b.c--d.example',
    'bücher.example': 'xn--bcher-kva.example',
    'BÜCHER.example': 'xn--bcher-kva.example',
    'bu\u0308cher.example': 'xn--bcher-kva.example',
    'xn--bcher-kva.example': 'xn--bcher-kva.example',
    'faß.de': 'xn--fa-hia.de',
    '*.bücher.example': '*.xn--bcher-kva.example',
    '例え.テスト': 'xn--r8jz45g.xn--zckzah',
    [`${label63}.com`]: `${label63}.com`,
  }
  for (const [typed, expected] of Object.entries(cases)) assert.equal(canonical(typed), expected)
})

test('what is not a name is refused with the reason', () => {
  const label63 = 'a'.repeat(63)
  const cases: [string, RegExp][] = [
    ['', /empty/], ['.', /empty/], ['*.', /empty/], ['a..b', /empty label/], ['.example.com', /empty label/],
    ['example.com..', /empty label/],
    ['localhost', /only one label/], ['*.com', /only one label/], ['*', /wildcard/], ['a.*.com', /wildcard/],
    ['w*.example.com', /wildcard/], ['*.*.example.com', /wildcard/],
    ['-a.example', /hyphen/], ['a-.example', /hyphen/], ['a_b.example', /underscore/],
    ['ab--c.example', /third and fourth/], ['xn--a.example', /not well-formed/], ['xn--.example', /hyphen/],
    ['a.é-', /not well-formed/],
    [`${label63}a.com`, /64 octets, and 63/], [`${`${label63}.`.repeat(3)}${label63}`, /255 octets, and 253/],
    [`*.${`${'a'.repeat(61)}.`.repeat(4)}comx`, /254 octets, and 253/],
    // What URL parsers would turn into an address or decode.
    ['1.2', /ends in a number/], ['0x7f.1', /ends in a number/], ['127.1', /ends in a number/],
    ['1.2.3.256', /ends in a number/], ['01.2.3.4', /ends in a number/], ['example.0x', /ends in a number/],
    ['example.123', /ends in a number/], ['%65xample.com', /only letters/], ['e%00.com', /only letters/],
    // What UTS 46 would silently drop or map.
    ['ｅxample.com', /would become "example.com"/], ['a。example', /no name can hold/],
    ['so\u00adft.com', /no name can hold/],
    ['a\u200b.com', /no name can hold/], ['b\ufe0f.com', /would become/], ['Ⅷ.com', /would become "viii.com"/],
    ['１.２', /would become/], ['a.１', /would become|ASCII/], ['ex\u2024ample.com', /no name can hold/],
    ['😀.com', /no name can hold/], ['\u212aelvin.com', /no name can hold/],
    // Shell, path and URL syntax.
    ['$(id).com', /only letters/], ['`id`.com', /only letters/], ['a;b.com', /only letters/],
    ['a/b.com', /only letters/],
    ['../x.com', /only letters|empty label/], ['a\\b.com', /only letters/], ['a b.com', /only letters/],
    ['a\nb.com', /only letters/], ['user@example.com', /only letters/], ['"a".com', /only letters/],
    ['é$.com', /no name can hold/],
    ['http://example.com', /neither a DNS name nor an IPv6 address/],
    ['example.com:443', /a port does not belong here/],
  ]
  for (const [typed, expected] of cases) {
    assert.match(canonical(typed), /^\("/, `${typed} must be refused`)
    assert.match(canonical(typed), expected, typed)
  }
})

test('addresses in canonical form (RFC 5952)', () => {
  const cases: Record<string, string> = {
    '8.8.8.8': '8.8.8.8',
    '2001:4860:4860:0:0:0:0:8888': '2001:4860:4860::8888',
    '2606:4700::1111': '2606:4700::1111',
    '2A00:1450:0:1::A': '2a00:1450:0:1::a',
    '2a00:0:0:1:0:0:0:1': '2a00:0:0:1::1',
    '2606:4700:0:0:1:0:0:1': '2606:4700::1:0:0:1',
    '2606:4700:0:1:1:1:1:1': '2606:4700:0:1:1:1:1:1',
    '2606:4700:0001:0001:0001:0001:0001:0000': '2606:4700:1:1:1:1:1:0',
    '2606:4700:1:1:1:1::': '2606:4700:1:1:1:1::',
    '2606:4700::8.8.8.8': '2606:4700::808:808',
  }
  for (const [typed, expected] of Object.entries(cases)) assert.equal(canonical(typed), expected)
})

test('addresses that no CA can reach are refused with their range', () => {
  const cases: Record<string, string> = {
    '0.1.2.3': 'this network', '10.1.2.3': 'private', '100.64.0.1': 'shared', '100.127.255.255': 'shared',
    '127.0.0.1': 'loopback',
    '169.254.1.1': 'link-local', '172.16.0.1': 'private', '172.31.255.255': 'private', '192.0.0.8': 'reserved',
    '192.0.2.1': 'documentation', '192.168.1.1': 'private', '198.19.0.1': 'benchmarking',
    '198.51.100.1': 'documentation',
    '203.0.113.9': 'documentation', '224.0.0.1': 'multicast', '239.1.1.1': 'multicast', '240.0.0.1': 'reserved',
    '255.255.255.255': 'broadcast',
    '::': 'unspecified', '::1': 'loopback', '::ffff:8.8.8.8': 'IPv4', '64:ff9b::1': 'NAT64', 'fe80::1': 'link-local',
    'febf::1': 'link-local', 'fc00::1': 'private', 'fd12::1': 'private', 'ff02::1': 'multicast',
    '2001:db8::1': 'documentation',
    '2001::1': 'Teredo', '2001:1ff::1': 'reserved for protocols', '2002:808:808::1': '6to4',
    '3fff:fff::1': 'documentation',
    '4000::1': 'outside 2000::/3', '::8.8.8.8': 'outside 2000::/3', '100::1': 'discard',
  }
  for (const [typed, what] of Object.entries(cases)) {
    assert.match(canonical(typed), new RegExp(`no CA can reach this address \\(.*${what}`), typed)
  }
  const outside = [
    '9.255.255.255', '11.0.0.0', '100.63.255.255', '100.128.0.0', '172.15.0.1', '172.32.0.1', '192.0.1.1',
    '223.255.255.255', '2001:200::1', '2001:db9::1', '3fff:1000::1',
  ]
  for (const near of outside) assert.equal(canonical(near), near)
})

test('addresses that are written oddly', () => {
  assert.match(canonical('[2606:4700::1]'), /without brackets/)
  assert.match(canonical('fe80::1%eth0'), /zone/)
  assert.match(canonical('2606:4700::1/64'), /neither/)
  assert.match(canonical('2606:4700:::1'), /neither/)
  assert.match(canonical('8.8.8.8:80'), /port/)
})

test('kinds of identifiers', () => {
  assert.deepEqual(['8.8.8.8', '2606:4700::1', 'a.b', '*.a.b'].map(isIp), [true, true, false, false])
  assert.deepEqual(['8.8.8.8', 'a.b', '*.a.b'].map(isWildcard), [false, false, true])
  assert.ok(coveredBy('www.example.com', '*.example.com'))
  for (const name of ['example.com', 'a.b.example.com', '*.example.com', '8.8.8.8', '2606:4700::1']) {
    assert.equal(coveredBy(name, '*.example.com'), false, name)
  }
  assert.equal(coveredBy('www.example.com', 'www.example.com'), false)
})

// The promise of core/types.ts, from which commands, paths, URLs and log lines are built.
const promised = /^(?:(?:\*\.)?[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|[0-9a-f:]+)$/

test('no input gets anything but letters, digits, ".", "-", ":" and a leading "*." into an identifier', () => {
  const special = fc.constantFrom(
    '.', '.', '*', '*.', '-', ':', '%', '$(x)', '`', ';', '/', '\\', '\0', '\n', ' ', '>', '#', '_', 'xn--', 'a',
    'com', '0',
    'é', 'ß', '。', '\u00ad', '\u200d', 'ｅ', '℀', '⒈',
  )
  const word = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 30 }),
    fc.array(special, { maxLength: 12 }).map((pieces) => pieces.join('')),
    fc.tuple(fc.string({ unit: 'grapheme', maxLength: 6 }), fc.domain()).map((parts) => parts.join('')),
    fc.domain(), fc.ipV4(), fc.ipV6(), fc.webUrl(),
  )
  let taken = 0
  fc.assert(fc.property(word, (typed) => {
    const parsed = parseIdentifier(typed)
    if (!parsed.ok) return
    taken++
    assert.match(parsed.identifier, promised)
    assert.ok(!parsed.identifier.includes('..'))
    assert.ok(parsed.identifier.length <= 253)
    assert.deepEqual(parseIdentifier(parsed.identifier), parsed, 'the canonical form is its own')
  }), { numRuns: 5000 })
  assert.ok(taken > 500, `only ${taken} were taken: the generator is too wild to say anything`)
})
