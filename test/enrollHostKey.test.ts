/** The host key at enrolment (spec §8): exactly the one key that was compared is pinned, whoever answers the other connections. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer, type AddressInfo, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, beforeEach, describe, test } from 'node:test'
import { loadConfiguration } from '../src/edge/configFiles.js'
import { enroll } from '../src/enroll.js'
import { parseEnroll } from '../src/enrollArgs.js'
import { sshdMissing, startSshd, type Sshd } from './helpers/sshd.js'
import { contents } from './helpers/witness.js'

const packageRoot = new URL('..', import.meta.url).pathname
const types = ['ecdsa', 'rsa'] as const

describe('the host key at enrolment', { skip: sshdMissing() }, () => {
  const dir = mkdtempSync(join(tmpdir(), 'lematt-hostkey-'))
  let real: Sshd
  let other: Sshd
  let between: Server
  /** Connections through the man in the middle. */
  let passed: number
  /** Which of them he passes on to the real host; he answers the others himself. */
  let honest: (connection: number) => boolean
  let conf: string
  const at = (name: string): string => join(conf, 'ssh', name)

  /** sshd with a key of each type; ed25519 is that of the helper. */
  async function sshdWithKeys(name: string): Promise<Sshd> {
    const keys = types.map(type => join(dir, `${name}_${type}`))
    for (const [i, type] of types.entries()) execFileSync('ssh-keygen', ['-q', '-t', type, '-N', '', '-f', keys[i] ?? ''])
    return startSshd({ keys: {}, config: keys.map(key => `HostKey ${key}`).join('\n') })
  }
  const keyFile = (name: string, sshd: Sshd, type: string): string => (type === 'ed25519' ? join(sshd.directory, 'host_key') : join(dir, `${name}_${type}`))
  const publicKey = (name: string, sshd: Sshd, type: string): string => readFileSync(`${keyFile(name, sshd, type)}.pub`, 'utf8').split(' ').slice(0, 2).join(' ')
  const fingerprint = (file: string): string => execFileSync('ssh-keygen', ['-lf', file], { encoding: 'utf8' }).split(' ')[1] ?? ''

  before(async () => {
    [real, other] = await Promise.all([sshdWithKeys('real'), sshdWithKeys('other')])
    between = createServer(socket => {
      passed++
      const far = connect((honest(passed) ? real : other).port, '127.0.0.1')
      for (const end of [socket, far]) end.on('error', () => undefined)
      socket.pipe(far).pipe(socket)
    })
    await new Promise<void>(resolve => between.listen(0, '127.0.0.1', resolve))
  })
  after(async () => {
    between.close()
    await Promise.all([real.stop(), other.stop()])
    rmSync(dir, { recursive: true, force: true })
  })
  beforeEach(() => {
    passed = 0
    honest = () => true
    conf = mkdtempSync(join(dir, 'conf-'))
    mkdirSync(at(''))
    for (const name of ['challenges', 'prod/cert', 'prod/key']) mkdirSync(join(conf, name), { recursive: true })
    writeFileSync(join(conf, 'lematt.conf'), `[config]\nchallengeDropDir: ${conf}/challenges\naccountKey: ${conf}/account.key\nsshConfig: ${at('config')}\n`)
    writeFileSync(join(conf, 'domains'), 'mail.example.com\n')
    writeFileSync(join(conf, 'actions.conf'), '[default]\n')
    writeFileSync(at('config'), `Host *\n  UserKnownHostsFile ${at('known_hosts')}\n  GlobalKnownHostsFile /dev/null\n  ConnectTimeout 5\n`, { mode: 0o600 })
  })

  async function enrol(words: readonly string[], ask?: () => Promise<boolean>): Promise<string> {
    const said: string[] = []
    const { port } = between.address() as AddressInfo
    const { request } = parseEnroll(['mx1', '--hostname', '127.0.0.1', '--port', String(port), '--from', '127.0.0.1', ...words])
    assert.ok(request !== undefined)
    await enroll({
      request, configuration: await loadConfiguration(conf, packageRoot), packageRoot, environment: {}, signal: AbortSignal.timeout(20_000),
      say: line => { said.push(line) }, ...ask === undefined ? {} : { ask },
    })
    return said.join('\n')
  }
  const pinned = (): string[] => readFileSync(at('known_hosts'), 'utf8').trimEnd().split('\n').map(line => line.slice(line.indexOf(' ') + 1))
  const yes = (): Promise<boolean> => Promise.resolve(true)

  for (const [what, words, ask] of [['compared by the operator', [], yes], ['--yes', ['--yes'], undefined]] as const) {
    test(`${what}: the key that was shown, and no other that somebody in between has to offer`, async () => {
      honest = connection => connection === 1
      const said = await enrol(words, ask)
      assert.deepEqual(pinned(), [publicKey('real', real, 'ed25519')])
      assert.ok(passed > 1, 'he had no opportunity')
      for (const type of types) assert.ok(!said.includes(fingerprint(keyFile('other', other, type))), `${type} of somebody else was shown`)
      if (ask !== undefined) assert.match(said, /ssh-keygen -lf \/etc\/ssh\/ssh_host_ed25519_key\.pub/u)
    })
  }

  test('--fingerprint of another type pins that key; the others are not taken with it', async () => {
    honest = connection => connection === 2
    await enrol(['--fingerprint', fingerprint(keyFile('real', real, 'ecdsa'))])
    assert.deepEqual(pinned(), [publicKey('real', real, 'ecdsa')])
  })

  test('the host goes on to be known by the one key', async () => {
    await enrol([], yes)
    const was = contents(conf)
    assert.match(await enrol([]), /^host key of mx1: known$/mu)
    assert.deepEqual(contents(conf), was)
  })

  test('a host without an ed25519 key: the hint names the file of the key that is shown', async () => {
    execFileSync('ssh-keygen', ['-q', '-t', 'ecdsa', '-N', '', '-f', join(dir, 'alone')])
    const plain = await startSshd({ keys: {}, config: `HostKey ${join(dir, 'alone')}\nHostKeyAlgorithms ecdsa-sha2-nistp256` })
    try {
      const said = await enrol(['--port', String(plain.port)], yes)
      assert.match(said, /ecdsa-sha2-nistp256 SHA256:[^\n]*\ncompare it with what ssh-keygen -lf \/etc\/ssh\/ssh_host_ecdsa_key\.pub prints/u)
      assert.deepEqual(pinned(), [readFileSync(join(dir, 'alone.pub'), 'utf8').split(' ').slice(0, 2).join(' ')])
    } finally {
      await plain.stop()
    }
  })
})
