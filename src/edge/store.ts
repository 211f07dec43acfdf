/** The store on disk: one door to its parts. */
import { lstat, readdir, readFile, stat } from 'node:fs/promises'
import { explained } from './store/atomic.js'
import type { StorePaths } from './store/paths.js'

export { makeStore, storePaths, type StorePaths } from './store/paths.js'
export { mend, savePair, type NewPair } from './store/pairs.js'
export { syncLinks } from './store/links.js'
export { loadState, saveFailures, saveReceipts } from './store/state.js'
export { forgetTokens, noteTokens, sweepTokens } from './store/tokens.js'
export { checkStore } from './store/probe.js'
export { lockHolder, takeLock } from './store/lock.js'
export { createFile, explained, writeAtomically } from './store/atomic.js'

/** What became of reading one file of the store. */
export type FileText = { readonly state: 'missing' } | { readonly state: 'unreadable'; readonly why: string; readonly denied?: boolean } | { readonly state: 'text'; readonly text: string }

/** A PEM file over a megabyte is none of ours. */
const largest = 1_000_000

/**
 * Reads a PEM file whole. Only what was read and is none can be bad and worth a new one; whatever kept us from reading
 * (permission, a disk or a file server that fails, too many open files) is `denied`: what stands there may be sound. So is
 * what could not be replaced by a file either (a directory).
 */
export async function readText(path: string): Promise<FileText> {
  try {
    const found = await stat(path)
    if (found.isDirectory()) return { state: 'unreadable', why: `${path} is a directory`, denied: true }
    if (found.size > largest) return { state: 'unreadable', why: 'larger than a megabyte' }
    return { state: 'text', text: await readFile(path, 'utf8') }
  } catch (error) {
    return notRead(error)
  }
}

/**
 * Reads a key or certificate of the store. A link in its place is one that a combined subject had made for this name (spec
 * §4): none of its own, or the key of another subject would be taken for ours. So it counts as missing, and is replaced.
 */
export async function readStored(path: string): Promise<FileText> {
  try {
    return (await lstat(path)).isSymbolicLink() ? { state: 'missing' } : await readText(path)
  } catch (error) {
    return notRead(error)
  }
}

function notRead(error: unknown): FileText {
  return isMissing(error) ? { state: 'missing' } : { state: 'unreadable', why: error instanceof Error ? error.message : String(error), denied: true }
}

const isMissing = (error: unknown): boolean => error instanceof Error && 'code' in error && error.code === 'ENOENT'

/**
 * The entries of the `cert` directory; none when there is no store yet.
 * @throws OperationalError when it cannot be read: an empty list would have everything issued again, under other names
 */
export async function certificateEntries(paths: StorePaths): Promise<string[]> {
  try {
    return await readdir(paths.certificate)
  } catch (error) {
    if (isMissing(error)) return []
    throw explained(error, `cannot read the directory ${paths.certificate}`)
  }
}
