/** Proof by handshake (spec §8, Verify): the ports of one host's own address must show the certificates that were delivered. */
import { setTimeout as pause } from 'node:timers/promises'
import type { Configuration, Held, HostDelivery, Mode, VerifyPort } from './core/types.js'
import { expectations, mismatch, question, type Expectation, type Shown } from './core/verify.js'
import { probe } from './edge/tls.js'
import { Queue } from './queue.js'

export interface VerifyContext {
  readonly configuration: Configuration
  readonly mode: Mode
  /** Of the host: its own, never that of a name which others share. */
  readonly address: string
  readonly signal: AbortSignal
}

/** What each question was answered with before a delivery: in test mode it may still be. */
export type Before = ReadonlyMap<string, string>

type Asked = Pick<HostDelivery, 'section' | 'verify' | 'certificates'>

/** For how long a service may take after its reload. */
const graceMs = 30_000
/** Handshakes with one host at once. */
const atOnce = 8

/** One look at every port. @returns what does not show what it should */
export async function handshakes(asked: Asked, before: Before, context: VerifyContext): Promise<{ failed: { expectation: Expectation; shown: Shown }[] }> {
  return { failed: await round(expected(asked, context), before, context) }
}

/** What the ports show now. */
export async function shown(asked: Asked, context: VerifyContext): Promise<Before> {
  const before = new Map<string, string>()
  await each(expected(asked, context), context, (expectation, result) => {
    if (result.ok) before.set(question(expectation), result.fingerprint)
  })
  return before
}

/** A port that does not show what it should. */
export interface Unseen {
  readonly port: VerifyPort
  readonly message: string
  /** All certificates that some port does not show. */
  readonly certificates: readonly Held[]
}

/** Looks until every port shows what it should, for at most 30 s. Ports that do are `verified`; `failed` is the first that does not. */
export async function seen(asked: Asked, before: Before, context: VerifyContext): Promise<{ verified: VerifyPort[]; failed?: Unseen }> {
  const deadline = performance.now() + graceMs
  let failed = await round(expected(asked, context), before, context)
  for (let wait = 100; failed.length > 0 && performance.now() < deadline && !context.signal.aborted; wait = Math.min(wait * 1.6, 3000)) {
    await pause(wait, undefined, { signal: context.signal }).catch(() => undefined)
    failed = await round(failed.map(f => f.expectation), before, context)
  }
  const bad = new Set(failed.map(f => f.expectation.port))
  const verified = asked.verify.filter(port => !bad.has(port))
  const [first] = failed
  if (first === undefined) return { verified }
  const others = failed.length - 1
  const more = others === 0 ? '' : ` (and ${others} more of its handshakes)`
  return { verified, failed: { port: first.expectation.port, message: mismatch(first.expectation, first.shown) + more, certificates: [...new Set(failed.map(f => f.expectation.held))] } }
}

const expected = ({ section, verify, certificates }: Asked, { configuration }: VerifyContext): Expectation[] =>
  expectations(section, configuration.sections, verify, certificates)

async function round(questions: readonly Expectation[], before: Before, context: VerifyContext): Promise<{ expectation: Expectation; shown: Shown }[]> {
  // What an abort leaves unanswered has not been seen.
  const open = new Map<Expectation, Shown>(questions.map(expectation => [expectation, { ok: false, message: 'interrupted' }]))
  await each(questions, context, (expectation, result) => {
    const fine = result.ok && (result.fingerprint === expectation.fingerprint || result.fingerprint === before.get(question(expectation)))
    if (fine) open.delete(expectation)
    else open.set(expectation, result)
  })
  return [...open].map(([expectation, result]) => ({ expectation, shown: result }))
}

/** A function, for the compiler would hold the signal to be what it was at the first look. */
const isAborted = (signal: AbortSignal): boolean => signal.aborted

/** An abort ends it early; what has not been answered by then is left out. */
async function each(questions: readonly Expectation[], { address, signal }: VerifyContext, take: (expectation: Expectation, result: Shown) => void): Promise<void> {
  const queue = new Queue({ concurrency: atOnce })
  await Promise.all(questions.map(expectation => queue.add(async () => {
    if (isAborted(signal)) return
    const { port: { port, protocol }, servername, keyType } = expectation
    try {
      take(expectation, await probe({ address, port, protocol, keyType, signal, ...(servername === undefined ? {} : { servername }) }))
    } catch (error) {
      if (!isAborted(signal)) throw error
    }
  })))
}
