import assert from 'node:assert/strict'
import test from 'node:test'
import fc from 'fast-check'
import { type Assembled, assemble } from '../../src/core/config.js'
import { formatProblem } from '../../src/core/errors.js'
import { configKeys, nearest, sectionKeys } from '../../src/core/keys.js'
import type { Settings } from '../../src/core/types.js'

const context = { directory: '/etc/lematt', workingDirectory: '/home/certmaint' }

function load(settings?: string, domains?: string, actions?: string): Assembled {
  return assemble({
    settings: { file: 'lematt.conf', text: settings },
    domains: { file: 'domains', text: domains },
    actions: { file: 'actions.conf', text: actions },
  }, context)
}

const needed = '[config]\naccountKey: account.pem\nchallengeDropDir: /srv/challenges/\n'

/** What `[config]` with these lines (from line 4 on) gives; it must be without problems. */
function settings(...lines: string[]): Settings {
  const loaded = load(needed + lines.join('\n'), 'a.example', '[default]')
  assert.deepEqual(loaded.problems, [])
  assert.ok(loaded.configuration)
  return loaded.configuration.settings
}

/** The problems of `[config]` with these lines; there must not be a configuration. */
function refused(...lines: string[]): string[] {
  const loaded = load(needed + lines.join('\n'), 'a.example', '[default]')
  assert.equal(loaded.configuration, undefined)
  return loaded.problems.map(formatProblem)
}

function warned(...lines: string[]): string[] {
  const loaded = load(needed + lines.join('\n'), 'a.example', '[default]')
  assert.ok(loaded.configuration)
  return loaded.warnings.map(formatProblem)
}

test('defaults', () => {
  assert.deepEqual(settings(), {
    challengeDropDir: '/srv/challenges',
    challengeCheck: true,
    accountKey: '/home/certmaint/account.pem',
    generateNewCertsAfterDays: 0,
    alwaysGenerateNewKeys: false,
    keyBitsRSA: 2048,
    curve: 'prime256v1',
    rsaTag: 'rsa2048',
    curveTag: 'prime256v1',
    keyTypes: ['ec', 'rsa'],
    prodDirectory: 'https://acme-v02.api.letsencrypt.org/directory',
    testDirectory: 'https://acme-staging-v02.api.letsencrypt.org/directory',
    contact: [],
    parallel: 16,
    commandTimeoutSeconds: 300,
    verifyGraceSeconds: 30,
  })
})

test('every key', () => {
  const all = settings(
    'reauthorizeDays: 42.42', 'generateNewCertsAfterDays = 7', 'alwaysGenerateNewKeys: Yes', 'keyBitsRSA: 4096',
    'curve: secp256r1', 'KEYTYPES: rsa', 'prodDirectory: https://ca.example/dir',
    'testDirectory: https://ca.example:14000/dir?x=1', 'caBundle: ../ca.pem',
    'contact: ops@example.com,mailto:Other@Bücher.example', 'parallel: 4', 'commandTimeout: 0600',
    'challengeListen: [::]:80', 'challengeCheck: off', 'logFile: log/lematt.log',
  )
  assert.deepEqual(all, {
    challengeDropDir: '/srv/challenges',
    challengeListen: { address: '::', port: 80 },
    challengeCheck: false,
    accountKey: '/home/certmaint/account.pem',
    reauthorizeDays: 42.42,
    generateNewCertsAfterDays: 7,
    alwaysGenerateNewKeys: true,
    keyBitsRSA: 4096,
    curve: 'prime256v1',
    rsaTag: 'rsa4096',
    curveTag: 'secp256r1',
    keyTypes: ['rsa'],
    prodDirectory: 'https://ca.example/dir',
    testDirectory: 'https://ca.example:14000/dir?x=1',
    caBundle: '/home/ca.pem',
    contact: ['ops@example.com', 'Other@xn--bcher-kva.example'],
    parallel: 4,
    commandTimeoutSeconds: 600,
    verifyGraceSeconds: 30,
    logFile: '/home/certmaint/log/lematt.log',
  })
  assert.equal(settings('curve: secp384r1').curveTag, 'secp384r1')
  assert.deepEqual(settings('rsaTag: RSA_x', 'curveTag: e.c').curveTag, 'e.c')
  assert.deepEqual(settings('challengeListen: 127.0.0.1:8402').challengeListen, { address: '127.0.0.1', port: 8402 })
})

test('challengeListen makes challengeDropDir unnecessary', () => {
  const text = '[config]\naccountKey: /a\n'
  const loaded = load(`${text}challengeListen: 0.0.0.0:80`, '', '')
  assert.equal(loaded.configuration?.settings.challengeDropDir, undefined)
  assert.deepEqual(load(text, '', '').problems.map(formatProblem), [
    'lematt.conf:1:1: challengeDropDir is missing; name the directory that your web server serves as '
    + '/.well-known/acme-challenge/, or set challengeListen',
  ])
})

