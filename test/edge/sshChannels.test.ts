/** What is done on a host: commands, things that run on, ports that listen; against a real sshd. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { appendFile, readFile, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { connect } from 'node:net'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { HostError, openSsh, type Connection, type Ssh } from '../../src/edge/ssh.js'
import { addKey, makeKey, writeConfig } from '../helpers/sshClient.js'
import { freePort, sshdMissing, startSshd, type Sshd } from '../helpers/sshd.js'
import { until } from '../helpers/until.js'

/** Never ends, but notices when nobody listens any more. */
const chatty = 'while echo on; do sleep 0.1; done'

describe('on a host', { skip: sshdMissing(), timeout: 60_000 }, () => {
  let sshd: Sshd
  let ssh: Ssh
  let host: Connection
  let free: number
  const abort = new AbortController()

  before(async () => {
    free = await freePort()
    sshd = await startSshd({ keys: { key: '', bounded: `restrict,port-forwarding,permitlisten="127.0.0.1:${free}",permitopen="localhost:1"`, shut: 'restrict' }, config: 'MaxSessions 12' })
    const keys = (alias: string): string[] => [`IdentityFile ${join(sshd.directory, alias)}`]
    const configFile = await writeConfig(sshd, { host: [], bounded: keys('bounded'), shut: keys('shut'), other: [] })
    // Each of these has one key, or the first that fits would decide what is allowed.
    await writeFile(configFile, (await readFile(configFile, 'utf8')).replace(`  IdentityFile ${sshd.directory}/key\n`, '').replace('Host host\n', `Host host other\n  IdentityFile ${sshd.directory}/key\n`))
    ssh = openSsh({ configFile, signal: abort.signal })
    host = await ssh.connect('host')
  })
  after(async () => {
    await ssh.close()
    await host.closed
    await sshd.stop()
  })

  const gone = (path: string) => async (): Promise<boolean> => {
    const pid = Number(await readFile(path, 'utf8').catch(() => '0'))
    if (pid === 0) return false
    try {
      process.kill(pid, 0)
      return false
    } catch {
      return true
    }
  }

  test('success is exit status 0 and nothing else; both streams, the second cleaned', async () => {
    assert.deepEqual(await host.run('echo out; printf "\\033[31merr\\n" >&2'), { ok: true, code: 0, how: 'exit status 0', stdout: 'out\n', stderr: 'err' })
    assert.deepEqual(await host.run('exit 3'), { ok: false, code: 3, how: 'exit status 3', stdout: '', stderr: '' })
    assert.deepEqual(await host.run('kill -TERM $$'), { ok: false, how: 'killed by SIGTERM', stdout: '', stderr: '' })
    assert.equal((await host.run('/nowhere/command')).how, 'exit status 127')
  })

  test('input: whole, larger than every window, also where nobody reads it', async () => {
    const input = Buffer.alloc(5_000_000, 'lematt ')
    const { stdout } = await host.run('sha256sum', { input })
    assert.equal(stdout.split(' ')[0], createHash('sha256').update(input).digest('hex'))
    assert.deepEqual(await host.run('exec <&-; exit 0', { input }), { ok: true, code: 0, how: 'exit status 0', stdout: '', stderr: '' })
    assert.equal((await host.run('cat')).stdout, '')
  })

  test('output: bounded, and what runs on with it is ended', async () => {
    const result = await host.run('head -c 3000000 /dev/zero | tr "\\0" x')
    assert.equal(result.stdout.length, 3_000_000)
    const pid = join(sshd.directory, 'yes.pid')
    const flood = await host.run(`echo $$ >${pid}; exec yes`, { maxOutput: 100_000 })
    assert.deepEqual([flood.ok, flood.how], [false, 'more than 100000 bytes of output'])
    assert.ok(flood.stdout.length <= 100_000)
    await until(gone(pid))
    const errors = await host.run('head -c 3000000 /dev/zero | tr "\\0" x >&2; echo the end >&2')
    assert.ok(errors.ok && errors.stderr.length <= 16_384 && errors.stderr.endsWith('the end'))
  })

  test('a command that never ends is ended there too, and the connection goes on', async () => {
    const pid = join(sshd.directory, 'sleep.pid')
    const before = performance.now()
    const result = await host.run(`echo $$ >${pid}; ${chatty}`, { timeoutSeconds: 1 })
    assert.deepEqual([result.ok, result.how, result.stdout.slice(0, 3)], [false, 'no end after 1 s', 'on\n'])
    assert.ok(performance.now() - before < 5000)
    await until(gone(pid))
    // Root's commands get no signal from sshd, which says so.
    if (userInfo().uid === 0) await until(() => sshd.log().includes('session_signal_req'))
    assert.equal((await host.run('exit 0')).ok, true)
  })

  test('a signal of the caller ends its command alone', async () => {
    const own = new AbortController()
    const pid = join(sshd.directory, 'own.pid')
    const running = host.run(`echo $$ >${pid}; ${chatty}`, { signal: own.signal })
    await until(async () => (await readFile(pid, 'utf8').catch(() => '')) !== '')
    own.abort()
    assert.equal((await running).how, 'interrupted')
    await until(gone(pid))
    assert.equal((await host.run('exit 0', { signal: own.signal })).how, 'interrupted')
    assert.equal((await host.run('exit 0')).ok, true)
  })

  test('twelve at once on one connection; the one above MaxSessions is told so', async () => {
    const fresh = await ssh.connect('other')
    const started = await Promise.all(Array.from({ length: 12 }, () => fresh.start('echo up; cat')))
    await Promise.all(started.map(each => each.firstLine))
    const above = await fresh.run('exit 0')
    assert.equal(above.ok, false)
    assert.match(above.how, /^the host does not start it .*MaxSessions/u)
    await Promise.all(started.map(each => each.end()))
    assert.ok((await Promise.all(started.map(each => each.result))).every(({ ok }) => ok))
    assert.equal((await fresh.run('exit 0')).ok, true)
  })

  test('started: runs until it is ended; its input ends first, then TERM', async () => {
    const polite = await host.start('echo ready; cat; echo bye')
    await polite.firstLine
    await polite.end()
    assert.deepEqual(await polite.result, { ok: true, how: 'exit status 0', output: 'ready\nbye' })
    await polite.end()

    const pid = join(sshd.directory, 'stubborn.pid')
    const stubborn = await host.start(`trap '' TERM; echo $$ >${pid}; echo ready; exec sleep 600`)
    await stubborn.firstLine
    const before = performance.now()
    await stubborn.end()
    assert.ok(performance.now() - before < 8000)
    assert.match((await stubborn.result).how, /^no end within 5 s/u)
    process.kill(Number(await readFile(pid, 'utf8')), 'SIGKILL')

    const failing = await host.start('echo no good >&2; exit 4')
    assert.deepEqual(await failing.result, { ok: false, how: 'exit status 4', output: 'no good' })
  })

  test('a port of the host comes to us, and is free again afterwards', async () => {
    const server = createServer((request, response) => response.end(`for ${request.url ?? ''}`))
    const bounded = await ssh.connect('bounded')
    const end = await bounded.listen('127.0.0.1', free, channel => server.emit('connection', channel))
    const answers = await Promise.all(Array.from({ length: 30 }, async (_, n) => (await fetch(`http://127.0.0.1:${free}/${n}`)).text()))
    assert.deepEqual(answers, Array.from({ length: 30 }, (_, n) => `for /${n}`))
    await assert.rejects(bounded.listen('127.0.0.1', free, () => undefined), HostError)
    await end()
    await end()
    assert.equal(await freeNow(free), true)
    server.closeAllConnections()
    const again = await bounded.listen('127.0.0.1', free, () => undefined)
    await again()
  })

  test('what authorized_keys does not allow is refused, with the words that it lacks', async () => {
    const shut = await ssh.connect('shut')
    let came = 0
    await assert.rejects(shut.listen('127.0.0.1', free, () => { came += 1 }), (error: Error) => {
      assert.ok(error instanceof HostError)
      assert.ok(error.message.includes(`permitlisten="127.0.0.1:${free}"`), error.message)
      return true
    })
    const other = await freePort()
    await assert.rejects((await ssh.connect('bounded')).listen('127.0.0.1', other, () => { came += 1 }), HostError)
    assert.equal(await freeNow(free), true)
    assert.equal(came, 0)
  })

  test('a forced command gets what was asked for, and its end is ours to see', async () => {
    await makeKey(join(sshd.directory, 'forced'))
    await appendFile(sshd.authorizedKeys, `restrict,command="echo \\"asked $SSH_ORIGINAL_COMMAND\\"; cat" ${await readFile(join(sshd.directory, 'forced.pub'), 'utf8')}`)
    const configFile = await writeConfig(sshd, { forced: [] })
    await writeFile(configFile, (await readFile(configFile, 'utf8')).replace(`${sshd.directory}/key\n`, `${sshd.directory}/forced\n`))
    const other = openSsh({ configFile, signal: abort.signal })
    try {
      assert.equal((await (await other.connect('forced')).run('deliver postfix', { input: 'files' })).stdout, 'asked deliver postfix\nfiles')
    } finally {
      await other.close()
    }
  })

  test('an abort ends everything with its reason', async () => {
    const [ending, reason] = [new AbortController(), new Error('enough')]
    const configFile = await writeConfig(sshd, { host: [`IdentityFile ${await addKey(sshd, 'late', ['-t', 'ed25519'])}`] })
    const other = openSsh({ configFile, signal: ending.signal })
    const connection = await other.connect('host')
    const pid = join(sshd.directory, 'abort.pid')
    const running = connection.run(`echo $$ >${pid}; ${chatty}`)
    const started = await connection.start('echo up; cat')
    await started.firstLine
    await until(async () => (await readFile(pid, 'utf8').catch(() => '')) !== '')
    ending.abort(reason)
    assert.deepEqual([(await running).ok, (await running).how], [false, 'interrupted'])
    await connection.closed
    assert.equal((await started.result).ok, false)
    await started.end()
    await assert.rejects(other.connect('another'), reason)
    assert.equal((await connection.run('exit 0')).ok, false)
    assert.equal((await (await connection.start('exit 0')).result).ok, false)
    await other.close()
    await until(gone(pid))
    assert.equal((await host.run('exit 0')).ok, true, 'the others go on')
  })
})

/** Whether nobody listens there. */
function freeNow(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => {
      socket.destroy()
      resolve(false)
    }).once('error', () => resolve(true))
  })
}
