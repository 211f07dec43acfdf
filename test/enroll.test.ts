/**
 * Enrolment of a real fresh host (spec §8): before it nothing, after it deliveries; and the enrolled key can do nothing else.
 * The host has a user database, sudo and sshd of its own (helpers/freshHost.ts).
 */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { cpSync, existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { checkHosts } from '../src/checkHosts.js'
import type { Finding } from '../src/checkStore.js'
import { sudoersForward } from '../src/core/enrolment.js'
import { OperationalError, UsageError } from '../src/core/errors.js'
import type { Configuration } from '../src/core/types.js'
import { loadConfiguration } from '../src/edge/configFiles.js'
import { enroll } from '../src/enroll.js'
import { parseEnroll } from '../src/enrollArgs.js'
import { certify } from './helpers/certificates.js'
import { freshen, systemSshd } from './helpers/freshHost.js'
import { Lab, labSkip, type LabHost } from './helpers/lab.js'
import type { Ran } from './helpers/lab-process.js'
import type { Sshd } from './helpers/sshd.js'
import { until } from './helpers/until.js'
import { contents } from './helpers/witness.js'

const repository = new URL('..', import.meta.url).pathname
const needs = labSkip() || (userInfo().uid !== 0 && 'needs root, for a user database')
  || (!existsSync('/usr/sbin/visudo') && 'needs sudo: run scripts/setup')
  || (!existsSync(join(repository, 'dist/forwarder/leforward.cjs')) && 'needs npm run build, for leforward')
const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex')
const url = 'http://central.example.com'
const reload = '--reload=demo=/usr/local/sbin/reload-demo now'

describe('lematt enroll', { skip: needs }, () => {
  let lab: Lab
  let host: LabHost
  let conf: string
  let hostKey: string
  let sshd: Sshd
  /** What hosts get, as it stood when we began. */
  let packageRoot: string
  /** The script of the enrolment. */
  let script: string
  const at = (name: string): string => join(conf, 'ssh', name)
  const configuration = (): Promise<Configuration> => loadConfiguration(conf, repository)

  before(async () => {
    lab = await Lab.open()
    host = await lab.host('mx1')
    await freshen(host)
    sshd = await systemSshd(host)
    hostKey = readFileSync(join(sshd.directory, 'host_key.pub'), 'utf8').split(' ').slice(0, 2).join(' ')
    await host.must('sh', ['-ec', 'printf \'#!/bin/sh\\necho "$(id -un) $*" >>%s\\n\' "$0/reloads" >/usr/local/sbin/reload-demo; chmod 755 /usr/local/sbin/reload-demo', host.dir])
    packageRoot = join(lab.dir, 'package')
    for (const file of ['remote/lematt-receive', 'dist/forwarder/leforward.cjs']) cpSync(join(repository, file), join(packageRoot, file), { recursive: true })
    conf = join(lab.dir, 'conf')
    mkdirSync(join(conf, 'ssh'), { recursive: true, mode: 0o700 })
    for (const name of ['challenges', 'prod/cert', 'prod/key']) mkdirSync(join(conf, name), { recursive: true })
    writeFileSync(join(conf, 'lematt.conf'), `[config]\nchallengeDropDir: ${conf}/challenges\naccountKey: ${conf}/account.key\nsshConfig: ${at('config')}\nchallengeUrl: ${url}\n`)
    writeFileSync(join(conf, 'domains'), 'mail.example.com\n')
    writeFileSync(join(conf, 'actions.conf'), '[default]\n[mail]\ndomains: mail.example.com\nhosts: mx1\nreload: demo\nforward: redirect\n')
    writeFileSync(at('config'), `Host *\n  User nobody\n  UserKnownHostsFile ${at('known_hosts')}\n  GlobalKnownHostsFile /dev/null\n  ConnectTimeout 5\n`, { mode: 0o600 })
  })
  after(() => lab.close())

  async function enrol(words: readonly string[], ask?: (question: string) => Promise<boolean>): Promise<{ script: string; said: string }> {
    const said: string[] = []
    const { request } = parseEnroll(['mx1', '--hostname', host.address, ...words])
    assert.ok(request !== undefined)
    const text = await enroll({
      request, configuration: await configuration(), packageRoot, environment: {}, signal: new AbortController().signal,
      say: line => { said.push(line) }, ...ask === undefined ? {} : { ask },
    })
    return { script: text, said: said.join('\n') }
  }

  const fingerprint = (): string => `SHA256:${createHash('sha256').update(Buffer.from(hostKey.split(' ')[1] ?? '', 'base64')).digest('base64').replace(/=+$/u, '')}`
  const onHost = (text: string): Promise<Ran> => host.exec('sh', [], { input: text })
  const restarts = (): number => sshd.log().split('Received SIGHUP').length - 1
  const passwd = (): Promise<string> => host.must('cat', ['/etc/passwd'])

  describe('what is not confirmed is not written', () => {
    const cases: [string, string[], ((question: string) => Promise<boolean>) | undefined, new (message: string) => Error, RegExp][] = [
      ['nobody is there to ask', [], undefined, UsageError, /nobody is here to confirm .* --fingerprint/u],
      ['the answer is no', [], () => Promise.resolve(false), OperationalError, /was not confirmed; nothing was written/u],
      ['another fingerprint was said', ['--fingerprint', `SHA256:${'A'.repeat(43)}`], undefined, OperationalError, /another machine, or somebody is in between/u],
    ]
    for (const [what, words, ask, kind, message] of cases) {
      test(what, async () => {
        const was = contents(conf)
        await assert.rejects(enrol(words, ask), error => error instanceof kind && message.test(error.message))
        assert.deepEqual(contents(conf), was)
      })
    }
  })

  test('--print shows everything and writes nothing; its script refuses to run', async () => {
    const was = contents(conf)
    const { script: printed, said } = await enrol(['--print', reload])
    assert.deepEqual(contents(conf), was)
    for (const shown of ['nothing is written', 'Host mx1', at('lematt-mx1'), fingerprint(), 'command="/usr/local/lib/lematt/lematt-receive"', 'NOPASSWD: /usr/local/sbin/reload-demo now']) {
      assert.ok(said.includes(shown), `${shown} in ${said}`)
    }
    const accounts = await passwd()
    const ran = await onHost(printed)
    assert.equal(ran.code, 1)
    assert.match(ran.stderr, /before there was a key: run lematt enroll without --print/u)
    assert.equal(ran.stdout, '')
    assert.equal(await passwd(), accounts)
    assert.equal((await host.exec('test', ['-e', '/etc/lematt'])).code, 1)
  })

  test('key pair, host key and ssh_config are made on the central host', async () => {
    const { script: made, said } = await enrol(['--fingerprint', fingerprint(), reload])
    script = made
    assert.equal(statSync(at('lematt-mx1')).mode & 0o777, 0o600)
    assert.equal(readFileSync(at('known_hosts'), 'utf8'), `${host.address} ${hostKey}\n`)
    assert.match(said, new RegExp(`from: the key will be good from ${lab.address.replaceAll('.', '\\.')} alone`, 'u'))
    assert.doesNotMatch(said, /warning/u)
    assert.ok(!script.includes(readFileSync(at('lematt-mx1'), 'utf8').split('\n')[2] ?? '-'), 'the private key is in the script')
    assert.ok(script.includes(readFileSync(at('lematt-mx1.pub'), 'utf8').split(' ')[1] ?? '-'))
  })

  test('twice: the same script, nothing written, and it says so', async () => {
    const was = contents(conf)
    const { script: again, said } = await enrol([reload])
    assert.equal(again, script)
    assert.deepEqual(contents(conf), was)
    assert.doesNotMatch(said, /changed:(?<!unchanged:)/u)
    assert.match(said, /unchanged: .*lematt-mx1/u)
  })

  test('a service of actions.conf without its command: a warning with the flag that is lacking', async () => {
    const { said } = await enrol(['--print'])
    assert.match(said, /warning: actions\.conf has demo reloaded on mx1.*add --reload demo='\/usr\/bin\/systemctl reload demo'/u)
  })

  test('before the script has run, the key is good for nothing', async () => {
    const ran = await ssh(['status'])
    assert.equal(ran.code, 255)
    assert.match(ran.stderr, /Permission denied/u)
  })

  test('the script says what it changes; run again, nothing', async () => {
    const first = await onHost(script)
    assert.equal(first.code, 0, first.stderr)
    for (const what of ['account certmaint', '/etc/lematt/receive.conf', '/usr/local/lib/lematt/lematt-receive', '/usr/local/lib/lematt/leforward', '/etc/sudoers.d/lematt-receive', '/var/lib/lematt/.ssh/authorized_keys']) {
      assert.match(first.stdout, new RegExp(`^changed: ${what}$`, 'mu'))
    }
    assert.equal(first.stderr, '')
    const look = (): Promise<string> => host.must('sh', ['-c', 'cd /; find etc/lematt usr/local/lib/lematt etc/sudoers.d var/lib/lematt etc/passwd etc/shadow etc/group -printf "%p %m %u:%g %T@ %s\\n" | sort'])
    const was = await look()
    const second = await onHost(script)
    assert.deepEqual([second.code, second.stdout, second.stderr], [0, 'unchanged\n', ''])
    assert.equal(await look(), was)
    for (const line of ['var/lib/lematt 755 root:root', 'var/lib/lematt/.ssh 750 root:certmaint', 'var/lib/lematt/.ssh/authorized_keys 640 root:certmaint', 'etc/sudoers.d/lematt-receive 440 root:root', 'etc/lematt/tls/key 2750 certmaint:ssl-cert', 'etc/lematt/receive.conf 644 root:root', 'usr/local/lib/lematt/lematt-receive 755 root:root']) {
      assert.ok(was.includes(`${line} `), `${line} in\n${was}`)
    }
  })

  test('what somebody has changed is put right, and other keys stay', async () => {
    await host.must('sh', ['-ec', `chmod 777 /etc/lematt/tls/key; echo x >>/etc/lematt/receive.conf
      printf 'ssh-ed25519 AAAAother other\\nrestrict,command="/usr/local/lib/lematt/lematt-receive" ssh-ed25519 AAAAold lematt\\n' >>/var/lib/lematt/.ssh/authorized_keys`])
    const ran = await onHost(script)
    assert.equal(ran.code, 0, ran.stderr)
    assert.deepEqual(ran.stdout.trim().split('\n').sort(), ['changed: /etc/lematt/receive.conf', 'changed: /etc/lematt/tls/key', 'changed: /var/lib/lematt/.ssh/authorized_keys'])
    const keys = await host.must('cat', ['/var/lib/lematt/.ssh/authorized_keys'])
    assert.match(keys, /^ssh-ed25519 AAAAother other$/mu)
    assert.doesNotMatch(keys, /AAAAold/u)
    assert.equal((await onHost(script)).stdout, 'unchanged\n')
  })

  const ssh = (words: readonly string[], options: { input?: string } = {}): Promise<Ran> =>
    lab.run('ssh', ['-F', at('config'), '-o', 'BatchMode=yes', ...words.length > 0 && words[0]?.startsWith('-') === true ? words : ['mx1', ...words]], { timeoutMs: 15_000, ...options })

  const pair = certify('DNS:mail.example.com')
  const deliverInput = (name = 'mail.example.com'): string => {
    const [cert, key] = [`${name}-cert-combined.prime256v1.pem`, `${name}-key.prime256v1.pem`]
    const count = (text: string): number => text.split('\n').length - 1
    return `lematt-deliver 1 2\ncert ${cert} ${count(pair.certificate)} ${sha256(pair.certificate)}\nkey ${key} ${count(pair.key)} ${sha256(pair.key)}\n${pair.certificate}${pair.key}end\n`
  }

  test('a delivery: files in place with their modes, the service reloaded by root', async () => {
    const ran = await ssh(['deliver', 'demo'], { input: deliverInput() })
    assert.deepEqual([ran.code, ran.stdout.trim()], [0, '{"ok":true,"files":2,"reloaded":["demo"]}'], ran.stdout + ran.stderr)
    assert.equal(await host.must('stat', ['-c', '%a %U:%G', '/etc/lematt/tls/key/mail.example.com-key.prime256v1.pem']), '640 certmaint:ssl-cert\n')
    assert.equal(await host.must('cat', ['/etc/lematt/tls/key/mail.example.com-key.prime256v1.pem']), pair.key)
    assert.equal(readFileSync(join(host.dir, 'reloads'), 'utf8'), 'root now\n')
  })

  describe('the enrolled key can do nothing else', () => {
    const refusal = /"step":"refused"/u
    const tree = (): Promise<string> => host.must('sh', ['-c', 'cd /; find etc/lematt usr/local/lib/lematt var/lib/lematt tmp/evil etc/sudoers.d ! -path "*/.lematt*" -printf "%p %m %u:%g %T@ %s\\n" 2>/dev/null | sort'])
    let was: string
    let reloads: string
    before(async () => {
      was = await tree()
      reloads = readFileSync(join(host.dir, 'reloads'), 'utf8')
    })
    after(async () => {
      assert.equal(await tree(), was)
      assert.equal(readFileSync(join(host.dir, 'reloads'), 'utf8'), reloads)
    })

    const keyPath = '/etc/lematt/tls/key/mail.example.com-key.prime256v1.pem'
    const commands: [string, string[]][] = [
      ['a shell', []],
      ['a command', ['id']],
      ['a shell by name', ['sh', '-c', 'id']],
      ['a command behind ours', ['status; id']],
      ['a substitution', ['deliver $(id)']],
      ['reading a key back', [`cat ${keyPath}`]],
      ['another service', ['deliver', 'ssh']],
      ['a service with an argument', ['deliver', 'demo --now']],
      ['the reload command itself', ['/usr/bin/sudo -n /usr/local/sbin/reload-demo now']],
      ['challenges to another base URL', ['forward', 'http://evil.example.com']],
      ['challenges to a base URL that begins alike', ['forward', `${url}.evil.example.com`]],
      ['scp of old', ['scp', '-t', '/tmp/evil']],
      ['rsync', ['rsync', '--server', '-e.', '.', '/tmp/evil']],
    ]
    for (const [what, words] of commands) {
      test(what, async () => {
        const ran = await ssh(['-T', 'mx1', ...words], { input: deliverInput() })
        assert.equal(ran.code, 2, ran.stdout + ran.stderr)
        assert.match(ran.stdout, refusal)
        assert.doesNotMatch(ran.stdout + ran.stderr, /uid=|PRIVATE KEY/u)
      })
    }

    test('a terminal', async () => {
      const ran = await ssh(['-tt', 'mx1', 'status'])
      assert.match(ran.stderr, /PTY allocation request failed/u)
    })

    test('the agent', async () => {
      const agent = host.dir + '/../agent'
      const daemon = lab.spawn('ssh-agent', ['-D', '-a', agent])
      await daemon.ready('socket', () => existsSync(agent))
      const ran = await lab.run('ssh', ['-v', '-A', '-F', at('config'), 'mx1', 'status'], { env: { SSH_AUTH_SOCK: agent }, timeoutMs: 15_000 })
      await daemon.stop()
      assert.equal(ran.code, 0)
      assert.match(ran.stderr, /Requesting authentication agent forwarding/u)
      // sshd names what a key may do: nothing but its command.
      assert.match(ran.stderr, /authorized_keys:\d+: key options: command\r?$/mu)
    })

    for (const [what, command] of [['sftp', 'sftp'], ['scp', 'scp'], ['scp of old, with the client', 'scp -O']] as const) {
      test(`${what}, to and fro`, async () => {
        const mine = join(lab.dir, 'mine')
        writeFileSync(mine, 'mine\n')
        const [program = '', ...flags] = command.split(' ')
        const batch = join(lab.dir, 'batch')
        writeFileSync(batch, `put ${mine} /tmp/evil\nget ${keyPath} ${lab.dir}/stolen\n`)
        const runs = program === 'sftp'
          ? [['-F', at('config'), '-b', batch, 'mx1']]
          : [[...flags, '-F', at('config'), mine, 'mx1:/tmp/evil'], [...flags, '-F', at('config'), `mx1:${keyPath}`, `${lab.dir}/stolen`]]
        for (const args of runs) {
          const ran = await lab.run(program, args, { timeoutMs: 15_000 })
          assert.notEqual(ran.code, 0, ran.stdout)
        }
        assert.ok(!existsSync(join(lab.dir, 'stolen')))
      })
    }

    test('forwarding of ports: local, remote, dynamic', async () => {
      const forwarded = (address: string, port: number): Promise<string> => new Promise(resolve => {
        const socket = connect(port, address)
        let text = ''
        socket.setTimeout(5000, () => socket.destroy())
        socket.on('data', data => { text += data.toString('latin1') }).on('error', () => undefined).on('close', () => resolve(text))
      })
      // sshd itself would greet, if it could be reached through the connection.
      const held = lab.spawn('ssh', ['-F', at('config'), '-v', '-o', 'ExitOnForwardFailure=no', '-N', '-L', `${lab.address}:2201:${host.address}:22`, '-D', `${lab.address}:2202`, 'mx1'])
      await held.ready('connection', () => /Entering interactive session/u.test(held.stderr))
      assert.equal(await forwarded(lab.address, 2201), '')
      await until(() => /administratively prohibited|open failed/u.test(held.stderr))
      await held.stop()
      const ran = await ssh(['-o', 'ExitOnForwardFailure=yes', '-N', '-R', '127.0.0.1:8402:127.0.0.1:22', 'mx1'])
      assert.equal(ran.code, 255)
      assert.match(ran.stderr, /remote port forwarding failed/u)
    })

    test('from another address', async () => {
      const other = lab.address.replace(/\d+$/u, '200')
      await lab.run('ip', ['addr', 'add', `${other}/32`, 'dev', lab.network.bridge])
      const ran = await ssh(['-b', other, 'mx1', 'status'])
      assert.equal(ran.code, 255)
      assert.match(ran.stderr, /Permission denied/u)
      assert.equal((await ssh(['status'])).code, 0, 'and from its own it goes on')
    })

    test('writing elsewhere', async () => {
      for (const name of ['../../../../tmp/evil', '/tmp/evil', '.ssh/authorized_keys', '-evil']) {
        const ran = await ssh(['deliver'], { input: deliverInput(name) })
        assert.equal(ran.code, 1)
        assert.match(ran.stdout, /"step":"input"/u)
      }
    })

    test('by sudo, whoever is certmaint: exactly that command', async () => {
      for (const words of ['/usr/local/sbin/reload-demo', '/usr/local/sbin/reload-demo now more', '/usr/bin/id', '/usr/local/lib/lematt/leforward --baseurl http://evil.example.com', '/usr/local/lib/lematt/leforward']) {
        const ran = await host.exec('setpriv', ['--reuid=certmaint', '--regid=certmaint', '--init-groups', '/usr/bin/sudo', '-n', ...words.split(' ')])
        assert.notEqual(ran.code, 0, words)
      }
      for (const path of ['/var/lib/lematt/.ssh/authorized_keys', '/etc/lematt/receive.conf', '/usr/local/lib/lematt/lematt-receive', '/etc/sudoers.d/lematt-receive', '/var/lib/lematt/new']) {
        assert.notEqual((await host.exec('setpriv', ['--reuid=certmaint', '--regid=certmaint', '--init-groups', 'sh', '-c', `echo x >>${path}`])).code, 0, path)
      }
    })
  })

  test('forward: redirect: challenges go to us while the command runs, and no longer', async () => {
    const held = lab.spawn('ssh', ['-F', at('config'), 'mx1', 'forward', url])
    await held.ready('leforward', () => held.stdout.includes('leforward: port 80'))
    const answer = await lab.run('curl', ['-sSi', '--max-time', '5', `http://${host.address}/.well-known/acme-challenge/token`])
    assert.match(answer.stdout, /^location: http:\/\/central\.example\.com\/\.well-known\/acme-challenge\/token\r?$/imu)
    const user = await host.must('sh', ['-c', 'ps -eo user:20,args | grep "[l]eforward --baseurl" | grep -v sudo'])
    assert.match(user, /^certmaint /mu, 'it has not become the calling user')
    held.child.stdin?.end()
    await held.ended
    await until(async () => (await lab.run('curl', ['-s', '--max-time', '5', `http://${host.address}/`])).code === 7)
  })

  describe('lematt check --hosts', () => {
    const found = async (change: (c: Configuration) => Configuration = c => c): Promise<Finding[]> => checkHosts({
      configuration: change(await configuration()), mode: 'prod', packageRoot, environment: {}, signal: new AbortController().signal, clock: () => new Date(),
    })
    const section = (words: Partial<Configuration['sections'][number]>) => (c: Configuration): Configuration =>
      ({ ...c, sections: c.sections.map(s => (s.name === 'mail' ? { ...s, ...words } : s)) })

    test('all is well: what was looked at', async () => {
      const findings = await found()
      assert.deepEqual(findings.filter(f => f.level !== 'ok'), [])
      for (const text of [/^mx1: logged in as certmaint/u, /lematt-receive is this version's/u, /may reload demo/u, /may redirect challenges to http:\/\/central/u]) {
        assert.ok(findings.some(f => text.test(f.text)), `${String(text)} in ${JSON.stringify(findings)}`)
      }
    })

    test('no certificate yet: it says so, and what sends the first', async () => {
      assert.ok((await found()).some(f => f.level === 'ok' && /^mx1: no certificate for it is held yet: lematt --prod orders and delivers it$/u.test(f.text)))
    })

    test('something unforeseen at one host: an error about that one, and the others are looked at', async () => {
      const strange = (c: Configuration): Configuration => ({
        ...c, sections: c.sections.flatMap(s => (s.name === 'mail' ? [s, { ...s, name: 'other', hosts: ['mx2'], get verify(): never { throw new TypeError('a \u001b[31mbug') } }] : [s])),
      })
      const findings = await found(strange)
      assert.deepEqual(findings.filter(f => /^mx2: .*bug/u.test(f.text)).map(f => [f.level, /^mx2: internal error: TypeError: a .*bug; please report it/u.test(f.text)]), [['error', true]])
      assert.ok(!findings.some(f => f.text.includes('\u001b')))
      assert.ok(findings.some(f => f.level === 'ok' && f.text.startsWith('mx1: logged in')))
      assert.ok(!findings.some(f => f.level !== 'ok' && f.text.startsWith('mx1: ')))
    })

    const cases: [string, (c: Configuration) => Configuration, Finding['level'], RegExp][] = [
      ['a service that the host does not know', section({ reload: ['demo', 'dovecot'] }), 'error', /^mx1: it does not let this key reload dovecot: .*lematt enroll mx1 --reload dovecot=/u],
      ['a port where nobody listens', section({ verify: [{ text: '993', port: 993, protocol: 'tls' }] }), 'error', /^mx1: verify: 993 at [0-9.]+: .*refused/u],
      ['a forward that it was not enrolled for', section({ forward: 'tunnel' }), 'error', /^mx1: .*8402/u],
      ['another base URL', c => ({ ...c, settings: { ...c.settings, challengeUrl: 'http://other.example.com' } }), 'error', /^mx1: it does not redirect challenges to http:\/\/other/u],
      ['an alias that leads nowhere', section({ hosts: ['mx1', 'nowhere.invalid'] }), 'error', /^nowhere\.invalid: /u],
    ]
    for (const [what, change, level, text] of cases) {
      test(what, async () => {
        const bad = (await found(change)).filter(f => f.level !== 'ok')
        assert.deepEqual(bad.map(f => [f.level, text.test(f.text)]), [[level, true]], JSON.stringify(bad))
      })
    }

    test('a receiver of another version; a host without one', async () => {
      await host.must('sh', ['-c', 'echo "# older" >>/usr/local/lib/lematt/lematt-receive'])
      assert.deepEqual((await found()).filter(f => f.level !== 'ok').map(f => [f.level, /is not that of this lematt: .*lematt enroll mx1/u.test(f.text)]), [['warning', true]])
      await host.must('rm', ['/usr/local/lib/lematt/lematt-receive'])
      assert.deepEqual((await found()).filter(f => f.level !== 'ok').map(f => [f.level, /no receiver behind this key .*lematt enroll mx1/u.test(f.text)]), [['error', true]])
      assert.equal((await onHost(script)).stdout, 'changed: /usr/local/lib/lematt/lematt-receive\n')
      assert.deepEqual((await found()).filter(f => f.level !== 'ok'), [])
    })

    test('a host key that has changed is an error of check and of enroll', async () => {
      const was = readFileSync(at('known_hosts'), 'utf8')
      const blob = Buffer.from(hostKey.split(' ')[1] ?? '', 'base64')
      blob.writeUInt8(blob.readUInt8(blob.length - 1) ^ 1, blob.length - 1)
      writeFileSync(at('known_hosts'), `${host.address} ssh-ed25519 ${blob.toString('base64')}\n`)
      const before = contents(conf)
      assert.deepEqual((await found()).filter(f => f.level !== 'ok').map(f => [f.level, /^mx1: .*is not the one that is known/u.test(f.text)]), [['error', true]])
      await assert.rejects(enrol(['--yes', reload]), /is not the one that is known .*ssh-keygen -R/u)
      assert.deepEqual(contents(conf), before)
      writeFileSync(at('known_hosts'), was)
    })
  })

  test('an older block of the operator\'s own is left alone, and what it lacks is said', async () => {
    const was = readFileSync(at('config'), 'utf8')
    writeFileSync(at('config'), `Host mx1\n  HostName ${host.address}\n  User somebody\n${was.slice(was.indexOf('Host *'))}`)
    const before = contents(conf)
    const { said } = await enrol([reload])
    assert.deepEqual(contents(conf), before)
    assert.match(said, /warning: Host mx1 in .* says otherwise \(User is somebody, there is no IdentityFile/u)
    writeFileSync(at('config'), was)
  })

  test('forward: tunnel: the key may listen on that one port, connect nowhere, and not redirect; a changed enrolment takes things away again', async () => {
    const { script: tunnelled } = await enrol(['--forward', 'tunnel', '--names', 'mail.*'])
    const ran = await onHost(tunnelled)
    assert.deepEqual([ran.code, ran.stdout.split('\n').filter(l => l !== '').sort()], [0, [
      'changed: /etc/lematt/receive.conf', 'changed: /etc/ssh/sshd_config.d/lematt.conf', 'changed: /etc/sudoers.d/lematt-receive, which is not needed any more', 'changed: /var/lib/lematt/.ssh/authorized_keys',
    ]], ran.stderr)
    await until(() => restarts() === 1)
    assert.equal((await onHost(tunnelled)).stdout, 'unchanged\n')
    await until(async () => (await ssh(['status'])).code === 0)
    const held = lab.spawn('ssh', ['-F', at('config'), '-v', '-o', 'ExitOnForwardFailure=yes', '-N', '-R', '127.0.0.1:8402:127.0.0.1:22', '-L', `${lab.address}:2203:127.0.0.1:22`, 'mx1'])
    await held.ready('listening there', () => /remote forward success/u.test(held.stderr))
    // sshd itself would greet, were it reached.
    const answer = await lab.run('curl', ['-s', '--http0.9', '--max-time', '5', `http://${lab.address}:2203/`])
    assert.ok([52, 56].includes(answer.code ?? 0) && answer.stdout === '', `something answered: ${answer.code} ${answer.stdout}`)
    assert.match(held.stderr, /administratively prohibited/u)
    await held.stop()
    for (const listen of ['127.0.0.1:8403', '0.0.0.0:8402']) {
      const refused = await ssh(['-o', 'ExitOnForwardFailure=yes', '-N', '-R', `${listen}:127.0.0.1:22`, 'mx1'])
      assert.match(refused.stderr, /remote port forwarding failed/u, listen)
    }
    // Unix sockets, to listen on and to connect to: permitlisten and permitopen say nothing of them.
    const socket = '/etc/lematt/tls/key/evil-key.prime256v1.pem'
    const evil = await ssh(['-o', 'ExitOnForwardFailure=yes', '-N', '-R', `${socket}:127.0.0.1:22`, 'mx1'])
    assert.match(evil.stderr, /remote port forwarding failed/u)
    assert.equal((await host.exec('test', ['-e', socket])).code, 1)
    const service = host.spawn('python3', ['-c', `import os, socket
s = socket.socket(socket.AF_UNIX)
s.bind('/opt/service.sock')
os.chmod('/opt/service.sock', 0o777)
s.listen()
print('listening', flush=True)
while True: s.accept()[0].sendall(b'reached')`])
    await service.ready('socket', () => service.stdout.includes('listening'))
    const through = lab.spawn('ssh', ['-F', at('config'), '-v', '-N', '-L', `${lab.address}:2204:/opt/service.sock`, 'mx1'])
    await through.ready('connection', () => /Entering interactive session/u.test(through.stderr))
    assert.equal((await lab.run('curl', ['-s', '--http0.9', '--max-time', '5', `http://${lab.address}:2204/`])).stdout, '')
    await until(() => /open failed/u.test(through.stderr))
    await service.stop()
    await through.stop()
    // For others nothing has changed, neither by our file nor in what follows it.
    const others = await host.must('/usr/sbin/sshd', ['-T', '-C', 'user=nobody,host=x,addr=192.0.2.9'])
    assert.match(others, /^allowstreamlocalforwarding yes$/mu)
    assert.match(others, /^passwordauthentication no$/mu)
    assert.equal(restarts(), 1, 'sshd was told once')
    for (const words of [['forward', url], ['deliver', 'demo']]) assert.equal((await ssh(words)).code, 2, words.join(' '))
    const other = await ssh(['deliver'], { input: deliverInput('www.example.com') })
    assert.notEqual(other.code, 0, 'a name that is not in --names')
    assert.match(other.stdout, /"ok":false.*www\.example\.com/u)
    assert.equal((await ssh(['deliver'], { input: deliverInput() })).code, 0)
    const back = await onHost(script)
    assert.match(back.stdout, /^changed: \/etc\/sudoers\.d\/lematt-receive$/mu)
    assert.match(back.stdout, /^changed: \/etc\/ssh\/sshd_config\.d\/lematt\.conf, which is not needed any more$/mu)
    assert.equal(back.stderr, '')
    await until(() => restarts() === 2)
    assert.equal((await host.exec('test', ['-e', '/etc/ssh/sshd_config.d/lematt.conf'])).code, 1)
    assert.equal((await onHost(script)).stdout, 'unchanged\n')
  })

  const unheeded: [string, string, RegExp][] = [
    ['there is no Include', 'sed -i "s/^Include.*//; 1i HostKey $0/host_key" /etc/ssh/sshd_config', /it has not allowstreamlocalforwarding no/u],
    ['an earlier Match says otherwise', 'printf "Match User certmaint\\n  AllowStreamLocalForwarding yes\\n" >/etc/ssh/sshd_config.d/a.conf', /it has not allowstreamlocalforwarding no/u],
    ['sshd -t has an objection', 'echo "Nonsense yes" >/etc/ssh/sshd_config.d/z.conf', /Nonsense/u],
  ]
  for (const [what, change, why] of unheeded) {
    test(`forward: tunnel where sshd would not keep to it, ${what}: refused, and all is as before`, async () => {
      const { script: tunnelled } = await enrol(['--forward', 'tunnel'])
      const look = (): Promise<string> => host.must('sh', ['-c', 'cd /etc/ssh/sshd_config.d; ls -A; cat /var/lib/lematt/.ssh/authorized_keys'])
      const times = restarts()
      await host.must('sh', ['-ec', `cp -a /etc/ssh /etc/ssh.was; ${change}`, sshd.directory])
      const was = await look()
      const ran = await onHost(tunnelled)
      assert.equal(ran.code, 1)
      assert.match(ran.stderr, why)
      assert.match(ran.stderr, /sshd does not obey .* is Include \/etc\/ssh\/sshd_config\.d\/\*\.conf the first line of \/etc\/ssh\/sshd_config.*--forward redirect\n$/u)
      assert.equal(await look(), was)
      assert.equal(restarts(), times)
      await host.must('sh', ['-ec', 'rm -r /etc/ssh; mv /etc/ssh.was /etc/ssh'])
      await onHost(script)
    })
  }

  test('forward: tunnel where sshd cannot be told: the key is not let in for it, however often; later it is', async () => {
    const { script: tunnelled } = await enrol(['--forward', 'tunnel'])
    const keys = (): Promise<string> => host.must('cat', ['/var/lib/lematt/.ssh/authorized_keys'])
    const was = await keys()
    const times = restarts()
    // The machine's own systemd, if there is one, is none of this host's.
    await host.must('sh', ['-ec', 'mv "$0" "$0.away"; [ ! -e /usr/bin/systemctl ] || mount --bind /dev/null /usr/bin/systemctl', join(host.dir, 'sshd.pid')])
    for (let i = 0; i < 2; i++) {
      const ran = await onHost(tunnelled)
      assert.equal(ran.code, 1)
      assert.match(ran.stderr, /sshd could not be told of .*: reload it .*, or enrol with --forward redirect\n$/u)
      assert.equal(await keys(), was)
    }
    assert.equal(restarts(), times)
    await host.must('sh', ['-ec', 'mv "$0.away" "$0"; [ ! -e /usr/bin/systemctl ] || umount /usr/bin/systemctl', join(host.dir, 'sshd.pid')])
    assert.equal((await onHost(tunnelled)).stdout, 'changed: /var/lib/lematt/.ssh/authorized_keys\n')
    await until(() => restarts() === times + 1)
    assert.equal((await onHost(script)).code, 0)
    await until(() => restarts() === times + 2)
  })

  test('a base URL with an address in brackets: sudo allows exactly that one', async () => {
    await host.must('sh', ['-ec', 'cat >/etc/sudoers.d/six; chmod 440 /etc/sudoers.d/six'], { input: sudoersForward('certmaint', 'http://[2001:db8::1]') })
    const allowed = async (base: string): Promise<boolean> =>
      (await host.exec('/usr/bin/sudo', ['-n', '-l', '-U', 'certmaint', '/usr/local/lib/lematt/leforward', '--baseurl', base])).code === 0
    assert.equal(await allowed('http://[2001:db8::1]'), true)
    for (const base of ['http://2', 'http://:', 'http://[2001:db8::2]']) assert.equal(await allowed(base), false, base)
    await host.must('rm', ['/etc/sudoers.d/six'])
  })

  test('a file of the account\'s own beside authorized_keys: refused and named, nothing is changed; one of root\'s stays', async () => {
    const ssh2 = '/var/lib/lematt/.ssh/authorized_keys2'
    await host.must('sh', ['-ec', `echo x >${ssh2}; chown certmaint ${ssh2}; echo y >>/etc/lematt/receive.conf`])
    const ran = await onHost(script)
    assert.equal(ran.code, 1)
    assert.match(ran.stderr, /not root's alone.*\.ssh\/\.\/authorized_keys2 ?; look at it and remove it/u)
    assert.equal(ran.stdout, '')
    assert.match(await host.must('cat', ['/etc/lematt/receive.conf']), /^y$/mu)
    await host.must('chown', ['root', ssh2])
    assert.equal((await onHost(script)).stdout, 'changed: /etc/lematt/receive.conf\n')
    await host.must('rm', [ssh2])
  })

  test('without sudo, where it is needed: nothing is changed, and it says what to install', async () => {
    const bare = await lab.host('bare')
    await freshen(bare)
    await bare.must('mount', ['--bind', '/dev/null', '/usr/bin/sudo'])
    const ran = await bare.exec('sh', [], { input: script })
    assert.equal(ran.code, 1)
    assert.match(ran.stderr, /there is no \/usr\/bin\/sudo here, .*install the package sudo/u)
    assert.equal(ran.stdout, '')
    assert.equal((await bare.exec('test', ['-e', '/etc/lematt'])).code, 1)
    assert.equal((await bare.exec('id', ['certmaint'])).code, 1)
  })

  test('on a host whose tools are busybox', { skip: existsSync('/usr/bin/busybox') ? false : 'needs busybox: run scripts/setup' }, async () => {
    const small = await lab.host('small')
    await freshen(small)
    // A directory of nothing but busybox where the script looks, and what Debian's busybox has not: accounts and visudo.
    await small.must('sh', ['-ec', `mkdir ${small.dir}/bin
      for tool in $(busybox --list); do ln -s /usr/bin/busybox ${small.dir}/bin/$tool; done
      ln -s /usr/sbin/visudo /usr/bin/node /usr/sbin/useradd /usr/sbin/usermod /usr/sbin/groupadd ${small.dir}/bin/`])
    const text = script.replace(/^PATH=.*$/mu, `PATH=${small.dir}/bin`)
    const first = await small.exec('busybox', ['sh'], { input: text })
    assert.equal(first.code, 0, first.stderr)
    assert.match(first.stdout, /^changed: account certmaint$/mu)
    // This host has no such program: said each time, for it is no error of the script's.
    assert.match(first.stderr, /^lematt enroll: note: there is no program \/usr\/local\/sbin\/reload-demo here[^\n]*\n$/u)
    assert.deepEqual(await small.exec('busybox', ['sh'], { input: text }), { ...first, stdout: 'unchanged\n' })
    assert.match(await small.must('sh', ['-c', 'grep ^certmaint: /etc/passwd; grep ^certmaint: /etc/shadow']), /^certmaint:x:\d+:\d+:[^:]*:\/var\/lib\/lematt:\/bin\/sh\ncertmaint:\*:/u)
    assert.equal(await small.must('stat', ['-c', '%a %U:%G', '/var/lib/lematt/.ssh/authorized_keys']), '640 root:certmaint\n')
    // Another account, whose home is the same; and what is not the former account's stays as it is.
    await small.must('sh', ['-ec', `cd /etc/lematt/tls/key; mkdir -p .lematt/new .lematt/old; echo x >a; echo x >.lematt/new/b; ln -s /etc/passwd c; chown -hR certmaint . ; echo x >of-root; ln of-root d; ln a .lematt/old/a; chown -R certmaint .lematt`])
    const moved = text.replaceAll('certmaint', 'certs')
    const other = await small.exec('busybox', ['sh'], { input: moved })
    assert.equal(other.code, 0, other.stderr)
    assert.match(other.stdout, /^changed: owner of what is in .*: certs$/mu)
    const owners = await small.must('sh', ['-c', 'stat -c "%n %U" /etc/passwd; cd /etc/lematt/tls/key; stat -c "%n %U" . .lematt .lematt/new .lematt/new/b a c d of-root'])
    assert.equal(owners, '/etc/passwd root\n. certs\n.lematt certs\n.lematt/new certs\n.lematt/new/b certs\na certs\nc certs\nd root\nof-root root\n')
    assert.deepEqual(await small.exec('busybox', ['sh'], { input: moved }), { ...first, stdout: 'unchanged\n' })
  })

  test('the first host of all, before there is an ssh_config', async () => {
    const fresh = join(lab.dir, 'fresh')
    mkdirSync(fresh)
    const said: string[] = []
    const { request } = parseEnroll(['mx1', '--hostname', host.address, '--yes'])
    assert.ok(request !== undefined)
    const loaded = await configuration()
    const context = { packageRoot, environment: {}, signal: new AbortController().signal, say: (line: string) => { said.push(line) } }
    const settings = { ...loaded.settings, sshConfig: join(fresh, 'ssh', 'config') }
    // Where ssh has no UserKnownHostsFile it is ~/.ssh/known_hosts, which is nobody's business here: only shown.
    const text = await enroll({ ...context, configuration: { ...loaded, settings }, request: { ...request, print: true } })
    assert.match(text, /^main <\/dev\/null$/mu)
    assert.match(said.join('\n'), new RegExp(`would add to ${fresh}/ssh/config:\n# lematt enroll mx1\nHost mx1\n`, 'u'))
    assert.deepEqual(contents(fresh), {})
  })

  test('an account whose home is its own is not taken; nothing has been given to it', async () => {
    await host.must('sh', ['-ec', 'useradd --create-home --shell /bin/sh person'])
    const { script: other } = await enrol([reload, '--user', 'person'])
    const ran = await onHost(other)
    assert.equal(ran.code, 1)
    assert.match(ran.stderr, /the home of person, \/home\/person, is not root's alone.*--user/u)
    assert.equal((await host.exec('test', ['-e', '/home/person/.ssh'])).code, 1)
  })
  test('an account whose home lies in somebody else\'s directory is not taken', async () => {
    await host.must('sh', ['-ec', 'mkdir -p /home/person/inner; chown person /home/person; useradd --no-create-home --home-dir /home/person/inner --shell /bin/sh nested'])
    const { script: other } = await enrol([reload, '--user', 'nested'])
    const ran = await onHost(other)
    assert.equal(ran.code, 1)
    assert.match(ran.stderr, /the home of nested, \/home\/person\/inner, is not root's alone/u)
    assert.equal((await host.exec('test', ['-e', '/home/person/inner/.ssh'])).code, 1)
  })

  test('with another account: it has what the former had, whose line goes', async () => {
    await host.must('sh', ['-ec', 'mkdir -p /opt/certs; useradd --no-create-home --home-dir /opt/certs --shell /bin/sh certs'])
    assert.equal((await onHost(script)).code, 0)
    assert.equal((await ssh(['deliver'], { input: deliverInput() })).code, 0)
    const { script: moved } = await enrol([reload, '--user', 'certs'])
    const ran = await onHost(moved)
    assert.deepEqual([ran.code, ran.stderr], [0, ''], ran.stdout)
    assert.match(ran.stdout, /^changed: owner of what is in \/etc\/lematt\/tls\/cert and \/etc\/lematt\/tls\/key: certs$/mu)
    assert.match(ran.stdout, /^changed: \/var\/lib\/lematt\/\.ssh\/authorized_keys$/mu)
    assert.equal(await host.must('find', ['/etc/lematt/tls', '!', '-user', 'certs', '!', '-user', 'root']), '')
    assert.doesNotMatch(await host.must('cat', ['/var/lib/lematt/.ssh/authorized_keys']), /lematt-receive/u)
    assert.equal((await onHost(moved)).stdout, 'unchanged\n')
    assert.match((await ssh(['status'])).stderr, /Permission denied/u)
    const status = await ssh(['-l', 'certs', 'mx1', 'status'])
    assert.match(status.stdout, /"mail\.example\.com-key\.prime256v1\.pem":"[0-9a-f]{64}"/u)
    assert.match((await ssh(['-l', 'certs', 'mx1', 'deliver', 'demo'], { input: deliverInput() })).stdout, /"ok":true/u)
  })
})
