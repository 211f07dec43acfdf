/** The restricted keys of remote/authorized_keys.example behind a real sshd: what each can do, and nothing else. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { connect, createServer, type AddressInfo, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { buildLeforward } from '../helpers/leforward.js'
import { run } from '../helpers/run.js'
import { freePort, sshdMissing, startSshd, type Sshd } from '../helpers/sshd.js'
import { until } from '../helpers/until.js'

const remote = fileURLToPath(new URL('../../remote/', import.meta.url))
const base = 'http://central.example'
const missing = sshdMissing() || (existsSync('/usr/bin/rsync') ? false : 'needs rsync (apt-get install rsync)')

/** Is somebody listening there? */
function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}

describe('restricted keys behind a real sshd', { skip: missing, concurrency: 4 }, () => {
  const aliases = ['upload', 'reload', 'forward'] as const
  let sshd: Sshd
  let built: Awaited<ReturnType<typeof buildLeforward>>
  let host = ''
  let central = ''
  let forwardPort = 0
  // Stands for what a thief would like to reach through the host: must never see a connection.
  let inner: Server
  let innerPort = 0
  let reached = 0
  const ssh = (args: readonly string[], env: NodeJS.ProcessEnv = {}) =>
    run('ssh', ['-F', sshd.sshConfig, ...args], { env: { ...process.env, ...env } })

  before(async () => {
    built = await buildLeforward()
    host = await mkdtemp(join(tmpdir(), 'lematt-host-'))
    central = await mkdtemp(join(tmpdir(), 'lematt-central-'))
    await mkdir(join(host, 'tls'))
    await writeFile(join(host, 'tls', 'old-key.pem'), 'old key\n', { mode: 0o600 })
    await writeFile(join(host, 'reload.conf'), 'postfix /bin/echo reloaded postfix\nnginx /bin/echo reloaded nginx\n'
      + 'sshd /bin/echo reloaded sshd\n'
      + 'environment /usr/bin/env\n', { mode: 0o644 })
    await writeFile(join(central, 'a-key.pem'), 'new key\n', { mode: 0o600 })
    inner = createServer((socket) => {
      reached += 1
      socket.destroy()
    })
    await new Promise<void>((resolve) => inner.listen(0, '127.0.0.1', resolve))
    innerPort = (inner.address() as AddressInfo).port
    forwardPort = await freePort()
    const commands = {
      upload: `${remote}lematt-rsync-only ${join(host, 'tls')}`,
      reload: `${remote}lematt-reload --config ${join(host, 'reload.conf')} postfix nginx`,
      forward: `${built.path} --ssh --bind 127.0.0.1 --port ${forwardPort} --allow ${base}`,
      environment: `${remote}lematt-reload --config ${join(host, 'reload.conf')} environment`,
    }
    sshd = await startSshd({
      keys: {
        ...Object.fromEntries(Object.entries(commands)
          .map(([alias, command]) => [alias, `restrict,from="127.0.0.1",command="${command}"`])),
        free: 'command="/usr/bin/env"',
        stranger: `restrict,from="192.0.2.99",command="${commands.upload}"`,
      },
      // Everything that sshd could allow is allowed, so that only the keys' own restrictions hold.
      // A quicker key exchange than the post-quantum one: there are some sixty connections here.
      clientConfig: 'KexAlgorithms curve25519-sha256',
      config: 'AllowTcpForwarding yes\nAllowStreamLocalForwarding yes\nGatewayPorts clientspecified\nPermitTunnel yes\n'
        + 'X11Forwarding yes\nPermitUserEnvironment no\nAcceptEnv *\nMaxStartups 100\n',
    })
  })
  after(async () => {
    await sshd.stop()
    inner.close()
    await built.remove()
    for (const directory of [host, central]) await rm(directory, { recursive: true, force: true })
  })

  test('the upload key uploads', async () => {
    for (const destination of ['upload:', `upload:${join(host, 'tls')}`]) {
      await rm(join(host, 'tls', 'a-key.pem'), { force: true })
      const ran = await run('rsync', ['-tL', '--chmod=F640', '-e', `ssh -F ${sshd.sshConfig}`,
        join(central, 'a-key.pem'), destination])
      assert.deepEqual(ran, { code: 0, stdout: '', stderr: '' })
      assert.equal(readFileSync(join(host, 'tls', 'a-key.pem'), 'utf8'), 'new key\n')
      assert.equal(statSync(join(host, 'tls', 'a-key.pem')).mode & 0o777, 0o640)
    }
  })

  test('the upload key does not download, nor upload elsewhere', async () => {
    const shell = ['-e', `ssh -F ${sshd.sshConfig}`]
    for (const args of [
      ['upload:old-key.pem', central], [`upload:${join(host, 'tls')}/`, central],
      ['--rsync-path=cat', 'upload:x', central],
      ['a-key.pem', `upload:${host}`], ['a-key.pem', 'upload:../'], ['a-key.pem', 'upload:/etc/'],
      ['--rsync-path=sh -c id; rsync', 'a-key.pem', 'upload:'], ['--rsync-path=sudo rsync', 'a-key.pem', 'upload:'],
      ['--delete', '-r', '.', 'upload:'], ['--remove-source-files', 'upload:old-key.pem', central],
    ]) {
      const ran = await run('rsync', [...shell, '-t', ...args], { cwd: central })
      assert.notEqual(ran.code, 0, args.join(' '))
      assert.match(ran.stderr, /lematt-rsync-only: refused: /u, args.join(' '))
      assert.doesNotMatch(ran.stdout + ran.stderr, /old key|uid=/u)
    }
    assert.deepEqual(readdirSync(central), ['a-key.pem'])
    assert.deepEqual(readdirSync(host).sort(), ['reload.conf', 'tls'])
    assert.equal(readFileSync(join(host, 'tls', 'old-key.pem'), 'utf8'), 'old key\n')
  })

  test('the reload key reloads, only what it may', async () => {
    assert.deepEqual(await ssh(['reload', 'nginx', 'postfix']),
      { code: 0, stdout: 'reloaded nginx\nreloaded postfix\n', stderr: '' })
    for (const command of ['sshd', 'nginx; id', 'nginx\nid', '$(id)']) {
      const ran = await ssh(['reload', command])
      assert.deepEqual([ran.code, ran.stdout], [1, ''], command)
      assert.match(ran.stderr, /^lematt-reload: refused: /u)
    }
  })

  test('the forwarding key forwards to the pinned URL alone, and ends with its session', async () => {
    for (const command of ['http://evil.example', `${base}; id`, 'id']) {
      const ran = await ssh(['forward', command])
      assert.deepEqual([ran.code, ran.stdout], [2, ''], command)
      assert.equal(await listens(forwardPort), false)
    }
    // As `prepare` starts it: with an input that stays open, until the client is gone, however that happens.
    for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
      const client = spawn('ssh', ['-F', sshd.sshConfig, '-t', 'forward', base], { stdio: 'pipe' })
      let out = ''
      client.stdout.setEncoding('utf8').on('data', (text: string) => {
        out += text
      })
      client.stderr.resume()
      const ended = new Promise((resolve) => client.once('close', resolve))
      await until(() => out.includes('→'))
      assert.equal(out, `leforward: port ${forwardPort} → ${base}\n`)
      const url = `http://127.0.0.1:${forwardPort}/.well-known/acme-challenge/abc`
      const answer = await fetch(url, { redirect: 'manual' })
      assert.deepEqual([answer.status, answer.headers.get('location')], [301, `${base}/.well-known/acme-challenge/abc`])
      client.kill(signal)
      await ended
      await until(async () => !await listens(forwardPort))
    }
  })

  test('no key opens a shell, another program, scp or sftp', async () => {
    const list = () => readdirSync(host, { recursive: true, encoding: 'utf8' })
    const before = list()
    await Promise.all(aliases.map(async (alias) => {
      for (const args of [[alias], [alias, 'id'], [alias, 'sh -c id'], ['-s', alias, 'sftp']]) {
        const ran = await ssh(args)
        assert.ok(ran.code === 1 || ran.code === 2, `${args.join(' ')}: ${ran.code} ${ran.stderr}`)
        assert.equal(ran.stdout, '', args.join(' '))
        // Of a subsystem sshd passes on no standard error.
        if (args[0] !== '-s') assert.match(ran.stderr, /(?:lematt-(?:rsync-only|reload): refused|leforward): /u)
      }
      for (const flag of ['-O', '-s']) {
        for (const [from, to] of [['a-key.pem', `${alias}:`], [`${alias}:old-key.pem`, '.']] as const) {
          const ran = await run('scp', ['-F', sshd.sshConfig, flag, from, to], { cwd: central })
          assert.notEqual(ran.code, 0)
        }
      }
      const sftp = await run('sftp', ['-F', sshd.sshConfig, '-b', '-', alias], { input: 'ls\n' })
      assert.notEqual(sftp.code, 0)
      assert.doesNotMatch(sftp.stdout, /pem/u)
    }))
    assert.deepEqual(list().filter((name) => !before.includes(name)), [])
    assert.deepEqual(readdirSync(central), ['a-key.pem'])
  })

  test('no key gets a terminal, an agent or a display', async () => {
    const agent = await run('ssh-agent', ['-s'])
    const variable = (name: string) => new RegExp(`${name}=([^;]+)`, 'u').exec(agent.stdout)?.[1] ?? ''
    try {
      const env = { SSH_AUTH_SOCK: variable('SSH_AUTH_SOCK'), DISPLAY: 'localhost:10' }
      for (const alias of aliases) {
        const terminal = await ssh(['-A', '-X', '-o', 'LogLevel=INFO', '-tt', alias, '-'], env)
        assert.match(terminal.stderr, /PTY allocation request failed/u, alias)
      }
      // The same request with a key that has no "restrict" shows that the agent would have come through.
      const wanted = /^SSH_AUTH_SOCK=/mu
      assert.match((await ssh(['-A', '-o', 'IdentityAgent=SSH_AUTH_SOCK', 'free'], env)).stdout, wanted)
      const got = await ssh(
        ['-A', '-X', '-o', 'IdentityAgent=SSH_AUTH_SOCK', 'environment', 'environment'], env)
      assert.equal(got.code, 0)
      assert.match(got.stdout, /^SSH_CONNECTION=/mu)
      assert.doesNotMatch(got.stdout, /^(?:SSH_AUTH_SOCK|DISPLAY)=/mu)
    } finally {
      process.kill(Number(variable('SSH_AGENT_PID')))
    }
  })

  test('no key forwards ports or sockets, in either direction', async () => {
    await Promise.all(aliases.map(async (alias) => {
      const stdio = await ssh(['-W', `127.0.0.1:${innerPort}`, alias])
      assert.equal(stdio.code, 255)
      assert.match(stdio.stderr, /administratively prohibited|stdio forwarding failed/u)
      const target = `127.0.0.1:${innerPort}`
      for (const where of [`127.0.0.1:0:${target}`, `${join(host, `${alias}.sock`)}:${target}`, '0']) {
        const reverse = await ssh(['-N', '-o', 'ExitOnForwardFailure=yes', '-R', where, alias])
        assert.equal(reverse.code, 255, where)
      }
    }))
    assert.equal(reached, 0)
    assert.equal(readdirSync(host).some((name) => name.endsWith('.sock')), false)
  })

  test('a key is refused from another address', async () => {
    const ran = await ssh(['stranger', 'rsync --server -te.LsfxCIvu . .'])
    assert.deepEqual([ran.code, ran.stdout], [255, ''])
    assert.match(ran.stderr, /Permission denied/u)
  })
})

