/** Getting in: names, keys of all kinds, agents, jump hosts, against real sshd and a real ssh-agent. */
import assert from 'node:assert/strict'
import { chmod, copyFile, readFile, rm, writeFile } from 'node:fs/promises'
import { createPrivateKey } from 'node:crypto'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { HostError } from '../../src/edge/ssh.js'
import { run } from '../helpers/run.js'
import { addKey, logins, makeKey, startAgent, withSsh, writeConfig } from '../helpers/sshClient.js'
import { sshdMissing, startSshd, type Sshd } from '../helpers/sshd.js'
import { startTcpProxy } from '../helpers/tcpProxy.js'

describe('getting in', { skip: sshdMissing(), timeout: 60_000 }, () => {
  let sshd: Sshd
  let agent: Awaited<ReturnType<typeof startAgent>>
  before(async () => {
    sshd = await startSshd({ keys: { key: '' }, config: 'MaxStartups 100\nMaxAuthTries 3' })
    agent = await startAgent(sshd.directory)
  })
  after(async () => {
    await agent.stop()
    await sshd.stop()
  })

  /** undefined for a login, else why there was none. */
  async function entered(lines: readonly string[], environment: Record<string, string> = {}, name = 'host'): Promise<string | undefined> {
    const configFile = await writeConfig(sshd, { host: lines })
    const before = logins(sshd)
    return withSsh({ configFile, environment }, async ssh => {
      try {
        const connection = await ssh.connect(name)
        const result = await connection.run('echo in')
        assert.deepEqual([result.ok, result.code, result.how, result.stdout], [true, 0, 'exit status 0', 'in\n'])
        assert.equal(logins(sshd), before + 1)
        return undefined
      } catch (error) {
        assert.ok(error instanceof HostError, String(error))
        assert.ok(error.message.startsWith(`${name}: `))
        assert.equal(logins(sshd), before)
        return error.message
      }
    })
  }

  for (const [kind, keygen] of Object.entries({
    ed25519: ['-t', 'ed25519'], 'ecdsa-256': ['-t', 'ecdsa', '-b', '256'], 'ecdsa-521': ['-t', 'ecdsa', '-b', '521'], rsa: ['-t', 'rsa', '-b', '2048'],
    'rsa-pem': ['-t', 'rsa', '-b', '2048', '-m', 'PEM'], 'ecdsa-pem': ['-t', 'ecdsa', '-m', 'PEM'],
  })) {
    test(`a key file: ${kind}`, async () => assert.equal(await entered([`IdentityFile ${await addKey(sshd, kind, keygen)}`]), undefined))
  }

  test('PKCS#8, as openssl writes it: RSA and ECDSA', async () => {
    for (const type of ['rsa', 'ecdsa']) {
      const path = await addKey(sshd, `pkcs8-${type}`, ['-t', type, '-m', 'PEM'])
      await writeFile(path, createPrivateKey(await readFile(path)).export({ type: 'pkcs8', format: 'pem' }))
      assert.match(await readFile(path, 'utf8'), /BEGIN PRIVATE KEY/u)
      assert.equal(await entered([`IdentityFile ${path}`]), undefined)
    }
  })

  test('files that are missing or cannot be used are passed over, in the order of the file', async () => {
    const open = await makeKey(join(sshd.directory, 'open'))
    await chmod(open, 0o644)
    await writeFile(join(sshd.directory, 'nonsense'), 'nonsense', { mode: 0o600 })
    assert.equal(await entered([`IdentityFile ${sshd.directory}/missing`, `IdentityFile ${open}`, `IdentityFile ${sshd.directory}/nonsense`, `IdentityFile ${sshd.directory}/key`]), undefined)
  })

  test('no key at all: said before a connection is made, each file with its reason', async () => {
    const open = await makeKey(join(sshd.directory, 'open2'))
    await chmod(open, 0o640)
    const proxy = await startTcpProxy(sshd)
    try {
      const base = `Port ${proxy.port}`
      // The last entry of our configurations, `Host *`, adds the one key that gets in: out of the way for this.
      const key = join(sshd.directory, 'key')
      await copyFile(key, `${key}.kept`)
      await rm(key)
      try {
        const message = await entered([base, `IdentityFile ${open}`]) ?? ''
        assert.ok(message.includes(`${open} is not used because others can read it: chmod 600 ${open}`), message)
        assert.match(await entered([base]) ?? '', /none of its key files is there/u)
        const encrypted = await makeKey(join(sshd.directory, 'encrypted'), ['-t', 'ed25519', '-N', 'secret'])
        assert.ok((await entered([base, `IdentityFile ${encrypted}`]) ?? '').includes(`${encrypted} has a passphrase: put it into ssh-agent`))
        assert.match(await entered([base, 'IdentityAgent /nowhere/agent', 'IdentitiesOnly no']) ?? '', /the agent at \/nowhere\/agent cannot be asked/u)
      } finally {
        await copyFile(`${key}.kept`, key)
        await chmod(key, 0o600)
      }
      assert.equal(proxy.connections(), 0)
    } finally {
      await proxy.stop()
    }
  })

  test('a key that the host does not know: named, with what to do', async () => {
    const stranger = await makeKey(join(sshd.directory, 'stranger'))
    const configFile = await writeConfig(sshd, { host: [`IdentityFile ${stranger}`] })
    await writeFile(configFile, (await readFile(configFile, 'utf8')).replace(`IdentityFile ${sshd.directory}/key\n`, ''))
    await withSsh({ configFile }, async ssh => {
      await assert.rejects(ssh.connect('host'), (error: Error) => {
        assert.ok(error instanceof HostError)
        assert.ok(error.message.includes(`lets ${sshd.user} in with none of our keys (tried: ${stranger})`), error.message)
        assert.match(error.message, /authorized_keys.*lematt enroll host/u)
        return true
      })
    })
  })

  test('encrypted keys, OpenSSH and PEM, through the agent; IdentitiesOnly keeps its other keys from the host', async () => {
    for (let other = 0; other < 4; other += 1) await agent.add(await makeKey(join(sshd.directory, `other-${other}`)))
    const own = await addKey(sshd, 'agent-ed25519', ['-t', 'ed25519', '-N', 'secret'])
    const pem = await addKey(sshd, 'agent-rsa', ['-t', 'rsa', '-m', 'PEM', '-N', 'secret'])
    await agent.add(own)
    await agent.add(pem)
    // MaxAuthTries is 3, so four strange keys first would be the end of it.
    for (const key of [own, pem]) {
      assert.equal(await entered([`IdentityFile ${key}`, `IdentityAgent ${agent.socket}`]), undefined)
      assert.equal(await entered([`IdentityFile ${key}`, 'IdentityAgent SSH_AUTH_SOCK', 'IdentitiesOnly no'], { SSH_AUTH_SOCK: agent.socket }), undefined)
    }
    await rm(own)
    assert.equal(await entered([`IdentityFile ${own}.pub`, `IdentityAgent ${agent.socket}`]), undefined, 'a public key alone, as ssh takes it')
  })

  for (const [line, said] of [['ProxyCommand nc %h %p', 'ProxyCommand'], ['CertificateFile /x-cert.pub', 'CertificateFile'], ['PKCS11Provider /x.so', 'PKCS11Provider']] as const) {
    test(`${said} is refused by name`, async () => assert.ok((await entered([line]) ?? '').includes(said)))
  }

  test('names: user@host:port, and what is none', async () => {
    const configFile = await writeConfig(sshd, { host: [] })
    await withSsh({ configFile }, async ssh => {
      const name = `${sshd.user}@${sshd.address}:${sshd.port}`
      assert.equal((await (await ssh.connect(name)).run('exit 0')).ok, true)
      assert.deepEqual([(await ssh.resolve('bob@host:99')).user, (await ssh.resolve('bob@host:99')).port], ['bob', 99])
      await assert.rejects(ssh.resolve('-oProxyCommand=touch /tmp/x'), /no host that ssh could be asked for/u)
    })
    await withSsh({ configFile: '/nowhere/config' }, ssh => assert.rejects(ssh.resolve('host'), (error: Error) => error instanceof HostError && error.message.includes('/nowhere/config')))
  })

  test('one connection for one name, also when asked for twice at once', async () => {
    const configFile = await writeConfig(sshd, { host: [] })
    const before = logins(sshd)
    await withSsh({ configFile }, async ssh => {
      const [one, two] = await Promise.all([ssh.connect('host'), ssh.connect('host')])
      assert.equal(one, two)
      assert.equal(await ssh.connect('host'), one)
    })
    assert.equal(logins(sshd), before + 1)
  })

  test('the login ends where we say it does: nothing but a public key is ever offered', async () => {
    const stranger = await makeKey(join(sshd.directory, 'stranger2'))
    const only = await startSshd({ keys: { key: '' }, config: 'PasswordAuthentication yes\nLogLevel DEBUG2' })
    try {
      const configFile = await writeConfig(only, { host: [`IdentityFile ${stranger}`] })
      await rm(join(only.directory, 'key'))
      await withSsh({ configFile }, ssh => assert.rejects(ssh.connect('host'), HostError))
      const methods = [...only.log().matchAll(/userauth-request for user \S+ service ssh-connection method (\S+)/gu)].map(match => match[1])
      assert.deepEqual(methods, ['publickey'])
    } finally {
      await only.stop()
    }
  })
})

