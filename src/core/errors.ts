/** The errors that the program expects. Anything else that is thrown is a bug (exit 70, cli.ts). */
import type { Identifier, Problem } from './types.js'

/** Something is wrong with the configuration or the command line: exit 2, nothing touched. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
  constructor(readonly problems: readonly Problem[]) {
    super(problems.map(formatProblem).join('\n'))
  }
}

/** The command line itself is wrong: exit 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/** A failure outside of us (disk, host, CA) whose message names the thing and the remedy: exit 1. */
export class OperationalError extends Error {
  override readonly name: string = 'OperationalError'
}

/** Another run of the same mode holds the lock: exit 75. */
export class LockedError extends Error {
  override readonly name = 'LockedError'
  constructor(readonly pid: number, what: string) {
    super(`another lematt (pid ${pid}) is running on ${what}; wait for it, or end it`)
  }
}

/** One entry of a compound problem document (RFC 8555 §6.7.1). */
export interface Subproblem {
  readonly type: string
  readonly detail: string
  readonly identifier?: Identifier
}

/**
 * What an ACME server objected to (RFC 7807, RFC 8555 §6.7), or why it could not be asked. Texts are the
 * server's own, stripped of control characters and cut to a bounded length.
 */
export class AcmeProblem extends Error {
  override readonly name = 'AcmeProblem'
  /** Without the `urn:ietf:params:acme:error:` prefix; ours are `connection-failed`, `timeout`, `malformed-answer`. */
  readonly type: string
  /** HTTP status; 0 when there was no answer. */
  readonly status: number
  readonly subproblems: readonly Subproblem[]
  /** Which identifier it is about, where that is known. */
  readonly identifier?: Identifier
  /** Seconds from now, from the Retry-After header (RFC 9110 §10.2.3); uncapped. */
  readonly retryAfterSeconds?: number
  /** It stands in an order or a challenge that the server gave: whatever its status, the server itself is well. */
  readonly inObject: boolean

  constructor(fields: { type: string; status: number; detail: string; subproblems?: readonly Subproblem[] | undefined; identifier?: Identifier | undefined; retryAfterSeconds?: number | undefined; inObject?: boolean; cause?: unknown }) {
    super(fields.detail, fields.cause === undefined ? undefined : { cause: fields.cause })
    this.type = fields.type
    this.status = fields.status
    this.subproblems = fields.subproblems ?? []
    this.inObject = fields.inObject ?? false
    if (fields.identifier !== undefined) this.identifier = fields.identifier
    if (fields.retryAfterSeconds !== undefined) this.retryAfterSeconds = fields.retryAfterSeconds
  }
}

/** `file:line:column: message`, the form that editors jump to. */
export function formatProblem(problem: Problem): string {
  const { file, line, column } = problem.place
  return `${file}:${line}:${column}: ${problem.message}`
}
