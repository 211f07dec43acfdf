/** The command line (spec §6): every flag, every exit code, and how it looks on paper, on a terminal, in cron's mail and as JSON. */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { labSkip } from './helpers/lab.js'
import { cli, Night } from './helpers/night.js'
import { run, type Ran, type RunOptions } from './helpers/run.js'
import { screenOf } from './helpers/screen.js'
import { asked, contents, processesIn } from './helpers/witness.js'

describe('the command line, without a CA', () => {
  let dir: string
  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'lematt-cli-'))
    mkdirSync(join(dir, 'conf'))
    mkdirSync(join(dir, 'challenges'))
    writeFileSync(join(dir, 'conf/lematt.conf'), `[config]\nchallengeDropDir: ${dir}/challenges\naccountKey: ${dir}/account.key\nprodDirectory: https://127.0.0.1:9/p\ntestDirectory: https://127.0.0.1:9/t\n`)
    writeFileSync(join(dir, 'conf/domains'), 'a.example.com www > web\nb.example.com\n')
    writeFileSync(join(dir, 'conf/actions.conf'), '[default]\n')
  })
  after(() => rmSync(dir, { recursive: true, force: true }))
  const lematt = (args: string[], options: RunOptions = {}): Promise<Ran> => run(process.execPath, [cli, ...args], { cwd: dir, ...options })

  test('what is wrong with the arguments is exit 2, says what and where help is, and touches nothing', async () => {
    const before = contents(dir)
    const cases: [string[], RegExp][] = [
      [[], /say --test \(.*\) or --prod/u],
      [['--test', '--prod'], /exclude each other/u],
      [['--tset'], /--tset/u],
      [['--test', 'renew'], /"renew" is no verb/u],
      [['--test', 'deliver'], /the verb comes first: lematt deliver/u],
      [['check', '--only', 'a.example.com'], /--only means nothing to lematt check/u],
      [['--test', '--config'], /option '--config <value>' argument missing/u],
      [['--test', 'plan'], /"plan" is no verb|comes first/u],
      [['--test', '--force'], /--force needs --only NAME: .*rate limits/u],
      [['--test', '--only'], /--only needs at least one name/u],
      [['--test', '--only', '--force'], /--only needs at least one name/u],
      [['--test', '--parallel', '0'], /--parallel 0: not a whole number from 1 to 256/u],
      [['--test', '--parallel', '257'], /--parallel 257: not/u],
      [['--test', '--parallel', '1.5'], /--parallel 1\.5: not/u],
      [['--test', '--parallel', 'many'], /--parallel many: not/u],
      [['--test', '--parallel=-1'], /--parallel -1: not/u],
      [['--test', '--parallel'], /--parallel/u],
      [['--test', '--config'], /--config/u],
      [['--test', '--config='], /--config needs a path/u],
      [['--test=yes'], /--test/u],
      [['--test', '\u001b[31mred\u202e'], /"red" is no verb/u],
      [['plan'], /say --test/u],
      [['plan', '--test', '--only', 'nobody.example.com', 'web'], /--only nobody\.example\.com: no subject in domains has this name or label/u],
    ]
    for (const [args, message] of cases) {
      const ran = await lematt(args)
      assert.equal(ran.code, 2, `${args.join(' ')}: ${ran.stdout}${ran.stderr}`)
      assert.equal(ran.stdout, '')
      assert.match(ran.stderr, /^lematt: [^\n]*\ntry lematt --help\n$/u, args.join(' '))
      assert.match(ran.stderr, message)
      assert.doesNotMatch(ran.stderr, /[\u001b\u202e]/u)
    }
    assert.deepEqual(contents(dir), before)
  })

  test('a run for a name that nobody has: exit 2, and nothing is asked of a CA', async () => {
    const ran = await lematt(['--test', '--only', 'nobody.example.com'])
    assert.equal(ran.code, 2, ran.stdout)
    assert.match(ran.stderr, /^lematt: --only nobody\.example\.com: no subject/u)
    assert.equal(ran.stdout, '')
    assert.ok(!existsSync(join(dir, 'account.key')), 'it has gone as far as the account')
  })

  test('problems of the configuration: all of them, each with its place, exit 2, nothing touched', async () => {
    const conf = join(dir, 'broken')
    mkdirSync(conf)
    writeFileSync(join(conf, 'lematt.conf'), '[config]\naccountKey: /x\nchalengeDropDir: /y\nkeyBitsRSA: 1024\n')
    writeFileSync(join(conf, 'domains'), 'good.example.com\n10.0.0.1\nbad_name!.example.com\n')
    writeFileSync(join(conf, 'actions.conf'), '[default]\nupdate: [service nginx reload]\n[lonely]\n')
    const before = contents(dir)
    for (const args of [['--test'], ['--prod', '--cron'], ['plan', '--test', '--json'], ['check']]) {
      const ran = await lematt([...args, '--config', 'broken'])
      assert.equal(ran.code, 2)
      assert.equal(ran.stdout, '')
      const places = ran.stderr.trim().split('\n').map(line => /^(broken\/[a-z.]+:\d+):\d+: \S/u.exec(line)?.[1])
      for (const place of ['broken/lematt.conf:3', 'broken/lematt.conf:4', 'broken/domains:2', 'broken/domains:3', 'broken/actions.conf:2', 'broken/actions.conf:3']) {
        assert.ok(places.includes(place), `${place} is not in\n${ran.stderr}`)
      }
      assert.ok(!places.includes(undefined), `a line without a place:\n${ran.stderr}`)
    }
    assert.deepEqual(contents(dir), before)
    const missing = await lematt(['--test', '--config', 'no/such/place'])
    assert.equal(missing.code, 2)
    assert.match(missing.stderr, /^no\/such\/place:1:1: cannot be opened: there is no such file$/mu)
  })

  test('--config names the directory or the file; conf/lematt.conf is the default; the plan is the same and takes nothing', async () => {
    const before = contents(dir)
    const plans = await Promise.all([[], ['--config', 'conf'], ['--config', 'conf/lematt.conf'], ['--config', join(dir, 'conf')]].map(args => lematt(['plan', '--test', ...args])))
    for (const plan of plans) assert.deepEqual([plan.code, plan.stderr, plan.stdout], [0, '', plans[0]?.stdout])
    assert.match(plans[0]?.stdout ?? '', /^to be issued \(test\):\n {2}web +ec +new: there is no certificate yet \(new key\)\n/u)
    const dryRun = await lematt(['--test', '--dry-run'])
    assert.equal(dryRun.stdout, plans[0]?.stdout)
    assert.deepEqual(contents(dir), before, 'a plan has changed something')
  })

  test('--only takes labels, primaries, other names; in any case and with a final dot', async () => {
    for (const name of ['web', 'a.example.com', 'WWW.a.example.com.']) {
      const { code, stdout } = await lematt(['plan', '--prod', '--only', name])
      assert.equal(code, 0)
      assert.match(stdout, /^ {2}web /mu)
      assert.doesNotMatch(stdout, /b\.example\.com/u)
    }
    assert.match((await lematt(['plan', '--prod', '--only', 'web', 'b.example.com'])).stdout, /web[^]*b\.example\.com/u)
    assert.match((await lematt(['--only', 'b.example.com', '--prod', '--dry-run', '--parallel', '256'])).stdout, /b\.example\.com/u)
  })

  test('--help and --version: at once, loading no library, needing no configuration', async () => {
    const version = (JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }).version
    const help = await lematt(['--help'], { cwd: '/' })
    assert.deepEqual([help.code, help.stderr], [0, ''])
    for (const flag of ['--test', '--prod', '--config', '--cron', '--parallel', '--dry-run', '--only', '--force', '--json', '--verbose', '--version', '--help', '--again', 'plan', 'check', 'deliver', 'enroll', '--hosts', '75', '70']) {
      assert.ok(help.stdout.includes(flag), `${flag} is not in the help`)
    }
    assert.ok(help.stdout.split('\n').every(line => line.length <= 100))
    assert.equal((await lematt(['-h'])).stdout, help.stdout)
    assert.deepEqual({ ...await lematt(['--version'], { cwd: '/' }) }, { code: 0, stdout: `lematt ${version}\n`, stderr: '' })
    // Node's own coverage lists every file that was loaded.
    const loaded = join(dir, 'coverage')
    await lematt(['--help'], { env: { ...process.env, NODE_V8_COVERAGE: loaded } })
    const [file = ''] = readdirSync(loaded)
    const { result } = JSON.parse(readFileSync(join(loaded, file), 'utf8')) as { result: { url: string }[] }
    const urls = result.map(r => r.url).filter(url => url.startsWith('file:'))
    assert.ok(urls.some(url => url.endsWith('/src/cli.js')), 'the list is not what this test takes it for')
    assert.deepEqual(urls.filter(url => url.includes('node_modules') || /\/(?:run|issue|edge\/.*)\.js$/u.test(url)), [])
    // Beside Node's own start, so that a loaded machine weighs on both.
    const best = async (args: string[]): Promise<number> => {
      let least = Infinity
      for (let i = 0; i < 4; i++) {
        const started = performance.now()
        await run(process.execPath, args)
        least = Math.min(least, performance.now() - started)
      }
      return least
    }
    const [bare, ours] = [await best(['-e', '0']), await best([cli, '--version'])]
    assert.ok(ours < bare + 250, `${Math.round(ours)} ms, of which Node itself ${Math.round(bare)}`)
  })

  test('a bug is exit 70 with its stack and how to report it', async () => {
    const preload = join(dir, 'broken.mjs')
    writeFileSync(preload, "process.cwd = () => { throw new TypeError('broken\\u001b[31m on purpose') }\n")
    const ran = await run(process.execPath, ['--import', preload, cli, '--test'], { cwd: dir })
    assert.equal(ran.code, 70, ran.stderr)
    assert.match(ran.stderr, /^lematt: this is a bug in lematt, please report it with these lines:\nTypeError: broken on purpose\n {4}at /u)
    // Also where nobody waits for it.
    writeFileSync(preload, `const { cwd } = process
process.cwd = () => {
  if (new Error().stack.includes('cli.js')) void Promise.reject(new TypeError('forgotten'))
  return cwd()
}
`)
    const forgotten = await run(process.execPath, ['--import', preload, cli, 'plan', '--test'], { cwd: dir })
    assert.equal(forgotten.code, 70, forgotten.stderr)
    assert.match(forgotten.stderr, /^lematt: this is a bug in lematt, [^]*TypeError: forgotten/u)
  })
})

