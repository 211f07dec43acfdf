/** A night whose CA is reached through a fault proxy; and other things that a sceptical operator wants to see. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { startFaultProxy, type FaultProxy, type Rewrite, type Rule, type Seen } from './faultProxy.js'
import { Night, type NightOptions } from './night.js'

/** Requests of a Pebble by what they ask for. */
export const at = {
  directory: /^\/dir$/u,
  newOrder: /^\/order-plz$/u,
  authorization: /^\/authZ\//u,
  challenge: /^\/chalZ\//u,
  finalize: /^\/finalize-order\//u,
  certificate: /^\/certZ\//u,
} as const

export class FaultyNight {
  private constructor(readonly night: Night, readonly proxy: FaultProxy) {}

  /** A night with the proxy's directory in both modes. Close it whatever happens. */
  static async open(options: NightOptions = {}): Promise<FaultyNight> {
    const night = await Night.open(options)
    const proxy = await startFaultProxy(night.pebble)
    const faulty = new FaultyNight(night, proxy)
    faulty.settings(options.settings)
    return faulty
  }

  /** As Night.settings, with the proxy as the CA. */
  settings(settings: Readonly<Record<string, string>> = {}, without: readonly string[] = []): void {
    const { directoryUrl } = this.proxy
    this.night.settings({ prodDirectory: directoryUrl, testDirectory: directoryUrl, ...settings }, without)
  }

  /** The requests of one kind since the last `proxy.use`. */
  seen(path: RegExp): Seen[] {
    return this.proxy.seen.filter(request => path.test(request.path))
  }

  /** The names of each new order that was asked for since the last `proxy.use`, each order's as one string, sorted. */
  ordered(): string[] {
    return this.seen(at.newOrder).map(({ payload }) => namesIn(payload)).sort()
  }

  async close(): Promise<void> {
    await this.proxy.stop()
    await this.night.close()
  }
}

/** The identifiers in the payload of a new order. */
export function namesIn(payload: string): string {
  const { identifiers } = JSON.parse(payload) as { identifiers: { value: string }[] }
  return identifiers.map(({ value }) => value).join(' ')
}

/** Answers with a problem document where `when` holds. */
export function refusing(
  when: (request: Seen) => boolean, problem: { status: number; type: string; detail: string; retryAfter?: number },
): Rule {
  const { status, type, detail, retryAfter } = problem
  const headers = {
    'content-type': 'application/problem+json',
    ...retryAfter === undefined ? {} : { 'retry-after': String(retryAfter) },
  }
  const body = JSON.stringify({ type: `urn:ietf:params:acme:error:${type}`, status, detail })
  return request => when(request) ? { do: 'answer', status, headers, body } : undefined
}

/** Changes the answers to requests of one kind. */
export function rewriting(path: RegExp, rewrite: Rewrite): Rule {
  return request => path.test(request.path) ? { do: 'pass', rewrite } : undefined
}

/** Every file of a mode's keys, certificates, requests and `previous/`, with its bytes (links: with those behind). */
export function store(night: Night, mode = 'test'): Map<string, string> {
  const files = ['key', 'cert', 'csr', 'previous'].flatMap(directory =>
    night.files(mode, directory).map(file => join(mode, directory, file)))
  return new Map(files.map(file => [file, readFileSync(night.path(file), 'latin1')]))
}

/** The lines of a file that steps append to; none while there is no such file. */
export function lines(path: string): string[] {
  return existsSync(path) ? readFileSync(path, 'utf8').split('\n').filter(line => line !== '') : []
}

/** An environment in which a Node program's clock is off by so many milliseconds. TLS keeps the real one. */
export function clockOff(milliseconds: number): Record<string, string> {
  const script = `const Real = Date, off = ${milliseconds}
    globalThis.Date = class Date extends Real {
      constructor(...of) { if (of.length === 0) super(Real.now() + off); else super(...of) }
      static now() { return Real.now() + off }
    }`
  return { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(script)}` }
}

/** What the state remembers of failed orders; nothing while there is nothing to remember. */
export function orderFailures(night: Night, mode = 'test'): Record<string, { count: number; last: string }> {
  if (!existsSync(night.path(mode, 'state', 'failures.json'))) return {}
  const { data } = JSON.parse(night.read(mode, 'state', 'failures.json')) as
    { data: { orderFailures: Record<string, { count: number; last: string }> } }
  return data.orderFailures
}
