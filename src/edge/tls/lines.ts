/** A plain-text connection, line by line: what mail servers say before STARTTLS. Bounded, for anybody may answer. */
import type { Socket } from 'node:net'
import { ProbeFailure } from './failure.js'

/** More than any mail server says before TLS. */
const limit = 8192

export interface Lines {
  /** The next line without its end. Rejects when the connection ends first, or says too much. */
  next(): Promise<string>
  send(line: string): void
  /** Stops reading. @throws ProbeFailure when more has been said than was read: it would count as said in TLS. */
  end(): void
}

export function readLines(socket: Socket): Lines {
  let text = ''
  let taken = 0
  let failure: Error | undefined
  let wake: () => void = () => undefined
  const fail = (error: Error): void => {
    failure ??= error
    wake()
  }
  const onData = (chunk: Buffer): void => {
    taken += chunk.length
    // latin1 keeps every byte, also one half of a character.
    if (taken <= limit) text += chunk.toString('latin1')
    else fail(new ProbeFailure(`says more than ${limit} bytes before TLS; see what listens there`))
    wake()
  }
  const onEnd = (): void => fail(Object.assign(new Error('closed'), { code: 'ECONNRESET' }))
  socket.on('data', onData).on('error', fail).on('close', onEnd)
  return {
    async next() {
      for (;;) {
        const [line, ...others] = text.split('\n')
        if (line !== undefined && others.length > 0) {
          text = others.join('\n')
          return Buffer.from(line.replace(/\r$/u, ''), 'latin1').toString('utf8')
        }
        if (failure !== undefined) throw failure
        await new Promise<void>(resolve => { wake = resolve })
      }
    },
    send(line) {
      socket.write(`${line}\r\n`)
    },
    end() {
      socket.off('data', onData).off('error', fail).off('close', onEnd)
      if (text !== '') throw new ProbeFailure('says more in plain text after its answer to STARTTLS, as if in TLS (an injection, CVE-2011-0411); update the service')
    },
  }
}
