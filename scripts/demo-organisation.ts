// The organisation of the demo: its hosts, their restricted keys, and lematt's three files.
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import type { Lab, LabHost } from '../test/helpers/lab.js'
import type { Nginx } from '../test/helpers/lab-nginx.js'

/** A TLS service of a host. */
export interface Service { name: string; address: string; port: number }

export interface Organisation {
  /** Where lematt is started, and the directory of its three files. */
  dir: string
  conf: string
  /** PATH for lematt: its `ssh` knows the demo's hosts, as ~/.ssh/config would. */
  path: string
  /** PEM file of the CA's root. */
  root: string
  story: string[]
  services: readonly [web: Service, mail: Service]
  /** The host whose port 80 is the forwarder's. */
  forwarded: { address: string }
  /** The enrolled host: its directories, and its web server, which can be reloaded, broken and mended. */
  enrolled: { cert: string; key: string; server: Nginx; breakServer(): void; mendServer(): void }
  /** The directories on the hosts that files go to. */
  targets: { host: string; directory: string; kind: 'all' | 'certificates' | 'keys' }[]
  /** How often anybody has logged in on a host so far. */
  logins(host: 'web' | 'mail'): number
}

const repository = new URL('..', import.meta.url).pathname
const remote = (name: string) => join(repository, 'remote', name)
const leforward = join(repository, 'dist', 'forwarder', 'leforward.cjs')

const domains = `\
# One line, one certificate (of each key type).
www.example.com example.com
mail.example.com smtp.example.com
`

const lemattConf = (directory: string, caBundle: string, challenges: string, account: string, ssh: string) => `\
[config]
challengeDropDir: ${challenges}
accountKey: ${account}
# In place of ~/.ssh/config:
sshConfig: ${ssh}
# A test CA of our own in place of Let's Encrypt's staging, and its certificate:
testDirectory: ${directory}
caBundle: ${caBundle}
`

const actionsConf = `\
# An enrolled host: delivered all or none, reloaded, and proved by TLS handshakes. It redirects challenges by itself.
[default]
hosts: web
reload: nginx
verify: 443

# Anything else, by commands of our own. Nobody listens on port 80 here: a forwarder does, while names are validated.
[mail]
domains: mail.example.com smtp.example.com
prepare: ["ssh mail-forward http://central.example.com"]
uploadCerts: ["rsync -tL --chmod=F640 CERTS mail-upload:"]
uploadKeys: ["rsync -tL --chmod=F640 KEYS mail-upload:"]
update: ["ssh mail-reload nginx"]

# Whatever else is done: all certificates, for who watches them.
[every]
uploadCerts: ["rsync -tL CERTS watch-upload:"]
`

/** The pairs that a host's TLS server loads, as lematt names them in test mode. */
function pairs(directory: string, name: string): { key: string; cert: string }[] {
  return ['rsa2048', 'prime256v1'].map(tag => ({
    key: join(directory, `${name}-key.${tag}.test.pem`),
    cert: join(directory, `${name}-cert-combined.${tag}.test.pem`),
  }))
}

/** A pair in two directories, as lematt-receive has them. */
const apart = ({ key, cert }: { key: string; cert: string }, directory: string) =>
  ({ key: join(directory, 'key', basename(key)), cert: join(directory, 'cert', basename(cert)) })

/** The one key of an enrolled host: what lematt enroll would write into authorized_keys and receive.conf there. */
function enrolled(lab: Lab, host: LabHost, directory: string, server: Nginx): Record<string, string> {
  const config = host.machine.write('receive.conf',
    `cert ${directory}/cert\nkey ${directory}/key\nreload nginx ${server.reloadCommand}\n`)
  // The receiver wants its configuration to be root's. Who is not root here is it in a user namespace of his own.
  const asRoot = process.getuid?.() === 0 ? '' : '/usr/bin/unshare --user --map-root-user '
  return { web: `restrict,from="${lab.address}",command="${asRoot}${remote('lematt-receive')} ${config}"` }
}

/** The keys of a host that is reached by commands, each of which can do one thing. */
function keys(lab: Lab, host: LabHost, uploads: Record<string, string>, server: Nginx): Record<string, string> {
  const config = host.machine.write('reload.conf', `nginx ${server.reloadCommand}\n`)
  const may = (command: string) => `restrict,from="${lab.address}",command="${command}"`
  return {
    ...Object.fromEntries(Object.entries(uploads).map(([alias, directory]) =>
      [alias, may(`${remote('lematt-rsync-only')} ${directory}`)])),
    [`${host.name}-reload`]: may(`${remote('lematt-reload')} --config ${config} nginx`),
    [`${host.name}-forward`]: may(`${process.execPath} ${leforward} --ssh --allow http://central.example.com`),
  }
}

