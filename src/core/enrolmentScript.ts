/**
 * The script for root on a host that is enrolled (spec §8): POSIX sh for dash and busybox, to be read before it is run. It says
 * what it changes, leaves alone what is as it should be, and can be run by configuration management.
 */
import { createHash } from 'node:crypto'
import {
  authorizedKeysLine, onHost, receiveConf, receiveConfForward, sshdFile, sudoersFile, sudoersForward, type Enrolment,
} from './enrolment.js'
import { functions } from './enrolmentShell.js'
import { shellWord } from './substitute.js'

/** Commands that put `text` (up to its last line feed, which is added when it lacks) into the file of `work` with this name. */
export function hereDocument(text: string, file: string, operator: '>' | '>>' = '>'): string {
  const body = text === '' || text.endsWith('\n') ? text : `${text}\n`
  let end = `END_${createHash('sha256').update(body).digest('hex').slice(0, 12)}`
  while (body.split('\n').includes(end)) end += '_'
  return `cat ${operator}"$work/${file}" <<'${end}'\n${body}${end}\n`
}

/** The whole script. `print`: there is no key yet, and so the script refuses to run. */
export function enrolmentScript(enrolment: Enrolment): string {
  const { host, user, from, reloads, forward, challengeUrl, publicKey, receiver, leforward } = enrolment
  const redirect = forward === 'redirect' && challengeUrl !== undefined && leforward !== undefined
    ? { url: challengeUrl, leforward }
    : undefined
  const needsSudo = reloads.length > 0 || redirect !== undefined
  const values = {
    user, home: onHost.home, group: onHost.group, library: onHost.library, configuration: onHost.configuration,
    certificates: onHost.certificates, keys: onHost.keys, sudoers: onHost.sudoers, sudo: onHost.sudo, sshd_file: onHost.sshd,
    from_hosts: from.map(address => address.replace(/\/.*$/u, '')).join(' '),
    key_line: authorizedKeysLine(enrolment), key_data: publicKey?.split(' ')[1] ?? 'NO-KEY-YET', key_command: `command="${onHost.receiver}"`,
  }
  return `#!/bin/sh
# Made by "lematt enroll ${host}". It lets the central host deliver keys and certificates to this host, reload the services
# named below, and do nothing else. Run it as root, as in: ssh root@HOST sh < this-file
# Run again (also by configuration management), it leaves alone what is as it should be, and says "changed: …" for each
# thing that it changes, or "unchanged". Exit code 0: all is as it should be now; 1: it is not, and why.
set -euf
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
umask 077

${Object.entries(values).map(([name, value]) => `${name}=${shellWord(value)}`).join('\n')}

${functions}
# The files that this host gets, whole; they are made in a directory of root's first.
write_files() {
${hereDocument(receiver, 'lematt-receive')}${hereDocument(receiveConf(enrolment), 'receive.conf')}${needsSudo ? hereDocument(sudoersFile(enrolment), 'sudoers') : ''}${forward === 'tunnel' ? hereDocument(sshdFile(enrolment), 'sshd.conf') : ''}${redirect === undefined ? '' : `if has_node; then
${hereDocument(redirect.leforward, 'leforward')}${hereDocument(receiveConfForward(redirect.url), 'receive.conf', '>>')}${hereDocument(sudoersForward(user, redirect.url), 'sudoers', '>>')}else
  note 'there is no Node.js 18 or newer here, so challenges cannot be redirected: install nodejs, then run this script again'
fi
`}}

main() {
  [ "$(id -u)" -eq 0 ] || fail 'this is a script for root: run it as root'
${publicKey === undefined ? '  fail \'made by "lematt enroll --print" before there was a key: run lematt enroll without --print, and then what it prints\'\n' : ''}${needsSudo ? `  if [ ! -x "$sudo" ] || ! command -v visudo >/dev/null; then
    fail "there is no $sudo here, without which $user can reload nothing: install the package sudo, then run this script again"
  fi
` : ''}  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  trap 'exit 1' HUP INT TERM
  changes=0
  write_files
  make_account
  directory /etc/lematt 755 root:root
  directory /etc/lematt/tls 755 root:root
  follow_account
  # Files that are made in them get the group; the account itself need not be in it.
  directory "$certificates" 2755 "$user:$group"
  directory "$keys" 2750 "$user:$group"
  directory "$library" 755 root:root
  place lematt-receive "$library/lematt-receive" 755 root:root
  place receive.conf "$configuration" 644 root:root
${redirect === undefined ? '' : '  [ ! -f "$work/leforward" ] || place leforward "$library/leforward" 755 root:root\n'}${needsSudo ? '  allow_commands\n' : '  forbid_commands\n'}${[...new Set(reloads.map(({ command }) => command))].map(command => `  check_command ${command.split(' ').map(shellWord).join(' ')}\n`).join('')}${forward === 'tunnel' ? '  limit_sshd\n' : ''}  # Last: from here on the key is good for something.
  allow_key
${forward === 'tunnel' ? '' : '  release_sshd\n'}  [ "$changes" -gt 0 ] || echo unchanged
}

# The whole script has been read when this line is; nothing of it is done before. Commands may not read the rest of it.
main </dev/null
`
}
