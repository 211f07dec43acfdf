/** Keeps what a run leaves for the next one (spec §4, `state/`), as often as it changes. */
import { createHash } from 'node:crypto'
import { OperationalError } from './core/errors.js'
import type { Receipts, State } from './core/types.js'
import { saveFailures, saveReceipts } from './edge/store.js'

export interface Keeper {
  readonly receipts: (receipts: Receipts) => Promise<void>
  readonly failures: (state: State) => Promise<void>
  /** What could not be saved, each once. */
  readonly problems: () => string[]
}

/**
 * Saves the state where it has changed. What cannot be saved is told at the end and done again the next night: no reason to
 * stop this one.
 * @param loaded what stands on the disk; undefined when that is damaged and must be replaced
 */
export function keeper(directory: string, loaded: State | undefined): Keeper {
  const problems = new Set<string>()
  const failuresOf = ({ orderFailures, deliveryFailures, hostFailures, accountBar }: State): object => ({ orderFailures, deliveryFailures, hostFailures, accountBar })
  const kept = loaded === undefined ? { receipts: '', failures: '' } : { receipts: digest(loaded.receipts), failures: digest(failuresOf(loaded)) }
  const attempt = async (what: keyof typeof kept, value: object, save: () => Promise<void>): Promise<void> => {
    const now = digest(value)
    if (now === kept[what]) return
    try {
      await save()
      kept[what] = now
    } catch (error) {
      if (!(error instanceof OperationalError)) throw error
      problems.add(error.message)
    }
  }
  return {
    receipts: receipts => attempt('receipts', receipts, () => saveReceipts(directory, receipts)),
    failures: state => attempt('failures', failuresOf(state), () => saveFailures(directory, state)),
    problems: () => [...problems],
  }
}

/** Stands for a value: receipts of a large fleet are megabytes, which need not be held twice. */
const digest = (value: object): string => createHash('sha256').update(JSON.stringify(value)).digest('hex')
