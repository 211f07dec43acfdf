/** What all ways to answer challenges have in common. */
import { isToken } from '../../core/acmeMessages.js'

/**
 * One way to answer challenges. MUST: `present` returns only when the answer is in place; a token presented twice
 * (two orders may share a pending authorization) stays until it is cleaned up twice, however the calls overlap; a
 * `present` that rejects needs no `cleanUp`; `cleanUp` never throws, for it runs when something else has failed, and
 * touches nothing that was not presented; `close` ends all of it.
 */
export interface Solver {
  /** Throws `OperationalError` with the remedy when it cannot. */
  readonly present: (token: string, keyAuthorization: string) => Promise<void>
  readonly cleanUp: (token: string) => Promise<void>
  readonly close: () => Promise<void>
}

/** Tokens become file names: what has not passed core/acmeMessages.ts is a bug. */
export function requireToken(token: string): void {
  if (!isToken(token)) throw new TypeError('a challenge token is not base64url')
}

/** Presents in each of these ways, in their order. When one cannot, the token is taken from those before it. */
export function allOf(...solvers: readonly Solver[]): Solver {
  return {
    async present(token, keyAuthorization) {
      const presented: Solver[] = []
      try {
        for (const solver of solvers) {
          await solver.present(token, keyAuthorization)
          presented.push(solver)
        }
      } catch (error) {
        await Promise.all(presented.map(solver => solver.cleanUp(token)))
        throw error
      }
    },
    async cleanUp(token) {
      await Promise.all(solvers.map(solver => solver.cleanUp(token)))
    },
    async close() {
      await Promise.all(solvers.map(solver => solver.close()))
    },
  }
}
