/** Real keys and certificates for tests, made by openssl. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** A key and what was certified for it, in PEM. */
export interface Pair {
  readonly key: string
  readonly certificate: string
}

/** `openssl ARGS` in a directory of its own; gives the output and the files that it was asked to write. */
export function openssl(args: readonly string[], files: Readonly<Record<string, string>> = {}, wanted: readonly string[] = []): { stdout: string; files: string[] } {
  const directory = mkdtempSync(join(tmpdir(), 'lematt-openssl-'))
  try {
    for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text)
    const stdout = execFileSync('openssl', args, { cwd: directory, stdio: ['ignore', 'pipe', 'pipe'], timeout: 20_000 }).toString()
    return { stdout, files: wanted.map(name => readFileSync(join(directory, name), 'utf8')) }
  } finally {
    rmSync(directory, { recursive: true })
  }
}

export type Algorithm = 'rsa' | 'ec' | 'ed25519'

const newKey: Readonly<Record<Algorithm, readonly string[]>> = {
  rsa: ['-newkey', 'rsa:2048'],
  ec: ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1'],
  ed25519: ['-newkey', 'ed25519'],
}

/**
 * A certificate for names (`DNS:a.example,IP:192.0.2.1`).
 * @param issuer who signs it; by default itself
 */
export function certify(names: string, { algorithm = 'ec', days = 90, issuer, ca = false, cn = 'Test' }: { algorithm?: Algorithm; days?: number; issuer?: Pair; ca?: boolean; cn?: string } = {}): Pair {
  const { files: [key = '', certificate = ''] } = openssl([
    'req', '-x509', ...newKey[algorithm], '-nodes', '-subj', `/CN=${cn}`, '-days', String(days), '-keyout', 'key', '-out', 'certificate',
    ...(names === '' ? [] : ['-addext', `subjectAltName=${names}`]), '-addext', `basicConstraints=critical,CA:${ca ? 'TRUE' : 'FALSE'}`,
    ...(issuer === undefined ? [] : ['-CA', 'issuer', '-CAkey', 'issuer-key']),
  ], issuer === undefined ? {} : { issuer: issuer.certificate, 'issuer-key': issuer.key }, ['key', 'certificate'])
  return { key, certificate }
}
