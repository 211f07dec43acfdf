/**
 * The one place where ssh2 comes in, with what must be known of it (found by trial, 1.17.0):
 * - `error` comes more than once, so a listener must stay; without one the process would end.
 * - No hostVerifier, or one that returns a promise, accepts every key. Ours is a plain function of the key.
 * - What is asked after the connection was lost is often never answered: race it against `close`.
 * - utils exist on the default export alone (CommonJS).
 */
import ssh2, { type AnyAuthMethod, type Client as Ssh2Client, type ClientChannel, type ParsedKey } from 'ssh2'

export type { AnyAuthMethod, ClientChannel, ParsedKey, Ssh2Client }
export type { BaseAgent } from 'ssh2'

export const { Client, OpenSSHAgent } = ssh2
export const { parseKey } = ssh2.utils

/**
 * Sends a signal to what runs in a channel (RFC 4254 §6.9). Not by `channel.signal`, which does nothing once our input has
 * ended, though the command runs on. (OpenSSH passes no signal to a forced command, nor to one of root's: there the end of
 * the channel must be enough, which a command notices that reads its input or writes.)
 */
export function signalChannel(channel: ClientChannel, name: 'TERM' | 'KILL'): void {
  const inner = channel as unknown as { _client: { _protocol: { signal(id: number, name: string): void } }; outgoing: { id: number; state: string } }
  if (inner.outgoing.state === 'open' || inner.outgoing.state === 'eof') inner._client._protocol.signal(inner.outgoing.id, name)
}
