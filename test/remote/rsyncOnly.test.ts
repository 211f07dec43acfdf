import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs'
import { chmod, chown, copyFile, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, beforeEach, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { run } from '../helpers/run.js'

const checker = fileURLToPath(new URL('../../remote/lematt-rsync-only', import.meta.url))
const shells = [['dash', ['/bin/dash']], ['busybox', ['/bin/busybox', 'sh']]] as const
const skip = existsSync('/usr/bin/rsync') ? false : 'needs rsync (apt-get install rsync)'

/** Everything under `directory`: name → kind, mode and contents. What must not have changed is compared by it. */
function snapshot(directory: string): Record<string, string> {
  return Object.fromEntries(readdirSync(directory, { recursive: true, encoding: 'utf8' }).sort().map((name) => {
    const path = join(directory, name)
    const stat = lstatSync(path)
    const content = stat.isSymbolicLink() ? readlinkSync(path)
      : stat.isFile() ? createHash('sha256').update(readFileSync(path)).digest('hex') : ''
    return [name, `${stat.mode.toString(8)} ${content}`]
  }))
}

for (const [name, shell] of shells) {
  describe(`lematt-rsync-only (${name})`, { skip: existsSync(shell[0]) ? skip : `needs ${name}` }, () => {
    // host/tls is the directory of the key; all else there, and around it, is out of bounds.
    let base = ''
    let tls = ''
    const path = (...names: string[]) => join(base, ...names)
    const asked = (command: string | undefined, directory = tls, env: NodeJS.ProcessEnv = {}) =>
      run(shell[0], [...shell.slice(1), checker, directory], {
        cwd: path('host'),
        env: { PATH: process.env.PATH, HOME: path('host', 'home'), SSH_ORIGINAL_COMMAND: command, ...env },
      })
    /** rsync as the central host runs it, with sshd replaced by its essence: one string in the environment. */
    const rsync = (args: readonly string[], env: NodeJS.ProcessEnv = {}) =>
      run('rsync', ['-e', path('sshd'), ...args], { cwd: path('central'), env: { PATH: process.env.PATH, ...env } })

    before(async () => {
      base = await mkdtemp(join(tmpdir(), 'lematt-rsync-'))
      tls = path('host', 'tls')
      await writeFile(path('sshd'), `#!/bin/sh
shift
SSH_ORIGINAL_COMMAND=$*
case \${LIE-} in ?*) SSH_ORIGINAL_COMMAND=$(printf '%s' "$*" | sed "$LIE") ;; esac
export SSH_ORIGINAL_COMMAND
cd ${path('host')} && exec \${SHELL_AND_CHECKER-${shell.join(' ')} ${checker} ${tls}}
`, { mode: 0o755 })
    })
    beforeEach(async () => {
      for (const name of ['host', 'central']) await rm(path(name), { recursive: true, force: true })
      for (const name of ['host/tls', 'host/home/.ssh', 'host/elsewhere', 'central']) {
        mkdirSync(path(name), { recursive: true })
      }
      await writeFile(path('host', 'home', '.ssh', 'authorized_keys'), 'secret of the host\n')
      await writeFile(path('host', 'tls', 'old-key.pem'), 'old key\n', { mode: 0o600 })
      await writeFile(path('central', 'a-key.pem'), 'key of a\n', { mode: 0o600 })
      await writeFile(path('central', 'a-cert.pem'), 'cert of a\n', { mode: 0o644 })
      await symlink('a-key.pem', path('central', 'b-key.pem'))
    })
    after(() => rm(base, { recursive: true, force: true }))

    test('a table of hostile commands: refused, nothing written, read or run', async () => {
      const push = 'rsync --server -te.LsfxCIvu .'
      const commands: (string | undefined)[] = [
        // no command, other commands
        undefined, '', ' ', 'sh', 'bash -i', 'id', 'scp -t .', 'scp -t -- .', 'scp -f /etc/passwd', 'internal-sftp',
        '/usr/lib/openssh/sftp-server', 'tar xf -', 'cat', `cat ${path('host/home/.ssh/authorized_keys')}`,
        'lematt-receive', '-', '--', '--server', 'rsync', 'rsync --version', 'rsync --daemon', 'rsync --help',
        `rsync ${path('host/home/.ssh')}/ .`, 'rsync -a x y', 'rsync --server', `/usr/bin/${push} .`, `./${push} .`,
        `env ${push} .`, `sudo ${push} .`, `-${push} .`, '=rsync --server -t . .', 'RSYNC --server -t . .',
        // shell syntax
        `${push} .; touch pwned`, `${push} .;touch\tpwned`, `${push} . && touch pwned`, `${push} . || touch pwned`,
        `${push} . | tee pwned`, `${push} . > pwned`, `${push} . < home/.ssh/authorized_keys`, `${push} . &`,
        `${push} $(touch pwned)`, `${push} \`touch pwned\``, `${push} .\ntouch pwned`, `touch pwned\n${push} .`,
        `${push} .\r`, `${push}\t.`, `${push} '.'`, `${push} "."`, `${push} *`, `${push} ?`, `${push} [a-z]`,
        `${push} {a,b}`,
        `${push} ~`, `${push} $HOME`, `${push} \${HOME}`, `${push} a\\ b`, `${push} !!`, `${push} #`,
        `${push} .\u001b[2J`,
        `${push} ë`, `${push} \u0080`, '$(touch pwned)', '`touch pwned`', ';touch pwned', '() { :; }; touch pwned',
        // reading
        'rsync --server --sender -te.LsfxCIvu . .', `rsync --server --sender -logDtpre.iLsfxCIvu . ${tls}`,
        `rsync --server -te.LsfxCIvu --sender . ${tls}/old-key.pem`, 'rsync --sender --server -te.LsfxCIvu . .',
        'rsync --server --sende -te.LsfxCIvu . .', 'rsync --server --sender=1 -te.LsfxCIvu . .',
        'rsync --server --list-only -te.LsfxCIvu . .', 'rsync --server -te.LsfxCIvu --remove-source-files . .',
        'rsync --server -te.LsfxCIvu --block-size=1 . .', 'rsync --server -tB1 . .',
        'rsync --server -te.LsfxCIvu --no-W . .',
        'rsync --server -te.LsfxCIvu --no-whole-file . .', 'rsync --server -tye.LsfxCIvu . .',
        // other destinations
        `${push} /`, `${push} /etc`, `${push} ..`, `${push} ../elsewhere`, `${push} ./..`, `${push} ./../elsewhere`,
        `${push} ${tls}/..`, `${push} ${tls}/../elsewhere`, `${push} ${tls}/sub`, `${push} ${tls}x`,
        `${push} ${tls}//..`,
        `${push} ${path('host/elsewhere')}`, `${push} sub`, `${push} old-key.pem`, `${push} . .`, `${push} . /etc`,
        `${push} ${tls} ${path('host/elsewhere')}`, `${push} -- .`, `${push} --sender`, `${push} -t`, `${push} host:x`,
        `${push} host::module`, `${push} rsync://host/x`, 'rsync --server -te.LsfxCIvu',
        'rsync --server -te.LsfxCIvu /etc',
        'rsync --server -te.LsfxCIvu .. .', 'rsync --server -te.LsfxCIvu / .', 'rsync --server -t -- . .',
        'rsync --server - . .',
        // letters that are not for this key
        ...'ABCEFGHJKLMNPQRSTUVXYZabdfhijkmswxy0@'.split('')
          .map((letter) => `rsync --server -t${letter}e.LsfxCIvu . .`),
        'rsync --server -T/tmp . .', 'rsync --server -te/bin/sh . .', 'rsync --server -tesh . .',
        'rsync --server -te.Ls/f . .',
        'rsync --server -te . .', 'rsync --server -e sh . .', 'rsync --server -te. -M--sender . .',
        'rsync --server -se.LsfxCIvu', 'rsync --server -ste.LsfxCIvu . .', 'rsync --server -te.L -f/etc/passwd . .',
        // long options that are not for this key
        ...['acls', 'address=127.0.0.1', 'append', 'backup', 'backup-dir=/tmp', 'chmod=u+s', 'chown=root',
        'compare-dest=/etc',
          'config=/tmp/x', 'copy-dest=/etc', 'copy-devices', 'copy-links', 'copy-unsafe-links', 'daemon', 'delete',
          'delete-after', 'delete-before', 'delete-delay', 'delete-during', 'delete-excluded', 'delete-missing-args',
          'devices', 'dirs', 'dparam=x=y', 'early-input=/etc/passwd', 'exclude-from=/etc/passwd', 'fake-super',
          'files-from=/etc/passwd', 'filter=._etc', 'force', 'from0', 'fuzzy', 'groupmap=0:0', 'hard-links', 'iconv=.',
          'include-from=/etc/passwd', 'inplace', 'insecure-links', 'keep-dirlinks', 'link-dest=/etc', 'links',
          'log-file=pwned', 'log-format=%o', 'log-format=%n_%L', 'max-alloc=1T', 'max-delete=1', 'mkpath',
          'munge-links',
          'no-munge-links', 'no-chmod', 'no-l', 'no-r', 'only-write-batch=pwned', 'open-noatime', 'outbuf=N', 'partial',
          'partial-dir=/tmp', 'password-file=/etc/passwd', 'perms', 'preallocate', 'protect-args', 'protocol=29',
          'read-batch=x', 'relative', 'remote-option=--sender', 'rsh=sh', 'rsync-path=sh', 'secluded-args',
          'skip-compress=x',
          'sockopts=x', 'specials', 'stop-at=x', 'suffix=/../x', 'super', 'temp-dir=/tmp', 'timeout=', 'timeout=-1',
          'timeout=1;id', 'trust-sender', 'usermap=0:0', 'write-batch=pwned', 'write-devices', 'xattrs', 'bwlimit=',
          'compress-choice=a/b', 'stats=1', 'debug=ALL9', 'info=all9', '']
          .map((option) => `rsync --server -te.LsfxCIvu --${option} . .`),
        // sheer size
        `${push} ${'x'.repeat(100_000)}`, `rsync --server ${'-t '.repeat(5000)}. .`, 'x '.repeat(600), '-'.repeat(999),
      ]
      const before = snapshot(base)
      for (let i = 0; i < commands.length; i += 16) {
        await Promise.all(commands.slice(i, i + 16).map(async (command) => {
          const ran = await asked(command)
          assert.equal(ran.code, 1, `${JSON.stringify(command?.slice(0, 200))}: ${ran.stderr}`)
          assert.equal(ran.stdout, '', `${command}`)
          assert.match(ran.stderr, /^lematt-rsync-only: refused: [ -~]{3,300}\n$/u, `${command}`)
        }))
      }
      assert.deepEqual(snapshot(base), before)
      assert.ok(commands.length > 200)
    })

    test('a wrong line in authorized_keys is refused, not guessed at', async () => {
      await symlink(path('host', 'elsewhere'), path('host', 'link'))
      await mkdir(path('host', 'a b'))
      const before = snapshot(base)
      const directories = ['', '/', '.', 'tls', '../tls', `${tls}/../tls`, `${tls}/./`, path('host', 'missing'),
        path('host', 'link'), path('host', 'tls', 'old-key.pem'), path('host', 'a b'), `${tls};id`, `${tls}\n/etc`]
      for (const directory of directories) {
        const ran = await asked('rsync --server -te.LsfxCIvu . .', directory)
        assert.equal(ran.code, 1, directory)
        assert.match(ran.stderr, /^lematt-rsync-only: refused: /u)
      }
      for (const args of [[], [tls, path('host', 'elsewhere')]]) {
        const ran = await run(shell[0], [...shell.slice(1), checker, ...args],
          { env: { SSH_ORIGINAL_COMMAND: 'rsync --server -te.LsfxCIvu . .' } })
        assert.equal(ran.code, 1)
        assert.match(ran.stderr, /must name one directory/u)
      }
      // Who may write into a home directory may give himself a shell.
      for (const home of [tls, path('host', 'tls', 'home')]) {
        const ran = await asked('rsync --server -te.LsfxCIvu . .', tls, { HOME: home })
        assert.equal(ran.code, 1)
        assert.match(ran.stderr, /the home directory .* is in /u)
      }
      assert.deepEqual(snapshot(base), before)
    })

    test('a home under another name, and .ssh wherever it is, are refused; another directory in the home is not', async () => {
      const push = 'rsync --server -te.LsfxCIvu . .'
      await mkdir(path('host', 'home', '.ssh', 'below'), { recursive: true })
      await mkdir(path('host', 'elsewhere', '.ssh'))
      await mkdir(path('host', 'home', 'tls'))
      await symlink('host', path('alias'))
      await symlink('home/.ssh', path('host', 'innocent'))
      const before = snapshot(base)
      const cases: [string, string, RegExp][] = [
        // DIRECTORY, HOME
        [path('host', 'home'), path('host', 'home'), /the home directory \S+ is in /u],
        [path('host', 'home'), path('alias', 'home'), /the home directory \S+ is in /u],
        [path('alias', 'home'), path('host', 'home'), /the home directory \S+ is in /u],
        [path('host'), path('alias', 'home', 'tls'), /the home directory \S+ is in /u],
        [path('host', 'home', '.ssh'), path('host', 'home'), /is a \.ssh directory, or in one/u],
        [path('host', 'home', '.ssh', 'below'), path('host', 'home'), /is a \.ssh directory, or in one/u],
        [path('host', 'elsewhere', '.ssh'), path('host', 'home'), /is a \.ssh directory, or in one/u],
        [path('host', 'innocent', 'below'), path('host', 'home'), /is a \.ssh directory, or in one/u],
      ]
      for (const [directory, HOME, why] of cases) {
        const ran = await asked(push, directory, { HOME })
        assert.equal(ran.code, 1, directory)
        assert.match(ran.stderr, why)
      }
      assert.deepEqual(snapshot(base), before)
      for (const HOME of [path('host', 'home'), path('host', 'nowhere'), '']) {
        // What rsync makes of an empty connection is its own matter.
        assert.doesNotMatch((await asked(push, path('host', 'home', 'tls'), { HOME })).stderr, /refused/u)
      }
      await rm(path('alias'))
    })

    test('pushes as operators write them arrive, links as the files they lead to', async () => {
      const files = ['a-key.pem', 'a-cert.pem', 'b-key.pem']
      const ways = [['-tL', '--chmod=F640'], ['-rtL'], ['-avzL'], ['-aL'], ['-tLi'], ['-tLq'], ['-tLvv', '--stats'],
        ['-rlptL'],
        ['-tLcW', '--delay-updates', '--fsync'], ['-tL', '--timeout=30', '--bwlimit=1000'],
        ['-tLz', '--compress-level=9'],
        ['-tL', '--ignore-existing'], ['-tLzz'], ['-vogtL', '--checksum-choice=md5']]
      for (const way of ways) {
        for (const destination of way === ways[0] ? ['host:', 'host:.', `host:${tls}`, `host:${tls}/`] : ['host:']) {
          await rm(tls, { recursive: true })
          await mkdir(tls)
          const ran = await rsync([...way, ...files, destination])
          assert.equal(ran.code, 0, `${way.join(' ')} ${destination}: ${ran.stderr}`)
          assert.deepEqual(readdirSync(tls).sort(), [...files].sort(), way.join(' '))
          assert.equal(readFileSync(join(tls, 'b-key.pem'), 'utf8'), 'key of a\n')
          assert.equal(lstatSync(join(tls, 'b-key.pem')).isSymbolicLink(), false)
          assert.equal(statSync(join(tls, 'a-cert.pem')).mode & 0o7, 0)
          assert.equal(statSync(join(tls, 'a-key.pem')).mode & 0o777, way.includes('--chmod=F640') ? 0o640 : 0o600)
        }
      }
      assert.deepEqual(readdirSync(path('host')).sort(), ['elsewhere', 'home', 'tls'])
    })

    test('a pull gets nothing', async () => {
      const before = snapshot(base)
      const secret = path('host/home/.ssh/authorized_keys')
      for (const source of ['host:old-key.pem', `host:${tls}/old-key.pem`, 'host:', `host:${secret}`]) {
        const ran = await rsync(['-r', source, 'got/'])
        assert.notEqual(ran.code, 0)
        assert.match(ran.stderr, /refused: this key takes files and gives none/u)
        assert.doesNotMatch(ran.stdout + ran.stderr, /old key|secret/u)
      }
      assert.deepEqual(snapshot(base), before)
    })

    test('links, devices, setuid bits and modes for others do not come through', async () => {
      await symlink('/etc/passwd', path('central', 'link'))
      await mkdir(path('central', 'sub'))
      await symlink('../../home', path('central', 'sub', 'out'))
      await writeFile(path('central', 'suid'), '#!/bin/sh\nid\n')
      await chmod(path('central', 'suid'), 0o6777)
      await chmod(path('central', 'sub'), 0o777)
      execFileSync('mkfifo', [path('central', 'fifo')])
      if (process.getuid?.() === 0) execFileSync('mknod', [path('central', 'null'), 'c', '1', '3'])
      for (const way of [['-a'], ['-rlptD'], ['-rlptD', '--chmod=a=rwx,ug+s']]) {
        const before = snapshot(path('host', 'home'))
        // rm(1): Node's cannot remove a name that is not UTF-8.
        execFileSync('rm', ['-rf', tls])
        await mkdir(tls, { mode: 0o755 })
        // Whether rsync aborts or skips them is its own matter: none may be there afterwards. The receiver leaves out -l
        // and -D, so it may read what the client sends of a link as a file of any name, even one that is not UTF-8.
        await rsync([...way, './', 'host:'])
        const made = execFileSync('find', [tls, '-mindepth', '1', '-printf', '%y %m\\n'], { encoding: 'latin1' })
        for (const line of made.split('\n').slice(0, -1)) {
          const [type, mode] = line.split(' ')
          const bits = Number.parseInt(mode ?? '', 8)
          assert.match(type ?? '', /^[fd]$/u, `${way.join(' ')} made ${line}`)
          assert.equal(bits & (type === 'f' ? 0o6007 : 0o002), 0, line)
        }
        assert.equal(statSync(tls).mode & 0o002, 0)
        assert.deepEqual(snapshot(path('host', 'home')), before)
      }
      execFileSync('rm', ['-rf', tls])
      await mkdir(tls, { mode: 0o755 })
      await mkdir(path('central', 'wide'))
      await chmod(path('central', 'wide'), 0o777)
      const alone = await rsync(['-rtp', 'suid', 'wide', 'host:'])
      assert.equal(alone.code, 0, alone.stderr)
      assert.equal(statSync(join(tls, 'suid')).mode & 0o7777, 0o770)
      assert.equal(statSync(join(tls, 'wide')).mode & 0o7777, 0o775)
    })

    test('a file that was there: no right for others nor setuid bit outlives a push, whatever the client asks', async () => {
      const key = join(tls, 'a-key.pem')
      const modeOf = (path: string) => (statSync(path).mode & 0o7777).toString(8)
      const pushed = async (was: number, args: readonly string[], sends = 0o600): Promise<string> => {
        await writeFile(key, 'key of last year\n')
        await chmod(key, was)
        await chmod(path('central', 'a-key.pem'), sends)
        const ran = await rsync([...args, 'a-key.pem', 'host:'])
        assert.equal(ran.code, 0, `${args.join(' ')}: ${ran.stderr}`)
        assert.equal(readFileSync(key, 'utf8'), 'key of a\n')
        return modeOf(key)
      }
      // Without -p rsync leaves a file the mode that it has, whatever --chmod says: here without what others may.
      for (const was of [0o644, 0o666, 0o4755, 0o2644, 0o6777, 0o604]) {
        const left = (was & 0o770).toString(8)
        assert.equal(await pushed(was, ['-tL', '--chmod=F640']), left, was.toString(8))
        assert.equal(await pushed(was, ['-tL']), left, was.toString(8))
      }
      assert.equal(await pushed(0o640, ['-tL']), '640', 'what the operator of the host allowed was taken back')
      assert.equal(await pushed(0o600, ['-tL', '--chmod=F640']), '600')
      // With it the mode is what the client says, again without what others may.
      assert.equal(await pushed(0o600, ['-tpL', '--chmod=F640']), '640')
      assert.equal(await pushed(0o644, ['-tpL', '--chmod=F640']), '640')
      for (const was of [0o644, 0o600]) assert.equal(await pushed(was, ['-tpL', '--chmod=F4777'], 0o6777), '770')

      // Others of the directory are closed too, and theirs is all that changes; directories keep their setgid bit.
      await mkdir(join(tls, 'sub'))
      await chmod(join(tls, 'sub'), 0o2755)
      await chmod(tls, 0o2755)
      await writeFile(join(tls, 'sub', 'b-key.pem'), 'key of b\n')
      await chmod(join(tls, 'sub', 'b-key.pem'), 0o644)
      await pushed(0o644, ['-tL'])
      assert.deepEqual(['sub/b-key.pem', 'sub', '.', 'old-key.pem'].map(name => modeOf(join(tls, name))), ['640', '2755', '2755', '600'])
      assert.equal(readFileSync(join(tls, 'sub', 'b-key.pem'), 'utf8'), 'key of b\n')
    })

    test('a file of somebody else that others can read is refused: the key that replaces it would be readable', {
      skip: process.getuid?.() === 0 ? false : 'needs root',
    }, async () => {
      await writeFile(join(tls, 'a-key.pem'), 'key of root\n', { mode: 0o600 })
      await chmod(join(tls, 'a-key.pem'), 0o644)
      await chmod(base, 0o711)
      await copyFile(checker, path('checker')) // the one of the checkout may be out of his reach
      await chmod(path('checker'), 0o755)
      await chown(tls, 65534, 65534)
      await chown(join(tls, 'old-key.pem'), 65534, 65534)
      const before = snapshot(path('host'))
      const as = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', ...shell, path('checker'), tls].join(' ')
      const ran = await rsync(['-tL', 'a-key.pem', 'host:'], { SHELL_AND_CHECKER: as })
      assert.notEqual(ran.code, 0)
      assert.match(ran.stderr, /refused: others may read or run this file, which is not ours to close \(chmod o-rwx,ug-s\): \S+\/a-key\.pem$/mu)
      assert.deepEqual(snapshot(path('host')), before)
      await chmod(join(tls, 'a-key.pem'), 0o640)
      const closed = await rsync(['-tL', 'a-key.pem', 'host:'], { SHELL_AND_CHECKER: as })
      assert.equal(closed.code, 0, closed.stderr)
      assert.equal(readFileSync(join(tls, 'a-key.pem'), 'utf8'), 'key of a\n')
      assert.equal(statSync(join(tls, 'a-key.pem')).mode & 0o7007, 0)
    })

    test('nothing of an existing file goes back to the client: no block checksums', async () => {
      const secret = createHash('sha512').update('x').digest('hex').repeat(500)
      await writeFile(join(tls, 'big.pem'), secret)
      await writeFile(path('central', 'big.pem'), secret)
      const ran = await rsync(['-I', '--no-whole-file', '--stats', 'big.pem', 'host:'])
      assert.equal(ran.code, 0, ran.stderr)
      assert.match(ran.stdout, /^Matched data: 0 bytes$/mu)
      assert.match(ran.stdout, /^Literal data: 64,000 bytes$/mu)
    })

    test('a client that lies about names gets no further than its own connection', async () => {
      await writeFile(path('central', 'evil'), 'evil\n')
      const before = snapshot(path('host'))
      // Sends absolute names, having told the server nothing of -R.
      const ran = await rsync(['-tR', path('central', 'evil'), 'host:'], { LIE: 's/ -tR/ -t/' })
      assert.notEqual(ran.code, 0)
      assert.match(ran.stderr, /unsafe pathname/u)
      assert.deepEqual(snapshot(path('host')), before)
    })

    test('a link to a directory in the directory is refused; one to a file is replaced, not followed', async () => {
      await mkdir(path('central', 'sub'))
      await copyFile(path('central', 'a-key.pem'), path('central', 'sub', 'a-key.pem'))
      await symlink('../elsewhere', join(tls, 'sub'))
      const before = snapshot(path('host'))
      const refused = await rsync(['-rt', 'sub', 'host:'])
      assert.notEqual(refused.code, 0)
      assert.match(refused.stderr, /refused: there is a link to a directory in /u)
      assert.deepEqual(snapshot(path('host')), before)

      await rm(join(tls, 'sub'))
      await symlink('../home/.ssh/authorized_keys', join(tls, 'a-key.pem'))
      assert.equal((await rsync(['-t', 'a-key.pem', 'host:'])).code, 0)
      assert.equal(lstatSync(join(tls, 'a-key.pem')).isSymbolicLink(), false)
      assert.equal(readFileSync(path('host/home/.ssh/authorized_keys'), 'utf8'), 'secret of the host\n')
    })
  })
}

test('the scripts on remote hosts pass shellcheck', {
  skip: existsSync('/usr/bin/shellcheck') ? false : 'needs shellcheck (apt-get install shellcheck)',
}, async () => {
  const ran = await run('shellcheck', ['-s', 'sh', checker, checker.replace('rsync-only', 'reload')])
  assert.deepEqual([ran.code, ran.stdout], [0, ''])
})
