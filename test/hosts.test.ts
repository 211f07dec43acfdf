/** Spec §8 at the command line: a fleet of hosts behind the real receiver; one is down, one joins, one leaves. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { receiverOn, type Receiver } from './helpers/lab-receiver.js'
import { labSkip, type LabHost } from './helpers/lab.js'
import { Night } from './helpers/night.js'

interface ReportJson {
  exitCode: number
  hosts: { section: string; host: string; status: string; reason: string; files?: number; reloaded?: string[]; step?: string; message?: string }[]
}

describe('ten hosts', { skip: labSkip() }, () => {
  const names = Array.from({ length: 10 }, (_, i) => `web${i}`)
  let night: Night
  const hosts = new Map<string, LabHost>()
  const receivers = new Map<string, Receiver>()
  const receiver = (name: string): Receiver => receivers.get(name) ?? assert.fail(name)
  const host = (name: string): LabHost => hosts.get(name) ?? assert.fail(name)
  const files = (name: string): string[] => readdirSync(receiver(name).key).filter(file => file !== '.lematt')
  const actions = (list: readonly string[], more = 'reload: web'): void => night.actions(`[default]\nhosts: ${list.join(' ')}\n${more}\n`)
  const run = async (args: readonly string[]): Promise<ReportJson> => {
    const ran = await night.lematt(['--prod', '--json', ...args])
    assert.equal(ran.stderr, '')
    const report = JSON.parse(ran.stdout) as ReportJson
    assert.equal(ran.code, report.exitCode)
    return report
  }

  before(async () => {
    night = await Night.open({ domains: 'a.example.com\n' })
    night.settings({ keyTypes: 'ec', sshConfig: night.lab.sshConfig })
    await Promise.all(names.map(async name => {
      const made = await night.lab.host(name)
      hosts.set(name, made)
      receivers.set(name, await receiverOn(made, { services: { web: '/bin/true', more: '/bin/true' } }))
    }))
  })
  after(async () => { await night.close() })

  test('one is down: nine are served, the tenth is named, and the exit code is 1', async () => {
    actions(names)
    await host('web4').unplug()
    const report = await run([])
    assert.equal(report.exitCode, 1)
    const failed = report.hosts.filter(h => h.status === 'failed')
    assert.deepEqual(failed.map(h => [h.host, h.step]), [['web4', 'connect']])
    assert.match(failed[0]?.message ?? '', /web4/u)
    for (const name of names.filter(n => n !== 'web4')) {
      assert.deepEqual(files(name), ['a.example.com-key.prime256v1.pem'], name)
      assert.deepEqual(receiver(name).reloads(), ['web'], name)
    }
    assert.deepEqual(files('web4'), [])
    assert.equal(statSync(join(receiver('web0').key, 'a.example.com-key.prime256v1.pem')).mode & 0o777, 0o640)
    assert.equal(readFileSync(join(receiver('web0').key, 'a.example.com-key.prime256v1.pem'), 'utf8'), night.read('prod', 'key', 'a.example.com-key.prime256v1.pem'))
  })

  test('the next night only the tenth gets files', async () => {
    await host('web4').plug()
    const report = await run([])
    assert.equal(report.exitCode, 0, JSON.stringify(report.hosts))
    assert.deepEqual(report.hosts.map(h => [h.host, h.status, h.files]), [['web4', 'done', 2]])
    assert.match(report.hosts[0]?.reason ?? '', /^failed last time/u)
    for (const name of names) assert.deepEqual(receiver(name).reloads(), ['web'], name)
    assert.deepEqual((await run([])).hosts, [])
    const cron = await night.lematt(['--prod', '--cron'])
    assert.deepEqual([cron.code, cron.stdout, cron.stderr], [0, '', ''])
  })

  test('a service that is added is reloaded, and no file is sent again', async () => {
    const before = statSync(join(receiver('web1').key, 'a.example.com-key.prime256v1.pem')).ctimeMs
    actions(names, 'reload: web more')
    const plan = await night.lematt(['plan', '--prod'])
    assert.match(plan.stdout, /web1: .*added: more/u)
    const report = await run([])
    assert.deepEqual(new Set(report.hosts.map(h => `${h.status} ${h.files ?? ''} ${h.reloaded?.join(' ') ?? ''}`)), new Set(['done 0 more']))
    assert.deepEqual(receiver('web1').reloads(), ['web', 'more'])
    assert.equal(statSync(join(receiver('web1').key, 'a.example.com-key.prime256v1.pem')).ctimeMs, before)
  })

  test('a host that leaves is forgotten and left alone; when it is back it is served as a new one', async () => {
    actions(names.slice(1), 'reload: web more')
    assert.deepEqual((await run([])).hosts, [])
    assert.deepEqual(receiver('web0').reloads(), ['web', 'more'])
    actions(names, 'reload: web more')
    const report = await run([])
    assert.deepEqual(report.hosts.map(h => [h.host, h.files, h.reason]), [['web0', 2, 'never delivered to this host']], JSON.stringify(report.hosts))
  })

  test('deliver HOST --again sends there once more, and nowhere else', async () => {
    const before = new Map(names.map(name => [name, receiver(name).reloads().length]))
    const ran = await night.lematt(['deliver', 'web7', '--again', '--prod', '--json'])
    assert.equal(ran.code, 0, ran.stdout + ran.stderr)
    assert.deepEqual((JSON.parse(ran.stdout) as ReportJson).hosts.map(h => [h.host, h.files]), [['web7', 2]])
    for (const name of names) assert.equal(receiver(name).reloads().length - (before.get(name) ?? 0), name === 'web7' ? 2 : 0, name)
    const bySubject = await night.lematt(['deliver', 'a.example.com', '--again', '--prod', '--json'])
    assert.equal((JSON.parse(bySubject.stdout) as ReportJson).hosts.length, 10)
    const nobody = await night.lematt(['deliver', 'web77', '--prod'])
    assert.equal(nobody.code, 2)
    assert.match(nobody.stderr, /web77: neither a section or host/u)
  })

  test('what drifted on a host is found by its status and delivered again: a file that is gone, one of last year', async () => {
    rmSync(join(receiver('web2').key, 'a.example.com-key.prime256v1.pem'))
    await night.lab.run('sh', ['-c', `echo old > ${join(receiver('web3').cert, 'a.example.com-cert-combined.prime256v1.pem')}`])
    const report = await run([])
    assert.equal(report.exitCode, 0)
    assert.deepEqual(report.hosts.map(h => [h.host, h.files, /^drifted: /u.test(h.reason)]), [['web2', 2, true], ['web3', 2, true]])
    for (const name of ['web2', 'web3']) assert.deepEqual(files(name), ['a.example.com-key.prime256v1.pem'])
    assert.deepEqual((await run([])).hosts, [])
  })

  test('a reload that fails: the old files are back, the host is named, the others are done, and tomorrow it is tried again', async () => {
    const old = readFileSync(join(receiver('web5').key, 'a.example.com-key.prime256v1.pem'), 'utf8')
    receiver('web5').breakReload('more')
    const ran = await night.lematt(['--prod', '--json', '--only', 'a.example.com', '--force'])
    const report = JSON.parse(ran.stdout) as ReportJson
    assert.equal(ran.code, 1)
    assert.deepEqual(report.hosts.filter(h => h.status === 'failed').map(h => [h.host, h.step]), [['web5', 'reload more']])
    assert.match(report.hosts.find(h => h.host === 'web5')?.message ?? '', /the configuration is broken.*the old files are back and loaded again/su)
    assert.equal(report.hosts.filter(h => h.status === 'done').length, 9)
    const cert = join(receiver('web5').cert, 'a.example.com-cert-combined.prime256v1.pem')
    assert.equal(readFileSync(join(receiver('web5').key, 'a.example.com-key.prime256v1.pem'), 'utf8'), old)
    assert.notEqual(readFileSync(cert, 'utf8'), night.read('prod', 'cert', 'a.example.com-cert-combined.prime256v1.pem'))
    const healed = await run([])
    assert.deepEqual(healed.hosts.map(h => [h.host, h.status, h.files]), [['web5', 'done', 2]])
    assert.equal(readFileSync(cert, 'utf8'), night.read('prod', 'cert', 'a.example.com-cert-combined.prime256v1.pem'))
  })
})
