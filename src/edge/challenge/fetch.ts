/**
 * Fetches an http-01 challenge as the CA is about to (RFC 8555 §8.3, Boulder's va/http.go), so that what is wrong
 * is found before it costs a validation, and can be shown with what was found where.
 */
import { NODATA, TIMEOUT } from 'node:dns'
import { setMaxListeners } from 'node:events'
import http from 'node:http'
import https from 'node:https'
import { isIP } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { redacted } from '../../core/acmeProblem.js'
import { challengeUrl, followRedirect } from '../../core/redirect.js'
import { cleanLine } from '../../core/text.js'
import type { Identifier } from '../../core/types.js'
import { dnsResolver, whyNoAddress, type Address, type Resolve } from './names.js'

export type { Resolve }

export interface FetchOptions {
  /** Ends the fetch with its reason. */
  readonly signal: AbortSignal
  /** Default: DNS. */
  readonly resolve?: Resolve
  /** For the whole attempt, redirects and all; default 20 000 as the CA's. */
  readonly attemptMs?: number
}

/** `url` is the one fetched last; `found` one clean line on what was there, without any key authorization. */
export type Fetched = { readonly ok: true } | { readonly ok: false; readonly url: string; readonly found: string }

interface Answer { readonly status: number; readonly location?: string; readonly type: string; readonly body: Buffer }

/** A dial failed, or nothing useful came back; `dialed` tells which. */
class Unreachable extends Error {
  constructor(message: string, readonly dialed: boolean, readonly noRoute = false) {
    super(message)
  }
}

const dialMs = 10_000
/** RFC 8555 asks for nothing; Boulder reads 128 bytes, and a key authorization is 87. */
const maxBody = 128
/** Read for showing what else was there. */
const shownBody = 4096

/**
 * ONE attempt. `expected` is the key authorization. Failures are values; only an abort throws (the signal's reason).
 */
export async function fetchChallenge(
  identifier: Identifier, token: string, expected: string, options: FetchOptions,
): Promise<Fetched> {
  // One for each fetch under way, which may be dozens: no leak, and no warning is due.
  setMaxListeners(0, options.signal)
  const visited = [challengeUrl(identifier, token)]
  const deadline = performance.now() + (options.attemptMs ?? 20_000)
  for (;;) {
    const url = visited.at(-1) ?? ''
    const not = (found: string): Fetched => ({ ok: false, url: cleanLine(url), found: cleanLine(redacted(found), 300) })
    options.signal.throwIfAborted()
    try {
      const answer = await get(new URL(url), visited.length === 1, deadline, options)
      options.signal.throwIfAborted()
      if (answer.status < 300 || answer.status > 399) return judge(answer, token, expected, not)
      const step = followRedirect(answer.status, answer.location, visited)
      if ('refused' in step) return not(step.refused)
      visited.push(step.next)
    } catch (error) {
      options.signal.throwIfAborted()
      if (error instanceof Unreachable) return not(error.message)
      throw error
    }
  }
}

/** `fetchChallenge` until it is there, with growing pauses, for at most `deadlineMs`; then what was found last. */
export async function waitForChallenge(
  identifier: Identifier, token: string, expected: string, options: FetchOptions & { readonly deadlineMs?: number },
): Promise<Fetched> {
  const deadline = performance.now() + (options.deadlineMs ?? 30_000)
  for (let pause = 100; ; pause = Math.min(pause * 1.6, 3000)) {
    // The last attempt may run over by a second: less would be no attempt.
    const attemptMs = Math.min(Math.max(deadline - performance.now(), 1000), options.attemptMs ?? 20_000)
    const fetched = await fetchChallenge(identifier, token, expected, { ...options, attemptMs })
    if (fetched.ok || performance.now() + pause >= deadline) return fetched
    await sleep(pause, undefined, { signal: options.signal }).catch(() => options.signal.throwIfAborted())
  }
}

/** The status must be exactly 200, the body short, and equal but for white space at its end. */
function judge(answer: Answer, token: string, expected: string, not: (found: string) => Fetched): Fetched {
  const text = answer.body.toString('utf8')
  if (answer.status === 200 && answer.body.length < maxBody && text.trimEnd() === expected) return { ok: true }
  const status = `status ${answer.status}`
  // Neither is shown: they are key authorizations.
  if (text.includes(expected)) {
    return not(`${status} and the right key authorization, but CAs take it only with 200 and nothing else around it`)
  }
  if (text.trimStart().startsWith(`${token}.`)) {
    return not(`${status} and a key authorization of another account; does another ACME client answer?`)
  }
  const size = answer.body.length >= maxBody ? `, ${maxBody} bytes or more` : ''
  const start = cleanLine(redacted(text.slice(0, 300)), 60)
  const body = start === '' ? 'an empty body' : `${cleanLine(answer.type, 40) || 'a body'} starting “${start}”`
  return not(`${status}${size}, ${body}`)
}

