/** With what we may log in: key files (OpenSSH's and PEM), and keys of an agent. No passwords; passphrases are the agent's. */
import { createPrivateKey } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import { userInfo } from 'node:os'
import { cleanLine } from '../../core/text.js'
import { keyFingerprint, keyType } from '../../core/knownHosts.js'
import type { SshTarget } from './resolve.js'
import { OpenSSHAgent, parseKey, type AnyAuthMethod, type BaseAgent, type ParsedKey } from './ssh2.js'

/** What one identity file is good for. */
export type Identity =
  | { readonly kind: 'missing' }
  | { readonly kind: 'private'; readonly key: ParsedKey }
  /** Only its public half is open to us: an agent may have the other. */
  | { readonly kind: 'public'; readonly blob: Buffer; readonly note: string }
  | { readonly kind: 'useless'; readonly note: string }

export interface Login {
  /** In the order in which they are tried. */
  readonly methods: readonly AnyAuthMethod[]
  /** What was tried, for the message when none is taken. */
  readonly tried: readonly string[]
  /** What could not even be tried, and why. */
  readonly notes: readonly string[]
}

/** @returns a function that gives a target's login; each key file and agent is read once. Never rejects */
export function loginStore(): (target: SshTarget) => Promise<Login> {
  const files = new Map<string, Promise<Identity>>()
  const agents = new Map<string, Promise<{ keys: ParsedKey[]; note?: string }>>()
  return async target => {
    const methods: AnyAuthMethod[] = []
    const [tried, notes]: [string[], string[]] = [[], []]
    const username = target.user
    const socket = target.identityAgent
    const agent = socket === undefined ? { keys: [] } : await once(agents, socket, () => agentKeys(socket))
    if (agent.note !== undefined) notes.push(agent.note)
    const used = new Set<ParsedKey>()
    const offer = (key: ParsedKey, name: string): void => {
      if (socket === undefined || used.has(key)) return
      used.add(key)
      methods.push({ type: 'agent', username, agent: oneKeyOf(socket, key) })
      tried.push(`${name} by the agent`)
    }
    for (const path of target.identityFiles) {
      const identity = await once(files, path, () => identityOf(path))
      if (identity.kind === 'private') {
        methods.push({ type: 'publickey', username, key: identity.key })
        tried.push(path)
      } else if (identity.kind === 'public') {
        const held = agent.keys.find(key => key.getPublicSSH().equals(identity.blob))
        if (held === undefined) notes.push(identity.note)
        else offer(held, path)
      } else if (identity.kind === 'useless') notes.push(identity.note)
    }
    if (!target.identitiesOnly) for (const key of agent.keys) offer(key, keyFingerprint(key.getPublicSSH()))
    return { methods, tried, notes }
  }
}

function once<T>(kept: Map<string, Promise<T>>, key: string, make: () => Promise<T>): Promise<T> {
  const value = kept.get(key) ?? make()
  kept.set(key, value)
  return value
}

async function identityOf(path: string): Promise<Identity> {
  try {
    const [text, { uid, mode }] = await Promise.all([readFile(path, 'latin1'), stat(path)])
    const publicKey = publicBlob(text)
    if (publicKey !== undefined) return { kind: 'public', blob: publicKey, note: `${path} is a public key, and no agent has its private one` }
    // As ssh does it: only of our own files we know who "others" are.
    if (uid === userInfo().uid && (mode & 0o077) !== 0) return { kind: 'useless', note: `${path} is not used because others can read it: chmod 600 ${path}` }
    const key = readable(text)
    if (!(key instanceof Error)) return { kind: 'private', key }
    const blob = outerPublicKey(text) ?? publicBlob(await readFile(`${path}.pub`, 'latin1').catch(() => ''))
    if (isSecurityKey(blob)) return { kind: 'useless', note: `${path} is a key on a security token (sk), which lematt cannot use` }
    if (!/encrypted|passphrase/iu.test(key.message)) return { kind: 'useless', note: `${path} cannot be read: ${cleanLine(key.message, 100)}; make a new one with ssh-keygen -t ed25519` }
    const note = `${path} has a passphrase: put it into ssh-agent (ssh-add), or make a key without one for lematt`
    return blob === undefined ? { kind: 'useless', note } : { kind: 'public', blob, note }
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(String((error as NodeJS.ErrnoException).code))) return { kind: 'missing' }
    return { kind: 'useless', note: `${path} cannot be read: ${error instanceof Error ? error.message : String(error)}` }
  }
}

