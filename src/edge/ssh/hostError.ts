import { OperationalError } from '../../core/errors.js'
import type { HostName } from '../../core/types.js'

/** A host cannot be reached, trusted or logged in to. The message names the host, the cause and the remedy. */
export class HostError extends OperationalError {
  override readonly name = 'HostError'

  /**
   * @param host - as in `hosts:`
   * @param how - the cause, then what to do
   * @param refusedStart - the connection ended before anything was said: worth one more try
   */
  constructor(readonly host: HostName, how: string, readonly refusedStart = false) {
    super(`${host}: ${how}`)
  }
}
