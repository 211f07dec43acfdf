/** The three files together → Configuration, or every problem in them at once (spec §3). */
import { parseActions } from './actions.js'
import { parseDomains } from './domains.js'
import { formatProblem } from './errors.js'
import { hostProblems } from './hostRules.js'
import { subjectName } from './names.js'
import { parseSettings } from './settings.js'
import { cleanLine, count } from './text.js'
import type { Configuration, Problem } from './types.js'

/** One file: its name as problems show it, and its text, or undefined when it could not be read. */
export interface SourceText {
  readonly file: string
  readonly text: string | undefined
}

export interface Texts {
  readonly settings: SourceText
  readonly domains: SourceText
  readonly actions: SourceText
}

export interface Context {
  /** Absolute path of the directory of the three files, symlinks resolved. */
  readonly directory: string
  /** Absolute; relative paths in lematt.conf are resolved against it. */
  readonly workingDirectory: string
}

export interface Assembled {
  /** There when all texts are and no problem was found. */
  readonly configuration?: Configuration
  readonly problems: readonly Problem[]
  readonly warnings: readonly Problem[]
}

/** Reads and checks the three texts. Never throws. A text that is undefined gives no configuration and no problem. */
export function assemble(texts: Texts, context: Context): Assembled {
  const settings = texts.settings.text === undefined ? undefined
    : parseSettings(texts.settings.text, texts.settings.file, context.workingDirectory)
  const domains = texts.domains.text === undefined ? undefined
    : parseDomains(texts.domains.text, texts.domains.file, subjectName)
  const actions = texts.actions.text === undefined ? undefined
    : parseActions(texts.actions.text, texts.actions.file, domains?.subjects)
  const rules = actions && settings ? hostProblems(actions, settings, domains?.subjects) : []
  const files = [settings, domains, actions && { ...actions, problems: [...actions.problems, ...rules] }]
  const problems = files.flatMap((each) => tidy(each?.problems ?? []))
  const warnings = files.flatMap((each) => tidy(each?.warnings ?? []))
  if (problems.length > 0 || !settings?.settings || !domains || !actions) return { problems, warnings }
  const { subjects } = domains
  const { sections } = actions
  const configuration = { directory: context.directory, settings: settings.settings, subjects, sections, warnings }
  return { configuration, problems, warnings }
}

/** More of one file than this tells nobody more; a wrong file (a picture, a log) would have a problem per line. */
const mostProblems = 100

// The problems of one file in its order, cleaned for a terminal, each once (many sections read a value of [DEFAULT]).
function tidy(problems: readonly Problem[]): Problem[] {
  const each = new Map(problems.map(({ place, message }) => {
    const problem = { place, message: cleanLine(message) }
    return [formatProblem(problem), problem]
  }))
  const sorted = [...each.values()].sort((a, b) => a.place.line - b.place.line || a.place.column - b.place.column)
  const last = sorted[mostProblems - 1]
  if (!last || sorted.length === mostProblems) return sorted
  const message = `and ${count(sorted.length - mostProblems, 'more problem')} in this file`
  return [...sorted.slice(0, mostProblems), { place: last.place, message }]
}
