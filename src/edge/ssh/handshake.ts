/** From a stream that leads to sshd to a client that is logged in: key exchange, host key, user key (RFC 4253, 4252). */
import type { Duplex } from 'node:stream'
import { cleanLine } from '../../core/text.js'
import { HostError } from './hostError.js'
import type { Login } from './identities.js'
import type { SshTarget } from './resolve.js'
import { placeOf } from './socket.js'
import { Client, type Ssh2Client } from './ssh2.js'
import { distrust, type Trust } from './trust.js'

/** A host that sends nothing for 15 s and answers none of three questions is gone. */
const keepalive = { keepaliveInterval: 5000, keepaliveCountMax: 3 }

/**
 * What costs both sides the least, first: curve25519 for the exchange, and AES-GCM, which needs no MAC of its own. Nothing
 * with SHA-1 or CBC is offered.
 */
const algorithms = {
  kex: [
    'curve25519-sha256', 'curve25519-sha256@libssh.org', 'ecdh-sha2-nistp256', 'ecdh-sha2-nistp384', 'ecdh-sha2-nistp521',
    'diffie-hellman-group-exchange-sha256', 'diffie-hellman-group14-sha256', 'diffie-hellman-group16-sha512', 'diffie-hellman-group18-sha512',
  ],
  cipher: ['aes128-gcm@openssh.com', 'aes256-gcm@openssh.com', 'aes128-ctr', 'aes256-ctr', 'chacha20-poly1305@openssh.com'],
  hmac: ['hmac-sha2-256-etm@openssh.com', 'hmac-sha2-512-etm@openssh.com', 'hmac-sha2-256', 'hmac-sha2-512'],
  compress: ['none'],
} as const

/** A client whose login stands; when its connection is gone, `closed` resolves and `lost` says why, if that is known. */
export interface LoggedIn {
  readonly client: Ssh2Client
  readonly closed: Promise<void>
  /** The same at this very moment: `closed` is heard a little later, when its channels have ended already. */
  readonly isClosed: () => boolean
  readonly lost: () => string
  /** Ends the connection at once. */
  readonly destroy: () => void
}

export interface HandshakeOptions {
  readonly target: SshTarget
  readonly trust: Trust
  readonly login: Login
  readonly signal: AbortSignal
}

/** At most `connectTimeoutSeconds`. Throws HostError, or the reason of the abort; the stream is then destroyed. */
export function logIn(stream: Duplex, { target, trust, login, signal }: HandshakeOptions): Promise<LoggedIn> {
  return new Promise((resolve, reject) => {
    const client = new Client()
    client.setMaxListeners(0) // each host behind it listens for its end
    let [stage, lost]: ['greeting' | 'keys' | 'login' | 'in', string] = ['greeting', '']
    let bad: HostError | undefined
    let wantsMore = false
    let isClosed = false
    let closing: () => void = () => undefined
    const closed = new Promise<void>(end => {
      closing = () => {
        isClosed = true
        end()
      }
    })
    const destroy = (): void => {
      clearTimeout(timer)
      client.end() // says good-bye; nobody waits for the answer
      client.destroy()
      stream.destroy()
      closing()
    }
    const over = (): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', onAbort)
    }
    const fail = (error: Error): void => {
      over()
      reject(error)
      destroy()
    }
    const onAbort = (): void => fail(signal.reason as Error)
    const seconds = target.connectTimeoutSeconds
    const timer = setTimeout(() => {
      fail(new HostError(target.name, `${placeOf(target)} answers, but the login does not end in ${seconds} s; is the host overloaded?`))
    }, seconds * 1000)
    const explain = (error: Error & { level?: string }): HostError => bad ?? new HostError(target.name, ...explained(error, stage, target, login, wantsMore))
    client.on('error', error => {
      // One key that cannot sign (an agent that asks first, and was told no) is not the last: ssh2 goes on to the next.
      if (error.level === 'agent' || error.message.startsWith('Error signing')) return
      lost = lost || cleanLine(error.message, 200)
      if (stage !== 'in') fail(explain(error))
    })
    client.on('close', () => {
      if (stage !== 'in') fail(explain(new Error('the connection was closed')))
      closing()
    })
    client.on('handshake', () => { if (stage === 'keys') stage = 'login' })
    client.on('ready', () => {
      stage = 'in'
      over()
      resolve({ client, closed, isClosed: () => isClosed, lost: () => lost, destroy })
    })
    if (signal.aborted) {
      onAbort()
      return
    }
    signal.addEventListener('abort', onAbort, { once: true })
    if (stream.destroyed) {
      fail(new HostError(target.name, `${placeOf(target)} closed the connection while it waited for its turn; is sshd overloaded there?`, true))
      return
    }
    let next = 0
    try {
      client.connect({
        sock: stream,
        username: target.user,
        readyTimeout: 0, // ours covers it
        ...keepalive,
        agentForward: false,
        tryKeyboard: false,
        algorithms: { ...mutable(algorithms), serverHostKey: [...trust.algorithms] as never[] },
        // A plain function: a promise would mean yes (see ssh2.ts). It is asked again when keys are renewed in mid-connection.
        hostVerifier: (key: Buffer): boolean => {
          const judgement = trust.judge(key)
          if (judgement.known === 'known') {
            if (stage === 'greeting') stage = 'keys'
            return true
          }
          bad = distrust(target, key, judgement)
          return false
        },
        authHandler: (_left, partial, proceed) => {
          wantsMore ||= partial
          const method = login.methods[next]
          next += 1
          // `false` says that there is no other; the types of ssh2 forget it.
          proceed(method ?? (false as never))
        },
      })
    } catch (error) {
      fail(new HostError(target.name, `the connection cannot be begun: ${error instanceof Error ? error.message : String(error)}; see the host's settings in ~/.ssh/config`))
    }
  })
}

/** The cause and the remedy, and whether it may be better at a second try. */
function explained(error: Error & { level?: string }, stage: string, target: SshTarget, { tried, notes }: Login, wantsMore: boolean): [string, boolean] {
  const said = cleanLine(error.message, 200)
  const also = notes.length === 0 ? '' : `; ${notes.join('; ')}`
  if (stage === 'login') {
    const refused = error.level === 'client-authentication' || /authentication/iu.test(said)
    if (refused && wantsMore) return [`${placeOf(target)} takes our key and wants more than that (AuthenticationMethods); for ${target.user}, a key must be enough`, false]
    if (refused) {
      return [`${placeOf(target)} lets ${target.user} in with none of our keys (tried: ${tried.join(', ')}${also}); is the public key in authorized_keys there, with our address in from=? lematt enroll ${target.name} writes the line${/too many/iu.test(said) ? ' (sshd had enough of our tries: set IdentitiesOnly yes)' : ''}`, false]
    }
    return [`${placeOf(target)} ends the connection during the login (${said}); look into sshd's log there`, false]
  }
  if (/no matching (.*)/iu.test(said)) return [`${placeOf(target)} and we have no algorithm in common (${said}); the sshd there is too old, or its configuration too narrow`, false]
  return [`${placeOf(target)} ends the connection in the handshake (${said}); is an sshd listening there, and is it well?`, stage === 'greeting']
}

function mutable<T extends Record<string, readonly string[]>>(lists: T): { [K in keyof T]: T[K][number][] } {
  return Object.fromEntries(Object.entries(lists).map(([key, list]) => [key, [...list]])) as never
}
