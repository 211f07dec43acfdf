/** Commands on a host (RFC 4254 §6.5): each in a channel of its own, ended in bounded time whatever becomes of the host. */
import { clean, cleanLine } from '../../core/text.js'
import type { LoggedIn } from './handshake.js'
import { signalChannel, type ClientChannel } from './ssh2.js'

/** How much of what is only shown is kept: its end, where the error is. */
const keptOutput = 16_384
/** From the end of its input to TERM, and to the end of the channel. */
const grace = { termMs: 2000, closeMs: 5000 }

export interface RemoteResult {
  /** Exit status 0, and nothing else. */
  readonly ok: boolean
  readonly code?: number
  /** `exit status 3`, `killed by SIGTERM`, `no end after 60 s`, `the connection was lost`: for messages. */
  readonly how: string
  /** At most `maxOutput` bytes, as sent. */
  readonly stdout: string
  /** The end of it, cleaned. */
  readonly stderr: string
}

export interface RunOptions {
  /** For its standard input, which is then at its end. */
  readonly input?: string | Buffer
  /** Default 300. */
  readonly timeoutSeconds?: number
  readonly signal?: AbortSignal
  /** Bytes of standard output that are taken; more is a failure. Default 4 MB. */
  readonly maxOutput?: number
}

/** Something that runs until it is ended. */
export interface RemoteStarted {
  readonly result: Promise<{ ok: boolean; how: string; output: string }>
  /** Resolves when it has printed a line; never for what ends without one: race it against `result`. */
  readonly firstLine: Promise<void>
  /** Its input ends, then TERM, then the channel. Resolves when it is gone, or after 5 s. Never rejects. */
  end(): Promise<void>
}

/** How a channel ended. */
interface Ended {
  readonly code?: number
  readonly how: string
}

/** A host that answers keepalives, and nothing else, is not waited for; one that does not has been found out before. */
const openMs = 25_000

/** Opens a channel with a command in it; or says how that failed, after 25 s at the latest. */
function exec(link: LoggedIn, command: string): Promise<ClientChannel | string> {
  const { closed, lost } = link
  return new Promise(resolve => {
    let late = false
    const timer = setTimeout(() => {
      late = true
      resolve(`the host does not start it in ${openMs / 1000} s; is it overloaded?`)
    }, openMs)
    void closed.then(() => resolve(lostBecause(lost()).how))
    opened(link, command, channel => {
      clearTimeout(timer)
      if (late && typeof channel !== 'string') channel.close()
      resolve(channel)
    })
  })
}

function opened({ client, isClosed, lost }: LoggedIn, command: string, take: (channel: ClientChannel | string) => void): void {
  try {
    client.exec(command, (error, channel) => {
      if (error === undefined) {
        channel.on('error', () => undefined) // `close` says it
        channel.stderr.on('error', () => undefined)
        take(channel)
      } else if (isClosed()) take(lostBecause(lost()).how)
      else take(`the host does not start it (${cleanLine(error.message, 200)}); see MaxSessions, and what its authorized_keys line allows`)
    })
  } catch {
    take(lostBecause(lost()).how) // "Not connected", thrown at once
  }
}

/** What is known when a channel is closed. Without an exit status there was no success. */
function ending(channel: ClientChannel, { closed, isClosed, lost }: LoggedIn): Promise<Ended> {
  return new Promise(resolve => {
    channel.on('close', (code?: number | null, signal?: string) => {
      if (isClosed()) resolve(lostBecause(lost()))
      else if (typeof code === 'number') resolve({ code, how: `exit status ${code}` })
      else if (code === null) resolve({ how: `killed by ${cleanLine(signal ?? 'a signal', 30)}` })
      else resolve({ how: 'no exit status: the host ended it' })
    })
    void closed.then(() => resolve(lostBecause(lost())))
  })
}

const lostBecause = (why: string): Ended => ({ how: `the connection was lost${why === '' ? '' : ` (${why})`}` })

