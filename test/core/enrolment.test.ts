import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import fc from 'fast-check'
import {
  authorizedKeysLine, checkChallengeUrl, checkFingerprint, checkFrom, checkHost, checkHostName, checkPattern, checkPort, checkUser, parseReload,
  receiveConf, receiveConfForward, sshdFile, sudoersFile, sudoersForward, type Enrolment,
} from '../../src/core/enrolment.js'
import { hostBlock, namesHost, withHostBlock } from '../../src/core/enrolmentClient.js'
import { enrolmentScript, hereDocument } from '../../src/core/enrolmentScript.js'
import { UsageError } from '../../src/core/errors.js'
import { opensshPair, publicKeyOf } from '../../src/core/opensshKey.js'
import { shellWord } from '../../src/core/substitute.js'

const dir = mkdtempSync(join(tmpdir(), 'lematt-enrolment-'))
after(() => rmSync(dir, { recursive: true, force: true }))
const shells = [['dash'], ['busybox', 'sh']] as const
const there = (name: string): boolean => spawnSync('sh', ['-c', `command -v ${name}`]).status === 0
const skip = (...names: string[]): string | false => names.every(there) ? false : `needs ${names.join(', ')}: run scripts/setup`

const enrolment: Enrolment = {
  host: 'mx1', user: 'certmaint', from: ['192.0.2.1', '2001:db8::1'], names: ['*.example.com'], forward: 'redirect',
  challengeUrl: 'http://central.example.com', publicKey: 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA', receiver: '#!/bin/sh\necho \'receiver\'\n', leforward: '#!/usr/bin/env node\n',
  reloads: [{ name: 'postfix', command: '/usr/bin/systemctl reload postfix' }, { name: 'own', command: '/usr/local/sbin/own-reload' }],
}

describe('the words of lematt enroll', () => {
  test('what is meant is taken, in one spelling', () => {
    assert.deepEqual(parseReload('postfix=/usr/bin/systemctl  reload postfix'), { name: 'postfix', command: '/usr/bin/systemctl reload postfix' })
    assert.deepEqual(parseReload('a@1=/x/y a=b:c'), { name: 'a@1', command: '/x/y a=b:c' })
    assert.equal(checkFrom('2001:DB8::0:1'), '2001:db8::1')
    assert.equal(checkFrom('192.0.2.0/24'), '192.0.2.0/24')
    assert.equal(checkFingerprint(`${'a'.repeat(43)}=`), `SHA256:${'a'.repeat(43)}`)
    assert.equal(checkChallengeUrl('http://central.example.com/x/'), 'http://central.example.com/x')
    assert.equal(checkHostName('2001:DB8:0::1'), '2001:db8::1')
    assert.equal(checkPort('2222'), 2222)
    assert.deepEqual([checkHost('mx-1.dc'), checkUser('certmaint'), checkPattern('*.example.com')], ['mx-1.dc', 'certmaint', '*.example.com'])
  })

  const refused: [string, () => unknown, RegExp][] = [
    ...['postfix', '=x', 'postfix=', 'post fix=/bin/true', '-x=/bin/true', '../x=/bin/true'].map((word): [string, () => unknown, RegExp] => [word, () => parseReload(word), /^--reload/u]),
    ...['/bin/x;id', '/bin/x $HOME', '/bin/x `id`', '/bin/x *', '/bin/x "a"', '/bin/x \'a\'', '/bin/x a\\b', '/bin/x a,b', '/bin/x #', '/bin/x !a', '/bin/x\nid', '/bin/x\ta', '/bin/x é', '/bin/x %a']
      .map((command): [string, () => unknown, RegExp] => [command, () => parseReload(`n=${command}`), /may not be in the command: no shell reads it/u]),
    ...['systemctl reload x', 'x/y', '-x'].map((command): [string, () => unknown, RegExp] => [command, () => parseReload(`n=${command}`), /no absolute path/u]),
    ...['/bin/', '//bin/x', '/bin/../sbin/x', '/bin/./x', '/'].map((command): [string, () => unknown, RegExp] => [command, () => parseReload(`n=${command}`), /no plain path/u]),
    ...['', '-mx', 'mx1 id', 'a*', '!a', 'a?', 'a"b', 'user@mx', '.a'].map((host): [string, () => unknown, RegExp] => [host, () => checkHost(host), /an alias for the host/u]),
    ...['root', 'Root', '-a', 'a b', 'a:b', 'a,b', ''].map((user): [string, () => unknown, RegExp] => [user, () => checkUser(user), /^--user/u]),
    ...['', '*', 'central', '192.0.2.1,*', '192.0.2.1/33', '0.0.0.0/0', '::/0', '!192.0.2.1', '192.0.2.1"', 'fe80::1%eth0'].map((from): [string, () => unknown, RegExp] => [from, () => checkFrom(from), /^--from/u]),
    ...['a b', 'a/b', 'a\nb', 'a\'b', '$(x)', '', '[!a]*', '[^a]*'].map((pattern): [string, () => unknown, RegExp] => [pattern, () => checkPattern(pattern), /^--names/u]),
    ...['MD5:aa', 'SHA256:', 'SHA256:a'].map((print): [string, () => unknown, RegExp] => [print, () => checkFingerprint(print), /ssh-keygen -lf/u]),
    ...['ftp://x', 'http://', 'http://a b', 'http://x/?q', 'http://u@x', 'http://x/"', 'http://x\nid'].map((url): [string, () => unknown, RegExp] => [url, () => checkChallengeUrl(url), /challengeUrl/u]),
    ...['0', '65536', '22x', ''].map((port): [string, () => unknown, RegExp] => [port, () => checkPort(port), /^--port/u]),
    ...['-oProxyCommand=x', 'a b', '', 'a"'].map((name): [string, () => unknown, RegExp] => [name, () => checkHostName(name), /^--hostname/u]),
  ]
  for (const [value, check, message] of refused) {
    test(`refused with what to do: ${JSON.stringify(value)} (${String(message)})`, () => {
      assert.throws(check, error => error instanceof UsageError && message.test(error.message) && !/[\n\t]/u.test(error.message))
    })
  }
})

