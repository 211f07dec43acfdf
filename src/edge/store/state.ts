/**
 * What a run leaves for the next one (`state/`): receipts and failures as JSON, replaced atomically. When a file is lost or
 * cannot be read, the next run does more than it needs to (delivers again), never less.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Failure, Receipts, State } from '../../core/types.js'
import { writeAtomically } from './atomic.js'

const receiptsFile = 'receipts.json'
const failuresFile = 'failures.json'
const version = 1

type Failures = Omit<State, 'receipts'>

/** Reads the state; `warnings` name each file that was unreadable and what follows from it. */
export async function loadState(directory: string): Promise<{ state: State; warnings: string[] }> {
  const warnings: string[] = []
  const receipts = await readJson(join(directory, receiptsFile), isReceipts, 'every certificate is delivered again', warnings)
  const failures = await readJson(join(directory, failuresFile), isFailures, 'earlier failures are forgotten', warnings)
  return { state: { receipts: receipts ?? {}, orderFailures: {}, deliveryFailures: {}, hostFailures: {}, ...failures }, warnings }
}

export const saveReceipts = (directory: string, receipts: Receipts): Promise<void> =>
  writeAtomically(join(directory, receiptsFile), serialise(receipts), 0o644)

export const saveFailures = (directory: string, { orderFailures, deliveryFailures, hostFailures, accountBar }: Failures): Promise<void> =>
  writeAtomically(join(directory, failuresFile), serialise({ orderFailures, deliveryFailures, hostFailures, ...(accountBar === undefined ? {} : { accountBar }) }), 0o644)

const serialise = (data: unknown): string => `${JSON.stringify({ version, data }, null, 1)}\n`

async function readJson<T>(path: string, isValid: (value: unknown) => value is T, consequence: string, warnings: string[]): Promise<T | undefined> {
  let why: string
  try {
    const parsed: unknown = JSON.parse(await readFile(path, 'utf8'))
    if (isRecord(parsed) && parsed['version'] === version && isValid(parsed['data'])) return parsed['data']
    why = 'not of this form'
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    why = error instanceof SyntaxError ? 'damaged' : error instanceof Error ? error.message : String(error)
  }
  warnings.push(`${path} is unreadable (${why}): ${consequence}`)
  return undefined
}

const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value)
const isRecordOf = <T>(value: unknown, isValid: (v: unknown) => v is T): value is Record<string, T> => isRecord(value) && Object.values(value).every(isValid)
const isString = (value: unknown): value is string => typeof value === 'string'

const isReceipts = (value: unknown): value is Receipts =>
  isRecordOf(value, (s): s is Record<string, Record<string, string>> => isRecordOf(s, (p): p is Record<string, string> => isRecordOf(p, isString)))

const isFailure = (value: unknown): value is Failure =>
  isRecord(value) && typeof value['count'] === 'number' && isString(value['last']) && isString(value['message']) && isString(value['of'])
  && (value['notBefore'] === undefined || isString(value['notBefore']))
  && (value['before'] === undefined || isRecordOf(value['before'], isString))

const isFailures = (value: unknown): value is Failures =>
  isRecord(value) && isRecordOf(value['orderFailures'], isFailure) && isRecordOf(value['deliveryFailures'], isFailure)
  // Files written before there were hosts have none.
  && (value['hostFailures'] === undefined || isRecordOf(value['hostFailures'], isFailure))
  && (value['accountBar'] === undefined || isBar(value['accountBar']))

const isBar = (value: unknown): value is State['accountBar'] => isRecordOf(value, isString) && ['until', 'message', 'since', 'authority'].every(key => key in value)
