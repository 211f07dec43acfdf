/** What `prepare` commands say of themselves while they run: ready, failed; and that many names cost little. */
import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test, type TestContext } from 'node:test'
import type { Section, Subject } from '../src/core/types.js'
import { answerer } from '../src/edge/challenge.js'
import { openSsh } from '../src/edge/ssh.js'
import { preparations, type Preparations } from '../src/prepare.js'
import type { Progress } from '../src/progress.js'
import { configuration, section, subject } from './helpers/held.js'
import { until } from './helpers/until.js'
import { processesIn } from './helpers/witness.js'

const directory = mkdtempSync(join(tmpdir(), 'lematt-prepare-'))
after(() => {
  assert.deepEqual(processesIn(directory), [], 'a command is left')
  rmSync(directory, { recursive: true })
})

const signal = new AbortController().signal
const context = { mode: 'test', workingDirectory: directory, signal } as const
function prepare(t: TestContext, sections: readonly Section[], subjects: readonly Subject[], listen: (progress: Progress) => void = () => undefined): Preparations {
  // Nothing listens at the first port of any address here, and nobody has a key for us.
  writeFileSync(join(directory, 'ssh_config'), 'HostName 127.0.0.1\nPort 1\nIdentityAgent none\n')
  const ssh = openSsh({ signal, configFile: join(directory, 'ssh_config') })
  const prepared = preparations({ ...context, configuration: configuration(sections, { challengeUrl: 'http://central.example' }), ssh, answerer: answerer(), listen }, subjects)
  t.after(async () => {
    await prepared.close()
    await ssh.close()
  })
  return prepared
}
async function took(work: Promise<unknown>): Promise<number> {
  const start = performance.now()
  await work
  return performance.now() - start
}

describe('prepare commands', { concurrency: true, timeout: 60_000 }, () => {
  const a = subject('a.example')
  const b = subject('b.example')

  test('ready: when each has printed a line, has ended well, or has been silent for five seconds', async t => {
    const commands = {
      'line.example': `sleep 1; touch line; echo listening; exec sleep 60`,
      'error.example': 'sleep 1; touch error; echo warning >&2; exec sleep 60',
      'ended.example': 'sleep 1; touch ended',
      'silent.example': 'touch silent; exec sleep 60',
    }
    const subjects = Object.keys(commands).map(name => subject(name))
    const sections = Object.entries(commands).map(([name, command]) => section(name, { domains: [name], prepare: [command] }))
    const prepared = prepare(t, [section('default'), ...sections], subjects)
    await Promise.all(subjects.map(async each => {
      const [name] = each.identifiers
      prepared.start(each, name)
      const ms = await took(prepared.ready(each, name))
      const [word = ''] = name.split('.')
      assert.ok(existsSync(join(directory, word)), name)
      if (word === 'silent') assert.ok(ms > 4900 && ms < 10_000, `${ms} ms`)
      else assert.ok(ms > 900, `${name}: ${ms} ms`)
    }))
  })

  test('ready: at once where there is no command, and for the slowest of several', async t => {
    const prepared = prepare(t, [section('default', { prepare: ['sleep 1; echo slow; exec sleep 60', 'echo quick; exec sleep 60'] }), section('none', { domains: ['b.example'] })], [a, b])
    assert.ok(await took(prepared.ready(b, 'b.example')) < 500)
    assert.ok(await took(prepared.ready(a, 'a.example')) > 900)
  })

  test('a failure: ready rejects, though its message was a line; failure() says it for each subject that needs it, and for no other', async t => {
    const prepared = prepare(t, [section('default', { prepare: ['echo Permission denied; exit 255'] }), section('none', { domains: ['b.example'] })], [a, b])
    const { failed } = prepared.start(a, 'a.example')
    assert.equal(prepared.failure(a), undefined, 'it is still running')
    const message = /^prepare of \[default\] failed: echo Permission denied; exit 255: exit status 255\nPermission denied$/u
    await assert.rejects(prepared.ready(a, 'a.example'), { name: 'OperationalError', message })
    await assert.rejects(failed, { message })
    assert.match(prepared.failure(a) ?? '', message)
    assert.equal(prepared.failure(b), undefined)
  })

  test('failure() is about the names of all subjects that share a command, and not about what ended well', async t => {
    const shared = subject('c.example a2.example')
    const prepared = prepare(t, [section('default', { prepare: ['exit 3'] }), section('well', { domains: ['c.example'], prepare: ['true'] })], [a, shared])
    await prepared.ready(shared, 'c.example')
    assert.equal(prepared.failure(shared), undefined)
    await assert.rejects(prepared.ready(a, 'a.example'))
    assert.match(prepared.failure(shared) ?? '', /exit status 3/u)
  })

  test('one that goes on in the background runs until its last subject is done, and is started once', async t => {
    const command = 'echo started >> background; (trap "echo ended >> background; exit" TERM; while :; do sleep 0.05; done) & exit 0'
    const prepared = prepare(t, [section('default', { prepare: [command] })], [a, b])
    const read = (): string => readFileSync(join(directory, 'background'), 'utf8')
    await prepared.ready(a, 'a.example')
    prepared.done(a)
    await prepared.ready(b, 'b.example')
    assert.equal(read(), 'started\n')
    prepared.done(b)
    await until(() => read() === 'started\nended\n')
    await prepared.close()
  })
})

