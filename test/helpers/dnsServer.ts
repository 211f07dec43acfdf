/** A name server in this process, on loopback: for the answers that pebble-challtestsrv does not give, silence among them. */
import dgram from 'node:dgram'

/** What is said about a name: its records, an error, or nothing at all. */
export type Said = { readonly a?: readonly string[]; readonly aaaa?: readonly string[] } | 'NXDOMAIN' | 'SERVFAIL' | 'REFUSED' | 'silence'

export interface DnsServer {
  /** As `127.0.0.1:5300`. */
  readonly address: string
  /** The names asked for so far, once for each question. */
  readonly asked: readonly string[]
  close(): Promise<void>
}

const codes = { SERVFAIL: 2, NXDOMAIN: 3, REFUSED: 5 }
const types = { a: 1, aaaa: 28 }

/** @param says asked for each question; `forward` in place of an answer passes it on to that server's port 53 */
export async function startDnsServer(
  says: (name: string, type: 'a' | 'aaaa') => Said | { readonly forward: string }, { address = '127.0.0.1', port = 0 } = {},
): Promise<DnsServer> {
  const asked: string[] = []
  const socket = dgram.createSocket('udp4')
  const forwarding = new Set<dgram.Socket>()
  socket.on('message', (question, from) => {
    const { name, type, end } = readQuestion(question)
    asked.push(name)
    const said = says(name, type === types.aaaa ? 'aaaa' : 'a')
    if (said === 'silence') return
    if (typeof said === 'object' && 'forward' in said) {
      const up = dgram.createSocket('udp4')
      forwarding.add(up)
      up.on('message', answer => {
        socket.send(answer, from.port, from.address)
        forwarding.delete(up)
        up.close()
      })
      up.send(question, 53, said.forward)
      return
    }
    const records = typeof said === 'string' ? [] : type === types.aaaa ? said.aaaa ?? [] : type === types.a ? said.a ?? [] : []
    const header = Buffer.alloc(12)
    question.copy(header, 0, 0, 2)
    header.writeUInt16BE(0x8180 | (typeof said === 'string' ? codes[said] : 0), 2)
    header.writeUInt16BE(1, 4)
    header.writeUInt16BE(records.length, 6)
    socket.send(Buffer.concat([header, question.subarray(12, end), ...records.map(record => answerOf(record, type))]), from.port, from.address)
  })
  await new Promise<void>((resolve, reject) => socket.once('error', reject).bind(port, address, resolve))
  return {
    address: `${address}:${socket.address().port}`,
    asked,
    close: () => new Promise(resolve => {
      for (const up of forwarding) up.close()
      socket.close(resolve)
    }),
  }
}

/** RFC 1035 §4.1.2. @returns where it ends, too */
function readQuestion(message: Buffer): { name: string; type: number; end: number } {
  const labels: string[] = []
  let at = 12
  for (let length = message.readUInt8(at); length > 0; length = message.readUInt8(at)) {
    labels.push(message.toString('latin1', at + 1, at + 1 + length))
    at += 1 + length
  }
  return { name: labels.join('.').toLowerCase(), type: message.readUInt16BE(at + 1), end: at + 5 }
}

/** RFC 1035 §4.1.3, for the name of the question; IPv6 addresses written out in full. */
function answerOf(record: string, type: number): Buffer {
  const data = type === types.a
    ? Buffer.from(record.split('.').map(Number))
    : Buffer.from(record.split(':').map(group => group.padStart(4, '0')).join(''), 'hex')
  const fixed = Buffer.alloc(12)
  fixed.writeUInt16BE(0xc00c, 0)
  fixed.writeUInt16BE(type, 2)
  fixed.writeUInt16BE(1, 4)
  fixed.writeUInt32BE(60, 6)
  fixed.writeUInt16BE(data.length, 10)
  return Buffer.concat([fixed, data])
}
