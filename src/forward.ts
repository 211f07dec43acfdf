/** `forward:` (spec §8): a host brings the challenges that reach its port 80 home, while names are validated. */
import { tunnel as tunnelAt } from './core/enrolment.js'
import { OperationalError } from './core/errors.js'
import { cleanLine } from './core/text.js'
import type { HostName, Section } from './core/types.js'
import type { Answerer } from './edge/challenge.js'
import type { CommandResult, Started } from './edge/shell.js'
import type { Connection, Ssh } from './edge/ssh.js'

export type ForwardKind = NonNullable<Section['forward']>

export interface ForwardContext {
  /** Ends its connections, and with them all forwards, when the run is interrupted. */
  readonly ssh: Ssh
  /** Answers what comes through tunnels. */
  readonly answerer: Answerer
  /** `challengeUrl`: where a redirect leads. */
  readonly challengeUrl?: string | undefined
}

/**
 * Starts one forward on one host. What can be expected (the host is down, the key may not, the port is taken) is a result
 * that names the host, its cause and the remedy; `result` rejects only with a bug. `firstLine`: it works.
 * `end` MUST be called; it does not wait for a host to which there is no connection yet, on which nothing is begun then.
 */
export function startForward(kind: ForwardKind, host: HostName, context: ForwardContext): Started {
  let connected = false
  let over = false
  const begun = begin()
  async function begin(): Promise<Started> {
    const connection = await context.ssh.connect(host)
    connected = true
    if (over) return nothing
    return kind === 'redirect' ? redirect(host, connection, context) : tunnel(host, connection, context)
  }
  const result = begun.then(started => started.result, (error: unknown) => {
    if (error instanceof OperationalError) return { ok: false, how: naming(host, error.message), output: '' }
    throw error
  })
  result.catch(() => undefined) // perhaps nobody waits any more
  const end = async (): Promise<void> => {
    over = true
    if (connected) await (await begun.catch(() => nothing)).end()
  }
  return { result, firstLine: begun.then(started => started.firstLine, () => never<undefined>()), end }
}

const never = <T>(): Promise<T> => new Promise<T>(() => undefined)
const nothing: Started = { result: never(), firstLine: never(), end: () => Promise.resolve() }

/** leforward on the host, by way of its receiver: answers on port 80 with a redirect to us. */
async function redirect(host: HostName, connection: Connection, { challengeUrl }: ForwardContext): Promise<Started> {
  if (challengeUrl === undefined) {
    throw new OperationalError(`${host}: forward: redirect does not know where to; set challengeUrl in lematt.conf, as http://central.example`)
  }
  const command = `forward ${challengeUrl}`
  const started = await connection.start(command)
  return { ...started, result: started.result.then(result => (result.ok ? result : redirectFailed(host, command, result))) }
}

function redirectFailed(host: HostName, command: string, { how, output }: CommandResult): CommandResult {
  const refused = receiverMessage(output)
  const why = refused === undefined ? `"${command}" ended with ${how}; run lematt check --hosts` : `the receiver says: ${refused}`
  return { ok: false, how: `${host}: ${why}`, output: refused === undefined ? output : '' }
}

/** What the receiver says of a failure, in its line of JSON; what leforward says is plain text. */
function receiverMessage(output: string): string | undefined {
  const line = output.split('\n').find(each => each.startsWith('{'))
  if (line === undefined) return undefined
  try {
    const { message } = JSON.parse(line) as { message?: unknown }
    return typeof message === 'string' ? cleanLine(message) : undefined
  } catch {
    return undefined
  }
}

/** The host's sshd listens for us (RFC 4254 §7.1); we answer through the connection. */
async function tunnel(host: HostName, connection: Connection, { answerer }: ForwardContext): Promise<Started> {
  const end = await connection.listen(tunnelAt.address, tunnelAt.port, answerer.accept).catch((error: unknown) => {
    if (!(error instanceof OperationalError) || !error.message.includes('permitlisten=')) throw error
    // The host does not say which of the two it is. Without permitopen, port-forwarding would allow more than listening.
    throw new OperationalError(`${error.message} (who has it: ss -ltnp 'sport = :${tunnelAt.port}' there); `
      + 'beside permitlisten, write permitopen="localhost:1"', { cause: error })
  })
  const lost = { ok: false, how: `${host}: the connection was lost; see whether the host is up`, output: '' }
  return { result: connection.closed.then(() => lost), firstLine: Promise.resolve(), end }
}

const naming = (host: HostName, message: string): string => (message.startsWith(`${host}: `) ? message : `${host}: ${message}`)
