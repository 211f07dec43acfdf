/** Spec §8, the nightly look, at the command line: links, ports of a host's second address, and hosts that show nonsense. */
import assert from 'node:assert/strict'
import { existsSync, lstatSync, readFileSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { receiverOn, type HostJson, type Receiver } from './helpers/lab-receiver.js'
import { startNginx, tlsServer, type Nginx } from './helpers/lab-nginx.js'
import { labSkip, type LabHost } from './helpers/lab.js'
import { Night } from './helpers/night.js'

const name = 'a.example.com_b.example.com'
const second = '10.99.7.2'

describe('the nightly look', { skip: labSkip() }, () => {
  let night: Night
  let web: LabHost
  let receiver: Receiver
  let odd: Receiver
  let nginx: Nginx
  const actions = (hosts: string, verify: string, more = ''): void => night.actions(`[default]\nhosts: ${hosts}\nreload: web\nverify: ${verify}\n${more}`)
  /** Seconds until a port that does not change is given up: few where that is what is tested. */
  const grace = (seconds: number): void => night.settings({ keyTypes: 'ec', sshConfig: night.lab.sshConfig, verifyGrace: String(seconds) })
  const run = async (...args: string[]): Promise<{ code: number | null; hosts: HostJson[]; stderr: string }> => {
    const ran = await night.lematt([...args, '--json'], { timeoutMs: 90_000 })
    return { code: ran.code, stderr: ran.stderr, hosts: (JSON.parse(ran.stdout) as { hosts: HostJson[] }).hosts }
  }
  const serve = (): Promise<Nginx> => startNginx(web.machine, tlsServer(second, 443, ['a.example.com'], [{
    cert: join(receiver.cert, `${name}-cert-combined.prime256v1.pem`), key: join(receiver.key, `${name}-key.prime256v1.pem`),
  }]), [])

  before(async () => {
    night = await Night.open()
    grace(2)
    await night.domains('a.example.com b.example.com\n')
    web = await night.lab.host('web', { addresses: [second] })
    receiver = await receiverOn(web, { services: { web: '/bin/true' } })
    const oddHost = await night.lab.host('odd')
    odd = await receiverOn(oddHost, { services: { web: '/bin/true' } })
    // A certificate without an issuer, which node:crypto gives no text for.
    const pair = join(oddHost.dir, 'odd')
    await oddHost.must('sh', ['-ec', `openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 1 -subj / -keyout ${pair}.key -out ${pair}.pem 2>/dev/null`])
    await startNginx(oddHost.machine, tlsServer(oddHost.address, 443, ['x'], [{ cert: `${pair}.pem`, key: `${pair}.key` }]), [443])
  })
  after(async () => { await night.close() })

  test('verifyAddress: the ports of another address of the host are asked, not those of its HostName', async () => {
    actions('web', '443')
    const wrong = await run('--prod')
    assert.deepEqual([wrong.code, wrong.hosts[0]?.step, wrong.hosts[0]?.files], [1, 'verify 443', 2])
    actions('web', '443', `verifyAddress: web=${second}\n`)
    grace(30)
    nginx = await serve()
    // From now on its reload is nginx's, where that runs.
    writeFileSync(join(web.dir, 'reload-web'), `#!/bin/sh\necho web >> ${join(web.dir, 'reloads')}\n${nginx.reloadCommand} || true\n`)
    const report = await run('--prod')
    assert.equal(report.code, 0, JSON.stringify(report.hosts))
    assert.deepEqual(report.hosts[0]?.verified, ['443'])
    assert.deepEqual((await run('--prod')).hosts, [])
  })

  test('a link that is gone on the host is drift; files and links are there again', async () => {
    const link = join(receiver.key, 'b.example.com-key.prime256v1.pem')
    assert.ok(lstatSync(link).isSymbolicLink())
    unlinkSync(link)
    const report = await run('--prod')
    assert.deepEqual(report.hosts.map(h => [h.status, h.files]), [['done', 2]])
    assert.match(report.hosts[0]?.reason ?? '', /^drifted: b\.example\.com-key\.prime256v1\.pem not as delivered on the host/u)
    assert.ok(existsSync(link) && lstatSync(link).isSymbolicLink())
  })

  test('a service that does not answer is no drift: nothing is sent or reloaded, it is named; the night after, all of it is done', async () => {
    await nginx.stop()
    grace(2)
    const count = receiver.reloads().length
    const down = await run('--prod')
    assert.deepEqual([down.code, down.hosts[0]?.status, down.hosts[0]?.step, down.hosts[0]?.files], [1, 'failed', 'verify 443', 0])
    assert.match(down.hosts[0]?.message ?? '', /refused/u)
    assert.equal(receiver.reloads().length, count)
    nginx = await serve()
    grace(30)
    const back = await run('--prod')
    assert.deepEqual([back.code, back.hosts[0]?.status, back.hosts[0]?.files], [0, 'done', 2])
  })

  test('a host that shows nonsense fails alone, every night anew; the others are served, and a port that was not looked at is not called verified', async () => {
    grace(6)
    actions('odd web', '443', `verifyAddress: web=${second}\n`)
    const report = await run('--prod', '--only', 'a.example.com', '--force')
    assert.equal(report.stderr, '')
    assert.deepEqual([report.code, report.hosts.map(h => [h.host, h.status])], [1, [['odd', 'failed'], ['web', 'done']]])
    assert.match(report.hosts[0]?.message ?? '', /443 \(a\.example\.com, EC\) shows another certificate: .* by nobody,/u)
    assert.ok(odd.reloads().length > 0)
    actions('web', '443', `verifyAddress: web=${second}\n`)
    await run('--test')
    await web.unplug()
    assert.equal((await run('--test')).code, 1)
    await web.plug()
    await nginx.stop()
    const test = await run('--test')
    assert.deepEqual(test.hosts.map(h => [h.status, h.verified]), [['done', []]])
    nginx = await serve()
  })

  test('test mode: what a port showed before the first try counts, not what a failed try has made of it', async () => {
    actions('web', '443', `verifyAddress: web=${second}\n`)
    const broken = join(web.dir, 'nginx-', 'broken')
    const pair = join(web.dir, 'snakeoil')
    await web.must('sh', ['-ec', `openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 1 -subj /CN=snakeoil -keyout ${pair}.key -out ${pair}.pem 2>/dev/null`])
    const config = join(web.dir, 'nginx-', 'nginx.conf')
    const text = readFileSync(config, 'utf8')
    // The reload breaks the service: it goes over to another certificate.
    writeFileSync(`${broken}.conf`, text.replace(/ssl_certificate \S+ ssl_certificate_key \S+/u, `ssl_certificate ${pair}.pem; ssl_certificate_key ${pair}.key;`))
    writeFileSync(join(web.dir, 'reload-web'), `#!/bin/sh\ncp ${broken}.conf ${config}\n${nginx.reloadCommand}\n# A worker that is about to end may still answer: ten answers in a row.\nn=0; while [ $n -lt 10 ]; do if openssl s_client -connect ${second}:443 </dev/null 2>/dev/null | grep -q snakeoil; then n=$((n + 1)); else n=0; fi; done\n`)
    grace(2)
    for (const again of [false, true]) {
      const report = await run(...again ? ['deliver', 'web'] : ['deliver', 'web', '--again'], '--test')
      assert.deepEqual([report.code, report.hosts[0]?.step], [1, 'verify 443'], again ? 'the second time too' : 'the first time')
      assert.match(report.hosts[0]?.message ?? '', /by snakeoil/u)
    }
    writeFileSync(join(web.dir, 'reload-web'), `#!/bin/sh\nexec ${nginx.reloadCommand}\n`)
    writeFileSync(config, text)
    grace(30)
    const healed = await run('deliver', 'web', '--test')
    assert.deepEqual([healed.code, healed.hosts[0]?.verified], [0, ['443']], JSON.stringify(healed.hosts))
  })
})
