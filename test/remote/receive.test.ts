/** lematt-receive: what it takes, where that goes, what it says; under dash and under busybox with its own tools. */
import assert from 'node:assert/strict'
import { chmodSync, chownSync, existsSync, lstatSync, mkdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, before, beforeEach, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { flavours, makeHost, pair, receiverPath, sha256, stream, type Entry, type Host } from '../helpers/receiver.js'
import { run } from '../helpers/run.js'

const root = process.getuid?.() === 0
const skip = root ? false : 'needs root, to whom receive.conf belongs'

for (const flavour of flavours) {
  describe(`lematt-receive (${flavour})`, { skip }, () => {
    let host: Host
    let [certificate, key] = [] as unknown as ReturnType<typeof pair>
    let other: ReturnType<typeof pair>
    let links: Entry[]
    before(() => {
      [certificate, key] = pair('a.example')
      other = pair('a.example')
      links = [{ kind: 'certlink', file: 'b.example-cert-combined.prime256v1.pem', target: certificate.file },
        { kind: 'keylink', file: 'b.example-key.prime256v1.pem', target: key.file }]
    })
    beforeEach(() => { host = makeHost(flavour) })
    afterEach(() => host.remove())

    test('places files and links with their modes, reloads, and answers in one line', async () => {
      const record = host.script('record', `echo "$*" >>${host.base}/reloaded`)
      host.configure('group daemon', `reload postfix ${record} postfix now`, `reload dovecot ${record} dovecot`)
      const { code, answer } = await host.deliver([certificate, key, ...links], 'postfix dovecot postfix')
      assert.deepEqual([code, answer], [0, { ok: true, files: 4, reloaded: ['postfix', 'dovecot'] }])
      assert.deepEqual(host.snapshot(), {
        [`cert/${certificate.file}`]: `644 0:1 ${sha256(certificate.text)}`,
        'cert/b.example-cert-combined.prime256v1.pem': `link ${certificate.file}`,
        [`key/${key.file}`]: `640 0:1 ${sha256(key.text)}`,
        'key/b.example-key.prime256v1.pem': `link ${key.file}`,
      })
      assert.equal(readFileSync(join(host.base, 'reloaded'), 'utf8'), 'postfix now\ndovecot\n')
      assert.equal(statSync(join(host.key, '.lematt')).mode & 0o777, 0o700)
      assert.equal(statSync(join(host.cert, '.lematt')).mode & 0o777, 0o700)
    })

    test('the same again, a renewal, files alone, reloads alone', async () => {
      const record = host.script('record', `echo "$*" >>${host.base}/reloaded`)
      host.configure('keymode 0600', 'certmode 0640', `reload x@1.service ${record}`)
      for (const entries of [[certificate, key, ...links], [certificate, key, ...links], [...other, ...links]]) {
        assert.equal((await host.deliver(entries)).code, 0)
      }
      assert.equal(existsSync(join(host.base, 'reloaded')), false)
      const files = host.snapshot()
      assert.equal(files[`key/${key.file}`], `600 0:0 ${sha256(other[1].text)}`)
      assert.equal(files[`cert/${key.file.replace('key', 'cert-combined')}`], `640 0:0 ${sha256(other[0].text)}`)
      assert.deepEqual((await host.deliver([], 'x@1.service')).answer, { ok: true, files: 0, reloaded: ['x@1.service'] })
      assert.deepEqual(host.snapshot(), files)
      assert.equal(readFileSync(join(host.base, 'reloaded'), 'utf8'), '\n')
    })

    test('a link gives way to a file and a file to a link; a link that exists needs only its target here', async () => {
      assert.equal((await host.deliver([certificate, key, ...links])).code, 0)
      const b = pair('b.example')
      assert.equal((await host.deliver(b)).code, 0)
      assert.equal(lstatSync(join(host.key, b[1].file)).isFile(), true)
      assert.equal(readFileSync(join(host.key, key.file), 'utf8'), key.text) // not written through the link
      assert.equal((await host.deliver(links)).code, 0)
      assert.equal(lstatSync(join(host.key, b[1].file)).isSymbolicLink(), true)
    })

    test('EC PARAMETERS before a key, blank lines and CRLF in a chain, and names of wildcards and addresses', async () => {
      const names = ['_wildcard.example.org', '2001:db8::1', `${'a.'.repeat(80)}example_b`]
      for (const name of names) {
        const [c, k] = pair('x.example')
        const text = `-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n${k.text}`
        const entries: Entry[] = [
          { kind: 'cert', file: `${name}-cert-combined.ec.test.pem`, text: `${c.text}\n${certificate.text.replaceAll('\n', '\r\n')}\n` },
          { kind: 'key', file: `${name}-key.ec.test.pem`, text }]
        assert.deepEqual((await host.deliver(entries)).answer, { ok: true, files: 2, reloaded: [] })
        assert.equal(readFileSync(join(host.key, `${name}-key.ec.test.pem`), 'utf8'), text)
      }
    })

    test('status: digests of the files of our form, links, and what this host has', async () => {
      host.configure('reload postfix /bin/true', 'reload dovecot /bin/true', 'forward http://central.example http://b.example')
      await host.deliver([certificate, key, ...links])
      writeFileSync(join(host.key, 'other.pem'), 'not ours')
      symlinkSync('/etc/passwd', join(host.key, 'c.example-key.rsa.pem'))
      const { code, answer } = await host.ask('status')
      assert.equal(code, 0)
      const script = host.command.at(-2) ?? ''
      assert.deepEqual(answer, {
        receiver: sha256(readFileSync(script)), services: ['postfix', 'dovecot'],
        forward: ['http://central.example', 'http://b.example'], cert: host.cert, key: host.key,
        files: { [certificate.file]: sha256(certificate.text), [key.file]: sha256(key.text) },
        links: Object.fromEntries(links.map((link) => [link.file, 'target' in link ? link.target : ''])),
      })
    })

    test('status of an empty host, and one directory for both', async () => {
      assert.deepEqual((await host.ask('status')).answer.files, {})
      host.configure(`cert ${host.key}`)
      assert.equal((await host.deliver([certificate, key])).code, 0)
      assert.deepEqual(Object.keys((await host.ask('status')).answer.files as object).sort(), [certificate.file, key.file].sort())
    })

    test('forward starts leforward with a URL of the list, and with no other', async () => {
      host.configure('forward http://central.example http://b.example/x/', 'leforward /bin/echo leforward --port 80')
      const [command = '', ...args] = host.command
      const forward = (asked: string) =>
        run(command, args, { env: { PATH: '/bin', SSH_ORIGINAL_COMMAND: `forward ${asked}` } })
      for (const [asked, url] of [['http://central.example', 'http://central.example'],
        ['http://central.example/', 'http://central.example'], ['http://b.example/x', 'http://b.example/x']] as const) {
        const ran = await forward(asked)
        assert.deepEqual(ran, { code: 0, stdout: `leforward --port 80 --baseurl ${url}\n`, stderr: '' })
      }
      for (const asked of ['', 'http://evil.example', 'http://central.example.evil.example', 'http://*', '*',
        'http://central.example http://b.example/x/', '--help', 'http://b.example']) {
        const { code, answer } = await host.ask(`forward ${asked}`)
        assert.deepEqual([code, answer.step], [2, 'refused'], asked)
      }
      host.configure('forward http://central.example')
      assert.match((await host.ask('forward http://central.example')).answer.message ?? '', /there is no leforward in .*add it/u)
    })

    test('variables of the client reach no reload', async () => {
      const show = host.script('show', `env >${host.base}/environment`)
      host.configure(`reload x ${show}`)
      const env = { LC_ALL: 'de_DE', EVIL: 'a\nexport PATH=/tmp', LD_PRELOAD: '', OPENSSL_CONF: '/nonexistent', IFS: 'e', POSIXLY_CORRECT: '1' }
      assert.equal((await host.ask('deliver x', stream([certificate, key]), env)).code, 0)
      const names = readFileSync(join(host.base, 'environment'), 'utf8').split('\n').map((line) => line.split('=')[0] ?? '')
      // dash cannot forget IFS; its value is ours, and no shell takes it from there.
      assert.deepEqual(names.filter((name) => !['', 'IFS', 'PATH', 'LC_ALL', 'PWD', 'OLDPWD', '_', 'SHLVL'].includes(name)), [])
    })

    test('a configuration that is missing, not of root, writable by others or wrong is refused', async () => {
      const refused = async (pattern: RegExp) => {
        const { code, answer } = await host.deliver([certificate, key])
        assert.deepEqual([code, answer.ok, answer.step], [2, false, 'refused'])
        assert.match(answer.message ?? '', pattern)
        assert.equal(existsSync(join(host.key, '.lematt')), false)
        assert.deepEqual(host.snapshot(), {})
      }
      for (const mode of [0o664, 0o646]) {
        chmodSync(host.config, mode)
        await refused(/must be owned by root and not writable by others; chown root, chmod go-w/u)
      }
      chmodSync(host.config, 0o644)
      chownSync(host.config, 65534, 65534)
      await refused(/must be owned by root/u)
      rmSync(host.config)
      await refused(/is missing or not a readable file; install it/u)
      for (const line of ['shell /bin/sh', 'cert relative', `key ${host.key}/../key`, 'key /a b', 'keymode 640', 'keymode 9999',
        'certmode u+s', 'group $(id)', 'names $(id)', 'names', 'reload', 'reload x', 'reload x y', 'reload x ./y', 'reload -x /y',
        'reload x /y;id', 'reload x /y $HOME', 'reload x "/y"', 'reload x /y > z', 'reload a/b /y', 'maxbytes 0', 'maxbytes x',
        'reloadtimeout 1e9', 'maxfiles 1234567890', 'forward http://a b;c', 'leforward sh', 'leforward /x `id`', 'names a\r']) {
        host.configure(line)
        await refused(/receive\.conf: ".*" .*; correct it there/u)
      }
      host.configure('reload x /bin/true', 'reload x /bin/false')
      await refused(/is there twice/u)
    })

    test('a directory that others can write, a link or none at all is refused', async () => {
      const refused = async (work: () => void, undo: () => void) => {
        work()
        const { code, answer } = await host.deliver([certificate, key])
        assert.deepEqual([code, answer.step], [2, 'refused'])
        assert.match(answer.message ?? '', /must be a directory \(no link\) that group and others cannot write; make it/u)
        undo()
      }
      for (const mode of [0o770, 0o757]) await refused(() => chmodSync(host.key, mode), () => chmodSync(host.key, 0o750))
      rmSync(host.cert, { recursive: true })
      await refused(() => undefined, () => undefined)
      mkdirSync(join(host.base, 'elsewhere'))
      await refused(() => symlinkSync('elsewhere', host.cert), () => rmSync(host.cert))
      await refused(() => writeFileSync(host.cert, ''), () => undefined)
    })
  })
}

test('lematt-receive passes shellcheck; receive.conf.example is accepted', { skip }, async () => {
  if (existsSync('/usr/bin/shellcheck')) {
    assert.deepEqual(await run('shellcheck', ['-s', 'sh', receiverPath]), { code: 0, stdout: '', stderr: '' })
  }
  const host = makeHost('dash')
  try {
    const example = readFileSync(fileURLToPath(new URL('../../remote/receive.conf.example', import.meta.url)), 'utf8')
    // Every word that stands there, also those that are commented out because they are the default.
    host.configure(...example.split('\n').map((line) => line.replace(/^#(?=[a-z])/u, ''))
      .filter((line) => !/^(?:cert|key) /u.test(line)))
    const { answer } = await host.ask('status')
    assert.deepEqual([answer.services, answer.forward], [['postfix', 'dovecot'], ['http://central.example']])
  } finally {
    host.remove()
  }
})
