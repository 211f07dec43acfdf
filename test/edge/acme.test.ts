/** Issuing from every Pebble that is installed: keys, identifiers, accounts, nonces, and how many requests it takes. */
import assert from 'node:assert/strict'
import { createPrivateKey, generateKeyPairSync, X509Certificate } from 'node:crypto'
import { after, before, describe, test } from 'node:test'
import { AcmeProblem, OperationalError } from '../../src/core/errors.js'
import { openAcme, type AcmeOptions } from '../../src/edge/acme.js'
import { belongTogether, checkIssued, makeCsr, readKey } from '../../src/edge/x509.js'
import { issue, newKey, startWorld, type World } from '../helpers/acmeWorld.js'
import { must } from '../helpers/lab-process.js'
import { pebbleVersions } from '../helpers/pebble.js'

const programs = pebbleVersions()
if (programs.length === 0) test('acme', { skip: 'no pebble is installed (scripts/setup installs it)' }, () => undefined)

const sec1 = () => must('openssl', ['ecparam', '-genkey', '-name', 'secp384r1'])

for (const program of programs) {
  describe(`pebble ${program.version}`, { concurrency: true, timeout: 60_000 }, () => {
    let world: World
    before(async () => { world = await startWorld({ program, chainLength: 2 }) })
    after(() => world.stop())

    /** Straight to Pebble: the proxy's record belongs to the one test that counts. */
    const direct = (accountKeyPem?: string) =>
      world.open({ directoryUrl: world.pebble.directoryUrl, ...accountKeyPem !== undefined && { accountKeyPem } })

    async function issues(keyType: 'rsa' | 'ec', names: readonly [string, ...string[]]): Promise<void> {
      const keyPem = await newKey(keyType)
      const chain = await issue({ acme: await direct(), challenges: world.challenges, names, keyPem })
      checkIssued(chain, { identifiers: names, spki: readKey(keyPem).spki, now: new Date() })
      assert.ok(belongTogether(keyPem, chain))
      assert.equal(chain.match(/BEGIN CERTIFICATE/gu)?.length, 3, 'leaf and two intermediates')
      assert.match(chain, /^-----BEGIN CERTIFICATE-----\n/u)
    }

    test('an EC certificate for two names', () => issues('ec', ['one.example.com', 'two.example.com']))
    test('an RSA certificate', () => issues('rsa', ['rsa.example.com']))
    test('an IPv4 address', () => issues('ec', ['127.0.0.1']))

    test('what one name costs in requests', async () => {
      const acme = await world.open({ contact: ['ops@example.com'] })
      const opened = world.proxy.seen.map(({ method, path }) => `${method} ${path.split('/')[1] ?? ''}`)
      assert.deepEqual(opened, ['GET dir', 'HEAD nonce-plz', 'POST sign-me-up'])
      assert.deepEqual(JSON.parse(world.proxy.seen[2]?.payload ?? ''),
        { termsOfServiceAgreed: true, contact: ['mailto:ops@example.com'] })
      world.proxy.use()
      await issue({ acme, challenges: world.challenges, names: ['count.example.com'], keyPem: await newKey('ec') })
      const asked = world.proxy.seen
      assert.ok(asked.every(({ method }) => method === 'POST'), 'nonces come from the answers')
      assert.ok(asked.every(({ headers }) => headers['user-agent'] === 'lematt-test/1'))
      // newOrder, authorization, challenge, poll, finalize, poll, certificate; further polls on a busy machine.
      const polls = asked.filter(({ path }) => /^\/(?:authZ|my-order)\//u.test(path))
      assert.equal(asked.length - polls.length, 4)
      assert.ok(polls.length >= 3 && polls.length <= 8, `${polls.length} polls`)
      console.log(`pebble ${program.version}: ${asked.length} requests for one name`)
    })

    test('the account is found again by its key, in any form of the key', async () => {
      const written = await sec1()
      assert.match(written, /^-----BEGIN EC PARAMETERS-----/u)
      const first = await direct(written)
      const key = createPrivateKey(written.slice(written.indexOf('-----BEGIN EC PRIVATE')))
      const again = await direct(key.export({ type: 'pkcs8', format: 'pem' }).toString())
      assert.equal(again.accountUrl, first.accountUrl)
      const other = await direct(await sec1())
      assert.notEqual(other.accountUrl, first.accountUrl)
      const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
      const names: readonly [string] = ['pkcs1.example.com']
      const acme = await direct(privateKey.export({ type: 'pkcs1', format: 'pem' }).toString())
      const chain = await issue({ acme, challenges: world.challenges, names, keyPem: await newKey('ec') })
      assert.deepEqual(new X509Certificate(chain).subjectAltName, 'DNS:pkcs1.example.com')
    })

    test('a failed validation gives the CA’s sentence and the identifier, and no key authorization', async () => {
      const acme = await direct()
      const order = await acme.newOrder(['nobody.example.com'])
      const authorization = await acme.authorization(order.authorizations[0] ?? '')
      const challenge = authorization.challenges.find(({ type }) => type === 'http-01')
      assert.ok(challenge)
      // Nothing is presented: our listener answers 404.
      await acme.accept(challenge, authorization.url)
      await assert.rejects(acme.validated(authorization.url), (error) => {
        assert.ok(error instanceof AcmeProblem)
        assert.equal(error.identifier, 'nobody.example.com')
        assert.equal(error.type, 'unauthorized')
        assert.match(error.message, /404|key authorization/iu)
        assert.ok(!error.message.includes(acme.keyAuthorization(challenge.token)))
        return true
      })
      const { der } = await makeCsr(await newKey('ec'), ['nobody.example.com'])
      await assert.rejects(acme.finalize(order, der), (error) => error instanceof AcmeProblem && error.status >= 400)
    })

    test('a refused order names the problem', async () => {
      const acme = await direct()
      await assert.rejects(acme.newOrder(['not a name.example.com']), (error) => {
        assert.ok(error instanceof AcmeProblem)
        assert.deepEqual({ status: error.status, type: error.type }, { status: 400, type: 'malformed' })
        return true
      })
    })
  })

  for (const percent of [15, 50]) {
    test(`pebble ${program.version} that refuses ${percent} % of the nonces`, { timeout: 60_000 }, async () => {
      const world = await startWorld({ program, nonceReject: percent, authzReuse: 100 })
      try {
        const acme = await world.open()
        const keyPem = await newKey('ec')
        const numbers = Array.from({ length: 8 }, (_, i) => i)
        const chains = await Promise.all(numbers.map((i) =>
          issue({ acme, challenges: world.challenges, names: [`n${i}.example.com`], keyPem })))
        assert.deepEqual(chains.map((chain) => new X509Certificate(chain).subjectAltName),
          numbers.map((i) => `DNS:n${i}.example.com`))
        // The second key type: the authorization is reused, the order ready, and no challenge needed.
        const order = await acme.newOrder(['n0.example.com'])
        assert.equal(order.status, 'ready')
        const { der } = await makeCsr(await newKey('rsa'), ['n0.example.com'])
        assert.equal(new X509Certificate(await acme.finalize(order, der)).subjectAltName, 'DNS:n0.example.com')
      } finally {
        await world.stop()
      }
    })
  }
}

const options: Omit<AcmeOptions, 'accountKeyPem'> = {
  directoryUrl: 'https://127.0.0.1:1/dir', contact: [], userAgent: 'lematt-test', signal: new AbortController().signal,
}

test('account keys and directory URLs that cannot work are refused before anything is sent', async () => {
  const good = await newKey('ec')
  const refused = async (what: Partial<AcmeOptions>, message: RegExp) => {
    await assert.rejects(openAcme({ ...options, accountKeyPem: good, ...what }), (error) => {
      assert.ok(error instanceof OperationalError)
      assert.match(error.message, message)
      assert.doesNotMatch(error.message, /secret|MIG|PRIVATE KEY-/u)
      return true
    })
  }
  const pem = (key: ReturnType<typeof createPrivateKey>) => key.export({ type: 'pkcs8', format: 'pem' }).toString()
  await refused({ accountKeyPem: '' }, /accountKey is empty/u)
  await refused({ accountKeyPem: good.replace(/\n[A-Za-z0-9+/=]{10}/u, '\nAAAAAAAAAA') }, /accountKey is damaged/u)
  await refused({ accountKeyPem: pem(generateKeyPairSync('ed25519').privateKey) }, /ed25519/u)
  await refused({ accountKeyPem: pem(generateKeyPairSync('rsa', { modulusLength: 1024 }).privateKey) }, /rsa 1024/u)
  const locked = createPrivateKey(good).export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'x' })
  await refused({ accountKeyPem: locked.toString() }, /is encrypted/u)
  await refused({ directoryUrl: 'http://127.0.0.1:1/dir' }, /must start with https/u)
  await refused({ directoryUrl: 'https://user:secret@127.0.0.1:1/dir' }, /no user name/u)
  await refused({ extraRoots: 'nonsense' }, /caBundle does not hold readable PEM certificates/u)
})