/** ssh2 reads OpenSSH's format and PKCS#1/SEC1; PKCS#8 is turned into these. */
function readable(text: string): ParsedKey | Error {
  if (/-----BEGIN ENCRYPTED PRIVATE KEY-----/u.test(text)) return new Error('encrypted')
  if (!/-----BEGIN PRIVATE KEY-----/u.test(text)) {
    const key = parseKey(text)
    return key instanceof Error || !Array.isArray(key) ? key : (key as ParsedKey[])[0] ?? new Error('no key in it')
  }
  try {
    const key = createPrivateKey(text)
    if (key.asymmetricKeyType !== 'rsa' && key.asymmetricKeyType !== 'ec') return new Error('its form (PKCS#8) is only known for RSA and ECDSA')
    return parseKey(key.export({ type: key.asymmetricKeyType === 'rsa' ? 'pkcs1' : 'sec1', format: 'pem' }))
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error))
  }
}

/** The key of a one-line public key file. */
function publicBlob(text: string): Buffer | undefined {
  const [, type, base64] = /^([a-z][\w.@-]+) ([A-Za-z0-9+/]+={0,2})(?:\s|$)/u.exec(text) ?? []
  const blob = base64 === undefined ? undefined : Buffer.from(base64, 'base64')
  return blob !== undefined && keyType(blob) === type ? blob : undefined
}

/** OpenSSH's format has the public key outside of what is encrypted (PROTOCOL.key): magic, cipher, kdf, its options, 1, key. */
function outerPublicKey(text: string): Buffer | undefined {
  const [, base64] = /-----BEGIN OPENSSH PRIVATE KEY-----([A-Za-z0-9+/=\s]+)-----END/u.exec(text) ?? []
  const data = Buffer.from(base64 ?? '', 'base64')
  let at = 'openssh-key-v1\0'.length
  const next = (): Buffer | undefined => {
    if (data.length < at + 4) return undefined
    const start = at + 4
    at = start + data.readUInt32BE(at)
    return at <= data.length ? data.subarray(start, at) : undefined
  }
  for (let field = 0; field < 3; field += 1) if (next() === undefined) return undefined
  at += 4
  const blob = next()
  return blob !== undefined && keyType(blob) !== undefined ? blob : undefined
}

const isSecurityKey = (blob: Buffer | undefined): boolean => blob !== undefined && keyType(blob)?.startsWith('sk-') === true

/** The agent's plain keys; what it holds besides (certificates, sk keys) ssh2 leaves out. */
function agentKeys(socket: string): Promise<{ keys: ParsedKey[]; note?: string }> {
  return new Promise(resolve => {
    const timer = setTimeout(() => resolve({ keys: [], note: `the agent at ${socket} does not answer: start it anew` }), 5000)
    new OpenSSHAgent(socket).getIdentities((error, keys) => {
      clearTimeout(timer)
      if (keys !== undefined) resolve({ keys: keys.filter(isPlain) })
      else resolve({ keys: [], note: `the agent at ${socket} cannot be asked (${cleanLine(error?.message ?? 'no answer', 100)}): start ssh-agent, or set IdentityAgent none` })
    })
  })
}

function isPlain(key: object): key is ParsedKey {
  if (!('getPublicSSH' in key)) return false
  const { type } = key as ParsedKey
  return !type.startsWith('sk-') && !type.includes('-cert-')
}

/** An agent that offers this one key: what else the real one holds is not shown to the host. */
function oneKeyOf(socket: string, key: ParsedKey): BaseAgent {
  const agent = new OpenSSHAgent(socket)
  agent.getIdentities = callback => callback(undefined, [key])
  return agent
}
