/** Fetching a challenge as a CA does: real servers on port 80 and 443 of loopback addresses of our own. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import http from 'node:http'
import https from 'node:https'
import type net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { fetchChallenge, waitForChallenge, type Fetched, type FetchOptions } from '../../src/edge/challenge.js'
import { makeServerCertificate } from '../helpers/pebble.js'
import { until } from '../helpers/until.js'

// Of our own by the process id, so that two runs on one machine do not meet.
const own = `${process.pid % 251}.${1 + Math.floor(process.pid / 251) % 250}`
const [web, dead, late] = [`127.81.${own}`, `127.82.${own}`, `127.83.${own}`] as const

const token = 'evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA'
const expected = `${token}.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI`
const path = `/.well-known/acme-challenge/${token}`
const signal = new AbortController().signal

/** What the names of these tests resolve to; an IPv4-mapped address is one of IPv6 without needing a network. */
const names: Record<string, readonly string[]> = {
  'web.example': [web], 'both.example': [`::ffff:${dead}`, web], 'dead.example': [dead], 'none.example': [],
  'v6.example': [`::ffff:${web}`],
}
const resolve: NonNullable<FetchOptions['resolve']> = (host) => {
  const found = names[host]
  if (found === undefined) return Promise.reject(Object.assign(new Error('not found'), { code: 'ENOTFOUND' }))
  return Promise.resolve(found.map((address) => ({ address, family: address.includes(':') ? 6 : 4 })))
}

const canBind = await new Promise<boolean>((yes) => {
  const probe = http.createServer().once('error', () => yes(false))
  probe.listen(80, dead, () => probe.close(() => yes(true)))
})

