/** Keys, requests and certificates (X.509, RFC 5280; PKCS#10, RFC 2986). Reading is node:crypto's; @peculiar/x509 makes requests. */
import { createHash, createPrivateKey, createPublicKey, generateKeyPair, webcrypto, X509Certificate, type KeyObject } from 'node:crypto'
import { promisify } from 'node:util'
import { OperationalError } from '../core/errors.js'
import { isIp } from '../core/identifier.js'
import { cleanLine } from '../core/text.js'
import type { Identifier, KeyFacts, KeyType, Leaf, Settings } from '../core/types.js'
import { identifiersOf, issuerOf } from '../core/x509Text.js'

const generate = promisify(generateKeyPair)

/**
 * Reads a private key in PEM: PKCS#8, PKCS#1 or SEC1, the last also after the `EC PARAMETERS` block that
 * `openssl ecparam -genkey` writes. @throws OperationalError saying what is wrong with it
 */
export function readKey(pem: string): KeyFacts {
  return factsOf(createPublicKey(privateKey(pem)))
}

function privateKey(pem: string): KeyObject {
  const block = /-----BEGIN ((?:RSA |EC )?PRIVATE KEY)-----[^-]+-----END \1-----/u.exec(pem)
  if (block === null) {
    throw new OperationalError(pem.includes('ENCRYPTED') ? 'the key is encrypted with a passphrase' : pem.trim() === '' ? 'the file is empty' : 'no whole PEM private key in it')
  }
  try {
    return createPrivateKey(block[0])
  } catch (error) {
    throw new OperationalError(`not a private key: ${cleanLine(error instanceof Error ? error.message : String(error))}`)
  }
}

function factsOf(publicKey: KeyObject): KeyFacts {
  const { modulusLength, namedCurve } = publicKey.asymmetricKeyDetails ?? {}
  const type = publicKey.asymmetricKeyType
  return {
    keyType: type === 'rsa' || type === 'ec' ? type : 'other',
    ...(type === 'rsa' && modulusLength !== undefined ? { rsaBits: modulusLength } : {}),
    ...(type === 'ec' && namedCurve !== undefined ? { curve: namedCurve } : {}),
    spki: createHash('sha256').update(publicKey.export({ type: 'spki', format: 'der' })).digest('hex'),
  }
}

/** The certificates of a PEM file, leaf first. @throws OperationalError when one is damaged or there is none */
function readChain(pem: string): [X509Certificate, ...X509Certificate[]] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/gu) ?? []
  const outside = pem.replace(/-----BEGIN ([A-Z0-9 ]+)-----[^-]+-----END \1-----/gu, '')
  if (outside.includes('-----')) throw new OperationalError('a certificate in it is cut off')
  try {
    const [leaf, ...others] = blocks.map(block => new X509Certificate(block))
    if (leaf === undefined) throw new OperationalError(pem.trim() === '' ? 'the file is empty' : 'no PEM certificate in it')
    return [leaf, ...others]
  } catch (error) {
    throw error instanceof OperationalError ? error : new OperationalError(`not a certificate: ${cleanLine(error instanceof Error ? error.message : String(error))}`)
  }
}

/** Reads the leaf of a PEM chain. @throws OperationalError saying what is wrong with it */
export function readLeaf(pem: string): Leaf {
  const [certificate] = readChain(pem)
  return leafOf(certificate)
}

function leafOf(certificate: X509Certificate): Leaf {
  let facts: KeyFacts
  try {
    facts = factsOf(certificate.publicKey)
  } catch {
    throw new OperationalError('its public key cannot be read')
  }
  const notBefore = new Date(certificate.validFrom)
  const notAfter = new Date(certificate.validTo)
  // A date that is none is neither past nor to come: it would never be due.
  if (Number.isNaN(notBefore.getTime()) || Number.isNaN(notAfter.getTime())) throw new OperationalError('its validity cannot be read')
  return {
    ...facts,
    fingerprint: createHash('sha256').update(certificate.raw).digest('hex'),
    identifiers: identifiersOf(certificate.subjectAltName),
    notBefore,
    notAfter,
    issuer: issuerOf(certificate.issuer),
    serial: certificate.serialNumber.toLowerCase(),
  }
}

