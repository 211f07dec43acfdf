/** Spec §8: networks and hosts that fail in the middle of a delivery, and what must not come of it. */
import assert from 'node:assert/strict'
import { appendFileSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, afterEach, before, describe, test } from 'node:test'
import { receiverOn, type HostJson, type Receiver } from './helpers/lab-receiver.js'
import { labSkip, type LabHost } from './helpers/lab.js'
import { Night } from './helpers/night.js'
import { startTcpProxy, type TcpProxy } from './helpers/tcpProxy.js'
import { until } from './helpers/until.js'

const keyFile = 'a.example.com-key.prime256v1.pem'
const certFile = 'a.example.com-cert-combined.prime256v1.pem'

describe('a delivery that is cut short', { skip: labSkip() }, () => {
  let night: Night
  let far: LabHost
  let farReceiver: Receiver
  let near: Receiver
  let proxy: TcpProxy
  const hosts = (list: string): void => night.actions(`[default]\nhosts: ${list}\nreload: web\n`)
  const run = async (...args: string[]): Promise<{ code: number | null; hosts: HostJson[] }> => {
    const ran = await night.lematt(['--prod', ...args, '--json'])
    assert.equal(ran.stderr, '')
    return { code: ran.code, hosts: (JSON.parse(ran.stdout) as { hosts: HostJson[] }).hosts }
  }
  const renew = (): ReturnType<typeof run> => run('--only', 'a.example.com', '--force')
  const held = (directory: 'cert' | 'key', file: string): string => night.read('prod', directory, file)
  /** Both files of one pair, as central has it, and nothing half done. */
  const isWhole = (receiver: Receiver): void => {
    assert.equal(readFileSync(join(receiver.cert, certFile), 'utf8'), held('cert', certFile))
    assert.equal(readFileSync(join(receiver.key, keyFile), 'utf8'), held('key', keyFile))
    for (const directory of [receiver.cert, receiver.key]) for (const place of ['new', 'old']) assert.deepEqual(readdirSync(join(directory, '.lematt', place)), [])
  }

  before(async () => {
    night = await Night.open({ domains: 'a.example.com\n' })
    night.settings({ keyTypes: 'ec', sshConfig: night.lab.sshConfig })
    far = await night.lab.host('far')
    farReceiver = await receiverOn(far, { services: { web: '/bin/true' } })
    near = await receiverOn(await night.lab.host('near'), { services: { web: '/bin/true' } })
    proxy = await startTcpProxy({ address: far.address, port: 22 })
    const { directory, user } = farReceiver.sshd
    appendFileSync(night.lab.sshConfig, `Host via
  HostName 127.0.0.1
  Port ${proxy.port}
  User ${user}
  HostKeyAlias ${far.address}
  IdentityFile ${join(directory, 'far')}
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile ${join(directory, 'known_hosts')}
  ConnectTimeout 3
Match all
`)
    hosts('via near')
    assert.equal((await run()).code, 0)
  })
  afterEach(() => proxy.use({ do: 'pass' }))
  after(async () => {
    await proxy.stop()
    await night.close()
  })

  test('cut in the middle of the upload: the host keeps what it had and reloads nothing; the other is done; the next night heals', async () => {
    const reloads = farReceiver.reloads().length
    const old = readFileSync(join(farReceiver.key, keyFile), 'utf8') + readFileSync(join(farReceiver.cert, certFile), 'utf8')
    const before = proxy.sent()
    assert.equal((await run('--only', 'a.example.com', '--force')).code, 0)
    const whole = proxy.sent() - before
    const [now, count] = [readFileSync(join(farReceiver.key, keyFile), 'utf8') + readFileSync(join(farReceiver.cert, certFile), 'utf8'), farReceiver.reloads().length]
    assert.notEqual(now, old)
    assert.equal(count, reloads + 1)
    proxy.use({ do: 'pass', cutAfter: whole - 1500 })
    const report = await renew()
    assert.equal(report.code, 1)
    assert.deepEqual(report.hosts.map(h => [h.host, h.status]), [['via', 'failed'], ['near', 'done']])
    assert.match(report.hosts[0]?.message ?? '', /connection was lost|the host ended it/u)
    assert.equal(readFileSync(join(farReceiver.key, keyFile), 'utf8') + readFileSync(join(farReceiver.cert, certFile), 'utf8'), now)
    assert.equal(farReceiver.reloads().length, count)
    isWhole(near)
    proxy.use({ do: 'pass' })
    const healed = await run()
    assert.deepEqual(healed.hosts.map(h => [h.host, h.status, h.files]), [['via', 'done', 2]])
    isWhole(farReceiver)
  })

  test('a host that takes the connection and says nothing costs the run its connect timeout, and the others nothing', async () => {
    proxy.use({ do: 'silent' })
    const begun = performance.now()
    const report = await renew()
    const seconds = (performance.now() - begun) / 1000
    assert.deepEqual(report.hosts.map(h => [h.host, h.status, h.step]), [['via', 'failed', 'connect'], ['near', 'done', undefined]])
    assert.match(report.hosts[0]?.message ?? '', /via: no answer from 127\.0\.0\.1 port \d+ in 3 s/u)
    assert.ok(seconds < 10, `${seconds} s`)
    isWhole(near)
    proxy.use({ do: 'pass' })
    assert.equal((await run()).code, 0)
    isWhole(farReceiver)
  })

  test('lematt is killed with -9, and interrupted, while a service reloads: the host comes to its end, the next night sees to the rest', async () => {
    for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
      const gate = join(far.dir, 'gate')
      writeFileSync(join(far.dir, 'reload-web'), `#!/bin/sh\necho web >> ${join(far.dir, 'reloads')}\nwhile [ ! -e ${gate} ]; do sleep 0.05; done\n`)
      const count = farReceiver.reloads().length
      const daemon = night.start(['--prod', '--only', 'a.example.com', '--force'])
      await until(() => farReceiver.reloads().length > count)
      daemon.kill(signal)
      await daemon.ended
      if (signal === 'SIGTERM') assert.match(daemon.stdout, /^parked: .*via.*interrupted/mu)
      writeFileSync(gate, '')
      await until(() => !existsSync(join(farReceiver.key, '.lematt', 'journal')))
      const report = await run()
      assert.equal(report.code, 0, JSON.stringify(report.hosts))
      assert.ok(report.hosts.some(h => h.host === 'via' && h.status === 'done'))
      isWhole(farReceiver)
      isWhole(near)
      assert.deepEqual((await run()).hosts, [])
      await far.must('rm', [gate])
      writeFileSync(join(far.dir, 'reload-web'), `#!/bin/sh\necho web >> ${join(far.dir, 'reloads')}\n`)
    }
  })

  test('a name that leads nowhere, and a key without the receiver: failed deliveries that say so, and the others are done', async () => {
    const plain = await night.lab.host('plain')
    await plain.sshd({ keys: { plain: 'restrict,command="echo hello"' } })
    hosts('nowhere.invalid plain near')
    const report = await renew()
    assert.equal(report.code, 1)
    assert.deepEqual(report.hosts.map(h => [h.host, h.status, h.step]), [['nowhere.invalid', 'failed', 'connect'], ['plain', 'failed', 'deliver'], ['near', 'done', undefined]])
    assert.match(report.hosts[0]?.message ?? '', /nowhere\.invalid/u)
    assert.match(report.hosts[1]?.message ?? '', /lematt-receive/u)
    isWhole(near)
    const check = await night.lematt(['check', '--prod'])
    assert.equal(check.code, 1)
    assert.match(check.stdout, /^error: nowhere\.invalid has no host key in .*: lematt enroll nowhere\.invalid, or correct the name/mu)
    assert.doesNotMatch(check.stdout, /^error: (?:plain|near)/mu)
    const ran = await night.lematt(['plan', '--prod'])
    assert.match(ran.stdout, /nowhere\.invalid: .*failed last time/u)
  })
})
