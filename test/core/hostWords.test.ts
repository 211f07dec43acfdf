import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import test from 'node:test'
import fc from 'fast-check'
import { parseActions } from '../../src/core/actions.js'
import { type Assembled, assemble } from '../../src/core/config.js'
import { formatProblem } from '../../src/core/errors.js'
import { wrongHost, wrongService } from '../../src/core/hostWords.js'
import { parseHostName } from '../../src/core/sshConfig.js'
import type { Section, VerifyPort } from '../../src/core/types.js'
import { parsePort } from '../../src/core/verifyWords.js'

const context = { directory: '/etc/lematt', workingDirectory: '/home/certmaint' }
const needed = '[config]\naccountKey: account.pem\nchallengeDropDir: /srv/challenges/\n'

/** The three texts together; `actions` from line 1 on, `settings` are further lines of [config]. */
const load = (actions: string, ...settings: string[]): Assembled => assemble({
  settings: { file: 'lematt.conf', text: needed + settings.join('\n') },
  domains: { file: 'domains', text: 'a.example\nmail.example b\n' },
  actions: { file: 'actions.conf', text: actions },
}, context)

/** The sections of a file without problem or warning. */
function sections(actions: string, ...settings: string[]): readonly Section[] {
  const loaded = load(actions, ...settings)
  assert.deepEqual([loaded.problems, loaded.warnings], [[], []])
  return loaded.configuration?.sections ?? []
}

/** The problems of these lines under `[default]` (they begin at line 2), which must give no configuration. */
function refused(...lines: string[]): string[] {
  const loaded = load(['[default]', ...lines].join('\n'))
  assert.equal(loaded.configuration, undefined, lines.join())
  return loaded.problems.map(formatProblem)
}

/** The warnings of these lines, which must give a configuration. */
function warned(...lines: string[]): string[] {
  const loaded = load(['[default]', ...lines].join('\n'))
  assert.ok(loaded.configuration, loaded.problems.map(formatProblem).join())
  return loaded.warnings.map(formatProblem)
}

test('the example of the contract', () => {
  const [, mail] = sections([
    '[default]', '[mail]', 'domains: mail.example b.mail.example', 'hosts: mx1', '  root@mx2.example:2222 [2001:db8::2]:22',
    'reload: postfix dovecot@main', 'verify: 993 465 25/smtp 587/rsa/smtp 443/ec', 'forward: redirect',
    'verifyAddress: mx1=10.0.0.1 [2001:db8::2]:22=[2001:DB8:0::3] root@mx2.example:2222=Mail.Example.',
  ].join('\n'), 'challengeUrl: http://central.example')
  assert.deepEqual(mail?.hosts, ['mx1', 'root@mx2.example:2222', '[2001:db8::2]:22'])
  assert.deepEqual(mail.reload, ['postfix', 'dovecot@main'])
  assert.deepEqual(mail.verify, [
    { text: '993', port: 993, protocol: 'tls' }, { text: '465', port: 465, protocol: 'tls' },
    { text: '25/smtp', port: 25, protocol: 'smtp' }, { text: '587/smtp/rsa', port: 587, protocol: 'smtp', keyType: 'rsa' },
    { text: '443/ec', port: 443, protocol: 'tls', keyType: 'ec' },
  ])
  assert.deepEqual(mail.verifyAddress, {
    mx1: '10.0.0.1', '[2001:db8::2]:22': '2001:db8::3', 'root@mx2.example:2222': 'mail.example',
  })
  assert.equal(mail.forward, 'redirect')
})

test('a section with one host can have its address alone', () => {
  for (const [typed, address] of [['10.0.0.1', '10.0.0.1'], ['2001:db8::A', '2001:db8::a'], ['mx1', 'mx1']] as const) {
    const [only] = sections(`[default]\nhosts: web\nverify: 443\nverifyAddress: ${typed}`)
    assert.deepEqual(only?.verifyAddress, { web: address })
  }
})