test('the examples to copy are well-formed', { skip: missing }, async () => {
  const directory = await mkdtemp(join(tmpdir(), 'lematt-examples-'))
  try {
    for (const key of ['upload', 'reload', 'forward']) {
      const alias = `mail-${key}`
      const { code, stdout } = await run('ssh', ['-G', '-F', join(remote, 'ssh_config.example'), alias])
      assert.equal(code, 0)
      const files = stdout.split('\n').filter((line) => line.startsWith('identityfile '))
      assert.deepEqual(files, [`identityfile ~/.ssh/lematt-mail-${key}`])
      for (const line of ['user certmaint', 'hostname mail.example.com', 'identitiesonly yes', 'batchmode yes']) {
        assert.ok(stdout.includes(`\n${line}\n`), `${alias}: ${line}`)
      }
    }
    // With a real key in the place of AAAA…, each line must be one key, all of its options understood.
    await run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', join(directory, 'key')])
    const key = readFileSync(join(directory, 'key.pub'), 'utf8').split(' ').slice(0, 2).join(' ')
    const text = readFileSync(join(remote, 'authorized_keys.example'), 'utf8').replaceAll('ssh-ed25519 AAAA…', key)
    await writeFile(join(directory, 'authorized_keys'), text)
    const { code, stdout, stderr } = await run('ssh-keygen', ['-l', '-f', join(directory, 'authorized_keys')])
    assert.equal(code, 0, stderr)
    assert.equal(stdout.trim().split('\n').length, text.match(/^restrict,/gmu)?.length)
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
})
