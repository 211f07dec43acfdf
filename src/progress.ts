/** What happens during a run, as values: whoever shows or logs it listens (cli.ts, edge/log.ts). */
import type { Delivery, DeliveryOutcome, HostDelivery, HostOutcome, Order, OrderOutcome } from './core/types.js'

export type Progress =
  | { readonly type: 'order'; readonly order: Order; readonly doing: string }
  | { readonly type: 'ordered'; readonly outcome: OrderOutcome }
  | { readonly type: 'delivery'; readonly delivery: Delivery; readonly doing: string }
  /** A step that succeeded, with what it printed. */
  | { readonly type: 'step'; readonly delivery: Delivery; readonly command: string; readonly output: string }
  | { readonly type: 'delivered'; readonly outcome: DeliveryOutcome }
  /** One host of one section: what is being done there, in a few words. */
  | { readonly type: 'host'; readonly delivery: HostDelivery; readonly doing: string }
  | { readonly type: 'hosted'; readonly outcome: HostOutcome }
  /** A look at a host found all as it should be, which is no outcome: its live line goes. */
  | { readonly type: 'well'; readonly delivery: HostDelivery }
  /** Something changed besides. */
  | { readonly type: 'note'; readonly text: string }
  | { readonly type: 'warning'; readonly text: string }

export type Listener = (progress: Progress) => void