/** Whether key and chain (PEM) belong together and the chain is whole and links; never throws. */
export function belongTogether(keyPem: string, chainPem: string): boolean {
  try {
    const chain = readChain(chainPem)
    return /-----END CERTIFICATE-----\s*$/u.test(chainPem) && leafOf(chain[0]).spki === readKey(keyPem).spki && brokenLink(chain) === undefined
  } catch {
    return false
  }
}

function brokenLink(chain: readonly X509Certificate[]): string | undefined {
  for (const [i, certificate] of chain.entries()) {
    const issuer = chain[i + 1]
    if (issuer !== undefined && !(certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey))) {
      return `certificate ${i + 1} of the chain is not issued by the next one`
    }
  }
  return undefined
}

/** How far the clocks of the CA and ours may differ before a certificate "not yet valid" is refused. */
const clockToleranceMs = 86_400_000

/**
 * Checks what the CA returned before it is saved (spec §5): exactly the names asked for, our public key, valid now, a chain
 * that links. @throws OperationalError naming what is wrong
 */
export function checkIssued(pem: string, wanted: { identifiers: readonly Identifier[]; spki: string; now: Date }): Leaf {
  const refuse = (why: string): never => {
    throw new OperationalError(`the CA returned a certificate that is refused: ${why}; nothing was replaced`)
  }
  let chain: readonly [X509Certificate, ...X509Certificate[]]
  let leaf: Leaf
  try {
    chain = readChain(pem)
    leaf = leafOf(chain[0])
  } catch (error) {
    return refuse(error instanceof Error ? error.message : String(error))
  }
  const got = new Set(leaf.identifiers)
  const names = [...wanted.identifiers].sort().join(' ')
  if (got.size !== new Set(wanted.identifiers).size || !wanted.identifiers.every(id => got.has(id))) {
    return refuse(`it is for ${[...got].sort().join(' ') || 'no name'}, not for ${names}`)
  }
  if (leaf.spki !== wanted.spki) return refuse('its public key is not ours')
  if (!(leaf.notAfter > wanted.now)) return refuse(`it expired at ${leaf.notAfter.toISOString()}`)
  if (leaf.notBefore.getTime() > wanted.now.getTime() + clockToleranceMs) return refuse(`it is valid only from ${leaf.notBefore.toISOString()} (is this host's clock right?)`)
  const broken = brokenLink(chain)
  return broken === undefined ? leaf : refuse(broken)
}

/** Makes a key pair without blocking the event loop. @returns PKCS#8 in PEM */
export async function makeKey(keyType: KeyType, settings: Pick<Settings, 'keyBitsRSA' | 'curve'>): Promise<string> {
  const { privateKey: key } = keyType === 'rsa'
    ? await generate('rsa', { modulusLength: settings.keyBitsRSA })
    : await generate('ec', { namedCurve: settings.curve })
  return key.export({ type: 'pkcs8', format: 'pem' }).toString()
}

/**
 * A certificate signing request with exactly these identifiers as subjectAltName, no common name (RFC 8555 §7.4 asks for
 * none, and an address or a name over 64 octets cannot be one), signed with SHA-256 (SHA-384 for P-384).
 */
export async function makeCsr(keyPem: string, identifiers: readonly Identifier[]): Promise<{ der: Buffer; pem: string }> {
  const x509 = await import('@peculiar/x509')
  const key = privateKey(keyPem)
  const facts = readKey(keyPem)
  const hash = facts.curve === 'secp384r1' ? 'SHA-384' : 'SHA-256'
  const algorithm = facts.keyType === 'rsa'
    ? { name: 'RSASSA-PKCS1-v1_5', hash }
    : { name: 'ECDSA', namedCurve: facts.curve === 'secp384r1' ? 'P-384' : 'P-256', hash }
  const { subtle } = webcrypto
  const keys = {
    privateKey: await subtle.importKey('pkcs8', key.export({ type: 'pkcs8', format: 'der' }), algorithm, true, ['sign']),
    publicKey: await subtle.importKey('spki', createPublicKey(key).export({ type: 'spki', format: 'der' }), algorithm, true, ['verify']),
  }
  const names = identifiers.map(value => ({ type: isIp(value) ? 'ip' as const : 'dns' as const, value }))
  const extensions = [new x509.SubjectAlternativeNameExtension(names)]
  const request = await x509.Pkcs10CertificateRequestGenerator.create({ keys, signingAlgorithm: algorithm, extensions })
  return { der: Buffer.from(request.rawData), pem: `${request.toString('pem')}\n` }
}
