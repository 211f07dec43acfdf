/** Words that text and JSON of plan and report share. */
import { count } from './text.js'
import type { Held, Order } from './types.js'

/** How a subject is called on screen: its label, or its primary and how many more. */
export function title(held: Pick<Held, 'subject'>): string {
  const { identifiers: [primary, ...others], label } = held.subject
  return label ?? (others.length === 0 ? primary : `${primary} +${others.length}`)
}

/** `2026-11-21 10:05 UTC`. What others' certificates say may be no date. */
export const formatTime = (date: Date): string => (Number.isNaN(date.getTime()) ? 'an unreadable date' : `${date.toISOString().slice(0, 16).replace('T', ' ')} UTC`)

type Parked = NonNullable<Order['parked']>

/** Why an order or delivery was not tried, and until when it will not be. */
export const parkedMessage = ({ why, until }: Parked): string =>
  `${until === undefined ? '' : `until ${formatTime(until)}: `}${why}`

/** `parked until 2026-11-21 10:05 UTC: why`, for a plan. */
export const parkedText = (parked: Parked): string => `parked${parked.until === undefined ? ':' : ''} ${parkedMessage(parked)}`

/** The part of a longer message that fits into a table. */
export const firstLine = (text: string): string => text.split('\n')[0] ?? ''

/** `3 certificates`. */
export const certificateCount = (certificates: readonly Held[]): string => count(certificates.length, 'certificate')

export const certificateJson = (held: Held): object => ({
  name: held.name, keyType: held.keyType, identifiers: held.subject.identifiers,
})

export function parkedJson(parked: Parked | undefined): object {
  if (parked === undefined) return {}
  return { parked: { why: parked.why, ...(parked.until === undefined ? {} : { until: parked.until.toISOString() }) } }
}
