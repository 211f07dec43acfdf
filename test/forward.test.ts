/** `forward:` (spec §8): real hosts bring the challenges of a real CA home from their port 80, and nothing of it is left. */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { answers } from './helpers/lab-nginx.js'
import type { Daemon, Ran } from './helpers/lab-process.js'
import { labSkip, type LabHost } from './helpers/lab.js'
import { buildLeforward } from './helpers/leforward.js'
import { Night } from './helpers/night.js'
import type { Sshd } from './helpers/sshd.js'
import { until } from './helpers/until.js'
import { asked } from './helpers/witness.js'

const base = 'http://central.example.com'
const tunnelOptions = 'port-forwarding,permitlisten="127.0.0.1:8402",permitopen="localhost:1",'
const receiver = new URL('../remote/lematt-receive', import.meta.url).pathname
/** An address of the central host where nobody listens: our own look at the challenge waits there. */
const nowhere = '127.0.0.9'

/** The receiver takes its configuration from root alone. */
const asRoot = process.getuid?.() === 0 ? false : 'needs root, whose the receiver’s configuration must be'

/** What a host's web server needs for `forward: tunnel`. */
const passOn = (address: string): string => `
  server {
    listen ${address}:80;
    location /.well-known/acme-challenge/ { proxy_pass http://127.0.0.1:8402; }
    location / { return 404; }
  }`