test('hosts that are refused, with their place', () => {
  const cases: [string, RegExp][] = [
    ['-oProxyCommand=x', /is not a host/], ['-mx1', /is not a host/], ['root@-mx1', /is not a host/],
    ['a;b', /without commas and quotes: mx1 a b/], ['$(reboot)', /is not a host/], ['mx2/..', /is not a host/],
    ['a@b@c', /is not a host/], ['mx2:', /is not a host/], ['mx2:0', /is not a host/], ['mx2:65536', /is not a host/],
    ['2001:db8::1', /put the IPv6 address into brackets: \[2001:db8::1\]/], ['[2001:db8::g]', /is not a host/],
    ['[10.0.0.1]:22', /is not a host/], ['.ssh', /is not a host/], ['x'.repeat(256), /is not a host/],
    ['mx2,', /words belong here with blanks between them, without commas and quotes: mx1 mx2$/],
    ['__proto__', /cannot be the name of a host/], ['mx\u00fc', /is not a host/], ['mx2\u202e', /is not a host/],
  ]
  for (const [word, expected] of cases) {
    const found = refused(`hosts: mx1 ${word}`)
    assert.equal(found.length, 1, `${word}: ${found.join('\n')}`)
    assert.match(found[0] ?? '', /^actions\.conf:2:12: hosts: /, word)
    assert.match(found[0] ?? '', expected, word)
  }
  assert.match(refused('hosts: ["mx1", "mx2"]').join(), /2:8: hosts: words .* without commas, brackets and quotes: mx1 mx2$/)
  assert.deepEqual(sections('[default]\nhosts: [2001:db8::1] [fe80::1%eth0]:22 x')[0]?.hosts.length, 3)
  assert.equal(wrongHost('constructor'), '"constructor" cannot be the name of a host; choose another alias')
})

test('services that are refused', () => {
  const cases: [string, RegExp][] = [
    ['postfix,dovecot', /:9: reload: words .* quotes: postfix dovecot$/], ['-q', /:9: reload: "-q" is not the name of a service/],
    ['systemctl reload postfix', /:9: reload: names of services belong here, .* receive\.conf on the hosts$/],
    ['/usr/sbin/postfix', /names of services belong here/], ['a$b', /is not the name/], ['@x', /is not the name/], ['.x', /is not the name/], ['valueOf', /is not the name/],
    ['["postfix"]', /without commas, brackets and quotes: postfix$/], ['x'.repeat(101), /is not the name/],
  ]
  for (const [words, expected] of cases) assert.match(refused('hosts: mx1', `reload: ${words}`).join(), expected)
})

test('ports that are refused: a typical mistake gets the right word', () => {
  const cases: [string, string][] = [
    ['993/imaps', '"993/imaps": 993 speaks TLS at once: write 993'], ['443/https', '"443/https": 443 speaks TLS at once: write 443'],
    ['smtp/25', '"smtp/25" is not a port; write 25/smtp'], ['25:smtp', '"25:smtp" is not a port; write 25/smtp'],
    ['443-ec', '"443-ec" is not a port; write 443/ec'], ['https', '"https" is not a port; write 443'],
    ['imap', '"imap" is not a port; write 143/imap'], ['25/smpt', '"25/smpt" has an unknown part "smpt"; did you mean 25/smtp?'],
    ['443/ECDSA', '"443/ECDSA" has an unknown part "ECDSA"; did you mean 443/ec?'],
    ['443/RSA', '"443/RSA" has an unknown part "RSA"; did you mean 443/rsa?'],
    ['587/starttls', '"587/starttls": name the protocol of STARTTLS, as in 587/smtp (smtp, imap or pop3)'],
    ['mx1:993', '"mx1:993" is not a port; each port is looked at on every host of the section, so write it alone'],
    ['0', '"0" is not a port from 1 to 65535, perhaps with /smtp, /imap, /pop3, /rsa or /ec after it'],
    ['25/smtp/imap', '"25/smtp/imap" says two protocols; leave one'],
    ['443/rsa/ec', '"443/rsa/ec" says two key types; leave one, or none to look at both'],
    ['443/x', '"443/x" has an unknown part "x"; after the port can stand /smtp, /imap, /pop3 (STARTTLS), /rsa or /ec'],
    ['993,465', 'words belong here with blanks between them, without commas and quotes: 80 993 465'],
    ['80/smtp', 'port 80 is there as "80" too, and it can speak only one of the two; take one out'],
  ]
  for (const [word, message] of cases) {
    assert.deepEqual(refused('hosts: mx1', `verify: 80 ${word}`), [`actions.conf:3:12: verify: ${message}`])
  }
  for (const word of ['65536', '-1', '0993', '1e3', '+25', '993/', '/993', '9'.repeat(400), '', '٢٥']) {
    assert.equal(typeof parsePort(word), 'string', word)
  }
})

