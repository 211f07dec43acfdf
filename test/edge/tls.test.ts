/** The probe with real TLS servers (nginx, openssl s_server, node), and with what is none. */
import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { createServer as createTlsServer } from 'node:tls'
import type { KeyType } from '../../src/core/types.js'
import { probe, type Probe, type ProbeOptions } from '../../src/edge/tls.js'
import { certify } from '../helpers/certificates.js'
import { startNginx, tlsServer, type Pair } from '../helpers/lab-nginx.js'
import { must, run } from '../helpers/lab-process.js'
import { Lab, labSkip } from '../helpers/lab.js'
import { until } from '../helpers/until.js'

const fingerprintOf = (pem: string): string => new X509Certificate(pem).fingerprint256.replaceAll(':', '').toLowerCase()
const sockets = (): number => process.getActiveResourcesInfo().filter(name => /^(?:TCPSocketWrap|TLSWrap|TCPConnectWrap)$/u.test(name)).length

describe('the probe', { skip: labSkip() }, () => {
  let lab: Lab
  /** By file name; the leaf's fingerprint. */
  const leaf: Record<string, string> = {}
  const pairs: Record<string, Pair> = {}

  /** Writes a pair for a name; `chain`: with the certificate of its issuer. */
  const pair = (name: string, { key, certificate }: { key: string; certificate: string }, chain = ''): void => {
    const files = pairs[name] = { key: join(lab.dir, `${name}.key`), cert: join(lab.dir, `${name}.pem`) }
    writeFileSync(files.key, key, { mode: 0o600 })
    writeFileSync(files.cert, certificate + chain)
    leaf[name] = fingerprintOf(certificate)
  }
  const of = (...names: string[]): Pair[] => names.map(name => pairs[name] ?? assert.fail(name))
  const ask = (port: number, more: Partial<ProbeOptions> = {}): Promise<Probe> =>
    probe({ address: lab.address, port, protocol: 'tls', signal: new AbortController().signal, ...more })
  const shown = async (port: number, more: Partial<ProbeOptions> = {}): Promise<string> => {
    const seen = await ask(port, more)
    return seen.ok ? Object.keys(leaf).find(name => leaf[name] === seen.fingerprint) ?? seen.fingerprint : seen.message
  }

  before(async () => {
    lab = await Lab.open()
    const root = certify('', { algorithm: 'rsa', ca: true, cn: 'Lab Root R1' })
    pair('rsa', certify('DNS:a.example,IP:192.0.2.1,IP:2001:db8:0::1', { algorithm: 'rsa', issuer: root }), root.certificate)
    // As with the CAs: an EC leaf under an RSA issuer.
    pair('ec', certify('DNS:a.example,DNS:*.B.example', { algorithm: 'ec', issuer: root }), root.certificate)
    pair('other', certify('DNS:other.example', { algorithm: 'ec' }))
    pair('localhost', certify('DNS:localhost', { algorithm: 'ec' }))
    const address = lab.address
    const v6 = `[${lab.central.address6}]`
    const server = (port: number, names: string[], files: Pair[], more = ''): string =>
      tlsServer(address, port, names, files).replace('location', `${more}\n    location`)
    writeFileSync(join(lab.dir, 'root.pem'), root.certificate)
    const http = [
      server(4430, ['a.example'], of('rsa', 'ec'), `listen ${v6}:4430 ssl;`),
      server(4430, ['other.example'], of('other')),
      server(4431, ['_'], of('rsa', 'ec'), 'ssl_protocols TLSv1.2;'),
      server(4432, ['_'], of('rsa', 'ec'), 'ssl_protocols TLSv1.3;'),
      server(4433, ['_'], of('rsa', 'ec'), 'ssl_protocols TLSv1 TLSv1.1; ssl_ciphers DEFAULT@SECLEVEL=0;'),
      server(4434, ['_'], of('ec')),
      server(4435, ['_'], of('rsa')),
      server(4436, ['_'], of('rsa', 'ec'), `ssl_verify_client on; ssl_client_certificate ${lab.dir}/root.pem;`),
      server(4437, ['_'], of('rsa'), 'ssl_protocols TLSv1.2; ssl_ciphers kRSA;'),
      server(4438, ['_'], [], 'ssl_reject_handshake on;'),
      `server { listen ${address}:4480; return 200; }`,
    ]
    await startNginx(lab.central, http.join('\n'), [4430, 4431, 4432, 4433, 4434, 4435, 4436, 4437, 4438, 4480])
  })
  after(() => lab.close())

  /** A server of the test's own for one test, at 127.0.0.1; it ends with all its connections. */
  async function withServer(accept: (socket: Socket) => void, use: (options: Partial<ProbeOptions> & { port: number }) => Promise<void>): Promise<void> {
    const open = new Set<Socket>()
    const server = createServer(socket => {
      open.add(socket.on('error', () => undefined))
      accept(socket)
    })
    await once(server.listen(0, '127.0.0.1'), 'listening')
    try {
      await use({ address: '127.0.0.1', port: (server.address() as AddressInfo).port })
    } finally {
      server.close()
      for (const socket of open) socket.destroy()
    }
  }

  test('a service with both shows the certificate of the key type that is asked for: TLS 1.2, 1.3, both; IPv4, IPv6', async () => {
    for (const keyType of ['rsa', 'ec'] as const) {
      for (const port of [4430, 4431, 4432]) assert.equal(await shown(port, { keyType }), keyType, `${port}`)
      assert.equal(await shown(4430, { keyType, address: lab.central.address6 }), keyType)
    }
    assert.equal(await shown(4437, { keyType: 'rsa' }), 'rsa', 'also by key exchange with RSA')
    assert.match(await shown(4430), /^(?:rsa|ec)$/u)
  })

  test('it tells of the leaf, with names and addresses in one spelling', async () => {
    const seen = await ask(4430, { keyType: 'rsa' })
    assert.ok(seen.ok)
    assert.deepEqual(seen.names, ['a.example', '192.0.2.1', '2001:db8::1'])
    assert.equal(seen.issuer, 'Lab Root R1')
    const days = (seen.notAfter.getTime() - Date.now()) / 86_400_000
    assert.ok(days > 89 && days < 91, String(days))
    const ec = await ask(4430, { keyType: 'ec' })
    assert.ok(ec.ok)
    assert.deepEqual(ec.names, ['a.example', '*.b.example'])
  })

  test('it asks for the name that it is given; for none without one, and never for an address', async () => {
    assert.equal(await shown(4430, { keyType: 'ec', servername: 'a.example' }), 'ec')
    assert.equal(await shown(4430, { keyType: 'ec', servername: 'other.example' }), 'other')
    const asked: (string | false)[] = []
    const { certificate, key } = certify('DNS:x.example')
    const server = createTlsServer({ cert: certificate, key }, socket => asked.push((socket as Socket & { servername: string | false }).servername))
    await once(server.listen(0, '127.0.0.1'), 'listening')
    const options = { address: '127.0.0.1', port: (server.address() as AddressInfo).port }
    for (const servername of [undefined, '192.0.2.1', '2001:db8::1', 'x.example']) {
      assert.equal((await ask(options.port, { ...options, ...(servername !== undefined && { servername }) })).ok, true)
    }
    await until(() => asked.length === 4)
    assert.deepEqual(asked, [false, false, false, 'x.example'])
    server.close()
  })

  test('a service with one key type shows none of the other, and the message says what to write', async () => {
    assert.equal(await shown(4434, { keyType: 'rsa' }), 'shows no RSA certificate; let the service have it, or verify the other type alone (4434/ec)')
    assert.equal(await shown(4435, { keyType: 'ec' }), 'shows no EC certificate; let the service have it, or verify the other type alone (4435/rsa)')
    assert.equal(await shown(4434, { keyType: 'ec' }), 'ec')
    assert.equal(await shown(4435), 'rsa')
  })

  test('a service that wants a certificate of us has shown its own before, in TLS 1.2 and 1.3', async t => {
    for (const keyType of ['rsa', 'ec'] as const) assert.equal(await shown(4436, { keyType }), keyType)
    // Nginx refuses in HTTP. Others do in the handshake.
    const [{ key, cert }] = of('ec') as [Pair]
    for (const version of ['-tls1_2', '-tls1_3']) {
      const server = lab.spawn('openssl', ['s_server', '-accept', `${lab.address}:4440`, '-key', key, '-cert', cert, '-Verify', '1', version])
      t.after(() => server.stop())
      await server.ready('port', () => server.stdout.includes('ACCEPT'))
      assert.equal(await shown(4440, { keyType: 'ec' }), 'ec', version)
      await until(() => server.stderr.includes('peer did not return a certificate'))
      await server.stop()
    }
  })

  test('a certificate that the system trusts is seen as any other', async () => {
    const [{ key, cert }] = of('localhost') as [Pair]
    const server = lab.spawn('openssl', ['s_server', '-accept', `${lab.address}:4441`, '-key', key, '-cert', cert, '-quiet'])
    await server.ready('port', async () => (await shown(4441)) === 'localhost')
    const program = `
      import { probe } from '${new URL('../../src/edge/tls.ts', import.meta.url).pathname}'
      const options = { address: '${lab.address}', port: 4441, protocol: 'tls', servername: 'localhost', signal: new AbortController().signal }
      console.log((await probe(options)).fingerprint)`
    const out = await must('node', ['--import', 'tsx', '--input-type=module', '-e', program], { env: { NODE_EXTRA_CA_CERTS: cert } })
    assert.equal(out.trim(), leaf['localhost'])
    await server.stop()
  })

  test('what keeps a handshake from happening is told in a line, with what to do', async () => {
    const cases: [Promise<string>, RegExp][] = [
      [shown(4433), /^speaks only TLS older than 1\.2; let the service speak TLS 1\.2 or 1\.3$/u],
      [shown(4438, { servername: 'gone.example' }), /^refuses the name gone\.example \(SNI\); let the service on port 4438 serve it$/u],
      [shown(4438), /^refuses a handshake without a name \(SNI\)/u],
      [shown(4480), /^answers, but not in TLS; see what listens on port 4480, or write 4480\/smtp/u],
      [shown(4499), /^connection refused; see whether the service runs and listens on port 4499$/u],
      [shown(4430, { address: '203.0.113.9' }), /^no route to 203\.0\.113\.9; see whether the host is up/u],
      [shown(4430, { address: 'nowhere.invalid' }), /^nowhere\.invalid has no address; put it into DNS/u],
      [shown(4430, { protocol: 'smtp', timeoutMs: 300 }), /^connected, but not ready for TLS in 0\.3 s; see whether port 4430 speaks TLS from its first byte \(then write 4430 without \/smtp\)/u],
    ]
    for (const [message, expected] of cases) assert.match(await message, expected)
  })

  test('garbage, silence, an early end and drops of bytes are told apart, and nothing stays open', async () => {
    const before = sockets()
    await withServer(socket => socket.end(Buffer.from('7f00ff13374242424242', 'hex')), async options => {
      assert.match(await shown(options.port, options), /^answers, but not in TLS; /u)
    })
    await withServer(socket => void socket.once('data', () => socket.destroy()), async options => {
      assert.match(await shown(options.port, options), /^the connection was closed during the TLS handshake; see the log/u)
    })
    await withServer(() => undefined, async options => {
      const start = Date.now()
      assert.match(await shown(options.port, { ...options, timeoutMs: 300 }), /^connected, but no whole TLS handshake in 0\.3 s; see whether the service/u)
      assert.ok(Date.now() - start < 2000)
    })
    // A record of 16 kB, a byte every 10 ms: it would take minutes.
    await withServer(socket => {
      let n = 0
      const timer = setInterval(() => socket.write(Buffer.from([[22, 3, 3, 0x40, 0][n++] ?? 2])), 10)
      socket.on('close', () => clearInterval(timer))
    }, async options => {
      assert.match(await shown(options.port, { ...options, timeoutMs: 300 }), /^connected, but no whole TLS handshake in 0\.3 s/u)
    })
    await until(() => sockets() <= before, { what: 'all sockets gone' })
  })

  test('a host that swallows packets ends the probe at its time; a slow one is waited for', async () => {
    // A neighbour that nobody is: what is sent to it is lost, and no error comes back.
    const address = lab.address.replace(/\d+$/u, '250')
    await must('ip', ['neigh', 'add', address, 'lladdr', '02:00:00:00:00:fa', 'dev', lab.network.bridge, 'nud', 'permanent'])
    const start = Date.now()
    assert.equal(await shown(443, { address, timeoutMs: 400 }), 'no answer in 0.4 s; see whether the host is up and a firewall drops port 443')
    const took = Date.now() - start
    assert.ok(took >= 395 && took < 2000, `${took} ms`)
    // A real handshake in pieces of 100 bytes.
    await withServer(near => {
      const far = connect(4430, lab.address).on('error', () => undefined)
      near.pipe(far)
      near.on('close', () => far.destroy())
      let queue = Promise.resolve()
      far.on('data', (chunk: Buffer) => {
        for (let i = 0; i < chunk.length; i += 100) {
          queue = queue.then(() => new Promise(resolve => setTimeout(() => near.write(chunk.subarray(i, i + 100), () => resolve()), 5)))
        }
      })
    }, async options => assert.equal(await shown(options.port, { ...options, keyType: 'rsa' }), 'rsa'))
  })

  test('an abort ends it at once, with the reason of the signal, and leaves no socket', async () => {
    const before = sockets()
    await withServer(() => undefined, async options => {
      for (const protocol of ['tls', 'smtp'] as const) {
        const control = new AbortController()
        const running = ask(options.port, { ...options, protocol, signal: control.signal })
        await until(() => sockets() > before)
        const reason = new Error('enough')
        const start = Date.now()
        control.abort(reason)
        await assert.rejects(running, error => error === reason)
        assert.ok(Date.now() - start < 500)
        await assert.rejects(ask(options.port, { ...options, signal: control.signal }), error => error === reason)
      }
    })
    await until(() => sockets() <= before, { what: 'all sockets gone' })
  })

  test('two hundred at once each see what they asked for: no session is used twice', async () => {
    const control = new AbortController()
    const warnings: Error[] = []
    const onWarning = (warning: Error): unknown => warnings.push(warning)
    process.on('warning', onWarning)
    const before = sockets()
    const wanted = Array.from({ length: 200 }, (_, i): [number, KeyType] => [4430 + i % 3, i % 2 === 0 ? 'rsa' : 'ec'])
    const start = Date.now()
    const seen = await Promise.all(wanted.map(([port, keyType]) => shown(port, { keyType, signal: control.signal })))
    assert.deepEqual(seen, wanted.map(([, keyType]) => keyType))
    assert.ok(Date.now() - start < 8000, `${Date.now() - start} ms`)
    await until(() => sockets() <= before, { what: 'all sockets gone' })
    process.off('warning', onWarning)
    assert.deepEqual(warnings, [])
  })

  test('a name is asked at its first address alone', async () => {
    const hosts = await run('getent', ['ahosts', 'localhost'])
    const first = /^\S+/u.exec(hosts.stdout)?.[0] ?? '127.0.0.1'
    const server = createServer(socket => socket.destroy())
    // Only where the look-up's first answer leads does anybody listen; elsewhere the same port refuses.
    await once(server.listen(0, first), 'listening')
    const { port } = server.address() as AddressInfo
    assert.match(await shown(port, { address: 'localhost' }), /^the connection was closed during/u)
    await new Promise(resolve => server.close(resolve))
    const second = first.includes(':') ? '127.0.0.1' : '::1'
    await once(server.listen(port, second), 'listening')
    assert.match(await shown(port, { address: 'localhost' }), /^connection refused; /u)
    server.close()
  })
})
