#!/usr/bin/env node
/**
 * leforward: the challenge forwarder for remote hosts (spec §7). A single-purpose HTTP server that sends the CA's
 * http-01 requests (RFC 8555 §8.3) on to the central host by a redirect, and answers everything else with 404.
 *
 * One file, node: modules only: the built leforward.cjs is copied to a host as /usr/local/bin/leforward (Node >= 18).
 */
import { fork, type ChildProcess } from 'node:child_process'
import { fstatSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { isIP, type AddressInfo, type Server as NetServer, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { isatty } from 'node:tty'
import { parseArgs } from 'node:util'

const usage = `usage: leforward --baseurl URL [--port 80] [--bind ADDRESS] [--minutes 15]
       leforward --ssh --allow URL [--allow URL…] [--port 80] [--bind ADDRESS] [--minutes 15]

Answers http://THIS-HOST/.well-known/acme-challenge/TOKEN with a redirect to URL/.well-known/acme-challenge/TOKEN
and everything else with 404. With --ssh (the forced command of an SSH key) the URL is what the client asked for in
SSH_ORIGINAL_COMMAND, and must be one of those allowed. Ends on HUP, TERM, INT, at the end of its standard input,
with its parent process, and after 15 minutes.
exit codes: 0 ended as it should, 1 cannot listen, 2 wrong usage`

// A CA fetches five or six times per name, each within milliseconds. What takes longer is no CA.
const connectionMs = 5_000
const maxConnections = 256
const maxHeaderBytes = 8_192
// Over SSH each line travels to the central host: a flood of requests must not become a flood of lines.
const logBurst = 100
const logPerSecond = 10

/** A message for the operator and the exit code that goes with it. */
class Refusal extends Error {
  constructor(readonly code: 1 | 2, message: string) {
    super(message)
  }
}

interface Settings {
  readonly baseUrl: string
  readonly port: number
  readonly bind: string | undefined
  readonly minutes: number
  readonly ssh: boolean
}

/** Text from outside, on one line, without control characters, at most 200 characters. */
function clean(text: string): string {
  const line = text.replace(/[^ -~]/gu, '?')
  return line.length > 200 ? `${line.slice(0, 199)}…` : line
}

/**
 * The base URL in its one spelling, without a final slash. Only what every CA follows from a redirect: http or https,
 * a host, the port 80 or 443, no user, no query. Throws a Refusal (exit 2).
 */
function parseBaseUrl(text: string, what: string): string {
  const refuse = (why: string): never => {
    throw new Refusal(2, `${what} "${clean(text)}" ${why}; give one like http://central.example`)
  }
  // URL() silently drops tabs and line feeds and turns backslashes round, so what it would repair is refused first.
  if (text.length > 1000) refuse('is too long')
  if (!/^https?:\/\/[^/][!-~]*$/iu.test(text) || /["\\<>^`{|}]/u.test(text)) refuse('is not a plain http or https URL')
  if (text.includes('?') || text.includes('#')) refuse('may not have a query or a fragment')
  let url: URL
  try {
    url = new URL(text)
  } catch {
    return refuse('is not a URL')
  }
  if (/^https?:\/\/[^/]*@/iu.test(text)) refuse('may not have a user')
  if (url.hostname === '') refuse('has no host')
  if (url.port !== '' && url.port !== '80' && url.port !== '443') {
    refuse('has a port that CAs do not follow (only 80 and 443)')
  }
  return url.origin + url.pathname.replace(/\/+$/u, '')
}

/** A number of an option, from `low` to `high`. Throws a Refusal (exit 2). */
function parseNumber(name: string, text: string, pattern: RegExp, low: number, high: number): number {
  const value = Number(text)
  if (!pattern.test(text) || value < low || value > high) {
    throw new Refusal(2, `--${name} "${clean(text)}" is not a number from ${low} to ${high}`)
  }
  return value
}

/** The base URL that the SSH client asked for, which must be one of those that the key allows. */
function pinnedBaseUrl(allowed: readonly string[], asked: string | undefined): string {
  if (asked === undefined || asked === '') {
    throw new Refusal(2, 'no URL was asked for; connect as in: ssh HOST http://central.example')
  }
  const url = parseBaseUrl(asked, 'the URL asked for')
  if (!allowed.includes(url)) {
    throw new Refusal(2, `this key may not forward to ${clean(url)}; its --allow says ${allowed.join(', ')}`)
  }
  return url
}

/** Command line and environment → settings; undefined when only help was wanted. Throws a Refusal (exit 2). */
function parseSettings(args: string[], env: NodeJS.ProcessEnv): Settings | undefined {
  let values
  try {
    values = parseArgs({
      args,
      options: {
        baseurl: { type: 'string' },
        ssh: { type: 'boolean', default: false },
        allow: { type: 'string', multiple: true, default: [] },
        port: { type: 'string', default: '80' },
        bind: { type: 'string' },
        minutes: { type: 'string', default: '15' },
        help: { type: 'boolean', default: false },
      },
    }).values
  } catch (error) {
    throw new Refusal(2, `${clean((error as Error).message)}\n${usage}`)
  }
  if (values.help) return undefined
  const { ssh, allow, bind } = values
  if (ssh && values.baseurl !== undefined) throw new Refusal(2, '--ssh takes its URL from the client, not --baseurl')
  if (ssh && allow.length === 0) {
    throw new Refusal(2, '--ssh needs --allow URL, or a stolen key could forward anywhere')
  }
  if (!ssh && allow.length > 0) throw new Refusal(2, '--allow is only for --ssh')
  if (!ssh && values.baseurl === undefined) throw new Refusal(2, `--baseurl is missing\n${usage}`)
  if (bind !== undefined && isIP(bind) === 0) throw new Refusal(2, `--bind "${clean(bind)}" is not an IP address`)
  return {
    ssh,
    baseUrl: ssh
      ? pinnedBaseUrl(allow.map((url) => parseBaseUrl(url, '--allow')), env.SSH_ORIGINAL_COMMAND)
      : parseBaseUrl(values.baseurl ?? '', '--baseurl'),
    port: parseNumber('port', values.port, /^\d{1,5}$/u, 0, 65535),
    bind,
    minutes: parseNumber('minutes', values.minutes, /^\d{1,3}(?:\.\d{1,6})?$/u, 0.001, 60),
  }
}

/** `write`, bounded: a burst, then so many lines a second; what was left out is counted. */
function boundedLog(write: (line: string) => void): (line: string) => void {
  let tokens = logBurst
  let last = Date.now()
  let left = 0
  return (line) => {
    const now = Date.now()
    tokens = Math.min(logBurst, tokens + Math.max(0, now - last) / 1000 * logPerSecond)
    last = now
    if (tokens < 1) {
      left += 1
      return
    }
    tokens -= 1
    if (left > 0) write(`${left} more requests, too many to log`)
    left = 0
    write(line)
  }
}

/** `::ffff:192.0.2.1`, as a dual-stack socket names IPv4 clients, is shown as the address that it is. */
function client(socket: Duplex): string {
  return ((socket as Partial<Socket>).remoteAddress ?? '?').replace(/^::ffff:(?=\d+\.)/iu, '')
}

/** The HTTP server. It answers each connection once and holds none for longer than `connectionMs`. */
function redirectServer(baseUrl: string, log: (line: string) => void): Server {
  const answer = (request: IncomingMessage, response: ServerResponse): void => {
    const url = request.url ?? ''
    const known = request.method === 'GET' || request.method === 'HEAD'
    // RFC 8555 §8.3: the token is base64url, of at least 128 bits; those of real CAs have 43 characters.
    const found = known && /^\/\.well-known\/acme-challenge\/[A-Za-z0-9_-]{1,128}$/u.test(url)
    const status = found ? 301 : 404
    log(`${client(request.socket)} ${clean(request.method ?? '?')} ${clean(url)} ${status}`)
    response.shouldKeepAlive = false
    response.writeHead(status, {
      'connection': 'close',
      'content-length': '0',
      ...(found ? { location: baseUrl + url } : {}),
    })
    response.end()
  }
  /** For what node:http gives us as a bare socket. */
  const refuse = (socket: Duplex, what: string): void => {
    log(`${client(socket)} ${clean(what)} 404`)
    if (socket.writable) socket.end('HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n')
    else socket.destroy()
  }
  const server = createServer({ maxHeaderSize: maxHeaderBytes, requireHostHeader: false }, answer)
  // Without these, node would send "100 Continue" or 417 of its own, or drop a CONNECT without a word.
  server.on('checkContinue', answer)
  server.on('checkExpectation', answer)
  server.on('connect', (_request: IncomingMessage, socket: Duplex) => refuse(socket, 'CONNECT'))
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Duplex) => {
    if (error.code === 'ECONNRESET') socket.destroy()
    else refuse(socket, `not an HTTP request (${error.code ?? error.message})`)
  })
  // Sets keep the order of insertion: the first is the oldest. When there are too many the oldest goes, never the
  // new one: the CA's request needs milliseconds, and who holds a connection open for longer is not the CA.
  const open = new Set<Socket>()
  server.on('connection', (socket: Socket) => {
    const timer = setTimeout(() => socket.destroy(), connectionMs)
    open.add(socket)
    // A socket that node:http has given up (CONNECT) would otherwise end the process when its client resets it.
    socket.on('error', () => socket.destroy())
    socket.on('close', () => {
      clearTimeout(timer)
      open.delete(socket)
    })
    for (const oldest of open) {
      if (open.size <= maxConnections) break
      open.delete(oldest)
      oldest.destroy()
    }
  })
  return server
}

/** Resolves when `server` listens; rejects with the error of listen(2) or bind(2). */
function listen(server: Server, where: { fd: number } | { port: number, host: string }): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(where, () => {
      server.off('error', reject)
      resolve()
    })
  })
}

