/** What has to be started so that a name can be validated (spec §3.3 `prepare`, §8 `forward`), from the sections it is routed to. */
import { identifiersRoutedTo } from './core/actions.js'
import { prepareCommand } from './core/substitute.js'
import type { Configuration, Identifier, Mode, Section, Subject } from './core/types.js'
import type { Answerer } from './edge/challenge.js'
import { lastLines, startCommand, type CommandResult, type Started } from './edge/shell.js'
import type { Ssh } from './edge/ssh.js'
import { startForward } from './forward.js'

export interface NeedsContext {
  readonly configuration: Configuration
  readonly mode: Mode
  readonly workingDirectory: string
  readonly signal: AbortSignal
  readonly ssh: Ssh
  /** Answers what comes through tunnels. */
  readonly answerer: Answerer
}

/** One thing to be started, whoever asks for it. */
export interface Job {
  readonly key: string
  readonly start: () => Started
  /** After so long without a sign it is taken for ready. */
  readonly silenceMs: number
}

/** What a section asks for: a command, or a forward to each of its hosts, of which one is enough: a name may point at any of them. */
export interface Need {
  /** For messages: `prepare of [mail]`. */
  readonly what: string
  readonly jobs: readonly Job[]
  readonly message: (results: readonly CommandResult[]) => string
}

/** A command that has printed nothing for so long may be one that never does. */
const commandSilenceMs = 5000
/** A forward always says that it works; as long as our own look at a challenge is repeated. */
const forwardSilenceMs = 30_000

/** What each identifier of a subject needs, in the order of the sections. */
export function needsOfSections(context: NeedsContext): (subject: Subject) => ReadonlyMap<Identifier, readonly Need[]> {
  const { configuration: { sections } } = context
  const forwards = new Map(sections.map(section => [section, forwardNeed(section, context)]))
  const preparing = sections.filter(section => section.prepare.length > 0 || forwards.get(section) !== undefined)
  return subject => {
    const needs = new Map<Identifier, Need[]>()
    for (const section of preparing) {
      const forward = forwards.get(section)
      for (const identifier of identifiersRoutedTo(section, subject, sections)) {
        const commands = section.prepare.map(command => commandNeed(prepareCommand(command, identifier), section, context))
        needs.set(identifier, [...needs.get(identifier) ?? [], ...commands, ...(forward === undefined ? [] : [forward])])
      }
    }
    return needs
  }
}

function commandNeed(command: string, section: Section, { mode, workingDirectory, signal }: NeedsContext): Need {
  const start = (): Started =>
    startCommand(command, { env: { LEMATT_MODE: mode, LEMATT_SECTION: section.name }, cwd: workingDirectory, signal })
  return {
    what: `prepare of [${section.name}]`,
    jobs: [{ key: `command ${command}`, start, silenceMs: commandSilenceMs }],
    message: results => results.map(result => `${command}: ${withOutput(result)}`).join('\n'),
  }
}

function forwardNeed({ name, forward, hosts }: Section, context: NeedsContext): Need | undefined {
  if (forward === undefined || hosts.length === 0) return undefined
  const { challengeUrl } = context.configuration.settings
  return {
    what: `forward of [${name}]`,
    jobs: hosts.map(host => ({
      key: `${forward} ${host}`, start: () => startForward(forward, host, { ...context, challengeUrl }), silenceMs: forwardSilenceMs,
    })),
    // Each of them names its host.
    message: results => results.map(withOutput).join('\n'),
  }
}

function withOutput({ how, output }: CommandResult): string {
  const said = lastLines(output)
  return said === '' ? how : `${how}\n${said}`
}
