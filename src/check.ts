/** `lematt check`: configuration, permissions, tools, challenge directory, each finding with its remedy. Changes nothing. */
import { constants } from 'node:fs'
import { access, readFile, stat } from 'node:fs/promises'
import { isIPv6 } from 'node:net'
import { dirname, join } from 'node:path'
import { modeProblem } from './account.js'
import { checkHostKeys } from './checkHostKeys.js'
import { checkStoreOf, type Finding } from './checkStore.js'
import { normalizeAccountKey } from './core/accountKey.js'
import { OperationalError } from './core/errors.js'
import { cleanLine, count } from './core/text.js'
import type { Configuration, Mode } from './core/types.js'
import { checkDropDirectory, listener } from './edge/challenge.js'
import { readText } from './edge/store.js'
import { readKey } from './edge/x509.js'

export interface CheckContext {
  readonly configuration: Configuration
  readonly modes: readonly Mode[]
  readonly path: string
  readonly uid: number | undefined
  readonly clock: () => Date
  /** For `ssh -G`. */
  readonly environment: Readonly<Record<string, string | undefined>>
  readonly signal: AbortSignal
}

/** Everything that can be known without the network. */
export async function check(context: CheckContext): Promise<Finding[]> {
  // In one line each, whatever files and directories are called.
  return (await findings(context)).map(({ level, text }) => ({ level, text: cleanLine(text, Infinity) }))
}

async function findings(context: CheckContext): Promise<Finding[]> {
  const { configuration, modes, path, uid, clock } = context
  const { settings, subjects, sections } = configuration
  const found: Finding[] = [{ level: 'ok', text: `configuration: ${count(subjects.length, 'subject')}, ${count(sections.length, 'section')}` }]
  if (uid === 0) found.push({ level: 'warning', text: 'running as root: lematt needs no root; run it as the owner of the configuration directory (certmaint)' })
  found.push(...await checkAccountKey(settings.accountKey))
  if (settings.challengeDropDir !== undefined && settings.challengeListen === undefined) found.push(await checkDrop(settings.challengeDropDir))
  if (settings.challengeListen !== undefined) found.push(await checkListen(settings.challengeListen))
  if (settings.caBundle !== undefined) found.push(await checkBundle(settings.caBundle))
  if (settings.logFile !== undefined) found.push(await checkLog(settings.logFile))
  found.push(...await checkTools(configuration, path), ...await checkHostKeys(context))
  const standing = new Set<string>()
  for (const mode of modes) {
    const store = await checkStoreOf(configuration, mode, clock())
    found.push(...store.findings)
    for (const warning of store.standing) standing.add(warning)
  }
  return [...found, ...[...standing].map(text => ({ level: 'warning' as const, text }))]
}

async function checkAccountKey(path: string): Promise<Finding[]> {
  try {
    const warning = await modeProblem(path)
    const findings: Finding[] = warning === undefined ? [] : [{ level: 'warning', text: warning }]
    const file = await readText(path)
    if (file.state === 'unreadable') return [{ level: 'error', text: `the account key ${path} cannot be read: ${file.why}; name a key file that this user can read, or none for a new one` }]
    if (file.state === 'missing') {
      const there = await stat(dirname(path)).then(s => s.isDirectory(), () => false)
      return [there
        ? { level: 'ok', text: `the account key ${path} is missing and will be made by the first run` }
        : { level: 'error', text: `the account key ${path} is missing, and so is its directory: make the directory (0700)` }]
    }
    const { keyType } = readKey(file.text)
    if (keyType !== 'other') normalizeAccountKey(file.text, `the account key ${path}`)
    return keyType === 'other'
      ? [{ level: 'error', text: `the account key ${path} is neither RSA nor EC: make one, or remove it and let lematt make one` }]
      : [...findings, { level: 'ok', text: `account key ${path} (${keyType})` }]
  } catch (error) {
    if (!(error instanceof OperationalError)) throw error
    const text = error.message.includes(path) ? error.message : `the account key ${path}: ${error.message}`
    return [{ level: 'error', text }]
  }
}