/** Listens on the given address, or else on IPv6 and IPv4 in one socket, or where there is no IPv6 on IPv4 alone. */
async function listenOn(server: Server, { bind, port }: Settings): Promise<void> {
  try {
    try {
      await listen(server, { host: bind ?? '::', port })
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code
      if (bind !== undefined || (code !== 'EAFNOSUPPORT' && code !== 'EADDRNOTAVAIL')) throw error
      await listen(server, { host: '0.0.0.0', port })
    }
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code === 'EADDRINUSE') {
      throw new Refusal(1, `port ${port} is in use; a web server there can send the challenges on by itself: `
        + 'see docs/remote-hosts.md')
    }
    if (code === 'EACCES') {
      throw new Refusal(1, `port ${port} is not open to this user; allow it by sudo or a systemd socket: `
        + 'see docs/remote-hosts.md')
    }
    throw new Refusal(1, `cannot listen on port ${port}: ${message}`)
  }
}

interface Caller { readonly uid: number, readonly gid: number }

/**
 * Started by sudo as root: becomes the calling user for good, without groups. Called after the port is bound and
 * before the first connection is taken. Throws a Refusal when that cannot be done: then nothing is served. Gives the
 * caller back where this Node may not become anybody, but a child that it starts can: see handOver.
 */
