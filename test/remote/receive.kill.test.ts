/** lematt-receive killed at every step, two at once, and signals: always the old files or the new ones, whole. */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { spawn } from 'node:child_process'
import { describe, test } from 'node:test'
import { flavours, makeHost, pair, stream, tools, withPath, type Entry, type Flavour, type Host } from '../helpers/receiver.js'
import { run } from '../helpers/run.js'
import { until } from '../helpers/until.js'

const skip = process.getuid?.() === 0 ? false : 'needs root, to whom receive.conf belongs'
const link = (kind: 'certlink' | 'keylink', from: string, to: string): Entry =>
  ({ kind, file: from, target: to })

/** A host where a.example is old and will be new, b.example is new there, and a link turns from a to b. */
interface Scene { host: Host, entries: Entry[], old: Record<string, string>, fresh: Record<string, string> }

const [a, newA, b] = [pair('a.example'), pair('a.example'), pair('b.example')]
const linked = 'c.example-key.prime256v1.pem'

async function scene(flavour: Flavour): Promise<Scene> {
  const host = makeHost(flavour)
  // What a service has loaded: the digest of all that was there when it was reloaded.
  const load = host.script('load', `cat ${host.cert}/*.pem ${host.key}/*.pem | sha256sum >${host.base}/loaded`)
  host.configure(`reload one ${load}`, 'reload two /bin/true')
  const entries: Entry[] = [...newA, ...b, link('keylink', linked, b[1].file)]
  await host.deliver(entries, 'one')
  const fresh = host.snapshot()
  for (const file of [...b.map((entry) => join(entry.kind, entry.file)), join('key', linked)]) rmSync(join(host.base, file))
  await host.deliver([...a, link('keylink', linked, a[1].file)], 'one')
  return { host, entries, old: host.snapshot(), fresh }
}

/**
 * The receiver with tools that count how often each is used. The one in `kill` ("TOOL N") kills the receiver with
 * SIGKILL; then it does its work as `how` says, or does not.
 */
function trap(host: Host, flavour: Flavour): (kill: string, how: 'undone' | 'done', command: string, input: string) => Promise<string[]> {
  const shims = join(host.base, 'shims')
  const counts = join(host.base, 'counts')
  mkdirSync(shims)
  for (const tool of [...tools, 'openssl']) {
    const real = flavour === 'dash' ? `/usr/bin/${tool}` : `${host.base}/bin/${tool}`
    writeFileSync(join(shims, tool), `#!/bin/dash
echo >>${counts}/${tool}
read -r kill how </${host.base}/kill
n=0
while read -r _; do n=$((n + 1)); done <${counts}/${tool}
case $kill in ${tool},$n)
  read -r pid <${host.base}/pid
  kill -s KILL "$pid"
  [ "$how" = done ] || exit 1 ;;
esac
exec ${real} "$@"
`, { mode: 0o755 })
  }
  const script = join(host.base, 'trapped')
  withPath(script, shims)
  const shell = host.command.slice(0, -2).join(' ')
  return async (kill, how, command, input) => {
    rmSync(counts, { recursive: true, force: true })
    mkdirSync(counts)
    writeFileSync(join(host.base, 'kill'), `${kill.replace(' ', ',')} ${how}\n`)
    await run('/bin/dash', ['-c', `echo $$ >${host.base}/pid; exec ${shell} ${script} ${host.config}`],
      { input, env: { PATH: process.env.PATH, SSH_ORIGINAL_COMMAND: command } })
    return readdirSync(counts).flatMap((tool) =>
      Array.from({ length: statSync(join(counts, tool)).size }, (_, index) => `${tool} ${index + 1}`))
  }
}

const clean = (files: Record<string, string>): string[] => Object.keys(files).filter((file) => file.includes('.lematt'))

/** After the next call all files are the old ones or all the new ones, nothing is left, and the service has loaded them. */
async function whole({ host, old, fresh }: Scene, what: string): Promise<'old' | 'new'> {
  const { code } = await host.ask('status')
  assert.equal(code, 0, what)
  const now = host.snapshot()
  assert.deepEqual(clean(now), [], what)
  const became = JSON.stringify(now) === JSON.stringify(old) ? 'old' : 'new'
  assert.deepEqual(now, became === 'old' ? old : fresh, what)
  const files = await run('sh', ['-c', `cat ${host.cert}/*.pem ${host.key}/*.pem | sha256sum`])
  assert.equal(readFileSync(join(host.base, 'loaded'), 'utf8'), files.stdout, what)
  return became
}

