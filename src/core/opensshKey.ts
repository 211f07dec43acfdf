/** An Ed25519 key pair as OpenSSH writes it (PROTOCOL.key, RFC 8709 §4): ssh(1) and ssh2 read no other form of such a key. */
import { createHash } from 'node:crypto'

export interface OpensshPair {
  /** The private key file, without a passphrase: nobody is there at night to type one. */
  readonly privateKey: string
  /** `ssh-ed25519 AAAA…`, without a comment. */
  readonly publicKey: string
}

const type = 'ssh-ed25519'
/** `string` of RFC 4251 §5: its length, then its bytes. */
const string = (value: string | Buffer): Buffer => {
  const bytes = Buffer.from(value as string)
  return Buffer.concat([uint32(bytes.length), bytes])
}
const uint32 = (n: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(n)
  return bytes
}

/**
 * @param seed the 32 bytes of the private key, @param point the 32 bytes of the public key (RFC 8032 §5.1.5)
 * @param comment shown by ssh-keygen -l
 */
export function opensshPair(seed: Buffer, point: Buffer, comment: string): OpensshPair {
  if (seed.length !== 32 || point.length !== 32) throw new Error('an ed25519 key has 32 bytes and 32 bytes')
  const blob = Buffer.concat([string(type), string(point)])
  // Twice the same number: with a passphrase it would show whether that was the right one. Any will do.
  const check = createHash('sha256').update(point).digest().subarray(0, 4)
  const unpadded = Buffer.concat([check, check, string(type), string(point), string(Buffer.concat([seed, point])), string(comment)])
  const padding = Buffer.from([1, 2, 3, 4, 5, 6, 7].slice(0, (8 - unpadded.length % 8) % 8))
  const whole = Buffer.concat([
    Buffer.from('openssh-key-v1\0'), string('none'), string('none'), string(''), uint32(1), string(blob),
    string(Buffer.concat([unpadded, padding])),
  ])
  const lines = whole.toString('base64').match(/.{1,70}/gu) ?? []
  return {
    privateKey: `-----BEGIN OPENSSH PRIVATE KEY-----\n${lines.join('\n')}\n-----END OPENSSH PRIVATE KEY-----\n`,
    publicKey: `${type} ${blob.toString('base64')}`,
  }
}

/** The public key that stands unencrypted in a private key file of ours; undefined when it is no such file. */
export function publicKeyOf(privateKey: string): string | undefined {
  const body = /^-----BEGIN OPENSSH PRIVATE KEY-----\n([A-Za-z0-9+/=\n]+)\n-----END OPENSSH PRIVATE KEY-----\s*$/u.exec(privateKey)?.[1]
  if (body === undefined) return undefined
  const bytes = Buffer.from(body, 'base64')
  const prefix = Buffer.concat([Buffer.from('openssh-key-v1\0'), string('none'), string('none'), string(''), uint32(1)])
  if (!bytes.subarray(0, prefix.length).equals(prefix) || bytes.length < prefix.length + 4) return undefined
  const start = prefix.length + 4
  const blob = bytes.subarray(start, start + bytes.readUInt32BE(prefix.length))
  return blob.subarray(0, 15).equals(string(type)) && blob.length === 51 ? `${type} ${blob.toString('base64')}` : undefined
}
