/** Deliveries to hosts (spec §8) as text and as JSON, under the rules of report.ts. */
import { certificateCount, certificateJson, firstLine, parkedJson, parkedText } from './reportWords.js'
import { count } from './text.js'
import type { HostDelivery, HostDone, HostOutcome } from './types.js'

/** `[mail] mx1`: one host of one section. */
export const hostTitle = ({ section, host }: Pick<HostDelivery, 'section' | 'host'>): string => `[${section.name}] ${host}`

/** Whether nothing is sent or reloaded, so that only the ports are looked at. */
export const isOnlyLooking = ({ send, reload }: Pick<HostDelivery, 'send' | 'reload'>): boolean =>
  send.length + reload.length === 0

/** The word for an outcome that lines and tables begin with. */
export const hostWord = ({ status, delivery }: HostOutcome): string =>
  status !== 'done' ? status : isOnlyLooking(delivery) ? 'verified' : 'delivered'

/** A line of the plan: `[mail] mx1: 2 certificates, reload postfix dovecot, verify 993 25/smtp: why`. */
export function hostPlanLine(delivery: HostDelivery): string {
  const { send, reload, verify, reason, parked } = delivery
  if (parked !== undefined) return `${hostTitle(delivery)}: ${parkedText(parked)}`
  const parts = [
    ...(send.length === 0 ? [] : [certificateCount(send)]),
    ...(reload.length === 0 ? [] : [`reload ${reload.join(' ')}`]),
    ...(verify.length === 0 ? [] : [`verify ${verify.map(port => port.text).join(' ')}`]),
  ]
  return [hostTitle(delivery), ...(parts.length === 0 ? [] : [parts.join(', ')]), reason].join(': ')
}

/** One line for an outcome, as it comes. Its reason is told too: that a host had drifted is what cron's mail is for. */
export function hostLine(outcome: HostOutcome): string {
  return `${hostWord(outcome)}: ${hostTitle(outcome.delivery)}: ${whatBecame(outcome)}`
}

/** The same as a row of the table at the end of a run. */
export function hostRow(outcome: HostOutcome): string[] {
  return [hostWord(outcome), hostTitle(outcome.delivery), '', firstLine(whatBecame(outcome))]
}

function whatBecame(outcome: HostOutcome): string {
  if (outcome.status === 'done') return `${doneText(outcome.delivery, outcome.done)} (${firstLine(outcome.delivery.reason)})`
  if (outcome.status === 'parked') return outcome.message
  const { delivery, done, step, message } = outcome
  // What is there already is there, whatever failed after it.
  const there = done.files + done.reloaded.length + done.verified.length === 0 ? '' : ` (${doneText(delivery, done)})`
  return `${step}: ${message}${there}`
}

/** `4 files, postfix and dovecot reloaded, 993 and 25/smtp show the new certificate`. */
export function doneText(delivery: HostDelivery, { files, reloaded, verified }: HostDone): string {
  const parts = [
    ...(files === 0 ? [] : [count(files, 'file')]),
    ...(reloaded.length === 0 ? [] : [`${listed(reloaded)} reloaded`]),
    ...(verified.length === 0 ? [] : [`${listed(verified)} ${seen(delivery, verified.length)}`]),
  ]
  return parts.length === 0 ? 'nothing was lacking' : parts.join(', ')
}

function seen({ send, certificates }: HostDelivery, ports: number): string {
  // In test mode a port also passes when it shows the production certificate that it showed before.
  const isTest = certificates.some(held => held.files.certificate.endsWith('.test.pem'))
  if (send.length === 0 || isTest) return ports === 1 ? 'shows what it should' : 'show what they should'
  return `${ports === 1 ? 'shows' : 'show'} the new certificate`
}

/** `a`, `a and b`, `a, b and c`. */
function listed(words: readonly string[]): string {
  return words.length < 2 ? words.join('') : `${words.slice(0, -1).join(', ')} and ${words.at(-1) ?? ''}`
}

// --- JSON (docs/json.md) ---

export const hostDeliveryJson = (delivery: HostDelivery): object => ({
  section: delivery.section.name,
  host: delivery.host,
  reason: delivery.reason,
  certificates: delivery.certificates.map(certificateJson),
  send: delivery.send.map(certificateJson),
  reload: delivery.reload,
  verify: delivery.verify.map(port => port.text),
  ...parkedJson(delivery.parked),
})

const doneJson = ({ files, reloaded, verified }: HostDone): object => ({ files, reloaded, verified })

export const hostOutcomeJson = (outcome: HostOutcome): object => ({
  ...hostDeliveryJson(outcome.delivery),
  status: outcome.status,
  ...(outcome.status === 'parked' ? {} : doneJson(outcome.done)),
  ...(outcome.status === 'failed' ? { step: outcome.step } : {}),
  ...(outcome.status === 'done' ? {} : { message: outcome.message }),
})
