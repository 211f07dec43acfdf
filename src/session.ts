/** What a run needs before its first order: the account at the CA, a way to answer challenges, a store that can be written. */
import { readFile } from 'node:fs/promises'
import { accountKey } from './account.js'
import { AcmeProblem, OperationalError } from './core/errors.js'
import type { Mode, Settings } from './core/types.js'
import { openAcme, type Acme } from './edge/acme.js'
import { allOf, checkDropDirectory, dropDirectory, listener, type Solver } from './edge/challenge.js'
import { noteTokens, readText, type StorePaths } from './edge/store.js'
import { readKey } from './edge/x509.js'
import type { Listener } from './progress.js'

export interface SessionContext {
  readonly settings: Settings
  readonly mode: Mode
  readonly paths: StorePaths
  readonly version: string
  readonly listen: Listener
}

const directoryOf = (settings: Settings, mode: Mode): string => (mode === 'test' ? settings.testDirectory : settings.prodDirectory)

/**
 * Names the CA and the account that are asked: limits and failures of others mean nothing to them. The account goes by the
 * fingerprint of its key.
 */
export async function authorityOf(settings: Settings, mode: Mode): Promise<string> {
  const file = await readText(settings.accountKey)
  let account = 'no account'
  try {
    if (file.state === 'text') account = readKey(file.text).spki.slice(0, 16)
  } catch {
    // A key that cannot be used is told when it is needed.
  }
  return `${directoryOf(settings, mode)} (${account})`
}

/**
 * The way to answer that is configured, and beside it `tunnelled`, which closes with it: nobody knows where the CA will come in.
 * @throws OperationalError with the remedy when challenges cannot be answered
 */
export async function openSolver(context: SessionContext, tunnelled: Solver): Promise<Solver> {
  return allOf(tunnelled, await configuredSolver(context))
}

async function configuredSolver({ settings, paths, listen }: SessionContext): Promise<Solver> {
  const { challengeListen, challengeDropDir = '' } = settings
  if (challengeListen !== undefined) return listener(challengeListen)
  await checkDropDirectory(challengeDropDir)
  return dropDirectory(challengeDropDir, text => listen({ type: 'warning', text }), files => noteTokens(paths.state, files))
}

/** @throws OperationalError or AcmeProblem when the account is not to be had */
export async function openAccount({ settings, mode, version, listen }: SessionContext, signal: AbortSignal): Promise<Acme> {
  const key = await accountKey(settings.accountKey)
  if (key.made) listen({ type: 'note', text: `made a new account key ${settings.accountKey}: keep a copy of it in a safe place` })
  if (key.warning !== undefined) listen({ type: 'warning', text: key.warning })
  const { caBundle } = settings
  const extraRoots = caBundle === undefined ? undefined : await readFile(caBundle, 'utf8').catch((error: unknown) => {
    throw new OperationalError(`caBundle ${caBundle} cannot be read: ${error instanceof Error ? error.message : String(error)}`)
  })
  try {
    return await openAcme({
      directoryUrl: directoryOf(settings, mode),
      accountKeyPem: key.pem,
      contact: settings.contact,
      userAgent: `lematt/${version} (+https://www.rfc-editor.org/rfc/rfc8555) node/${process.versions.node}`,
      signal,
      ...(extraRoots === undefined ? {} : { extraRoots }),
    })
  } catch (error) {
    // RFC 8555 §7.3.6: a deactivated account stays so; its key opens no other.
    if (!(error instanceof AcmeProblem) || error.type !== 'unauthorized') throw error
    throw new OperationalError(`${error.message} (${error.type}); to have a new account, move ${settings.accountKey} away: the next run makes a key`, { cause: error })
  }
}
