/** The night on one page (spec §5). */
import { formatProblem, OperationalError } from './core/errors.js'
import { isWildcard } from './core/identifier.js'
import { planHosts } from './core/hostPlan.js'
import { afterDeliveries, afterHosts, afterOrders, pruned } from './core/memory.js'
import { afterIssuing, planDeliveries, planOrders, wildcardProblem } from './core/plan.js'
import { ruleWarning } from './core/renewal.js'
import type { PlanReport, Report } from './core/report.js'
import type { Configuration, Held, Mode } from './core/types.js'
import { deliver } from './deliver.js'
import { loadState, makeStore, mend, storePaths, sweepTokens, syncLinks, takeLock } from './edge/store.js'
import { openSsh } from './edge/ssh.js'
import { belongTogether } from './edge/x509.js'
import { serveHosts } from './hosts.js'
import type { Issued } from './issue.js'
import { keeper } from './keep.js'
import { namesAny, narrow, receiptsFor, type Asked } from './narrow.js'
import { observe } from './observe.js'
import type { Listener } from './progress.js'
import { authorityOf } from './session.js'

export interface RunContext {
  readonly configuration: Configuration
  readonly mode: Mode
  readonly asked: Asked
  readonly workingDirectory: string
  readonly version: string
  readonly clock: () => Date
  readonly signal: AbortSignal
  readonly listen: Listener
  /** For `ssh -G` and its agent. */
  readonly environment: Readonly<Record<string, string | undefined>>
}

/** A run, and what nobody expected in it. */
export interface RunResult {
  readonly report: Report
  readonly bugs: readonly unknown[]
}

/** One night: orders for what is due, then deliveries of what is held minus what receipts say, to hosts and by steps. */
export async function run(context: RunContext): Promise<RunResult> {
  const { configuration, mode, asked, clock, listen } = context
  const started = clock()
  const paths = storePaths(configuration.directory, mode)
  const narrowing = narrow(asked, namesAny(asked) ? await observe(configuration, mode, paths) : [], configuration)
  await makeStore(paths)
  const unlock = await takeLock(paths.state, `${paths.state} (--${mode})`)
  const failures: string[] = []
  const ssh = openSsh({ signal: context.signal, environment: context.environment, configFile: configuration.settings.sshConfig })
  try {
    const notes = [...await mend(paths, belongTogether), ...await sweepTokens(paths.state)]
    const { state, warnings } = await loadState(paths.state)
    notes.push(...warnings)
    const keep = keeper(paths.state, warnings.length === 0 ? state : undefined)

    const before = await observe(configuration, mode, paths)
    const authority = await authorityOf(configuration.settings, mode)
    const orders = planOrders({ configuration, inventory: before, state, authority, now: started, narrowing })
    // On most nights nothing is due: what asks a CA is loaded when something is.
    const issued: Issued = orders.length === 0 ? { outcomes: [], bugs: [] } : await (await import('./issue.js')).issue(orders, { ...context, paths, ssh })

    // The disk is the truth, not memory; where nothing was ordered it has not changed since.
    const ordered = orders.some(order => order.parked === undefined)
    const after = ordered ? await observe(configuration, mode, paths).catch(stays(before, failures)) : before
    const links = await syncLinks(paths, after.map(h => h.files))
    notes.push(...links.notes)
    for (const text of notes) listen({ type: 'note', text })
    let kept = pruned(afterOrders(state, issued.outcomes, issued.bar, await authorityOf(configuration.settings, mode), clock()), configuration, after, clock())
    kept = { ...kept, receipts: receiptsFor(narrowing, kept.receipts, after, configuration) }
    await keep.receipts(kept.receipts)
    await keep.failures(kept)

    const served = await serveHosts(after, kept, { ...context, paths, ssh, narrowing, keep: keep.receipts })
    kept = afterHosts({ ...kept, receipts: served.receipts }, served.outcomes, clock())
    await keep.receipts(kept.receipts)
    await keep.failures(kept)

    const deliveries = planDeliveries({ configuration, inventory: after, state: kept, now: clock(), narrowing })
    const delivered = await deliver(deliveries, kept.receipts, { ...context, paths, keep: keep.receipts })
    kept = afterDeliveries({ ...kept, receipts: delivered.receipts }, delivered.outcomes, clock())
    await keep.receipts(delivered.receipts)
    await keep.failures(kept)

    failures.push(...links.failures, ...keep.problems())
    const report = {
      mode, started, ended: clock(), orders: issued.outcomes, hosts: served.outcomes, deliveries: delivered.outcomes, notes, failures,
      warnings: standingWarnings(configuration, after),
    }
    return { report, bugs: [...issued.bugs, ...served.bugs] }
  } finally {
    await ssh.close()
    // It belongs to the report that is on its way.
    const problem = await unlock()
    if (problem !== undefined) failures.push(problem)
  }
}

/** A store that cannot be read any more must not take with it what is to be told: it counts as it was before. */
function stays(before: Held[], failures: string[]): (error: unknown) => Held[] {
  return error => {
    if (!(error instanceof OperationalError)) throw error
    failures.push(error.message)
    return before
  }
}

/** What a run would do now, and why. Reads only, takes no lock. */
export async function dryRun({ configuration, mode, asked, clock }: Pick<RunContext, 'configuration' | 'mode' | 'asked' | 'clock'>): Promise<PlanReport> {
  const now = clock()
  const paths = storePaths(configuration.directory, mode)
  const { state, warnings } = await loadState(paths.state)
  const inventory = await observe(configuration, mode, paths)
  const narrowing = narrow(asked, inventory, configuration)
  const authority = await authorityOf(configuration.settings, mode)
  const orders = planOrders({ configuration, inventory, state, authority, now, narrowing })
  const next = { configuration, inventory: afterIssuing(inventory, orders, now), state: { ...state, receipts: receiptsFor(narrowing, state.receipts, inventory, configuration) }, now, narrowing }
  return { mode, now, orders, hosts: planHosts(next), deliveries: planDeliveries(next), warnings: [...standingWarnings(configuration, inventory), ...warnings] }
}

/** Warnings that stand until somebody changes the configuration. */
export function standingWarnings(configuration: Configuration, inventory: readonly Held[]): string[] {
  const rules = inventory.map(h => (h.certificate.state === 'read' ? ruleWarning(h.certificate.leaf, configuration.settings) : undefined))
  const wildcards = configuration.subjects.flatMap(({ identifiers, place }) => identifiers.filter(isWildcard)
    .map(wildcard => formatProblem({ place, message: wildcardProblem(wildcard) })))
  return [...configuration.warnings.map(formatProblem), ...wildcards, ...new Set(rules.filter(w => w !== undefined))]
}
