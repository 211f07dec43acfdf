/** Authorizations of one order (RFC 8555 §7.5, §8.3): challenge presented, checked, validated, and always removed. */
import { AcmeProblem, OperationalError } from './core/errors.js'
import { limitOf } from './core/limits.js'
import { cleanLine } from './core/text.js'
import type { Settings, Subject } from './core/types.js'
import type { Acme, AcmeAuthorization, AcmeChallenge } from './edge/acme.js'
import { fetchChallenge, waitForChallenge, type Solver } from './edge/challenge.js'
import type { Preparations } from './prepare.js'

/** A validation failed: the other key type of the subject would fail the same way, and cost another failed validation. */
export class AuthorizationFailed extends OperationalError {
  override readonly name = 'AuthorizationFailed'
}

/** Of a hundred names that fail, the first few say why. */
const mostTold = 5

export interface ValidateContext {
  readonly subject: Subject
  readonly acme: Acme
  readonly solver: Solver
  readonly prepared: Preparations
  readonly settings: Pick<Settings, 'challengeCheck'>
  readonly signal: AbortSignal
  readonly clock: () => Date
}

/**
 * Validates all of them, also when one fails: each failure is named, and each token is removed before this returns.
 * @throws AuthorizationFailed, or the AcmeProblem when it is a limit or an outage
 */
export async function validateAll(pending: readonly AcmeAuthorization[], context: ValidateContext): Promise<void> {
  const results = await Promise.allSettled(pending.map(authorization => validate(authorization, context)))
  const failures = results.filter(r => r.status === 'rejected').map(r => r.reason as unknown)
  if (failures.length === 0) return
  context.signal.throwIfAborted()
  const wider = failures.find(f => expectedMessage(f) === undefined
    || (f instanceof AcmeProblem && limitOf(f, context.subject.identifiers, context.clock()).scope !== 'none'))
  if (wider instanceof Error) throw wider
  const told = failures.slice(0, mostTold).map(expectedMessage)
  const more = failures.length - told.length
  throw new AuthorizationFailed([...told, ...(more > 0 ? [`and ${more} more of its names`] : [])].join('\n'))
}

async function validate(authorization: AcmeAuthorization, context: ValidateContext): Promise<void> {
  const { acme, solver, prepared, subject, settings, signal } = context
  const { identifier } = authorization
  const challenge = usableChallenge(authorization)
  const expected = acme.keyAuthorization(challenge.token)
  const { failed } = prepared.start(subject, identifier)
  // Who has lost the race against a failed prepare command does not go on in the background.
  const over = new AbortController()
  await solver.present(challenge.token, expected)
  try {
    if (settings.challengeCheck) {
      // Costs nothing at the CA, where five failed validations an hour are all we have.
      const seen = await Promise.race([waitForChallenge(identifier, challenge.token, expected, { signal: AbortSignal.any([signal, over.signal]) }), failed])
      if (!seen.ok) throw new OperationalError(`${identifier}: the challenge cannot be fetched from here, so the CA was not asked: ${seen.url}: ${seen.found}`)
    } else await prepared.ready(subject, identifier)
    signal.throwIfAborted()
    await Promise.race([validated(authorization, challenge, expected, context), failed])
  } finally {
    over.abort()
    await solver.cleanUp(challenge.token)
  }
}

function usableChallenge({ identifier, status, challenges }: AcmeAuthorization): AcmeChallenge {
  if (status !== 'pending') throw new OperationalError(`${identifier}: the CA says that the authorization is ${cleanLine(status, 40)}`)
  const challenge = challenges.find(c => c.type === 'http-01')
  if (challenge !== undefined) return challenge
  const offered = challenges.map(c => c.type).join(', ')
  throw new OperationalError(`${identifier}: the CA offers no http-01 challenge, the one that lematt answers (it offers ${offered === '' ? 'none' : offered})`)
}

/** Lets the CA validate. Its own sentence reaches the operator, with what stands at the URL as seen from here. */
async function validated({ url, identifier }: AcmeAuthorization, challenge: AcmeChallenge, expected: string, { acme, signal }: ValidateContext): Promise<void> {
  await acme.accept(challenge, url)
  try {
    await acme.validated(url)
  } catch (error) {
    if (!(error instanceof AcmeProblem) || error.identifier === undefined || signal.aborted) throw error
    const seen = await fetchChallenge(identifier, challenge.token, expected, { signal, attemptMs: 5000 })
    const here = seen.ok ? `http://${identifier}/.well-known/acme-challenge/${challenge.token} is right when fetched from here` : `fetched from here, ${seen.url}: ${seen.found}`
    throw new OperationalError(`${identifier}: ${error.message} (${error.type}); ${here}`, { cause: error })
  }
}

/** The message of an error that can be expected; undefined for anything else, which is a bug. */
export function expectedMessage(error: unknown): string | undefined {
  if (error instanceof OperationalError) return error.message
  if (!(error instanceof AcmeProblem)) return undefined
  const about = error.identifier === undefined || error.message.includes(error.identifier) ? '' : `${error.identifier}: `
  return `${about}${error.message} (${error.type})`
}
