/** A store that is full, without a CA. */
import { webcrypto } from 'node:crypto'
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import type { Night } from './night.js'

/** Puts a certificate for each name into the store: of a CA of our own, and all for one key, which is cheap. */
export async function adopt(night: Night, names: readonly string[]): Promise<void> {
  const { BasicConstraintsExtension, SubjectAlternativeNameExtension, X509CertificateGenerator } = await import('@peculiar/x509')
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
  const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey)).toString('base64')
  const key = `-----BEGIN PRIVATE KEY-----\n${pkcs8.replace(/.{64}/gu, '$&\n')}\n-----END PRIVATE KEY-----\n`
  const times = { notBefore: new Date(Date.now() - 86_400_000), notAfter: new Date(Date.now() + 89 * 86_400_000) }
  for (const directory of ['cert', 'key']) mkdirSync(night.path('test', directory), { recursive: true })
  for (const [i, name] of names.entries()) {
    const certificate = await X509CertificateGenerator.create({
      serialNumber: (i + 1).toString(16).padStart(8, '0'), subject: `CN=${name}`, issuer: 'CN=Old CA', ...times,
      publicKey: keys.publicKey, signingKey: keys.privateKey, signingAlgorithm: algorithm,
      extensions: [new BasicConstraintsExtension(false), new SubjectAlternativeNameExtension([{ type: 'dns', value: name }])],
    })
    const file = night.path('test', 'key', `${name}-key.prime256v1.test.pem`)
    writeFileSync(file, key, { mode: 0o600 })
    chmodSync(file, 0o600)
    writeFileSync(night.path('test', 'cert', `${name}-cert-combined.prime256v1.test.pem`), `${certificate.toString('pem')}\n`)
  }
}
