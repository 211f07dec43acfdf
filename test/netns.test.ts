// scripts/netns: what it gives a command, and that nothing survives it.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { test } from 'node:test'
import { Daemon, run } from './helpers/lab-process.js'
import { until } from './helpers/until.js'

const netns = new URL('../scripts/netns', import.meta.url).pathname
const trial = spawnSync(netns, ['true'], { encoding: 'utf8' })
const skip = trial.status === 77 ? trial.stderr.trim() : false

/** Whether a `sleep` of so many seconds runs anywhere; each test has a number of its own. */
const sleeps = async (seconds: string) => (await run('pgrep', ['-f', `^sleep ${seconds}$`])).code === 0
let tests = 0
const ownSeconds = () => `7${String(process.pid)}${String(++tests)}`

test('the command has lo, no other network, its own /run and TMPDIR, and its exit code counts', { skip }, async () => {
  const ran = await run(netns, ['sh', '-c', 'ip -br link; ls "$TMPDIR"; cat; echo x >/run/mine; exit 7'], { input: 'in' })
  assert.equal(ran.code, 7, ran.stderr)
  assert.match(ran.stdout, /^lo +UNKNOWN .*\nin$/)
  assert.equal((await run('ls', ['/run/mine'])).stdout, '')
})

test('what it leaves running ends with it', { skip }, async () => {
  const seconds = ownSeconds()
  const ran = await run(netns, ['sh', '-c', `setsid sleep ${seconds} >/dev/null & exit 3`])
  assert.equal(ran.code, 3)
  await until(async () => !(await sleeps(seconds)))
})

test('TERM, INT and HUP reach the command', { skip }, async () => {
  for (const [signal, code] of [['SIGTERM', 143], ['SIGINT', 130], ['SIGHUP', 129]] as const) {
    const seconds = ownSeconds()
    const daemon = new Daemon(netns, ['sleep', seconds])
    await until(() => sleeps(seconds))
    process.kill(daemon.pid, signal) // only the script itself, not its group
    assert.equal((await daemon.ended).code, code, signal)
    assert.equal(await sleeps(seconds), false)
  }
})

test('a command that handles TERM has its time and its say', { skip }, async () => {
  const daemon = new Daemon(netns, ['sh', '-c', 'trap "echo ending; exit 5" TERM; echo up; sleep 600 & wait'])
  await until(() => daemon.stdout === 'up\n')
  process.kill(daemon.pid, 'SIGTERM')
  const { code, stdout } = await daemon.ended
  assert.deepEqual({ code, stdout }, { code: 5, stdout: 'up\nending\n' })
})

test('kill -9 of the script ends a command that ignores everything else', { skip }, async () => {
  const seconds = ownSeconds()
  const daemon = new Daemon(netns, ['sh', '-c', `trap "" TERM INT HUP; sleep ${seconds}`])
  await until(() => sleeps(seconds))
  process.kill(daemon.pid, 'SIGKILL')
  await until(async () => !(await sleeps(seconds)))
})
