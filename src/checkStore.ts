/** What `lematt check` finds in the store of one mode: who may read and write it, what is due, who runs. Changes nothing. */
import { constants } from 'node:fs'
import { access, lstat, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { OperationalError } from './core/errors.js'
import { planOrders } from './core/plan.js'
import { count } from './core/text.js'
import type { Configuration, Held, Mode, Order } from './core/types.js'
import { loadState, lockHolder, storePaths, type StorePaths } from './edge/store.js'
import { observe } from './observe.js'
import { standingWarnings } from './run.js'
import { authorityOf } from './session.js'

export interface Finding {
  readonly level: 'ok' | 'warning' | 'error'
  readonly text: string
}

export interface StoreFindings {
  readonly findings: readonly Finding[]
  /** Warnings of the configuration and of the rules, which may be the same for both modes. */
  readonly standing: readonly string[]
}

export async function checkStoreOf(configuration: Configuration, mode: Mode, now: Date): Promise<StoreFindings> {
  const paths = storePaths(configuration.directory, mode)
  const findings: Finding[] = []
  const standing: string[] = []
  const { state, warnings } = await loadState(paths.state)
  try {
    const inventory = await observe(configuration, mode, paths)
    standing.push(...standingWarnings(configuration, inventory))
    const orders = planOrders({ configuration, inventory, state, authority: await authorityOf(configuration.settings, mode), now })
    findings.push({ level: 'ok', text: `store ${mode}: ${count(inventory.length, 'certificate')} configured, ${dueText(orders, mode)}` })
    findings.push(...deniedFiles(inventory, mode))
  } catch (error) {
    if (!(error instanceof OperationalError)) throw error
    findings.push({ level: 'error', text: `store ${mode}: ${error.message}` })
  }
  findings.push(...warnings.map(text => ({ level: 'warning' as const, text })))
  findings.push(...await checkDirectories(paths), ...await checkModes(paths.key), ...await checkLock(paths.state, mode))
  return { findings, standing }
}

function dueText(orders: readonly Order[], mode: Mode): string {
  const parked = orders.filter(order => order.parked !== undefined).length
  return `${orders.length} due${parked === 0 ? '' : `, ${parked} of them parked (lematt plan --${mode} says why)`}`
}

function deniedFiles(inventory: readonly Held[], mode: Mode): Finding[] {
  const denied = inventory.flatMap(({ key, certificate }) => [key, certificate]).flatMap(file => (file.state === 'unreadable' && file.denied === true ? [file.why] : []))
  const [first] = denied
  if (first === undefined) return []
  return [{ level: 'error', text: `store ${mode}: ${count(denied.length, 'file')} cannot be read (${first}): make them readable for the user that runs lematt (chown), or move them away` }]
}

/** Each directory of the store that is there must take files. Those that are missing are made by the first run. */
async function checkDirectories(paths: StorePaths): Promise<Finding[]> {
  const findings = await Promise.all(Object.values<string>({ ...paths }).map(async (path): Promise<Finding | undefined> => {
    try {
      await access(path, constants.W_OK | constants.X_OK)
      return undefined
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? error.code : ''
      if (code === 'ENOENT') return undefined
      const remedy = code === 'EROFS' ? 'is on a file system mounted read-only: remount it' : 'is not writable for this user: chown -R it to the user that runs lematt (was a run started as root?)'
      return { level: 'error', text: `${path} ${remedy}` }
    }
  }))
  return findings.filter(f => f !== undefined)
}

async function checkModes(directory: string): Promise<Finding[]> {
  const entries = await readdir(directory).catch(() => [])
  const open: string[] = []
  for (const entry of entries) {
    const found = await lstat(join(directory, entry)).catch(() => undefined)
    if (found?.isFile() === true && (found.mode & 0o077) !== 0) open.push(entry)
  }
  const [first] = open
  return first === undefined ? [] : [{ level: 'warning', text: `${count(open.length, 'key file')} in ${directory} can be read by others (${first}${open.length > 1 ? ', …' : ''}): chmod 600 ${directory}/*.pem` }]
}

async function checkLock(stateDirectory: string, mode: Mode): Promise<Finding[]> {
  const pid = await lockHolder(stateDirectory)
  return pid === undefined ? [] : [{ level: 'ok', text: `a run is in progress (--${mode}, pid ${pid})` }]
}
