/** Whether the store takes new files. Asked before an order is spent on a certificate that could not be saved. */
import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { explained } from './atomic.js'
import type { StorePaths } from './paths.js'

const probeName = '.lematt-probe'

/** As large as key, certificate and request of one subject are together. */
const probeBytes = 8192

/**
 * Makes, syncs and removes a file in each directory that a pair is saved to. Only under the lock of the store.
 * @throws OperationalError that names the first directory which takes none, and what to do
 */
export async function checkStore(paths: StorePaths): Promise<void> {
  const directories = [paths.key, paths.certificate, paths.csr, paths.previous]
  const tried = await Promise.allSettled(directories.map(probe))
  for (const each of tried) if (each.status === 'rejected') throw each.reason
}

async function probe(directory: string): Promise<void> {
  const path = join(directory, probeName)
  try {
    await rm(path, { force: true })
    const file = await open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600)
    try {
      // Without its name from here on, so that nothing is left of it, however this ends.
      await rm(path)
      // Random, for a file system that compresses would find room for 8192 zeros.
      await file.writeFile(randomBytes(probeBytes))
      await file.sync()
    } finally {
      await file.close()
    }
  } catch (error) {
    throw explained(error, `cannot write into the directory ${directory}`)
  }
}
