/** The way to a host's sshd, up to its first word: by TCP, or through a jump host. */
import { connect } from 'node:net'
import type { Duplex } from 'node:stream'
import { cleanLine } from '../../core/text.js'
import { HostError } from './hostError.js'
import type { SshTarget } from './resolve.js'
import type { Ssh2Client } from './ssh2.js'

/** `mx1.example.com port 22`: where we try. */
export const placeOf = ({ hostName, port }: SshTarget): string => `${hostName} port ${port}`

/**
 * Connects and waits for the first byte, which sshd sends unasked (RFC 4253 §4.2), at most `connectTimeoutSeconds` for both:
 * a host that swallows packets, or takes connections and says nothing, is found out before it costs anybody a slot. The byte
 * is left in the stream. Throws HostError, or the reason of the abort.
 */
export function reach(target: SshTarget, jump: Ssh2Client | undefined, signal: AbortSignal): Promise<Duplex> {
  return new Promise((resolve, reject) => {
    const seconds = target.connectTimeoutSeconds
    let stream: Duplex | undefined
    let over = false
    const settle = (error?: Error): void => {
      if (over) {
        if (error !== undefined) stream?.destroy()
        return
      }
      over = true
      clearTimeout(timer)
      signal.removeEventListener('abort', onAbort)
      jump?.off('close', onJumpLost)
      stream?.off('readable', onWord).off('end', onEnd).off('close', onEnd)
      if (error === undefined && stream !== undefined) resolve(stream)
      else {
        stream?.destroy()
        reject(error ?? new Error('no stream'))
      }
    }
    const fail = (how: string, refusedStart = false): void => settle(new HostError(target.name, how, refusedStart))
    const onAbort = (): void => settle(signal.reason as Error)
    const onJumpLost = (): void => fail('the connection to its jump host was lost; is the network well?')
    const onEnd = (): void => fail(refusal(target), true)
    const onWord = (): void => {
      if ((stream?.readableLength ?? 0) > 0) settle()
      else stream?.read(0) // `readable` comes at the end of the stream too; only who reads gets to hear `end`
    }
    const timer = setTimeout(() => {
      fail(`no answer from ${placeOf(target)} in ${seconds} s; is the host up, and do firewalls let us through?`)
    }, seconds * 1000)
    const watch = (opened: Duplex): void => {
      stream = opened
      if (over) stream.destroy()
      // The listener for errors stays: without one, a late error would end the process.
      stream.on('error', error => {
        const code = String((error as NodeJS.ErrnoException).code)
        if (code === 'ECONNRESET' || code === 'EPIPE') fail(refusal(target), true)
        else fail(tcpError(target, code, error))
      })
      if (!over) stream.on('readable', onWord).on('end', onEnd).on('close', onEnd)
    }
    if (signal.aborted) {
      onAbort()
      return
    }
    signal.addEventListener('abort', onAbort, { once: true })
    if (jump === undefined) {
      const { hostName: host, port, addressFamily, bindAddress } = target
      watch(connect({ host, port, noDelay: true, ...addressFamily && { family: addressFamily }, ...bindAddress && { localAddress: bindAddress } }))
      return
    }
    try {
      jump.on('close', onJumpLost)
      jump.forwardOut('127.0.0.1', 0, target.hostName, target.port, (error, channel) => {
        if (error === undefined) watch(channel)
        else fail(`its jump host cannot reach ${placeOf(target)} (${cleanLine(error.message, 200)}); is the host up, and may this key forward (permitopen)?`)
      })
    } catch {
      fail('the connection to its jump host is gone; is the network well?')
    }
  })
}

const refusal = (target: SshTarget): string => `${placeOf(target)} closes the connection before it says anything; is sshd overloaded (MaxStartups), or does it penalise our address?`

function tcpError(target: SshTarget, code: string, error: Error): string {
  if (code === 'ECONNREFUSED') return `${placeOf(target)} refuses the connection; is sshd running there, on this port?`
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') return `the name ${target.hostName} leads nowhere (${code}); set HostName in ~/.ssh/config, or mend DNS`
  if (code === 'ETIMEDOUT' || code === 'EHOSTUNREACH' || code === 'ENETUNREACH') return `${placeOf(target)} cannot be reached (${code}); is the host up, and do firewalls and routes let us through?`
  return `no connection to ${placeOf(target)}: ${cleanLine(error.message, 200)}; is the host up?`
}
