/** Spec §8, Verify, at the command line: real web servers, one of which shows another certificate. */
import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { connect } from 'node:tls'
import { after, before, describe, test } from 'node:test'
import { receiverOn, type HostJson, type Receiver } from './helpers/lab-receiver.js'
import type { Nginx } from './helpers/lab-nginx.js'
import { labSkip, type LabHost } from './helpers/lab.js'
import { Night } from './helpers/night.js'
import { until } from './helpers/until.js'

const name = 'www.example.com'
const tags = ['prime256v1', 'rsa2048']

/** The fingerprint of the EC certificate that a host shows, as `Leaf.fingerprint`. */
function shownBy(address: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: address, port: 443, servername: name, rejectUnauthorized: false, sigalgs: 'ecdsa_secp256r1_sha256' }, () => {
      const { fingerprint256 } = socket.getPeerCertificate()
      socket.destroy()
      resolve(fingerprint256.replaceAll(':', '').toLowerCase())
    })
    socket.on('error', reject)
  })
}

describe('three web servers behind one name', { skip: labSkip() }, () => {
  let night: Night
  const hosts = new Map<string, { host: LabHost; receiver: Receiver; nginx: Nginx }>()
  const at = (host: string): { host: LabHost; receiver: Receiver; nginx: Nginx } => hosts.get(host) ?? assert.fail(host)
  const stored = (mode = 'prod'): string => {
    const test = mode === 'test' ? '.test' : ''
    return new X509Certificate(night.read(mode, 'cert', `${name}-cert-combined.prime256v1${test}.pem`)).fingerprint256.replaceAll(':', '').toLowerCase()
  }
  /** A worker of nginx that is about to end may still answer with what it had. */
  const shows = (host: LabHost, fingerprint: string): Promise<void> => until(async () => await shownBy(host.address) === fingerprint, { what: `${host.name} shows ${fingerprint}` })
  /** Seconds until a port that does not change is given up: few where that is what is tested. */
  const grace = (seconds: number): void => night.settings({ sshConfig: night.lab.sshConfig, verifyGrace: String(seconds) })
  const run = async (...args: string[]): Promise<{ code: number | null; hosts: HostJson[] }> => {
    const ran = await night.lematt([...args, '--json'], { timeoutMs: 90_000 })
    assert.equal(ran.stderr, '')
    return { code: ran.code, hosts: (JSON.parse(ran.stdout) as { hosts: HostJson[] }).hosts }
  }

  before(async () => {
    night = await Night.open({ domains: `${name}\n`, actions: `[default]\nhosts: web1 web2 web3\nreload: nginx\nverify: 443\n` })
    grace(30)
    await Promise.all(['web1', 'web2', 'web3'].map(async each => {
      const host = await night.lab.host(each)
      const pairs = tags.map(tag => ({ cert: join(host.dir, 'tls', 'cert', `${name}-cert-combined.${tag}.pem`), key: join(host.dir, 'tls', 'key', `${name}-key.${tag}.pem`) }))
      const nginx = await host.tlsServer([name], pairs)
      hosts.set(each, { host, nginx, receiver: await receiverOn(host, { services: { nginx: nginx.reloadCommand } }) })
    }))
  })
  after(async () => { await night.close() })

  test('test mode: the servers go on with what they have, and that is well', async () => {
    const before = await shownBy(at('web1').host.address)
    const first = await run('--test')
    assert.equal(first.code, 0, JSON.stringify(first.hosts))
    assert.deepEqual(first.hosts.map(h => [h.host, h.files, h.verified]), ['web1', 'web2', 'web3'].map(h => [h, 4, ['443']]))
    assert.equal(await shownBy(at('web1').host.address), before)
    assert.deepEqual((await run('--test')).hosts, [])
  })

  test('each host shows the new pair of both key types, and the report says so', async () => {
    const ran = await night.lematt(['--prod'])
    assert.equal(ran.code, 0, ran.stdout + ran.stderr)
    for (const each of hosts.keys()) assert.match(ran.stdout, new RegExp(`^delivered: \\[default\\] ${each}: 4 files, nginx reloaded, 443 shows the new certificate`, 'mu'))
    for (const { host } of hosts.values()) await shows(host, stored())
    assert.deepEqual(await run('--prod'), { code: 0, hosts: [] })
  })

  test('a server that went back to another certificate is found at night and mended; the others are left alone', async () => {
    const { host, receiver, nginx } = at('web2')
    const cert = join(receiver.cert, `${name}-cert-combined.prime256v1.pem`)
    const [kept, keptKey] = [readFileSync(cert), readFileSync(join(receiver.key, `${name}-key.prime256v1.pem`))]
    // A restored backup that was loaded, and then repaired by hand on the disk alone.
    await host.must('sh', ['-ec', `openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 1 -subj /CN=backup -keyout ${join(receiver.key, `${name}-key.prime256v1.pem`)} -out ${cert} 2>/dev/null`])
    await nginx.reload()
    await until(async () => await shownBy(host.address) !== stored())
    writeFileSync(cert, kept)
    writeFileSync(join(receiver.key, `${name}-key.prime256v1.pem`), keptKey)
    const counts = new Map([...hosts].map(([each, h]) => [each, h.receiver.reloads().length]))
    const report = await run('--prod')
    assert.equal(report.code, 0, JSON.stringify(report.hosts))
    assert.deepEqual(report.hosts.map(h => [h.host, h.status, h.files]), [['web2', 'done', 2]])
    assert.match(report.hosts[0]?.reason ?? '', /^drifted: 443 \(www\.example\.com, EC\) shows another certificate: SHA-256 [0-9a-f]{16}…, by backup, until /u)
    await shows(host, stored())
    for (const [each, { receiver: of }] of hosts) assert.equal(of.reloads().length - (counts.get(each) ?? 0), each === 'web2' ? 1 : 0, each)
  })

  test('a reload that fails: the old files are back, and the server still answers with the old certificate', async () => {
    const old = stored()
    at('web3').receiver.breakReload('nginx')
    const report = await run('--prod', '--only', name, '--force')
    assert.equal(report.code, 1)
    assert.deepEqual(report.hosts.map(h => [h.host, h.status]), [['web1', 'done'], ['web2', 'done'], ['web3', 'failed']])
    assert.equal(report.hosts[2]?.step, 'reload nginx')
    await shows(at('web3').host, old)
    await shows(at('web1').host, stored())
    const healed = await run('--prod')
    assert.deepEqual(healed.hosts.map(h => [h.host, h.status]), [['web3', 'done']])
    await shows(at('web3').host, stored())
  })

  test('a server that does not load what it is given is named, with what it shows; the others are done', async () => {
    const { receiver, host } = at('web1')
    grace(2)
    // Its reload says that all is well, and does nothing.
    writeFileSync(join(host.dir, 'reload-nginx'), '#!/bin/sh\nexit 0\n')
    const old = stored()
    const report = await run('--prod', '--only', name, '--force')
    assert.equal(report.code, 1)
    const failed = report.hosts.filter(h => h.status === 'failed')
    assert.deepEqual(failed.map(h => [h.host, h.step]), [['web1', 'verify 443']])
    assert.match(failed[0]?.message ?? '', new RegExp(`443 \\(www\\.example\\.com, (?:EC|RSA)\\) shows another certificate: .*does the service load ${name}-cert-combined\\.`, 'u'))
    assert.equal(await shownBy(host.address), old)
    assert.equal(readFileSync(join(receiver.cert, `${name}-cert-combined.prime256v1.pem`), 'utf8'), night.read('prod', 'cert', `${name}-cert-combined.prime256v1.pem`))
    assert.equal(report.hosts.filter(h => h.status === 'done').length, 2)
    grace(30)
    // Its administrator mends the reload, and the next night does all of it again.
    writeFileSync(join(host.dir, 'reload-nginx'), `#!/bin/sh\nexec ${at('web1').nginx.reloadCommand}\n`)
    const healed = await run('--prod')
    assert.deepEqual(healed.hosts.map(h => [h.host, h.status, h.files, h.reloaded]), [['web1', 'done', 4, ['nginx']]], JSON.stringify(healed.hosts))
    await shows(host, stored())
  })
})
