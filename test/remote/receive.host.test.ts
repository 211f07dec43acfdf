/** lematt-receive behind the real sshd, with the real sudo, and with a client that stands still. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { chmodSync, chownSync, copyFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, test } from 'node:test'
import { flavours, makeHost, pair, receiverPath, stream, type Answer, type Host } from '../helpers/receiver.js'
import { run } from '../helpers/run.js'
import { sshdMissing, startSshd } from '../helpers/sshd.js'
import { until } from '../helpers/until.js'

const root = process.getuid?.() === 0
const skip = root ? false : 'needs root, to whom receive.conf belongs'
const [old, renewed] = [pair('a.example'), pair('a.example')]

// A mount namespace stands for the host: sudo reads our sudoers and knows certmaint there.
const namespace = `set -e
for f in passwd group shadow; do cp "/etc/$f" "$BASE/$f"; done
echo 'certmaint:x:64999:64999::/nonexistent:/bin/sh' >>"$BASE/passwd"
echo 'certmaint:x:64999:' >>"$BASE/group"
echo 'certmaint:*:19000:0:99999:7:::' >>"$BASE/shadow"
for f in sudoers passwd group shadow; do mount --bind "$BASE/$f" "/etc/$f"; done
exec setpriv --reuid 64999 --regid 64999 --clear-groups "$@"
`
const sudoMissing = root && ['/usr/bin/sudo', '/usr/bin/setpriv', '/usr/bin/unshare'].every((file) => existsSync(file))
  && (await run('unshare', ['-m', 'true'])).code === 0 ? false : 'needs root, mount namespaces, sudo'

/** Gone, or waiting for an init that collects it. */
const ended = (pid: number): boolean =>
  !existsSync(`/proc/${pid}/stat`) || readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ')

