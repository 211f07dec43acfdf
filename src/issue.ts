/** Orders → outcomes (spec §5): prepare, order, validate, finalize, save the pair; always clean up. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import PQueue from 'p-queue'
import { accountKey } from './account.js'
import { AcmeProblem, OperationalError } from './core/errors.js'
import { limitOf } from './core/limits.js'
import type { Bar } from './core/memory.js'
import { parkedMessage, title } from './core/report.js'
import { cleanLine } from './core/text.js'
import type { Configuration, KeyType, Leaf, Mode, Order, OrderOutcome, Subject } from './core/types.js'
import { openAcme, type Acme } from './edge/acme.js'
import { checkDropDirectory, dropDirectory, listener, type Solver } from './edge/challenge.js'
import { forgetTokens, noteTokens, readText, savePair, type StorePaths } from './edge/store.js'
import { checkIssued, makeCsr, makeKey, readKey } from './edge/x509.js'
import { preparations, type Preparations } from './prepare.js'
import type { Listener } from './progress.js'
import { AuthorizationFailed, expectedMessage, validateAll } from './validate.js'

export interface IssueContext {
  readonly configuration: Configuration
  readonly mode: Mode
  readonly paths: StorePaths
  readonly workingDirectory: string
  readonly version: string
  readonly clock: () => Date
  readonly signal: AbortSignal
  readonly listen: Listener
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
  return { outcomes, bugs: run.bugs, ...(run.bar === undefined ? {} : { bar: run.bar }) }
}

class IssueRun {
  readonly outcomes = new Map<Order, OrderOutcome>()
  readonly bugs: unknown[] = []
  bar: Bar | undefined
  /** The order that met the bar first, and whose outcome tells of it. */
  private barredBy: Order | undefined
  /**
   * Keys are made on the same four threads on which Node looks up names and reads files: with all of them busy for
   * seconds on a small machine, challenges would time out.
   */
  private readonly keys = new PQueue({ concurrency: 2 })

  constructor(private readonly context: IssueContext) {}

  end(outcome: OrderOutcome): void {
    this.outcomes.set(outcome.order, outcome)
    this.context.listen({ type: 'ordered', outcome })
  }

  async all(subjects: ReadonlyMap<Subject, readonly Order[]>): Promise<void> {
    const { configuration: { settings }, signal } = this.context
    const everything = [...subjects.values()].flat()
    let acme: Acme | undefined
    let solver: Solver | undefined
    const prepared = preparations(this.context, [...subjects.keys()])
    try {
      solver = await this.openSolver()
      acme = await this.openAccount()
      const tools = { acme, solver, prepared }
      const queue = new PQueue({ concurrency: settings.parallel })
      for (const [subject, orders] of subjects) void queue.add(() => this.subject(orders, tools).finally(() => prepared.done(subject)))
      await queue.onIdle()
    } catch (error) {
      // Before the first order: the account, or the means to answer challenges, is not to be had.
      const message = signal.aborted ? 'interrupted' : this.messageOf(error)
      if (error instanceof AcmeProblem) this.noteLimit(error, [])
      const [first, ...others] = everything.filter(order => !this.outcomes.has(order))
      if (first !== undefined) this.end({ status: signal.aborted ? 'parked' : 'failed', order: first, message })
      for (const order of others) this.end({ status: 'parked', order, message: signal.aborted ? message : this.sameReason(first) })
      // It says nothing about the certificates: nobody's back-off begins.
      if (!signal.aborted) this.bar ??= { message }
    } finally {
      await prepared.close()
      await solver?.close()
      await forgetTokens(this.context.paths.state)
      acme?.close()
    }
  }

  private async openSolver(): Promise<Solver> {
    const { challengeListen, challengeDropDir } = this.context.configuration.settings
    if (challengeListen !== undefined) return listener(challengeListen)
    const { paths, listen } = this.context
    await checkDropDirectory(challengeDropDir ?? '')
    return dropDirectory(challengeDropDir ?? '', text => listen({ type: 'warning', text }), files => noteTokens(paths.state, files))
  }

  private async openAccount(): Promise<Acme> {
    const { configuration: { settings }, mode, signal, version, listen } = this.context
    const key = await accountKey(settings.accountKey)
    if (key.made) listen({ type: 'note', text: `made a new account key ${settings.accountKey}: keep a copy of it in a safe place` })
    if (key.warning !== undefined) listen({ type: 'warning', text: key.warning })
    const extraRoots = settings.caBundle === undefined ? undefined : await readFile(settings.caBundle, 'utf8').catch((error: unknown) => {
      throw new OperationalError(`caBundle ${settings.caBundle ?? ''} cannot be read: ${error instanceof Error ? error.message : String(error)}`)
    })
    return openAcme({
      directoryUrl: mode === 'test' ? settings.testDirectory : settings.prodDirectory,
      accountKeyPem: key.pem,
      contact: settings.contact,
      userAgent: `lematt/${version} (+https://www.rfc-editor.org/rfc/rfc8555) node/${process.versions.node}`,
      signal,
      ...(extraRoots === undefined ? {} : { extraRoots }),
    })
  }

  /** EC, then RSA: Let's Encrypt gives two parallel orders for the same names one and the same order (acme-facts §1). */
  private async subject(orders: readonly Order[], tools: Tools): Promise<void> {
    let stopped: Stopped | undefined
    for (const order of orders) {
      if (this.context.signal.aborted) this.end({ status: 'parked', order, message: 'interrupted' })
      else if (this.bar !== undefined) this.end({ status: 'parked', order, message: this.sameReason(this.barredBy) })
      else if (stopped !== undefined) this.end({ status: 'failed', order, ...stopped })
      else stopped = await this.attempt(order, tools)
    }
  }

  /** What is long, and the same for a hundred orders, is said once. */
  private sameReason(first: Order | undefined): string {
    return first === undefined ? 'not tried' : `not tried, for the same reason as ${title(first.held)} ${first.held.keyType}`
  }

  /** @returns why the subject's other key types are not tried either */
  private async attempt(order: Order, tools: Tools): Promise<Stopped | undefined> {
    const { keyType, subject } = order.held
    try {
      this.end({ status: 'done', order, leaf: await this.one(order, tools) })
      return undefined
    } catch (error) {
      if (this.context.signal.aborted) {
        this.end({ status: 'parked', order, message: 'interrupted' })
        return undefined
      }
      const message = this.messageOf(error)
      const limited = error instanceof AcmeProblem ? this.noteLimit(error, subject.identifiers) : undefined
      const until = limited?.until === undefined ? {} : { notBefore: limited.until }
      // Of those in progress when the account was barred, one has failed, and the others met the same bar.
      if (limited?.account === true && this.barredBy !== undefined) this.end({ status: 'parked', order, message })
      else this.end({ status: 'failed', order, message, ...until })
      if (limited?.account === true) this.barredBy ??= order
      return limited?.names === true || error instanceof AuthorizationFailed
        ? { message: `not tried, for ${keyType} failed: ${message}`, ...until }
        : undefined
    }
  }

  private messageOf(error: unknown): string {
    const message = expectedMessage(error)
    if (message !== undefined) return message
    this.bugs.push(error)
    return `internal error: ${cleanLine(error instanceof Error ? error.message : String(error))}`
  }

  /** Remembers what bars the account; says whether the names of this order are barred. */
  private noteLimit(problem: AcmeProblem, identifiers: Subject['identifiers'] | readonly []): { names: boolean; account: boolean; until?: Date } {
    const now = this.context.clock()
    const limit = limitOf(problem, identifiers, now)
    const until = limit.untilSeconds === undefined ? {} : { until: new Date(now.getTime() + limit.untilSeconds * 1000) }
    // The first message, and the longest wait: an outage may come before the limit that says how long.
    if (limit.scope === 'account') {
      const longer = (this.bar?.until?.getTime() ?? 0) > (until.until?.getTime() ?? 0) ? {} : until
      this.bar = { message: expectedMessage(problem) ?? '', ...this.bar, ...longer }
    }
    return { names: limit.scope === 'order', account: limit.scope === 'account', ...(limit.scope === 'order' ? until : {}) }
  }

  private async one(order: Order, tools: Tools): Promise<Leaf> {
    const { configuration: { settings }, paths, listen, clock, signal } = this.context
    const { subject, keyType, files } = order.held
    const { acme } = tools
    const doing = (text: string): void => listen({ type: 'order', order, doing: text })

    doing('ordering')
    // A new key stays in memory until its certificate is here; it is made while the CA thinks.
    const key = order.newKey ? this.newKey(keyType) : this.keptKey(join(paths.key, files.key))
    key.catch(() => undefined)
    const acmeOrder = await acme.newOrder(subject.identifiers)
    const authorizations = await Promise.all(acmeOrder.authorizations.map(url => acme.authorization(url)))
    const pending = authorizations.filter(a => a.status !== 'valid')
    if (pending.length > 0) {
      doing(`validating ${pending.map(a => a.identifier).join(' ')}`)
      await validateAll(pending, { subject, ...tools, settings, signal, clock })
    }

    doing('finalizing')
    const keyPem = await key
    const csr = await makeCsr(keyPem, subject.identifiers)
    const certificate = await acme.finalize(acmeOrder, csr.der)
    const leaf = checkIssued(certificate, { identifiers: subject.identifiers, spki: readKey(keyPem).spki, now: clock() })
    await savePair(paths, files, { ...(order.newKey ? { key: keyPem } : {}), certificate, csr: csr.pem })
    return leaf
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
