/**
 * A real Pebble on loopback ports of its own, with a name server for it: the ACME server of tests that need no lab.
 */
import { existsSync, readFileSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import https from 'node:https'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { Daemon, must, run } from './lab-process.js'

export interface PebbleProgram { readonly path: string; readonly version: string }

export interface PebbleOptions {
  readonly program: PebbleProgram
  /** Where it fetches http-01 challenges; default: a port where nobody listens. */
  readonly httpPort?: number
  /** `address:port` of the name server; default: the system's. */
  readonly dns?: string
  /** Percent of good nonces that are refused; default 0. */
  readonly nonceReject?: number
  /** Percent of valid authorizations reused; default 0. */
  readonly authzReuse?: number
  /** Certificates above the leaf, without the root; default 1. */
  readonly chainLength?: number
  readonly validitySeconds?: number
  /** Sleeps before each validation, up to so many seconds; default none. */
  readonly sleepSeconds?: number
  /** Address to listen on; default 127.0.0.1. */
  readonly listen?: string
}

export interface Pebble {
  readonly directoryUrl: string
  /** PEM of its HTTPS certificate (for `localhost` and its address), which is its own root. */
  readonly roots: string
  readonly certFile: string
  readonly keyFile: string
  readonly address: string
  readonly port: number
  /** PEM of the root that issues its certificates. */
  issuerRoot(): Promise<string>
  output(): string
  stop(): Promise<void>
}

/** All that are installed, each once: $LEMATT_PEBBLE, what scripts/setup built, the one on the PATH. */
export function pebbleVersions(): PebbleProgram[] {
  const onPath = (process.env.PATH ?? '').split(delimiter).map((directory) => join(directory, 'pebble'))
  const built = new URL('../../.cache/go/bin/pebble', import.meta.url).pathname
  const [first] = onPath.filter((path) => existsSync(path))
  const found = [process.env.LEMATT_PEBBLE, built, first].filter((path) => path !== undefined && existsSync(path))
  return [...new Set(found)].map((path) => ({ path: String(path), version: versionOf(String(path)) }))
}

/** From the module data that Go puts into its programs; Debian's build has none, and is 2.4. */
function versionOf(path: string): string {
  return /letsencrypt\/pebble(?:\/v2)?\tv(\d+\.\d+\.\d+)/u.exec(readFileSync(path, 'latin1'))?.[1] ?? '2.4'
}

/** A TCP port that was free a moment ago. */
export function freePort(address = '127.0.0.1'): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = net.createServer().once('error', reject)
    server.listen(0, address, () => {
      const { port } = server.address() as net.AddressInfo
      server.close(() => resolve(port))
    })
  })
}

/** A key and a self-signed certificate for localhost and `addresses`, in `directory`. */
export async function makeServerCertificate(
  directory: string, addresses: readonly string[],
): Promise<{ certFile: string; keyFile: string }> {
  const [certFile, keyFile] = [join(directory, 'cert.pem'), join(directory, 'key.pem')]
  const names = ['DNS:localhost', ...addresses.map((address) => `IP:${address}`)].join(',')
  await must('openssl', ['req', '-x509', '-nodes', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1',
    '-days', '2', '-subj', '/CN=test', '-addext', `subjectAltName=${names}`, '-keyout', keyFile, '-out', certFile])
  return { certFile, keyFile }
}

/** Starts one and waits until its directory answers. */
export async function startPebble(options: PebbleOptions): Promise<Pebble> {
  const address = options.listen ?? '127.0.0.1'
  const directory = await mkdtemp(join(tmpdir(), 'lematt-pebble-'))
  const { certFile, keyFile } = await makeServerCertificate(directory, [address])
  const roots = await readFile(certFile, 'utf8')
  // Somebody may take a probed port before Pebble does.
  for (let tries = 3; ; tries--) {
    try {
      const port = await freePort(address)
      const management = await freePort(address)
      const daemon = await launch(options, directory, { address, port, management, certFile, keyFile, roots })
      return {
        directoryUrl: `https://${address}:${port}/dir`, roots, certFile, keyFile, address, port,
        issuerRoot: () => page(`https://${address}:${management}/roots/0`, roots),
        output: () => daemon.stdout + daemon.stderr,
        stop: async () => {
          await daemon.stop()
          await rm(directory, { recursive: true, force: true })
        },
      }
    } catch (error) {
      if (tries > 1) continue
      await rm(directory, { recursive: true, force: true })
      throw error
    }
  }
}

