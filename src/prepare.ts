/**
 * The `prepare` commands of a run (spec §3.3): each distinct command is started once, when the first subject needs it, and
 * ended when the last subject that may need it is done, whatever happened.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { identifiersRoutedTo } from './core/actions.js'
import { OperationalError } from './core/errors.js'
import { prepareCommand } from './core/substitute.js'
import type { Configuration, Identifier, Mode, Section, Subject } from './core/types.js'
import { lastLines, startCommand, type CommandResult, type Started } from './edge/shell.js'

export interface Preparations {
  /**
   * Starts what the sections of this identifier ask for, where it does not run yet.
   * @returns rejects when one of them has ended with a failure; never resolves
   */
  start: (subject: Subject, identifier: Identifier) => { failed: Promise<never> }
  /**
   * Waits until those commands can be expected to have begun their work: each has printed a line on standard output, has ended, or has run for
   * 5 s. Rejects as `failed` does when one of them has ended with a failure by then.
   */
  ready: (subject: Subject, identifier: Identifier) => Promise<void>
  /** Why these identifiers (default: all of the subject) cannot be validated: a command of theirs has failed, and will not be started again. */
  failure: (subject: Subject, identifiers?: readonly Identifier[]) => string | undefined
  /** The subject is done: ends what nobody else needs. */
  done: (subject: Subject) => void
  /** Ends everything and waits until it is gone. */
  close: () => Promise<void>
}

interface Running {
  readonly started: Started
  readonly at: number
  readonly section: string
  readonly failed: Promise<never>
  ended?: CommandResult
  /** When it ended, on the clock of `at`. */
  until?: number
}

interface Needed { readonly command: string; readonly section: string }

/**
 * A forwarder may end by its own limit in a long run: one that had worked for so long is started again. So is one that
 * failed so long ago, for its host may be back.
 */
const worthRestartingMs = 60_000
/** What has printed nothing for so long may be one that never does, like leforward. */
const silenceMs = 5000
/** An error message is a line too: its command ends right after it. */
const lastWordsMs = 300

export interface PrepareContext {
  readonly configuration: Configuration
  readonly mode: Mode
  readonly workingDirectory: string
  readonly signal: AbortSignal
}

/** @param subjects all that will be issued in this run */
export function preparations(
  { configuration, mode, workingDirectory, signal }: PrepareContext, subjects: readonly Subject[],
): Preparations {
  const running = new Map<string, Running>()
  const needs = new Map<string, Set<Subject>>()
  const endings: Promise<void>[] = []

  // Routed once: with hundreds of sections and a hundred names for each subject it takes its time.
  const needed = new Map(subjects.map(subject => [subject, commandsByIdentifier(subject, configuration.sections)]))
  const commandsFor = (subject: Subject, identifier: Identifier): readonly Needed[] =>
    needed.get(subject)?.get(identifier) ?? []
  const commandsOfAll = (subject: Subject): Set<string> =>
    new Set([...needed.get(subject)?.values() ?? []].flatMap(commands => commands.map(({ command }) => command)))
  for (const subject of subjects) {
    for (const command of commandsOfAll(subject)) needs.set(command, (needs.get(command) ?? new Set()).add(subject))
  }
  const worn = ({ ended, at, until = at }: Running): boolean =>
    ended !== undefined && (ended.ok ? until : performance.now()) - at > worthRestartingMs

  function run(command: string, section: string): Running {
    const present = running.get(command)
    if (present !== undefined && !worn(present)) return present
    if (present !== undefined) endings.push(present.started.end())
    const started = startCommand(command, { env: { LEMATT_MODE: mode, LEMATT_SECTION: section }, cwd: workingDirectory, signal })
    const failed = new Promise<never>((_, reject) => {
      void started.result.then(result => {
        entry.ended = result
        entry.until = performance.now()
        // Ended well, it may have done all there was to do, like opening a port, or go on in the background.
        if (result.ok) return
        endings.push(started.end())
        reject(new OperationalError(prepareMessage(command, section, result)))
      })
    })
    failed.catch(() => undefined) // nobody may be waiting for it any more
    const entry: Running = { started, section, at: performance.now(), failed }
    running.set(command, entry)
    return entry
  }

  return {
    start(subject, identifier) {
      const started = commandsFor(subject, identifier).map(({ command, section }) => run(command, section).failed)
      const failed = Promise.race([...started, new Promise<never>(() => undefined)])
      failed.catch(() => undefined) // it may fail before anybody waits for it, or when nobody does any more
      return { failed }
    },
    async ready(subject, identifier) {
      await Promise.all(commandsFor(subject, identifier).map(({ command, section }) => settled(run(command, section))))
    },
    failure(subject, identifiers = subject.identifiers) {
      for (const { command } of identifiers.flatMap(identifier => commandsFor(subject, identifier))) {
        const entry = running.get(command)
        if (entry?.ended?.ok === false && !worn(entry)) return prepareMessage(command, entry.section, entry.ended)
      }
      return undefined
    },
    done(subject) {
      for (const command of commandsOfAll(subject)) {
        const users = needs.get(command)
        if (users?.delete(subject) !== true || users.size > 0) continue
        needs.delete(command)
        const entry = running.get(command)
        if (entry !== undefined) endings.push(entry.started.end())
      }
    },
    async close() {
      await Promise.all([...endings, ...[...running.values()].map(({ started }) => started.end())])
    },
  }
}

/** In the order of the sections. */
function commandsByIdentifier(subject: Subject, sections: readonly Section[]): ReadonlyMap<Identifier, readonly Needed[]> {
  const commands = new Map<Identifier, Needed[]>()
  for (const section of sections.filter(({ prepare }) => prepare.length > 0)) {
    for (const identifier of identifiersRoutedTo(section, subject, sections)) {
      const added = section.prepare.map(command => ({ command: prepareCommand(command, identifier), section: section.name }))
      commands.set(identifier, [...commands.get(identifier) ?? [], ...added])
    }
  }
  return commands
}

/** Rejects when it has ended with a failure. */
async function settled(entry: Running): Promise<void> {
  const { result, firstLine } = entry.started
  const over = new AbortController()
  const within = (ms: number): Promise<unknown> => pause(ms, undefined, { signal: over.signal }).catch(() => undefined)
  await Promise.race([result, within(Math.max(0, entry.at + silenceMs - performance.now())), firstLine.then(() => Promise.race([result, within(lastWordsMs)]))])
  over.abort()
  if (entry.ended?.ok === false) await entry.failed
}

function prepareMessage(command: string, section: string, { how, output }: CommandResult): string {
  const said = lastLines(output)
  return `prepare of [${section}] failed: ${command}: ${how}${said === '' ? '' : `\n${said}`}`
}
