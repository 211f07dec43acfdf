/** lematt-receive when a reload fails or hangs, the disk is full, or a directory is not ours: what was there is back. */
import assert from 'node:assert/strict'
import { chmodSync, chownSync, existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { connect } from 'node:tls'
import { afterEach, beforeEach, describe, test } from 'node:test'
import { createHash, X509Certificate } from 'node:crypto'
import { spawn } from 'node:child_process'
import { flavours, makeHost, pair, stream, type Entry, type Host } from '../helpers/receiver.js'
import { run } from '../helpers/run.js'
import { freePort } from '../helpers/sshd.js'
import { until } from '../helpers/until.js'

const skip = process.getuid?.() === 0 ? false : 'needs root, to whom receive.conf belongs'
const old = pair('a.example')
const renewed = pair('a.example')
const other = pair('b.example')
const links = (target: typeof old): Entry[] => [
  { kind: 'certlink', file: 'c.example-cert-combined.prime256v1.pem', target: target[0].file },
  { kind: 'keylink', file: 'c.example-key.prime256v1.pem', target: target[1].file }]

/** The fingerprint of the certificate that a TLS server on loopback shows; undefined while there is none. */
function shown(port: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false }, () => {
      resolve(createHash('sha256').update(socket.getPeerCertificate().raw).digest('hex'))
      socket.destroy()
    }).on('error', () => resolve(undefined))
  })
}
const fingerprint = (pem: string): string => createHash('sha256').update(new X509Certificate(pem).raw).digest('hex')

