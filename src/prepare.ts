/**
 * The `prepare` commands of a run (spec §3.3): each distinct command is started once, when the first subject needs it, and
 * ended when the last subject that may need it is done, whatever happened.
 */
import { identifiersRoutedTo } from './core/actions.js'
import { OperationalError } from './core/errors.js'
import { prepareCommand } from './core/substitute.js'
import type { Configuration, Identifier, Mode, Subject } from './core/types.js'
import { lastLines, startCommand, type CommandResult, type Started } from './edge/shell.js'

export interface Preparations {
  /**
   * Starts what the sections of this identifier ask for, where it does not run yet.
   * @returns rejects when one of them has ended with a failure; never resolves
   */
  start: (subject: Subject, identifier: Identifier) => { failed: Promise<never> }
  /** The subject is done: ends what nobody else needs. */
  done: (subject: Subject) => void
  /** Ends everything and waits until it is gone. */
  close: () => Promise<void>
}

interface Running {
  readonly started: Started
  readonly at: number
  readonly failed: Promise<never>
  ended?: CommandResult
}

/** A forwarder may end by its own limit in a long run; one that had done its work for so long is started again. */
const worthRestartingMs = 60_000

export interface PrepareContext {
  readonly configuration: Configuration
  readonly mode: Mode
  readonly workingDirectory: string
  readonly signal: AbortSignal
}

/** @param subjects all that will be issued in this run */
export function preparations({ configuration, mode, workingDirectory, signal }: PrepareContext, subjects: readonly Subject[]): Preparations {
  const running = new Map<string, Running>()
  const needs = new Map<string, Set<Subject>>()
  const endings: Promise<void>[] = []

  const commandsFor = (subject: Subject, identifier: Identifier): { command: string; section: string }[] =>
    configuration.sections.flatMap(section => section.prepare.length > 0 && identifiersRoutedTo(section, subject, configuration.sections).includes(identifier)
      ? section.prepare.map(command => ({ command: prepareCommand(command, identifier), section: section.name }))
      : [])
  for (const subject of subjects) {
    for (const { command } of subject.identifiers.flatMap(identifier => commandsFor(subject, identifier))) {
      needs.set(command, (needs.get(command) ?? new Set()).add(subject))
    }
  }

  function run(command: string, section: string): Running {
    const present = running.get(command)
    const worn = present?.ended !== undefined && performance.now() - present.at > worthRestartingMs
    if (present !== undefined && !worn) return present
    const started = startCommand(command, { env: { LEMATT_MODE: mode, LEMATT_SECTION: section }, cwd: workingDirectory, signal })
    const failed = new Promise<never>((_, reject) => {
      void started.result.then(result => {
        entry.ended = result
        // Ended well, it may have done all there was to do, like opening a port.
        if (!result.ok) reject(new OperationalError(prepareMessage(command, section, result)))
      })
    })
    failed.catch(() => undefined) // nobody may be waiting for it any more
    const entry: Running = { started, at: performance.now(), failed }
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
    done(subject) {
      for (const [command, users] of needs) {
        if (!users.delete(subject) || users.size > 0) continue
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

function prepareMessage(command: string, section: string, { how, output }: CommandResult): string {
  const said = lastLines(output)
  return `prepare of [${section}] failed: ${command}: ${how}${said === '' ? '' : `\n${said}`}`
}