describe('forwards to hosts that do not answer', { concurrency: true, timeout: 60_000 }, () => {
  const a = subject('a.example')
  const b = subject('b.example')

  test('it has failed when each has; each is named, once; commands beside it go on; names of other sections are not concerned', async t => {
    const told: Progress[] = []
    const mail = section('mail', { domains: ['a.example'], hosts: ['mx1', 'mx2'], forward: 'redirect', prepare: ['echo listening; exec sleep 60'] })
    const prepared = prepare(t, [section('default'), mail], [a, b], progress => told.push(progress))
    const { failed } = prepared.start(a, 'a.example')
    const message = /^forward of \[mail\] failed: mx1: .+\nmx2: .+$/u
    await assert.rejects(failed, { name: 'OperationalError', message })
    await assert.rejects(prepared.ready(a, 'a.example'), { name: 'OperationalError', message })
    assert.match(prepared.failure(a) ?? '', message)
    assert.equal(prepared.failure(b), undefined)
    await prepared.ready(b, 'b.example')
    assert.deepEqual(told, [], 'what is told as a failure is no warning besides')
  })

  test('a section without hosts has nothing to forward; a tunnel and a redirect are two things', async t => {
    const prepared = prepare(t, [section('none', { domains: ['a.example'], forward: 'tunnel' }), section('both', { domains: ['b.example'], hosts: ['mx1'], forward: 'tunnel' })], [a, b])
    await prepared.ready(a, 'a.example')
    assert.equal(prepared.failure(a), undefined)
    await assert.rejects(prepared.ready(b, 'b.example'), { message: /^forward of \[both\] failed: mx1: /u })
  })

  test('who is done waits for no host', async t => {
    const prepared = prepare(t, [section('default', { hosts: ['mx1'], forward: 'redirect' })], [a])
    prepared.start(a, 'a.example')
    prepared.done(a)
    assert.ok(await took(prepared.close()) < 500)
  })
})

test('two hundred subjects of a hundred names, fifty overrides: the planning does not stop the program', t => {
  const subjects = Array.from({ length: 200 }, (_, s) => subject(Array.from({ length: 100 }, (__, k) => `n${k}.s${s}.example`).join(' ')))
  const overrides = Array.from({ length: 50 }, (_, m) => section(`o${m}`, {
    domains: subjects.filter((__, i) => i % 50 === m).flatMap(({ identifiers }) => identifiers.slice(0, 50)), prepare: [`ssh h${m}`],
  }))
  const start = performance.now()
  const prepared = prepare(t, [section('default', { prepare: ['open DOMAIN'], hosts: ['mx1', 'mx2'], forward: 'tunnel' }), ...overrides], subjects)
  for (const each of subjects) {
    assert.equal(prepared.failure(each), undefined)
    prepared.done(each)
  }
  const ms = performance.now() - start
  // What was measured before: 22 s.
  assert.ok(ms < 4000, `${ms} ms`)
})