for (const flavour of flavours) {
  describe(`lematt-receive, when something fails (${flavour})`, { skip }, () => {
    let host: Host
    beforeEach(() => { host = makeHost(flavour) })
    afterEach(() => host.remove())
    const reloaded = () => {
      const log = join(host.base, 'log')
      const text = existsSync(log) ? readFileSync(log, 'utf8') : ''
      rmSync(log, { force: true })
      return text.trimEnd()
    }
    /** A reload that says its name and what it finds: the old files or the new. It fails with the new when told so. */
    const service = (name: string, fails: boolean) => `reload ${name} ${host.script(name, `
grep -q '${renewed[1].text.split('\n')[1] ?? ''}' ${host.key}/${old[1].file} && what=new || what=old
echo ${name} $what >>${host.base}/log
if [ $what = new ] && ${fails}; then printf 'it broke \\033[31m\\a"here"\\nat \\\\ last\\n' >&2; exit 3; fi`)}`

    test('a reload fails: old files, modes, owners and links are back, new ones gone, loaded again', async () => {
      host.configure(service('one', false), service('two', true), service('three', false))
      assert.equal((await host.deliver([...old, ...links(old)], 'one two three')).code, 0)
      assert.equal(reloaded(), 'one old\ntwo old\nthree old')
      chmodSync(join(host.key, old[1].file), 0o604)
      chownSync(join(host.key, old[1].file), 65534, 65534)
      const files = host.snapshot()
      const { code, answer } = await host.deliver([...renewed, ...other, ...links(other)], 'one two three')
      assert.deepEqual([code, answer.ok, answer.step, answer.restored], [1, false, 'reload two', true])
      assert.match(answer.message ?? '', /^exit status 3 \(\/.*two\): it broke \?\[31m\?"here" at \\ last; the old files are back and loaded/u)
      assert.deepEqual(host.snapshot(), files)
      assert.equal(reloaded(), 'one new\ntwo new\none old\ntwo old')
      // Nothing of it is in the way of the next one.
      host.configure(service('one', false), service('two', false))
      assert.equal((await host.deliver([...renewed, ...other, ...links(other)], 'one two')).code, 0)
      assert.equal(reloaded(), 'one new\ntwo new')
    })

    test('a service that fails with the old files as well is not called restored', async () => {
      host.configure('reload dead /bin/false')
      await host.deliver(old)
      const files = host.snapshot()
      const { code, answer } = await host.deliver(renewed, 'dead')
      assert.deepEqual([code, answer.step, answer.restored], [1, 'reload dead', false])
      assert.match(answer.message ?? '', /^exit status 1 \(\/bin\/false\); the old files are back, but with them these failed to reload: dead \(as before\); reload by hand$/u)
      assert.deepEqual(host.snapshot(), files)
      const missing = await host.ask('deliver dead', stream([]))
      assert.deepEqual([missing.code, missing.answer.step, missing.answer.restored], [1, 'reload dead', true])
      host.configure('reload gone /nonexistent/command x')
      const gone = await host.deliver(renewed, 'gone')
      assert.match(gone.answer.message ?? '', /exit status 127 \(\/nonexistent\/command x\)/u)
      assert.deepEqual(host.snapshot(), files)
    })

    test('a reload that hangs is ended after reloadtimeout, and undone', async () => {
      host.configure('reloadtimeout 1', `reload hang ${host.script('hang', `
grep -q '${renewed[1].text.split('\n')[1] ?? ''}' ${host.key}/${old[1].file} || exit 0
trap '' TERM
echo $$ >${host.base}/pid; while :; do read -r _ <${host.base}/never; done`)}`)
      await run('mkfifo', [join(host.base, 'never')])
      await host.deliver(old, 'hang')
      const files = host.snapshot()
      const { code, answer } = await host.deliver(renewed, 'hang')
      assert.deepEqual([code, answer.step, answer.restored], [1, 'reload hang', true])
      assert.match(answer.message ?? '', /^no end after 1 s \(/u)
      assert.deepEqual(host.snapshot(), files)
      const pid = Number(readFileSync(join(host.base, 'pid'), 'utf8'))
      // Gone, or waiting for an init that collects it.
      const state = existsSync(`/proc/${pid}/stat`) ? readFileSync(`/proc/${pid}/stat`, 'utf8') : ') Z'
      assert.match(state, /\) Z/u)
    })

    test('the disk is full: nothing has changed, and the message says it', async () => {
      for (const full of ['key', 'cert'] as const) {
        rmSync(host.base, { recursive: true, force: true })
        host = makeHost(flavour)
        const mounted = await run('mount', ['-t', 'tmpfs', '-o', 'size=64k,mode=0750', 'tmpfs', host[full]])
        assert.equal(mounted.code, 0, mounted.stderr)
        try {
          host.configure('reload mark /bin/false')
          assert.equal((await host.deliver(old)).code, 0)
          const files = host.snapshot()
          // Fill it, but for less and less: each step of a delivery meets the full disk once.
          for (const spare of [0, 4096, 8192]) {
            const filler = join(host[full], 'filler')
            await run('dd', ['if=/dev/zero', `of=${filler}`, 'bs=4096'])
            const size = statSync(filler).size - spare
            await run('truncate', ['-s', String(size), filler])
            const many = Array.from({ length: 4 }, (_, i) => pairNamed(`a${i}.example`)).flat()
            const { code, answer } = await host.deliver([...renewed, ...many], 'mark')
            assert.deepEqual([code, answer.step, answer.restored], [1, 'place', true], JSON.stringify(answer))
            assert.match(answer.message ?? '', /cannot write new files in .*is the disk full\? nothing was changed; make room/u)
            rmSync(filler)
            assert.deepEqual(host.snapshot(), files)
          }
          host.configure()
          assert.equal((await host.deliver(renewed)).code, 0)
        } finally {
          await run('umount', [host[full]])
        }
      }
    })

    test('as another user: not ours to write, no such group, and files of somebody else', async () => {
      const [command = '', ...args] = host.command
      const asNobody = async (asked: string, input: string) => {
        const ran = await run('setpriv', ['--reuid=65534', '--regid=65534', '--clear-groups', command, ...args],
          { input, env: { SSH_ORIGINAL_COMMAND: asked }, cwd: '/' })
        assert.equal(ran.stderr, '')
        return JSON.parse(ran.stdout) as { ok: boolean, step: string, message: string, restored: boolean }
      }
      chmodSync(host.base, 0o755)
      for (const name of ['cert', 'key'] as const) chmodSync(host[name], 0o755)
      const foreign = await asNobody('deliver', stream(old))
      assert.deepEqual([foreign.ok, foreign.step], [false, 'place'])
      assert.match(foreign.message, /cannot write new files/u)
      assert.deepEqual(host.snapshot(), {})
      for (const name of ['cert', 'key'] as const) chownSync(host[name], 65534, 65534)
      host.configure('group root')
      const group = await asNobody('deliver', stream(old))
      assert.deepEqual([group.ok, group.step, group.restored], [false, 'place', true])
      assert.match(group.message, /cannot give the files to group root: .*; make the user of this key a member/u)
      assert.deepEqual(host.snapshot(), {})
      host.configure()
      assert.equal((await asNobody('deliver', stream(old))).ok, true)
      const files = host.snapshot()
      assert.match(files[`key/${old[1].file}`] ?? '', /^640 65534:65534 /u)
    })

    test('nginx still shows the old certificate after a failing reload, and the new one after a good one', {
      skip: existsSync('/usr/sbin/nginx') ? false : 'needs nginx',
    }, async () => {
      const port = await freePort()
      const config = join(host.base, 'nginx.conf')
      const site = (extra: string) => writeFileSync(config, `user root; worker_processes 1; pid ${host.base}/pid; error_log stderr;
events { } http { access_log off; client_body_temp_path ${host.base}/t; proxy_temp_path ${host.base}/t; fastcgi_temp_path ${host.base}/t;
uwsgi_temp_path ${host.base}/t; scgi_temp_path ${host.base}/t;
server { listen 127.0.0.1:${port} ssl; ssl_certificate ${host.cert}/${old[0].file}; ssl_certificate_key ${host.key}/${old[1].file}; ${extra} } }`)
      // As Debian's unit does: a check first, for "-s reload" is well even when the server then keeps its old files.
      const reload = host.script('reload', `/usr/sbin/nginx -t -q -c ${config} && /usr/sbin/nginx -s reload -c ${config}`)
      host.configure(`reload nginx ${reload}`)
      assert.equal((await host.deliver(old)).code, 0)
      site('')
      const server = spawn('/usr/sbin/nginx', ['-c', config, '-g', 'daemon off;'], { stdio: 'ignore' })
      try {
        await until(async () => await shown(port) === fingerprint(old[0].text))
        // What nginx itself refuses: a chain that openssl can read the first certificate of, and no more.
        const broken = { ...renewed[0], text: `${renewed[0].text}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n` }
        const { code, answer } = await host.deliver([broken, renewed[1]], 'nginx')
        assert.deepEqual([code, answer.step, answer.restored], [1, 'reload nginx', true], JSON.stringify(answer))
        assert.match(answer.message ?? '', /cannot load certificate/u)
        assert.equal(readFileSync(join(host.cert, old[0].file), 'utf8'), old[0].text)
        assert.equal(await shown(port), fingerprint(old[0].text))
        assert.equal((await host.deliver(renewed, 'nginx')).code, 0)
        await until(async () => await shown(port) === fingerprint(renewed[0].text))
      } finally {
        const ended = new Promise((resolve) => server.once('exit', resolve))
        server.kill('SIGTERM')
        await ended
      }
    })
  })
}

/** The new pair under another name, which saves making one. */
function pairNamed(name: string): Entry[] {
  return renewed.map((entry) => ({ ...entry, file: entry.file.replace('a.example', name) }))
}