async function launch(options: PebbleOptions, directory: string, at: {
  address: string; port: number; management: number; certFile: string; keyFile: string; roots: string
}): Promise<Daemon> {
  const config = join(directory, `config-${at.port}.json`)
  const validity = options.validitySeconds ?? 7_776_000
  await writeFile(config, JSON.stringify({
    pebble: {
      listenAddress: `${at.address}:${at.port}`, managementListenAddress: `${at.address}:${at.management}`,
      certificate: at.certFile, privateKey: at.keyFile,
      httpPort: options.httpPort ?? await freePort(), tlsPort: await freePort(),
      // The first is of 2.4, the second of later versions, and each ignores the other.
      certificateValidityPeriod: validity,
      profiles: { default: { description: 'default', validityPeriod: validity, promoteCommonName: true } },
    },
  }))
  const dns = options.dns === undefined ? [] : ['-dnsserver', options.dns]
  const daemon = new Daemon(options.program.path, ['-config', config, ...dns], {
    env: {
      ...options.sleepSeconds === undefined ? { PEBBLE_VA_NOSLEEP: '1' }
        : { PEBBLE_VA_SLEEPTIME: String(options.sleepSeconds) },
      PEBBLE_WFE_NONCEREJECT: String(options.nonceReject ?? 0),
      PEBBLE_AUTHZREUSE: String(options.authzReuse ?? 0),
      PEBBLE_CHAIN_LENGTH: String(options.chainLength ?? 1),
    },
  })
  const directoryUrl = `https://${at.address}:${at.port}/dir`
  return daemon.ready('its directory', async () => (await page(directoryUrl, at.roots)).includes('newOrder'))
    .catch(async (error: unknown) => {
      await daemon.stop()
      throw error
    })
}

/** A page of an HTTPS server that trusts `roots` alone. Throws unless it answers 200. */
function page(url: string, roots: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const options = { ca: roots, agent: false, timeout: 5000, headers: { 'user-agent': 'lematt-test' } }
    https.get(url, options, (answer) => {
      let text = ''
      answer.setEncoding('utf8').on('data', (part: string) => { text += part }).on('end', () => {
        if (answer.statusCode === 200) resolve(text)
        else reject(new Error(`${url}: ${answer.statusCode ?? 0}`))
      })
    }).on('error', reject)
  })
}

export interface NameServer {
  readonly address: string
  /** Gives a name these addresses; names that were never set have 127.0.0.1. */
  set(name: string, addresses: readonly string[]): Promise<void>
  stop(): Promise<void>
}

/** Starts pebble-challtestsrv as a name server that answers 127.0.0.1 for every name. */
export async function startNameServer(program: PebbleProgram): Promise<NameServer> {
  const path = `${program.path}-challtestsrv`
  const { stderr } = await run(path, ['-help'])
  const address = `127.0.0.1:${await freePort()}`
  const management = `127.0.0.1:${await freePort()}`
  const daemon = new Daemon(path, [
    ...stderr.includes('-dnsserver') ? ['-dnsserver', address, '-doh', ''] : ['-dns01', address],
    '-management', management, '-defaultIPv4', '127.0.0.1', '-defaultIPv6', '',
    '-http01', '', '-https01', '', '-tlsalpn01', '',
  ])
  const post = async (what: string, body: object) => {
    const answer = await fetch(`http://${management}/${what}`, { method: 'POST', body: JSON.stringify(body) })
    if (!answer.ok) throw new Error(`challtestsrv: ${what}: ${answer.status}`)
    await answer.arrayBuffer()
  }
  await daemon.ready('its management port', async () => {
    await post('add-a', { host: 'ready.test', addresses: ['127.0.0.1'] })
    return true
  })
  return {
    address,
    set: async (name, addresses) => {
      const v6 = addresses.filter((one) => net.isIPv6(one))
      const v4 = addresses.filter((one) => net.isIPv4(one))
      await post('clear-a', { host: name })
      await post('clear-aaaa', { host: name })
      if (v4.length > 0) await post('add-a', { host: name, addresses: v4 })
      if (v6.length > 0) await post('add-aaaa', { host: name, addresses: v6 })
    },
    stop: async () => { await daemon.stop() },
  }
}
