/** Host keys, against a real sshd with three of them, and beside what the real ssh makes of the same known_hosts. */
import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { HostError } from '../../src/edge/ssh.js'
import { run } from '../helpers/run.js'
import { logins, makeKey, withSsh, writeConfig } from '../helpers/sshClient.js'
import { sshdMissing, startSshd, type Sshd } from '../helpers/sshd.js'

describe('host keys', { skip: sshdMissing(), timeout: 60_000 }, () => {
  let sshd: Sshd
  let directory: string
  let name: string
  /** Kind → `TYPE BASE64`. */
  const keys: Record<string, string> = {}

  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'lematt-trust-'))
    for (const kind of ['rsa', 'ecdsa', 'other-ed25519', 'other-rsa']) {
      const path = await makeKey(join(directory, kind), ['-t', kind.replace('other-', '')])
      keys[kind] = (await readFile(`${path}.pub`, 'utf8')).split(' ').slice(0, 2).join(' ')
    }
    sshd = await startSshd({ keys: { key: '' }, config: `HostKey ${join(directory, 'rsa')}\nHostKey ${join(directory, 'ecdsa')}\nMaxStartups 100` })
    keys.ed25519 = (await readFile(join(sshd.directory, 'host_key.pub'), 'utf8')).split(' ').slice(0, 2).join(' ')
    name = `[${sshd.address}]:${sshd.port}`
  })
  after(async () => {
    await sshd.stop()
    await rm(directory, { recursive: true, force: true })
  })

  const fingerprint = async (kind: string): Promise<string> => {
    const path = kind === 'ed25519' ? join(sshd.directory, 'host_key.pub') : join(directory, `${kind}.pub`)
    return (await run('ssh-keygen', ['-lf', path])).stdout.split(' ')[1] ?? ''
  }

  /** What we make of a known_hosts, and that ssh makes the same of it, and ssh-keygen -F too. */
  async function tried(text: string, lines: readonly string[] = [], found = name): Promise<{ message?: string; file: string }> {
    const file = join(sshd.directory, `known-${Math.random().toString(36).slice(2)}`)
    await writeFile(file, text)
    const configFile = await writeConfig(sshd, { host: [`UserKnownHostsFile ${file}`, ...lines] })
    const theirs = await run('ssh', ['-F', configFile, 'host', 'exit 0'])
    const before = logins(sshd)
    const message = await withSsh({ configFile }, async ssh => {
      try {
        const connection = await ssh.connect('host')
        assert.equal((await connection.run('exit 0')).ok, true)
        return undefined
      } catch (error) {
        assert.ok(error instanceof HostError, String(error))
        return error.message
      }
    })
    assert.equal(message === undefined, theirs.code === 0, `ssh: ${theirs.stderr}; we: ${message ?? 'connected'}`)
    assert.equal(logins(sshd) - before, message === undefined ? 1 : 0, 'the log of sshd')
    assert.equal((await run('ssh-keygen', ['-F', found, '-f', file])).code === 0, text !== '' && !text.startsWith('elsewhere'))
    return { file, ...message !== undefined && { message } }
  }

  test('known: in plain, in a list, by a pattern, hashed, by another type alone, without the port', async () => {
    for (const text of [
      `${name} ${keys.ed25519}\n`, `elsewhere,${name} ${keys.ed25519}\n`.replace(/^elsewhere/u, 'x'), `[127.0.0.*]:* ${keys.ecdsa}\n`, `${name} ${keys.rsa}\n`, `${name} ${keys['other-ed25519']}\n${name} ${keys.ed25519}\n`,
    ]) assert.equal((await tried(text)).message, undefined, text)
    assert.equal((await tried(`${sshd.address} ${keys.ed25519}\n`, [], sshd.address)).message, undefined)
    const plain = join(sshd.directory, 'hash-me')
    await writeFile(plain, `${name} ${keys.rsa}\n`)
    assert.equal((await run('ssh-keygen', ['-H', '-f', plain])).code, 0)
    const hashed = await readFile(plain, 'utf8')
    assert.ok(hashed.startsWith('|1|') && !hashed.includes(name))
    assert.equal((await tried(hashed)).message, undefined)
  })

  test('known by HostKeyAlias; the name itself then is not looked at', async () => {
    assert.equal((await tried(`mail ${keys.ed25519}\n`, ['HostKeyAlias mail'], 'mail')).message, undefined)
    assert.match((await tried(`${name} ${keys.ed25519}\n`, ['HostKeyAlias mail'])).message ?? '', /is not in/u)
  })

  test('known in the global file, or in the second of two', async () => {
    const file = join(sshd.directory, 'global')
    await writeFile(file, `${name} ${keys.ed25519}\n`)
    assert.equal((await tried('', [`GlobalKnownHostsFile ${file}`])).message, undefined)
    const configFile = await writeConfig(sshd, { host: [`UserKnownHostsFile /nowhere/known_hosts ${file}`] })
    assert.deepEqual((await withSsh({ configFile }, ssh => ssh.hostKeys('host'))).map(key => key.known), ['known', 'unknown', 'unknown'])
  })

  test('unknown: refused before anybody logs in, with its fingerprint, the file and what to do', async () => {
    const { message = '', file } = await tried(`elsewhere ${keys.ed25519}\n`)
    assert.equal(message, `host: its ED25519 host key ${await fingerprint('ed25519')} is not in ${file}; compare it with what ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub prints on the host, then: lematt enroll host`)
  })

  test('changed: refused, with both fingerprints and the line', async () => {
    const { message = '', file } = await tried(`# comment\n${name} ${keys['other-ed25519']}\n`)
    assert.ok(message.includes(await fingerprint('ed25519')) && message.includes(await fingerprint('other-ed25519')), message)
    assert.ok(message.includes(`${file}:2`), message)
    const rsa = (await tried(`${name} ${keys['other-rsa']}\n`)).message ?? ''
    assert.ok(rsa.includes(`RSA host key ${await fingerprint('rsa')} is not the one`), rsa)
  })

  test('revoked: refused, also where the same key is known', async () => {
    const { message = '', file } = await tried(`${name} ${keys.ed25519}\n@revoked * ${keys.ed25519}\n`)
    assert.match(message, /is revoked/u)
    assert.ok(message.includes(`${file}:2`), message)
  })

  test('@cert-authority: passed over where the key is known, else named', async () => {
    assert.equal((await tried(`@cert-authority * ${keys['other-ed25519']}\n${name} ${keys.ed25519}\n`)).message, undefined)
    assert.match((await tried(`@cert-authority * ${keys['other-ed25519']}\n`)).message ?? '', /cannot check host certificates/u)
  })

  test('all the keys that it shows, each with what is known of it, and no login', async () => {
    const file = join(sshd.directory, 'some-known')
    await writeFile(file, `${name} ${keys.ed25519}\n${name} ${keys['other-rsa']}\n@revoked * ${keys.ecdsa}\n`)
    const before = logins(sshd)
    const shown = await withSsh({ configFile: await writeConfig(sshd, { host: [`UserKnownHostsFile ${file}`] }) }, ssh => ssh.hostKeys('host'))
    assert.deepEqual(shown.map(key => [key.line, key.fingerprint, key.known]), [
      [`${name} ${keys.ed25519}`, await fingerprint('ed25519'), 'known'],
      [`${name} ${keys.ecdsa}`, await fingerprint('ecdsa'), 'revoked'],
      [`${name} ${keys.rsa}`, await fingerprint('rsa'), 'changed'],
    ])
    assert.equal(logins(sshd), before)
    const alias = await withSsh({ configFile: await writeConfig(sshd, { host: ['HostKeyAlias mail'] }) }, ssh => ssh.hostKeys('host'))
    assert.deepEqual(alias.map(key => [key.line.split(' ')[0], key.known]), [['mail', 'unknown'], ['mail', 'unknown'], ['mail', 'unknown']])
  })
})
