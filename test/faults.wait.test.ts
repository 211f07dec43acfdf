/** Faults that a night waits for: names that do not lead here, a CA that never answers. Mostly idle, so all at once. */
import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { at, clockOff, FaultyNight, lines, orderFailures, store } from './helpers/faultyNight.js'
import { labSkip } from './helpers/lab.js'
import { must } from './helpers/lab-process.js'
import { Night } from './helpers/night.js'

const hour = 3_600_000

describe('faults that are waited for', { skip: labSkip(), concurrency: true }, () => {
  test('two bad names among six subjects: the others are served, nobody is asked in vain', async (t) => {
    const good = ['a', 'b', 'c', 'd'].map(letter => `${letter}.example.com`)
    const faulty = await FaultyNight.open({
      domains: `${good.join('\n')}\nnodns.example.com\nsite.example.com elsewhere.example.com\n`,
    })
    t.after(() => faulty.close())
    const { night, proxy } = faulty
    const record = join(night.lab.dir, 'record')
    night.actions(`[default]\nuploadCerts: ["echo CERTS >> ${record}"]\nuploadKeys: ["echo KEYS >> ${record}"]\n`
      + `update: ["echo update DOMAINS_ALL >> ${record}"]\n`)
    const other = await night.lab.host('other')
    await other.nginx(`server { listen ${other.address}:80; location / { return 200 "another server\\n"; } }`, [80])
    await night.lab.dns.set('elsewhere.example.com', [other.address])
    await night.lab.dns.clear('nodns.example.com')
    const bad = ['nodns.example.com', 'site.example.com elsewhere.example.com']
    const noBadFile = (): void => {
      assert.ok(!lines(record).some(line => /nodns|elsewhere|site/u.test(line)), 'a step ran for a failed order')
      for (const directory of ['key', 'cert', 'csr']) {
        assert.equal(night.files('test', directory).length, 8, `more than the four in ${directory}`)
      }
    }
    /** What stands where the other server answers, as the operator reads it. */
    const there = String.raw`http://elsewhere\.example\.com/\.well-known/acme-challenge/[\w-]{20,}: status 200, `
      + String.raw`.*“another server”`

    const first = await night.lematt(['--test'], { timeoutMs: 90_000 })
    assert.equal(first.code, 1, first.stdout + first.stderr)
    assert.match(first.stdout, /8 issued, 1 delivered, 4 failed \(test/u)
    assert.match(first.stdout, /^failed: nodns\.example\.com ec: nodns\.example\.com: the challenge cannot be fetched from here, so the CA was not asked: http:\/\/nodns\.example\.com\/\.well-known\/\S+: no address found/mu)
    assert.match(first.stdout, new RegExp(`^failed: site\\.example\\.com \\+1 ec: elsewhere.*so the CA was not asked: ${there}`, 'mu'))
    assert.match(first.stdout, /^failed: nodns\.example\.com rsa: not tried, for ec failed: /mu)
    assert.deepEqual(faulty.ordered(), [...good, ...good, ...bad].sort(), 'RSA was tried after EC had failed')
    const accepted = new Set(faulty.seen(at.challenge).map(({ path }) => path))
    assert.equal(accepted.size, 5, 'the CA was asked for more than a, b, c, d and site')
    assert.deepEqual(lines(record).filter(line => line.startsWith('update')), [`update ${good.join(' ')}`])
    noBadFile()
    night.assertWhole()
    const issued = store(night)

    // Split horizon: what we see is not asked, and the CA's own sentence counts.
    faulty.settings({ challengeCheck: 'no' })
    proxy.use()
    const second = await night.lematt(['--test'])
    assert.equal(second.code, 1, second.stdout)
    assert.match(second.stdout, /^failed: nodns\.example\.com ec: nodns\.example\.com: .+ \((?:dns|connection|unauthorized)\); fetched from here, http:\/\/nodns\.example\.com\/\S+: no address found/mu)
    assert.match(second.stdout, new RegExp(`^failed: site.* ec: elsewhere\\.example\\.com: .+ \\(unauthorized\\); fetched from here, ${there}`, 'mu'))
    assert.deepEqual(faulty.ordered(), bad)
    assert.deepEqual(lines(record).length, 3)
    noBadFile()
    night.assertWhole()

    // Twice in a row: now it is left alone for an hour, and nothing is said to the CA.
    proxy.use()
    const third = await night.lematt(['--test'])
    assert.equal(third.code, 1)
    const failure = orderFailures(night)['nodns.example.com ec']
    assert.equal(failure?.count, 2)
    const until = new Date(Date.parse(failure.last) + hour - 600_000).toISOString().slice(0, 16).replace('T', ' ')
    assert.match(third.stdout, new RegExp(`^parked: nodns\\.example\\.com ec: until ${until} UTC: failed 2 times in a row: nodns`, 'mu'))
    assert.match(third.stdout, /^4 parked \(test/mu)
    assert.deepEqual(proxy.seen, [])

    // Mended: the operator need not wait.
    await night.lab.dns.set('nodns.example.com', [night.lab.address])
    const only = await night.lematt(['--test', '--only', 'nodns.example.com'])
    assert.equal(only.code, 0, only.stdout)
    assert.match(only.stdout, /2 issued, 1 delivered \(/u)
    assert.deepEqual(faulty.ordered(), ['nodns.example.com', 'nodns.example.com'])

    // And the next night it is tried by itself.
    await night.lab.dns.set('elsewhere.example.com', [night.lab.address])
    const night2 = await night.lematt(['--test'], { env: clockOff(24 * hour) })
    assert.equal(night2.code, 0, night2.stdout)
    assert.match(night2.stdout, /2 issued, 1 delivered \(/u)
    assert.deepEqual(orderFailures(night), {})
    const now = store(night)
    for (const [file, bytes] of issued) assert.equal(now.get(file), bytes, `${file} was touched`)
    assert.ok(lines(record).filter(line => line.startsWith('update')).length === 3)
    night.assertWhole()
  })

  test('a CA that never answers ends the waiting in bounded time, and the rest is done', async (t) => {
    const night = await Night.open({ settings: { keyTypes: 'ec' }, domains: 'held.example.com\n' })
    t.after(() => night.close())
    assert.equal((await night.lematt(['--test'])).code, 0)
    const held = store(night)
    // An address whose machine takes packets and says nothing.
    const hole = night.lab.address.replace(/\d+$/u, '250')
    await must('ip', ['neigh', 'add', hole, 'lladdr', '02:00:00:00:00:fe', 'dev', night.lab.network.bridge, 'nud', 'permanent'])
    night.settings({ keyTypes: 'ec', testDirectory: `https://${hole}/dir` })
    const record = join(night.lab.dir, 'record')
    night.actions(`[default]\nupdate: ["echo DOMAINS_ALL >> ${record}"]\n`)
    await night.domains('held.example.com\nnew.example.com\nother.example.com\n')
    const start = performance.now()
    const { code, stdout, stderr } = await night.lematt(['--test'], { timeoutMs: 120_000 })
    const seconds = (performance.now() - start) / 1000
    assert.equal(code, 1, stdout + stderr)
    assert.ok(seconds < 100, `${seconds} s`)
    assert.match(stdout, /^failed: new\.example\.com ec: no answer from https:\/\/10\.\S+\.250\/dir in 30 s; check the network/mu)
    assert.match(stdout, /^parked: other\.example\.com ec: not tried, for the same reason as new\.example\.com ec$/mu)
    assert.deepEqual(lines(record), ['held.example.com'])
    assert.deepEqual(store(night), held)
    assert.deepEqual(readdirSync(night.challenges), [])
    night.settings({ keyTypes: 'ec' })
    const back = await night.lematt(['--test'])
    assert.equal(back.code, 0, back.stdout)
    assert.match(back.stdout, /2 issued, 1 delivered/u)
    night.assertWhole()
  })
})