function dropPrivileges(env: NodeJS.ProcessEnv): Caller | undefined {
  if (process.getuid?.() !== 0 || env.SUDO_UID === undefined) return undefined
  const [uid, gid] = [env.SUDO_UID, env.SUDO_GID ?? ''].map((id) => (/^\d{1,10}$/u.test(id) ? Number(id) : NaN))
  if (uid === undefined || gid === undefined || Number.isNaN(uid) || Number.isNaN(gid)) {
    throw new Refusal(1, 'SUDO_UID or SUDO_GID is not a number, so there is no user to become; start it by sudo')
  }
  if (uid === 0) return undefined
  try {
    process.setgroups?.([])
    process.setgid?.(gid)
    process.setuid?.(uid)
  } catch (error) {
    // Beside a libuv that may use io_uring, as Debian 13 builds it, Node refuses (CVE-2024-22017).
    if ((error as NodeJS.ErrnoException).code === 'ERR_INVALID_STATE') return { uid, gid }
    throw new Refusal(1, `cannot become user ${uid}: ${(error as Error).message}; not serving as root`)
  }
  if (process.getuid() !== uid || process.geteuid?.() !== uid || process.getegid?.() !== gid) {
    throw new Refusal(1, `still not user ${uid}; not serving as root`)
  }
  return undefined
}

/** Marks the child of handOver; the channel to its parent cannot be made up by an environment alone. */
const handed = 'LEFORWARD_HANDED'

