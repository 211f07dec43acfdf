/** The forwarder as it is on a host: one file without an extension, outside of any package, run by plain node. */
import { spawn, type ChildProcess, type StdioOptions } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import ts from 'typescript'
import { until } from './until.js'

const source = new URL('../../forwarder/leforward.cts', import.meta.url)

/** Builds leforward (as `npm run build` does) into a directory of its own; `remove` takes it away again. */
export async function buildLeforward(): Promise<{ path: string, remove: () => Promise<void> }> {
  const directory = await mkdtemp(join(tmpdir(), 'lematt-leforward-'))
  const path = join(directory, 'leforward')
  const { outputText } = ts.transpileModule(readFileSync(source, 'utf8'), {
    fileName: 'leforward.cts',
    compilerOptions: { module: ts.ModuleKind.NodeNext, target: ts.ScriptTarget.ES2023 },
  })
  await writeFile(path, outputText, { mode: 0o755 })
  return { path, remove: () => rm(directory, { recursive: true, force: true }) }
}

export interface Forwarder {
  readonly child: ChildProcess
  /** The port from its first line. */
  readonly port: number
  stdout(): string
  stderr(): string
  /** Resolves with the exit code at its end. */
  readonly ended: Promise<number | null>
  stop(): Promise<void>
}

/** Starts `path` and waits for the line that names its port. Throws with its messages when it ends before. */
export async function startLeforward(
  path: string, args: readonly string[], env: NodeJS.ProcessEnv = {}, stdio: StdioOptions = 'pipe',
): Promise<Forwarder> {
  const child = spawn(path, args, { env: { ...process.env, ...env }, stdio })
  const out = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const) {
    child[name]?.setEncoding('utf8').on('data', (text: string) => {
      out[name] += text
    })
  }
  child.stdin?.on('error', () => undefined)
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve))
  const stop = async (): Promise<void> => {
    child.kill('SIGKILL')
    await ended
  }
  try {
    await until(() => {
      if (child.exitCode !== null) throw new Error(`ended with ${child.exitCode}: ${out.stderr}`)
      return out.stdout.includes('→')
    })
  } catch (error) {
    await stop()
    throw error
  }
  const port = Number(/port (\d+)/u.exec(out.stdout)?.[1])
  return { child, port, stdout: () => out.stdout, stderr: () => out.stderr, ended, stop }
}