describe('fetching a challenge', { skip: !canBind && 'port 80 cannot be bound (needs root)', timeout: 60_000 }, () => {
  /** By host name of the request: what answers there. */
  const routes = new Map<string, http.RequestListener>()
  const seen: string[] = []
  const servers: net.Server[] = []
  let directory: string

  const serve: http.RequestListener = (request, response) => {
    const host = request.headers.host ?? ''
    seen.push(`${request.headers.accept ?? ''} ${host}${request.url ?? ''}`)
    const route = routes.get(host)
    if (route === undefined) response.writeHead(404, { 'content-type': 'text/html' }).end('<h1>Not\u001b[31m here</h1>')
    else route(request, response)
  }
  const listen = (server: net.Server, port: number, address: string) => {
    servers.push(server)
    return new Promise<void>((done) => server.listen(port, address, done))
  }

  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'lematt-fetch-'))
    const { certFile, keyFile } = await makeServerCertificate(directory, [])
    await listen(http.createServer(serve), 80, web)
    await listen(https.createServer({ cert: readFileSync(certFile), key: readFileSync(keyFile) }, serve), 443, web)
  })
  after(async () => {
    await Promise.all(servers.map((server) => new Promise((done) => {
      server.close(done)
      if (server instanceof http.Server || server instanceof https.Server) server.closeAllConnections()
    })))
    await rm(directory, { recursive: true, force: true })
  })

  const answer = (body: string, status = 200): http.RequestListener => (_, response) => {
    response.writeHead(status, { 'content-type': 'text/plain' }).end(body)
  }
  const redirect = (location: string, status = 302): http.RequestListener => (_, response) => {
    response.writeHead(status, { location }).end()
  }
  const fetchOf = (name: string, options: Partial<FetchOptions> = {}) =>
    fetchChallenge(name, token, expected, { signal, resolve, ...options })
  const fails = (fetched: Fetched, url: string, found: RegExp) => {
    assert.ok(!fetched.ok)
    assert.equal(fetched.url, url)
    assert.match(fetched.found, found)
    assert.doesNotMatch(fetched.found, /jg46WB3rR_AHD/u, 'no key authorization is shown')
  }

  test('found by name, address, IPv6 and with white space at the end', async () => {
    for (const host of ['web.example', web, 'v6.example', 'both.example']) {
      routes.set(host, answer(`${expected}\r\n \n`))
      assert.deepEqual(await fetchOf(host), { ok: true }, host)
      routes.delete(host)
    }
    assert.ok(seen.includes(`*/* web.example${path}`))
  })

  test('redirects to http and to https with an untrusted certificate are followed', async () => {
    routes.set('both.example', redirect('http://web.example/a', 301))
    routes.set('web.example', (request, response) => {
      const hop = request.url === '/a' ? redirect('https://web.example/b?c=d', 308) : answer(expected)
      hop(request, response)
    })
    assert.deepEqual(await fetchOf('both.example'), { ok: true })
    assert.equal(seen.at(-1), '*/* web.example/b?c=d')
    routes.clear()
  })

  test('what was found instead', async () => {
    const url = `http://web.example${path}`
    fails(await fetchOf('web.example'), url, /^status 404, text\/html starting “<h1>Not here<\/h1>”$/u)
    const cases: [http.RequestListener, RegExp][] = [
      [answer(''), /^status 200, an empty body$/u],
      [answer(expected, 201), /^status 201 and the right key authorization, but/u],
      [answer(` ${expected}`), /^status 200 and the right key authorization, but/u],
      [answer(expected + ' '.repeat(128)), /^status 200 and the right key authorization, but/u],
      [answer(expected.replace('.9', '.8')), /^status 200 and a key authorization of another account; does/u],
      [answer(`not ${expected.replace('.9', '.8')}`), /^status 200, text\/plain starting “not eva[\w-]+\.…”$/u],
      [answer('x'.repeat(100_000)), /^status 200, 128 bytes or more, text\/plain starting “x{59}…”$/u],
      [redirect('http://web.example:8080/'), /redirect \(302\) that CAs do not follow: .*port other than 80/u],
      [redirect('/x', 303), /its status must be/u],
      [redirect(url), /a loop/u],
      [(request) => request.socket.destroy(), /^no answer from web\.example \[127\..*\]: socket hang up$/u],
    ]
    for (const [route, found] of cases) {
      routes.set('web.example', route)
      fails(await fetchOf('web.example'), url, found)
    }
    routes.set('web.example', redirect('http://dead.example/x'))
    fails(await fetchOf('web.example'), 'http://dead.example/x',
      /^no connection to dead\.example \[.*\]: .*ECONNREFUSED/u)
    routes.clear()
  })

  test('names without an address', async () => {
    fails(await fetchOf('none.example'), `http://none.example${path}`, /^no address found for none\.example: it has neither an A nor an AAAA record in DNS$/u)
    fails(await fetchOf('nx.example'), `http://nx.example${path}`, /^no address found for nx\.example: it does not exist in DNS \(NXDOMAIN\)$/u)
  })

  test('a name server that does not answer is not waited for, nor does an abort wait for it', async () => {
    const never = () => new Promise<never>(() => undefined)
    fails(await fetchOf('web.example', { attemptMs: 100, resolve: never }), `http://web.example${path}`,
      /^no address found for web\.example: the name server does not answer$/u)
    const stop = new AbortController()
    const fetching = fetchOf('web.example', { signal: stop.signal, resolve: never })
    stop.abort(new Error('told to stop'))
    await assert.rejects(fetching, /told to stop/u)
  })

  test('IPv6 is not given up for IPv4 when it answers wrongly, nor on a redirect’s target', async () => {
    names['split.example'] = [`::ffff:${web}`, late]
    fails(await fetchOf('split.example'), `http://split.example${path}`, /^status 404/u)
    routes.set('web.example', redirect('http://both.example/x'))
    routes.set('both.example', answer(expected))
    fails(await fetchOf('web.example'), 'http://both.example/x', /no connection to both\.example \[::ffff:/u)
    routes.clear()
  })

  test('a server that does not come to an end is left', async () => {
    routes.set('web.example', (_, response) => { response.writeHead(200).write(expected) })
    fails(await fetchOf('web.example', { attemptMs: 200 }), `http://web.example${path}`, /no complete answer in time/u)
    routes.set('web.example', () => undefined)
    fails(await fetchOf('web.example', { attemptMs: 200 }), `http://web.example${path}`, /no complete answer in time/u)
    routes.clear()
  })

  test('an abort ends a fetch and a wait at once', async () => {
    routes.set('web.example', () => undefined)
    for (const start of [fetchChallenge, waitForChallenge]) {
      const stop = new AbortController()
      const asked = seen.length
      const fetching = start('web.example', token, expected, { signal: stop.signal, resolve })
      await until(() => seen.length > asked)
      stop.abort(new Error('told to stop'))
      await assert.rejects(fetching, /told to stop/u)
    }
    routes.clear()
    const stop = new AbortController()
    const asked = seen.length
    const waiting = waitForChallenge('web.example', token, expected, { signal: stop.signal, resolve })
    await until(() => seen.length > asked)
    stop.abort(new Error('told to stop'))
    await assert.rejects(waiting, /told to stop/u)
  })

  test('waiting until a server has started', async () => {
    names['late.example'] = [late]
    routes.set('late.example', answer(expected))
    const waiting = waitForChallenge('late.example', token, expected, { signal, resolve })
    const first = await fetchOf('late.example')
    fails(first, `http://late.example${path}`, /ECONNREFUSED/u)
    await listen(http.createServer(serve), 80, late)
    assert.deepEqual(await waiting, { ok: true })
    routes.clear()
  })

  test('waiting in vain ends at the deadline with what was found last', async () => {
    const start = performance.now()
    const asked = seen.length
    const fetched = await waitForChallenge('web.example', token, expected, { signal, resolve, deadlineMs: 600 })
    fails(fetched, `http://web.example${path}`, /^status 404/u)
    const ms = performance.now() - start
    assert.ok(ms < 3000, `${ms} ms`)
    assert.ok(seen.length - asked >= 2, 'it was tried again')
  })
})