describe('the command line, through nights', { skip: labSkip(), concurrency: false }, () => {
  let night: Night
  const deliverAgain = (): void => rmSync(night.path('test', 'state'), { recursive: true })
  before(async () => {
    night = await Night.open({ settings: { keyTypes: 'ec', prodDirectory: 'https://127.0.0.1:9/dir' } })
    await night.domains('a.example.com www.example.com\nb.example.com\n')
  })
  after(() => night.close())
  /** The central host, with a terminal of so many columns and rows. */
  async function onTerminal(args: string[], { env = {}, size = 'cols 100 rows 24' } = {}): Promise<{ code: number | null; output: string }> {
    const command = [process.execPath, cli, ...args, '--config', night.conf].map(word => `'${word}'`).join(' ')
    const ran = await night.lab.run('script', ['-qec', `${size === '' ? '' : `stty ${size}; `}exec ${command}`, '/dev/null'], { cwd: night.lab.dir, env: { TERM: 'xterm', NO_COLOR: undefined, ...env } })
    return { code: ran.code, output: ran.stdout }
  }

  test('on a terminal: live lines that come and go, colours, a table at the end', async () => {
    night.actions('[default]\nupdate: ["sleep 0.3"]\n[every]\nupdate: ["echo broken; exit 4"]\n')
    const { code, output } = await onTerminal(['--test'])
    assert.equal(code, 1, output)
    assert.match(output, /a\.example\.com \+1 ec: (?:ordering|validating|finalizing)/u, 'no live line was shown')
    assert.match(output, /\[default\] sleep 0\.3/u)
    assert.match(output, /\u001b\[32missued\u001b\[0m +a\.example\.com \+1 +ec/u)
    assert.match(output, /\u001b\[31mfailed\u001b\[0m/u)
    const lines = screenOf(output)
    assert.ok(!lines.some(line => /ordering|validating|finalizing|sleep 0\.3$/u.test(line)), `a live line stayed:\n${lines.join('\n')}`)
    const [first = '', second = ''] = lines.filter(line => line.startsWith('issued'))
    assert.match(first, /^issued +a\.example\.com \+1 +ec +90 days, new: there is no certificate yet$/u)
    assert.equal(first.indexOf('90 days'), second.indexOf('90 days'), 'the columns of the table do not align')
    assert.match(lines.at(-1) ?? '', /^2 issued, 1 delivered, 1 failed \(test, \d+\.\d s\)$/u)
    assert.ok(output.lastIndexOf('\u001b[?25h') > output.lastIndexOf('\u001b[?25l'), 'the cursor stays hidden')
    night.assertWhole()
  })

  test('NO_COLOR, a dumb terminal, one whose size nobody knows', async () => {
    night.actions('[default]\nupdate: ["echo once; sleep 0.2"]\n')
    deliverAgain()
    const plain = await onTerminal(['--test'], { env: { NO_COLOR: '1' } })
    assert.equal(plain.code, 0, plain.output)
    assert.doesNotMatch(plain.output, /\u001b\[\d*m/u)
    assert.match(plain.output, /\u001b\[\?25l/u, 'live lines are no colours')
    deliverAgain()
    const empty = await onTerminal(['--test'], { env: { NO_COLOR: '' } })
    assert.match(empty.output, /\u001b\[32mdelivered/u, 'an empty NO_COLOR means nothing')
    deliverAgain()
    const dumb = await onTerminal(['--test'], { env: { TERM: 'dumb' } })
    assert.equal(dumb.code, 0)
    assert.doesNotMatch(dumb.output, /\u001b/u)
    assert.match(dumb.output, /^delivered: \[default\]/mu)
    deliverAgain()
    const unknown = await onTerminal(['--test'], { size: 'cols 0 rows 0' })
    assert.equal(unknown.code, 0)
    assert.match(unknown.output, /\[default\] echo once; sleep 0\.2/u)
    assert.doesNotMatch(unknown.output, /NaN/u)
  })

  test('Ctrl-C on a terminal: the step is ended, exit 130, the cursor is back', async () => {
    const started = join(night.lab.dir, 'started')
    night.actions(`[default]\nupdate: ["touch ${started}; sleep 1000"]\n`)
    const command = `exec '${process.execPath}' '${cli}' --test --config '${night.conf}'`
    const terminal = night.lab.spawn('script', ['-qec', command, '/dev/null'], { cwd: night.lab.dir, env: { TERM: 'xterm' } })
    await terminal.ready('its step', () => existsSync(started))
    terminal.child.stdin?.write('\u0003')
    const { code, stdout } = await terminal.ended
    assert.equal(code, 130, stdout)
    assert.match(stdout, /parked[^\n]*\[default\] +interrupted in update/u)
    assert.ok(stdout.lastIndexOf('\u001b[?25h') > stdout.lastIndexOf('\u001b[?25l'))
    assert.deepEqual(processesIn(night.lab.dir), [])
    assert.ok(!existsSync(night.path('test', 'state', 'lock')))
  })

  test('not on a terminal: a line per fact, without colours; --verbose adds each step and what it printed', async () => {
    night.actions('[default]\nupdate: ["echo one; printf \'two\\\\033[31m\\\\n\' >&2"]\n')
    deliverAgain()
    const quiet = await night.lematt(['--test'])
    assert.deepEqual([quiet.code, quiet.stderr], [0, ''])
    assert.match(quiet.stdout, /^delivered: \[default\] 2 certificates, 1 step$/mu)
    assert.doesNotMatch(quiet.stdout, /\u001b|^ {2}one$/mu)
    deliverAgain()
    const verbose = await night.lematt(['--test', '--verbose'])
    assert.match(verbose.stdout, /^ran: \[default\] echo one; .*\n {2}one\n {2}two\n/mu)
    assert.doesNotMatch(verbose.stdout, /\u001b/u)
  })

  test('--cron: nothing when nothing happened, not even standing warnings; all of it when something failed', async () => {
    night.actions('[default]\nupdate: ["true"]\n[nobody]\ndomains: nobody.example.com\n')
    await night.lematt(['--test'])
    const silent = await night.lematt(['--test', '--cron'])
    assert.deepEqual([silent.code, silent.stdout, silent.stderr], [0, '', ''])
    assert.match((await night.lematt(['--test'])).stdout, /^warning: conf\/actions\.conf:4:\d+: /mu)
    night.actions('[default]\nupdate: ["echo down; exit 1"]\n')
    const failed = await night.lematt(['--test', '--cron'])
    assert.equal(failed.code, 1)
    assert.match(failed.stdout, /^failed: \[default\] 2 certificates: update "echo down; exit 1": exit status 1\ndown\n1 failed \(test, /u)
    assert.equal(failed.stderr, '')
    // The second failure in a row is parked for some hours: no success, and no news either.
    await night.lematt(['--test', '--cron'])
    const parked = await night.lematt(['--test', '--cron'])
    assert.deepEqual([parked.code, parked.stdout, parked.stderr], [1, '', ''])
    assert.match((await night.lematt(['--test'])).stdout, /^parked: \[default\] .*failed 2 times in a row/mu)
    night.actions('[default]\nupdate: ["true"]\n')
    assert.equal((await night.lematt(['--test', '--cron'])).code, 0)
  })

  test('--json: the plan and the report as one document each, as docs/json.md tells them', async () => {
    night.actions('[default]\nuploadCerts: ["true CERTS"]\nupdate: ["true"]\n[every]\nupdate: ["echo sorry; exit 5"]\n')
    deliverAgain()
    const planned = await night.lematt(['--test', '--dry-run', '--json', '--only', 'b.example.com', '--force'])
    assert.deepEqual([planned.code, planned.stderr], [0, ''])
    const plan = JSON.parse(planned.stdout) as Record<string, never>
    assert.deepEqual(Object.keys(plan), ['version', 'mode', 'time', 'orders', 'hosts', 'deliveries', 'warnings'])
    assert.deepEqual(plan['orders'], [{ name: 'b.example.com', keyType: 'ec', identifiers: ['b.example.com'], reason: 'reissue: asked for with --force', newKey: false }])

    const ran = await night.lematt(['--test', '--json', '--only', 'b.example.com', '--force'])
    assert.deepEqual([ran.code, ran.stderr], [1, ''])
    const report = JSON.parse(ran.stdout) as Record<'orders' | 'deliveries', Record<string, unknown>[]> & Record<string, unknown>
    assert.deepEqual(Object.keys(report), ['version', 'mode', 'started', 'ended', 'exitCode', 'orders', 'hosts', 'deliveries', 'notes', 'warnings', 'failures'])
    assert.deepEqual([report['version'], report['mode'], report['exitCode']], [1, 'test', 1])
    const [order = {}] = report.orders
    assert.deepEqual(Object.keys(order), ['name', 'keyType', 'identifiers', 'reason', 'status', 'fingerprint', 'issuer', 'notAfter'])
    assert.equal(String(order['fingerprint']), night.certificate('b.example.com', 'prime256v1').x509.fingerprint256.replaceAll(':', '').toLowerCase())
    const [good = {}, bad = {}] = report.deliveries
    assert.deepEqual([good['section'], good['status'], good['ran']], ['default', 'done', ['uploadCerts true CERTS', 'update true']])
    assert.deepEqual([bad['section'], bad['status'], bad['step'], bad['message']], ['every', 'failed', 'update "echo sorry; exit 5"', 'exit status 5\nsorry'])
    const documented = readFileSync(new URL('../docs/json.md', import.meta.url), 'utf8')
    for (const field of [plan, report, order, good, bad].flatMap(o => Object.keys(o))) assert.ok(documented.includes(`\`${field}\``), `docs/json.md does not tell of ${field}`)
    assert.equal((await night.lematt(['plan', '--test', '--json'])).code, 0)
    // What could not begin is no document.
    const wrong = await night.lematt(['--test', '--json', '--only', 'nobody'])
    assert.deepEqual([wrong.code, wrong.stdout], [2, ''])
  })

  test('--only leaves the others alone; --force reissues just that, with the same key', async () => {
    night.actions('[default]\n')
    const other = contents(night.path('test', 'cert'))
    const key = night.read('test', 'key', 'b.example.com-key.prime256v1.test.pem')
    const { orders } = asked(night.pebble)
    assert.match((await night.lematt(['--test', '--only', 'b.example.com'])).stdout, /^nothing to do/mu)
    assert.equal((await night.lematt(['--test', '--only', 'b.example.com', '--force'])).code, 0)
    assert.equal(asked(night.pebble).orders, orders + 1)
    const now = contents(night.path('test', 'cert'))
    const changed = Object.keys(now).filter(file => now[file] !== other[file])
    assert.deepEqual(changed, ['b.example.com-cert-combined.prime256v1.test.pem'])
    assert.equal(night.read('test', 'key', 'b.example.com-key.prime256v1.test.pem'), key)
    night.assertWhole()
  })

  test('a reader that goes away stops nothing', async () => {
    const done = join(night.lab.dir, 'done')
    const code = join(night.lab.dir, 'code')
    const script = `{ "$@"; echo $? > ${code}; } | head -1`
    for (const args of [['--test', '--verbose'], ['--test', '--json'], ['--test', '--cron']]) {
      rmSync(done, { force: true })
      night.actions(`[default]\nupdate: ["sleep 0.2; : ${args.join(' ')}", "touch ${done}; : ${args.join(' ')}"]\n`)
      const ran = await night.lab.run('sh', ['-c', script, 'sh', process.execPath, cli, ...args, '--config', night.conf], { cwd: night.lab.dir })
      assert.equal(readFileSync(code, 'utf8'), '0\n', ran.stderr)
      assert.equal(ran.stderr, '')
      assert.ok(existsSync(done))
    }
    assert.match((await night.lematt(['--test'])).stdout, /^nothing to do/mu)
  })

  test('logFile: JSON lines of what happened, 0640, without a secret', async () => {
    const log = join(night.lab.dir, 'lematt.log')
    await night.domains('a.example.com www.example.com\nb.example.com\nlogged.example.com\nfails.example.com\n')
    await night.lab.dns.fail('fails.example.com')
    night.settings({ keyTypes: 'ec', logFile: log, alwaysGenerateNewKeys: 'yes', challengeCheck: 'no' })
    night.actions('[default]\nuploadKeys: ["ls KEYS"]\nupdate: ["exit 3"]\n')
    const ran = await night.lematt(['--test', '--cron'])
    assert.equal(ran.code, 1)
    assert.equal(statSync(log).mode & 0o777, 0o640)
    const text = readFileSync(log, 'utf8')
    const lines = text.trim().split('\n').map(line => JSON.parse(line) as Record<string, unknown>)
    for (const line of lines) {
      assert.ok(typeof line['time'] === 'string' && !Number.isNaN(Date.parse(line['time'])), JSON.stringify(line))
      assert.equal(typeof line['msg'], 'string')
    }
    const events = lines.map(line => ['event', 'name', 'section', 'status'].map(field => line[field]).filter(v => typeof v === 'string').join(' '))
    for (const event of ['order logged.example.com done', 'order fails.example.com failed', 'step default', 'delivery default failed', 'end']) assert.ok(events.includes(event), `${event} is not in ${events.join(', ')}`)
    assert.equal(lines.at(-1)?.['exitCode'], 1)
    for (const output of [text, ran.stdout]) {
      assert.doesNotMatch(output, /PRIVATE KEY/u)
      assert.doesNotMatch(output, /[A-Za-z0-9_-]{22,}\.[A-Za-z0-9_-]{43}/u, 'a key authorization')
    }
    // It is continued, not replaced.
    await night.lematt(['--test', '--dry-run'])
    await night.lematt(['--test', '--only', 'b.example.com', '--force'])
    assert.ok(readFileSync(log, 'utf8').startsWith(text))

    for (const wrong of [join(night.lab.dir, 'nowhere', 'log'), night.challenges]) {
      night.settings({ keyTypes: 'ec', logFile: wrong })
      const { orders } = asked(night.pebble)
      const refused = await night.lematt(['--test', '--only', 'b.example.com', '--force'])
      assert.equal(refused.code, 1)
      assert.match(refused.stderr, new RegExp(`^lematt: cannot write the log ${wrong}: .*; make its directory writable for this user or change logFile$`, 'mu'))
      assert.equal(asked(night.pebble).orders, orders, 'issued without the log that was asked for')
    }
    // A disk that fills up under the log: the night is done, and it is said once.
    night.settings({ keyTypes: 'ec', logFile: '/dev/full' })
    night.actions('[default]\n')
    const full = await night.lematt(['--test', '--only', 'b.example.com', '--force'])
    assert.equal(full.code, 0, full.stdout)
    assert.match(full.stdout, /^issued: b\.example\.com ec by .*\n(?:.*\n)*1 issued \(test, .*\)\n$/u)
    assert.ok(!existsSync(night.path('test', 'state', 'lock')))
    assert.match(full.stderr, /^lematt: cannot write the log \/dev\/full: ENOSPC[^\n]*\n$/u)
    night.settings({ keyTypes: 'ec' })
  })

  test('a wildcard cannot be had by http-01: said in one line, nothing else suffers', async () => {
    night.settings({ keyTypes: 'ec' })
    await night.domains('*.example.com\nplain.example.com\n')
    night.actions('[default]\n')
    const { orders } = asked(night.pebble)
    const ran = await night.lematt(['--test'])
    assert.equal(ran.code, 1)
    assert.match(ran.stdout, /^parked: \*\.example\.com ec: \*\.example\.com needs a DNS challenge \(dns-01\), which lematt does not answer yet; take it out/mu)
    assert.match(ran.stdout, /^warning: conf\/domains:1:1: \*\.example\.com needs a DNS challenge/mu)
    assert.equal(asked(night.pebble).orders, orders + 1, 'an order was spent on the wildcard')
    assert.match(ran.stdout, /^issued: plain\.example\.com ec/mu)
    assert.ok(!night.files('test', 'cert').some(file => file.includes('wildcard')))
    night.assertWhole()
  })

  test('a bug in the middle of one order: exit 70 with its stack, and the rest of the night is done', async () => {
    const preload = join(night.lab.dir, 'broken.mjs')
    writeFileSync(preload, `import { webcrypto } from 'node:crypto'
const importKey = webcrypto.subtle.importKey
webcrypto.subtle.importKey = function (format, key, algorithm, ...rest) {
  if (algorithm.name === 'ECDSA') throw new TypeError('broken on purpose')
  return importKey.call(this, format, key, algorithm, ...rest)
}
`)
    night.settings({ keyTypes: 'rsa ec' })
    const done = join(night.lab.dir, 'bug-delivered')
    await night.domains('bug.example.com\n')
    night.actions(`[default]\nuploadCerts: ["echo CERTS > ${done}"]\n`)
    const ran = await night.lab.run(process.execPath, ['--import', preload, cli, '--test', '--config', night.conf], { cwd: night.lab.dir })
    assert.equal(ran.code, 70, ran.stdout + ran.stderr)
    assert.match(ran.stdout, /^failed: bug\.example\.com ec: internal error: broken on purpose$/mu)
    assert.match(ran.stdout, /^issued: bug\.example\.com rsa/mu)
    assert.match(ran.stderr, /^lematt: this is a bug in lematt, please report it with these lines:\nTypeError: broken on purpose\n {4}at /u)
    assert.match(readFileSync(done, 'utf8'), /bug\.example\.com-cert-combined\.rsa2048\.test\.pem/u)
    assert.doesNotMatch(readFileSync(done, 'utf8'), /prime256v1/u)
    assert.ok(!existsSync(night.path('test', 'state', 'lock')))
    night.assertWhole()
  })
})