test('every value is checked, and has its place', () => {
  const cases: [string, RegExp][] = [
    ['reauthorizeDays: soon', /:4:18: reauthorizeDays: "soon" is not a number/],
    ['reauthorizeDays: -3', /not a number/], ['generateNewCertsAfterDays: nan', /not a number/],
    ['alwaysGenerateNewKeys: maybe', /neither yes nor no/], ['challengeCheck: 2', /neither yes nor no/],
    ['keyBitsRSA: 1024', /:4:13: keyBitsRSA: "1024" is not one of 2048, 3072, 4096/],
    ['curve: secp521r1', /not one of prime256v1, secp256r1, secp384r1; did you mean/],
    ['rsaTag: ../x', /cannot be a tag/], ['rsaTag: .x', /cannot be a tag/], ['curveTag: a b', /cannot be a tag/],
    ['curveTag: -x', /cannot be a tag/], [`rsaTag: ${'x'.repeat(51)}`, /cannot be a tag/],
    ['rsaTag: prime256v1', /:4:9: rsaTag and curveTag are both "prime256v1"/],
    ['curveTag: rsa2048', /:4:11: rsaTag and curveTag are both/],
    ['keyTypes: rsa ed25519', /:4:15: keyTypes: "ed25519" is not a key type/],
    ['prodDirectory: http://ca.example/dir', /https:/], ['prodDirectory: ca.example', /https:/],
    ['testDirectory: https://u:p@ca.example/', /no place/], ['testDirectory: https://ca.example/#x', /no place/],
    ['contact: ops', /"ops" is not a mail address/], ['contact: a@b.example, c@d', /:4:23: contact: "c@d"/],
    ['contact: a@8.8.8.8', /not a mail address/], ['contact: a@b.example?subject=x', /not a mail address/],
    ['contact: a@*.b.example', /not a mail address/], ['parallel: 0', /whole number from 1 to 256/],
    ['parallel: 2.5', /whole number/], ['commandTimeout: 0', /number from 1 to 86400/],
    ['challengeListen: 80', /not an address and a port/], ['challengeListen: localhost:80', /not an address/],
    ['challengeListen: :::80', /not an address/], ['challengeListen: 0.0.0.0:0', /not an address/],
    ['challengeListen: 0.0.0.0:65536', /not an address/], ['challengeListen: [::1.2.3.4.5]:80', /not an address/],
    ['caBundle: ~/ca.pem', /"~" stands for nothing/], ['logFile: a\n  b', /one line/],
    ['logFile: a\u0000b', /control character/], ['logFile:', /:4:1: logFile: there is no value/],
    ['logFile: %(x)s', /:4:10: logFile: "%\(" would insert/],
    ['paralel: 3', /:4:1: unknown key "paralel"; did you mean "parallel"\?/],
    ['ocspStapleRequired: no', /unknown key "ocspStapleRequired"; docs\/configuration\.md has the list/],
  ]
  for (const [line, expected] of cases) {
    const found = refused(line)
    assert.equal(found.length, 1, `${line}: ${found.join('\n')}`)
    assert.match(found[0] ?? '', expected, line)
  }
})

test('generateNewCertsAfterDays below what the CA\'s limit allows is a warning with the arithmetic', () => {
  const [only] = warned('generateNewCertsAfterDays: 3.4')
  assert.match(only ?? '', /^lematt\.conf:4:28: generateNewCertsAfterDays: 3\.4 days is too often/)
  assert.match(only ?? '', /takes 2 of them, so 2 renewals fit into 7 days, and 7 \/ 2 = 3\.5 days is the least$/)
  assert.deepEqual(warned('generateNewCertsAfterDays: 3.5'), [])
  assert.deepEqual(warned('generateNewCertsAfterDays: 0'), [])
  assert.deepEqual(warned('generateNewCertsAfterDays: 2', 'keyTypes: ec'), [], 'five of one kind fit')
  assert.match(warned('generateNewCertsAfterDays: 1', 'keyTypes: ec').join(), /7 \/ 5 = 1\.4 days/)
})

test('the same directory for test and prod is a warning', () => {
  const [only] = warned('testDirectory: https://acme-v02.api.letsencrypt.org/directory')
  assert.match(only ?? '', /:4:16: prodDirectory and testDirectory are the same/)
})

test('sections: [config] is needed, others are a warning, [DEFAULT] gives values', () => {
  for (const [text, line] of [['[confg]\naccountKey: x', 1], ['', 1], ['[a]\n[cofnig]', 2]] as const) {
    const [only, ...more] = load(text, '', '').problems.map(formatProblem)
    assert.match(only ?? '', new RegExp(`^lematt\\.conf:${line}:1: the section \\[config\\] is missing`))
    assert.deepEqual(more, [])
  }
  assert.match(warned('[other]', 'x: 1').join(), /^lematt\.conf:4:1: nothing reads the section \[other\]/)
  const loaded = load(`[DEFAULT]\nparallel: 3\n${needed}`, '', '')
  assert.equal(loaded.configuration?.settings.parallel, 3)
})