describe('the files of an enrolled host', () => {
  test('authorized_keys: restricted, from there, to the receiver; the tunnel opens one port to listen on and none to connect to', () => {
    assert.equal(authorizedKeysLine(enrolment),
      'restrict,from="192.0.2.1,2001:db8::1",command="/usr/local/lib/lematt/lematt-receive" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA lematt')
    assert.match(authorizedKeysLine({ ...enrolment, forward: 'tunnel' }), /^restrict,port-forwarding,permitlisten="127\.0\.0\.1:8402",permitopen="localhost:1",from=/u)
  })

  test('sudoers: each command once, with exactly its arguments, ended after a minute; visudo accepts it', { skip: skip('visudo') }, () => {
    const text = sudoersFile({ ...enrolment, reloads: [...enrolment.reloads, { name: 'again', command: '/usr/local/sbin/own-reload' }, { name: 'odd', command: '/x/y a=b:c +d@e' }] }) + sudoersForward('certmaint', 'http://c.example:80/x')
    assert.match(text, /^certmaint ALL=\(root\) TIMEOUT=60 NOPASSWD: \/usr\/bin\/systemctl reload postfix$/mu)
    assert.equal(text.match(/own-reload/gu)?.length, 1)
    // Without the quotes sudo would take any arguments.
    assert.match(text, /own-reload ""$/mu)
    assert.match(text, /\/x\/y a\\=b\\:c \+d@e$/mu)
    assert.match(text, /^certmaint ALL=\(root\) NOPASSWD: \/usr\/local\/lib\/lematt\/leforward --baseurl http\\:\/\/c\.example\\:80\/x$/mu)
    const file = join(dir, 'sudoers')
    writeFileSync(file, text, { mode: 0o440 })
    execFileSync('visudo', ['-cqf', file])
  })

  test('sudoers: an address in brackets is no pattern; visudo accepts it', { skip: skip('visudo') }, () => {
    const text = sudoersForward('certmaint', 'http://[2001:db8::1]:8080')
    assert.equal(text, 'certmaint ALL=(root) NOPASSWD: /usr/local/lib/lematt/leforward --baseurl http\\://\\[2001\\:db8\\:\\:1\\]\\:8080\n')
    const file = join(dir, 'sudoers6')
    writeFileSync(file, text, { mode: 0o440 })
    execFileSync('visudo', ['-cqf', file])
  })

  test('sshd_config.d: for this account alone, and nothing that follows falls under it; no Unix sockets', () => {
    const lines = sshdFile({ ...enrolment, forward: 'tunnel' }).trimEnd().split('\n').filter(line => !line.startsWith('#'))
    assert.equal(lines[0], 'Match User certmaint')
    assert.equal(lines.at(-1), 'Match all')
    assert.ok(lines.includes('  AllowStreamLocalForwarding no'))
    assert.match(enrolmentScript({ ...enrolment, forward: 'tunnel' }), /^ {2}AllowStreamLocalForwarding no$/mu)
    assert.doesNotMatch(enrolmentScript(enrolment), /^ {2}AllowStreamLocalForwarding/mu)
  })

  test('receive.conf: one word and its values a line', () => {
    const text = receiveConf(enrolment) + receiveConfForward('http://central.example.com')
    assert.deepEqual(text.split('\n').slice(1, -1), [
      'cert /etc/lematt/tls/cert', 'key /etc/lematt/tls/key', 'certmode 0644', 'keymode 0640', 'group ssl-cert', 'names *.example.com',
      'reload postfix /usr/bin/sudo -n /usr/bin/systemctl reload postfix', 'reload own /usr/bin/sudo -n /usr/local/sbin/own-reload', 'reloadtimeout 60',
      'forward http://central.example.com', 'leforward /usr/bin/sudo -n /usr/local/lib/lematt/leforward',
    ])
    assert.doesNotMatch(receiveConf({ ...enrolment, names: [] }), /^names/mu)
  })
})

