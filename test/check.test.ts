/** `lematt check`: each finding with its remedy, and that it changes nothing (spec §6). Needs no CA and no hosts. */
import assert from 'node:assert/strict'
import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { generateKeyPairSync } from 'node:crypto'
import { afterEach, beforeEach, describe, test } from 'node:test'
import { run, type Ran } from './helpers/run.js'

const cli = new URL('../dist/src/cli.js', import.meta.url).pathname
const isRoot = process.geteuid?.() === 0

describe('lematt check', () => {
  let dir: string
  const at = (...parts: string[]): string => join(dir, ...parts)
  const settings = (lines: Record<string, string> = {}): void => {
    const all = { challengeDropDir: at('challenges'), accountKey: at('account.key'), ...lines }
    writeFileSync(at('conf/lematt.conf'), `[config]\n${Object.entries(all).map(([k, v]) => `${k}: ${v}\n`).join('')}`)
  }
  const actions = (text: string): void => writeFileSync(at('conf/actions.conf'), text)
  const check = (...args: string[]): Promise<Ran> => run(process.execPath, [cli, 'check', ...args, '--config', at('conf')], { cwd: dir })
  const ecKey = (): string => generateKeyPairSync('ec', { namedCurve: 'prime256v1' }).privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
  /** Every file below, with size, mode and time of change. */
  const everything = (): string[] => readdirSync(dir, { recursive: true, encoding: 'utf8' }).sort().map(f => {
    const { size, mode, mtimeMs } = statSync(at(f))
    return `${f} ${size} ${mode.toString(8)} ${mtimeMs}`
  })

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'lematt-check-'))
    for (const name of ['conf', 'challenges']) mkdirSync(at(name), { mode: 0o755 })
    settings()
    writeFileSync(at('conf/domains'), 'a.example.com www\nb.example.com\n')
    actions('[default]\nupdate: ["true"]\n')
  })
  afterEach(() => rmSync(dir, { recursive: true, force: true }))

  /** Runs it, and asserts the exit code and that nothing on disk has changed. */
  async function found(code: number, ...args: string[]): Promise<string> {
    const before = everything()
    const ran = await check(...args)
    assert.equal(ran.code, code, ran.stdout + ran.stderr)
    assert.equal(ran.stderr, '')
    assert.deepEqual(everything(), before, 'check has changed something')
    return ran.stdout
  }

  test('a healthy configuration: what was looked at, line by line, and exit 0', async () => {
    writeFileSync(at('account.key'), ecKey(), { mode: 0o600 })
    const text = await found(0)
    assert.match(text, /^ok: configuration: 2 subjects, 1 section$/mu)
    assert.match(text, new RegExp(`^ok: account key ${at('account.key')} \\(ec\\)$`, 'mu'))
    assert.match(text, new RegExp(`^ok: challengeDropDir ${at('challenges')} is writable$`, 'mu'))
    assert.match(text, /^ok: store prod: 4 certificates configured, 4 due$/mu)
    assert.match(text, /^ok: store test: 4 certificates configured, 4 due$/mu)
    assert.doesNotMatch(text, /^error/mu)
    assert.equal(/^warning: running as root/mu.test(text), isRoot)
    assert.deepEqual(text.match(/^warning.*$/gmu)?.filter(line => !line.includes('running as root')) ?? [], [])
    assert.doesNotMatch(text, /PRIVATE KEY/u)
    const one = await found(0, '--test')
    assert.match(one, /^ok: store test/mu)
    assert.doesNotMatch(one, /^ok: store prod/mu)
  })

  test('warnings alone are exit 0: standing warnings of the configuration come with their place', async () => {
    writeFileSync(at('conf/domains'), 'a.example.com www\nwww.a.example.com\n')
    actions('[other]\ndomains: c.example.com\nocspStapleRequired: yes\n')
    const text = await found(0)
    assert.match(text, /^warning: conf\/domains:2:1: .*www\.a\.example\.com/mu)
    assert.match(text, /^warning: conf\/actions\.conf:1:1: the section \[default\] is missing/mu)
    assert.match(text, /^warning: conf\/actions\.conf:2:\d+: domains: no subject in the domains file has "c\.example\.com"/mu)
    assert.match(text, /^warning: conf\/actions\.conf:3:1: ocspStapleRequired is ignored/mu)
    for (const line of ['domains:2:1', '[default] is missing']) assert.equal(text.split(line).length, 2, 'each once, though both modes have it')
  })

  test('an account key: missing, without its directory, open to others, damaged, of a wrong kind', async () => {
    assert.match(await found(0), /^ok: the account key .* is missing and will be made by the first run$/mu)
    assert.ok(!existsSync(at('account.key')))

    settings({ accountKey: at('nowhere/account.key') })
    assert.match(await found(1), /^error: the account key \S+nowhere\/account\.key is missing, and so is its directory: make the directory \(0700\)$/mu)

    settings()
    writeFileSync(at('account.key'), ecKey())
    chmodSync(at('account.key'), 0o640)
    assert.match(await found(0), new RegExp(`^warning: the account key ${at('account.key')} can be read by others \\(mode 640\\): chmod 600 ${at('account.key')}$`, 'mu'))
    chmodSync(at('account.key'), 0o620)
    assert.match(await found(1), new RegExp(`^error: the account key ${at('account.key')} can be written by others \\(mode 620\\): chmod 600 ${at('account.key')}`, 'mu'))
    chmodSync(at('account.key'), 0o600)

    writeFileSync(at('account.key'), 'garbage\n')
    assert.match(await found(1), new RegExp(`^error: the account key ${at('account.key')}: no whole PEM private key in it`, 'mu'))
    writeFileSync(at('account.key'), generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }))
    assert.match(await found(1), /^error: the account key \S+ is neither RSA nor EC: make one, or remove it and let lematt make one$/mu)
    rmSync(at('account.key'))
    mkdirSync(at('account.key'), { mode: 0o700 })
    assert.match(await found(1), /^error: the account key \S+ cannot be read: .*directory/mu)
  })

  test('the challenge directory: missing, a file in its place, closed to the web server', async () => {
    settings({ challengeDropDir: at('nowhere') })
    assert.match(await found(1), new RegExp(`^error: challengeDropDir ${at('nowhere')} does not exist; create it and let the web server serve it`, 'mu'))
    writeFileSync(at('file'), '')
    settings({ challengeDropDir: at('file') })
    assert.match(await found(1), new RegExp(`^error: challengeDropDir ${at('file')} is not a directory`, 'mu'))
    settings()
    chmodSync(at('challenges'), 0o700)
    assert.match(await found(0), /^warning: challengeDropDir \S+ cannot be read by everybody \(mode 700\): .*chmod 755/mu)
    rmSync(at('challenges'), { recursive: true })
    settings({ challengeListen: '127.0.0.1:8402' })
    assert.doesNotMatch(await found(0), /challengeDropDir/u, 'not needed when we answer ourselves')
  })

  test('caBundle and logFile', async () => {
    settings({ caBundle: at('roots.pem'), logFile: at('nowhere/log') })
    let text = await found(1)
    assert.match(text, new RegExp(`^error: caBundle ${at('roots.pem')} cannot be read: .*ENOENT`, 'mu'))
    assert.match(text, new RegExp(`^error: logFile ${at('nowhere/log')} is not writable for this user: .*directory`, 'mu'))
    writeFileSync(at('roots.pem'), ecKey())
    settings({ caBundle: at('roots.pem'), logFile: at('log') })
    text = await found(1)
    assert.match(text, /^error: caBundle \S+ holds no PEM certificate: put the root of your ACME server there, between BEGIN/mu)
    assert.match(text, new RegExp(`^ok: logFile ${at('log')}$`, 'mu'))
    assert.ok(!existsSync(at('log')), 'it is made by a run, not by a check')
    mkdirSync(at('log'))
    assert.match(await found(1), new RegExp(`^error: logFile ${at('log')} .*directory`, 'mu'))
  })

  test('tools: each that is missing, with the sections that use it; a shell\'s own words are none', async () => {
    writeFileSync(at('not-executable'), '#!/bin/sh\n', { mode: 0o644 })
    actions(`[default]
prepare: ["no-such-forwarder DOMAIN"]
uploadCerts: ["cp CERTS /nowhere", "no-such-push CERTS"]
update: ["cd /tmp && true", "if true; then :; fi", "RSYNC_RSH=ssh rsync x", "$HOME/x", "${at('not-executable')} x"]
[every]
uploadCerts: ["no-such-push CERTS", "./conf CERTS"]
`)
    const text = await found(1)
    const errors = text.match(/^error: .*$/gmu) ?? []
    assert.deepEqual(errors.map(e => e.replace(/, is not to be found.*$/u, '')), [
      'error: no-such-forwarder, used by [default]',
      'error: no-such-push, used by [default] [every]',
      `error: ${at('not-executable')}, used by [default]`,
      'error: ./conf, used by [every]',
    ])
    for (const error of errors) assert.match(error, /install it, or give its absolute path/u)
  })

  test('key files that others can read, and what the store lacks', async () => {
    mkdirSync(at('conf/prod/key'), { recursive: true })
    writeFileSync(at('conf/prod/key/b.example.com-key.rsa2048.pem'), 'x', { mode: 0o644 })
    writeFileSync(at('conf/prod/key/b.example.com-key.prime256v1.pem'), 'x', { mode: 0o600 })
    const text = await found(0)
    assert.match(text, new RegExp(`^warning: 1 key file in ${at('conf/prod/key')} can be read by others \\(b\\.example\\.com-key\\.rsa2048\\.pem\\): chmod 600`, 'mu'))
  })

  test('a lock of a dead or damaged holder is no finding', async () => {
    mkdirSync(at('conf/test/state'), { recursive: true })
    for (const lock of ['garbage', '{"pid":1,"start":"1","boot":"another"}', '']) {
      writeFileSync(at('conf/test/state/lock'), lock)
      assert.doesNotMatch(await found(0), /in progress/u)
    }
  })

  test('problems of the configuration are exit 2, all of them at once and nothing else', async () => {
    writeFileSync(at('conf/domains'), 'a.example.com $(id)\nlocalhost\n')
    writeFileSync(at('conf/lematt.conf'), '[config]\nchalengeDropDir: /x\nparallel: many\n')
    const before = everything()
    const ran = await check()
    assert.equal(ran.code, 2)
    assert.equal(ran.stdout, '')
    for (const place of [/^conf\/domains:1:15: /mu, /^conf\/domains:2:1: /mu, /^conf\/lematt\.conf:2:1: .*challengeDropDir/mu, /^conf\/lematt\.conf:3:11: /mu]) assert.match(ran.stderr, place)
    assert.deepEqual(everything(), before)
  })

  test('a store that cannot be read is an error, and the rest is looked at', async () => {
    mkdirSync(at('conf/test'))
    writeFileSync(at('conf/test/cert'), '')
    const text = await found(1)
    assert.match(text, new RegExp(`^error: store test: cannot read the directory ${at('conf/test/cert')}: something that is no directory stands in its way$`, 'mu'))
    assert.match(text, /^ok: store prod: 4 certificates configured, 4 due$/mu)
  })

  test('names of files forge no lines and no terminal escapes, as text and as JSON', async () => {
    mkdirSync(at('conf/prod/key'), { recursive: true })
    const name = 'x\nerror: forged\u001b[31m\u202e\u009b-key.rsa2048.pem'
    writeFileSync(at('conf/prod/key', name), 'x')
    chmodSync(at('conf/prod/key', name), 0o644)
    const warning = /^warning: 1 key file in \S+ can be read by others \(x error: forged-key\.rsa2048\.pem\): chmod 600 \S+$/mu
    const text = await found(0)
    assert.match(text, warning)
    assert.doesNotMatch(text, /^error/mu)
    const json = await found(0, '--json')
    assert.doesNotMatch(json, /\\u001b|\\n|\\u009b|[\u009b\u202e]/u)
    assert.ok((JSON.parse(json) as { findings: { level: string; text: string }[] }).findings.some(f => warning.test(`${f.level}: ${f.text}`)))
  })

  test('--json says the same, for machines', async () => {
    settings({ challengeDropDir: at('nowhere') })
    const ran = await found(1, '--json', '--prod')
    const { version, findings } = JSON.parse(ran) as { version: number; findings: { level: string; text: string }[] }
    assert.equal(version, 1)
    assert.ok(findings.some(f => f.level === 'error' && f.text.startsWith(`challengeDropDir ${at('nowhere')} does not exist`)))
    const text = (await check('--prod')).stdout.trim().split('\n')
    assert.deepEqual(findings.map(f => `${f.level}: ${f.text}`), text)
  })

  test('a store that another user owns: each thing that the run would stumble over, and exit 1', async (t) => {
    const user = ['--reuid', '65534', '--regid', '65534', '--clear-groups', '--', process.execPath, cli]
    if (!isRoot || (await run('setpriv', [...user, '--version'])).code !== 0) {
      t.skip('needs root, and a checkout that other users can read')
      return
    }
    // As after one run as root: the directories and files are root's, the configuration is certmaint's.
    for (const name of ['key', 'cert', 'csr', 'previous', 'state']) mkdirSync(at('conf/test', name), { recursive: true, mode: 0o755 })
    writeFileSync(at('conf/test/key/b.example.com-key.rsa2048.test.pem'), ecKey(), { mode: 0o600 })
    writeFileSync(at('conf/test/cert/b.example.com-cert-combined.rsa2048.test.pem'), 'x', { mode: 0o600 })
    writeFileSync(at('conf/test/state/receipts.json'), '{', { mode: 0o644 })
    chmodSync(dir, 0o755)
    for (const name of ['.', 'conf', 'conf/lematt.conf', 'conf/domains', 'conf/actions.conf', 'challenges']) chownSync(at(name), 65534, 65534)
    const ran = await run('setpriv', [...user, 'check', '--test', '--config', at('conf')], { cwd: dir })
    assert.equal(ran.code, 1, ran.stdout + ran.stderr)
    for (const name of ['key', 'cert', 'csr', 'previous', 'state']) {
      assert.match(ran.stdout, new RegExp(`^error: ${at('conf/test', name)} is not writable for this user: chown -R it .*started as root`, 'mu'))
    }
    assert.match(ran.stdout, /^error: store test: 2 files cannot be read \(.*EACCES.*\): make them readable .*\(chown\)/mu)
    assert.match(ran.stdout, /^warning: \S+receipts\.json is unreadable \(damaged\): every certificate is delivered again$/mu)
    assert.match(ran.stdout, /^ok: store test: 4 certificates configured, 4 due, 1 of them parked \(lematt plan --test says why\)$/mu)
  })

  test('challengeListen: free, busy, and an address of another machine', async () => {
    const server = createServer()
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    settings({ challengeListen: `127.0.0.1:${port}` })
    assert.match(await found(0), new RegExp(`^warning: challengeListen 127\\.0\\.0\\.1:${port} is in use by another program`, 'mu'))
    await new Promise(resolve => server.close(resolve))
    assert.match(await found(0), new RegExp(`^ok: challengeListen 127\\.0\\.0\\.1:${port}$`, 'mu'))
    settings({ challengeListen: '192.0.2.1:8402' })
    assert.match(await found(1), /^error: challengeListen 192\.0\.2\.1:8402 is not an address of this machine; /mu)
  })
})
