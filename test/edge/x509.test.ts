import assert from 'node:assert/strict'
import { createHash, createPrivateKey, X509Certificate } from 'node:crypto'
import { describe, test } from 'node:test'
import { OperationalError } from '../../src/core/errors.js'
import { belongTogether, checkIssued, makeCsr, makeKey, readKey, readLeaf } from '../../src/edge/x509.js'
import { certify, openssl } from '../helpers/certificates.js'

const ca = certify('', { ca: true, cn: 'Test Root' })
const intermediate = certify('', { ca: true, cn: 'Test Intermediate', issuer: ca })
const rsa = certify('DNS:b.example,DNS:a.example', { algorithm: 'rsa' })
const ec = certify('DNS:a.example', { issuer: intermediate })
const chain = ec.certificate + intermediate.certificate

const refusal = (message: RegExp) => (error: unknown): boolean => error instanceof OperationalError && message.test(error.message)
const sha256 = (data: Buffer): string => createHash('sha256').update(data).digest('hex')

describe('keys', () => {
  const generated = (...args: string[]): string => openssl([...args, '-out', 'key'], {}, ['key']).files[0] ?? ''
  const spki = (key: string): string => createHash('sha256')
    .update(Buffer.from(openssl(['pkey', '-in', 'key', '-pubout'], { key }).stdout.replace(/-----.*-----/gu, ''), 'base64')).digest('hex')

  test('PKCS#8, PKCS#1, SEC1 with and without its EC PARAMETERS block: the same facts', () => {
    const pkcs1 = openssl(['rsa', '-in', 'key', '-traditional'], { key: rsa.key }).stdout
    assert.match(pkcs1, /BEGIN RSA PRIVATE KEY/u)
    assert.deepEqual(readKey(pkcs1), { keyType: 'rsa', rsaBits: 2048, spki: spki(rsa.key) })
    assert.deepEqual(readKey(rsa.key), readKey(pkcs1))
    const withParameters = generated('ecparam', '-genkey', '-name', 'secp384r1')
    assert.match(withParameters, /BEGIN EC PARAMETERS[^]*BEGIN EC PRIVATE KEY/u)
    assert.deepEqual(readKey(withParameters), { keyType: 'ec', curve: 'secp384r1', spki: spki(withParameters) })
    assert.deepEqual(readKey(withParameters.slice(withParameters.indexOf('-----BEGIN EC PRIVATE'))), readKey(withParameters))
    assert.deepEqual(readKey(withParameters.replaceAll('\n', '\r\n')), readKey(withParameters))
    assert.deepEqual(readKey(ec.key), { keyType: 'ec', curve: 'prime256v1', spki: spki(ec.key) })
  })

  test('a key of another kind is read as that', () => {
    assert.deepEqual(readKey(certify('DNS:a.example', { algorithm: 'ed25519' }).key).keyType, 'other')
  })

  test('what is none is refused, each with its reason, and its content is not in the message', () => {
    const encrypted = openssl(['pkcs8', '-topk8', '-in', 'key', '-passout', 'pass:secret'], { key: ec.key }).stdout
    const encryptedOld = openssl(['rsa', '-in', 'key', '-traditional', '-aes128', '-passout', 'pass:secret'], { key: rsa.key }).stdout
    assert.match(encryptedOld, /Proc-Type: 4,ENCRYPTED/u)
    const cases: [string, RegExp][] = [
      [encrypted, /^the key is encrypted with a passphrase$/u], [encryptedOld, /^the key is encrypted with a passphrase$/u],
      ['', /^the file is empty$/u], [' \n', /^the file is empty$/u], [ec.certificate, /^no whole PEM private key in it$/u], ['\u0000\u001b[31m', /^no whole PEM private key in it$/u],
      [ec.key.replace('-----\nMIG', '-----\nAAA'), /^not a private key: /u], ['-----BEGIN PRIVATE KEY-----\n!!!\n-----END PRIVATE KEY-----\n', /^not a private key: /u],
    ]
    for (const [pem, message] of cases) {
      assert.throws(() => readKey(pem), (error: unknown) => refusal(message)(error) && !(error as Error).message.includes(pem.split('\n')[2] ?? '-none-'))
    }
    for (let cut = 1; cut < ec.key.length - 1; cut += 7) assert.throws(() => readKey(ec.key.slice(0, cut)), OperationalError)
  })

  test('keys are made as asked, as PKCS#8', async () => {
    for (const curve of ['prime256v1', 'secp384r1'] as const) {
      const key = await makeKey('ec', { curve, keyBitsRSA: 2048 })
      assert.match(key, /^-----BEGIN PRIVATE KEY-----\n/u)
      assert.deepEqual([readKey(key).keyType, readKey(key).curve], ['ec', curve])
    }
    assert.equal(readKey(await makeKey('rsa', { curve: 'prime256v1', keyBitsRSA: 3072 })).rsaBits, 3072)
  })
})

