import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { lastLines, runCommand, startCommand, type CommandOptions } from '../../src/edge/shell.js'
import { until } from '../helpers/until.js'

const directory = mkdtempSync(join(tmpdir(), 'lematt-shell-'))
after(() => rmSync(directory, { recursive: true }))

const never = new AbortController().signal
const options = (more: Partial<CommandOptions> = {}): CommandOptions => ({ env: {}, cwd: directory, signal: never, ...more })
const run = (command: string, timeoutSeconds = 30, more: Partial<CommandOptions> = {}): ReturnType<typeof runCommand> =>
  runCommand(command, { ...options(more), timeoutSeconds })

let marks = 0
/** A value for the environment by which everything that a command starts is found. */
const newMark = (): string => `lematt-test-${process.pid}-${++marks}`

/** The processes, zombies aside, that carry the mark. */
function marked(mark: string): string[] {
  return readdirSync('/proc').filter(pid => {
    if (!/^\d+$/u.test(pid)) return false
    try {
      return readFileSync(`/proc/${pid}/environ`, 'latin1').includes(`MARK=${mark}\0`) && !/\) [ZX] /u.test(readFileSync(`/proc/${pid}/stat`, 'latin1'))
    } catch {
      return false // gone meanwhile
    }
  })
}
/** Empty when it is gone meanwhile. */
const cmdline = (pid: string): string => {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1')
  } catch {
    return ''
  }
}
/** The shell that supervises, and its watchdog: after our death they stay until KILL has been sent. */
const isOurs = (pid: string): boolean => {
  const command = cmdline(pid)
  return command === '' || command.includes('\0lematt\0') || command === 'sleep\x005\0'
}
const seconds = async (work: () => Promise<unknown>): Promise<number> => {
  const before = performance.now()
  await work()
  return (performance.now() - before) / 1000
}

