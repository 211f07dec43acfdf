/**
 * The script for root on a host that is enrolled (spec §8): POSIX sh for dash and busybox, to be read before it is run. It says
 * what it changes, leaves alone what is as it should be, and can be run by configuration management.
 */
import { createHash } from 'node:crypto'
import { authorizedKeysLine, onHost, receiveConf, receiveConfForward, sudoersFile, sudoersForward, type Enrolment } from './enrolment.js'

/** Any text as one word of a POSIX shell. */
export const shellWord = (text: string): string => `'${text.replaceAll('\'', '\'\\\'\'')}'`

/** Commands that put `text` (up to its last line feed, which is added when it lacks) into the file of `work` with this name. */
export function hereDocument(text: string, file: string, operator: '>' | '>>' = '>'): string {
  const body = text === '' || text.endsWith('\n') ? text : `${text}\n`
  let end = `END_${createHash('sha256').update(body).digest('hex').slice(0, 12)}`
  while (body.split('\n').includes(end)) end += '_'
  return `cat ${operator}"$work/${file}" <<'${end}'\n${body}${end}\n`
}

/** The whole script. `print`: there is no key yet, and so the script refuses to run. */
export function enrolmentScript(enrolment: Enrolment): string {
  const { host, user, reloads, forward, challengeUrl, publicKey, receiver, leforward } = enrolment
  const redirect = forward === 'redirect' && challengeUrl !== undefined && leforward !== undefined
    ? { url: challengeUrl, leforward }
    : undefined
  const needsSudo = reloads.length > 0 || redirect !== undefined
  const values = {
    user, home: onHost.home, group: onHost.group, library: onHost.library, configuration: onHost.configuration,
    certificates: onHost.certificates, keys: onHost.keys, sudoers: onHost.sudoers, sudo: onHost.sudo,
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
${hereDocument(receiver, 'lematt-receive')}${hereDocument(receiveConf(enrolment), 'receive.conf')}${needsSudo ? hereDocument(sudoersFile(enrolment), 'sudoers') : ''}${redirect === undefined ? '' : `if has_node; then
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
  # Files that are made in them get the group; the account itself need not be in it.
  directory "$certificates" 2755 "$user:$group"
  directory "$keys" 2750 "$user:$group"
  directory "$library" 755 root:root
  place lematt-receive "$library/lematt-receive" 755 root:root
  place receive.conf "$configuration" 644 root:root
${redirect === undefined ? '' : '  [ ! -f "$work/leforward" ] || place leforward "$library/leforward" 755 root:root\n'}${needsSudo ? '  allow_commands\n' : '  forbid_commands\n'}${[...new Set(reloads.map(({ command }) => command))].map(command => `  check_command ${command.split(' ').map(shellWord).join(' ')}\n`).join('')}  # Last: from here on the key is good for something.
  allow_key
  [ "$changes" -gt 0 ] || echo unchanged
}

# The whole script has been read when this line is; nothing of it is done before. Commands may not read the rest of it.
main </dev/null
`
}

/** Written once for all hosts; everything that differs is in the variables. */
const functions = `changed() { changes=$((changes + 1)); printf 'changed: %s\\n' "$1"; }
note() { printf 'lematt enroll: note: %s\\n' "$1" >&2; }
fail() { printf 'lematt enroll: %s\\n' "$1" >&2; exit 1; }

# owned FILE: its mode and owner, as 644 root:root.
owned() { stat -c '%a %U:%G' "$1"; }

# directory PATH MODE OWNER:GROUP
directory() {
  [ ! -L "$1" ] || fail "$1 is a link: put a directory in its place, then run this script again"
  if [ ! -d "$1" ]; then
    mkdir -p "$1"
  elif [ "$(owned "$1")" = "$2 $3" ]; then
    return
  fi
  chown "$3" "$1"
  chmod "$2" "$1"
  changed "$1"
}

# place FILE PATH MODE OWNER:GROUP: puts FILE of the work directory there, in one step.
place() {
  [ ! -d "$2" ] || fail "$2 is a directory: move it away, then run this script again"
  if [ ! -L "$2" ] && [ -f "$2" ] && cmp -s "$work/$1" "$2" && [ "$(owned "$2")" = "$3 $4" ]; then
    return
  fi
  # A name with a dot: sudo and run-parts leave such files alone.
  rm -f "$2.new"
  cp "$work/$1" "$2.new"
  chown "$4" "$2.new"
  chmod "$3" "$2.new"
  mv -f "$2.new" "$2"
  changed "$2"
}

# entry passwd|group NAME: its line, wherever accounts come from; nothing when there is none.
entry() {
  if command -v getent >/dev/null; then getent "$1" "$2" || :; else grep "^$2:" "/etc/$1" || :; fi
}

has_node() {
  command -v node >/dev/null || return 1
  version=$(node --version)
  version=\${version#v}
  [ "\${version%%.*}" -ge 18 ]
}

# Groups and account. Its home is root's, so that nothing that runs as this user can give itself another key.
make_account() {
  if [ -z "$(entry group "$group")" ]; then
    if command -v groupadd >/dev/null; then groupadd --system "$group"; else addgroup -S "$group"; fi
    changed "group $group"
  fi
  if [ -z "$(entry passwd "$user")" ]; then
    if command -v useradd >/dev/null; then
      own_group=--user-group
      [ -z "$(entry group "$user")" ] || own_group="--gid=$user"
      useradd --system "$own_group" --home-dir "$home" --no-create-home --shell /bin/sh "$user"
    else
      [ -n "$(entry group "$user")" ] || addgroup -S "$user"
      adduser -S -D -H -h "$home" -s /bin/sh -G "$user" "$user"
    fi
    changed "account $user"
  fi
  line=$(entry passwd "$user")
  [ "$(id -u "$user")" -ne 0 ] || fail "$user is root under another name: choose another account by lematt enroll --user"
  case \${line##*:} in
    */nologin | */false) fail "the shell of $user is \${line##*:}, by which sshd can start nothing: run usermod -s /bin/sh $user, or choose another account by lematt enroll --user" ;;
  esac
  line=\${line%:*}
  if [ "\${line##*:}" = "$home" ]; then
    directory "$home" 755 root:root
  else
    home=\${line##*:}
    is_roots "$home" || fail "the home of $user, $home, is not root's alone, so whatever runs as $user could give itself another key: choose another account by lematt enroll --user, or chown root $home and chmod 755 $home"
  fi
  # No password is right for "*". "!" would mean a locked account, which sshd lets nobody into where it does not use PAM.
  if [ -f /etc/shadow ] && grep -Eq "^$user:!+[*]?:" /etc/shadow; then
    if command -v usermod >/dev/null; then usermod -p '*' "$user"; else printf '%s:*\\n' "$user" | chpasswd -e >/dev/null; fi
    changed "account $user: no password, but not locked"
  fi
}

# is_roots DIRECTORY: root's, and nobody else may write there.
is_roots() {
  [ -d "$1" ] && [ ! -L "$1" ] || return 1
  case $(stat -c '%U %A' "$1") in
    'root d'????[!w]??[!w]*) return 0 ;;
  esac
  return 1
}

# One line of authorized_keys. An older one for the same receiver goes; lines for other things stay.
allow_key() {
  own_group=$(id -gn "$user")
  directory "$home/.ssh" 750 "root:$own_group"
  list=$home/.ssh/authorized_keys
  [ ! -L "$list" ] || fail "$list is a link: put a file in its place, then run this script again"
  if [ -f "$list" ]; then
    grep -vF -e "$key_command" -e "$key_data" "$list" >"$work/authorized_keys" || [ $? -eq 1 ]
  fi
  printf '%s\\n' "$key_line" >>"$work/authorized_keys"
  place authorized_keys "$list" 640 "root:$own_group"
}

# The sudoers file, which is looked through by visudo first: a broken one would break sudo on the whole host.
allow_commands() {
  visudo -cqf "$work/sudoers" >/dev/null || fail "visudo does not accept what should become $sudoers: is sudo older than 1.8.20?"
  directory "\${sudoers%/*}" "$(stat -c %a "\${sudoers%/*}" 2>/dev/null || echo 750)" root:root
  place sudoers "$sudoers" 440 root:root
}

forbid_commands() {
  if [ -e "$sudoers" ] || [ -L "$sudoers" ]; then
    rm -f "$sudoers"
    changed "$sudoers, which is not needed any more"
  fi
}

# check_command PROGRAM ARGUMENT…: whether it is there, and sudo really lets the account run it.
check_command() {
  if [ ! -x "$1" ]; then
    note "there is no program $1 here, so $* cannot work: install it, or say the right path by lematt enroll --reload"
  elif ! "$sudo" -n -l -U "$user" "$@" >/dev/null 2>&1; then
    fail "sudo does not let $user run $*: is there \\"@includedir \${sudoers%/*}\\" in /etc/sudoers, and no later line that forbids it?"
  fi
}
`