describe('jump hosts', { skip: sshdMissing(), timeout: 60_000 }, () => {
  let [outer, inner]: Sshd[] = []
  before(async () => {
    [outer, inner] = await Promise.all([startSshd({ keys: { key: '' } }), startSshd({ keys: { key: '' } })])
  })
  after(async () => {
    await Promise.all([outer?.stop(), inner?.stop()])
  })

  /** `in1`, `in2` behind `out`, each with keys and known_hosts of its own. */
  async function config(lines: Readonly<Record<string, readonly string[]>> = {}): Promise<string> {
    assert.ok(outer !== undefined && inner !== undefined)
    const own = (sshd: Sshd): string[] => [`HostName ${sshd.address}`, `Port ${sshd.port}`, `UserKnownHostsFile ${sshd.directory}/known_hosts`, `IdentityFile ${sshd.directory}/key`]
    return writeConfig(outer, {
      in1: [...lines.in1 ?? ['ProxyJump out'], ...own(inner)], in2: ['ProxyJump out', ...own(inner)], out: [...lines.out ?? [], ...own(outer)], deep: ['ProxyJump in1', ...own(outer)], list: ['ProxyJump out,in1', ...own(outer)],
    })
  }

  test('the way leads over it, its own connection is shared, and both keys are verified', async () => {
    assert.ok(outer !== undefined && inner !== undefined)
    const [before, beforeIn] = [logins(outer), logins(inner)]
    await withSsh({ configFile: await config() }, async ssh => {
      const [one, two] = await Promise.all([ssh.connect('in1'), ssh.connect('in2')])
      assert.equal((await one.run('echo "$SSH_CONNECTION"')).ok, true)
      assert.equal((await two.run('cat', { input: 'x'.repeat(300_000) })).stdout.length, 300_000)
      assert.equal((await (await ssh.connect('out')).run('exit 0')).ok, true)
      assert.equal((await (await ssh.connect('deep')).run('exit 0')).ok, true)
      assert.equal((await (await ssh.connect('list')).run('exit 0')).ok, true)
      assert.equal((await ssh.hostKeys('in1'))[0]?.known, 'known')
    })
    // out; deep and list end at the outer one too. in1 by its own ProxyJump, in2, and in1 as the last hop of a list.
    assert.equal(logins(outer) - before, 3)
    assert.equal(logins(inner) - beforeIn, 3)
  })

  test('a jump host that is not known is not passed through', async () => {
    assert.ok(inner !== undefined)
    const beforeIn = logins(inner)
    await withSsh({ configFile: await config({ out: ['UserKnownHostsFile /nowhere/known_hosts'] }) }, ssh =>
      assert.rejects(ssh.connect('in1'), /^HostError: in1: its jump host out: its ED25519 host key SHA256:\S+ is not in/u))
    assert.equal(logins(inner), beforeIn)
  })

  test('a circle is refused', async () => {
    await withSsh({ configFile: await config({ out: ['ProxyJump in1'] }) }, ssh => assert.rejects(ssh.connect('in1'), /ProxyJump leads in a circle \(in1 → out → in1\)/u))
  })

  test('a host that its jump host cannot reach', async () => {
    await withSsh({ configFile: await config({ in1: ['ProxyJump out', 'Port 1'] }) }, ssh => assert.rejects(ssh.connect('in1'), /^HostError: in1: its jump host cannot reach 127\.0\.0\.1 port 1/u))
  })

  test('ssh itself goes the same ways', async () => {
    const configFile = await config()
    for (const name of ['in1', 'deep', 'list']) assert.equal((await run('ssh', ['-F', configFile, name, 'exit 0'])).code, 0, name)
  })
})