// Most of these wait for the five seconds of grace: they do so together.
describe('shell commands', { concurrency: true }, () => {
  describe('how a command ended', { concurrency: true }, () => {
    test('well', async () => {
      assert.deepEqual(await run('echo out; echo err >&2'), { ok: true, how: 'exit status 0', output: 'out\nerr' })
    })

    test('with a status, a signal, not found, no directory', async () => {
      assert.deepEqual(await run('echo no; exit 3'), { ok: false, how: 'exit status 3', output: 'no' })
      assert.equal((await run('exit 255')).how, 'exit status 255')
      assert.equal((await run('kill -SEGV $$')).how, 'killed by SIGSEGV (exit status 139)')
      assert.equal((await run('kill -TERM $$')).how, 'killed by SIGTERM (exit status 143)')
      assert.equal((await run('kill -KILL $$')).how, 'killed by SIGKILL (exit status 137)')
      const unknown = await run('no-such-command --flag')
      assert.equal(unknown.how, 'exit status 127')
      assert.match(unknown.output, /no-such-command: not found/u)
      assert.match((await run('true', 5, { cwd: join(directory, 'gone') })).how, /^cannot be started: .*ENOENT/u)
    })

    test('a command that the kernel does not take is a result, not an exception', async () => {
      const result = await run(`: ${'x'.repeat(200_000)}`)
      assert.equal(result.ok, false)
      assert.match(result.how, /^cannot be started: .*E2BIG/u)
      const started = startCommand(`: ${'x'.repeat(200_000)}`, options())
      assert.equal((await started.result).ok, false)
      await started.end()
    })

    test('its environment is ours and what was added; its input is empty; the watchdog\'s pipe is not in it', async () => {
      const { output } = await run('echo "$LEMATT_MODE $HOME"; pwd; cat; if [ -e /proc/$$/fd/3 ]; then echo open; fi', 30, { env: { LEMATT_MODE: 'test' } })
      assert.equal(output, `test ${process.env['HOME'] ?? ''}\n${directory}`)
    })

    test('what it prints is cleaned, and only its end is kept of ten megabytes', async () => {
      assert.equal((await run("printf '\\033[31mred\\033[0m\\r\\n\\001two\\n'")).output, 'red\ntwo')
      const { ok, output } = await run("head -c 10000000 /dev/zero | tr '\\0' 'x'; echo; echo the end; exit 1")
      assert.equal(ok, false)
      assert.ok(output.endsWith('x\nthe end'))
      assert.ok(output.length <= 16_384)
      assert.equal(lastLines('a\nb\nc', 2), 'b\nc')
    })

    test('a process in the background that holds the pipe is not waited for, nor ended', async () => {
      const mark = newMark()
      const took = await seconds(async () => assert.deepEqual(await run('sleep 60 & echo done', 30, { env: { MARK: mark } }), { ok: true, how: 'exit status 0', output: 'done' }))
      assert.ok(took < 5, `${took} s`)
      const left = marked(mark)
      assert.equal(left.length, 1, 'a daemon that a step started goes on; shell and watchdog are gone')
      for (const pid of left) process.kill(Number(pid), 'SIGKILL')
    })
  })

  describe('the end by us', { concurrency: true }, () => {
    test('no end in time: TERM to the whole group', async () => {
      const mark = newMark()
      const took = await seconds(async () => {
        const result = await run('echo begun; sleep 60 & sleep 60', 2, { env: { MARK: mark } })
        assert.deepEqual(result, { ok: false, how: 'no end after 2 s (commandTimeout)', output: 'begun' })
      })
      assert.deepEqual(marked(mark), [])
      assert.ok(took < 6, `${took} s: nobody was waited for`)
    })

    test('TERM is ignored: KILL after five seconds, also for what is in the background', async () => {
      const mark = newMark()
      const took = await seconds(() => run("trap '' TERM; sleep 60 & sleep 60", 2, { env: { MARK: mark } }))
      assert.deepEqual(marked(mark), [])
      assert.ok(took >= 7 && took < 20, `${took} s`)
    })

    test('TERM is used to clean up', async () => {
      const mark = newMark()
      const file = join(directory, mark)
      await run(`trap 'echo cleaned > ${file}; exit 0' TERM; while :; do sleep 0.05; done`, 2, { env: { MARK: mark } })
      assert.equal(readFileSync(file, 'utf8'), 'cleaned\n')
      assert.deepEqual(marked(mark), [])
    })

    test('on abort, also one that came before; the result says it', async () => {
      const mark = newMark()
      const abort = new AbortController()
      const result = run('sleep 60', 30, { env: { MARK: mark }, signal: abort.signal })
      await until(() => marked(mark).length > 0)
      abort.abort()
      assert.deepEqual(await result, { ok: false, how: 'killed by SIGTERM (exit status 143)', output: 'Terminated' })
      assert.deepEqual(marked(mark), [])
      const late = await run('sleep 60; echo never', 30, { env: { MARK: mark }, signal: abort.signal })
      assert.equal(late.ok, false)
      assert.doesNotMatch(late.output, /never/u)
      assert.deepEqual(marked(mark), [])
    })

    test('a failed command leaves nothing of its group', async () => {
      const mark = newMark()
      assert.equal((await run('sleep 60 & exit 1', 30, { env: { MARK: mark } })).ok, false)
      assert.deepEqual(marked(mark), [])
    })
  })

  describe('prepared commands', { concurrency: true }, () => {
    test('have an input that stays open until their end, in a session of their own', async () => {
      const mark = newMark()
      const file = join(directory, mark)
      const started = startCommand(`ps -o sid= -p $$ > ${file}.new; mv ${file}.new ${file}; cat; echo the input ended`, options({ env: { MARK: mark } }))
      await until(() => existsSync(file))
      const session = Number(readFileSync(file, 'utf8'))
      assert.notEqual(session, Number(/\) \S+ \S+ \S+ (\S+)/u.exec(readFileSync('/proc/self/stat', 'latin1'))?.[1]))
      assert.ok(marked(mark).length > 0, 'it runs on')
      await started.end()
      assert.deepEqual(marked(mark), [])
      const result = await started.result
      assert.equal(result.ok, false)
      assert.doesNotMatch(result.output, /the input ended/u)
      await started.end() // once more does no harm
    })

    test('one that ends by itself says how, at once', async () => {
      const started = startCommand('echo cannot open port 80 >&2; exit 7', options())
      assert.deepEqual(await started.result, { ok: false, how: 'exit status 7', output: 'cannot open port 80' })
      await started.end()
    })

    test('one that goes on in the background: its result comes at once, its pipes and its group stay until end()', async () => {
      const mark = newMark()
      const file = join(directory, mark)
      const started = startCommand(`exec 5<&0; (cat <&5; touch ${file}-input; sleep 60) & (sleep 1; echo heard && touch ${file}; sleep 60) & exit 0`, options({ env: { MARK: mark } }))
      const took = await seconds(async () => assert.equal((await started.result).how, 'exit status 0'))
      assert.ok(took < 30, `${took} s`)
      await started.firstLine
      await until(() => existsSync(file), { what: 'it could print after its command had ended' })
      assert.ok(!existsSync(`${file}-input`), 'its input was closed')
      assert.ok(marked(mark).length >= 2)
      const ended = await seconds(() => started.end())
      assert.ok(ended < 4, `${ended} s: it took TERM`)
      assert.deepEqual(marked(mark), [])
    })

    test('nobody is signalled when the leader of the group is gone; the watchdog ends what is left', async t => {
      const mark = newMark()
      const started = startCommand('sleep 60 & echo begun; wait', options({ env: { MARK: mark } }))
      await started.firstLine
      const ours = marked(mark).filter(pid => cmdline(pid).includes('\0lematt\0'))
      const leader = Math.min(...ours.map(Number)) // the other is its watchdog
      process.kill(leader, 'SIGKILL')
      assert.equal((await started.result).how, 'killed by SIGKILL')
      const kill = t.mock.method(process, 'kill')
      await started.end()
      const signalled = kill.mock.calls.map(({ arguments: [pid] }) => pid)
      kill.mock.restore()
      assert.ok(!signalled.includes(leader) && !signalled.includes(-leader), 'a number that may be another\'s by now')
      await until(() => marked(mark).every(isOurs), { what: 'its commands are gone' })
      await until(() => marked(mark).length === 0)
    })

    test('end() ends also what a command left behind, and what ignores TERM', async () => {
      const mark = newMark()
      const started = startCommand("(trap '' TERM; sleep 60) & exit 0", options({ env: { MARK: mark } }))
      assert.equal((await started.result).ok, true)
      assert.ok(marked(mark).length > 0)
      await started.end()
      assert.deepEqual(marked(mark), [])
    })
  })

  describe('KILL comes after five seconds', { concurrency: true }, () => {
    /** A step that ignores TERM, in a lematt of its own, for which something is wrong; it has a second. */
    async function stubborn(program: string, args: readonly string[]): Promise<void> {
      const mark = newMark()
      const lematt = spawn(program, [...args, 'test/helpers/shellChild.ts', 'run', "trap '' TERM; while :; do sleep 0.2; done", '1'], { env: { ...process.env, MARK: mark }, stdio: ['ignore', 'pipe', 'inherit'] })
      lematt.stdout.setEncoding('utf8').resume()
      const gone = once(lematt, 'exit')
      try {
        const took = await seconds(async () => assert.equal((await gone)[0], 0))
        assert.ok(took > 5 && took < 15, `${took} s`)
        assert.deepEqual(marked(mark), [])
      } finally {
        for (const pid of marked(mark)) process.kill(Number(pid), 'SIGKILL')
      }
    }
    const node = ['--import', 'tsx']

    test('though the clock stands still', { timeout: 30_000 }, () =>
      stubborn(process.execPath, ['--import', 'data:text/javascript,Date.now = () => 0', ...node]))

    const unshare = spawnSync('unshare', ['--mount', 'mount', '-t', 'tmpfs', 'none', '/mnt']).status === 0
    test('though /proc cannot be read', { timeout: 30_000, skip: !unshare && 'no mount namespace is to be had' }, () =>
      stubborn('unshare', ['--mount', 'sh', '-c', 'mount -t tmpfs none /proc; exec "$@"', 'sh', process.execPath, ...node]))
  })

  describe('our own death by KILL', { concurrency: true }, () => {
    /** Kills a lematt in the middle of a command; gives the seconds until nothing of it is left, but for our shells perhaps. */
    async function killed(how: 'run' | 'start', command: string, but: (pid: string) => boolean = () => false): Promise<number> {
      const mark = newMark()
      const ready = join(directory, mark)
      const lematt = spawn(process.execPath, ['--import', 'tsx', 'test/helpers/shellChild.ts', how, command.replaceAll('READY', ready)], { env: { ...process.env, MARK: mark }, stdio: ['ignore', 'ignore', 'inherit'] })
      const gone = once(lematt, 'exit')
      await until(() => existsSync(ready))
      lematt.kill('SIGKILL')
      await gone
      assert.ok(marked(mark).length > 0, 'the command was running')
      try {
        const took = await seconds(() => until(() => marked(mark).every(but), { what: 'nothing is left' }))
        await until(() => marked(mark).length === 0, { what: 'our shells are gone too' })
        return took
      } finally {
        for (const pid of marked(mark)) process.kill(Number(pid), 'SIGKILL')
      }
    }

    for (const [how, command] of [['run', 'touch READY; sleep 60'], ['start', 'touch READY; sleep 60'], ['start', 'touch READY; sleep 60 & wait'], ['start', '(sleep 1; touch READY; sleep 60) & exit 0']] as const) {
      test(`ends at once what takes TERM: ${how} ${command}`, async () => {
        const took = await killed(how, command, isOurs)
        assert.ok(took < 4, `${took} s`)
      })
    }

    test('ends within seconds what ignores TERM', async () => {
      const took = await killed('run', "trap '' TERM; touch READY; while :; do sleep 1; done")
      assert.ok(took > 4, `${took} s`)
    })

    test('ends within seconds what ignores TERM in the background of a command that took it', async () => {
      const took = await killed('start', "(trap '' TERM; while :; do sleep 1; done) & trap 'exit 0' TERM; touch READY; wait")
      assert.ok(took > 4, `${took} s`)
    })
  })
})
