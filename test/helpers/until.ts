/** Waiting on conditions, never for a fixed time. */
import { setTimeout as pause } from 'node:timers/promises'

/** Resolves as soon as `condition` holds, asked every 20 ms; throws after `ms` milliseconds, naming `what`. */
export async function until(
  condition: () => boolean | Promise<boolean>, { ms = 10_000, what = condition.toString() } = {},
): Promise<void> {
  const deadline = Date.now() + ms
  while (!await condition()) {
    if (Date.now() > deadline) throw new Error(`not within ${ms} ms: ${what}`)
    await pause(20)
  }
}
