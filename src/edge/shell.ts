/**
 * Shell commands of the operator (spec §3.3): each in a session and process group of its own, which is ended as a whole,
 * also when we ourselves are killed.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { setMaxListeners } from 'node:events'
import { constants } from 'node:os'
import type { Readable } from 'node:stream'
import { clean } from '../core/text.js'
import { endGroup, supervised } from './shell/group.js'

/** How much of a command's output is kept: its end, where the error is. */
const keptOutput = 16_384
/** What a command has printed before its end arrives within this; what holds its pipes open longer is not waited for. */
const lateOutputMs = 100

export interface CommandOptions {
  /** Added to our own environment. */
  readonly env: Readonly<Record<string, string>>
  readonly cwd: string
  /** On abort the command is ended. */
  readonly signal: AbortSignal
}

export interface CommandResult {
  readonly ok: boolean
  /** `exit status 3`, `killed by SIGTERM`, `no end after 300 s`: for messages. */
  readonly how: string
  /** The end of what it printed, on both streams, cleaned. */
  readonly output: string
}

/** A command that has been started: its result, and its end. */
export interface Started {
  /** Of the command itself: what it has put into the background may go on. */
  readonly result: Promise<CommandResult>
  /** Resolves when it has printed a line, on either stream. */
  readonly firstLine: Promise<void>
  /**
   * Ends the process group, with what the command has left in the background: TERM, then KILL after 5 s. Resolves when
   * nobody of it is left. Never rejects.
   */
  end: () => Promise<void>
}

type Kind = 'step' | 'prepared'
type Output = () => string

/**
 * Runs one step to its end, at most `timeoutSeconds`. Standard input is /dev/null. What a step that ends well has started
 * in the background is left alone, like a service; after a failure it is ended too. Never rejects.
 */
export async function runCommand(
  command: string, options: CommandOptions & { timeoutSeconds: number },
): Promise<CommandResult> {
  const { timeoutSeconds } = options
  const started = start(command, options, 'step')
  let timer: NodeJS.Timeout | undefined
  const timeout = new Promise<CommandResult>(resolve => {
    const how = `no end after ${timeoutSeconds} s (commandTimeout)`
    timer = setTimeout(() => resolve({ ok: false, how, output: started.output() }), timeoutSeconds * 1000)
  })
  const result = await Promise.race([started.result, timeout])
  clearTimeout(timer)
  await started.end()
  return result
}

/**
 * Starts a `prepare` command with a standard input that stays open until it is ended. `end` MUST be called, also when the
 * command has ended by itself: what it has put into the background belongs to it.
 */
export function startCommand(command: string, options: CommandOptions): Started {
  return start(command, options, 'prepared')
}

function start(command: string, options: CommandOptions, kind: Kind): Started & { output: Output } {
  let child: ChildProcess
  try {
    child = spawn('/bin/sh', ['-c', supervised, 'lematt', command, kind === 'prepared' ? 'stay' : ''], {
      cwd: options.cwd,
      env: { ...process.env, ...options.env },
      stdio: [kind === 'prepared' ? 'pipe' : 'ignore', 'pipe', 'pipe', 'pipe', 'pipe'],
      detached: true, // setsid(2): the group has the child's pid
    })
  } catch (error) {
    // Some errors come at once: E2BIG, for a command line longer than the kernel takes.
    const how = `cannot be started: ${error instanceof Error ? error.message : String(error)}`
    const firstLine = new Promise<void>(() => undefined)
    return {
      result: Promise.resolve({ ok: false, how, output: '' }), firstLine, end: () => Promise.resolve(), output: () => '',
    }
  }
  for (const stream of child.stdio) stream?.on('error', () => undefined) // it is gone: `result` says so
  const { output, firstLine } = listen(child)
  const { watchdog, ended } = supervision(child)
  const result = ended.then(async ({ ok, how }) => {
    await outputEnds(child)
    return { ok, how, output: output() }
  })
  let ending: Promise<void> | undefined
  const end = (): Promise<void> => ending ??= endGroup({ leader: child, watchdog, ended }).finally(() => {
    options.signal.removeEventListener('abort', onAbort)
    // With the fourth of them, whoever has killed the shell has the rest of the group ended by the watchdog.
    void result.then(() => child.stdio.forEach(stream => stream?.destroy()))
  })
  const onAbort = (): void => void end()
  setMaxListeners(0, options.signal) // one for each command under way: no leak, and no warning is due
  if (options.signal.aborted) onAbort()
  else options.signal.addEventListener('abort', onAbort, { once: true })
  return { result, firstLine, end, output }
}

/** Keeps the last `keptOutput` characters of both streams, in the order of arrival. */
function listen(child: ChildProcess): { output: Output; firstLine: Promise<void> } {
  let kept = ''
  const firstLine = new Promise<void>(resolve => {
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (chunk: string) => {
        kept = (kept + chunk).slice(-keptOutput)
        if (stream === child.stdout && chunk.includes('\n')) resolve()
      })
    }
  })
  return { output: () => clean(kept).trimEnd(), firstLine }
}

/** What the supervising shell says (shell/group.ts), or else how it ended. */
function supervision(child: ChildProcess): {
  watchdog: () => number | undefined
  ended: Promise<{ ok: boolean; how: string }>
} {
  let said = ''
  const line = (n: number): number | undefined => {
    const lines = said.split('\n')
    return n < lines.length - 1 ? Number(lines[n]) : undefined
  }
  const ended = new Promise<{ ok: boolean; how: string }>(resolve => {
    const withStatus = (status: number): void => resolve({ ok: status === 0, how: describe(status) })
    const says = child.stdio[4] as Readable | null | undefined
    says?.setEncoding('latin1').on('data', (chunk: string) => {
      said += chunk
      const status = line(1)
      if (status !== undefined) withStatus(status)
    })
    child.on('error', error => resolve({ ok: false, how: `cannot be started: ${error.message}` }))
    child.on('exit', (code, signal) => {
      if (code === null) resolve({ ok: false, how: `killed by ${signal ?? 'a signal'}` })
      else withStatus(code)
    })
  })
  return { watchdog: () => line(0), ended }
}

/** What the command left in the background may hold its pipes open: it is not waited for. */
function outputEnds(child: ChildProcess): Promise<void> {
  return new Promise(resolve => {
    const late = setTimeout(resolve, lateOutputMs)
    const open = [child.stdout, child.stderr].filter(stream => stream !== null && !stream.closed && !stream.readableEnded)
    let left = open.length
    const one = (): void => {
      if (--left > 0) return
      clearTimeout(late)
      resolve()
    }
    if (left === 0) one()
    for (const stream of open) stream?.once('close', one)
  })
}

/** A shell reports the death of its command by signal n as status 128 + n. */
function describe(status: number): string {
  const signal = Object.entries(constants.signals).find(([, n]) => n === status - 128)?.[0]
  return signal === undefined ? `exit status ${status}` : `killed by ${signal} (exit status ${status})`
}

/** The last lines of an output, for a message. */
export function lastLines(output: string, lines = 5): string {
  return output.split('\n').slice(-lines).join('\n')
}
