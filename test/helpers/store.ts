/** A store in a temporary directory, and what is in it. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import type { CertificateFiles } from '../../src/core/types.js'
import { makeStore, storePaths, type StorePaths } from '../../src/edge/store.js'

/** A temporary directory that is removed after the test. */
export function temporaryDirectory(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'lematt-store-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

/** An empty store, removed after the test. */
export async function temporaryStore(t: TestContext): Promise<StorePaths> {
  const paths = storePaths(temporaryDirectory(t), 'prod')
  await makeStore(paths)
  return paths
}

/** The files of a NAME, with links for further names. */
export const filesOf = (name: string, ...links: string[]): CertificateFiles => ({
  key: `${name}-key.prime256v1.pem`, certificate: `${name}-cert-combined.prime256v1.pem`, csr: `${name}-csr.prime256v1.csr`,
  keyLinks: links.map(l => `${l}-key.prime256v1.pem`), certificateLinks: links.map(l => `${l}-cert-combined.prime256v1.pem`),
})

/** Everything in the store's directories: `key/a.pem`. */
export const allEntries = (paths: StorePaths): string[] =>
  Object.entries({ key: paths.key, cert: paths.certificate, csr: paths.csr, previous: paths.previous, state: paths.state })
    .flatMap(([name, path]) => readdirSync(path).sort().map(entry => `${name}/${entry}`))

/** Hidden files: after a mend there must be none. */
export const hidden = (paths: StorePaths): string[] => allEntries(paths).filter(entry => entry.includes('/.'))

export const modeOf = (path: string): string => (statSync(path).mode & 0o7777).toString(8)

/** Key and certificate as they stand on disk. */
export function pairOnDisk(paths: StorePaths, files: CertificateFiles): { key: string; certificate: string } {
  return { key: readFileSync(join(paths.key, files.key), 'utf8'), certificate: readFileSync(join(paths.certificate, files.certificate), 'utf8') }
}
