/** One connection per host and run: resolved, reached (perhaps through jump hosts, which are shared), logged in, kept. */
import { setTimeout as pause } from 'node:timers/promises'
import type { Duplex } from 'node:stream'
import type { HostName } from '../../core/types.js'
import { logIn, type LoggedIn } from './handshake.js'
import { HostError } from './hostError.js'
import { loginStore } from './identities.js'
import type { SshTarget } from './resolve.js'
import { Slots } from './slots.js'
import { reach } from './socket.js'
import { trustStore } from './trust.js'

/** Connections on their way at once: they wait for others' networks, and cost a file descriptor each. */
const reachingAtOnce = 256
/** A jump host behind a jump host behind …: more than this is a mistake. */
const deepest = 8
/** So long is a host that was not reached not tried again: in a long night it may be back. */
const failureStandsMs = 20_000
/** A handshake is some 20 ms of work: who needs longer than this waits for the network. */
const slotMs = 2000
/** Before the second try: sshd that had too many at once has room again. */
const secondTryMs = { least: 300, most: 1000 }

export interface Link {
  readonly target: SshTarget
  readonly loggedIn: LoggedIn
}

export interface LinksOptions {
  readonly resolve: (name: HostName) => Promise<SshTarget>
  readonly signal: AbortSignal
  /** Handshakes at once. */
  readonly parallel: number
}

/** How a host is reached: over these jump hosts instead of its own, and for whom (against loops). */
interface Way {
  readonly jumps?: readonly string[]
  readonly behind: readonly HostName[]
}

export class Links {
  private readonly links = new Map<string, Promise<Link>>()
  private readonly reaching = new Slots(reachingAtOnce)
  private readonly handshakes: Slots
  private readonly logins = loginStore()
  readonly trust = trustStore()

  constructor(private readonly options: LinksOptions) {
    this.handshakes = new Slots(options.parallel)
  }

  /** The same promise for the same name, until its connection is lost: then a new one. Throws HostError, or the reason of the abort. */
  to(name: HostName, way: Way = { behind: [] }): Promise<Link> {
    const key = JSON.stringify([name, way.jumps ?? null])
    let link = this.links.get(key)
    if (link === undefined) {
      link = this.open(name, way)
      // Whoever waits for a failure hears of it, perhaps later. For a while it is the answer to everybody: hosts behind one
      // jump host do not each wait for it.
      link.then(({ loggedIn }) => loggedIn.closed, () => pause(failureStandsMs, undefined, { ref: false })).then(() => this.links.delete(key), () => undefined)
      this.links.set(key, link)
    }
    return link
  }

  /** A stream to the host's sshd that has begun to speak. */
  async stream(target: SshTarget, way: Way = { behind: [] }): Promise<Duplex> {
    const jump = await this.jump(target, way)
    return this.reaching.use(() => reach(target, jump?.loggedIn.client, this.options.signal))
  }

  /** A handshake takes processor time here and there: only so many at once. A host that does not speak never gets this far. */
  handshake<T>(work: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      void this.handshakes.use(async () => {
        const done = work()
        done.then(resolve, reject)
        // One that has begun to speak and falls silent costs no processor time: it goes on waiting without a slot.
        await Promise.race([done.catch(() => undefined), pause(slotMs, undefined, { ref: false })])
      })
    })
  }

  /** Ends all connections. */
  async close(): Promise<void> {
    await Promise.all([...this.links.values()].map(link => link.then(({ loggedIn }) => loggedIn.destroy(), () => undefined)))
  }

  private async open(name: HostName, way: Way): Promise<Link> {
    const { resolve, signal } = this.options
    const target = await resolve(name)
    const [trust, login] = await Promise.all([this.trust(target), this.logins(target)])
    if (login.methods.length === 0) {
      const why = login.notes.length > 0 ? login.notes.join('; ') : `none of its key files is there (${target.identityFiles.join(', ') || 'IdentityFile none'})`
      throw new HostError(name, `we have no key to log in with: ${why}. lematt enroll ${name} makes one`)
    }
    const once = async (): Promise<LoggedIn> => {
      const stream = await this.stream(target, way)
      return this.handshake(() => logIn(stream, { target, trust, login, signal }))
    }
    try {
      return { target, loggedIn: await once() }
    } catch (error) {
      if (!(error instanceof HostError) || !error.refusedStart || error.host !== name) throw error
    }
    const { least, most } = secondTryMs
    await pause(least + Math.random() * (most - least), undefined, { signal }).catch(() => { throw signal.reason as Error })
    return { target, loggedIn: await once() }
  }

  /** As ssh does it: of the hops, the last is connected to over those before it; one alone, over its own jump hosts. */
  private async jump(target: SshTarget, { jumps, behind }: Way): Promise<Link | undefined> {
    const hops = jumps ?? target.proxyJump
    const last = hops.at(-1)
    if (last === undefined) return undefined
    const path = [...behind, target.name]
    if (path.includes(last) || path.length > deepest) {
      throw new HostError(target.name, `its ProxyJump leads in a circle (${[...path, last].join(' → ')}); correct it in ~/.ssh/config`)
    }
    try {
      return await this.to(last, { behind: path, ...hops.length > 1 && { jumps: hops.slice(0, -1) } })
    } catch (error) {
      throw error instanceof HostError ? new HostError(target.name, `its jump host ${error.message}`) : error
    }
  }
}
