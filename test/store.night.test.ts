/** The store at the command line: names of files, links, modes, and which pairs leave it. */
import assert from 'node:assert/strict'
import { lstatSync, readlinkSync, statSync, writeFileSync } from 'node:fs'
import { generateKeyPairSync } from 'node:crypto'
import { join } from 'node:path'
import { after, before, beforeEach, describe, test } from 'node:test'
import { lines } from './helpers/faultyNight.js'
import { labSkip } from './helpers/lab.js'
import type { Ran } from './helpers/lab-process.js'
import { cli, Night } from './helpers/night.js'

interface Plan {
  orders: { name: string; parked?: object }[]
  deliveries: { section: string; steps: { certificates: { name: string }[] }[] }[]
}

const certificateOf = (name: string, mode = 'test'): string => `${name}-cert-combined.prime256v1${mode === 'test' ? '.test' : ''}.pem`
const keyOf = (name: string, mode = 'test'): string => `${name}-key.prime256v1${mode === 'test' ? '.test' : ''}.pem`
const mode = (path: string): string => (lstatSync(path).mode & 0o7777).toString(8)

describe('the store, at the command line', { skip: labSkip(), concurrency: false }, () => {
  let night: Night
  const record = (): string => join(night.lab.dir, 'record')
  before(async () => { night = await Night.open() })
  after(() => night.close())
  beforeEach(async () => {
    night.settings({ keyTypes: 'ec', challengeCheck: 'no' })
    await night.lab.run('rm', ['-rf', night.path('test'), night.path('prod'), record()])
  })

  async function well(args: readonly string[] = ['--test']): Promise<Ran> {
    const ran = await night.lematt(args)
    assert.equal(ran.code, 0, ran.stdout + ran.stderr)
    assert.equal(ran.stderr, '')
    return ran
  }

  test('a label names the files, and stands for its subject alone in domains: of a section', async () => {
    await night.domains('a.example.com b.example.com > web1\na.example.com b.example.com > web-2\n')
    night.actions(`[default]\nuploadCerts: ["echo default CERTS >> ${record()}"]
[override]\ndomains: web1\nuploadCerts: ["echo $LEMATT_SECTION CERTS >> ${record()}"]\nuploadKeys: ["echo $LEMATT_SECTION KEYS >> ${record()}"]\n`)
    await well()
    const links = ['a.example.com', 'b.example.com']
    for (const [directory, fileOf] of [['cert', certificateOf], ['key', keyOf]] as const) {
      assert.deepEqual(night.files('test', directory), [...links, 'web-2', 'web1'].map(name => fileOf(name)))
      for (const name of links) assert.equal(readlinkSync(night.path('test', directory, fileOf(name))), fileOf('web1'))
      for (const name of ['web1', 'web-2']) assert.ok(statSync(night.path('test', directory, fileOf(name))).isFile())
    }
    for (const name of ['web1', 'web-2']) {
      assert.deepEqual(night.certificate(name, 'prime256v1').names, links)
      assert.ok(night.files('test', 'csr').includes(`${name}-csr.prime256v1.test.csr`))
    }
    const at = (directory: string, names: readonly string[], fileOf: typeof keyOf): string =>
      names.map(name => night.path('test', directory, fileOf(name))).join(' ')
    assert.deepEqual(lines(record()), [
      `default ${at('cert', ['web-2'], certificateOf)}`,
      `override ${at('cert', ['web1', ...links], certificateOf)}`,
      `override ${at('key', ['web1', ...links], keyOf)}`,
    ])
    night.assertWhole()
  })

  test('NAME: the other names sorted by their labels from the right, the top-level one left out', async () => {
    await night.domains('x.org z.example.net c.example.com y.example.net a.b.example.com y.example.com b.example.org\n')
    night.actions('[default]\n')
    await well()
    const name = 'x.org_b.example.org_a.b.example.com_c.example.com_y.example.com_y.example.net_z.example.net'
    assert.deepEqual(night.files('test', 'csr'), [`${name}-csr.prime256v1.test.csr`])
    assert.equal(night.certificate(name, 'prime256v1').names.length, 7)
    assert.equal(readlinkSync(night.path('test', 'cert', certificateOf('y.example.net'))), certificateOf(name))
  })

  test('a NAME over 180 bytes is cut and ends in the SHA-256 of the whole', async () => {
    const names = [1, 2, 3, 4, 5, 6, 7].map(n => `n${n}.a-rather-long-department.example.com`)
    await night.domains(`${names.join(' ')}\n`)
    night.actions(`[default]\nuploadCerts: ["echo CERTS >> ${record()}"]\n`)
    await well()
    // printf %s n1.a-rather-long-department.example.com_n2.… | sha256sum
    const name = `${names.join('_').slice(0, 163)}_0d3e927a65f920ab`
    assert.equal(name.length, 180)
    assert.deepEqual(night.files('test', 'csr'), [`${name}-csr.prime256v1.test.csr`])
    assert.deepEqual(night.certificate(name, 'prime256v1').names, names)
    assert.equal(lines(record())[0]?.split(' ').length, 8)
    // It is found again under that name.
    assert.match((await well()).stdout, /^nothing to do/mu)
  })

  test('a Unicode name is an A-label in the certificate, in file names and in domains: of a section', async () => {
    const label = 'xn--bcher-kva.example.com'
    await night.domains('BÜCHER.example.com\n', [label])
    night.actions(`[default]\nupdate: ["echo default >> ${record()}"]\n[books]\ndomains: bücher.example.com\nupdate: ["echo books DOMAINS_ALL >> ${record()}"]\n`)
    await well()
    assert.deepEqual(night.files('test', 'cert'), [certificateOf(label)])
    assert.deepEqual(night.files('test', 'key'), [keyOf(label)])
    assert.deepEqual(night.certificate(label, 'prime256v1').names, [label])
    assert.deepEqual(lines(record()), [`books ${label}`])
  })

  test('CRLF and a BOM in all three files', async () => {
    await night.domains('a.example.com b\n# ours\nc.example.com\n', ['a.example.com', 'b.a.example.com', 'c.example.com'])
    night.actions(`[default]\nupdate: ["echo default DOMAINS_ALL >> ${record()}",\n  "echo second >> ${record()}"]\n[c]\ndomains: c.example.com\nupdate: ["echo c DOMAINS_CN >> ${record()}"]\n`)
    const files = ['lematt.conf', 'domains', 'actions.conf']
    for (const file of files) night.write(file, `\ufeff${night.read(file).replaceAll('\n', '\r\n')}`)
    for (const file of files) assert.match(night.read(file), /^\ufeff[^]*\r\n$/u)
    const ran = await well()
    // The lab has one CA for both modes; of anything else there is no warning.
    assert.deepEqual(ran.stdout.match(/^warning: .*$/gmu)?.filter(line => !line.includes('testDirectory')), [])
    assert.deepEqual(lines(record()), ['default a.example.com b.a.example.com', 'second', 'c c.example.com'])
    assert.deepEqual(night.files('test', 'csr'), ['a.example.com_b.a.example.com-csr.prime256v1.test.csr', 'c.example.com-csr.prime256v1.test.csr'])
  })

  test('links: those of dropped names go, a file in the way of one is kept in previous/', async () => {
    night.actions('[default]\n')
    await night.domains('b.example.com\n')
    await well()
    const own = { cert: night.read('test', 'cert', certificateOf('b.example.com')), key: night.read('test', 'key', keyOf('b.example.com')) }

    await night.domains('a.example.com b.example.com c.example.com\n')
    const joined = 'a.example.com_b.example.com_c.example.com'
    assert.match((await well()).stdout, /moved b\.example\.com-key\.prime256v1\.test\.pem to previous\//u)
    for (const [directory, fileOf] of [['cert', certificateOf], ['key', keyOf]] as const) {
      for (const name of ['a', 'b', 'c']) {
        assert.equal(readlinkSync(night.path('test', directory, fileOf(`${name}.example.com`))), fileOf(joined))
      }
      assert.equal(night.read('test', 'previous', fileOf('b.example.com')), own[directory], 'the file in the way is not in previous/')
    }

    await night.domains('a.example.com b.example.com\n')
    await well()
    const now = 'a.example.com_b.example.com'
    for (const [directory, fileOf] of [['cert', certificateOf], ['key', keyOf]] as const) {
      // The combined files of the former names are real files, so they stay; of links just that of the dropped name goes.
      assert.deepEqual(night.files('test', directory), ['a.example.com', 'b.example.com', now, joined].map(name => fileOf(name)).sort())
      for (const name of ['a', 'b']) assert.equal(readlinkSync(night.path('test', directory, fileOf(`${name}.example.com`))), fileOf(now))
      assert.ok(lstatSync(night.path('test', directory, fileOf(joined))).isFile())
    }
    night.assertWhole()
  })

  for (const [umask, as] of [['000', 'test'], ['077', 'prod']] as const) {
    test(`modes of files and directories under umask ${umask}`, async () => {
      night.settings({ keyTypes: 'ec', challengeCheck: 'no', alwaysGenerateNewKeys: 'yes' })
      await night.domains('a.example.com b.example.com\n')
      night.actions(`[default]\nupdate: ["true"]\n[broken]\ndomains: b.example.com\nupdate: ["false"]\n`)
      const masked = (args: readonly string[]): Promise<Ran> => night.lab.run('sh', ['-c', `umask ${umask}; exec "$@"`, 'sh',
        process.execPath, cli, `--${as}`, ...args, '--config', night.conf], { cwd: night.lab.dir })
      // The second one fills previous/; [broken] leaves a failure in the state.
      for (const args of [[], ['--force', '--only', 'a.example.com']]) {
        const { code, stdout, stderr } = await masked(args)
        assert.equal(code, 1, stdout + stderr)
        assert.match(stdout, /1 issued/u)
      }
      const name = 'a.example.com_b.example.com'
      const [key, certificate] = [keyOf(name, as), certificateOf(name, as)]
      const found = Object.fromEntries([
        [], ['key'], ['previous'], ['state'], ['cert'], ['csr'],
        ['key', key], ['cert', certificate], ['csr', `${name}-csr.prime256v1${as === 'test' ? '.test' : ''}.csr`],
        ['previous', key], ['previous', certificate], ['state', 'receipts.json'], ['state', 'failures.json'],
      ].map(parts => [parts.join('/'), mode(night.path(as, ...parts))]))
      assert.deepEqual(Object.values(found), [
        '755', '700', '700', '700', '755', '755', '600', '644', '644', '600', '644', '644', '644',
      ], JSON.stringify(found))
    })
  }

  test('only a key and a certificate that belong together are delivered', async () => {
    night.actions('[default]\n')
    await night.domains('a.example.com\nb.example.com\nc.example.com\n')
    await well()
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
    writeFileSync(night.path('test', 'key', keyOf('a.example.com')), privateKey.export({ type: 'pkcs8', format: 'pem' }))
    writeFileSync(night.path('test', 'key', keyOf('c.example.com')), '')
    // No CA, so neither is mended tonight.
    night.settings({ keyTypes: 'ec', challengeCheck: 'no', testDirectory: 'https://127.0.0.1:1/dir' })
    night.actions(`[default]\nuploadCerts: ["echo CERTS >> ${record()}"]\nuploadKeys: ["echo KEYS >> ${record()}"]\nupdate: ["echo DOMAINS_ALL >> ${record()}"]\n`)
    const ran = await night.lematt(['--test'])
    assert.equal(ran.code, 1, ran.stdout)
    assert.match(ran.stdout, /^1 delivered, 1 failed, 1 parked \(/mu)
    assert.deepEqual(lines(record()), [
      night.path('test', 'cert', certificateOf('b.example.com')), night.path('test', 'key', keyOf('b.example.com')), 'b.example.com',
    ])
    // With a CA both are had anew, and then delivered.
    night.settings({ keyTypes: 'ec', challengeCheck: 'no' })
    await well(['--test', '--only', 'a.example.com', 'c.example.com'])
    assert.equal(lines(record()).at(-1), 'a.example.com c.example.com')
    night.assertWhole()
  })

  test('a dry run does not deliver what is parked', async () => {
    night.actions('[default]\nupdate: ["true"]\n[nowhere]\ndomains: nowhere.example.com\nupdate: ["true"]\n')
    await night.domains('a.example.com\nnowhere.example.com\n', ['a.example.com'])
    await night.lab.dns.set('nowhere.example.com', ['127.0.0.1'])
    const plan = async (): Promise<Plan> => JSON.parse((await well(['--test', '--dry-run', '--json'])).stdout) as Plan
    const delivered = ({ deliveries }: Plan): string[] => deliveries.flatMap(({ section, steps }) =>
      steps.flatMap(({ certificates }) => certificates.map(({ name }) => `${section} ${name}`)))
    assert.deepEqual(delivered(await plan()), ['default a.example.com', 'nowhere nowhere.example.com'])
    // Only the second failure in a row parks.
    for (const code of [1, 1]) assert.equal((await night.lematt(['--test'])).code, code)
    assert.deepEqual(night.files('test', 'cert'), [certificateOf('a.example.com')])
    const next = await plan()
    assert.deepEqual(next.orders.map(({ name, parked }) => [name, parked !== undefined]), [['nowhere.example.com', true]])
    assert.deepEqual(delivered(next), [])
  })
})