/** Gives the bound sockets to a child that is the calling user from its start; we only wait for its end. */
function handOver(servers: readonly Server[], { uid, gid }: Caller): void {
  const refusal = (error: unknown) =>
    new Refusal(1, `cannot become user ${uid}: ${clean((error as Error).message)}; not serving as root`)
  const env = { PATH: process.env.PATH, SSH_ORIGINAL_COMMAND: process.env.SSH_ORIGINAL_COMMAND, [handed]: '1' }
  let child: ChildProcess
  try {
    child = fork(__filename, process.argv.slice(2), { uid, gid, env, stdio: ['inherit', 'inherit', 'inherit', 'ipc'] })
  } catch (error) {
    throw refusal(error)
  }
  child.on('error', (error) => fail(refusal(error)))
  child.on('exit', (code) => process.exit(code ?? 1))
  for (const server of servers) child.send('socket', server, () => server.close())
}

/** The other side of handOver: serves the sockets that come, and ends with the parent. */
function takeOver(settings: Settings, server: Server, end: (why: string) => void): void {
  process.on('disconnect', () => end('parent process gone'))
  process.on('message', (_, socket) => {
    if (process.getuid?.() === 0) { end('still root'); return; }
    const bound = socket as NetServer
    bound.on('connection', (connection) => server.emit('connection', connection))
    server.emit('listening') // only then node's own time limits begin
    announce([bound], settings)
  })
}

function announce(servers: readonly NetServer[], { baseUrl }: Settings): void {
  const ports = servers.map((server) => (server.address() as AddressInfo | null)?.port ?? '?')
  process.stdout.write(`leforward: port ${[...new Set(ports)].join(', ')} → ${baseUrl}\n`)
}

/** How many sockets systemd has passed to this very process, from descriptor 3 on (sd_listen_fds(3)). */
function inheritedSockets(env: NodeJS.ProcessEnv): number {
  if (env.LISTEN_PID !== String(process.pid)) return 0
  return /^[1-9]$/u.test(env.LISTEN_FDS ?? '') ? Number(env.LISTEN_FDS) : 0
}

/** Is standard input something that ends with its session? Under cron and systemd it is /dev/null, ended at once. */
function stdinIsSession(): boolean {
  if (isatty(0)) return true
  try {
    const stat = fstatSync(0)
    return stat.isFIFO() || stat.isSocket()
  } catch {
    return false
  }
}

/** Calls `end` with the reason when the session is over: whichever sign of it comes first. */
function watchSession({ ssh, minutes }: Settings, parent: number, end: (why: string) => void): void {
  for (const signal of ['SIGHUP', 'SIGTERM', 'SIGINT'] as const) process.on(signal, () => end(signal))
  if (ssh || stdinIsSession()) {
    for (const event of ['end', 'close', 'error']) process.stdin.on(event, () => end('standard input ended'))
    process.stdin.resume()
  }
  // An orphan is given to another parent. Pid 1 as the first parent is systemd or a container, which do not go.
  if (parent !== 1) {
    setInterval(() => {
      if (process.ppid !== parent) end('parent process gone')
    }, 500)
  }
  setTimeout(() => end(`${minutes} minutes are over`), minutes * 60_000)
}

async function main(): Promise<void> {
  const parent = process.ppid
  const settings = parseSettings(process.argv.slice(2), process.env)
  if (settings === undefined) {
    process.stdout.write(`${usage}\n`)
    return
  }
  const end = (why: string): never => {
    process.stderr.write(`leforward: ended (${why})\n`)
    process.exit(0)
  }
  // A closed pipe there means that whoever listened to us is gone.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => process.exit(0))
  watchSession(settings, parent, end)

  const log = boundedLog((line) => process.stderr.write(`leforward: ${line}\n`))
  if (process.send !== undefined && process.env[handed] === '1') {
    takeOver(settings, redirectServer(settings.baseUrl, log), end); return;
  }
  const inherited = inheritedSockets(process.env)
  const servers = Array.from({ length: Math.max(1, inherited) }, () => redirectServer(settings.baseUrl, log))
  for (const [i, server] of servers.entries()) {
    if (inherited > 0) await listen(server, { fd: 3 + i })
    else await listenOn(server, settings)
    server.on('error', (error) => end(clean(error.message)))
  }
  const caller = dropPrivileges(process.env)
  if (caller !== undefined) { handOver(servers, caller); return; }
  if (process.getuid?.() === 0) process.stderr.write('leforward: serving as root; sudo or a systemd socket is better\n')
  announce(servers, settings)
}

function fail(error: unknown): never {
  const known = error instanceof Refusal
  process.stderr.write(`leforward: ${known ? error.message : clean(String(error))}\n`)
  process.exit(known ? error.code : 1)
}

main().catch(fail)
