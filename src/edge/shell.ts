/**
 * Shell commands of the operator (spec §3.3): each in a session and process group of its own, which is ended as a whole,
 * also when we ourselves are killed.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { readdir, readFile } from 'node:fs/promises'
import { constants } from 'node:os'
import { clean } from '../core/text.js'

/** After TERM, how long until KILL. */
const graceMs = 5000
/** How much of a command's output is kept: its end, where the error is. */
const keptOutput = 16_384

/**
 * Runs the command with a watchdog beside it, which reads from file descriptor 3: a pipe whose other end we alone hold and
 * never write to. Its end means that we have died, perhaps by KILL, and the whole group is ended. The shell between stays
 * until both are reaped, and outlives a TERM to the group for that. USR1 tells it that the group is being ended: then the
 * watchdog must outlive the command too, for what the command had started may ignore TERM.
 */
const supervised = `
dying=
trap : TERM HUP INT
trap dying=1 USR1
( trap '' TERM HUP INT USR1; exec </dev/null >/dev/null 2>&1
  read -r _ <&3; kill -USR1 $$; kill -TERM 0; sleep ${graceMs / 1000}; kill -KILL 0 ) &
/bin/sh -c "$1" 3<&-
status=$?
if [ -n "$dying" ]; then wait; exit $status; fi
kill -KILL $!; wait $! 2>/dev/null
exit $status`

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
  readonly result: Promise<CommandResult>
  /** Ends the process group: TERM, then KILL after 5 s. Resolves when nobody of it is left. Never rejects. */
  end: () => Promise<void>
}

/** Runs one step to its end, at most `timeoutSeconds`. Standard input is /dev/null. Never rejects. */
export async function runCommand(command: string, options: CommandOptions & { timeoutSeconds: number }): Promise<CommandResult> {
  const started = start(command, options, 'ignore')
  let timer: NodeJS.Timeout | undefined
  const timeout = new Promise<CommandResult>(resolve => {
    timer = setTimeout(() => resolve({ ok: false, how: `no end after ${options.timeoutSeconds} s (commandTimeout)`, output: started.output() }), options.timeoutSeconds * 1000)
  })
  const result = await Promise.race([started.result, timeout])
  clearTimeout(timer)
  if (!result.ok) await started.end()
  return result
}

/** Starts a `prepare` command with a standard input that stays open until it is ended. */
export function startCommand(command: string, options: CommandOptions): Started {
  return start(command, options, 'pipe')
}

function start(command: string, options: CommandOptions, stdin: 'ignore' | 'pipe'): Started & { output: () => string } {
  let child: ChildProcess
  try {
    child = spawn('/bin/sh', ['-c', supervised, 'lematt', command], {
      cwd: options.cwd,
      env: { ...process.env, ...options.env },
      stdio: [stdin, 'pipe', 'pipe', 'pipe'],
      detached: true, // setsid(2): the group has the child's pid
    })
  } catch (error) {
    // Some errors come at once: E2BIG, for a command line longer than the kernel takes.
    const how = `cannot be started: ${error instanceof Error ? error.message : String(error)}`
    return { result: Promise.resolve({ ok: false, how, output: '' }), end: () => Promise.resolve(), output: () => '' }
  }
  const output = keepEnd(child)
  for (const stream of [child.stdin, child.stdio[3]]) stream?.on('error', () => undefined) // it is gone: `result` says so
  const end = (): Promise<void> => endGroup(child.pid)
  const onAbort = (): void => void end()
  const result = settled(child, output).finally(() => options.signal.removeEventListener('abort', onAbort))
  if (options.signal.aborted) onAbort()
  else options.signal.addEventListener('abort', onAbort, { once: true })
  return { result, end, output }
}

/** The last `keptOutput` characters of both streams, in the order of arrival. */
function keepEnd(child: ChildProcess): () => string {
  let kept = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (chunk: string) => {
      kept = (kept + chunk).slice(-keptOutput)
    }).on('error', () => undefined)
  }
  return () => clean(kept).trimEnd()
}

/** Resolves when the command has ended. What it left in the background may hold its pipes open: they are not waited for. */
function settled(child: ChildProcess, output: () => string): Promise<CommandResult> {
  return new Promise(resolve => {
    const done = (ok: boolean, how: string): void => {
      for (const stream of child.stdio) stream?.destroy()
      resolve({ ok, how, output: output() })
    }
    child.on('error', error => done(false, `cannot be started: ${error.message}`))
    child.on('exit', (code, signal) => {
      child.stdio[3]?.destroy()
      const how = code === null ? `killed by ${signal ?? 'a signal'}` : describe(code)
      const finish = (): void => done(code === 0, how)
      const late = setTimeout(finish, 100)
      child.on('close', () => {
        clearTimeout(late)
        finish()
      })
    })
  })
}

/** A shell reports the death of its command by signal n as status 128 + n. */
function describe(status: number): string {
  const signal = Object.entries(constants.signals).find(([, n]) => n === status - 128)?.[0]
  return signal === undefined ? `exit status ${status}` : `killed by ${signal} (exit status ${status})`
}

async function endGroup(pid: number | undefined): Promise<void> {
  if (pid === undefined || !signalGroup(pid, 'SIGTERM')) return
  for (const deadline = Date.now() + graceMs; Date.now() < deadline;) {
    if (!signalGroup(pid, 0) || !await groupLives(pid)) return
    await new Promise(resolve => setTimeout(resolve, 20))
  }
  signalGroup(pid, 'SIGKILL')
  // A process in an uninterruptible wait of the kernel dies later: it is not waited for.
  for (const deadline = Date.now() + 1000; Date.now() < deadline && await groupLives(pid);) {
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}

/** Whether a process of the group still runs. In a container whose first process reaps nobody, dead ones stay as zombies. */
async function groupLives(group: number): Promise<boolean> {
  const pids = (await readdir('/proc').catch(() => [])).filter(name => /^\d+$/u.test(name))
  const stats = await Promise.all(pids.map(pid => readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')))
  return stats.some(stat => {
    const [state, , pgrp] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return pgrp === String(group) && state !== 'Z' && state !== 'X'
  })
}

/** Signals a process group; false when nobody of it is left (or none that we may signal: a command behind sudo). */
function signalGroup(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    process.kill(-pid, signal)
    return true
  } catch {
    return false
  }
}

/** The last lines of an output, for a message. */
export function lastLines(output: string, lines = 5): string {
  return output.split('\n').slice(-lines).join('\n')
}
