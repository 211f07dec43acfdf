// The demo: some nights of an organisation with a central host and two servers, with real parts: Pebble (a CA), a
// name server, sshd, lematt-receive, rsync, nginx. Everything is inside scripts/netns, so nothing is left behind,
// however it ends.
// Each claim is checked: the exit code is 1 when one does not hold.
import { createHash, X509Certificate } from 'node:crypto'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join, relative } from 'node:path'
import { setUp, type Organisation, type Service } from './demo-organisation.js'
import { Lab } from '../test/helpers/lab.js'
import { answers } from '../test/helpers/lab-nginx.js'
import { until } from '../test/helpers/until.js'

const cli = new URL('../dist/src/cli.js', import.meta.url).pathname
const colours = process.stdout.isTTY && process.env['NO_COLOR'] === undefined
const paint = (code: number, text: string) => colours ? `\x1b[${code}m${text}\x1b[0m` : text
const say = (text = '') => console.log(text)
const title = (text: string) => say(`\n${paint(1, `== ${text}`)}`)
const quote = (text: string) => say(text.trimEnd().replace(/^/gm, '   | '))

let failures = 0
/** Says what is claimed, and whether it is so. */
function check(claim: string, holds: boolean): void {
  if (!holds) failures++
  say(`${holds ? paint(32, ' ok ') : paint(31, 'FAIL')} ${claim}`)
}

/** Every file below a directory, with the digest of its content. */
function files(directory: string): Map<string, string> {
  const paths = readdirSync(directory, { recursive: true, encoding: 'utf8' }).map(name => join(directory, name))
  return new Map(paths.filter(path => statSync(path).isFile())
    .map(path => [path, createHash('sha256').update(readFileSync(path)).digest('hex')]))
}

/**
 * One night: runs lematt on the central host and shows what it says.
 * @param code the exit code that it should have @returns whether it has, and what it said
 */
async function night(lab: Lab, organisation: Organisation, words: string[] = [], code = 0) {
  say(`$ ${['lematt --test', ...words].join(' ')} --config ${relative(lab.dir, organisation.conf)}`)
  const started = Date.now()
  const ran = await lab.run(process.execPath, [cli, '--test', ...words, '--config', organisation.conf],
    { cwd: organisation.dir, env: { PATH: organisation.path, NO_COLOR: '1' } })
  const said = ran.stdout + ran.stderr
  quote(said)
  check(`exit code ${code}, after ${Date.now() - started} ms`, ran.code === code)
  return { ok: ran.code === code, said }
}

/** What a TLS client sees of a service, when it accepts only one kind of key. */
async function shown(lab: Lab, organisation: Organisation, service: Service, kind: 'rsa' | 'ec') {
  const algorithm = kind === 'rsa' ? 'rsa_pss_rsae_sha256' : 'ecdsa_secp256r1_sha256'
  const command = ['s_client', '-connect', `${service.address}:${service.port}`, '-servername', service.name,
    '-sigalgs', algorithm, '-CAfile', organisation.root, '-verify_hostname', service.name]
  const { stdout } = await lab.run('openssl', command)
  const [pem] = /-----BEGIN CERTIFICATE-----[^]*?-----END CERTIFICATE-----/.exec(stdout) ?? []
  return {
    command: `openssl ${command.slice(0, 7).join(' ')}`,
    certificate: pem === undefined ? undefined : new X509Certificate(pem),
    trusted: stdout.includes('Verify return code: 0 (ok)'),
  }
}

/** The certificates in lematt's store, without the links to them. */
function issued(organisation: Organisation): X509Certificate[] {
  const directory = join(organisation.conf, 'test', 'cert')
  return readdirSync(directory, { withFileTypes: true }).filter(entry => entry.isFile()).map(entry => {
    const certificate = new X509Certificate(readFileSync(join(directory, entry.name)))
    const kind = certificate.publicKey.asymmetricKeyType === 'rsa' ? 'RSA' : 'EC'
    const names = certificate.subjectAltName?.replaceAll('DNS:', '') ?? ''
    say(`   | ${entry.name}\n   |   ${kind} for ${names}, until ${certificate.validTo}, by ${certificate.issuer}`)
    return certificate
  })
}

