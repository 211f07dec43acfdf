/** The account key's file, in any of the forms that openssl and the original left. Pure. */
import { createPrivateKey } from 'node:crypto'
import { OperationalError } from './errors.js'
import { cleanLine } from './text.js'

/**
 * Takes PKCS#1, SEC1 or PKCS#8 PEM of an RSA (2048 bits or more), P-256 or P-384 key; gives PKCS#8 PEM.
 * Throws `OperationalError` saying what is wrong with `what`; the key itself is never part of a message.
 */
export function normalizeAccountKey(pem: string, what = 'accountKey'): string {
  // `openssl ecparam -genkey` leaves a block with the parameters in front, which is not a key.
  const block = /-----BEGIN ((?:RSA |EC |ENCRYPTED )?PRIVATE KEY)-----[^]+?-----END \1-----/u.exec(pem)?.[0]
  let why = pem.trim() === '' ? 'is empty' : 'holds no PEM private key'
  if (block !== undefined) {
    try {
      const key = createPrivateKey(block)
      const { namedCurve, modulusLength = 0 } = key.asymmetricKeyDetails ?? {}
      const good = key.asymmetricKeyType === 'rsa' ? modulusLength >= 2048
        : namedCurve === 'prime256v1' || namedCurve === 'secp384r1'
      if (good) return key.export({ type: 'pkcs8', format: 'pem' }).toString()
      const kind = cleanLine([key.asymmetricKeyType, namedCurve ?? (modulusLength || '')].join(' '), 60)
      why = `is of a kind that ACME servers do not take (${kind})`
    } catch {
      // OpenSSL's own sentence would not help, and it must not show what it read.
      why = block.includes('ENCRYPTED') ? 'is encrypted, and a night run has no passphrase' : 'is damaged'
    }
  }
  throw new OperationalError(`${what} ${why}; give it an RSA (2048 bits or more), P-256 or P-384 key in PEM`)
}
