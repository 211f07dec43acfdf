// Programs that a lab starts: to their end (run) or in the background (Daemon). Unlike
// run.ts it ends whole process groups, for the way into a lab's machine is a process too.
import { spawn, type ChildProcess } from 'node:child_process'
import { until } from './until.js'

/** How a program ended, and what it printed. */
export interface Ran { code: number | null; signal: NodeJS.Signals | null; stdout: string; stderr: string }

export interface RunOptions {
  /** Added to this process's environment; undefined removes a variable. */
  env?: Record<string, string | undefined>
  cwd?: string
  input?: string
  /** The whole process group is killed after this; default 60 000. */
  timeoutMs?: number
}

const living = new Set<Daemon>()
process.on('exit', () => {
  for (const daemon of living) daemon.kill('SIGKILL')
})

/** A program in the background, in a process group of its own. */
export class Daemon {
  stdout = ''
  stderr = ''
  /** Resolves when the program has ended and its output is read; never rejects. */
  readonly ended: Promise<Ran>
  readonly child: ChildProcess

  constructor(readonly command: string, args: readonly string[], options: RunOptions = {}) {
    this.child = spawn(command, args, {
      cwd: options.cwd, env: { ...process.env, ...options.env }, detached: true, stdio: ['pipe', 'pipe', 'pipe'],
    })
    living.add(this)
    // The program may end before it has read its input.
    this.child.stdin?.on('error', () => undefined)
    if (options.input !== undefined) this.child.stdin?.end(options.input)
    this.child.stdout?.setEncoding('utf8').on('data', (text: string) => { this.stdout += text })
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => { this.stderr += text })
    this.ended = new Promise(resolve => {
      const done = (code: number | null, signal: NodeJS.Signals | null) => {
        living.delete(this)
        resolve({ code, signal, stdout: this.stdout, stderr: this.stderr })
      }
      this.child.on('error', error => {
        this.stderr += error.message
        done(127, null)
      })
      this.child.on('close', done)
    })
  }

  /** Process id; it is also that of its group. */
  get pid(): number {
    return this.child.pid ?? 0
  }

  get running(): boolean {
    return living.has(this)
  }

  /** Signals the whole group; nothing happens when it is gone. */
  kill(signal: NodeJS.Signals): void {
    try {
      if (this.pid > 0) process.kill(-this.pid, signal)
    } catch {
      // The group has ended.
    }
  }

  /** Ends the group: TERM, after 3 s KILL. */
  async stop(): Promise<Ran> {
    this.kill('SIGTERM')
    const killer = setTimeout(() => this.kill('SIGKILL'), 3000)
    const ran = await this.ended
    clearTimeout(killer)
    return ran
  }

  /**
   * Waits until a condition holds; what it throws counts as "not yet".
   * @throws Error with what the program printed, when it ends first
   */
  async ready(what: string, holds: () => boolean | Promise<boolean>): Promise<this> {
    await until(async () => !this.running || await Promise.resolve().then(holds).catch(() => false),
      { what: `${this.command}: ${what}` })
    if (!this.running) throw new Error(`${this.command} ended: ${this.stderr || this.stdout}`)
    return this
  }
}

/** Runs a program to its end, with an empty standard input unless `input` is given. Never rejects. */
export async function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<Ran> {
  const program = new Daemon(command, args, { input: '', ...options })
  const killer = setTimeout(() => program.kill('SIGKILL'), options.timeoutMs ?? 60_000)
  const ran = await program.ended
  clearTimeout(killer)
  return ran
}

/** Runs a program that must exit 0. @returns its standard output @throws Error with what it printed */
export async function must(command: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const ran = await run(command, args, options)
  if (ran.code !== 0) {
    throw new Error(`${command} ${args.join(' ')}: exit ${String(ran.code ?? ran.signal)}: ${ran.stderr}${ran.stdout}`)
  }
  return ran.stdout
}
