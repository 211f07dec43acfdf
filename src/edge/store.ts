/** The store on disk: one door to its parts. */
import { lstat, readdir, readFile, stat } from 'node:fs/promises'
import type { StorePaths } from './store/paths.js'

export { makeStore, storePaths, type StorePaths } from './store/paths.js'
export { mend, savePair, type NewPair } from './store/pairs.js'
export { syncLinks } from './store/links.js'
export { loadState, saveFailures, saveReceipts } from './store/state.js'
export { forgetTokens, noteTokens, sweepTokens } from './store/tokens.js'
export { checkStore } from './store/probe.js'
export { lockHolder, takeLock } from './store/lock.js'
export { explained, writeAtomically } from './store/atomic.js'

/** What became of reading one file of the store. */
export type FileText = { readonly state: 'missing' } | { readonly state: 'unreadable'; readonly why: string; readonly denied?: boolean } | { readonly state: 'text'; readonly text: string }

/** A PEM file over a megabyte is none of ours. */
const largest = 1_000_000

/**
 * Reads a PEM file whole. `denied` when it may be sound but could not be read (permission, an error of the disk), and when
 * what stands there could not be replaced by a file either (a directory).
 */
export async function readText(path: string): Promise<FileText> {
  try {
    const found = await stat(path)
    if (found.isDirectory()) return { state: 'unreadable', why: `${path} is a directory`, denied: true }
    if (found.size > largest) return { state: 'unreadable', why: 'larger than a megabyte' }
    return { state: 'text', text: await readFile(path, 'utf8') }
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : ''
    if (code === 'ENOENT') return { state: 'missing' }
    const why = error instanceof Error ? error.message : String(error)
    return { state: 'unreadable', why, ...(['EACCES', 'EPERM', 'EIO', 'ELOOP', 'EMFILE', 'ENFILE'].includes(code) ? { denied: true } : {}) }
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
