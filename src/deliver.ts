/**
 * Deliveries → outcomes (spec §5): section after section in the order of the file, the steps of one section in order up to the
 * first failure. A receipt is written after each command that succeeded, so nothing is repeated and nothing forgotten,
 * wherever the run is cut short.
 */
import { commandsOf } from './core/substitute.js'
import { withoutUpdates, withReceipts } from './core/receipts.js'
import { parkedMessage } from './core/report.js'
import type { Configuration, Delivery, DeliveryOutcome, Mode, Receipts } from './core/types.js'
import { lastLines, runCommand } from './edge/shell.js'
import type { StorePaths } from './edge/store.js'
import type { Listener } from './progress.js'

export interface DeliverContext {
  readonly configuration: Configuration
  readonly mode: Mode
  readonly paths: StorePaths
  readonly workingDirectory: string
  readonly clock: () => Date
  readonly signal: AbortSignal
  readonly listen: Listener
  /** Saves the receipts; never rejects for what can be expected. */
  readonly keep: (receipts: Receipts) => Promise<void>
}

/** @returns the outcomes, and the receipts as they are on disk now */
export async function deliver(deliveries: readonly Delivery[], receipts: Receipts, context: DeliverContext): Promise<{ outcomes: DeliveryOutcome[]; receipts: Receipts }> {
  const outcomes: DeliveryOutcome[] = []
  for (const delivery of deliveries) {
    const result = await deliverSection(delivery, receipts, context)
    receipts = result.receipts
    outcomes.push(result.outcome)
    context.listen({ type: 'delivered', outcome: result.outcome })
  }
  return { outcomes, receipts }
}

interface SectionResult {
  readonly outcome: DeliveryOutcome
  readonly receipts: Receipts
}

async function deliverSection(delivery: Delivery, receipts: Receipts, context: DeliverContext): Promise<SectionResult> {
  if (delivery.parked !== undefined) return { outcome: { status: 'parked', delivery, message: parkedMessage(delivery.parked) }, receipts }
  const { section } = delivery
  const ran: string[] = []
  for (const step of delivery.steps) {
    if (interrupted(context)) return { outcome: { status: 'parked', delivery, message: 'interrupted' }, receipts }
    if (step.kind !== 'update') receipts = await saved(withoutUpdates(receipts, section, step.certificates), receipts, context)
    for (const part of commandsOf(step, context.paths)) {
      context.listen({ type: 'delivery', delivery, doing: step.command })
      const result = await runCommand(part.command, {
        env: { LEMATT_MODE: context.mode, LEMATT_SECTION: section.name },
        cwd: context.workingDirectory,
        signal: context.signal,
        timeoutSeconds: context.configuration.settings.commandTimeoutSeconds,
      })
      if (!result.ok) {
        if (interrupted(context)) return { outcome: { status: 'parked', delivery, message: `interrupted in ${step.kind}` }, receipts }
        const said = lastLines(result.output, 20)
        return { outcome: { status: 'failed', delivery, ran, step: `${step.kind} "${step.command}"`, message: `${result.how}${said === '' ? '' : `\n${said}`}` }, receipts }
      }
      context.listen({ type: 'step', delivery, command: step.command, output: result.output })
      receipts = await saved(withReceipts(receipts, section.name, step.key, part.certificates, context.clock()), receipts, context)
    }
    ran.push(`${step.kind} ${step.command}`)
  }
  return { outcome: { status: 'done', delivery, ran }, receipts }
}

/** A function, for the compiler would hold the signal to be what it was at the first look. */
const interrupted = ({ signal }: DeliverContext): boolean => signal.aborted

async function saved(receipts: Receipts, before: Receipts, { keep }: DeliverContext): Promise<Receipts> {
  if (receipts !== before) await keep(receipts)
  return receipts
}
