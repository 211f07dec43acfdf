/**
 * SSH to the hosts of `hosts:` (spec §8), by ssh2: configured by the operator's own ssh_config, host keys always verified,
 * public keys only, one connection per host. Nothing here waits for ever: every connection has its timeout, every
 * command too, and what is under way ends with the connection.
 *
 * How many at once: a few shells ask `ssh -G` for the names, and up to 256 connections may wait for their hosts to answer; only a host that
 * has begun to speak takes one of the `parallel` slots, for its handshake, the part that costs processor time. So a host that
 * is down holds no slot, and costs the others nothing. Work after the login is for the caller to bound.
 */
import type { Duplex } from 'node:stream'
import type { HostName } from '../core/types.js'
import type { RemoteResult, RemoteStarted, RunOptions } from './ssh/channel.js'
import type { SshTarget } from './ssh/resolve.js'
import type { ShownKey } from './ssh/scan.js'

export { HostError } from './ssh/hostError.js'
export type { RemoteResult, RemoteStarted, RunOptions, ShownKey, SshTarget }

export interface SshOptions {
  /** Takes the place of `~/.ssh/config` and the system's (`ssh -F`). */
  readonly configFile?: string | undefined
  /** Ends everything. */
  readonly signal: AbortSignal
  /** Handshakes at once. Default 32. */
  readonly parallel?: number
  /** Where SSH_AUTH_SOCK is looked for, and what paths of the configuration name as `${NAME}`. */
  readonly environment?: Readonly<Record<string, string | undefined>>
}

export interface Ssh {
  /** What `ssh -G` says of a name. Throws HostError. */
  resolve(name: HostName): Promise<SshTarget>
  /** One connection per host: the same one for the same name while it stands. Tried twice where sshd closed at once. Throws HostError. */
  connect(name: HostName): Promise<Connection>
  /** The host keys that a host shows and what known_hosts says of them, without logging in. Throws HostError. */
  hostKeys(name: HostName): Promise<ShownKey[]>
  /** Whether known_hosts has a key for the host. Asks nobody. Throws HostError. */
  isPinned(name: HostName): Promise<boolean>
  /** Ends all connections, and what is on its way. */
  close(): Promise<void>
}

export interface Connection {
  readonly target: SshTarget
  /** Runs a command to its end. Never rejects. */
  run(command: string, options?: RunOptions): Promise<RemoteResult>
  /** Starts something that runs until it is ended. Never rejects: a failure to start is its result. */
  start(command: string): Promise<RemoteStarted>
  /**
   * sshd listens on `address` (as written in its permitlisten) and `port`, and each connection comes as a stream, until the
   * function that this gives is called. Throws HostError.
   */
  listen(address: string, port: number, accept: (channel: Duplex) => void): Promise<() => Promise<void>>
  /** Resolves when the connection is gone. */
  readonly closed: Promise<void>
}

/** Opens nothing yet, and loads nothing: most runs of those who have no `hosts:` never need it. `close` MUST be called. */
export function openSsh(options: SshOptions): Ssh {
  let client: Promise<Ssh> | undefined
  const loaded = (): Promise<Ssh> => client ??= import('./ssh/client.js').then(({ openClient }) => openClient(options))
  return {
    resolve: async name => (await loaded()).resolve(name),
    connect: async name => (await loaded()).connect(name),
    hostKeys: async name => (await loaded()).hostKeys(name),
    isPinned: async name => (await loaded()).isPinned(name),
    close: async () => (await client)?.close(),
  }
}