test('key types of ports are those that the section has', () => {
  assert.match(refused('hosts: mx1', 'keyTypes: ec', 'verify: 443 25/smtp/rsa').join(),
    /^actions\.conf:4:13: verify: "25\/smtp\/rsa" asks for a certificate of type rsa, and keyTypes: of this section is ec; /)
  const torn = load('[default]\nhosts: mx1\nverify: 443/rsa', 'keyTypes: ec').problems.map(formatProblem)
  assert.match(torn.join(), /^actions\.conf:3:9: verify: "443\/rsa" asks for .*\[default\] has only those of type ec \(keyTypes:\); take "\/rsa" off/)
  const other = load('[default]\nhosts: mx1\nverify: 443/rsa\n[every]\nkeyTypes: rsa', 'keyTypes: ec')
  assert.deepEqual(other.problems, [], 'another section says what the subject has')
})

test('verifyAddress: whose, and what an address is', () => {
  const two = (words: string): string => refused('hosts: mx1 mx2', 'verify: 993', `verifyAddress: ${words}`).join()
  assert.match(two('10.0.0.1'), /4:16: verifyAddress: "10\.0\.0\.1" does not say whose address it is, .* write HOST=ADDRESS$/)
  assert.match(two('mx1=10.0.0.1 mx3=10.0.0.3'), /4:29: .*\[default\] has no host "mx3"; did you mean "mx[12]"\?/)
  assert.match(two('mx1=10.0.0.1 mx1=10.0.0.1'), /4:29: .*"mx1" has a second address here/)
  for (const address of ['10.0.0.1:993', '[2001:db8::1]:993', 'mx.example:25']) {
    assert.match(two(`mx1=${address}`), /4:20: .* is neither a host name nor an IP address; ports are those of verify:$/)
  }
  for (const address of ['', '1.2', '0x7f.1', 'a..b', '-x.example', 'x y=1', 'a/b', 'fe80::1%eth0', '[x', `${'a.'.repeat(130)}a`]) {
    assert.match(two(`mx1=${address}`), /4:\d+: verifyAddress: .* is neither a host name nor an IP address$/, address)
  }
})

test('what speaks of hosts needs hosts', () => {
  const cases = ['reload: postfix', 'verify: 993', 'verifyAddress: mx1=10.0.0.1', 'forward: tunnel']
  for (const line of cases) {
    const [key = ''] = line.split(':')
    const message = `${key}: speaks of hosts, and [default] has none; name them with hosts: or take this line out`
    assert.deepEqual(refused(line), [`actions.conf:2:${key.length + 3}: ${message}`])
  }
  assert.deepEqual(refused('hosts:', ...cases), ['actions.conf:2:1: hosts: there is no value; give one or take the line out'])
  assert.equal(refused('hosts: -x', 'reload: postfix', 'verify: 993').length, 1, 'one mistake, one problem')
})

test('forward: redirect needs challengeUrl, tunnel does not', () => {
  assert.deepEqual(refused('hosts: mx1', 'forward: redirect'), [
    'actions.conf:3:10: forward: a redirect needs the URL of this central host; add challengeUrl to lematt.conf, '
    + 'as in "challengeUrl: http://central.example.com"',
  ])
  assert.equal(sections('[default]\nhosts: mx1\nforward: tunnel')[0]?.forward, 'tunnel')
  assert.match(refused('hosts: mx1', 'forward: redirekt').join(), /3:10: forward: "redirekt" is neither .*; did you mean "redirect"\?$/)
  assert.match(refused('hosts: mx1', 'forward: http://c.example').join(), /the URL belongs to challengeUrl in lematt\.conf$/)
  const wrong = load('[default]\nhosts: mx1\nforward: redirect', 'challengeUrl: central').problems.map(formatProblem)
  assert.deepEqual(wrong.map((each) => each.slice(0, 17)), ['lematt.conf:4:15:'], 'one mistake, one problem')
})

