/**
 * What we say to lematt-receive on a host, and what it answers (remote/lematt-receive has the whole protocol). Its answers
 * come from a host that may be anybody's by now: nothing in them is believed without a look at its form.
 */
import { createHash } from 'node:crypto'
import { cleanLine } from './text.js'

/** A file for the host. The text ends with a line feed. */
export interface Body {
  readonly kind: 'cert' | 'key'
  readonly file: string
  readonly text: string
}

/** A relative symbolic link beside the files of its kind. */
export interface Link {
  readonly kind: 'cert' | 'key'
  readonly file: string
  readonly target: string
}

export const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex')

/** As it is sent and as it stands on the host: lines, each ended. */
export const asLines = (text: string): string => (text.endsWith('\n') ? text : `${text}\n`)

/** The standard input of `deliver`. */
export function deliverInput(bodies: readonly Body[], links: readonly Link[]): string {
  const entries = [
    ...bodies.map(({ kind, file, text }) => `${kind} ${file} ${text.split('\n').length - 1} ${sha256(text)}`),
    ...links.map(({ kind, file, target }) => `${kind}link ${file} ${target}`),
  ]
  return [`lematt-deliver 1 ${entries.length}\n`, ...entries.map(e => `${e}\n`), ...bodies.map(b => b.text), 'end\n'].join('')
}

export const deliverCommand = (services: readonly string[]): string => ['deliver', ...services].join(' ')

export type DeliverAnswer =
  | { readonly ok: true; readonly files: number; readonly reloaded: readonly string[] }
  /** `restored`: what was there before is there again. Undefined where nothing had been changed. */
  | { readonly ok: false; readonly step: string; readonly message: string; readonly restored?: boolean }

/** The last line of what `deliver` printed; undefined when it is no answer. */
export function deliverAnswer(stdout: string): DeliverAnswer | undefined {
  const answer = lastLine(stdout)
  if (answer?.['ok'] === true) {
    const { files, reloaded } = answer
    return typeof files === 'number' && isStrings(reloaded) ? { ok: true, files, reloaded: reloaded.map(s => cleanLine(s, 100)) } : undefined
  }
  if (answer?.['ok'] !== false) return undefined
  const { step, message, restored } = answer
  if (typeof step !== 'string' || typeof message !== 'string') return undefined
  return { ok: false, step: cleanLine(step, 100), message: cleanLine(message, 2000), ...(typeof restored === 'boolean' ? { restored } : {}) }
}

/** What a host says of itself. */
export interface HostStatus {
  /** SHA-256 of the receiver that runs there. */
  readonly receiver: string
  readonly services: readonly string[]
  /** Base URLs that `forward` takes. */
  readonly forward: readonly string[]
  /** Its directories. */
  readonly cert: string
  readonly key: string
  /** File name → SHA-256 of what stands there. */
  readonly files: ReadonlyMap<string, string>
  /** Link name → target. */
  readonly links: ReadonlyMap<string, string>
}

/** The last line of what `status` printed; undefined when it is no answer. */
export function hostStatus(stdout: string): HostStatus | undefined {
  const answer = lastLine(stdout)
  if (answer === undefined) return undefined
  const { receiver, services, forward, cert, key, files, links } = answer
  if (typeof receiver !== 'string' || typeof cert !== 'string' || typeof key !== 'string' || !isStrings(services) || !isStrings(forward)) return undefined
  if (!isTexts(files) || !isTexts(links)) return undefined
  const shown = (words: readonly string[]): string[] => words.map(word => cleanLine(word, 300))
  return {
    receiver: cleanLine(receiver, 100), services: shown(services), forward: shown(forward), cert: cleanLine(cert, 300), key: cleanLine(key, 300),
    files: new Map(Object.entries(files)), links: new Map(Object.entries(links)),
  }
}

function lastLine(stdout: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(stdout.trimEnd().split('\n').at(-1) ?? '')
    return isRecord(value) ? value : undefined
  } catch {
    return undefined
  }
}

const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value)
const isStrings = (value: unknown): value is string[] => Array.isArray(value) && value.every(v => typeof v === 'string')
const isTexts = (value: unknown): value is Record<string, string> => isRecord(value) && Object.values(value).every(v => typeof v === 'string')