/** Starts everything and writes the three files. */
export async function setUp(lab: Lab): Promise<Organisation> {
  const dir = join(lab.dir, 'certmaint')
  const [conf, challenges, bin] = [join(dir, 'conf'), join(dir, 'challenges'), join(dir, 'bin')]
  for (const directory of [conf, challenges, bin]) mkdirSync(directory, { recursive: true })
  await lab.nginx({ root: challenges })
  const pebble = await lab.pebble()
  const [web, mail] = await Promise.all([lab.host('web'), lab.host('mail')])
  for (const name of ['www.example.com', 'example.com']) await lab.dns.set(name, [web.address])
  for (const name of ['mail.example.com', 'smtp.example.com']) await lab.dns.set(name, [mail.address])
  await lab.dns.set('central.example.com', [lab.address])

  const [webTls, mailTls, watch] = [join(web.dir, 'tls'), join(mail.dir, 'tls'), join(web.dir, 'watch')]
  mkdirSync(watch)
  for (const part of ['cert', 'key']) mkdirSync(join(webTls, part), { recursive: true, mode: 0o755 })
  const webPairs = pairs(webTls, 'www.example.com').map(pair => apart(pair, webTls))
  const webServer = await web.tlsServer(['www.example.com'], webPairs)
  const mailServer = await mail.tlsServer(['mail.example.com'], pairs(mailTls, 'mail.example.com'), 993)
  await web.nginx(`server {
    listen 80;
    location /.well-known/acme-challenge/ { return 301 http://central.example.com$request_uri; }
    location / { return 404; }
  }`, [80])
  const watching = `restrict,from="${lab.address}",command="${remote('lematt-rsync-only')} ${watch}"`
  const sshds = {
    web: await web.sshd({ keys: { ...enrolled(lab, web, webTls, webServer), 'watch-upload': watching } }),
    mail: await mail.sshd({ keys: keys(lab, mail, { 'mail-upload': mailTls }, mailServer) }),
  }

  const webConfig = join(web.dir, 'nginx-443', 'nginx.conf')
  const sound = readFileSync(webConfig, 'utf8')

  const root = join(dir, 'root.pem')
  writeFileSync(root, await pebble.issuerRoot())
  writeFileSync(join(conf, 'domains'), domains)
  writeFileSync(join(conf, 'lematt.conf'), lemattConf(pebble.directoryUrl, pebble.certFile, challenges,
    join(conf, 'account.key'), lab.sshConfig))
  writeFileSync(join(conf, 'actions.conf'), actionsConf)
  writeFileSync(join(bin, 'ssh'), `#!/bin/sh\nexec /usr/bin/ssh -F ${lab.sshConfig} "$@"\n`)
  chmodSync(join(bin, 'ssh'), 0o755)

  return {
    dir, conf, root,
    path: `${bin}:${process.env['PATH'] ?? ''}`,
    story: [
      `central ${lab.address}: lematt, and a web server for the challenges; also the CA and the name server`,
      `web     ${web.address}: enrolled (lematt-receive), nginx on 443, and on 80 a redirect of challenges to central`,
      `mail    ${mail.address}: reached by rsync and ssh, TLS on 993, nothing on 80`,
      'All are network namespaces of this machine. No SSH key opens a shell.',
    ],
    services: [
      { name: 'www.example.com', address: web.address, port: 443 },
      { name: 'mail.example.com', address: mail.address, port: 993 },
    ],
    forwarded: mail,
    enrolled: {
      cert: join(webTls, 'cert'), key: join(webTls, 'key'), server: webServer,
      breakServer: () => writeFileSync(webConfig, `${sound}\nnonsense;\n`),
      mendServer: () => writeFileSync(webConfig, sound),
    },
    targets: [
      { host: 'web', directory: join(webTls, 'cert'), kind: 'certificates' },
      { host: 'web', directory: join(webTls, 'key'), kind: 'keys' },
      { host: 'mail', directory: mailTls, kind: 'all' },
      { host: 'web', directory: watch, kind: 'certificates' },
    ],
    logins: host => sshds[host].log().split('Accepted publickey').length - 1,
  }
}