test('[DEFAULT] speaks to the sections with hosts', () => {
  const shared = '[DEFAULT]\nreload: nginx\nverify: 443\nverifyAddress: web1=10.0.0.1 web2=10.0.0.2\n'
  const [first, second, third] = sections(`${shared}[default]\nhosts: web1\n[x]\ndomains: a.example\nhosts: web2\nreload: caddy\n[every]\nupdate: ["x"]`)
  assert.deepEqual([first?.reload, first?.verifyAddress], [['nginx'], { web1: '10.0.0.1' }])
  assert.deepEqual([second?.reload, second?.verifyAddress], [['caddy'], { web2: '10.0.0.2' }])
  assert.deepEqual([third?.hosts, third?.reload, third?.verify, third?.verifyAddress], [[], [], [], {}])
  assert.match(load(`${shared}[default]`).problems.map(formatProblem).join(), /2:9: reload: speaks of hosts, and \[default\] has none/)
  assert.match(load(`${shared}[default]\nhosts: web1`).problems.map(formatProblem).join(), /4:30: .* has no host "web2"/)
  assert.deepEqual(sections('[DEFAULT]\nhosts: web1\n[default]\n[every]').map(({ hosts }) => hosts), [['web1'], ['web1']])
})

test('what is there twice, or looks wrong, is a warning', () => {
  assert.deepEqual(warned('hosts: mx1 mx2 mx1', 'reload: a a', 'verify: 443 443/rsa 443 9443/ec 9443/rsa'), [
    'actions.conf:2:16: hosts: "mx1" is there twice; take one out',
    'actions.conf:3:11: reload: "a" is there twice; take one out',
    'actions.conf:4:13: verify: "443" looks at this already; take "443/rsa" out',
    'actions.conf:4:21: verify: "443" looks at this already; take "443" out',
  ])
  assert.match(warned('hosts: mx1', 'verify: 587/ec').join(), /write 587\/smtp\/ec unless/)
  assert.deepEqual(warned('hosts: mx1', 'verify: 25 993/imap/ec'), [
    'actions.conf:3:9: verify: services on port 25 use STARTTLS as a rule; write 25/smtp unless this one does not',
    'actions.conf:3:12: verify: port 993 speaks TLS at once as a rule; write 993/ec unless this service does not',
  ])
})

test('sshConfig and challengeUrl in lematt.conf', () => {
  const settings = (...lines: string[]): Assembled => load('[default]', ...lines)
  const good: [string, string][] = [
    ['http://Central.example', 'http://central.example'], ['https://central.example:443/', 'https://central.example'],
    ['http://central.example:80/le/matt//', 'http://central.example/le/matt'], ['http://[2001:db8::1]', 'http://[2001:db8::1]'],
    ['http://central.example:443', 'http://central.example:443'],
  ]
  for (const [typed, url] of good) assert.equal(settings(`challengeUrl: ${typed}`).configuration?.settings.challengeUrl, url)
  const bad: [string, RegExp][] = [
    ['central.example', /does not begin with http/], ['http://central.example:8080', /a port that CAs do not follow/],
    ['http://central.example/?x', /a query or a fragment/], ['http://u@central.example', /has a user/],
    ['http://', /not a plain URL/], ['http://a.example/$(x)', /not a plain URL/], ['http://a.example/b c', /not a plain URL/],
    ['http://a.example\\b', /not a plain URL/], ['ftp://a.example', /does not begin/], ["http://a.example/'", /not a plain URL/],
    ['http://c.example/.well-known/acme-challenge/', /lematt adds .* itself; write http:\/\/c\.example$/],
  ]
  for (const [typed, expected] of bad) {
    const { configuration, problems } = settings(`challengeUrl: ${typed}`)
    assert.equal(configuration, undefined)
    assert.match(problems.map(formatProblem).join(), expected)
    assert.match(problems.map(formatProblem).join(), /^lematt\.conf:4:15: challengeUrl: /)
  }
  assert.equal(settings('sshConfig: ssh/config').configuration?.settings.sshConfig, '/home/certmaint/ssh/config')
  assert.equal(settings().configuration?.settings.sshConfig, undefined)
})

const anything = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 40 }), fc.string({ maxLength: 12 }),
  fc.array(fc.constantFrom('mx1', 'root', '@', ':', '22', '[', ']', '::1', '-', '.', '%', ' ', '\n', '\t', ',', '"', '=', '/', 'smtp',
    '25', 'ec', '\0', '\u001b', '\u00a0', '\u2028', '$', '__proto__'), { maxLength: 12 }).map((pieces) => pieces.join('')),
)

