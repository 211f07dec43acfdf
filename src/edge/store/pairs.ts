/**
 * Key and certificate are replaced all or none (spec §4). The order of a save is what makes a crash mendable:
 *   1. temp files, each synced: key (if new), certificate, request
 *   2. what stands there is kept in `previous/`
 *   3. renames: key, certificate, request
 * So a temp certificate without a temp key means: the key may have been renamed already, look whether they belong together.
 */
import { lstat, readdir, readFile, rename, rm } from 'node:fs/promises'
import { basename, join } from 'node:path'
import type { CertificateFiles } from '../../core/types.js'
import { explained, keepAs, syncDirectory, tempName, tempTarget, writeTemp } from './atomic.js'
import type { StorePaths } from './paths.js'

/** What an order brought. */
export interface NewPair {
  /** PEM; undefined when the key on disk is kept. */
  readonly key?: string
  /** PEM: leaf, then intermediates. */
  readonly certificate: string
  /** PEM. */
  readonly csr: string
}

/** Saves a pair all or none. On failure nothing is replaced and no temp file is left. */
export async function savePair(paths: StorePaths, files: CertificateFiles, pair: NewPair): Promise<void> {
  const renames: { temp: string; to: string }[] = []
  const stage = async (directory: string, file: string, data: string, mode: number): Promise<void> => {
    const to = join(directory, file)
    renames.push({ temp: await writeTemp(to, data, mode), to })
  }
  try {
    if (pair.key !== undefined) await stage(paths.key, files.key, pair.key, 0o600)
    await stage(paths.certificate, files.certificate, pair.certificate, 0o644)
    await stage(paths.csr, files.csr, pair.csr, 0o644)
    await syncPairDirectories(paths)
    await keepAs(join(paths.key, files.key), join(paths.previous, files.key))
    await keepAs(join(paths.certificate, files.certificate), join(paths.previous, files.certificate))
  } catch (error) {
    for (const { temp } of renames.reverse()) await rm(temp, { force: true }).catch(() => undefined)
    throw explained(error, `cannot save ${files.certificate}`)
  }
  await renameAll(renames, paths.previous)
  await syncPairDirectories(paths)
}

/** Renames in this order; when one fails (a directory or an immutable file in its place), those before it are undone. */
async function renameAll(renames: readonly { temp: string; to: string }[], previous: string): Promise<void> {
  const undo: (() => Promise<void>)[] = []
  try {
    for (const { temp, to } of renames) {
      const replaces = await lstat(to).then(stat => stat.isFile(), () => false)
      await rename(temp, to)
      undo.unshift(() => replaces ? keepAs(join(previous, basename(to)), to) : rm(to, { force: true }))
    }
  } catch (error) {
    for (const step of undo) await step().catch(() => undefined)
    for (const { temp } of [...renames].reverse()) await rm(temp, { force: true }).catch(() => undefined)
    throw explained(error, `cannot replace ${renames[undo.length]?.to ?? ''}`)
  }
}

async function syncPairDirectories(paths: StorePaths): Promise<void> {
  await Promise.all([paths.key, paths.certificate, paths.csr].map(syncDirectory))
}

/** Whether a private key and a certificate chain (PEM) belong together and the chain is complete; never throws. */
export type BelongTogether = (keyPem: string, chainPem: string) => boolean

/**
 * Mends what a crash left: a pair half renamed is completed, any other temp file is removed. Returns a sentence per
 * thing mended.
 */
export async function mend(paths: StorePaths, belongTogether: BelongTogether): Promise<string[]> {
  try {
    return await mendAll(paths, belongTogether)
  } catch (error) {
    throw explained(error, 'cannot mend what an earlier run left half done')
  }
}

async function mendAll(paths: StorePaths, belongTogether: BelongTogether): Promise<string[]> {
  const [keys, certificates, requests] = await Promise.all([paths.key, paths.certificate, paths.csr].map(temps))
  const mended: string[] = []
  for (const certificate of certificates ?? []) {
    const key = certificate.replace(/-cert-combined\.(?=[^/]*$)(?!.*-cert-combined\.)/u, '-key.')
    const csr = key.replace(/-key\.(?!.*-key\.)/u, '-csr.').replace(/\.pem$/u, '.csr')
    const temp = join(paths.certificate, tempName(certificate))
    if (keys?.includes(key) !== true && await isHalfRenamed(paths, key, certificate, temp, belongTogether)) {
      await keepAs(join(paths.certificate, certificate), join(paths.previous, certificate))
      await rename(temp, join(paths.certificate, certificate))
      if (requests?.includes(csr) === true) await rename(join(paths.csr, tempName(csr)), join(paths.csr, csr))
      mended.push(`completed ${certificate}, whose new key was in place already (an earlier run was cut short)`)
    } else {
      // The request first, the key last: cut short here too, the next start comes to the same end.
      await rm(join(paths.csr, tempName(csr)), { force: true })
      await rm(temp, { force: true })
      mended.push(`removed an unfinished ${certificate} (an earlier run was cut short; the pair in place is whole)`)
    }
  }
  for (const key of keys ?? []) await rm(join(paths.key, tempName(key)), { force: true })
  // A request alone: its key and certificate were renamed before it.
  for (const csr of await temps(paths.csr)) await rename(join(paths.csr, tempName(csr)), join(paths.csr, csr))
  for (const file of await temps(paths.previous)) await rm(join(paths.previous, tempName(file)), { force: true })
  if (mended.length > 0) await syncPairDirectories(paths)
  return mended
}

async function isHalfRenamed(paths: StorePaths, key: string, certificate: string, temp: string, belongTogether: BelongTogether): Promise<boolean> {
  const read = (path: string): Promise<string> => readFile(path, 'utf8').catch(() => '')
  const keyPem = await read(join(paths.key, key))
  const present = await read(join(paths.certificate, certificate))
  if (present !== '' && belongTogether(keyPem, present)) return false
  return belongTogether(keyPem, await read(temp))
}

async function temps(directory: string): Promise<string[]> {
  const entries = await readdir(directory)
  return entries.map(tempTarget).filter(target => target !== undefined).sort()
}