describe('forward', { skip: labSkip() || asRoot, concurrency: false, timeout: 300_000 }, () => {
  let night: Night
  let leforward: Awaited<ReturnType<typeof buildLeforward>>
  const sshds = new Map<string, Sshd>()
  before(async () => {
    leforward = await buildLeforward()
    night = await Night.open()
    await night.lab.dns.set('central.example.com', [night.lab.address])
  })
  after(async () => {
    await night.close()
    await leforward.remove()
  })

  const child = ['--import', 'tsx', 'test/helpers/issueChild.ts']
  /** Writes the configuration; each name leads where `names` says. */
  async function configure(actions: string, names: Readonly<Record<string, string>>, settings: Readonly<Record<string, string>> = {}): Promise<void> {
    await night.domains(`${Object.keys(names).join('\n')}\n`)
    for (const [name, address] of Object.entries(names)) await night.lab.dns.set(name, [address])
    night.settings({ keyTypes: 'ec', sshConfig: night.lab.sshConfig, challengeUrl: base, ...settings })
    night.actions(actions)
  }
  async function run(code: number): Promise<Ran> {
    const ran = await night.lab.run(process.execPath, [...child, night.conf], { timeoutMs: 60_000 })
    assert.equal(ran.stderr, '')
    assert.equal(ran.code, code, ran.stdout)
    night.assertWhole()
    return ran
  }
  const start = (): Daemon => night.lab.spawn(process.execPath, [...child, night.conf])

  /** An enrolled host with its receiver; its sshd allows forwarding, so that only the key's own line holds. */
  async function host(name: string, { options = '', first = '' } = {}): Promise<LabHost> {
    const made = await night.lab.host(name)
    const [cert, key] = ['cert', 'key'].map(directory => join(made.dir, directory)) as [string, string]
    for (const directory of [cert, key]) mkdirSync(directory, { mode: 0o755 })
    const configuration = made.machine.write('receive.conf', `cert ${cert}\nkey ${key}\nforward ${base}\nleforward ${process.execPath} ${leforward.path}\n`)
    const line = `restrict,from="${night.lab.address}",${options}command="${first}${receiver} ${configuration}"`
    sshds.set(name, await made.sshd({ keys: { [name]: line }, config: 'AllowTcpForwarding yes' }))
    return made
  }
  const listens = async (at: LabHost, port: number): Promise<boolean> => (await at.must('ss', ['-Hltn', `sport = :${port}`])).trim() !== ''
  const isFree = (at: LabHost, port: number): Promise<void> => until(async () => !await listens(at, port), { ms: 8000, what: `port ${port} of ${at.name} is free` })
  const nobodyForwards = (at: LabHost): Promise<void> => until(async () => !(await at.must('ps', ['-eo', 'args'])).includes(leforward.path), { ms: 8000, what: `the end of leforward on ${at.name}` })

  describe('redirect', { concurrency: false }, () => {
    let mx1: LabHost
    let mx2: LabHost
    let down: LabHost
    before(async () => {
      [mx1, mx2, down] = await Promise.all([host('mx1'), host('mx2'), host('down')])
      await down.unplug()
    })

    test('one forwarder per host for all names of two sections, one validation per name; afterwards the port is free', async () => {
      await configure('[mail]\ndomains: a.example.com b.example.com\nhosts: mx1\nforward: redirect\n[more]\ndomains: c.example.com\nhosts: mx1\nforward: redirect\n[default]\n',
        { 'a.example.com': mx1.address, 'b.example.com': mx1.address, 'c.example.com': mx1.address, 'own.example.com': night.lab.address })
      assert.equal(await listens(mx1, 80), false)
      const { challenges } = asked(night.pebble)
      const { stdout } = await run(0)
      assert.deepEqual(stdout.trim().split('\n'), ['done: a.example.com', 'done: b.example.com', 'done: c.example.com', 'done: own.example.com'])
      assert.equal(asked(night.pebble).challenges, challenges + 4)
      assert.equal(sshds.get('mx1')?.log().match(/Starting session: forced-command/gu)?.length, 1, 'one session serves them all')
      await isFree(mx1, 80)
      await nobodyForwards(mx1)
    })

    test('nothing is started where every authorization is valid, or none of the names is due', async () => {
      const sessions = (): number => sshds.get('mx1')?.log().match(/Accepted publickey/gu)?.length ?? 0
      const before = sessions()
      assert.equal((await run(0)).stdout, '')
      assert.equal(sessions(), before)
    })

    test('a name may lead to any of the hosts; one that fails, or is down, stops nobody: a warning names it', async () => {
      await configure('[mail]\ndomains: d.example.com e.example.com\nhosts: down nobody mx1 mx2\nforward: redirect\n[default]\n', { 'd.example.com': nowhere, 'e.example.com': mx2.address })
      const lematt = start()
      await lematt.ready('the warning', () => lematt.stdout.includes('warning: '))
      await night.lab.dns.set('d.example.com', [mx1.address])
      const { code, stdout, stderr } = await lematt.ended
      assert.deepEqual([code, stderr], [0, ''], stdout)
      assert.match(stdout, /^warning: forward of \[mail\] does not work on every host: nobody: .+$/mu)
      assert.equal(stdout.match(/^warning: .*nobody/gmu)?.length, 1)
      assert.deepEqual(stdout.match(/^(?:done|failed).*$/gmu), ['done: d.example.com', 'done: e.example.com'])
      for (const each of [mx1, mx2]) {
        await isFree(each, 80)
        await nobodyForwards(each)
      }
    })

    test('when it fails on each host, each is named with its remedy; the CA validates nothing, and no further order is spent', async () => {
      const wrong = await host('wrong')
      const busy = await host('busy')
      const nginx = await busy.nginx(`server { listen ${busy.address}:80; return 404; }`, [80])
      await configure('[mail]\ndomains: f.example.com g.example.com\nhosts: nobody busy\nforward: redirect\n[default]\n', { 'f.example.com': busy.address, 'g.example.com': busy.address }, { parallel: '1' })
      const before = asked(night.pebble)
      const from = performance.now()
      const { stdout } = await run(1)
      assert.ok(performance.now() - from < 25_000, 'the failure was not noticed at once')
      assert.match(stdout, /^failed: f\.example\.com: forward of \[mail\] failed: nobody: .+\nbusy: .*\n(?:.*\n)*?.*port 80 is in use; a web server there can send the challenges on by itself/mu)
      assert.match(stdout, /^failed: g\.example\.com: forward of \[mail\] failed: nobody: /mu)
      assert.deepEqual([asked(night.pebble).challenges, asked(night.pebble).orders], [before.challenges, before.orders + 1])
      await nginx.stop()

      // A base URL that the host does not allow.
      await configure('[mail]\ndomains: h.example.com\nhosts: wrong\nforward: redirect\n[default]\n', { 'h.example.com': wrong.address }, { challengeUrl: 'http://thief.example.com' })
      assert.match((await run(1)).stdout, /^failed: h\.example\.com: forward of \[mail\] failed: wrong: the receiver says: http:\/\/thief\.example\.com is no URL that this host forwards to; it has: http:\/\/central\.example\.com; add it to .*$/mu)
      assert.equal(asked(night.pebble).challenges, before.challenges)
      for (const each of [wrong, busy]) assert.equal(await listens(each, 80), false)
    })

    test('challengeCheck: no: the CA is asked when the forwarder says that it listens', async () => {
      const slow = await host('slow', { first: 'sleep 6; exec ' })
      await configure('[mail]\ndomains: i.example.com\nhosts: slow\nforward: redirect\n[default]\n', { 'i.example.com': slow.address }, { challengeCheck: 'no' })
      const { challenges } = asked(night.pebble)
      assert.equal((await run(0)).stdout, 'done: i.example.com\n')
      assert.equal(asked(night.pebble).challenges, challenges + 1)
      await isFree(slow, 80)
    })

    test('it ends with the last subject that needs it, though the run goes on; after kill -9 of lematt it ends, too', async () => {
      await configure('[early]\ndomains: j.example.com\nhosts: mx1\nforward: redirect\n[late]\ndomains: k.example.com\nhosts: mx2\nforward: redirect\n[default]\n', { 'j.example.com': mx1.address, 'k.example.com': nowhere })
      const lematt = start()
      await lematt.ready('the forwarder of mx2', () => listens(mx2, 80))
      await lematt.ready('the certificate of mx1', () => existsSync(night.path('test', 'cert', 'j.example.com-cert-combined.prime256v1.test.pem')))
      await isFree(mx1, 80)
      assert.ok(await listens(mx2, 80), 'that of the other goes on')
      lematt.kill('SIGKILL')
      await lematt.ended
      await isFree(mx2, 80)
      await nobodyForwards(mx2)
      // What was left behind here is the next run's.
      await configure('[default]\n', {})
      await run(0)
    })
  })

  describe('tunnel', { concurrency: false }, () => {
    let web: LabHost
    before(async () => {
      mkdirSync(join(night.lab.dir, 'unserved'))
      web = await host('web', { options: tunnelOptions })
      await web.nginx(passOn(web.address), [80])
    })
    const tunnel = '[web]\ndomains: l.example.com m.example.com n.example.com\nhosts: web\nforward: tunnel\n[default]\n'
    /** A directory that no web server serves: what is answered came through the tunnel. */
    const unserved = (): { challengeDropDir: string } => ({ challengeDropDir: join(night.lab.dir, 'unserved') })

    test('the host’s own web server asks us through its sshd, in the middle of nowhere; afterwards the port is free', async () => {
      await configure(tunnel, { 'l.example.com': web.address, 'm.example.com': web.address }, unserved())
      const { challenges } = asked(night.pebble)
      assert.equal((await run(0)).stdout, 'done: l.example.com\ndone: m.example.com\n')
      assert.equal(asked(night.pebble).challenges, challenges + 2)
      assert.equal(sshds.get('web')?.log().match(/Accepted publickey/gu)?.length, 1)
      assert.deepEqual(readdirSync(join(night.lab.dir, 'unserved')), [])
      await isFree(web, 8402)
      assert.ok(await answers(web.address, 80), 'its web server goes on')
    })

    test('after kill -9 of lematt the port is free again, and the next run has it', async () => {
      await configure(tunnel, { 'n.example.com': nowhere }, unserved())
      const lematt = start()
      await lematt.ready('the tunnel', () => listens(web, 8402))
      lematt.kill('SIGKILL')
      await lematt.ended
      await isFree(web, 8402)
      await night.lab.dns.set('n.example.com', [web.address])
      assert.equal((await run(0)).stdout, 'done: n.example.com\n')
      await isFree(web, 8402)
    })

    test('a key that may not, or a port that is taken: what to write where, and the CA validates nothing', async () => {
      const poor = await host('poor')
      await configure('[web]\ndomains: o.example.com\nhosts: poor\nforward: tunnel\n[default]\n', { 'o.example.com': poor.address }, unserved())
      const { challenges } = asked(night.pebble)
      const message = /^failed: o\.example\.com: forward of \[web\] failed: \w+: .*127\.0\.0\.1:8402.*permitlisten="127\.0\.0\.1:8402".*ss -ltnp 'sport = :8402'.*permitopen="localhost:1"/mu
      assert.match((await run(1)).stdout, message)

      const other = web.spawn('python3', ['-c', 'import socket, time; s = socket.create_server(("127.0.0.1", 8402)); print("up", flush=True); time.sleep(1000)'])
      await other.ready('the port', () => other.stdout.includes('up'))
      await configure('[web]\ndomains: o.example.com\nhosts: web\nforward: tunnel\n[default]\n', { 'o.example.com': web.address }, unserved())
      assert.match((await run(1)).stdout, message)
      await other.stop()
      assert.equal(asked(night.pebble).challenges, challenges)
    })

    test('a connection that is lost meanwhile fails the name at once', async () => {
      await configure('[web]\ndomains: p.example.com\nhosts: web\nforward: tunnel\n[default]\n', { 'p.example.com': nowhere }, unserved())
      const lematt = start()
      await lematt.ready('the tunnel', () => listens(web, 8402))
      const from = performance.now()
      await web.must('sh', ['-c', `kill $(ss -Hltnp 'sport = :8402' | grep -o 'pid=[0-9]*' | head -n 1 | cut -d = -f 2)`])
      const { code, stdout } = await lematt.ended
      assert.ok(performance.now() - from < 10_000)
      assert.equal(code, 1)
      assert.match(stdout, /^failed: p\.example\.com: forward of \[web\] failed: web: the connection was lost; /mu)
    })

    test('the key can listen there and do nothing else: no other port, no connection out', async () => {
      const ssh = (...args: string[]): Promise<Ran> => night.lab.run('ssh', ['-F', night.lab.sshConfig, '-o', 'ExitOnForwardFailure=yes', ...args, 'web', 'true'])
      for (const args of [['-R', '127.0.0.1:8403:127.0.0.1:1'], ['-R', '0.0.0.0:8402:127.0.0.1:1'], ['-R', '8080:127.0.0.1:1'], ['-W', '127.0.0.1:22']]) {
        const { code, stderr } = await ssh(...args)
        assert.notEqual(code, 0, args.join(' '))
        assert.match(stderr, /forwarding failed|prohibited|failed/iu, args.join(' '))
      }
      assert.match(readFileSync(join(sshds.get('web')?.directory ?? '', 'authorized_keys'), 'utf8'), /permitlisten/u)
    })
  })

  describe('a whole night', { concurrency: false }, () => {
    let mail: LabHost
    let web: LabHost
    before(async () => {
      [mail, web] = await Promise.all([host('mail'), host('proxied', { options: tunnelOptions })])
      await web.nginx(passOn(web.address), [80])
    })
    const actions = '[mail]\ndomains: q.example.com s.example.com\nhosts: mail\nforward: redirect\n[web]\ndomains: r.example.com t.example.com\nhosts: proxied\nforward: tunnel\n[default]\n'
    const bothListen = async (): Promise<boolean> => await listens(mail, 80) && await listens(web, 8402)
    async function nothingLeft(): Promise<void> {
      const from = performance.now()
      await Promise.all([isFree(mail, 80), isFree(web, 8402), nobodyForwards(mail)])
      assert.ok(performance.now() - from < 8000)
    }

    test('both ways in one run, and the files go to the hosts on the same connections', async () => {
      await configure(actions, { 'q.example.com': mail.address, 'r.example.com': web.address })
      const { code, stdout, stderr } = await night.lematt(['--test'])
      assert.deepEqual([code, stderr], [0, ''], stdout)
      assert.match(stdout, /2 issued/u)
      for (const [at, name] of [[mail, 'q'], [web, 'r']] as const) {
        assert.deepEqual(readdirSync(join(at.dir, 'cert')).filter(file => !file.startsWith('.')), [`${name}.example.com-cert-combined.prime256v1.test.pem`])
        assert.equal(sshds.get(at.name)?.log().match(/Accepted publickey/gu)?.length, 1)
      }
      await nothingLeft()
      night.assertWhole()
    })

    for (const [signal, expected] of [['SIGTERM', 143], ['SIGKILL', null]] as const) {
      test(`${signal}: both are gone within seconds, and the ports are free for the next run`, async () => {
        await configure(actions, { 's.example.com': nowhere, 't.example.com': nowhere })
        const lematt = night.start(['--test'])
        await lematt.ready('both forwards', bothListen)
        process.kill(lematt.pid, signal)
        const { code, stdout } = await lematt.ended
        assert.equal(code, expected, stdout)
        await nothingLeft()
        assert.deepEqual(night.files('test', 'cert').filter(file => /^[st]\./u.test(file)), [])
      })
    }

    test('and the next run has them', async () => {
      await night.lab.dns.set('s.example.com', [mail.address])
      await night.lab.dns.set('t.example.com', [web.address])
      const { code, stdout } = await night.lematt(['--test'])
      assert.equal(code, 0, stdout)
      await nothingLeft()
      night.assertWhole()
    })
  })
})
