// Mail services on a host of a lab: postfix (25 with STARTTLS, 465) and dovecot (143 and 110 with STARTTLS, 993, 995),
// each with files of its own under the host's directory and nothing of the machine's. Both need root.
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { LabHost } from './lab.js'
import { labSkip } from './lab.js'
import { answers, placeholders, type Pair } from './lab-nginx.js'
import type { Daemon } from './lab-process.js'

export interface MailService {
  daemon: Daemon
  /** The command, by its full path and with plain arguments, that makes it load its files again, to be run on its host. */
  reloadCommand: string
  /** Runs that command there. It returns before the last process with the old files is gone. */
  reload(): Promise<void>
  stop(): Promise<void>
  /** What it has logged. */
  log(): string
}

const postfix = '/usr/sbin/postfix'
const postfixDaemons = '/usr/lib/postfix/sbin'
const dovecot = '/usr/sbin/dovecot'
const doveadm = '/usr/bin/doveadm'

/** Why these cannot be started here, for the `skip` option of a test; false when they can. */
export function mailSkip(): string | false {
  const why = labSkip()
  if (why !== false) return why
  if (process.getuid?.() !== 0) return 'postfix and dovecot are started by root alone'
  const missing = [postfix, `${postfixDaemons}/master`, dovecot, '/usr/lib/dovecot/imap-login', '/usr/lib/dovecot/pop3-login']
    .filter(path => !existsSync(path))
  return missing.length > 0 ? `needs ${missing.join(', ')}: run scripts/setup` : false
}

/** A directory of the host into which the services' own users can see. */
function home(host: LabHost, name: string): string {
  const dir = join(host.dir, name)
  mkdirSync(dir, { recursive: true })
  for (const path of [dirname(host.dir), host.dir, dir]) chmodSync(path, 0o711)
  return dir
}

/** What both have in common: the way to wait for them, to reload and to end them. */
async function service(host: LabHost, daemon: Daemon, { ports, log, reload, stop }: {
  ports: readonly number[]; log: string; reload: readonly [string, ...string[]]; stop: readonly [string, ...string[]]
}): Promise<MailService> {
  const read = (): string => existsSync(log) ? readFileSync(log, 'utf8') : ''
  try {
    await daemon.ready(`ports ${ports.join(' ')}`, async () =>
      (await Promise.all(ports.map(port => answers(host.address, port)))).every(yes => yes))
  } catch (error) {
    await daemon.stop()
    throw new Error(`${error instanceof Error ? error.message : String(error)}\n${read()}`, { cause: error })
  }
  const [reloader, ...reloadArgs] = reload
  const [stopper, ...stopArgs] = stop
  return {
    daemon,
    reloadCommand: reload.join(' '),
    reload: async () => { await host.must(reloader, reloadArgs) },
    stop: async () => {
      await host.exec(stopper, stopArgs)
      await daemon.stop()
    },
    log: read,
  }
}

/**
 * Starts postfix with these pairs (of different key types), self-signed ones until the files have been pushed.
 * @param settings further lines of main.cf
 */