/** IPv6 first; IPv4 only after a failed dial, and for a redirect's target only where we have no IPv6 ourselves. */
async function get(url: URL, first: boolean, deadline: number, options: FetchOptions): Promise<Answer> {
  const host = url.hostname.replace(/^\[|\]$/gu, '')
  const family = isIP(host)
  const addresses = family > 0 ? [{ address: host, family }] : await resolved(host, deadline, options)
  const [v6] = addresses.filter((one) => one.family === 6)
  const [v4] = addresses.filter((one) => one.family === 4)
  if (v6 === undefined || v4 === undefined) return dial(url, (v6 ?? v4)?.address ?? '', deadline, options.signal)
  try {
    return await dial(url, v6.address, deadline, options.signal)
  } catch (error) {
    const retried = error instanceof Unreachable && error.dialed && (first || error.noRoute)
    if (!retried || options.signal.aborted) throw error
    return dial(url, v4.address, deadline, options.signal)
  }
}

const dns = dnsResolver()

/** Neither we nor an abort wait for a name server that does not answer, nor for a resolver that cannot be cancelled. */
function resolved(host: string, deadline: number, options: FetchOptions): Promise<readonly Address[]> {
  const { signal, resolve = dns } = options
  return new Promise((found, reject) => {
    const over = new AbortController()
    const end = (error: Error) => {
      clearTimeout(timer)
      signal.removeEventListener('abort', abort)
      reject(error)
      over.abort()
    }
    const fail = (code: string) =>
      end(new Unreachable(`no address found for ${host}: ${whyNoAddress(code)}`, false))
    const abort = () => end(signal.reason as Error)
    const timer = setTimeout(() => fail(TIMEOUT), Math.max(deadline - performance.now(), 0))
    signal.addEventListener('abort', abort, { once: true })
    resolve(host, over.signal).then((addresses) => {
      if (addresses.length > 0) found(addresses)
      fail(NODATA) // After `found` it only tidies up.
    }, (error: unknown) => fail(String((error as NodeJS.ErrnoException).code)))
  })
}

/** One GET to one address. Throws `Unreachable`; what arrived too late or too slowly counts as nothing. */
function dial(url: URL, address: string, deadline: number, signal: AbortSignal): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const host = url.hostname.replace(/^\[|\]$/gu, '')
    const at = isIP(host) > 0 ? address : `${host} [${address}]`
    const request = (url.protocol === 'https:' ? https : http).request({
      host: address, port: url.port === '' ? undefined : url.port, path: `${url.pathname}${url.search}`,
      headers: { host: url.host, accept: '*/*', 'user-agent': 'lematt (http-01 check)', connection: 'close' },
      agent: false, signal, maxHeaderSize: 16_384,
      // The CA does not verify it either: the key authorization proves what is to be proved.
      rejectUnauthorized: false, ...isIP(host) === 0 && { servername: host },
    })
    let dialed = false
    let timer: NodeJS.Timeout
    const fail = (why: string, noRoute = false) => {
      clearTimeout(timer)
      request.destroy()
      reject(new Unreachable(why, !dialed, noRoute))
    }
    const arm = (milliseconds: number, why: string) => {
      clearTimeout(timer)
      const left = deadline - performance.now()
      timer = setTimeout(() => fail(why), Math.max(Math.min(milliseconds, left), 0))
    }
    arm(dialMs, `no connection to ${at} in time`)
    request.once('socket', (socket) => socket.once('connect', () => {
      dialed = true
      arm(Infinity, `${at} accepted the connection, and gave no complete answer in time`)
    }))
    request.on('error', (error: NodeJS.ErrnoException) => {
      const noRoute = ['ENETUNREACH', 'EADDRNOTAVAIL', 'EAFNOSUPPORT'].includes(error.code ?? '')
      fail(`${dialed ? 'no answer from' : 'no connection to'} ${at}: ${cleanLine(error.message, 150)}`, noRoute)
    })
    request.once('response', (response) => {
      const chunks: Buffer[] = []
      let size = 0
      const done = () => {
        clearTimeout(timer)
        const { location, 'content-type': type = '' } = response.headers
        const body = Buffer.concat(chunks)
        resolve({ status: response.statusCode ?? 0, type, body, ...location !== undefined && { location } })
        request.destroy()
      }
      response.on('data', (chunk: Buffer) => {
        chunks.push(chunk)
        size += chunk.length
        if (size >= shownBody) done()
      })
      response.once('end', done)
      response.on('error', (error) => fail(`no complete answer from ${at}: ${cleanLine(error.message, 150)}`))
    })
    request.end()
  })
}