async function show(lab: Lab): Promise<void> {
  title('The organisation')
  const organisation = await setUp(lab)
  for (const line of organisation.story) say(`   ${line}`)
  title('Three text files say what is to be')
  for (const name of ['domains', 'lematt.conf', 'actions.conf']) {
    say(`   ${paint(1, name)}`)
    quote(readFileSync(join(organisation.conf, name), 'utf8'))
  }
  title('Before: each server shows a self-signed certificate')
  for (const service of organisation.services) {
    const { command, certificate, trusted } = await shown(lab, organisation, service, 'ec')
    say(`$ ${command}`)
    check(`${service.name}: ${certificate?.subject ?? 'nothing'}, not trusted`, certificate !== undefined && !trusted)
  }

  const { address } = organisation.forwarded
  check(`nobody answers on port 80 of the mail server (${address})`, !(await answers(address, 80)))

  title('The first night')
  if (!(await night(lab, organisation)).ok) return
  say('   issued:')
  const certificates = issued(organisation)
  check('an RSA and an EC certificate for each line of domains', certificates.length === 4)

  check('the forwarder, by which the CA reached us for the names of the mail server, is gone again',
    !(await answers(address, 80)))

  title('What went where')
  for (const { host, directory, kind } of organisation.targets) {
    const names = readdirSync(directory).filter(name => statSync(join(directory, name)).isFile())
    say(`   ${host}:${relative(lab.dir, directory)}`)
    quote(names.map(name => `${(statSync(join(directory, name)).mode & 0o777).toString(8)} ${name}`).join('\n'))
    const pushed = names.map(name => readFileSync(join(directory, name), 'utf8'))
    const keys = pushed.filter(text => text.includes('PRIVATE KEY')).length
    const claims = { certificates: 'certificates only, and no key', keys: 'keys only', all: 'keys and certificates' }
    check(claims[kind], pushed.length > 0 && (kind === 'all' ? keys > 0 && pushed.length > keys
      : keys === (kind === 'keys' ? pushed.length : 0)))
  }

  title('What the servers show, after the reload over SSH')
  for (const service of organisation.services) {
    for (const kind of ['rsa', 'ec'] as const) {
      const expected = certificates.find(one => one.subjectAltName?.includes(`DNS:${service.name}`)
        && one.publicKey.asymmetricKeyType === kind)
      // nginx starts its new workers when the command to reload has ended.
      let seen = await shown(lab, organisation, service, kind)
      await until(async () => {
        seen = await shown(lab, organisation, service, kind)
        return seen.trusted
      }, { ms: 5000, what: `${service.name} to show the new certificate` }).catch(() => undefined)
      say(`$ ${seen.command}`)
      say(`   SHA-256 ${seen.certificate?.fingerprint256 ?? 'none'}`)
      check(`${service.name}: trusted, and the ${kind.toUpperCase()} certificate that was issued`,
        seen.trusted && expected !== undefined && seen.certificate?.fingerprint256 === expected.fingerprint256)
    }
  }

  await laterNights(lab, organisation)
}

interface Seen { trusted: boolean; fingerprint: string | undefined }

/** The web server's certificate, as a client that takes EC alone sees it; waits a while for one that is as wished. */
async function ofWeb(lab: Lab, organisation: Organisation, wish: (seen: Seen) => boolean = () => true): Promise<Seen> {
  const [service] = organisation.services
  let seen: Seen = { trusted: false, fingerprint: undefined }
  // nginx starts its new workers when the command to reload has ended.
  await until(async () => {
    const { trusted, certificate } = await shown(lab, organisation, service, 'ec')
    seen = { trusted, fingerprint: certificate?.fingerprint256 }
    return wish(seen)
  }, { ms: 5000, what: 'another certificate' }).catch(() => undefined)
  return seen
}

async function laterNights(lab: Lab, organisation: Organisation): Promise<void> {
  const { enrolled } = organisation
  const onWeb = () => [...files(enrolled.cert), ...files(enrolled.key)]
    .filter(([path]) => path.endsWith('.pem')).join('\n')
  const delivered = onWeb()

  title('The second night: somebody has restored an old backup on the web server')
  await backup(lab, organisation)
  check('it shows a certificate that nobody trusts', !(await ofWeb(lab, organisation, seen => !seen.trusted)).trusted)
  const store = files(join(organisation.conf, 'test'))
  const logins = organisation.logins('mail')
  const healed = await night(lab, organisation)
  check('what had drifted was delivered again', healed.said.includes('drifted') && onWeb() === delivered)
  const old = await ofWeb(lab, organisation, seen => seen.trusted)
  check('and is shown again', old.trusted)
  const same = (kind: string) => [...store].every(([path, digest]) => !path.includes(`/${kind}/`)
    || files(join(organisation.conf, 'test')).get(path) === digest)
  check('no certificate was issued for that', same('key') && same('cert'))
  check(`the mail server was left alone (the first night: ${logins} logins)`,
    logins > 0 && organisation.logins('mail') === logins)

  title('A renewal, while the configuration of the web server is broken')
  enrolled.breakServer()
  const failed = await night(lab, organisation, ['--only', 'www.example.com', '--force'], 1)
  check('the reload has failed, and is named', failed.said.includes('web: reload nginx'))
  check('the old files are back, byte for byte', onWeb() === delivered)
  const still = await ofWeb(lab, organisation)
  check('and the server goes on to show the old certificate', still.trusted && still.fingerprint === old.fingerprint)
  say('   The configuration is mended. The new certificate has been waiting here:')
  enrolled.mendServer()
  await night(lab, organisation)
  const now = await ofWeb(lab, organisation, seen => seen.trusted && seen.fingerprint !== old.fingerprint)
  check('the new certificate is shown', now.trusted && now.fingerprint !== old.fingerprint)

  title('The night after that')
  const { said } = await night(lab, organisation)
  check('there was nothing to do', said.includes('nothing to do'))
}

/** Puts self-signed pairs in the place of what was delivered, and loads them. */
async function backup(lab: Lab, { enrolled }: Organisation): Promise<void> {
  const [cert, key] = ['cert-combined', 'key'].map(kind =>
    join(kind === 'key' ? enrolled.key : enrolled.cert, `www.example.com-${kind}.prime256v1.test.pem`))
  await lab.run('openssl', ['req', '-x509', '-nodes', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1',
    '-days', '1', '-subj', '/CN=backup', '-keyout', key ?? '', '-out', cert ?? ''])
  await enrolled.server.reload()
}

const lab = await Lab.open()
const started = Date.now()
try {
  await show(lab)
} finally {
  await lab.close()
}
say()
say(failures === 0 ? paint(32, `All of it is so (${Math.round((Date.now() - started) / 1000)} s).`)
  : paint(31, `${failures} of the claims above do not hold.`))
process.exitCode = failures === 0 ? 0 : 1
