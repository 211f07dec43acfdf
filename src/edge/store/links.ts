/** The links `IDENTIFIER-…` beside the combined files (spec §4): a name can move between subjects without reconfiguring a server. */
import { lstat, readdir, readlink, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { CertificateFiles } from '../../core/types.js'
import { explained, linkAtomically } from './atomic.js'
import type { StorePaths } from './paths.js'

/** Links that one directory should have, by link name, with the file that each points to. */
type Wanted = ReadonlyMap<string, string>

/** What the operator should know of: files moved aside, links removed; and what could not be done. */
export interface LinkChanges {
  readonly notes: string[]
  readonly failures: string[]
}

/**
 * Makes the links of all subjects whose files are there, moves regular files that stand in their way to `previous/`,
 * and removes links of names that their subject dropped. One link that cannot be made does not stop the others.
 * @param subjects the files of every slot of the configuration
 */
export async function syncLinks(paths: StorePaths, subjects: readonly CertificateFiles[]): Promise<LinkChanges> {
  const changes: LinkChanges = { notes: [], failures: [] }
  const keys = new Map(subjects.flatMap(s => s.keyLinks.map(l => [l, s.key] as const)))
  const certificates = new Map(subjects.flatMap(s => s.certificateLinks.map(l => [l, s.certificate] as const)))
  await syncDirectoryLinks(paths.key, paths.previous, keys, subjects.map(s => s.key), changes)
  await syncDirectoryLinks(paths.certificate, paths.previous, certificates, subjects.map(s => s.certificate), changes)
  return changes
}

async function syncDirectoryLinks(directory: string, previous: string, wanted: Wanted, owned: readonly string[], changes: LinkChanges): Promise<void> {
  const entries = new Set(await readdir(directory).catch((error: unknown) => {
    changes.failures.push(explained(error, `cannot make the links in ${directory}`).message)
    return []
  }))
  const attempt = async (path: string, action: () => Promise<void>): Promise<void> => {
    try {
      await action()
    } catch (error) {
      changes.failures.push(explained(error, `cannot link ${path}`).message)
    }
  }
  for (const [name, target] of wanted) {
    if (!entries.has(target)) continue
    const path = join(directory, name)
    await attempt(path, async () => {
      const present = entries.has(name) ? await lstat(path) : undefined
      if (present?.isSymbolicLink() === true && await readlink(path) === target) return
      if (present !== undefined && !present.isSymbolicLink()) {
        await rename(path, join(previous, name))
        changes.notes.push(`moved ${name} to previous/: the name now belongs to ${target}`)
      }
      await linkAtomically(path, target)
    })
  }
  const primaries = new Set(owned.map(primaryOf))
  const ownedNames = new Set(owned)
  for (const name of entries) {
    if (wanted.has(name) || ownedNames.has(name) || !/-(?:key|cert-combined)\.[^/]*\.pem$/u.test(name)) continue
    const target = await readlink(join(directory, name)).catch(() => undefined)
    // Only what we would have made, and only where its subject still is: a subject that is gone keeps its links.
    if (target === undefined || target.includes('/') || !(ownedNames.has(target) || primaries.has(primaryOf(target)))) continue
    await attempt(join(directory, name), async () => {
      await rm(join(directory, name), { force: true })
      changes.notes.push(`removed the link ${name}: its subject has that name no more`)
    })
  }
}

/** The primary identifier (or label) and the suffix, by which the files of one subject are known when its names change. */
function primaryOf(file: string): string {
  const match = /^(_wildcard\.[^_]*|[^_]*)(?:_.*)?(-(?:key|cert-combined)\..*)$/u.exec(file)
  return match === null ? file : `${(match[1] ?? '').replace(/-(?:key|cert-combined)\..*$/u, '')}${match[2] ?? ''}`
}
