/** The account key (spec §3.2, `accountKey`): whoever has it can have certificates for every name here. */
import { stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { normalizeAccountKey } from './core/accountKey.js'
import { OperationalError } from './core/errors.js'
import { createFile, explained, readText } from './edge/store.js'
import { makeKey } from './edge/x509.js'

/** The key in PEM (PKCS#8), whether it was made just now, and a warning about its mode. */
export interface AccountKey {
  readonly pem: string
  readonly made: boolean
  readonly warning?: string
}

/** Reads the account key; makes it (EC P-256, 0600) when the file is missing and its directory is there. */
export async function accountKey(path: string): Promise<AccountKey> {
  const present = await existing(path)
  if (present !== undefined) return present
  const directory = await stat(dirname(path)).catch(() => undefined)
  if (directory?.isDirectory() !== true) throw new OperationalError(`the account key ${path} is missing, and so is its directory: make the directory (0700) and run again`)
  const pem = await makeKey('ec', { curve: 'prime256v1', keyBitsRSA: 2048 })
  if (await createFile(path, pem, 0o600)) return { pem, made: true }
  // Another run (--test beside --prod) was faster, and registers that key: ours must not take its place.
  const others = await existing(path)
  if (others === undefined) throw new OperationalError(`the account key ${path} is a link that leads nowhere: make what it leads to, or remove the link`)
  return others
}

async function existing(path: string): Promise<AccountKey | undefined> {
  const warning = await modeProblem(path)
  const file = await readText(path)
  if (file.state === 'unreadable') throw new OperationalError(`the account key ${path} cannot be read: ${file.why}; make it readable for the user that runs lematt`)
  if (file.state === 'missing') return undefined
  return { pem: normalizeAccountKey(file.text, `the account key ${path}`), made: false, ...(warning === undefined ? {} : { warning }) }
}

/** What is wrong with who may read the key. @throws OperationalError when others may write it */
export async function modeProblem(path: string): Promise<string | undefined> {
  const found = await stat(path).catch((error: unknown) => {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw explained(error, `cannot look at the account key ${path}`)
  })
  if (found === undefined) return undefined
  const mode = found.mode & 0o777
  if ((mode & 0o022) !== 0) throw new OperationalError(`the account key ${path} can be written by others (mode ${mode.toString(8)}): chmod 600 ${path}, and replace it if you do not trust them`)
  return (mode & 0o044) === 0 ? undefined : `the account key ${path} can be read by others (mode ${mode.toString(8)}): chmod 600 ${path}`
}
