/** What the command line names, found in the configuration: a name that nobody has would look like "nothing is due". */
import { UsageError } from './core/errors.js'
import { isWantedAt } from './core/hostPlan.js'
import { withoutHost } from './core/hostReceipts.js'
import { parseIdentifier } from './core/identifier.js'
import { isNarrowedTo, isWanted, type Narrowing } from './core/plan.js'
import { withoutReceipts } from './core/receipts.js'
import { cleanLine } from './core/text.js'
import type { Configuration, Held, Receipts } from './core/types.js'

/** As asked for, in the words that were typed. */
export interface Asked {
  readonly only?: readonly string[]
  readonly force?: boolean
  /** `lematt deliver`: subjects (identifier, label, NAME), sections and hosts; all when there are none. */
  readonly deliver?: { readonly targets: readonly string[]; readonly again: boolean }
}

/** Whether names are to be looked up, so that `narrow` needs an inventory. */
export const namesAny = ({ only, deliver }: Asked): boolean => only !== undefined || (deliver?.targets.length ?? 0) > 0

/** @throws UsageError naming what nothing in the configuration is called */
export function narrow({ only, force = false, deliver }: Asked, inventory: readonly Held[], { sections }: Configuration): Narrowing {
  /** The word as subjects have it: as it is, as `domains` would take it, or in lower case as labels are. */
  const subject = (word: string): string | undefined => {
    const parsed = parseIdentifier(word)
    const forms = [word, ...(parsed.ok ? [parsed.identifier] : []), word.toLowerCase()]
    return forms.find(form => inventory.some(held => isNarrowedTo(held, new Set([form]))))
  }
  const isHost = (word: string): boolean => sections.some(section => section.hosts.includes(word))
  const isSection = (word: string): boolean => sections.some(section => section.name === word)
  const found = (words: readonly string[]): ReadonlySet<string> => new Set(words.map(subject).filter(name => name !== undefined))
  if (deliver === undefined) {
    if (only === undefined) return { force }
    refuse(only.filter(word => subject(word) === undefined), '--only', 'no subject in domains has this name or label')
    return { force, only: found(only) }
  }
  const { targets, again } = deliver
  if (targets.length === 0) return { deliver: { again } }
  refuse(targets.filter(word => !isSection(word) && !isHost(word) && subject(word) === undefined), 'deliver', 'neither a section or host of actions.conf nor a subject in domains has this name')
  return { deliver: { again, targets: { sections: new Set(targets.filter(isSection)), subjects: found(targets), hosts: new Set(targets.filter(isHost)) } } }
}

function refuse(unknown: readonly string[], where: string, why: string): void {
  if (unknown.length > 0) throw new UsageError(`${where} ${unknown.map(word => cleanLine(word, 80)).join(' ')}: ${why}`)
}

/** The receipts without those that `--again` makes void. */
export function receiptsFor(narrowing: Narrowing, receipts: Receipts, inventory: readonly Held[], { sections }: Configuration): Receipts {
  if (narrowing.deliver?.again !== true) return receipts
  return sections.reduce((kept, section) => {
    const steps = withoutReceipts(kept, section, inventory.filter(held => isWanted(narrowing, section, held)))
    return section.hosts.reduce((left, host) => withoutHost(left, section, host, inventory.filter(held => isWantedAt(narrowing, section, host, held))), steps)
  }, receipts)
}
