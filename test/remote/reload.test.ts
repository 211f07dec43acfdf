import assert from 'node:assert/strict'
import { existsSync, readdirSync } from 'node:fs'
import { chmod, chown, copyFile, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { buildLeforward } from '../helpers/leforward.js'
import { run } from '../helpers/run.js'

const remote = fileURLToPath(new URL('../../remote/', import.meta.url))
const script = join(remote, 'lematt-reload')
const shells = [['dash', ['/bin/dash']], ['busybox', ['/bin/busybox', 'sh']]] as const
const root = process.getuid?.() === 0

for (const [name, shell] of shells) {
  describe(`lematt-reload (${name})`, { skip: existsSync(shell[0]) ? false : `needs ${name}` }, () => {
    let base = ''
    let config = ''
    /** Runs it as sshd would; `args` is what authorized_keys says, `command` what the client says. */
    const asked = (command: string | undefined, args: readonly string[]) =>
      run(shell[0], [...shell.slice(1), script, ...args], {
        cwd: base, env: { PATH: process.env.PATH, SSH_CLIENT: '192.0.2.1 50000 22', SSH_ORIGINAL_COMMAND: command },
      })
    const services = () => ['--config', config, 'postfix', 'dovecot', 'nginx', 'openvpn@home', 'slow']

    before(async () => {
      base = await mkdtemp(join(tmpdir(), 'lematt-reload-'))
      config = join(base, 'reload.conf')
      await writeFile(join(base, 'record'), '#!/bin/sh\nprintf "%s|" "$@"\ncat\nexit "${2:-0}"\n', { mode: 0o755 })
      // One entry with a tab, one without a final line feed; comments; a service that no key names.
      await writeFile(config, `# commands\n\npostfix ${base}/record postfix\ndovecot\t${base}/record dovecot 3\n`
        + `nginx ${base}/record nginx 4\nsshd ${base}/record sshd\nopenvpn@home ${base}/record openvpn`,
      { mode: 0o644 })
    })
    after(() => rm(base, { recursive: true, force: true }))

    test('the services asked for are reloaded, in that order, with nothing on standard input', async () => {
      for (const [command, stdout] of [
        ['postfix', 'postfix|'], ['  postfix ', 'postfix|'], ['openvpn@home', 'openvpn|'],
        ['postfix openvpn@home', 'postfix|openvpn|'],
      ] as const) {
        assert.deepEqual(await asked(command, services()), { code: 0, stdout, stderr: '' })
      }
    })

    test('after a failure the others are still reloaded; the exit code is the first failure\'s', async () => {
      const ran = await asked('postfix dovecot nginx openvpn@home', services())
      assert.equal(ran.code, 3)
      assert.equal(ran.stdout, 'postfix|dovecot|3|nginx|4|openvpn|')
      assert.match(ran.stderr,
        /^lematt-reload: dovecot: failed with exit code 3: .*\nlematt-reload: nginx: .* 4: .*\n$/u)
    })

    test('a table of hostile commands: refused, and nothing is run', async () => {
      const commands: (string | undefined)[] = [
        undefined, '', ' ', '   ', 'sshd', 'postfix sshd', 'sshd postfix', 'postfi', 'postfixx', 'POSTFIX',
        'postfix.service',
        'postfix;touch pwned', 'postfix; touch pwned', 'postfix && touch pwned', 'postfix|touch pwned',
        'postfix\ntouch pwned',
        'postfix\n', 'postfix\r', 'postfix\tnginx', '$(touch pwned)', '`touch pwned`', 'postfix $(touch pwned)',
        '${IFS}',
        '*', 'post*', 'post?ix', '[p]ostfix', '{postfix,nginx}', '~', '"postfix"', '\'postfix\'', 'postfix\\',
        'post\\fix',
        '-', '--', '-h', '--help', '--config', '--config /etc/passwd', `--config ${config} postfix`, '-- postfix',
        'postfix -f',
        'postfix --now', '.', '..', '/bin/sh', '../postfix', './record', `${base}/record`, 'reload postfix',
        'systemctl reload postfix',
        'sudo postfix', 'sh -c id', 'scp -t .', 'internal-sftp', 'rsync --server . .', 'postfix > pwned',
        'postfix # x', '!!',
        'postfix \u001b[2J', 'pöstfix', '\u00a0postfix', 'dovecot nginx x', '@', '_', 'postfix@', 'x'.repeat(100_000),
        'postfix '.repeat(200), '() { :; }; touch pwned', '%n', 'postfix=1', 'PATH=. postfix',
      ]
      const files = readdirSync(base)
      for (let i = 0; i < commands.length; i += 16) {
        await Promise.all(commands.slice(i, i + 16).map(async (command) => {
          const ran = await asked(command, services())
          assert.equal(ran.code, 1, `${JSON.stringify(command?.slice(0, 200))}: ${ran.stderr}`)
          assert.equal(ran.stdout, '', command)
          assert.match(ran.stderr, /^lematt-reload: refused: [ -~]{3,300}\n$/u, command)
        }))
      }
      assert.deepEqual(readdirSync(base), files)
    })

    test('a wrong line in authorized_keys or a wrong configuration is refused, and nothing is run', async () => {
      const lines = [[], ['--config'], ['--config', join(base, 'missing'), 'postfix'], ['--config', config],
        ['--config', base, 'postfix'],
        ['postfix', '--force'], ['*'], ['a b'], [''], ['-x']]
      for (const args of lines) {
        const ran = await asked('postfix', args)
        assert.deepEqual([ran.code, ran.stdout], [1, ''], args.join(' '))
        assert.match(ran.stderr, /^lematt-reload: refused: /u)
      }
      const other = join(base, 'other.conf')
      const bad = ['record postfix', './record', `${base}/record; id`, `${base}/record $(id)`, `${base}/record "x"`,
        `${base}/record *`,
        `${base}/record\u0007`, `${base}/record > x`, `${base}/record\r`]
      for (const command of bad) {
        await writeFile(other, `postfix ${command}\n`, { mode: 0o644 })
        const ran = await asked('postfix', ['--config', other, 'postfix'])
        assert.deepEqual([ran.code, ran.stdout], [1, ''], command)
        assert.match(ran.stderr, /not an absolute path with plain arguments for postfix/u)
      }
    })

    test('a configuration that others can write is refused', async () => {
      const other = join(base, 'writable.conf')
      await copyFile(config, other)
      for (const mode of [0o664, 0o646]) {
        await chmod(other, mode)
        const ran = await asked('postfix', ['--config', other, 'postfix'])
        assert.deepEqual([ran.code, ran.stdout], [1, ''])
        assert.match(ran.stderr, /others can write .*chmod go-w/u)
      }
      await chmod(other, 0o644)
      assert.equal((await asked('postfix', ['--config', other, 'postfix'])).code, 0)
      if (root) {
        await chown(other, 65534, 65534)
        const ran = await asked('postfix', ['--config', other, 'postfix'])
        assert.deepEqual([ran.code, ran.stdout], [1, ''])
        assert.match(ran.stderr, /is not owned by root/u)
      }
    })
  })
}

test('sudoers.example is well-formed', {
  skip: existsSync('/usr/sbin/visudo') ? false : 'needs visudo (apt-get install sudo)',
}, async () => {
  const ran = await run('/usr/sbin/visudo', ['-c', '-f', join(remote, 'sudoers.example')])
  assert.equal(ran.code, 0, ran.stderr)
})

// A mount and network namespace of our own stands for the host: the real sudo reads the real sudoers.example there,
// port 80 is free, and systemctl only says what it was asked to do.
const namespace = `set -e
mount -t tmpfs none /usr/local/bin
cp "$BASE/leforward" /usr/local/bin/leforward
for f in passwd group shadow; do cp "/etc/$f" "$BASE/$f"; done
echo 'certmaint:x:64999:64999::/nonexistent:/bin/sh' >>"$BASE/passwd"
echo 'certmaint:x:64999:' >>"$BASE/group"
echo 'certmaint:*:19000:0:99999:7:::' >>"$BASE/shadow"
printf '#!/bin/sh\\necho "systemctl $* as $(id -u)"\\n' >"$BASE/systemctl"
chmod 755 "$BASE/systemctl"
for f in sudoers passwd group shadow; do mount --bind "$BASE/$f" "/etc/$f"; done
mount --bind "$BASE/systemctl" /usr/bin/systemctl
ip link set lo up
exec setpriv --reuid 64999 --regid 64999 --clear-groups sh -c "$1"
`
const needed = ['/usr/bin/sudo', '/usr/bin/setpriv', '/usr/bin/systemctl', '/usr/sbin/ip', '/etc/shadow']
const canRun = root && needed.every((file) => existsSync(file)) && (await run('unshare', ['-mn', 'true'])).code === 0

describe('with the real sudo and sudoers.example', {
  skip: canRun ? false : 'needs root, namespaces, sudo, systemctl',
}, () => {
  let base = ''
  let built: Awaited<ReturnType<typeof buildLeforward>>
  /** Runs a line of shell as certmaint on that host. */
  const onHost = (line: string, command: string, env: NodeJS.ProcessEnv = {}) =>
    run('unshare', ['-mn', 'sh', '-c', namespace, 'sh', line], {
      env: {
        PATH: process.env.PATH, BASE: base, RELOAD: join(base, 'lematt-reload'), SSH_ORIGINAL_COMMAND: command, ...env,
      },
    })

  before(async () => {
    built = await buildLeforward()
    base = await mkdtemp(join(tmpdir(), 'lematt-sudo-'))
    await chmod(base, 0o755)
    await copyFile(join(remote, 'sudoers.example'), join(base, 'sudoers'))
    await chmod(join(base, 'sudoers'), 0o440)
    await copyFile(script, join(base, 'lematt-reload'))
    await copyFile(built.path, join(base, 'leforward'))
  })
  after(async () => {
    await built.remove()
    await rm(base, { recursive: true, force: true })
  })

  test('certmaint reloads what both the key and sudoers allow, through systemctl', async () => {
    const good = await onHost('$RELOAD postfix nginx', 'postfix nginx')
    const stdout = 'systemctl reload postfix as 0\nsystemctl reload nginx as 0\n'
    assert.deepEqual(good, { code: 0, stdout, stderr: '' })
    // The key's line would allow it, sudoers does not.
    const bad = await onHost('$RELOAD postfix ssh', 'ssh')
    assert.deepEqual([bad.code, bad.stdout], [1, ''])
    assert.match(bad.stderr,
      /lematt-reload: ssh: failed with exit code 1: \/usr\/bin\/sudo -n \/usr\/bin\/systemctl reload ssh\n/u)
    for (const line of ['systemctl restart postfix', 'systemctl reload postfix nginx', 'systemctl', 'sh -c id', '-i',
      '-u daemon id']) {
      const ran = await onHost(`sudo -n ${line}`, '')
      assert.deepEqual([ran.code, ran.stdout], [1, ''], line)
    }
  })

  test('the forwarder serves port 80 as certmaint, and ends with the session', async () => {
    const probe = `
      import { spawn } from 'node:child_process'
      import { once } from 'node:events'
      import { readFileSync } from 'node:fs'
      const args = ['-n', '/usr/local/bin/leforward', '--ssh', '--allow', 'http://central.example']
      const sudo = spawn('/usr/bin/sudo', args, { stdio: ['pipe', 'pipe', 'ignore'] })
      process.stdout.write((await once(sudo.stdout, 'data'))[0])
      const url = 'http://127.0.0.1/.well-known/acme-challenge/abc'
      const answer = await fetch(url, { redirect: 'manual' })
      console.log(answer.status, answer.headers.get('location'))
      const child = readFileSync('/proc/' + sudo.pid + '/task/' + sudo.pid + '/children', 'utf8').trim()
      console.log(/^Uid:.*/mu.exec(readFileSync('/proc/' + child + '/status', 'utf8'))[0])
      sudo.stdin.end()
      console.log((await once(sudo, 'exit'))[0])
      console.log(await fetch(url).then(() => 'still there', () => 'gone'))`
    const ran = await onHost('exec node --input-type=module -e "$PROBE"', 'http://central.example/', { PROBE: probe })
    assert.equal(ran.stderr, '')
    assert.equal(ran.stdout, 'leforward: port 80 → http://central.example\n'
      + '301 http://central.example/.well-known/acme-challenge/abc\nUid:\t64999\t64999\t64999\t64999\n0\ngone\n')
  })
})
