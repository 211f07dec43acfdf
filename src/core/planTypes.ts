/** The words of the contract, second part: what is to be done, and what came of it. Everybody takes them from types.ts. */
import type { Held, HostName, Leaf, Section, UploadKind, VerifyPort } from './types.js'

/** One certificate to be had, with the reason that the operator reads. */
export interface Order {
  readonly held: Held
  readonly reason: string
  /** A new key is made (missing, unusable, of another type or size, or by rule). */
  readonly newKey: boolean
  /** Why it is not tried now; undefined when it is. */
  readonly parked?: { readonly why: string; readonly until?: Date }
}

/** One step of a section with the certificates that it lacks. */
export interface DeliveryStep {
  readonly kind: UploadKind | 'update'
  /** As written in the file. */
  readonly command: string
  /** Under what its receipts stand. */
  readonly key: string
  readonly certificates: readonly Held[]
}

/** One section's steps × the certificates that it still lacks, in order. */
export interface Delivery {
  readonly section: Section
  readonly steps: readonly DeliveryStep[]
  /** All certificates concerned, each once. */
  readonly certificates: readonly Held[]
  readonly reason: string
  readonly parked?: { readonly why: string; readonly until?: Date }
}

/** What one host lacks of one section (spec §8): files, reloads, or only a look at its ports. */
export interface HostDelivery {
  readonly section: Section
  readonly host: HostName
  /** Certificates whose files and links are sent; perhaps none. */
  readonly send: readonly Held[]
  /** Services that are reloaded. */
  readonly reload: readonly string[]
  /** Ports that must show the certificates afterwards. */
  readonly verify: readonly VerifyPort[]
  /** All certificates concerned, each once. */
  readonly certificates: readonly Held[]
  readonly reason: string
  readonly parked?: { readonly why: string; readonly until?: Date }
}

/** What of a host's delivery has been done; each list in the order of the file. */
export interface HostDone {
  /** Files that the host has put in place, links not counted. */
  readonly files: number
  readonly reloaded: readonly string[]
  /** `text` of the ports that were seen to show what they should. */
  readonly verified: readonly string[]
}

export type HostOutcome =
  | { readonly status: 'done'; readonly delivery: HostDelivery; readonly done: HostDone }
  /** `step`: `connect`, `status`, `deliver`, `reload postfix`, `verify 993 25/smtp`. `before`: for `Failure`. */
  | {
    readonly status: 'failed'; readonly delivery: HostDelivery; readonly done: HostDone; readonly step: string; readonly message: string
    readonly before?: Readonly<Record<string, string>>
  }
  /** Not tried, or interrupted in the middle. */
  | { readonly status: 'parked'; readonly delivery: HostDelivery; readonly message: string }

export type OrderOutcome =
  | { readonly status: 'done'; readonly order: Order; readonly leaf: Leaf }
  /**
   * `notBefore`: the CA said when these names may be tried again. `blameless`: what failed says nothing about this certificate
   * (the CA is down, the disk is full), so no back-off begins.
   */
  | { readonly status: 'failed'; readonly order: Order; readonly message: string; readonly notBefore?: Date; readonly blameless?: boolean }
  | { readonly status: 'parked'; readonly order: Order; readonly message: string }

export type DeliveryOutcome =
  | { readonly status: 'done'; readonly delivery: Delivery; readonly ran: readonly string[] }
  | { readonly status: 'failed'; readonly delivery: Delivery; readonly ran: readonly string[]; readonly step: string; readonly message: string }
  | { readonly status: 'parked'; readonly delivery: Delivery; readonly message: string }