test('no input gets a blank, a control character or a leading "-" into a host, a service, a port or an address', () => {
  const safe = /^[A-Za-z0-9._@:%[\]][A-Za-z0-9._@:%[\]-]*$/u
  let taken = 0
  fc.assert(fc.property(anything, anything, anything, anything, (hosts, reload, verify, address) => {
    const text = `[default]\nhosts: mx1 ${hosts}\nreload: postfix ${reload}\nverify: 443 ${verify}\nverifyAddress: mx1=${address}`
    for (const section of parseActions(text, 'actions.conf').sections) {
      const words = [...section.hosts, ...section.reload, ...Object.keys(section.verifyAddress), ...Object.values(section.verifyAddress)]
      for (const word of words) assert.match(word, safe)
      for (const port of section.verify) assert.match(port.text, /^\d{1,5}(?:\/(?:smtp|imap|pop3))?(?:\/(?:rsa|ec))?$/u)
      assert.equal(new Set(section.hosts).size, section.hosts.length)
      taken += words.length
    }
  }), { numRuns: 3000 })
  assert.ok(taken > 1000, 'the readers do take words')
})

test('a word that is taken is safe, and a port is read from its own spelling again', () => {
  fc.assert(fc.property(anything, (word) => {
    if (wrongHost(word) === undefined) assert.match(word, /^[\w[][\w.@:%[\]-]*$/u)
    if (wrongService(word) === undefined) assert.match(word, /^[A-Za-z0-9][\w.@-]*$/u)
  }), { numRuns: 3000 })
  const suffix = fc.constantFrom('', '/smtp', '/imap', '/pop3', '/rsa', '/ec', '/smtp/ec', '/rsa/imap')
  fc.assert(fc.property(fc.integer({ min: 1, max: 65_535 }), suffix, (port, rest) => {
    const parsed = parsePort(`${port}${rest}`) as VerifyPort
    assert.equal(parsed.port, port)
    assert.deepEqual(parsePort(parsed.text), parsed)
  }))
})

test('every host that is taken can be given to ssh', () => {
  const pieces = fc.constantFrom('mx1', 'root', '@', '@', ':', '22', '[::1]', '[fe80::1%eth0]', '[', ']', '::1', '-', '.', '%', '_', '1.2.3.4')
  let taken = 0
  fc.assert(fc.property(fc.array(pieces, { minLength: 1, maxLength: 5 }).map((each) => each.join('')), (word) => {
    if (wrongHost(word) !== undefined) return
    taken++
    const read = parseHostName(word)
    assert.ok(read, word)
    assert.ok(word.includes(read.host) && (read.port === undefined || word.endsWith(`:${read.port}`)), word)
  }), { numRuns: 3000 })
  assert.ok(taken > 100)
})

test('hundreds of thousands of words are a list of problems or a section, not a crash', () => {
  const many = (word: string): string => `${word} `.repeat(100_000)
  const { problems, warnings } = load(`[default]\nhosts: ${many('mx1')}\nreload: ${many('a,')}\nverify: ${many('443')}\nverifyAddress: ${many('=')}`)
  assert.equal(problems.length, 2)
  assert.equal(warnings.length, 101)
})

test('the examples in conf/ are right when their # is taken away', () => {
  const sample = (name: string): string => readFileSync(new URL(`../../conf/${name}`, import.meta.url), 'utf8').replace(/^#(?=\[|\w+: )/gmu, '')
  const { configuration, problems, warnings } = assemble({
    settings: { file: 'lematt.conf', text: sample('lematt.conf') }, domains: { file: 'domains', text: 'mail.example.com imap\nimap.example.com' },
    actions: { file: 'actions.conf', text: sample('actions.conf') },
  }, context)
  assert.deepEqual([problems, warnings.filter(({ place }) => place.file === 'actions.conf')], [[], []])
  const mail = configuration?.sections.find(({ name }) => name === 'mail')
  assert.deepEqual([mail?.hosts, mail?.verify.length, mail?.forward], [['mx1', 'mx2'], 3, 'redirect'])
  assert.ok(configuration?.settings.challengeUrl !== undefined && configuration.settings.sshConfig !== undefined)
})
