/** How hosts are shown while a run goes on: live lines on a terminal, lines on paper, records in the log. */
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import type { Report } from '../src/core/report.js'
import type { HostDelivery, HostOutcome } from '../src/core/types.js'
import { openLog } from '../src/edge/log.js'
import { lineOf, logListener, openShow, type ShowOptions } from '../src/show.js'
import { held, now, section } from './helpers/held.js'
import { screenOf } from './helpers/screen.js'
import { until } from './helpers/until.js'

const certificates = [held('mail.example')]
const to = (host: string): HostDelivery => ({
  section: section('mail', { hosts: [host] }), host, send: certificates, reload: ['postfix'], verify: [], certificates, reason: 'new',
})
const done = (host: string): HostOutcome => ({ status: 'done', delivery: to(host), done: { files: 2, reloaded: ['postfix'], verified: [] } })
const failed = (host: string): HostOutcome => ({
  status: 'failed', delivery: to(host), done: { files: 0, reloaded: [], verified: [] }, step: 'connect', message: 'no answer in 15 s\u001b[2J',
})
const report = (...hosts: HostOutcome[]): Report => ({
  mode: 'prod', started: now, ended: now, orders: [], hosts, deliveries: [], notes: [], warnings: [], failures: [],
})

const screen = (text: string): string[] => screenOf(text.replaceAll('\n', '\r\n')) // as the terminal's driver has it

/** A stream that keeps what is written to it, as a terminal of 100 columns or as paper. */
function stream(isTTY: boolean): { readonly out: NodeJS.WriteStream; readonly text: () => string } {
  let text = ''
  const out = { isTTY, columns: 100, rows: 24, write: (piece: string): boolean => (text += piece) !== '' }
  return { out: out as unknown as NodeJS.WriteStream, text: () => text }
}

const options: ShowOptions = { cron: false, json: false, verbose: false }

test('on a terminal each host has a live line, until its outcome or until all is well', async () => {
  const { out, text } = stream(true)
  const show = openShow(options, out, {})
  try {
    for (const host of ['mx1', 'mx2', 'mx3']) show.listen({ type: 'host', delivery: to(host), doing: 'connecting' })
    await until(() => screen(text()).length === 3)
    assert.deepEqual(screen(text()), ['[mail] mx1: connecting', '[mail] mx2: connecting', '[mail] mx3: connecting'])
    show.listen({ type: 'hosted', outcome: done('mx1') })
    show.listen({ type: 'well', delivery: to('mx3') })
    await until(() => screen(text()).length === 1)
    assert.deepEqual(screen(text()), ['[mail] mx2: connecting'], 'an outcome that is good waits for the table')
    show.listen({ type: 'hosted', outcome: failed('mx2') })
    await until(() => screen(text()).join().startsWith('failed'))
    assert.deepEqual(screen(text()), ['failed: [mail] mx2: connect: no answer in 15 s'], 'a failure is told at once, cleaned')
    show.end(report(done('mx1'), failed('mx2')))
    assert.deepEqual(screen(text()).slice(1), [
      'delivered  [mail] mx1    2 files, postfix reloaded (new)', 'failed     [mail] mx2    connect: no answer in 15 s', '1 delivered, 1 failed (prod, 0.0 s)',
    ])
  } finally {
    show.close()
  }
})

test('on paper a line per outcome; what is being done only with --verbose', () => {
  for (const verbose of [false, true]) {
    const { out, text } = stream(false)
    const show = openShow({ ...options, verbose }, out, {})
    show.listen({ type: 'host', delivery: to('mx1'), doing: 'sends' })
    show.listen({ type: 'well', delivery: to('mx2') })
    show.listen({ type: 'hosted', outcome: done('mx1') })
    show.end(report(done('mx1')))
    assert.deepEqual(text().trimEnd().split('\n'), [
      ...verbose ? ['[mail] mx1: sends', '[mail] mx2: nothing is lacking'] : [],
      'delivered: [mail] mx1: 2 files, postfix reloaded (new)', '1 delivered (prod, 0.0 s)',
    ])
  }
})

test('with --cron nothing is said while hosts are well, and a host that failed is', () => {
  const quiet = stream(false)
  const first = openShow({ ...options, cron: true }, quiet.out, {})
  first.listen({ type: 'host', delivery: to('mx1'), doing: 'connecting' })
  first.listen({ type: 'well', delivery: to('mx1') })
  first.end(report())
  assert.equal(quiet.text(), '')
  const loud = stream(false)
  const second = openShow({ ...options, cron: true }, loud.out, {})
  second.listen({ type: 'hosted', outcome: failed('mx1') })
  assert.equal(loud.text(), '', 'nothing before the end')
  second.end(report(failed('mx1')))
  assert.equal(loud.text(), 'failed: [mail] mx1: connect: no answer in 15 s\n1 failed (prod, 0.0 s)\n')
})

test('with --json the document has the hosts, and nothing else is printed', () => {
  const { out, text } = stream(false)
  const show = openShow({ ...options, json: true }, out, {})
  show.listen({ type: 'hosted', outcome: done('mx1') })
  assert.equal(text(), '')
  show.end(report(done('mx1')))
  const { hosts, exitCode } = JSON.parse(text()) as { hosts: { host: string; files: number }[]; exitCode: number }
  assert.deepEqual([hosts.map(h => [h.host, h.files]), exitCode], [[['mx1', 2]], 0])
})

test('the log has a record per outcome of a host, with its fields', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'lematt-show-'))
  try {
    const path = join(directory, 'log')
    const log = await openLog(path)
    const listen = logListener(log)
    listen({ type: 'host', delivery: to('mx1'), doing: 'sends' })
    listen({ type: 'well', delivery: to('mx3') })
    listen({ type: 'hosted', outcome: done('mx1') })
    listen({ type: 'hosted', outcome: failed('mx2') })
    listen({ type: 'hosted', outcome: { status: 'parked', delivery: to('mx4'), message: 'interrupted' } })
    assert.equal(await log.close(), undefined)
    const records = readFileSync(path, 'utf8').trimEnd().split('\n').map(line => JSON.parse(line) as Record<string, unknown>)
    const of = { event: 'host', section: 'mail', reason: 'new' }
    assert.deepEqual(records.map(({ level, time, pid, msg, ...fields }) => ({ ...fields, known: [level, typeof time, typeof pid, typeof msg].join() })), [
      { ...of, host: 'mx1', status: 'done', files: 2, reloaded: ['postfix'], verified: [] },
      { ...of, host: 'mx2', status: 'failed', files: 0, reloaded: [], verified: [], step: 'connect' },
      { ...of, host: 'mx4', status: 'parked' },
    ].map(record => ({ ...record, known: '30,string,number,string' })))
    assert.equal(records[0]?.['msg'], lineOf({ type: 'hosted', outcome: done('mx1') }, true))
  } finally {
    rmSync(directory, { recursive: true })
  }
})
