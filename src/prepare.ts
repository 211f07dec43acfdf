/**
 * What a run starts so that names can be validated: `prepare` commands (spec §3.3) and forwards (spec §8). Each is started once,
 * when the first subject needs it, and ended when the last subject that may need it is done, whatever happened.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { OperationalError } from './core/errors.js'
import type { Identifier, Subject } from './core/types.js'
import type { CommandResult, Started } from './edge/shell.js'
import { needsOfSections, type Job, type Need, type NeedsContext } from './needs.js'
import type { Listener } from './progress.js'

export interface Preparations {
  /**
   * Starts what the sections of this identifier ask for, where it does not run yet.
   * @returns rejects when a command, or the forwards to all hosts of a section, have ended with a failure; never resolves
   */
  start: (subject: Subject, identifier: Identifier) => { failed: Promise<never> }
  /**
   * Waits until those can be expected to have begun their work: each has printed a line on standard output, has ended, or has run for
   * 5 s (a forward: 30 s). Rejects as `failed` does when that is known by then.
   */
  ready: (subject: Subject, identifier: Identifier) => Promise<void>
  /** Why these identifiers (default: all of the subject) cannot be validated: what they need has failed, and will not be started again. */
  failure: (subject: Subject, identifiers?: readonly Identifier[]) => string | undefined
  /** The subject is done: ends what nobody else needs. */
  done: (subject: Subject) => void
  /** Ends everything and waits until it is gone. */
  close: () => Promise<void>
}

interface Running {
  readonly started: Started
  readonly silenceMs: number
  readonly at: number
  /** Resolves when it has ended with a failure; rejects only with a bug. */
  readonly failed: Promise<CommandResult>
  begun?: boolean
  ended?: CommandResult
  /** When it ended, on the clock of `at`. */
  until?: number
  /** Ended by us: what becomes of it is no news. */
  over?: boolean
  /** That it failed where others work has been told. */
  told?: boolean
}

/**
 * A forwarder may end by its own limit in a long run: one that had worked for so long is started again. So is one that
 * failed so long ago, for its host may be back.
 */
const worthRestartingMs = 60_000
/** An error message is a line too: its command ends right after it. */
const lastWordsMs = 300

export interface PrepareContext extends NeedsContext {
  readonly listen: Listener
}

/** @param subjects all that will be issued in this run */
export function preparations(context: PrepareContext, subjects: readonly Subject[]): Preparations {
  const { signal, listen } = context
  const running = new Map<string, Running>()
  const users = new Map<string, Set<Subject>>()
  const endings: Promise<void>[] = []

  // Routed once: with hundreds of sections and a hundred names for each subject it takes its time.
  const needsOf = needsOfSections(context)
  const needed = new Map(subjects.map(subject => [subject, needsOf(subject)]))
  const needsFor = (subject: Subject, identifier: Identifier): readonly Need[] => needed.get(subject)?.get(identifier) ?? []
  const needsOfAll = (subject: Subject): Set<Need> => new Set([...needed.get(subject)?.values() ?? []].flat())
  const keysOf = (subject: Subject): Set<string> =>
    new Set([...needsOfAll(subject)].flatMap(({ jobs }) => jobs.map(({ key }) => key)))
  for (const subject of subjects) {
    for (const key of keysOf(subject)) users.set(key, (users.get(key) ?? new Set()).add(subject))
  }
  const severalJobs = new Set(subjects.flatMap(subject => [...needsOfAll(subject)]).filter(({ jobs }) => jobs.length > 1))
  const worn = ({ ended, at, until = at }: Running): boolean =>
    ended !== undefined && (ended.ok ? until : performance.now()) - at > worthRestartingMs

  function run({ key, start, silenceMs }: Job): Running {
    const present = running.get(key)
    if (present !== undefined && !worn(present)) return present
    if (present !== undefined) endings.push(present.started.end())
    const started = start()
    const failure = started.result.then(result => {
      entry.ended = result
      entry.until = performance.now()
      // Ended well, it may have done all there was to do, like opening a port, or go on in the background.
      if (result.ok) return new Promise<never>(() => undefined)
      endings.push(started.end())
      tellPartial()
      return result
    })
    failure.catch(() => undefined) // nobody may be waiting for it any more
    const entry: Running = { started, silenceMs, at: performance.now(), failed: failure }
    running.set(key, entry)
    void started.firstLine.then(() => {
      entry.begun = true
      tellPartial()
    })
    return entry
  }

  function end(entry: Running): Promise<void> {
    entry.over = true
    return entry.started.end()
  }

  /** A host that fails where another works stops nobody, but whoever is sent to it cannot be answered. */
  function tellPartial(): void {
    if (signal.aborted) return
    for (const { what, jobs, message } of severalJobs) {
      const entries = jobs.flatMap(({ key }) => running.get(key) ?? [])
      if (!entries.some(({ begun, ended }) => begun === true && ended === undefined)) continue
      for (const entry of entries) {
        if (entry.ended?.ok !== false || entry.over === true || entry.told === true) continue
        entry.told = true
        listen({ type: 'warning', text: `${what} does not work on every host: ${message([entry.ended])}` })
      }
    }
  }

  /** Rejects when all that could have met the need has failed. */
  function failing(need: Need): Promise<never> {
    const failure = Promise.all(need.jobs.map(job => run(job).failed)).then((results): never => {
      throw failed(need, results)
    })
    failure.catch(() => undefined) // it may fail before anybody waits for it, or when nobody does any more
    return failure
  }

  function failureOf(need: Need): string | undefined {
    const entries = need.jobs.flatMap(({ key }) => running.get(key) ?? []).filter(entry => !worn(entry))
    const results = entries.flatMap(({ ended }) => (ended?.ok === false ? [ended] : []))
    return results.length < need.jobs.length ? undefined : failed(need, results).message
  }

  return {
    start(subject, identifier) {
      const failure = Promise.race([...needsFor(subject, identifier).map(failing), new Promise<never>(() => undefined)])
      failure.catch(() => undefined)
      return { failed: failure }
    },
    async ready(subject, identifier) {
      await Promise.all(needsFor(subject, identifier).map(async need => {
        const entries = need.jobs.map(run)
        await Promise.all(entries.map(settled))
        const results = entries.flatMap(({ ended }) => (ended?.ok === false ? [ended] : []))
        if (results.length === entries.length) throw failed(need, results)
      }))
    },
    failure(subject, identifiers = subject.identifiers) {
      for (const need of identifiers.flatMap(identifier => needsFor(subject, identifier))) {
        const message = failureOf(need)
        if (message !== undefined) return message
      }
      return undefined
    },
    done(subject) {
      for (const key of keysOf(subject)) {
        const left = users.get(key)
        if (left?.delete(subject) !== true || left.size > 0) continue
        users.delete(key)
        const entry = running.get(key)
        if (entry !== undefined) endings.push(end(entry))
      }
    },
    async close() {
      await Promise.all([...endings, ...[...running.values()].map(end)])
    },
  }
}

async function settled({ at, silenceMs, started: { result, firstLine } }: Running): Promise<void> {
  const over = new AbortController()
  const within = (ms: number): Promise<unknown> => pause(ms, undefined, { signal: over.signal }).catch(() => undefined)
  await Promise.race([result, within(Math.max(0, at + silenceMs - performance.now())), firstLine.then(() => Promise.race([result, within(lastWordsMs)]))])
  over.abort()
}

const failed = ({ what, message }: Need, results: readonly CommandResult[]): OperationalError => new OperationalError(`${what} failed: ${message(results)}`)
