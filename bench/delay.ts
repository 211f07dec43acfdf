/**
 * A way with latency, in a process of its own: `delay.ts MS PORT FROM=TO…` listens on each address FROM and passes what
 * comes on to TO, half of MS later, and back likewise. A connection is made after MS, as a handshake of TCP takes. (The
 * kernel's own, `tc … netem`, is not on every machine.) Prints `up` when it listens everywhere.
 */
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'

const [ms = '0', port = '22', ...ways] = process.argv.slice(2)

/** Timers of equal length fire in the order in which they were set: bytes stay in order. */
function pass(from: Socket, to: Socket): void {
  from.on('data', (chunk: Buffer) => void setTimeout(() => {
    if (!to.destroyed) to.write(chunk)
  }, Number(ms) / 2))
  from.on('end', () => void setTimeout(() => to.end(), Number(ms) / 2))
  from.on('error', () => to.destroy()).on('close', () => void setTimeout(() => to.destroySoon(), Number(ms) / 2))
}

await Promise.all(ways.map(async way => {
  const [from, to = ''] = way.split('=')
  const server = createServer({ allowHalfOpen: true, noDelay: true }, near => {
    near.pause()
    setTimeout(() => {
      const far = connect({ host: to, port: Number(port), allowHalfOpen: true, noDelay: true })
      pass(near, far)
      pass(far, near)
      near.resume()
    }, Number(ms))
  })
  await once(server.listen({ host: from, port: Number(port), backlog: 511 }), 'listening')
}))
console.log('up')
