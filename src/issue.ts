/** Orders → outcomes (spec §5): prepare, order, validate, finalize, save the pair; always clean up. */
import { join } from 'node:path'
import { Bars } from './bars.js'
import { AcmeProblem, OperationalError } from './core/errors.js'
import type { Bar } from './core/memory.js'
import { parkedMessage } from './core/report.js'
import { cleanLine } from './core/text.js'
import type { KeyType, Leaf, Order, OrderOutcome, Subject } from './core/types.js'
import type { Acme, AcmeAuthorization, AcmeOrder } from './edge/acme.js'
import { answerer, type Solver } from './edge/challenge.js'
import { checkStore, forgetTokens, readText, savePair, type NewPair, type StorePaths } from './edge/store.js'
import { checkIssued, makeCsr, makeKey, readKey } from './edge/x509.js'
import { lateAbort } from './late.js'
import { preparations, type PrepareContext, type Preparations } from './prepare.js'
import { Queue } from './queue.js'
import { openAccount, openSolver } from './session.js'
import { AuthorizationFailed, expectedMessage, validateAll } from './validate.js'

export interface IssueContext extends Omit<PrepareContext, 'answerer'> {
  readonly paths: StorePaths
  readonly version: string
  readonly clock: () => Date
}

/** What issuing came to; `bar` when the CA was down or refused the whole account. */
export interface Issued {
  readonly outcomes: readonly OrderOutcome[]
  readonly bar?: Bar
  /** Errors that nobody expected: the run goes on without these orders, and ends as a bug. */
  readonly bugs: readonly unknown[]
}

/** Why the rest of a subject fails untried, and until when the CA wants to hear nothing of it. */
interface Stopped {
  readonly message: string
  readonly notBefore?: Date
  readonly blameless?: boolean
}

/** The pair could not be saved: no further order may be spent on a store like this. */
class NotSaved extends OperationalError {
  override readonly name = 'NotSaved'
}

interface Tools {
  readonly acme: Acme
  readonly solver: Solver
  readonly prepared: Preparations
}

/** Tries every order that is not parked, subjects in parallel, the key types of one subject one after the other. */
export async function issue(orders: readonly Order[], context: IssueContext): Promise<Issued> {
  const run = new IssueRun(context)
  const subjects = new Map<Subject, Order[]>()
  for (const order of orders) {
    if (order.parked !== undefined) run.end({ status: 'parked', order, message: parkedMessage(order.parked) })
    else subjects.set(order.held.subject, [...subjects.get(order.held.subject) ?? [], order])
  }
  if (subjects.size > 0) await run.all(subjects)
  const outcomes = orders.flatMap(order => run.outcomes.get(order) ?? [])
  return { outcomes, bugs: run.bugs, ...(run.bars.bar === undefined ? {} : { bar: run.bars.bar }) }
}

class IssueRun {
  readonly outcomes = new Map<Order, OrderOutcome>()
  readonly bugs: unknown[] = []
  readonly bars: Bars
  /**
   * Keys are made on the same four threads on which Node looks up names and reads files: with all of them busy for
   * seconds on a small machine, challenges would time out.
   */
  private readonly keys = new Queue({ concurrency: 2 })
  /** Orders that the CA has taken. */
  private readonly placed = new WeakSet<Order>()
  /** Ends requests to the CA, a little later than the rest: see `lateAbort`. */
  private readonly late

  constructor(private readonly context: IssueContext) {
    this.bars = new Bars(context.clock)
    this.late = lateAbort(context.signal)
  }

  end(outcome: OrderOutcome): void {
    this.outcomes.set(outcome.order, outcome)
    this.context.listen({ type: 'ordered', outcome })
  }

  async all(subjects: ReadonlyMap<Subject, readonly Order[]>): Promise<void> {
    const { configuration: { settings }, paths } = this.context
    let acme: Acme | undefined
    let solver: Solver | undefined
    // What comes through tunnels finds its answer here, whichever way others are answered.
    const tunnelled = answerer()
    const prepared = preparations({ ...this.context, answerer: tunnelled }, [...subjects.keys()])
    try {
      // Whatever would make an order useless is found before the first one is spent.
      await checkStore(paths)
      solver = await openSolver({ ...this.context, settings }, tunnelled)
      acme = await openAccount({ ...this.context, settings }, this.late.signal)
      const tools = { acme, solver, prepared }
      const queue = new Queue({ concurrency: settings.parallel })
      for (const [subject, orders] of subjects) void queue.add(() => this.subject(orders, tools).finally(() => prepared.done(subject)))
      await queue.onIdle()
    } catch (error) {
      this.notBegun([...subjects.values()].flat().filter(order => !this.outcomes.has(order)), error)
    } finally {
      await prepared.close()
      await solver?.close()
      await forgetTokens(paths.state)
      acme?.close()
      this.late.close()
    }
  }

  /** The account, the store or the means to answer challenges is not to be had. It says nothing about the certificates. */
  private notBegun([first, ...others]: readonly Order[], error: unknown): void {
    if (first === undefined) return
    if (this.context.signal.aborted) {
      for (const order of [first, ...others]) this.end({ status: 'parked', order, message: 'interrupted' })
      return
    }
    const message = this.messageOf(error)
    if (error instanceof AcmeProblem) this.bars.refused(error, first)
    this.bars.shut(message, first)
    this.end({ status: 'failed', order: first, message, blameless: true })
    for (const order of others) this.end({ status: 'parked', order, message: this.bars.sameReason() })
  }