describe('certificates', () => {
  test('the leaf of a chain, as openssl sees it', () => {
    const leaf = readLeaf(chain)
    const parsed = new X509Certificate(ec.certificate)
    assert.deepEqual(leaf, {
      keyType: 'ec', curve: 'prime256v1', spki: readKey(ec.key).spki, fingerprint: sha256(parsed.raw), identifiers: ['a.example'], issuer: 'Test Intermediate',
      notBefore: leaf.notBefore, notAfter: leaf.notAfter, serial: parsed.serialNumber.toLowerCase(),
    })
    const shown = openssl(['x509', '-in', 'c', '-noout', '-fingerprint', '-sha256', '-dates'], { c: chain }).stdout
    assert.ok(shown.includes(leaf.fingerprint.toUpperCase().replace(/..(?=.)/gu, '$&:')))
    assert.equal(leaf.notAfter.getTime(), Date.parse(/notAfter=(.*)/u.exec(shown)?.[1] ?? ''))
    assert.equal(leaf.notAfter.getTime() - leaf.notBefore.getTime(), 90 * 86_400_000)
    assert.deepEqual([readLeaf(rsa.certificate).keyType, readLeaf(rsa.certificate).rsaBits], ['rsa', 2048])
    assert.equal(readLeaf(certify('DNS:a.example', { algorithm: 'ed25519' }).certificate).keyType, 'other')
  })

  test('names: several, wildcards, addresses in canonical form, none', () => {
    const names = 'DNS:A.example,DNS:*.a.example,IP:192.0.2.1,IP:2001:DB8:0:0:0:0:0:1,DNS:a.example'
    assert.deepEqual(readLeaf(certify(names).certificate).identifiers, ['a.example', '*.a.example', '192.0.2.1', '2001:db8::1'])
    assert.deepEqual(readLeaf(certify('').certificate).identifiers, [])
  })

  test('odd names are never taken for ours', () => {
    const leaf = readLeaf(certify('DNS:a.example,email:x@y.example,URI:http://z.example/').certificate)
    assert.ok(leaf.identifiers.includes('a.example'))
    assert.equal(leaf.identifiers.length, 3)
    assert.ok(!leaf.identifiers.includes('z.example') && !leaf.identifiers.includes('y.example'))
  })

  test('a comment around it does no harm, nor do CRLF', () => {
    assert.deepEqual(readLeaf(`subject=CN = x\n${chain}\n# end\n`), readLeaf(chain))
    assert.deepEqual(readLeaf(chain.replaceAll('\n', '\r\n')), readLeaf(chain))
  })

  test('cut off anywhere, also within the second one, it is refused', () => {
    assert.throws(() => readLeaf(''), refusal(/^the file is empty$/u))
    assert.throws(() => readLeaf(ec.key), refusal(/^no PEM certificate in it$/u))
    for (let cut = 30; cut < chain.length - 1; cut += 11) {
      const text = chain.slice(0, cut)
      assert.ok(!belongTogether(ec.key, text) || text.trimEnd() === ec.certificate.trimEnd(), `${cut}`)
      // Four dashes or fewer after the first certificate are no sign of another one.
      if (Math.abs(cut - ec.certificate.length) > 5) assert.throws(() => readLeaf(text), OperationalError, `${cut}`)
    }
    assert.throws(() => readLeaf(ec.certificate.replace(/\n[A-Za-z]{10}/u, '\nAAAAAAAAAA')), refusal(/^not a certificate: /u))
  })

  test('a validity that is no date is refused: it would never be due', () => {
    const der = Buffer.from(new X509Certificate(ec.certificate).raw)
    // UTCTime: tag 23, length 13, YYMMDDHHMMSSZ. Month 99 in the second one, notAfter.
    const second = der.indexOf(Buffer.from([23, 13]), der.indexOf(Buffer.from([23, 13])) + 15)
    der.write('99', second + 4, 'latin1')
    const pem = `-----BEGIN CERTIFICATE-----\n${der.toString('base64').replace(/.{64}/gu, '$&\n')}\n-----END CERTIFICATE-----\n`
    assert.throws(() => readLeaf(pem), refusal(/^its validity cannot be read$/u))
  })

  test('an issuer cannot write on the terminal', () => {
    const leaf = readLeaf(certify('DNS:a.example', { cn: 'Evil\u001b[31m\u202eCA' }).certificate)
    assert.doesNotMatch(leaf.issuer, /[\u0000-\u001f\u007f-\u009f\u202e]/u)
    assert.match(leaf.issuer, /^Evil/u)
  })

  test('key and chain belong together, or not', () => {
    assert.equal(belongTogether(ec.key, chain), true)
    assert.equal(belongTogether(ec.key, ec.certificate), true)
    assert.equal(belongTogether(rsa.key, chain), false)
    assert.equal(belongTogether(ec.key, intermediate.certificate + ec.certificate), false, 'the wrong way round')
    assert.equal(belongTogether(ec.key, ec.certificate + ca.certificate), false, 'a link is missing')
    assert.equal(belongTogether(ec.key, `${chain}-----BEGIN CERT`), false)
    assert.equal(belongTogether('', chain), false)
    assert.equal(belongTogether(ec.key, ''), false)
  })
})

