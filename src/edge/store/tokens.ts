/**
 * Challenge files lie outside the store, where the web server serves them. Each is noted here before it is made, so that the
 * run after one that was killed can take it away. The lock of the state directory says whose notes they are.
 */
import { appendFile, readFile, rm, unlink } from 'node:fs/promises'
import { basename, isAbsolute, join } from 'node:path'
import { explained } from './atomic.js'

const notesFile = 'tokens'

/** Notes files (absolute paths) that are about to be made. @throws OperationalError when the state cannot be written */
export async function noteTokens(stateDirectory: string, files: readonly string[]): Promise<void> {
  const path = join(stateDirectory, notesFile)
  try {
    await appendFile(path, files.map(file => `${file}\n`).join(''), { mode: 0o600 })
  } catch (error) {
    throw explained(error, `cannot write ${path}`)
  }
}

/** The run has removed its files itself. */
export async function forgetTokens(stateDirectory: string): Promise<void> {
  await rm(join(stateDirectory, notesFile), { force: true }).catch(() => undefined)
}

/** Removes what a killed run has left; returns a sentence if there was something. Never throws: it is housekeeping. */
export async function sweepTokens(stateDirectory: string): Promise<string[]> {
  const text = await readFile(join(stateDirectory, notesFile), 'utf8').catch(() => '')
  // A token or its temp file (edge/challenge.ts), base64url: whatever else stands here after a crash is no file of ours.
  const files = text.split('\n').filter(file => isAbsolute(file) && /^(?:\.lematt-)?[A-Za-z0-9_-]+$/u.test(basename(file)))
  const removed = await Promise.all(files.map(file => unlink(file).then(() => true, () => false)))
  await forgetTokens(stateDirectory)
  const n = removed.filter(yes => yes).length
  return n === 0 ? [] : [`removed ${n} challenge file${n === 1 ? '' : 's'} (an earlier run was cut short)`]
}
