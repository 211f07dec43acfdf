/** The shell functions of the script for root (enrolmentScript.ts): the same for all hosts; what differs is in the variables. */
export const functions = `changed() { changes=$((changes + 1)); printf 'changed: %s\\n' "$1"; }
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
  if [ "\${line##*:}" = "$home" ]; then directory "$home" 755 root:root; else home=\${line##*:}; fi
  is_roots "$home" || fail "the home of $user, $home, is not root's alone (or what it lies in), so whatever runs as $user could give itself another key: choose another account by lematt enroll --user, or chown root $home and chmod 755 $home"
  [ ! -L "$home/.ssh" ] || fail "$home/.ssh is a link: put a directory in its place, then run this script again"
  if [ -d "$home/.ssh" ]; then
    # authorized_keys2, rc, environment: sshd heeds them all. Names may be anything there.
    others=$(find "$home/.ssh/." ! -name . -prune '(' ! -user root -o -perm -020 -o -perm -002 ')' -print | tr -c '[:alnum:]._/\\n-' '?' | tr '\\n' ' ')
    [ -z "$others" ] || fail "not root's alone, so whatever runs as $user could let itself in by it: $others; look at it and remove it, then run this script again"
  fi
  # No password is right for "*". "!" would mean a locked account, which sshd lets nobody into where it does not use PAM.
  if [ -f /etc/shadow ] && grep -Eq "^$user:!+[*]?:" /etc/shadow; then
    if command -v usermod >/dev/null; then usermod -p '*' "$user"; else printf '%s:*\\n' "$user" | chpasswd -e >/dev/null; fi
    changed "account $user: no password, but not locked"
  fi
}

# is_roots DIRECTORY: root's, and nobody else may write there; nor in anything that it lies in.
is_roots() {
  case $1 in /*) at=$1 ;; *) return 1 ;; esac
  while :; do
    [ -d "$at" ] && [ ! -L "$at" ] || return 1
    case $(stat -c '%u %A' "$at") in
      '0 d'????[!w]??[!w]*) ;;
      *) return 1 ;;
    esac
    [ "$at" != / ] || return 0
    at=$(dirname "$at")
  done
}

# Enrolled with another account before: what that had delivered is this one's now, and the former line goes.
follow_account() {
  former=$(stat -c %u "$certificates" 2>/dev/null) || return 0
  [ "$former" -ne 0 ] && [ "$former" -ne "$(id -u "$user")" ] || return 0
  for top in "$keys" "$certificates"; do
    # Downwards: what lies in a directory that is not the former account's any more cannot be exchanged for something else.
    for at in "$top" "$top/.lematt" "$top/.lematt/new" "$top/.lematt/old"; do
      if [ ! -d "$at" ] || [ -L "$at" ]; then continue; fi
      chown -h "$user" "$at"
      find "$at/." ! -name . -prune -user "$former" '(' -type l -o -type f ')' -exec chown -h "$user" '{}' +
    done
  done
  changed "owner of what is in $certificates and $keys: $user"
  line=$(if command -v getent >/dev/null; then getent passwd "$former" || :; else grep "^[^:]*:[^:]*:$former:" /etc/passwd || :; fi)
  line=\${line%:*}
  list=\${line##*:}/.ssh/authorized_keys
  [ -n "$line" ] && [ "$list" != "$home/.ssh/authorized_keys" ] && [ -f "$list" ] && grep -qsF "$key_command" "$list" || return 0
  # Where others may write, root does not.
  if is_roots "\${list%/*}" && [ ! -L "$list" ]; then
    grep -vF -e "$key_command" "$list" >"$work/former_keys" || [ $? -eq 1 ]
    place former_keys "$list" "$(stat -c %a "$list")" "$(stat -c %U:%G "$list")"
  else
    note "$list, of the account before, still lets the central host in: remove its line with $key_command"
  fi
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

# limit_sshd: for this account sshd obeys $sshd_file, and the sshd that runs has read it.
limit_sshd() {
  remedy="or enrol with --forward redirect"
  command -v sshd >/dev/null || fail "there is no OpenSSH sshd here, whose $sshd_file keeps a tunnel to its one port: install openssh-server, $remedy"
  is_roots "\${sshd_file%/*}" || fail "\${sshd_file%/*} is no directory of root's alone, so a tunnel cannot be kept to its one port: make it, with Include \${sshd_file%/*}/*.conf as the first line of /etc/ssh/sshd_config (OpenSSH 8.2 or newer), $remedy"
  before=$changes
  if [ -f "$sshd_file" ]; then cp "$sshd_file" "$work/sshd.before"; fi
  place sshd.conf "$sshd_file" 644 root:root
  if ! why=$(sshd_obeys); then
    if [ -f "$work/sshd.before" ]; then cp "$work/sshd.before" "$sshd_file"; else rm -f "$sshd_file"; fi
    fail "sshd does not obey $sshd_file ($(printf '%s\\n' "$why" | head -n 1 | tr -cd '[:print:]')), so it is as it was: is Include \${sshd_file%/*}/*.conf the first line of /etc/ssh/sshd_config, and no other Match for $user before it? Put that right, $remedy"
  fi
  # The line of the key comes after this. Without it, an earlier run of this script may have ended before sshd was told.
  if [ "$changes" -gt "$before" ] || ! grep -qsxF "$key_line" "$home/.ssh/authorized_keys"; then
    reload_sshd || fail "sshd could not be told of $sshd_file: reload it (as by systemctl reload ssh) in a way that works from here, $remedy"
  fi
}

# sshd_obeys: succeeds, or says why not.
sshd_obeys() {
  sshd -t 2>&1 || return 1
  for address in $from_hosts; do
    heeded=$(sshd -T -C "user=$user,host=$address,addr=$address,laddr=127.0.0.1,lport=22" 2>&1) || { printf '%s\\n' "$heeded"; return 1; }
    for word in 'allowstreamlocalforwarding no' 'allowtcpforwarding remote' 'permitlisten 127.0.0.1:8402' 'permitopen none'; do
      printf '%s\\n' "$heeded" | grep -qx "$word" || { echo "for $user from $address it has not $word"; return 1; }
    done
  done
}

# reload_sshd: by its process, or by systemd. Init scripts know the same process, and call it a success when it is not there.
reload_sshd() {
  pid_file=$(sshd -T | sed -n 's/^pidfile //p')
  pid=$(cat "$pid_file" 2>/dev/null) || pid=
  case $pid in
    '' | *[!0-9]*) ;;
    *) if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = sshd ] && kill -HUP "$pid"; then return 0; fi ;;
  esac
  for service in ssh sshd; do
    if command -v systemctl >/dev/null && systemctl reload "$service" >/dev/null 2>&1; then return 0; fi
    # One sshd for each connection, which reads its configuration then.
    if command -v systemctl >/dev/null && systemctl is-active --quiet "$service.socket" 2>/dev/null; then return 0; fi
  done
  return 1
}

# Without a tunnel the key may forward nothing, by its own line.
release_sshd() {
  if [ -e "$sshd_file" ] || [ -L "$sshd_file" ]; then
    rm -f "$sshd_file"
    changed "$sshd_file, which is not needed any more"
    reload_sshd || note "sshd could not be told that $sshd_file is gone: reload it, as by systemctl reload ssh"
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
