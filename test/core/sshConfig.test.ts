/** What `ssh -G` prints, and names of hosts. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { parseHostName, parseSshConfig } from '../../src/core/sshConfig.js'

const local = { home: '/home/certmaint', user: 'certmaint', uid: 1000, hostName: 'central.example.com', original: 'mx1', environment: { SSH_AUTH_SOCK: '/run/agent', HERE: '/here' } }
const parse = (text: string): ReturnType<typeof parseSshConfig> => parseSshConfig(text, local)

describe('names of hosts', () => {
  const good: readonly [string, ReturnType<typeof parseHostName>][] = [
    ['mx1', { host: 'mx1' }],
    ['root@mx1', { host: 'mx1', user: 'root' }],
    ['mx1.example.com:2222', { host: 'mx1.example.com', port: 2222 }],
    ['cert-maint@mx_1:22', { host: 'mx_1', user: 'cert-maint', port: 22 }],
    ['root@[2001:db8::1]:2222', { host: '2001:db8::1', user: 'root', port: 2222 }],
    ['[2001:db8::1]', { host: '2001:db8::1' }],
    ['2001:db8::1', { host: '2001:db8::1' }],
    ['fe80::1%eth0', { host: 'fe80::1%eth0' }],
    ['ssh://root@mx1:2222', { host: 'mx1', user: 'root', port: 2222 }],
    ['a@b@mx1', { host: 'mx1', user: 'a@b' }],
  ]
  for (const [name, words] of good) test(name, () => assert.deepEqual(parseHostName(name), words))

  for (const name of ['', '-oProxyCommand=x', 'root@-x', '-l@mx1', 'mx1:0', 'mx1:65536', 'mx1:x', 'mx1:', 'a b', 'mx1;id', '$(id)', '`id`', 'mx1\n', '@mx1', 'mx1:22:33', '[mx1', 'é.example', '%h', 'fe80::1%e;id', 'x/y']) {
    test(`${JSON.stringify(name)} is none`, () => assert.equal(parseHostName(name), undefined))
  }

  test('whatever is written, ssh gets no option and no character of the shell from it', () => {
    fc.assert(fc.property(fc.oneof(fc.string(), fc.stringMatching(/^[-@:\w.[\]%;$ ]{0,20}$/u)), name => {
      const words = parseHostName(name)
      if (words === undefined) return
      for (const text of [words.host, words.user ?? 'x']) assert.match(text, /^[\w.:][\w.:%+@-]*$/u)
    }))
  })
})

describe('settings', () => {
  test('what we obey', () => {
    const { settings, refused } = parse([
      'host mx1', 'user bob', 'hostname mx1.example.com', 'port 2222', 'identitiesonly yes', 'identityfile ~/.ssh/%h_%r', 'identityfile /with blank/key', 'identityfile ${HERE}/%%k',
      'identityagent none', 'proxyjump a@b:33,c', 'hostkeyalias mail', 'userknownhostsfile /with blank/kh /home/x/.ssh/known_hosts2', 'globalknownhostsfile /etc/ssh/ssh_known_hosts',
      'connecttimeout 3', 'addressfamily inet6', 'bindaddress 192.0.2.9', 'pubkeyauthentication true', 'revokedhostkeys none', 'securitykeyprovider internal',
    ].join('\n'))
    assert.deepEqual(refused, [])
    assert.deepEqual(settings, {
      hostName: 'mx1.example.com', port: 2222, user: 'bob', identityFiles: ['/home/certmaint/.ssh/mx1.example.com_bob', '/with blank/key', '/here/%k'], identitiesOnly: true,
      proxyJump: ['a@b:33', 'c'], hostKeyAlias: 'mail', knownHostsFiles: ['/with blank/kh', '/home/x/.ssh/known_hosts2', '/etc/ssh/ssh_known_hosts'], connectTimeoutSeconds: 3,
      addressFamily: 6, bindAddress: '192.0.2.9',
    })
  })

  test('what ssh has when nothing is said', () => {
    const { settings, refused } = parse('user certmaint\nhostname mx1\nport 22\nconnecttimeout none\nuserknownhostsfile none\nglobalknownhostsfile /dev/null\nidentityfile none\naddressfamily any')
    assert.deepEqual(refused, [])
    assert.deepEqual(settings, { hostName: 'mx1', port: 22, user: 'certmaint', identityFiles: [], identitiesOnly: false, identityAgent: '/run/agent', proxyJump: [], knownHostsFiles: [], connectTimeoutSeconds: 15 })
  })

  test('the agent: by path, by variable, none', () => {
    assert.equal(parse('identityagent /run/other').settings.identityAgent, '/run/other')
    assert.equal(parse('identityagent $HERE').settings.identityAgent, '/here')
    assert.equal(parse('identityagent SSH_AUTH_SOCK').settings.identityAgent, '/run/agent')
    assert.equal(parse('identityagent $NOT_SET').settings.identityAgent, undefined)
    assert.equal(parse('identityagent none').settings.identityAgent, undefined)
    assert.equal(parseSshConfig('', { ...local, environment: {} }).settings.identityAgent, undefined)
  })

  for (const [line, said] of [
    ['proxycommand nc %h %p', 'ProxyCommand'], ['certificatefile ~/x-cert.pub', 'CertificateFile'], ['pkcs11provider /usr/lib/x.so', 'PKCS11Provider'], ['revokedhostkeys /etc/revoked', 'RevokedHostKeys'],
    ['pubkeyauthentication false', 'PubkeyAuthentication'], ['identityfile ${NOT_SET}/key', '${NOT_SET}/key'], ['identityfile ~bob/key', '~bob/key'],
  ] as const) {
    test(`${line}: refused by name`, () => {
      const { refused } = parse(`hostname mx1\n${line}`)
      assert.equal(refused.length, 1)
      assert.ok(refused[0]?.includes(said))
    })
  }

  test('ProxyCommand none and CertificateFile none ask for nothing', () => assert.deepEqual(parse('proxycommand none\ncertificatefile none\nproxyjump none').refused, []))

  test('nothing makes it throw', () => {
    const key = fc.constantFrom('hostname', 'port', 'identityfile', 'identityagent', 'proxyjump', 'connecttimeout', 'userknownhostsfile', '__proto__', 'constructor')
    const lines = fc.array(fc.oneof(fc.string(), fc.tuple(key, fc.oneof(fc.string(), fc.constantFrom('%h', '~', '${A}', '%constructor', '99999999999'))).map(([k, v]) => `${k} ${v}`)))
    fc.assert(fc.property(lines, all => {
      const { settings } = parse(all.join('\n'))
      assert.ok(settings.port >= 1 && settings.port <= 65_535)
      assert.ok(settings.connectTimeoutSeconds >= 1 && settings.connectTimeoutSeconds <= 3600)
      for (const file of [...settings.identityFiles, ...settings.knownHostsFiles]) assert.ok(file.startsWith('/'))
    }))
  })
})
