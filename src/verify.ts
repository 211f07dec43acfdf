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
export type Before = Readonly<Record<string, string>>

type Asked = Pick<HostDelivery, 'section' | 'verify' | 'certificates'>

/** A handshake that did not show what it should. */
export interface Unproved {
  readonly expectation: Expectation
  readonly shown: Shown
}

/** One handshake; the least that a last one is given. */
const handshakeMs = { most: 10_000, least: 1000 }
/** Handshakes with one host at once. */
const atOnce = 8
/** A service that did not answer is asked once more, so much later: it may be just starting. */
const secondLookMs = 2000

/** What the ports show now, for one who wants to know whether it is still that. */
export async function handshakes(asked: Asked, context: VerifyContext): Promise<Unproved[]> {
  const first = await round(questionsOf(asked, context), {}, context)
  const silent = first.filter(({ shown }) => !shown.ok)
  if (silent.length === 0) return first
  await pause(secondLookMs, undefined, { signal: context.signal }).catch(() => undefined)
  return [...first.filter(({ shown }) => shown.ok), ...await round(silent.map(({ expectation }) => expectation), {}, context)]
}

/** What the ports show now, whatever it is. */
export async function shown(asked: Asked, context: VerifyContext): Promise<Before> {
  const before: Record<string, string> = {}
  await each(questionsOf(asked, context), context, handshakeMs.most, (expectation, result) => {
    if (result.ok) before[question(expectation)] = result.fingerprint
  })
  return before
}

/** Ports that do not show what they should. */
export interface Unseen {
  readonly ports: readonly VerifyPort[]
  readonly message: string
  /** All certificates that some port does not show. */
  readonly certificates: readonly Held[]
}

/**
 * Looks until every port shows what it should, for at most `verifyGrace`. Ports that do are `verified`; `idle` are those that have
 * nothing to show of these certificates.
 */
export async function seen(asked: Asked, before: Before, context: VerifyContext): Promise<{ verified: VerifyPort[]; idle: VerifyPort[]; failed?: Unseen }> {
  const deadline = performance.now() + context.configuration.settings.verifyGraceSeconds * 1000
  const questions = questionsOf(asked, context)
  let failed = await round(questions, before, context, deadline)
  for (let wait = 100; failed.length > 0 && performance.now() < deadline && !isAborted(context.signal); wait = Math.min(wait * 1.6, 3000)) {
    await pause(wait, undefined, { signal: context.signal }).catch(() => undefined)
    failed = await round(failed.map(({ expectation }) => expectation), before, context, deadline)
  }
  const ports = asked.verify.filter(port => failed.some(({ expectation }) => expectation.port === port))
  const isAsked = (port: VerifyPort): boolean => questions.some(each => each.port === port)
  const verified = asked.verify.filter(port => isAsked(port) && !ports.includes(port))
  const idle = asked.verify.filter(port => !isAsked(port))
  if (failed.length === 0) return { verified, idle }
  const lines = ports.map(port => portMessage(failed.filter(({ expectation }) => expectation.port === port), before, context))
  return { verified, idle, failed: { ports, message: lines.join('\n'), certificates: [...new Set(failed.map(({ expectation }) => expectation.held))] } }
}

/** What is wrong with one port: its first handshake, and how many more. */
function portMessage([first, ...others]: readonly Unproved[], before: Before, { mode }: VerifyContext): string {
  if (first === undefined) return ''
  const more = others.length === 0 ? '' : ` (and ${others.length} more of its handshakes)`
  const never = mode === 'test' && !first.shown.ok && before[question(first.expectation)] === undefined
  const hint = never ? '; it did not answer before the delivery either: a service that waits for its first certificate gets it with --prod' : ''
  return mismatch(first.expectation, first.shown) + more + hint
}

const questionsOf = (asked: Asked, { configuration, address }: VerifyContext): Expectation[] => expectations(asked, configuration.sections, address)

async function round(questions: readonly Expectation[], before: Before, context: VerifyContext, deadline = Infinity): Promise<Unproved[]> {
  // What an abort leaves unanswered has not been seen.
  const open = new Map<Expectation, Shown>(questions.map(expectation => [expectation, { ok: false, message: 'interrupted' }]))
  const timeoutMs = Math.min(handshakeMs.most, Math.max(handshakeMs.least, deadline - performance.now()))
  await each(questions, context, timeoutMs, (expectation, result) => {
    const fine = result.ok && (result.fingerprint === expectation.fingerprint || result.fingerprint === before[question(expectation)])
    if (fine) open.delete(expectation)
    else open.set(expectation, result)
  })
  return [...open].map(([expectation, result]) => ({ expectation, shown: result }))
}

/** A function, for the compiler would hold the signal to be what it was at the first look. */
const isAborted = (signal: AbortSignal): boolean => signal.aborted

/**
 * Asks them all; where a port lets one wait in vain, the others that are waiting for it get the same answer. An abort ends it
 * early; what has not been answered by then is left out.
 */
async function each(questions: readonly Expectation[], { address, signal }: VerifyContext, timeoutMs: number, take: (expectation: Expectation, result: Shown) => void): Promise<void> {
  const queue = new Queue({ concurrency: atOnce })
  const late = new Map<VerifyPort, Shown>()
  await Promise.all(questions.map(expectation => queue.add(async () => {
    if (isAborted(signal)) return
    const { port, servername, keyType } = expectation
    try {
      const result = late.get(port) ?? await probe({ address, port: port.port, protocol: port.protocol, keyType, signal, timeoutMs, ...(servername === undefined ? {} : { servername }) })
      if (!result.ok && result.late === true) late.set(port, result)
      take(expectation, result)
    } catch (error) {
      if (!isAborted(signal)) throw error
    }
  })))
}
