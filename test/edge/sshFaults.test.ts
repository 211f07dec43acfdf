/** Hosts and networks that fail: what ends, when, and what the others notice of it (nothing). */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { HostError } from '../../src/edge/ssh.js'
import { run } from '../helpers/run.js'
import { logins, withSsh, writeConfig } from '../helpers/sshClient.js'
import { freePort, sshdMissing, startSshd, type Sshd } from '../helpers/sshd.js'
import { startTcpProxy, type TcpProxy } from '../helpers/tcpProxy.js'
import { until } from '../helpers/until.js'

/** Never ends, but notices when nobody listens any more, so nothing of it stays behind. */
const chatty = 'while echo on; do sleep 0.1; done'

describe('faults', { skip: sshdMissing(), timeout: 90_000 }, () => {
  let sshd: Sshd
  let proxy: TcpProxy
  let proxied: string[]

  before(async () => {
    sshd = await startSshd({ keys: { key: '' }, config: 'MaxStartups 100' })
    proxy = await startTcpProxy(sshd)
    proxied = [`Port ${proxy.port}`, 'HostKeyAlias known', 'ConnectTimeout 2']
    const [, type = '', key = ''] = (await readFile(join(sshd.directory, 'known_hosts'), 'utf8')).split(' ')
    await writeFile(join(sshd.directory, 'known_hosts'), `known,[${sshd.address}]:${sshd.port} ${type} ${key}\n`)
  })
  after(async () => {
    await proxy.stop()
    await sshd.stop()
  })

  const seconds = async (work: Promise<unknown>): Promise<number> => {
    const begun = performance.now()
    await work
    return (performance.now() - begun) / 1000
  }

  test('hosts that take connections and say nothing hold no slot: the others finish meanwhile, they at their timeout', async () => {
    proxy.use({ do: 'silent' })
    const silent = Object.fromEntries(Array.from({ length: 20 }, (_, n) => [`silent${n}`, proxied]))
    const configFile = await writeConfig(sshd, { ...silent, one: [], two: [], three: [] })
    await withSsh({ configFile, parallel: 1 }, async ssh => {
      const waits = Object.keys(silent).map(name => seconds(assert.rejects(ssh.connect(name), (error: Error) => error instanceof HostError && /no answer from .* in 2 s/u.test(error.message))))
      const good = await Promise.race([
        Promise.all(['one', 'two', 'three'].map(async name => (await (await ssh.connect(name)).run('echo ok')).stdout)), Promise.all(waits).then(() => 'too late'),
      ])
      assert.deepEqual(good, ['ok\n', 'ok\n', 'ok\n'])
      for (const wait of await Promise.all(waits)) assert.ok(wait > 1.5 && wait < 5, `${wait} s`)
    })
  })

  test('an address whose packets are swallowed: the connect timeout, and no second try', { skip: process.env.LEMATT_NETNS !== '1' && 'needs scripts/netns' }, async () => {
    // A cable to a machine that has no address: with a neighbour entry that nobody answers for, packets just vanish.
    for (const args of [
      ['link', 'add', 'hole0', 'type', 'veth', 'peer', 'name', 'hole1'], ['addr', 'add', '192.0.2.1/24', 'dev', 'hole0'], ['link', 'set', 'hole0', 'up'], ['link', 'set', 'hole1', 'up'],
      ['neigh', 'add', '192.0.2.9', 'lladdr', '02:00:00:00:00:09', 'dev', 'hole0'],
    ]) {
      assert.deepEqual(await run('ip', args), { code: 0, stdout: '', stderr: '' })
    }
    const configFile = await writeConfig(sshd, { hole: ['HostName 192.0.2.9', 'ConnectTimeout 1'] })
    await withSsh({ configFile }, async ssh => {
      const wait = await seconds(assert.rejects(ssh.connect('hole'), /no answer from 192\.0\.2\.9 port \d+ in 1 s/u))
      assert.ok(wait < 3, `${wait} s`)
    })
  })

  test('a refused start is tried once more, and once only', async () => {
    for (const how of ['close', 'reset'] as const) {
      proxy.use(nth => ({ do: nth % 2 === 1 ? how : 'pass' }))
      if (proxy.connections() % 2 === 1) await fetch(`http://127.0.0.1:${proxy.port}`).catch(() => undefined)
      const before = proxy.connections()
      await withSsh({ configFile: await writeConfig(sshd, { host: proxied }) }, async ssh => assert.equal((await (await ssh.connect('host')).run('exit 0')).ok, true))
      assert.equal(proxy.connections() - before, 2)
    }
    proxy.use({ do: 'close' })
    const [before, beforeLogins] = [proxy.connections(), logins(sshd)]
    await withSsh({ configFile: await writeConfig(sshd, { host: proxied }) }, async ssh => {
      await assert.rejects(ssh.connect('host'), /closes the connection before it says anything; is sshd overloaded \(MaxStartups\)/u)
      await assert.rejects(ssh.connect('host'), HostError, 'and it is not tried anew in the same run')
    })
    assert.equal(proxy.connections() - before, 2)
    assert.equal(logins(sshd), beforeLogins)
  })

  test('MaxStartups of a real sshd: what it turns away comes in at the second try', async () => {
    const narrow = await startSshd({ keys: { key: '' }, config: 'MaxStartups 3:100:3' })
    try {
      const names = Array.from({ length: 6 }, (_, n) => `host${n}`)
      const configFile = await writeConfig(narrow, Object.fromEntries(names.map(name => [name, []])))
      await withSsh({ configFile }, async ssh => {
        for (const each of await Promise.all(names.map(async name => (await ssh.connect(name)).run('exit 0')))) assert.equal(each.ok, true)
      })
      assert.match(narrow.log(), /drop connection .* past MaxStartups/u)
      assert.equal(logins(narrow), 6)
    } finally {
      await narrow.stop()
    }
  })

  test('nobody there, a name that leads nowhere, something else than sshd: said in these words, at once, tried once', async () => {
    const nobody = await freePort()
    proxy.use({ do: 'pass' })
    const web = createServer().listen(0, '127.0.0.1')
    await until(() => web.listening)
    const webPort = (web.address() as { port: number }).port
    try {
      const configFile = await writeConfig(sshd, { nobody: [`Port ${nobody}`], nowhere: ['HostName nowhere.invalid'], web: [`Port ${webPort}`, 'ConnectTimeout 2'] })
      await withSsh({ configFile }, async ssh => {
        await assert.rejects(ssh.connect('nobody'), new RegExp(`^HostError: nobody: 127\\.0\\.0\\.1 port ${nobody} refuses the connection`, 'u'))
        await assert.rejects(ssh.connect('nowhere'), /^HostError: nowhere: the name nowhere\.invalid leads nowhere/u)
        await assert.rejects(ssh.connect('web'), /^HostError: web: no answer from/u)
        await assert.rejects(ssh.hostKeys('nobody'), /refuses the connection/u)
      })
    } finally {
      web.close()
    }
  })

  test('cut in the middle of an upload: no success, said at once; a command after it says the same; the next connection is a new one', async () => {
    proxy.use({ do: 'pass' })
    await withSsh({ configFile: await writeConfig(sshd, { host: proxied }) }, async ssh => {
      const connection = await ssh.connect('host')
      const before = proxy.sent()
      const running = connection.run(`cat >/dev/null; ${chatty}`, { input: Buffer.alloc(20_000_000) })
      await until(() => proxy.sent() - before > 1_000_000)
      proxy.cut()
      const result = await running
      assert.equal(result.ok, false)
      assert.match(result.how, /^the connection was lost/u)
      assert.equal(result.code, undefined)
      await connection.closed
      for (const after of [await connection.run('exit 0'), await (await connection.start('exit 0')).result]) {
        assert.equal(after.ok, false)
        assert.match(after.how, /the connection was lost/u)
      }
      await assert.rejects(connection.listen('127.0.0.1', 0, () => undefined), HostError)
      const next = await ssh.connect('host')
      assert.notEqual(next, connection)
      assert.equal((await next.run('exit 0')).ok, true, 'who asks again gets a new connection')
      assert.equal(await ssh.connect('host'), next)
    })
  })

  test('the session\'s sshd is killed: the command has not succeeded, though it may have done its work', async () => {
    await withSsh({ configFile: await writeConfig(sshd, { host: [] }) }, async ssh => {
      const connection = await ssh.connect('host')
      const end = await connection.listen('127.0.0.1', await freePort(), () => undefined)
      const started = await connection.start('echo $PPID; cat')
      await started.firstLine
      const running = connection.run(chatty)
      // The parent of the command is the process of this connection alone; with separation of privileges, its own parent is of it too.
      const { stdout } = await connection.run('echo $PPID')
      for (const pid of [Number(stdout), parentOf(Number(stdout))]) if (/sshd/u.test(nameOf(pid)) && isSession(pid)) process.kill(pid, 'SIGKILL')
      assert.match((await running).how, /^the connection was lost/u)
      assert.equal((await started.result).ok, false)
      await started.end()
      await end()
      await connection.closed
    })
  })

  test('the cable is out: keepalive finds it', async () => {
    proxy.use({ do: 'pass' })
    const own = await startTcpProxy(sshd)
    try {
      await withSsh({ configFile: await writeConfig(sshd, { host: [`Port ${own.port}`, 'HostKeyAlias known'] }) }, async ssh => {
        const connection = await ssh.connect('host')
        const running = connection.run(chatty, { timeoutSeconds: 60 })
        own.freeze()
        const wait = await seconds(connection.closed)
        assert.ok(wait > 10 && wait < 30, `${wait} s`)
        assert.match((await running).how, /^the connection was lost \(Keepalive timeout\)/u)
      })
    } finally {
      await own.stop()
    }
  })

  test('50 ms of latency: all is well', async () => {
    proxy.use({ do: 'pass', delayMs: 25 })
    await withSsh({ configFile: await writeConfig(sshd, { host: [...proxied.slice(0, 2), 'ConnectTimeout 10'] }) }, async ssh => {
      assert.equal((await (await ssh.connect('host')).run('wc -c', { input: Buffer.alloc(1_000_000) })).stdout.trim(), '1000000')
    })
  })

  test('an abort while a host does not answer ends that at once, with the reason', async () => {
    proxy.use({ do: 'silent' })
    const [abort, reason] = [new AbortController(), new Error('interrupted by the operator')]
    const before = proxy.connections()
    await withSsh({ configFile: await writeConfig(sshd, { host: proxied }), signal: abort.signal }, async ssh => {
      const connecting = ssh.connect('host')
      const rejected = assert.rejects(connecting, reason)
      await until(() => proxy.connections() > before)
      const begun = performance.now()
      abort.abort(reason)
      await rejected
      assert.ok(performance.now() - begun < 1000)
    })
    assert.equal(proxy.connections() - before, 1)
  })
})

const stat = (pid: number): string => {
  try {
    return readFileSync(`/proc/${pid}/stat`, 'latin1')
  } catch {
    return ''
  }
}
const parentOf = (pid: number): number => Number(/\) \S (\d+) /u.exec(stat(pid))?.[1] ?? 0)
const nameOf = (pid: number): string => /\((.*)\)/u.exec(stat(pid))?.[1] ?? ''

/** `sshd: root@notty`, and not the one that listens: `sshd: /usr/sbin/sshd … [listener]`. */
const isSession = (pid: number): boolean => /^sshd: \w+(?:@| \[priv\])/u.test(readFileSync(`/proc/${pid}/cmdline`, 'latin1'))
