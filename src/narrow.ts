/** What the command line names, found in the configuration: a name that nobody has would look like "nothing is due". */
import { UsageError } from './core/errors.js'
import { isNarrowedTo, type Narrowing } from './core/plan.js'
import { withoutReceipts } from './core/receipts.js'
import { cleanLine } from './core/text.js'
import type { Configuration, Held, Receipts } from './core/types.js'

/** As asked for. */
export interface Asked {
  readonly only?: ReadonlySet<string>
  readonly force?: boolean
  /** `lematt deliver`: subjects (identifier, label, NAME) and sections; all when there are none. */
  readonly deliver?: { readonly targets: readonly string[]; readonly again: boolean }
}

/** Whether names are to be looked up, so that `narrow` needs an inventory. */
export const namesAny = ({ only, deliver }: Asked): boolean => only !== undefined || (deliver?.targets.length ?? 0) > 0

/** @throws UsageError naming what nothing in the configuration is called */
export function narrow({ only, force = false, deliver }: Asked, inventory: readonly Held[], { sections }: Configuration): Narrowing {
  const isSubject = (name: string): boolean => inventory.some(held => isNarrowedTo(held, new Set([name])))
  const isSection = (name: string): boolean => sections.some(section => section.name === name)
  if (deliver === undefined) {
    refuse([...only ?? []].filter(name => !isSubject(name)), '--only', 'no subject in domains has this name or label')
    return { force, ...(only === undefined ? {} : { only }) }
  }
  refuse(deliver.targets.filter(name => !isSubject(name) && !isSection(name)), 'deliver', 'neither a section of actions.conf nor a subject in domains has this name')
  const named = { sections: deliver.targets.filter(isSection), subjects: deliver.targets.filter(name => !isSection(name)) }
  return {
    deliver: { again: deliver.again, ...(named.sections.length === 0 ? {} : { sections: new Set(named.sections) }) },
    ...(named.subjects.length === 0 ? {} : { only: new Set(named.subjects) }),
  }
}

function refuse(unknown: readonly string[], where: string, why: string): void {
  if (unknown.length > 0) throw new UsageError(`${where} ${unknown.map(name => cleanLine(name, 80)).join(' ')}: ${why}`)
}

/** The receipts without those that `--again` makes void. */
export function receiptsFor({ only, deliver }: Narrowing, receipts: Receipts, inventory: readonly Held[], { sections }: Configuration): Receipts {
  if (deliver?.again !== true) return receipts
  const meant = sections.filter(({ name }) => deliver.sections?.has(name) !== false)
  return withoutReceipts(receipts, meant, inventory.filter(held => isNarrowedTo(held, only)))
}
