/** lematt-receive and what grows, loops, prints without end or is in its way: it stays quick, and says what to do. */
import assert from 'node:assert/strict'
import { createServer } from 'node:net'
import {
  existsSync, linkSync, lstatSync, mkdirSync, readFileSync, readlinkSync, rmSync, statSync, symlinkSync, writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, test } from 'node:test'
import { flavours, makeHost, pair, receiverPath, sha256, stream, tools, withPath, type Entry, type Host } from '../helpers/receiver.js'
import { run } from '../helpers/run.js'

const skip = process.getuid?.() === 0 ? false : 'needs root, to whom receive.conf belongs'
const [old, renewed, b] = [pair('a.example'), pair('a.example'), pair('b.example')]
const keylink = (file: string, target: string): Entry => ({ kind: 'keylink', file, target })

for (const flavour of flavours) {
  describe(`lematt-receive at its limits (${flavour})`, { skip }, () => {
    let host: Host
    beforeEach(() => { host = makeHost(flavour) })
    afterEach(() => host.remove())
    /** The same script with only these tools, and `extra` in the place of one of them. */
    const withTools = (name: string, extra: Record<string, string>): readonly string[] => {
      const directory = join(host.base, name)
      mkdirSync(directory)
      for (const tool of [...tools, 'openssl']) {
        const real = flavour === 'dash' ? `/usr/bin/${tool}` : `${host.base}/bin/${tool}`
        writeFileSync(join(directory, tool), extra[tool] ?? `#!/bin/dash\nexec ${real} "$@"\n`, { mode: 0o755 })
      }
      const script = join(host.base, `${name}.sh`)
      withPath(script, directory)
      return [...host.command.slice(0, -2), script, host.config]
    }

    test('status of thousands of files: all of them, at once', async () => {
      assert.equal((await host.deliver(old)).code, 0)
      const count = 10_000
      for (let i = 0; i < count; i += 1) {
        linkSync(join(host.key, old[1].file), join(host.key, `n${i}.${'long.'.repeat(32)}example-key.prime256v1.pem`))
      }
      for (let i = 0; i < 3000; i += 1) symlinkSync(old[0].file, join(host.cert, `n${i}.example-cert-combined.x.pem`))
      const { code, answer } = await host.ask('status')
      assert.equal(code, 0)
      assert.equal(answer.receiver, sha256(readFileSync(host.command.at(-2) ?? '')))
      const [files, links] = [Object.entries(answer.files as object), Object.entries(answer.links as object)]
      assert.deepEqual([files.length, links.length], [count + 2, 3000])
      assert.ok(files.every(([name, sum]) => sum === sha256(name === old[0].file ? old[0].text : old[1].text)))
      assert.ok(links.every(([, target]) => target === old[0].file))
    })

    test('status without a digest of the receiver itself is a failure, never an empty answer', async () => {
      const [command = '', ...args] = withTools('broken', { sha256sum: '#!/bin/dash\nexit 126\n' })
      const ran = await run(command, args, { env: { SSH_ORIGINAL_COMMAND: 'status' } })
      assert.match(ran.stdout, /^\{"ok":false,"step":"status","message":"cannot list what is here: .*; see whether .* work"/u)
      assert.deepEqual([ran.code, ran.stdout.split('\n').length], [1, 2])
    })

    test('links of one delivery in a ring, or to a link that comes: nothing is lost', async () => {
      assert.equal((await host.deliver([...old, ...b])).code, 0)
      const files = host.snapshot()
      for (const entries of [[keylink(old[1].file, b[1].file), keylink(b[1].file, old[1].file)],
        [keylink('c.example-key.x.pem', old[1].file), keylink(old[1].file, b[1].file)]]) {
        const { code, answer } = await host.deliver(entries)
        assert.deepEqual([code, answer.step, answer.restored], [1, 'input', true])
        assert.match(answer.message ?? '', /would be a link to a link; deliver again/u)
        assert.deepEqual(host.snapshot(), files)
      }
    })

    test('names bind what a link leads to, too', async () => {
      assert.equal((await host.deliver([...old, ...b])).code, 0)
      host.configure('names a.example c.example')
      const files = host.snapshot()
      const { code, answer } = await host.deliver([keylink('c.example-key.x.pem', b[1].file)])
      assert.deepEqual([code, answer.step], [2, 'refused'])
      assert.match(answer.message ?? '', /names in .* does not let b\.example-key\.prime256v1\.pem come to this host; add it there/u)
      assert.deepEqual(host.snapshot(), files)
      assert.equal((await host.deliver([keylink('c.example-key.x.pem', old[1].file)])).code, 0)
      assert.equal(readlinkSync(join(host.key, 'c.example-key.x.pem')), old[1].file)
    })

    test('a reload that prints without end, or ignores that nobody reads on, fills no disk', async () => {
      const endless = "while :; do echo 'a line that is printed for ever'; done"
      for (const [text, why] of [[`exec yes 'exit status 0'`, /^(?:exit status \d+|over 64 KiB of output) \(/u], [endless, /^(?:exit status \d+|over 64 KiB of output) \(/u],
        [`trap '' PIPE; ${endless} 2>/dev/null`, /^(?:no end after 1 s|over 64 KiB of output) \(/u],
        ['exec tr "\\0" x </dev/zero', /^(?:exit status \d+|over 64 KiB of output) \(/u]] as const) {
        host.configure('reloadtimeout 1', `reload loud ${host.script('loud', `grep -q '${renewed[1].text.split('\n')[1] ?? ''}' ${host.key}/${old[1].file} || exit 0\n${text}`)}`)
        assert.equal((await host.deliver(old, 'loud')).code, 0)
        const files = host.snapshot()
        const { code, answer } = await host.deliver(renewed, 'loud')
        assert.deepEqual([code, answer.step, answer.restored], [1, 'reload loud', true], JSON.stringify(answer))
        assert.match(answer.message ?? '', why)
        assert.match(answer.message ?? '', /; the old files are back and loaded again$/u)
        assert.deepEqual(host.snapshot(), files)
        assert.ok(statSync(join(host.key, '.lematt', 'said')).size < 100_000)
      }
    })

    test('much output, but not too much, is no failure; what keeps on holding it is not waited for', async () => {
      host.configure('reloadtimeout 10', `reload loud ${host.script('loud', `head -c 30000 /dev/zero | tr '\\0' '\\n'
sleep 60 & echo $! >${host.base}/stays`)}`)
      const begun = performance.now()
      try {
        assert.deepEqual((await host.deliver(old, 'loud')).answer, { ok: true, files: 2, reloaded: ['loud'] })
        assert.ok(performance.now() - begun < 9000)
      } finally {
        process.kill(Number(readFileSync(join(host.base, 'stays'), 'utf8')))
      }
    })

    test('new files and the journal are on the disk before the first is in its place', async () => {
      const real = flavour === 'dash' ? '/usr/bin' : `${host.base}/bin`
      const log = join(host.base, 'order')
      const [command = '', ...args] = withTools('ordered', {
        sync: `#!/bin/dash\necho "sync $*" >>${log}\n/bin/cat ${host.key}/.lematt/journal >>${log}\nexec ${real}/sync "$@"\n`,
        mv: `#!/bin/dash\necho mv >>${log}\nexec ${real}/mv "$@"\n`,
      })
      const deliver = (entries: readonly Entry[]) =>
        run(command, args, { input: stream(entries), env: { SSH_ORIGINAL_COMMAND: 'deliver' } })
      assert.equal((await deliver([...old, keylink('c.example-key.x.pem', old[1].file)])).stdout, '{"ok":true,"files":3,"reloaded":[]}\n')
      const [synced = '', ...rest] = readFileSync(log, 'utf8').trimEnd().split('\n')
      assert.deepEqual(synced.split(' ').slice(1), [join(host.cert, '.lematt/new', old[0].file),
        join(host.key, '.lematt/new', old[1].file), join(host.key, '.lematt/journal')])
      assert.deepEqual(rest.slice(-3), ['end', 'mv', 'mv'])
      // A disk that says no: nothing has been touched.
      writeFileSync(join(host.base, 'ordered', 'sync'), '#!/bin/dash\necho "sync: Input/output error" >&2\nexit 1\n', { mode: 0o755 })
      const files = host.snapshot()
      const failed = JSON.parse((await deliver(renewed)).stdout) as { step: string, message: string, restored: boolean }
      assert.deepEqual([failed.step, failed.restored], ['place', true])
      assert.match(failed.message, /sync: sync: Input\/output error/u)
      assert.deepEqual(host.snapshot(), files)
    })

    test('values of the client that look like names unset nothing of ours', async () => {
      const show = host.script('show', `env >${host.base}/environment`)
      host.configure(`reload x ${show}`)
      const names = ['asked', 'client', 'config', 'NL', 'name', 'line', 'blanks', 'locked', 'because', 'tried', 'fresh', 'split', 'verb']
      const env = { ...Object.fromEntries(names.map((name) => [name, 'theirs'])),
        EVIL: ['a', ...names.flatMap((name) => [`${name}='x'`, `export ${name}='x'`]), 'PATH=/tmp', 'export IFS=', 'LC_ALL='].join('\n') }
      assert.deepEqual(await host.ask('deliver x', stream(old), env), { code: 0, answer: { ok: true, files: 2, reloaded: ['x'] } })
      assert.equal((await host.ask('status', '', env)).code, 0)
      assert.doesNotMatch(readFileSync(join(host.base, 'environment'), 'utf8'), /theirs|^EVIL/mu)
    })

    test('a socket, fifo, directory, file or link where our own things go is named, and left alone', async () => {
      const plant = async (kind: string, path: string): Promise<() => void> => {
        if (kind === 'directory') mkdirSync(path)
        else if (kind === 'file') writeFileSync(path, 'x')
        else if (kind === 'link') symlinkSync(join(host.base, 'outside'), path)
        else if (kind === 'fifo') await run('mkfifo', [path])
        else {
          const server = createServer()
          await new Promise<void>((resolve) => server.listen(path, resolve))
          return () => server.close()
        }
        return () => undefined
      }
      mkdirSync(join(host.base, 'outside'))
      const own = (kinds: string, ...paths: string[]) => paths.flatMap((path) => kinds.split(' ').map((kind) => [kind, path] as const))
      for (const [kind, path] of [...own('socket fifo file link', 'key/.lematt', 'cert/.lematt', 'key/.lematt/new'),
        ...own('socket fifo directory link', 'key/.lematt/lock', 'key/.lematt/said', 'key/.lematt/plan', 'key/.lematt/journal'),
        ...own('socket fifo directory', `key/${old[1].file}`)]) {
        host.remove()
        host = makeHost(flavour)
        mkdirSync(join(host.base, 'outside'))
        if (path.includes('.lematt/')) mkdirSync(join(host.key, '.lematt'))
        const planted = join(host.base, path)
        const clear = await plant(kind, planted)
        try {
          const before = lstatSync(planted)
          const { code, answer } = await host.deliver(old)
          assert.deepEqual([code, answer.step], [2, 'refused'], `${kind} at ${path}: ${JSON.stringify(answer)}`)
          assert.match(answer.message ?? '', /is in the way, .*; root should see what it is, and remove it$/u)
          assert.ok(answer.message?.includes(planted))
          assert.deepEqual([lstatSync(planted).ino, lstatSync(planted).mode], [before.ino, before.mode])
          assert.deepEqual([existsSync(join(host.cert, old[0].file)), existsSync(join(host.base, 'outside', 'new'))], [false, false])
        } finally {
          clear()
        }
        rmSync(planted, { recursive: true, force: true })
        assert.equal((await host.deliver(old)).code, 0)
      }
    })
  })
}

test('every tool of which the receiver says that it needs it, and no other but openssl and logger, is used', { skip }, () => {
  const said = /^# Needs sh \(dash, busybox\) and ([a-z0-9 \n#]+),/mu.exec(readFileSync(receiverPath, 'utf8'))?.[1] ?? ''
  assert.deepEqual([...said.split(/[\s#]+/u), 'sh'].sort(), [...tools].sort())
})
