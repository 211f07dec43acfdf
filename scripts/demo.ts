// The demo: two nights of an organisation with a central host and two servers, with real parts: Pebble (a CA), a
// name server, sshd, rsync, nginx. Everything is inside scripts/netns, so nothing is left behind, however it ends.
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

/** One night: runs lematt on the central host and shows what it says. @returns whether it went well, and what it said */
async function night(lab: Lab, organisation: Organisation): Promise<{ ok: boolean; said: string }> {
  say(`$ lematt --test --config ${relative(lab.dir, organisation.conf)}`)
  const started = Date.now()
  const ran = await lab.run(process.execPath, [cli, '--test', '--config', organisation.conf],
    { cwd: organisation.dir, env: { PATH: organisation.path, NO_COLOR: '1' } })
  quote(ran.stdout + ran.stderr)
  check(`exit code 0, after ${Date.now() - started} ms`, ran.code === 0)
  return { ok: ran.code === 0, said: ran.stdout + ran.stderr }
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
    const names = readdirSync(directory)
    say(`   ${host}:${relative(lab.dir, directory)}`)
    quote(names.map(name => `${(statSync(join(directory, name)).mode & 0o777).toString(8)} ${name}`).join('\n'))
    const pushed = names.map(name => readFileSync(join(directory, name), 'utf8'))
    const keys = pushed.filter(text => text.includes('PRIVATE KEY')).length
    check(kind === 'certificates' ? 'certificates only, and no key' : 'keys and certificates',
      pushed.length > keys && (kind === 'certificates' ? keys === 0 : keys > 0))
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

  title('The second night')
  const before = files(join(organisation.conf, 'test'))
  const logins = organisation.logins()
  const { said } = await night(lab, organisation)
  const after = files(join(organisation.conf, 'test'))
  for (const kind of ['key', 'cert']) {
    const part = (all: Map<string, string>) => [...all].filter(([path]) => path.includes(`/${kind}/`)).join('\n')
    check(`no ${kind} was changed`, part(before) === part(after) && part(before) !== '')
  }
  check(`nobody was logged in anywhere (the first night: ${logins} times)`,
    logins > 0 && organisation.logins() === logins)
  check('there was nothing to do', said.includes('nothing to do'))
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
