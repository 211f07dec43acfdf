/** Where the store is (spec §4): `conf/prod/…` or `conf/test/…`, beside `lematt.conf`. */
import { join } from 'node:path'
import type { Mode } from '../../core/types.js'
import { makeDirectory } from './atomic.js'

export interface StorePaths {
  readonly key: string
  readonly certificate: string
  readonly csr: string
  readonly previous: string
  readonly state: string
}

/** @param directory the configuration directory, absolute */
export function storePaths(directory: string, mode: Mode): StorePaths {
  const base = join(directory, mode)
  return { key: join(base, 'key'), certificate: join(base, 'cert'), csr: join(base, 'csr'), previous: join(base, 'previous'), state: join(base, 'state') }
}

/** Makes what is missing: 0700 for what holds keys or state, 0755 for the rest, whatever the umask. */
export async function makeStore(paths: StorePaths): Promise<void> {
  await makeDirectory(join(paths.key, '..'), 0o755)
  for (const path of [paths.key, paths.previous, paths.state]) await makeDirectory(path, 0o700)
  for (const path of [paths.certificate, paths.csr]) await makeDirectory(path, 0o755)
}