  /** EC, then RSA: Let's Encrypt gives two parallel orders for the same names one and the same order (acme-facts §1). */
  private async subject(orders: readonly Order[], tools: Tools): Promise<void> {
    let stopped: Stopped | undefined
    for (const order of orders) {
      const held = this.context.signal.aborted ? { status: 'parked' as const, order, message: 'interrupted' } : this.bars.holds(order)
      if (held !== undefined) this.end(held)
      else if (stopped !== undefined) this.end({ status: 'failed', order, ...stopped })
      else stopped = await this.attempt(order, tools)
    }
  }

  /** @returns why the subject's other key types are not tried either */
  private async attempt(order: Order, tools: Tools): Promise<Stopped | undefined> {
    try {
      const leaf = await this.one(order, tools)
      this.bars.success()
      this.end({ status: 'done', order, leaf })
      return undefined
    } catch (error) {
      if (this.context.signal.aborted && !(error instanceof NotSaved)) {
        this.end({ status: 'parked', order, message: 'interrupted' })
        return undefined
      }
      return this.failed(order, error, tools)
    }
  }

  private async failed(order: Order, error: unknown, { acme }: Tools): Promise<Stopped | undefined> {
    const message = this.messageOf(error)
    if (error instanceof NotSaved) await checkStore(this.context.paths).catch(() => this.bars.shut(message, order))
    const met = error instanceof AcmeProblem ? await this.bars.meet(error, order, this.placed.has(order) ? 'placed' : 'placing', () => acme.answers()) : undefined
    const until = met?.notBefore === undefined ? {} : { notBefore: met.notBefore }
    if (met?.blameless === true && this.bars.metBefore(order)) this.end({ status: 'parked', order, message })
    else this.end({ status: 'failed', order, message, ...until, ...(met?.blameless === true ? { blameless: true } : {}) })
    return met?.subject === true || error instanceof AuthorizationFailed
      ? { message: `not tried, for ${order.held.keyType} failed: ${message}`, ...until, ...(met?.blameless === true ? { blameless: true } : {}) }
      : undefined
  }

  private messageOf(error: unknown): string {
    const message = expectedMessage(error)
    if (message !== undefined) return message
    this.bugs.push(error)
    return `internal error: ${cleanLine(error instanceof Error ? error.message : String(error))}`
  }

  private async one(order: Order, tools: Tools): Promise<Leaf> {
    const { configuration: { settings }, paths, listen, clock, signal } = this.context
    const { subject, keyType, files } = order.held
    const { acme, prepared } = tools
    const doing = (text: string): void => listen({ type: 'order', order, doing: text })

    // A prepare command that has failed for another subject fails this one too, unless its names are validated already, as
    // those of a renewal may be: a new one spends no order.
    const refuse = (hopeless: string | undefined): void => {
      if (hopeless !== undefined) throw new AuthorizationFailed(hopeless)
    }
    if (order.held.certificate.state === 'missing') refuse(prepared.failure(subject))
    doing('ordering')
    // A new key stays in memory until its certificate is here; it is made while the CA thinks.
    const key = order.newKey ? this.newKey(keyType) : this.keptKey(join(paths.key, files.key))
    key.catch(() => undefined)
    const acmeOrder = await acme.newOrder(subject.identifiers)
    this.placed.add(order)
    const pending = (await authorizationsOf(acmeOrder, subject, acme)).filter(a => a.status !== 'valid')
    if (pending.length > 0) {
      refuse(prepared.failure(subject, pending.map(a => a.identifier)))
      doing(`validating ${pending.map(a => a.identifier).join(' ')}`)
      await validateAll(pending, { subject, ...tools, settings, signal, clock })
    }

    const keyPem = await key
    const csr = await makeCsr(keyPem, subject.identifiers)
    signal.throwIfAborted()
    doing('finalizing')
    return this.late.during(async () => {
      const certificate = await acme.finalize(acmeOrder, csr.der)
      const leaf = checkIssued(certificate, { identifiers: subject.identifiers, spki: readKey(keyPem).spki, now: clock() })
      await this.save(order, { ...(order.newKey ? { key: keyPem } : {}), certificate, csr: csr.pem })
      return leaf
    })
  }

  private async save({ held: { files } }: Order, pair: NewPair): Promise<void> {
    try {
      await savePair(this.context.paths, files, pair)
    } catch (error) {
      throw error instanceof OperationalError ? new NotSaved(error.message, { cause: error }) : error
    }
  }

  private newKey(keyType: KeyType): Promise<string> {
    const { configuration: { settings }, signal } = this.context
    return this.keys.add(() => {
      signal.throwIfAborted()
      return makeKey(keyType, settings)
    })
  }

  private async keptKey(path: string): Promise<string> {
    const file = await readText(path)
    if (file.state === 'text') return file.text
    throw new OperationalError(`the key ${path} is gone or unreadable`)
  }
}

/** The authorizations of an order, as many as names at most and for these alone: what else would be fetched is the CA's choice. */
async function authorizationsOf({ authorizations }: AcmeOrder, { identifiers }: Subject, acme: Acme): Promise<AcmeAuthorization[]> {
  if (authorizations.length > identifiers.length) {
    throw new OperationalError(`the CA asks for ${authorizations.length} authorizations for ${identifiers.length} names: refused`)
  }
  const found = await Promise.all(authorizations.map(url => acme.authorization(url)))
  const stranger = found.find(a => !identifiers.includes(a.identifier))
  if (stranger !== undefined) throw new OperationalError(`the CA asks for an authorization of ${stranger.identifier}, which was not ordered: refused`)
  return found
}