describe('what the CA returned', () => {
  const { spki } = readKey(ec.key)
  const now = new Date()
  const days = (n: number): Date => new Date(now.getTime() + n * 86_400_000)
  const check = (pem: string, { identifiers = ['a.example'], key = spki, at = now } = {}): unknown => checkIssued(pem, { identifiers, spki: key, now: at })

  test('is taken when names, key, validity and chain are right', () => {
    assert.deepEqual(check(chain), readLeaf(chain))
    assert.deepEqual(check(ec.certificate), readLeaf(chain))
    const two = readLeaf(rsa.certificate)
    assert.deepEqual(check(rsa.certificate, { identifiers: ['a.example', 'b.example'], key: two.spki }), two, 'in any order')
    const addresses = certify('IP:2001:db8::1,DNS:a.example')
    assert.equal((check(addresses.certificate, { identifiers: ['a.example', '2001:db8::1'], key: readKey(addresses.key).spki }) as { keyType: string }).keyType, 'ec')
    assert.ok(check(chain, { at: days(-0.9) }), 'the CA may be ahead of our clock by some hours')
  })

  test('is refused when not, each with its reason', () => {
    const refused = (message: RegExp, pem: string, options?: Parameters<typeof check>[1]): void =>
      assert.throws(() => check(pem, options), (error: unknown) => refusal(message)(error) && /^the CA returned a certificate that is refused: .*; nothing was replaced$/u.test((error as Error).message))
    refused(/it is for a\.example, not for b\.example/u, chain, { identifiers: ['b.example'] })
    refused(/it is for a\.example, not for a\.example b\.example/u, chain, { identifiers: ['b.example', 'a.example'] })
    refused(/it is for a\.example b\.example, not for a\.example/u, rsa.certificate, { key: readKey(rsa.key).spki })
    refused(/it is for no name/u, intermediate.certificate)
    refused(/its public key is not ours/u, chain, { key: readKey(rsa.key).spki })
    refused(/it expired at/u, chain, { at: days(91) })
    refused(/it is valid only from .*clock/u, chain, { at: days(-1.1) })
    refused(/certificate 1 of the chain is not issued by the next one/u, ec.certificate + ca.certificate)
    refused(/certificate 2 of the chain/u, chain + rsa.certificate)
    // The same names as the issuer, but another key: only the signature tells.
    const impostor = certify('', { ca: true, cn: 'Test Intermediate' })
    refused(/certificate 1 of the chain/u, ec.certificate + impostor.certificate)
    refused(/no PEM certificate in it/u, '<html>502</html>')
    refused(/the file is empty/u, '')
    refused(/cut off/u, chain.slice(0, -30))
  })
})

describe('requests', () => {
  for (const [keyType, curve] of [['rsa', 'prime256v1'], ['ec', 'prime256v1'], ['ec', 'secp384r1']] as const) {
    test(`openssl verifies it: ${keyType} ${keyType === 'ec' ? curve : ''}, all names as subjectAltName and nothing as subject`, async () => {
      const key = await makeKey(keyType, { curve, keyBitsRSA: 2048 })
      const { der, pem } = await makeCsr(key, ['a.example', '*.a.example', '192.0.2.1', '2001:db8::1'])
      assert.match(pem, /^-----BEGIN CERTIFICATE REQUEST-----\n[^]*\n-----END CERTIFICATE REQUEST-----\n$/u)
      assert.equal(Buffer.from(pem.replace(/-----.*-----/gu, ''), 'base64').compare(der), 0)
      const { stdout } = openssl(['req', '-in', 'csr', '-verify', '-noout', '-text'], { csr: pem })
      assert.match(stdout, /DNS:a\.example, DNS:\*\.a\.example, IP Address:192\.0\.2\.1, IP Address:2001:DB8:0:0:0:0:0:1\n/u)
      assert.match(stdout, /Subject: *\n/u)
      assert.match(stdout, keyType === 'rsa' ? /sha256WithRSAEncryption/u : curve === 'secp384r1' ? /ecdsa-with-SHA384/u : /ecdsa-with-SHA256/u)
      const publicKey = openssl(['req', '-in', 'csr', '-pubkey', '-noout'], { csr: pem }).stdout
      assert.equal(publicKey, openssl(['pkey', '-in', 'key', '-pubout'], { key }).stdout)
      assert.doesNotMatch(pem, /PRIVATE/u)
    })
  }

  test('a key that an older program made in PKCS#1 or SEC1 serves too', async () => {
    for (const key of [createPrivateKey(rsa.key).export({ type: 'pkcs1', format: 'pem' }), createPrivateKey(ec.key).export({ type: 'sec1', format: 'pem' })]) {
      const { pem } = await makeCsr(String(key), ['a.example'])
      assert.match(openssl(['req', '-in', 'csr', '-verify', '-noout', '-text'], { csr: pem }).stdout, /DNS:a\.example\n/u)
    }
  })
})
