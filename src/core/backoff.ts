/** How long to leave alone what failed (spec §5): in hours, for runs may be hourly. The clock is an argument. */
import type { Failure } from './types.js'

const hourMs = 3_600_000
/** Cron is not to the second, and a run takes its time: what is due "in an hour" is due for the next hourly run. */
const slackMs = 10 * 60_000
/** Let's Encrypt's longest bucket is 7 days; a wait beyond that is a wrong clock or a wrong CA. */
const longestWaitMs = 8 * 24 * hourMs

/**
 * Hours to wait after so many failures in a row. The first one costs nothing: the operator who mended the cause runs
 * again at once. The longest is 16, so that a nightly run always tries.
 */
export function waitHours(failures: number): number {
  return failures < 2 ? 0 : Math.min(2 ** (failures - 2), 16)
}

/**
 * When it may be tried again; undefined when it may be now.
 * @param of what would be tried: a failure of something else (other names, another command) says nothing about it
 */
export function parkedUntil(failure: Failure | undefined, of: string, now: Date): Date | undefined {
  if (failure === undefined || failure.of !== of) return undefined
  const last = new Date(failure.last)
  // A clock that jumped back must not park anything for longer than the wait itself, whoever said it.
  if (!(last <= now)) return undefined
  const said = saidUntil(failure, now)
  if (said !== undefined) return said
  return future(new Date(last.getTime() + waitHours(failure.count) * hourMs - slackMs), now)
}

/** Until when the CA said to leave it alone, if that is still to come; a record from the future says nothing. */
export function saidUntil(failure: Failure, now: Date): Date | undefined {
  return failure.notBefore === undefined || !(new Date(failure.last) <= now) ? undefined : future(new Date(failure.notBefore), now)
}

/** `instant` if it is still to come and can be meant; else undefined. */
export function future(instant: Date, now: Date): Date | undefined {
  const wait = instant.getTime() - now.getTime()
  return wait > 0 && wait <= longestWaitMs ? instant : undefined
}

/** The record after one more failure. */
export function failedAgain(before: Failure | undefined, of: string, message: string, now: Date, notBefore?: Date): Failure {
  const count = before?.of === of ? before.count + 1 : 1
  return { count, last: now.toISOString(), message, of, ...(notBefore === undefined ? {} : { notBefore: notBefore.toISOString() }) }
}
