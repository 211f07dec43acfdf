/** Looking up names in DNS: real questions to a name server of this process. */
import assert from 'node:assert/strict'
import { setMaxListeners } from 'node:events'
import { describe, test } from 'node:test'
import { dnsResolver, whyNoAddress } from '../../src/edge/challenge/names.js'
import { startDnsServer, type Said } from '../helpers/dnsServer.js'
import { until } from '../helpers/until.js'

const v6 = '2001:db8:0:0:0:0:0:1'
const names: Record<string, Said> = {
  'both.example': { a: ['192.0.2.1', '192.0.2.2'], aaaa: [v6] },
  'v4.example': { a: ['192.0.2.1'] },
  'v6.example': { aaaa: [v6] },
  'none.example': {},
  'nx.example': 'NXDOMAIN', 'broken.example': 'SERVFAIL', 'refused.example': 'REFUSED',
}
const never = new AbortController().signal

describe('looking up names', { concurrency: true, timeout: 30_000 }, () => {
  test('both families; one without records does no harm, nor one that is broken', async (t) => {
    const server = await startDnsServer((name, type) => name === 'half.example' && type === 'aaaa' ? 'SERVFAIL' : names[name] ?? { a: ['192.0.2.3'] })
    t.after(() => server.close())
    const look = async (name: string) => (await dnsResolver([server.address])(name, never)).map(({ address, family }) => `${family} ${address}`)
    assert.deepEqual(await look('both.example'), ['6 2001:db8::1', '4 192.0.2.1', '4 192.0.2.2'])
    assert.deepEqual(await look('v4.example'), ['4 192.0.2.1'])
    assert.deepEqual(await look('v6.example'), ['6 2001:db8::1'])
    assert.deepEqual(await look('half.example'), ['4 192.0.2.3'])
    assert.deepEqual(await look('xn--bcher-kva.example'), ['4 192.0.2.3'])
    assert.ok(server.asked.includes('xn--bcher-kva.example'))
  })

  test('/etc/hosts is not asked, nor is a search domain added', async (t) => {
    const server = await startDnsServer(() => 'NXDOMAIN')
    t.after(() => server.close())
    await assert.rejects(dnsResolver([server.address])('ip6-loopback', never), { code: 'ENOTFOUND' })
    assert.deepEqual([...new Set(server.asked)], ['ip6-loopback'])
  })

  test('what is wrong', async (t) => {
    const server = await startDnsServer(name => names[name] ?? 'NXDOMAIN')
    t.after(() => server.close())
    const why = async (name: string, servers = [server.address]) => dnsResolver(servers)(name, never).then(
      found => assert.fail(JSON.stringify(found)), (error: unknown) => whyNoAddress((error as NodeJS.ErrnoException).code))
    assert.match(await why('none.example'), /^it has neither an A nor an AAAA record/u)
    assert.match(await why('nx.example'), /^it does not exist in DNS \(NXDOMAIN\)/u)
    assert.match(await why('broken.example'), /^the name server cannot tell \(SERVFAIL\)/u)
    assert.match(await why('refused.example'), /^the name server refuses to tell/u)
    const gone = await startDnsServer(() => ({}))
    await gone.close()
    assert.match(await why('nx.example', [gone.address]), /^no name server can be reached; see \/etc\/resolv\.conf/u)
    assert.match(whyNoAddress('EBADRESP'), /EBADRESP/u)
  })

  test('a hundred names that nobody answers for do not hold up one that is; an abort ends them at once', async (t) => {
    const server = await startDnsServer(name => names[name] ?? 'silence')
    t.after(() => server.close())
    const resolve = dnsResolver([server.address])
    const stop = new AbortController()
    setMaxListeners(0, stop.signal)
    const dead = Array.from({ length: 100 }, (_, n) => resolve(`n${n}.dead.example`, stop.signal).catch((error: unknown) => (error as NodeJS.ErrnoException).code))
    await until(() => server.asked.length >= 200, { what: 'all are being asked for' })
    const start = performance.now()
    assert.deepEqual(await resolve('v4.example', never), [{ address: '192.0.2.1', family: 4 }])
    assert.ok(performance.now() - start < 1000, `${performance.now() - start} ms`)
    stop.abort()
    assert.deepEqual(new Set(await Promise.all(dead)), new Set(['ECANCELLED']))
    assert.ok(performance.now() - start < 1500, `${performance.now() - start} ms`)
    await assert.rejects(resolve('v4.example', stop.signal))
  })

  test('a name server that does not answer is given up after some seconds', async (t) => {
    const server = await startDnsServer(() => 'silence')
    t.after(() => server.close())
    const start = performance.now()
    await assert.rejects(dnsResolver([server.address])('v4.example', never), (error: NodeJS.ErrnoException) =>
      whyNoAddress(error.code) === 'the name server does not answer')
    assert.ok(performance.now() - start < 12_000, `${performance.now() - start} ms`)
    assert.ok(server.asked.length >= 4, 'it was asked again')
  })
})
