/** What enrolment writes on the central host (spec §8): a key pair, lines of known_hosts, a block of ssh_config. Each is kept when it is there. */
import { generateKeyPairSync } from 'node:crypto'
import { mkdir, readFile, realpath, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { hostBlock, namesHost, withHostBlock, type HostBlock } from './core/enrolmentClient.js'
import { OperationalError } from './core/errors.js'
import { opensshPair, publicKeyOf } from './core/opensshKey.js'
import { createFile, explained, writeAtomically } from './edge/store.js'

/** What became of a file: `kept` as it was, or changed now. */
export interface Written<T> {
  readonly value: T
  readonly changed: boolean
}

/** A text that may not be there yet. @throws OperationalError when it is there and cannot be read */
async function textOf(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw explained(error, `cannot read ${path}`)
  }
}

/** Replaces a text in one step; what is a link stays one, and the mode stays. */
async function replace(path: string, text: string): Promise<void> {
  const target = await realpath(path).catch(() => path)
  const mode = await stat(target).then(s => s.mode & 0o777, () => 0o600)
  await mkdir(dirname(target), { recursive: true, mode: 0o700 }).catch((error: unknown) => {
    throw explained(error, `cannot make the directory ${dirname(target)}`)
  })
  await writeAtomically(target, text, mode)
}

/** The public key of the pair at `path`, or undefined when there is none. @throws OperationalError for another kind of key */
export async function presentKey(path: string): Promise<string | undefined> {
  const text = await textOf(path)
  if (text === undefined) return undefined
  const own = publicKeyOf(text)
  if (own !== undefined) return own
  // Of another kind, or with a passphrase: its other half stands beside it.
  const [, type, data] = /^(ssh-ed25519|ecdsa-sha2-nistp\d+|ssh-rsa) ([A-Za-z0-9+/]+=*)(?:\s|$)/u.exec(await textOf(`${path}.pub`) ?? '') ?? []
  if (type === undefined || data === undefined) throw new OperationalError(`${path} is no SSH key that lematt has made, and ${path}.pub does not say which it is: move it away, then enrol again`)
  return `${type} ${data}`
}

/** Makes an ed25519 pair at `path` and `path`.pub when there is none; never replaces one. */
export async function makeKey(path: string, comment: string): Promise<Written<string>> {
  const present = await presentKey(path)
  if (present !== undefined) return { value: present, changed: false }
  const { d = '', x = '' } = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' })
  const pair = opensshPair(Buffer.from(d, 'base64url'), Buffer.from(x, 'base64url'), comment)
  await mkdir(dirname(path), { recursive: true, mode: 0o700 }).catch((error: unknown) => {
    throw explained(error, `cannot make the directory ${dirname(path)}`)
  })
  // Somebody else may have made one meanwhile; then that is the pair.
  if (!await createFile(path, pair.privateKey, 0o600)) return { value: await presentKey(path) ?? pair.publicKey, changed: false }
  await writeAtomically(`${path}.pub`, `${pair.publicKey} ${comment}\n`, 0o644)
  return { value: pair.publicKey, changed: true }
}

/** Adds lines to known_hosts. */
export async function pin(path: string, lines: readonly string[]): Promise<void> {
  const text = await textOf(path) ?? ''
  await replace(path, `${text}${text === '' || text.endsWith('\n') ? '' : '\n'}${lines.join('\n')}\n`)
}

/** Whether ssh_config at `path` has a block for `host` by name. */
export async function hasBlock(path: string, host: string): Promise<boolean> {
  return namesHost(await textOf(path) ?? '', host)
}

/** Puts the block into ssh_config. */
export async function addBlock(path: string, block: HostBlock): Promise<void> {
  await replace(path, withHostBlock(await textOf(path) ?? '', hostBlock(block)))
}
