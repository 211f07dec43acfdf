/** `challengeListen`: our own web server, which knows the presented tokens and nothing else. */
import net from 'node:net'
import { OperationalError } from '../../core/errors.js'
import { cleanLine } from '../../core/text.js'
import { answerer } from './answer.js'
import type { Solver } from './solver.js'

export interface Listener extends Solver {
  /** As bound. */
  readonly port: number
}

/**
 * Listens on `address:port` (port 0: any free one) and answers GET and HEAD for the presented tokens.
 * Throws `OperationalError` with the remedy when it cannot listen.
 */
export async function listener(at: { readonly address: string; readonly port: number }): Promise<Listener> {
  const answers = answerer()
  // Half open, as node:http has it: some clients end their side with their request.
  const server = net.createServer({ allowHalfOpen: true, noDelay: true }, answers.accept)

  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      reject(new OperationalError(whyNotBound(at, error), { cause: error }))
    })
    server.listen({ host: at.address, port: at.port }, resolve)
  })
  const bound = server.address()

  return {
    port: typeof bound === 'object' && bound !== null ? bound.port : at.port,
    present: answers.present,
    cleanUp: answers.cleanUp,
    close() {
      return new Promise((resolve) => {
        server.close(() => resolve())
        void answers.close()
      })
    },
  }
}

function whyNotBound({ address, port }: { address: string; port: number }, error: NodeJS.ErrnoException): string {
  const remedies: Record<string, string> = {
    EADDRINUSE: 'is in use by another program (see ss -ltnp); use challengeDropDir with that one, or another port',
    EACCES: 'needs a right that this user lacks; let the web server pass the challenges on to a port above 1023',
    EADDRNOTAVAIL: 'is not an address of this machine; use one that `ip address` shows',
  }
  const why = remedies[error.code ?? ''] ?? `cannot be listened on: ${cleanLine(error.message)}`
  return `challengeListen ${address.includes(':') ? `[${address}]` : address}:${port} ${why}`
}