async function checkDrop(path: string): Promise<Finding> {
  try {
    await checkDropDirectory(path)
  } catch (error) {
    if (!(error instanceof OperationalError)) throw error
    return { level: 'error', text: error.message }
  }
  const { mode } = await stat(path)
  if ((mode & 0o005) !== 0o005) return { level: 'warning', text: `challengeDropDir ${path} cannot be read by everybody (mode ${(mode & 0o777).toString(8)}): make sure that the web server's user can, or chmod 755 ${path}` }
  return { level: 'ok', text: `challengeDropDir ${path} is writable` }
}

/** Whether we may listen there; a port that is busy now may be ours, while a run is in progress. */
async function checkListen(at: { readonly address: string; readonly port: number }): Promise<Finding> {
  try {
    const held = await listener(at)
    await held.close()
    return { level: 'ok', text: `challengeListen ${isIPv6(at.address) ? `[${at.address}]` : at.address}:${at.port}` }
  } catch (error) {
    if (!(error instanceof OperationalError)) throw error
    const busy = (error.cause as NodeJS.ErrnoException).code === 'EADDRINUSE'
    return { level: busy ? 'warning' : 'error', text: error.message }
  }
}

async function checkBundle(path: string): Promise<Finding> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => (error instanceof Error ? error : new Error(String(error))))
  if (text instanceof Error) return { level: 'error', text: `caBundle ${path} cannot be read: ${text.message}; name a file of PEM certificates, or take the key out` }
  return text.includes('-----BEGIN CERTIFICATE-----') ? { level: 'ok', text: `caBundle ${path}` } : { level: 'error', text: `caBundle ${path} holds no PEM certificate: put the root of your ACME server there, between BEGIN CERTIFICATE and END CERTIFICATE` }
}

async function checkLog(path: string): Promise<Finding> {
  const found = await stat(path).catch(() => undefined)
  if (found?.isDirectory() === true) return { level: 'error', text: `logFile ${path} is a directory: name a file in it` }
  const isThere = found !== undefined
  const writable = await access(isThere ? path : dirname(path), constants.W_OK).then(() => true, () => false)
  return writable ? { level: 'ok', text: `logFile ${path}` } : { level: 'error', text: `logFile ${path} is not writable for this user: chown ${isThere ? 'it' : 'its directory'}` }
}

/** Words that a shell knows itself; `.` and the like need no look-up. */
const shellWords = new Set(['.', ':', '[', 'cd', 'command', 'echo', 'eval', 'exec', 'exit', 'export', 'false', 'for', 'if', 'printf', 'set', 'test', 'true', 'umask', 'unset', 'until', 'while', 'case', '{', '(', '!'])

/** The first word of each step must be found on PATH; what needs a shell to understand is left to the shell. */
async function checkTools({ sections }: Configuration, path: string): Promise<Finding[]> {
  const users = new Map<string, Set<string>>()
  // For `ssh -G`, which reads how hosts are reached.
  for (const { name } of sections.filter(({ hosts }) => hosts.length > 0)) users.set('ssh', (users.get('ssh') ?? new Set()).add(name))
  for (const section of sections) {
    for (const command of [...section.prepare, ...section.uploadCerts, ...section.uploadKeys, ...section.update]) {
      const word = /^\s*([A-Za-z0-9_./+-]+)(?=\s|$)/u.exec(command)?.[1]
      if (word !== undefined && !shellWords.has(word)) users.set(word, (users.get(word) ?? new Set()).add(section.name))
    }
  }
  const findings = await Promise.all([...users].map(async ([word, names]): Promise<Finding | undefined> => {
    if (await isOnPath(word, path)) return undefined
    const where = [...names].map(name => `[${name}]`).join(' ')
    return { level: 'error', text: `${word}, used by ${where}, is not to be found or not executable: install it, or give its absolute path (cron's PATH is short)` }
  }))
  const missing = findings.filter(f => f !== undefined)
  return missing.length > 0 ? missing : [{ level: 'ok', text: `tools: ${[...users.keys()].sort().join(' ') || 'none needed'}` }]
}

async function isOnPath(word: string, path: string): Promise<boolean> {
  const candidates = word.includes('/') ? [word] : path.split(':').map(directory => join(directory === '' ? '.' : directory, word))
  // A directory is executable too, and no command.
  const found = await Promise.all(candidates.map(file => Promise.all([stat(file), access(file, constants.X_OK)]).then(([s]) => s.isFile(), () => false)))
  return found.includes(true)
}