describe('the script for root', () => {
  // Whatever the value, and however many quotes: one word, and nothing of it is run.
  const text = fc.oneof(
    fc.string({ unit: 'binary' }), fc.array(fc.constantFrom('\'', '"', '\\', '$(id)', '`id`', '\n', ' ', '*', '!', '~', '\'\\\'\'', 'EOF', 'é', '-', '#'), { maxLength: 30 }).map(parts => parts.join('')),
  ).map(value => Buffer.from(value.replaceAll('\0', '')).toString())

  for (const shell of shells) {
    test(`any value comes back equal from ${shell.join(' ')}`, { skip: skip(shell[0]) }, () => {
      fc.assert(fc.property(fc.array(text, { minLength: 10, maxLength: 60 }), values => {
        const script = values.map(value => `printf '%s\\0' ${shellWord(value)}`).join('\n')
        assert.deepEqual(execFileSync(shell[0], shell.slice(1), { input: script, encoding: 'utf8' }).split('\0').slice(0, -1), values)
      }), { numRuns: 15 })
    })

    test(`any text comes out of its here-document whole in ${shell.join(' ')}, whatever stands in it`, { skip: skip(shell[0]) }, () => {
      fc.assert(fc.property(fc.array(text, { minLength: 5, maxLength: 20 }), values => {
        const script = values.map((value, i) => hereDocument(value, String(i))).join('')
        execFileSync(shell[0], shell.slice(1), { input: `work=${shellWord(dir)}\n${script}` })
        for (const [i, value] of values.entries()) {
          assert.equal(readFileSync(join(dir, String(i)), 'utf8'), value === '' || value.endsWith('\n') ? value : `${value}\n`)
        }
      }), { numRuns: 15 })
    })

    test(`${shell.join(' ')} and shellcheck have no objection; what is cut off anywhere does nothing`, { skip: skip(shell[0], 'shellcheck') }, () => {
      const variants: Enrolment[] = [enrolment, { ...enrolment, reloads: [] }, { ...enrolment, forward: 'tunnel' }, { ...enrolment, forward: undefined, names: [] } as unknown as Enrolment]
      for (const each of variants) {
        const script = enrolmentScript(each)
        execFileSync(shell[0], [...shell.slice(1), '-n'], { input: script })
        assert.equal(spawnSync('shellcheck', ['-s', 'sh', '-'], { input: script, encoding: 'utf8' }).stdout, '')
        assert.match(spawnSync(shell[0], shell.slice(1), { input: `id() { echo 1; }\n${script}`, encoding: 'utf8' }).stderr, /for root/u)
        // The last line starts it all: without that, nothing but definitions.
        const end = script.lastIndexOf('main </dev/null')
        for (const length of [end, end - 200, Math.floor(end / 2), 900]) {
          // Who is asked for here is not root: should main run after all, it would end there.
          const ran = spawnSync(shell[0], shell.slice(1), { input: `id() { echo 1; }\n${script.slice(0, length)}`, encoding: 'utf8' })
          assert.equal(ran.stdout, '', `cut at ${length}`)
          assert.doesNotMatch(ran.stderr, /for root/u)
        }
      }
    })
  }

  test('before there is a key it refuses to run', () => {
    const { publicKey, ...without } = enrolment
    assert.ok(publicKey !== undefined)
    assert.match(enrolmentScript(without), /fail 'made by "lematt enroll --print" before there was a key/u)
    assert.doesNotMatch(enrolmentScript(enrolment), /before there was a key/u)
  })

  test('the same enrolment gives the same script, byte for byte', () => {
    assert.equal(enrolmentScript(enrolment), enrolmentScript({ ...enrolment }))
  })
})

describe('the key pair', () => {
  test('ssh-keygen reads what is written, and finds the same public key; so do we', { skip: skip('ssh-keygen') }, () => {
    for (let i = 0; i < 4; i++) {
      const { d = '', x = '' } = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' })
      const pair = opensshPair(Buffer.from(d, 'base64url'), Buffer.from(x, 'base64url'), 'lematt-mx1'.slice(0, 7 + i))
      const file = join(dir, `key${i}`)
      writeFileSync(file, pair.privateKey, { mode: 0o600 })
      const said = execFileSync('ssh-keygen', ['-y', '-P', '', '-f', file], { encoding: 'utf8' })
      assert.equal(said.trim(), `${pair.publicKey} ${'lematt-mx1'.slice(0, 7 + i)}`)
      assert.equal(publicKeyOf(pair.privateKey), pair.publicKey)
    }
  })

  test('what is no key of ours has no public key for us', { skip: skip('ssh-keygen') }, () => {
    const file = join(dir, 'other')
    execFileSync('ssh-keygen', ['-q', '-t', 'ecdsa', '-N', '', '-f', file])
    assert.equal(publicKeyOf(readFileSync(file, 'utf8')), undefined)
    execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', 'secret', '-f', `${file}2`])
    assert.equal(publicKeyOf(readFileSync(`${file}2`, 'utf8')), undefined)
    for (const text of ['', 'x', '-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n']) assert.equal(publicKeyOf(text), undefined)
  })
})

describe('the block in ssh_config', () => {
  const ours = { host: 'mx1', hostName: 'mx1.example.com', port: 2222, user: 'certmaint', keyFile: '/home/a b/100%/lematt-mx1' }
  const asSsh = (text: string, host = 'mx1'): Map<string, string> => {
    const file = join(dir, 'config')
    writeFileSync(file, text, { mode: 0o600 })
    return new Map(execFileSync('ssh', ['-G', '-F', file, host], { encoding: 'utf8' }).split('\n').map(line => [line.split(' ')[0] ?? '', line.slice(line.indexOf(' ') + 1)]))
  }

  const files: [string, string][] = [
    ['an empty file', ''],
    ['a Host * that would win when it came first', '# all\nHost *\n  User nobody\n  Port 1\n'],
    ['values outside of blocks', 'ServerAliveInterval 7\n\n# about\n# others\nHost other\n  User x\n'],
    ['values alone', 'ServerAliveInterval 7'],
    ['a Match first', 'Match all\n  Port 9\n'],
  ]
  for (const [what, text] of files) {
    test(`wins, and changes nothing for other hosts: ${what}`, { skip: skip('ssh') }, () => {
      const joined = withHostBlock(text, hostBlock(ours))
      const found = asSsh(joined)
      assert.deepEqual(['hostname', 'port', 'user', 'identitiesonly'].map(word => found.get(word)), ['mx1.example.com', '2222', 'certmaint', 'yes'])
      assert.equal(found.get('identityfile'), '/home/a b/100%%/lematt-mx1')
      for (const other of ['other', 'mx10']) assert.deepEqual(asSsh(joined, other), asSsh(text, other))
      if (text.includes('ServerAliveInterval')) assert.equal(found.get('serveraliveinterval'), '7')
      for (const line of text.split('\n')) assert.ok(joined.split('\n').includes(line), line)
      assert.ok(namesHost(joined, 'mx1'))
      assert.ok(!namesHost(text, 'mx1'))
    })
  }

  test('a host that is there is seen, however ssh_config(5) lets one write it', () => {
    for (const line of ['Host mx1', 'host  a mx1 b', '\tHOST=mx1', 'Host "mx1"', 'Host = mx1']) assert.ok(namesHost(`X y\n${line}\n`, 'mx1'), line)
    for (const line of ['Host mx*', 'Host mx10', '# Host mx1', 'HostName mx1', 'Match host mx1']) assert.ok(!namesHost(line, 'mx1'), line)
  })

  test('the way through other hosts is kept', { skip: skip('ssh') }, () => {
    assert.equal(asSsh(hostBlock({ ...ours, proxyJump: ['gate', 'ops@inner:2222'] })).get('proxyjump'), 'gate,ops@inner:2222')
    assert.doesNotMatch(hostBlock(ours), /ProxyJump/u)
  })

  test('a path that ssh_config cannot hold is refused', () => {
    for (const keyFile of ['/a"b', '/a\nb', '/a\\b', '/${HOME}/x']) assert.throws(() => hostBlock({ ...ours, keyFile }), /set sshConfig in lematt\.conf/u)
  })
})
