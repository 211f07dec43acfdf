/** Running a command to its end and looking at everything that came of it. */
import { spawn } from 'node:child_process'

export interface Ran {
  /** The exit code; null when it was ended by a signal. */
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface RunOptions {
  /** The whole environment; by default ours. */
  readonly env?: NodeJS.ProcessEnv
  readonly cwd?: string
  /** Text for standard input, which is then closed. Default: none. */
  readonly input?: string | Buffer
  /** Milliseconds after which it is killed (code null). Default: 20 s. */
  readonly timeout?: number
}

/** Runs `command` without a shell and waits for its end. Rejects only when it cannot be started. */
export function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<Ran> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      env: options.env ?? process.env,
      cwd: options.cwd,
      timeout: options.timeout ?? 20_000,
      killSignal: 'SIGKILL',
    })
    const out = { stdout: '', stderr: '' }
    for (const name of ['stdout', 'stderr'] as const) {
      child[name].setEncoding('utf8').on('data', (text: string) => {
        out[name] += text
      })
    }
    // A command that does not read its input closes it early.
    child.stdin.on('error', () => undefined)
    child.stdin.end(options.input ?? '')
    child.once('error', reject)
    child.once('close', (code) => resolve({ code, ...out }))
  })
}
