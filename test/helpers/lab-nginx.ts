// nginx on a machine of a lab: any configuration, the challenge server, and a TLS server.
import { existsSync, mkdirSync } from 'node:fs'
import { connect } from 'node:net'
import { dirname, join } from 'node:path'
import type { Machine } from './lab-machine.js'
import { must, type Daemon } from './lab-process.js'

export interface Nginx {
  daemon: Daemon
  /** The command, by its full path, that makes it load its files again, to be run on its machine. */
  reloadCommand: string
  /** Runs that command there. */
  reload(): Promise<void>
  stop(): Promise<void>
}

/** A key and its chain, as files on the host. */
export interface Pair { key: string; cert: string }

/** Whether a TCP connection to an address and port can be made from here. */
export async function answers(address: string, port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect({ host: address, port, timeout: 500 })
    const done = (yes: boolean) => {
      socket.destroy()
      resolve(yes)
    }
    socket.on('connect', () => done(true)).on('error', () => done(false)).on('timeout', () => done(false))
  })
}

/**
 * Starts nginx.
 * @param http what stands in its `http { }` block
 * @param ports waits until all these accept connections
 */
export async function startNginx(machine: Machine, http: string, ports: readonly number[]): Promise<Nginx> {
  const dir = join(machine.dir, `nginx-${ports.join('-')}`)
  mkdirSync(dir, { recursive: true })
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
  // Workers of root become www-data, who may not see into a test's directories; another user's stay that user.
  const config = machine.write(`nginx-${ports.join('-')}/nginx.conf`, `
${process.getuid?.() === 0 ? 'user root;' : ''}
worker_processes 1;
pid ${dir}/pid;
error_log stderr;
events { worker_connections 512; }
http {
  access_log ${dir}/access.log;
  ${temporary.map(name => `${name}_temp_path ${dir}/${name};`).join(' ')}
  server_tokens off;
${http}
}
`)
  const options = ['-e', 'stderr', '-p', dir, '-c', config]
  const program = (await machine.must('sh', ['-c', 'command -v nginx'])).trim()
  const daemon = machine.spawn(program, [...options, '-g', 'daemon off;'])
  await daemon.ready(`ports ${ports.join(' ')}`, async () => {
    const open = await Promise.all(ports.map(port => answers(machine.address, port)))
    return open.every(yes => yes)
  })
  return {
    daemon,
    reloadCommand: `${program} ${options.join(' ')} -s reload`,
    reload: async () => { await machine.must(program, [...options, '-s', 'reload']) },
    stop: async () => { await daemon.stop() },
  }
}

/** The `server` block that serves the challenge directory on port 80 of an address. */
export function challengeServer(address: string, directory: string): string {
  return `
  server {
    listen ${address}:80;
    location /.well-known/acme-challenge/ { alias ${directory}/; default_type text/plain; }
    location / { return 404; }
  }`
}

/** The `server` block that shows these certificates on a port; an IPv4 address and plain names. */
export function tlsServer(address: string, port: number, names: readonly string[], pairs: readonly Pair[]): string {
  return `
  server {
    listen ${address}:${port} ssl;
    server_name ${names.join(' ')};
    ${pairs.map(pair => `ssl_certificate ${pair.cert}; ssl_certificate_key ${pair.key};`).join('\n    ')}
    location / { return 200 "hello\\n"; }
  }`
}

/** Makes self-signed pairs where the files are missing, as an operator does who sets up a server first. */
export async function placeholders(pairs: readonly Pair[]): Promise<void> {
  for (const { key, cert } of pairs) {
    if (existsSync(cert)) continue
    mkdirSync(dirname(key), { recursive: true })
    mkdirSync(dirname(cert), { recursive: true })
    const kind = /rsa/.test(key) ? ['rsa:2048'] : ['ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1']
    await must('openssl', ['req', '-x509', '-nodes', '-newkey', ...kind, '-days', '1', '-subj', '/CN=placeholder',
      '-keyout', key, '-out', cert])
  }
}