export async function startPostfix(host: LabHost, pairs: readonly Pair[], settings = ''): Promise<MailService> {
  await placeholders(pairs)
  const dir = home(host, 'postfix')
  const log = join(dir, 'log', 'mail.log')
  const config = join(dir, 'etc')
  for (const name of ['etc', 'queue', 'data', 'log']) mkdirSync(join(dir, name), { recursive: true })
  await host.must('chown', ['postfix:', join(dir, 'data')])
  host.machine.write('postfix/etc/main.cf', `
compatibility_level = 3.6
queue_directory = ${dir}/queue
data_directory = ${dir}/data
command_directory = /usr/sbin
daemon_directory = ${postfixDaemons}
maillog_file = ${log}
maillog_file_prefixes = ${dir}/log
myhostname = ${host.name}.lab.test
mydestination =
local_recipient_maps =
alias_maps =
inet_protocols = all
smtpd_peername_lookup = no
smtpd_relay_restrictions = reject
smtpd_tls_security_level = may
smtpd_tls_chain_files = ${pairs.map(({ key, cert }) => `${key}, ${cert}`).join(', ')}
${settings}
`)
  host.machine.write('postfix/etc/master.cf', `
smtp     inet  n - n - - smtpd
465      inet  n - n - - smtpd
  -o smtpd_tls_wrappermode=yes
pickup   unix  n - n 60 1 pickup
cleanup  unix  n - n - 0 cleanup
qmgr     unix  n - n 300 1 qmgr
tlsmgr   unix  - - n 1000? 1 tlsmgr
rewrite  unix  - - n - - trivial-rewrite
bounce   unix  - - n - 0 bounce
defer    unix  - - n - 0 bounce
proxymap unix  - - n - - proxymap
showq    unix  n - n - - showq
error    unix  - - n - - error
anvil    unix  - - n - 1 anvil
postlog  unix-dgram n - n - 1 postlogd
`)
  // Makes the queue's directories, with their owners. start-fg would put master into a session where our signals do not go.
  await host.must(postfix, ['-c', config, 'check'])
  const daemon = host.spawn(`${postfixDaemons}/master`, ['-d', '-c', config])
  return service(host, daemon, {
    ports: [25, 465], log, reload: [postfix, '-c', config, 'reload'], stop: [postfix, '-c', config, 'stop'],
  })
}

/**
 * Starts dovecot with a pair or two (of different key types), self-signed ones until the files have been pushed.
 * @param settings further lines of dovecot.conf
 */
export async function startDovecot(host: LabHost, pairs: readonly [Pair, Pair?], settings = ''): Promise<MailService> {
  await placeholders(pairs.filter(pair => pair !== undefined))
  const dir = home(host, 'dovecot')
  const log = join(dir, 'dovecot.log')
  const users = host.machine.write('dovecot/users', 'somebody:{PLAIN}secret\n')
  const [major, minor] = spawnSync(dovecot, ['--version'], { encoding: 'utf8' }).stdout.split('.').map(Number)
  const syntax = major === 2 && minor !== undefined && minor < 4 ? before24 : since24
  const config = host.machine.write('dovecot/dovecot.conf', `${syntax(pairs, users)}
base_dir = ${dir}/run
state_dir = ${dir}/state
log_path = ${log}
protocols = imap pop3
listen = *, ::
ssl = yes
service imap-login {
  inet_listener imap {
    port = 143
  }
  inet_listener imaps {
    port = 993
    ssl = yes
  }
}
service pop3-login {
  inet_listener pop3 {
    port = 110
  }
  inet_listener pop3s {
    port = 995
    ssl = yes
  }
}
${settings}
`)
  const daemon = host.spawn(dovecot, ['-F', '-c', config])
  return service(host, daemon, {
    ports: [143, 993, 110, 995], log, reload: [doveadm, '-c', config, 'reload'], stop: [doveadm, '-c', config, 'stop'],
  })
}

/** Dovecot 2.3 (Debian 12): it reads the files itself, when it loads its configuration. */
function before24([first, second]: readonly [Pair, Pair?], users: string): string {
  return `
ssl_cert = <${first.cert}
ssl_key = <${first.key}
${second === undefined ? '' : `ssl_alt_cert = <${second.cert}\nssl_alt_key = <${second.key}`}
passdb {
  driver = passwd-file
  args = ${users}
}`
}

/** Dovecot 2.4 (Debian 13). */
function since24([first, second]: readonly [Pair, Pair?], users: string): string {
  return `dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
ssl_server_cert_file = ${first.cert}
ssl_server_key_file = ${first.key}
${second === undefined ? '' : `ssl_server_alt_cert_file = ${second.cert}\nssl_server_alt_key_file = ${second.key}`}
passdb passwd-file {
  passwd_file_path = ${users}
}`
}