test('all problems of all three files at once, in order, each once, cleaned', () => {
  const loaded = load(
    '[config]\nfoo\u001b[31mo: 1\nchallengeDropDir: x',
    'b_d.example\nlocalhost',
    '[DEFAULT]\nupdte: []\n[default]\n[every]\ndomains: x',
  )
  assert.equal(loaded.configuration, undefined)
  assert.deepEqual(loaded.problems.map(formatProblem).map((each) => each.slice(0, 36)), [
    'lematt.conf:1:1: accountKey is missi', 'lematt.conf:2:1: unknown key "fooo";',
    'domains:1:1: "b_d.example" is not a ', 'domains:2:1: "localhost" is not a na',
    'actions.conf:2:1: unknown key "updte', 'actions.conf:5:1: domains: has no pl',
  ])
})

test('a text that could not be read gives no configuration and no problem of its own', () => {
  assert.deepEqual(load(needed, undefined, '[default]\n[x]\ndomains: a.example'), { problems: [], warnings: [] })
  assert.equal(load(undefined, 'a.example', '[default]').configuration, undefined)
  assert.equal(load(needed, 'a.example', undefined).configuration, undefined)
})

test('a wrong file does not flood the terminal', () => {
  const { problems } = load(needed, Array.from({ length: 5000 }, () => 'PNG').join('\n'), '[default]')
  assert.equal(problems.length, 101)
  assert.equal(problems.at(-1)?.message, 'and 4900 more problems in this file')
})

test('a large configuration is read quickly', () => {
  const domains = Array.from({ length: 5000 }, (_, i) => `h${i}.example www mail`).join('\n')
  const listed = Array.from({ length: 5000 }, (_, i) => `www.h${i}.example`).join(' ')
  const overrides = Array.from({ length: 20 }, (_, i) => `[s${i}]\ndomains: ${listed}\nkeyTypes: ec`)
  const actions = ['[default]', 'keyTypes: ec', ...overrides].join('\n')
  const started = process.cpuUsage()
  const loaded = load(needed, domains, actions)
  assert.equal(loaded.configuration?.subjects.length, 5000)
  // Measured 0.6 s; quadratic work over the names would take minutes.
  const { user } = process.cpuUsage(started)
  assert.ok(user < 5e6, `${user / 1000} ms`)
})

test('hundreds of thousands of anything is a list of problems, not a crash', () => {
  const most = 600_000
  const fill = (piece: string): string => piece.repeat(most / piece.length)
  const cases = [
    load(fill('x\n'), fill('> '), fill('=\n')),
    load(`${needed}contact: ${fill('%( ')}`, fill('a.b '), `[x]\ndomains: ${fill('$.$ ')}`),
    load(`${needed}contact: ${fill('a@b.c ')}`, 'a.b', `[default]\nupdate: [${fill('"a",')}`),
    load(needed, 'a.b', `[default]\nupdate: [${fill('[')}`),
    load(needed, 'a.b', `[default]\n[x]\ndomains: ${fill('a.c ')}`),
  ]
  for (const { problems, warnings } of cases) {
    assert.ok(problems.length + warnings.length > 0)
    assert.ok(problems.length <= 303 && warnings.length <= 303)
  }
})

test('the nearest known key', () => {
  const names = [...configKeys, ...sectionKeys].map(({ name }) => name)
  assert.equal(nearest('acountkey', names), 'accountKey')
  assert.equal(nearest('uplaodCerts', names), 'uploadCerts')
  assert.equal(nearest('KEYBITSRSA', names), 'keyBitsRSA')
  assert.equal(nearest('domain', names), 'domains')
  assert.equal(nearest('zzz', names), undefined)
  assert.equal(nearest('', names), undefined)
})

test('no three texts crash it, and problems always have a place', () => {
  const piece = fc.constantFrom(
    '[config]\n', '[default]\n', '[', ']', '\n',
    '\n ', ...configKeys.map(({ name }) => `\n${name}: `), '\nkeyTypes: rsa', 'yes',
    '7', '%', '%(', '["x"]', 'example.com', ' > ', '\0', '\ufeff', 'https://[', '[::]:80',
  )
  const pieces = fc.array(piece, { maxLength: 25 }).map((each) => each.join(''))
  const text = fc.oneof(pieces, fc.string({ unit: 'binary' }))
  fc.assert(fc.property(text, text, text, (a, b, c) => {
    const loaded = load(a, b, c)
    assert.equal(loaded.configuration === undefined, loaded.problems.length > 0)
    for (const { place, message } of [...loaded.problems, ...loaded.warnings]) {
      assert.ok(place.line >= 1 && place.column >= 1)
      assert.doesNotMatch(message, /[\u0000-\u001f\u007f-\u009f]/)
    }
  }), { numRuns: 1000 })
})
