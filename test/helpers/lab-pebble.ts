// Pebble as the certificate authority of a lab: it resolves names by the lab's name server and validates on port 80.
import { readFileSync } from 'node:fs'
import { request } from 'node:https'
import { join } from 'node:path'
import { pebbleProgram } from './lab-dns.js'
import type { Machine } from './lab-machine.js'
import { must, type Daemon } from './lab-process.js'

export interface PebbleOptions {
  /** Further environment variables, as PEBBLE_WFE_NONCEREJECT; the lab's own are 0 for that and no sleep. */
  env?: Record<string, string>
  /** Further keys of the "pebble" object of its configuration, as certificateValidityPeriod (seconds). */
  config?: Record<string, unknown>
}

export interface LabPebble {
  /** The ACME directory URL. */
  directory: string
  /** PEM file that makes its HTTPS trusted. */
  caBundle: string
  daemon: Daemon
  /** A page of its management interface, as in get('/roots/0'). */
  get(path: string): Promise<string>
  stop(): Promise<void>
}

/** Starts Pebble on a machine; more than one need different ports. */
export async function startLabPebble(machine: Machine, options: PebbleOptions = {}, port = 14000): Promise<LabPebble> {
  const file = (name: string) => join(machine.dir, `pebble-${port}-${name}`)
  const [caBundle, key] = [file('cert.pem'), file('key.pem')]
  await must('openssl', ['req', '-x509', '-nodes', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1',
    '-days', '2', '-subj', '/CN=lab', '-addext', `subjectAltName=IP:${machine.address}`, '-keyout', key, '-out', caBundle])
  const config = machine.write(`pebble-${port}-config.json`, JSON.stringify({
    pebble: {
      listenAddress: `${machine.address}:${port}`, managementListenAddress: `${machine.address}:${port + 1000}`,
      certificate: caBundle, privateKey: key, httpPort: 80, tlsPort: 443, ...options.config,
    },
  }))
  const daemon = machine.spawn(pebbleProgram('pebble'), ['-config', config, '-dnsserver', `${machine.address}:53`], {
    env: { PEBBLE_VA_NOSLEEP: '1', PEBBLE_WFE_NONCEREJECT: '0', ...options.env },
  })
  const ca = readFileSync(caBundle, 'utf8')
  const get = async (url: string) => page(url, ca)
  const directory = `https://${machine.address}:${port}/dir`
  await daemon.ready('the ACME directory', async () => (await get(directory)).includes('newOrder'))
  return {
    directory, caBundle, daemon,
    get: async path => get(`https://${machine.address}:${port + 1000}${path}`),
    stop: async () => { await daemon.stop() },
  }
}

/** Fetches a page; only the given certificate is trusted. @throws Error unless it answers 200 */
async function page(url: string, ca: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const headers = { 'User-Agent': 'lab' } // Pebble 2.10 refuses requests without one
    const asked = request(url, { ca, headers, agent: false, timeout: 5000 }, answer => {
      let text = ''
      answer.setEncoding('utf8').on('data', (part: string) => { text += part }).on('end', () => {
        if (answer.statusCode === 200) resolve(text)
        else reject(new Error(`${url}: ${answer.statusCode ?? 0}`))
      })
    })
    asked.on('error', reject).on('timeout', () => asked.destroy(new Error(`${url}: no answer`))).end()
  })
}