for (const flavour of flavours) {
  describe(`lematt-receive, killed (${flavour})`, { skip, concurrency: 2 }, () => {
    for (const how of ['undone', 'done'] as const) {
      test(`at every step (the tool that runs then: ${how})`, async () => {
        let made = await scene(flavour)
        let killer = trap(made.host, flavour)
        const became: Record<string, string> = {}
        try {
          const steps = await killer('none 0', how, 'deliver one two', stream(made.entries))
          assert.equal(await whole(made, 'nobody killed'), 'new')
          assert.ok(steps.length >= 18, steps.join(', '))
          for (const step of steps) {
            if (JSON.stringify(made.host.snapshot()) !== JSON.stringify(made.old)) {
              made.host.remove()
              made = await scene(flavour)
              killer = trap(made.host, flavour)
            }
            await killer(step, how, 'deliver one two', stream(made.entries))
            became[step] = await whole(made, `killed at ${step}`)
          }
        } finally {
          made.host.remove()
        }
        // Only what has removed the journal is complete.
        const complete = Object.keys(became).filter((step) => became[step] === 'new')
        assert.deepEqual(complete, how === 'done' ? ['rm 1'] : [])
      })
    }

    test('and killed again while that is undone', async () => {
      const made = await scene(flavour)
      try {
        const killer = trap(made.host, flavour)
        const half = () => killer('mv 2', 'undone', 'deliver one two', stream(made.entries))
        await half()
        const mixed = made.host.snapshot()
        assert.ok(clean(mixed).length > 0)
        assert.notEqual(mixed['key/' + a[1].file], made.old['key/' + a[1].file]) // the keys were new, the rest was not
        assert.equal(mixed['cert/' + a[0].file], made.old['cert/' + a[0].file])
        const steps = await killer('none 0', 'done', 'status', '')
        for (const step of steps) {
          for (const how of ['undone', 'done'] as const) {
            await half()
            await killer(step, how, 'status', '')
            assert.equal(await whole(made, `killed at mv 2, then at ${step}`), 'old')
          }
        }
      } finally {
        made.host.remove()
      }
    })

    test('a delivery after one that was killed needs nothing more', async () => {
      const made = await scene(flavour)
      try {
        await trap(made.host, flavour)('mv 1', 'done', 'deliver one', stream(made.entries))
        const { answer } = await made.host.deliver(made.entries, 'one')
        assert.deepEqual(answer, { ok: true, files: 5, reloaded: ['one'] })
        assert.deepEqual(made.host.snapshot(), made.fresh)
      } finally {
        made.host.remove()
      }
    })

    test('two at once: one after the other, and no longer than locktimeout', async () => {
      const { host, entries, fresh } = await scene(flavour)
      try {
        const wait = host.script('wait', `: >${host.base}/waiting; read -r _ <${host.base}/go; :`)
        await run('mkfifo', [join(host.base, 'go')])
        host.configure(`reload slow ${wait}`)
        const first = host.deliver(entries, 'slow')
        await until(() => existsSync(join(host.base, 'waiting')))
        host.configure('reload fast /bin/true', 'reloadtimeout 1')
        const late = await host.deliver(a, 'fast')
        assert.deepEqual([late.code, late.answer.step], [1, 'lock'])
        assert.match(late.answer.message ?? '', /another delivery has been at work for 1 s/u)
        assert.deepEqual(Object.fromEntries(Object.entries(host.snapshot()).filter(([name]) => !name.includes('.lematt'))), fresh)
        host.configure(`reload slow ${wait}`, 'reload fast /bin/true', 'reloadtimeout 20')
        const second = host.deliver(a, 'fast')
        writeFileSync(join(host.base, 'go'), '\n')
        assert.deepEqual([(await first).code, (await second).code], [0, 0])
        // What a reload leaves running does not hold the lock.
        const stay = host.script('stay', `exec </dev/null >/dev/null 2>&1; sleep 30 & echo $! >${host.base}/stays`)
        host.configure(`reload stay ${stay}`, 'reloadtimeout 1')
        try {
          assert.equal((await host.deliver(entries, 'stay')).code, 0)
          assert.equal((await host.deliver(entries)).code, 0)
        } finally {
          process.kill(Number(readFileSync(join(host.base, 'stays'), 'utf8')))
        }
      } finally {
        host.remove()
      }
    })

    test('HUP, TERM, INT and a client that is gone do not stop a delivery that has begun', async () => {
      const { host, entries, old, fresh } = await scene(flavour)
      try {
        const wait = host.script('wait', `: >${host.base}/waiting; read -r code <${host.base}/go; exit $code`)
        await run('mkfifo', [join(host.base, 'go')])
        for (const code of [1, 0]) {
          host.configure(`reload slow ${wait}`)
          rmSync(join(host.base, 'waiting'), { force: true })
          const [command = '', ...args] = host.command
          const child = spawn(command, args, { env: { SSH_ORIGINAL_COMMAND: 'deliver slow' }, stdio: ['pipe', 'pipe', 'ignore'] })
          const ended = new Promise((resolve) => child.once('exit', resolve))
          child.stdin.end(stream(entries))
          await until(() => existsSync(join(host.base, 'waiting')))
          child.stdout.destroy()
          for (const signal of ['SIGHUP', 'SIGTERM', 'SIGINT', 'SIGPIPE'] as const) child.kill(signal)
          // The reload that fails is tried once more with the old files.
          for (let times = code + 1; times > 0; times -= 1) await run('sh', ['-c', `echo ${code} >${host.base}/go`])
          await ended // with which code, nobody is there to hear
          assert.deepEqual(host.snapshot(), code === 1 ? old : fresh)
        }
      } finally {
        host.remove()
      }
    })
  })
}
