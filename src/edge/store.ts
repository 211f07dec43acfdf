/** The store on disk: one door to its parts. */
import { lstat, readdir, readFile } from 'node:fs/promises'
import type { StorePaths } from './store/paths.js'

export { makeStore, storePaths, type StorePaths } from './store/paths.js'
export { mend, savePair, type NewPair } from './store/pairs.js'
export { syncLinks } from './store/links.js'
export { loadState, saveFailures, saveReceipts } from './store/state.js'
export { forgetTokens, noteTokens, sweepTokens } from './store/tokens.js'
export { lockHolder, takeLock } from './store/lock.js'
export { explained, writeAtomically } from './store/atomic.js'

/** What became of reading one file of the store. */
export type FileText = { readonly state: 'missing' } | { readonly state: 'unreadable'; readonly why: string } | { readonly state: 'text'; readonly text: string }

/** Reads a PEM file whole; one over a megabyte is none of ours. */
export async function readText(path: string): Promise<FileText> {
  try {
    const text = await readFile(path, 'utf8')
    return text.length > 1_000_000 ? { state: 'unreadable', why: 'larger than a megabyte' } : { state: 'text', text }
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return { state: 'missing' }
    return { state: 'unreadable', why: error instanceof Error ? error.message : String(error) }
  }
}

/**
 * Reads a key or certificate of the store. A link in its place is one that a combined subject had made for this name (spec
 * §4): none of its own, or the key of another subject would be taken for ours. So it counts as missing, and is replaced.
 */
export async function readStored(path: string): Promise<FileText> {
  const stat = await lstat(path).catch(() => undefined)
  return stat?.isSymbolicLink() === true ? { state: 'missing' } : readText(path)
}

/** The entries of the `cert` directory; none when there is no store yet. */
export async function certificateEntries(paths: StorePaths): Promise<string[]> {
  return readdir(paths.certificate).catch(() => [])
}