for (const flavour of flavours) {
  describe(`lematt-receive on a host (${flavour})`, { skip }, () => {
    let host: Host
    beforeEach(() => { host = makeHost(flavour) })
    afterEach(() => host.remove())

    for (const stubborn of [false, true]) test(`a reload by sudo that hangs ${stubborn ? 'and heeds no TERM: we go on, TIMEOUT= ends it'
      : 'is ended by the TERM that sudo passes on'}`, { skip: sudoMissing }, async () => {
      const hang = host.script('hang', `
if grep -q '${old[1].text.split('\n')[1] ?? ''}' ${host.key}/${old[1].file}; then id -u >${host.base}/reloaded-as; exit 0; fi
echo $$ >${host.base}/pid; ${stubborn ? "trap '' TERM HUP; " : ''}exec sleep 600`)
      writeFileSync(join(host.base, 'sudoers'), `certmaint ALL=(root) TIMEOUT=3 NOPASSWD: ${hang} now\n`, { mode: 0o440 })
      host.configure('reloadtimeout 1', `reload hang /usr/bin/sudo -n ${hang} now`, `reload other /usr/bin/sudo -n ${hang} later`)
      chmodSync(host.base, 0o755)
      for (const directory of [host.cert, host.key]) chownSync(directory, 64999, 64999)
      const ask = async (services: string, entries: typeof old): Promise<Answer> => {
        const ran = await run('unshare', ['-m', 'sh', '-c', namespace, 'sh', ...host.command],
          { input: stream(entries), env: { PATH: process.env.PATH, BASE: host.base, SSH_ORIGINAL_COMMAND: `deliver ${services}` } })
        assert.equal(ran.stderr, '')
        return JSON.parse(ran.stdout) as Answer
      }
      assert.deepEqual(await ask('hang', old), { ok: true, files: 2, reloaded: ['hang'] })
      assert.equal(readFileSync(join(host.base, 'reloaded-as'), 'utf8'), '0\n')
      const files = host.snapshot()
      const answer = await ask('hang', renewed)
      assert.deepEqual([answer.step, answer.restored], ['reload hang', true], JSON.stringify(answer))
      assert.match(answer.message ?? '', /^no end after 1 s \(\/usr\/bin\/sudo -n /u)
      assert.deepEqual(host.snapshot(), files)
      const pid = Number(readFileSync(join(host.base, 'pid'), 'utf8'))
      assert.equal(ended(pid), stubborn ? false : true) // we have answered while it runs
      await until(() => ended(pid))
      const forbidden = await ask('other', old)
      assert.deepEqual([forbidden.ok, forbidden.step], [false, 'reload other'])
      assert.match(forbidden.message ?? '', /exit status 1 .*sudo: /u)
    })

    test('a client that stands still is not waited for', async () => {
      host.configure('reloadtimeout 1')
      const [command = '', ...args] = host.command
      const child = spawn(command, args, { env: { SSH_ORIGINAL_COMMAND: 'deliver' }, stdio: ['pipe', 'pipe', 'inherit'] })
      let said = ''
      child.stdout.setEncoding('utf8').on('data', (text: string) => { said += text })
      const exit = new Promise((resolve) => child.once('close', resolve))
      child.stdin.on('error', () => undefined).write(stream(old).slice(0, 500))
      assert.equal(await exit, 1)
      child.stdin.destroy()
      assert.match(said, /"step":"input","message":"it ends in the middle; .*stood still for too long; deliver again"/u)
      assert.deepEqual(host.snapshot(), {})
    })

    test('through sshd and authorized_keys', { skip: sshdMissing() }, async () => {
      host.configure(`reload mark ${host.script('mark', `echo marked >>${host.base}/marks`)}`)
      const sshd = await startSshd({
        keys: { receive: `restrict,from="127.0.0.1",command="${host.command.join(' ')}"` }, config: 'AcceptEnv *',
        clientConfig: 'KexAlgorithms curve25519-sha256',
      })
      const ssh = async (command: readonly string[], input = '') =>
        run('ssh', ['-F', sshd.sshConfig, '-o', 'SetEnv=PATH=/tmp OPENSSL_CONF=/nonexistent IFS=e', 'receive', ...command], { input })
      try {
        const ran = await ssh(['deliver', 'mark'], stream(old))
        assert.deepEqual(ran, { code: 0, stdout: '{"ok":true,"files":2,"reloaded":["mark"]}\n', stderr: '' })
        assert.equal(readFileSync(join(host.base, 'marks'), 'utf8'), 'marked\n')
        const status = JSON.parse((await ssh(['status'])).stdout) as Answer
        assert.deepEqual([status.services, Object.keys(status.files as object).sort()], [['mark'], [old[0].file, old[1].file]])
        const files = host.snapshot()
        for (const command of [[], ['sh'], ['cat', join(host.key, old[1].file)], ['deliver', 'sshd'], ['-s', 'sftp'], ['scp', '-f', host.key]]) {
          const refused = await ssh(command.includes('-s') ? [] : command)
          assert.equal(refused.code, 2, command.join(' '))
          assert.match(refused.stdout, /^\{"ok":false,"step":"refused","message":"[ -~]+"\}\n$/u)
        }
        const copied = await run('scp', ['-F', sshd.sshConfig, `receive:${host.key}/${old[1].file}`, join(host.base, 'stolen')])
        assert.notEqual(copied.code, 0)
        assert.equal(existsSync(join(host.base, 'stolen')), false)
        assert.deepEqual(host.snapshot(), files)
      } finally {
        await sshd.stop()
      }
    })
  })
}

test('a refusal is logged by logger(1), with the address of the client and without control characters', { skip }, async () => {
  const host = makeHost('dash')
  try {
    const script = join(host.base, 'lematt-receive')
    copyFileSync(receiverPath, script)
    const logger = host.script('logger', `printf '%s\\n' "$@" >>${host.base}/log`)
    writeFileSync(script, readFileSync(script, 'utf8').replace(/^PATH=(.*)$/mu, `PATH=${host.base}:$1`))
    assert.ok(existsSync(logger))
    await run('/bin/dash', [script, host.config], { env: { SSH_ORIGINAL_COMMAND: 'sh \u001b[31m"x"', SSH_CLIENT: '192.0.2.9 1 22\nx' } })
    assert.equal(readFileSync(join(host.base, 'log'), 'utf8'), '-t\nlematt\n-p\nauth.warning\n--\n'
      + 'lematt-receive: refused: this key takes deliver, status and forward alone, not: sh ?[31m\\"x\\" (client 192.0.2.9 1 22??)\n')
  } finally {
    host.remove()
  }
})