/** Runs a command to its end. Never rejects; `signals` are those that interrupt it. */
export async function runCommand(
  link: LoggedIn, command: string, options: RunOptions, signals: readonly AbortSignal[],
): Promise<RemoteResult> {
  const { input, timeoutSeconds = 300, maxOutput = 4_000_000 } = options
  const interrupts = options.signal === undefined ? signals : [...signals, options.signal]
  if (interrupts.some(signal => signal.aborted)) return { ok: false, how: 'interrupted', stdout: '', stderr: '' }
  const cut = new Cut(timeoutSeconds, interrupts)
  const opening = exec(link, command)
  const channel = await Promise.race([opening, cut.made])
  if (typeof channel === 'string') {
    cut.over()
    void opening.then(late => { if (typeof late !== 'string') late.close() })
    return { ok: false, how: channel, stdout: '', stderr: '' }
  }
  const chunks: Buffer[] = []
  let [size, stderr] = [0, '']
  channel.on('data', (chunk: Buffer) => {
    size += chunk.length
    if (size <= maxOutput) chunks.push(chunk)
    else cut.make(`more than ${maxOutput} bytes of output`)
  })
  channel.stderr.setEncoding('utf8').on('data', (text: string) => { stderr = (stderr + text).slice(-keptOutput) })
  const ended = ending(channel, link)
  channel.end(input ?? '') // ssh2 keeps to the host's window, and drops the rest when the channel is closed
  const how = await Promise.race([ended, cut.made])
  cut.over()
  if (typeof how === 'string') {
    signalChannel(channel, 'TERM')
    channel.close()
  }
  const end: Ended = typeof how === 'string' ? { how } : how
  return { ok: end.code === 0, ...end, stdout: Buffer.concat(chunks).toString('utf8'), stderr: clean(stderr).trimEnd() }
}

/** Why a command is not waited for any longer. */
class Cut {
  readonly made: Promise<string>
  make: (how: string) => void = () => undefined
  private readonly timer: NodeJS.Timeout
  private readonly onAbort = (): void => this.make('interrupted')

  constructor(timeoutSeconds: number, private readonly signals: readonly AbortSignal[]) {
    this.made = new Promise(resolve => { this.make = resolve })
    this.timer = setTimeout(() => this.make(`no end after ${timeoutSeconds} s`), timeoutSeconds * 1000)
    for (const signal of signals) signal.addEventListener('abort', this.onAbort, { once: true })
  }

  over(): void {
    clearTimeout(this.timer)
    for (const signal of this.signals) signal.removeEventListener('abort', this.onAbort)
  }
}

/** Starts a command whose input stays open until `end`. Never rejects: a failure to start is its result. */
export async function startCommand(link: LoggedIn, command: string): Promise<RemoteStarted> {
  const channel = await exec(link, command)
  if (typeof channel === 'string') {
    const firstLine = new Promise<void>(() => undefined)
    return { result: Promise.resolve({ ok: false, how: channel, output: '' }), firstLine, end: () => Promise.resolve() }
  }
  let kept = ''
  const firstLine = new Promise<void>(resolve => {
    for (const stream of [channel, channel.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        kept = (kept + text).slice(-keptOutput)
        if (stream === channel && text.includes('\n')) resolve()
      })
    }
  })
  let force: (ended: Ended) => void = () => undefined
  const forced = new Promise<Ended>(resolve => { force = resolve })
  const result = Promise.race([ending(channel, link), forced])
    .then(({ code, how }) => ({ ok: code === 0, how, output: clean(kept).trimEnd() }))
  let ends: Promise<void> | undefined
  const end = (): Promise<void> => ends ??= new Promise(resolve => {
    channel.end()
    const term = setTimeout(() => signalChannel(channel, 'TERM'), grace.termMs)
    const close = setTimeout(() => {
      // While the command lives, sshd answers not even this.
      channel.close()
      force({ how: `no end within ${grace.closeMs / 1000} s of its being told; the host may still run it` })
    }, grace.closeMs)
    void result.then(() => {
      clearTimeout(term)
      clearTimeout(close)
      resolve()
    })
  })
  return { result, firstLine, end }
}
