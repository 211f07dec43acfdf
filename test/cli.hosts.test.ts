/** Hosts at the command line: what is wrong with their words has its place, and the plan has a line for each. */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { run, type Ran } from './helpers/run.js'
import { contents } from './helpers/witness.js'

// From the sources, so that it needs no build.
const cli = ['--import', new URL('../node_modules/tsx/dist/loader.mjs', import.meta.url).href, new URL('../src/cli.ts', import.meta.url).pathname]

describe('hosts at the command line', () => {
  let dir: string
  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'lematt-cli-hosts-'))
    mkdirSync(join(dir, 'conf'))
    mkdirSync(join(dir, 'challenges'))
    writeFileSync(join(dir, 'conf/domains'), 'mail.example.com\n')
  })
  after(() => rmSync(dir, { recursive: true, force: true }))

  async function lematt(args: readonly string[], actions: readonly string[], settings = ''): Promise<Ran> {
    const config = `[config]\nchallengeDropDir: ${dir}/challenges\naccountKey: ${dir}/account.key\nprodDirectory: https://127.0.0.1:9/p\ntestDirectory: https://127.0.0.1:9/t\n`
    writeFileSync(join(dir, 'conf/lematt.conf'), config + settings)
    writeFileSync(join(dir, 'conf/actions.conf'), ['[default]', ...actions].join('\n'))
    const before = contents(dir)
    const ran = await run(process.execPath, [...cli, ...args], { cwd: dir })
    assert.deepEqual(contents(dir), before, 'a plan changes nothing')
    return ran
  }

  test('every mistake is told at once, as file:line:column; exit 2', async () => {
    const ran = await lematt(['plan', '--prod'], ['hosts: mx1', 'reload: postfix,dovecot', 'verify: 465 993/imaps', 'verifyAddress: mx2=10.0.0.1', 'forward: redirect'])
    assert.deepEqual(ran.stderr.trimEnd().split('\n').map(line => line.replace(/^\S*\/(?=actions\.conf)/u, '')).filter(line => line.startsWith('actions.conf')), [
      'actions.conf:3:9: reload: words belong here with blanks between them, without commas and quotes: postfix dovecot',
      'actions.conf:4:13: verify: "993/imaps": 993 speaks TLS at once: write 993',
      'actions.conf:5:16: verifyAddress: [default] has no host "mx2"; did you mean "mx1"?',
      'actions.conf:6:10: forward: a redirect needs the URL of this central host; add challengeUrl to lematt.conf, as in "challengeUrl: http://central.example.com"',
    ])
    assert.deepEqual([ran.code, ran.stdout], [2, ''])
  })

  test('the plan has a line for each host, as text and as JSON', async () => {
    const actions = ['hosts: mx1 root@mx2:2222', 'reload: postfix', 'verify: 25/smtp', 'forward: redirect']
    const settings = 'challengeUrl: http://central.example.com\n'
    const text = await lematt(['plan', '--prod'], actions, settings)
    assert.deepEqual([text.code, text.stderr], [0, ''])
    assert.deepEqual(text.stdout.split('\n').filter(line => line.includes('[default]')), [
      '  [default] mx1: 2 certificates, reload postfix, verify 25/smtp: never delivered to this host',
      '  [default] root@mx2:2222: 2 certificates, reload postfix, verify 25/smtp: never delivered to this host',
    ])
    const json = await lematt(['plan', '--prod', '--json'], actions, settings)
    const { hosts } = JSON.parse(json.stdout) as { hosts: { host: string; send: { keyType: string }[]; verify: string[] }[] }
    assert.deepEqual(hosts.map(h => [h.host, h.send.map(c => c.keyType), h.verify]), [
      ['mx1', ['ec', 'rsa'], ['25/smtp']], ['root@mx2:2222', ['ec', 'rsa'], ['25/smtp']],
    ])
    assert.equal(existsSync(join(dir, 'conf/prod')), false)
  })
})
