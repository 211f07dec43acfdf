/** What the operator reads of hosts: the plan, a line per outcome, the table, the last line, the exit code, JSON. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { exitCode, hostLine, isEventful, planJson, planText, reportJson, reportText, summary, type PlanReport, type Report } from '../../src/core/report.js'
import { parsePort } from '../../src/core/verifyWords.js'
import type { Delivery, HostDelivery, HostDone, HostOutcome, VerifyPort } from '../../src/core/types.js'
import { held, inDays, now, section } from '../helpers/held.js'

const ports = (...words: string[]): VerifyPort[] => words.map(word => {
  const port = parsePort(word)
  assert.ok(typeof port !== 'string', word)
  return port
})
const mail = section('mail', { hosts: ['mx1', 'mx2'], reload: ['postfix', 'dovecot'], verify: ports('993', '25/smtp') })
const both = [held('mail.example'), held('mail.example', { keyType: 'rsa' })]

const to = (host: string, changed: Partial<HostDelivery> = {}): HostDelivery => ({
  section: mail, host, send: both, reload: mail.reload, verify: mail.verify, certificates: both, reason: 'never delivered to this host', ...changed,
})
const all: HostDone = { files: 4, reloaded: ['postfix', 'dovecot'], verified: ['993', '25/smtp'] }
const nothing: HostDone = { files: 0, reloaded: [], verified: [] }
const done = (delivery: HostDelivery, did = all): HostOutcome => ({ status: 'done', delivery, done: did })
const parked = { why: 'failed twice: no route', until: inDays(1) }

const plan = (...hosts: HostDelivery[]): PlanReport => ({ mode: 'prod', now, orders: [], hosts, deliveries: [], warnings: [] })
const report = (...hosts: HostOutcome[]): Report => ({
  mode: 'prod', started: now, ended: new Date(now.getTime() + 1500), orders: [], hosts, deliveries: [], notes: [], warnings: [], failures: [],
})

test('the plan has a line per host, before the commands of sections', () => {
  const step: Delivery = { section: mail, steps: [{ kind: 'update', command: 'true', key: 'update true', certificates: both }], certificates: both, reason: 'new' }
  const shown = planText({
    ...plan(
      to('mx1'), to('mx2', { send: [], reason: 'added: dovecot' }), to('mx3', { send: [], reload: [], reason: 'added: 993' }),
      to('mx4', { reload: [], verify: [] }), to('mx5', { parked }),
    ), deliveries: [step],
  })
  assert.deepEqual(shown, [
    'nothing is due',
    'to be delivered:',
    '  [mail] mx1: 2 certificates, reload postfix dovecot, verify 993 25/smtp: never delivered to this host',
    '  [mail] mx2: reload postfix dovecot, verify 993 25/smtp: added: dovecot',
    '  [mail] mx3: verify 993 25/smtp: added: 993',
    '  [mail] mx4: 2 certificates: never delivered to this host',
    '  [mail] mx5: parked until 2026-11-21 03:30 UTC: failed twice: no route',
    '  [mail] deliver: new',
    '    update: true (2 certificates)',
  ])
  assert.deepEqual(planText(plan()), ['nothing is due', 'nothing is to be delivered'])
})

test('a line says what the host has got, what it reloaded and what its ports show', () => {
  const line = (delivery: HostDelivery, did: Partial<HostDone>): string => hostLine(done(delivery, { ...nothing, ...did }))
  assert.equal(hostLine(done(to('mx1'))),
    'delivered: [mail] mx1: 4 files, postfix and dovecot reloaded, 993 and 25/smtp show the new certificate (never delivered to this host)')
  assert.equal(line(to('mx1', { reason: 'r' }), { files: 1, reloaded: ['postfix'], verified: ['993'] }),
    'delivered: [mail] mx1: 1 file, postfix reloaded, 993 shows the new certificate (r)')
  assert.equal(line(to('mx1', { reason: 'r' }), { files: 2 }), 'delivered: [mail] mx1: 2 files (r)', 'what was not done is not told')
  assert.equal(line(to('mx1', { send: [], reason: 'added: c' }), { reloaded: ['a', 'b', 'c'], verified: ['993'] }),
    'delivered: [mail] mx1: a, b and c reloaded, 993 shows what it should (added: c)')
})

test('only looking is called so', () => {
  const look = to('mx1', { send: [], reload: [], reason: 'added: 993' })
  assert.equal(hostLine(done(look, { ...nothing, verified: ['993', '25/smtp'] })), 'verified: [mail] mx1: 993 and 25/smtp show what they should (added: 993)')
  assert.equal(hostLine(done(look, nothing)), 'verified: [mail] mx1: nothing was lacking (added: 993)')
  assert.match(summary(report(done(look), done(to('mx2')), done(to('mx3')))), /^2 delivered, 1 verified \(prod, 1\.5 s\)$/)
})

test('in test mode a port may show the old certificate, so no new one is claimed', () => {
  const inTest = both.map(h => ({ ...h, files: { ...h.files, certificate: h.files.certificate.replace('.pem', '.test.pem') } }))
  const line = hostLine(done(to('mx1', { send: inTest, certificates: inTest })))
  assert.match(line, /, 993 and 25\/smtp show what they should \(/)
  assert.doesNotMatch(line, /new certificate/)
})

test('what failed names the step; nothing of it reads as delivered', () => {
  const failed: HostOutcome = { status: 'failed', delivery: to('mx2'), done: nothing, step: 'connect', message: 'no answer\nin 15 s' }
  assert.equal(hostLine(failed), 'failed: [mail] mx2: connect: no answer\nin 15 s')
  const waits: HostOutcome = { status: 'parked', delivery: to('mx3', { parked }), message: 'until tomorrow' }
  assert.equal(hostLine(waits), 'parked: [mail] mx3: until tomorrow')
  const text = reportText(report(done(to('mx1')), failed, waits))
  assert.deepEqual(text, [
    'delivered  [mail] mx1    4 files, postfix and dovecot reloaded, 993 and 25/smtp show the new certificate (never delivered to this host)',
    'failed     [mail] mx2    connect: no answer',
    'parked     [mail] mx3    until tomorrow',
    '1 delivered, 1 failed, 1 parked (prod, 1.5 s)',
  ])
})

test('hosts count with the sections, in the last line, the exit code and what cron is told', () => {
  const failed: HostOutcome = { status: 'failed', delivery: to('mx2'), done: nothing, step: 'connect', message: 'm' }
  const waits: HostOutcome = { status: 'parked', delivery: to('mx3', { parked }), message: 'm' }
  const interrupted: HostOutcome = { status: 'parked', delivery: to('mx3'), message: 'interrupted' }
  const bySteps: Delivery = { section: mail, steps: [], certificates: both, reason: 'new' }
  const mixed: Report = { ...report(done(to('mx1')), done(to('mx2'))), deliveries: [{ status: 'done', delivery: bySteps, ran: [] }] }
  assert.equal(summary(mixed), '3 delivered (prod, 1.5 s)')
  const cases: [Report, 0 | 1, boolean][] = [
    [report(), 0, false], [report(done(to('mx1'))), 0, true], [report(failed), 1, true], [report(waits), 1, false],
    [report(interrupted), 1, true], [report(done(to('mx1')), waits), 1, true], [mixed, 0, true],
  ]
  for (const [each, code, eventful] of cases) assert.deepEqual([exitCode(each), isEventful(each)], [code, eventful], summary(each))
})

test('JSON has the same facts', () => {
  const certificates = both.map(h => ({ name: 'mail.example', keyType: h.keyType, identifiers: ['mail.example'] }))
  const host = { section: 'mail', host: 'mx1', reason: 'never delivered to this host', certificates, send: certificates, reload: ['postfix', 'dovecot'], verify: ['993', '25/smtp'] }
  const hostsOf = (json: object): unknown => (JSON.parse(JSON.stringify(json)) as { hosts: unknown }).hosts
  assert.deepEqual(hostsOf(planJson(plan(to('mx1'), to('mx1', { parked })))), [
    host, { ...host, parked: { why: 'failed twice: no route', until: '2026-11-21T03:30:00.000Z' } },
  ])
  const partly = { ...all, verified: ['993'] }
  const outcomes = hostsOf(reportJson(report(
    done(to('mx1')), { status: 'failed', delivery: to('mx1'), done: partly, step: 'verify 25/smtp', message: 'shows another' },
    { status: 'parked', delivery: to('mx1'), message: 'interrupted' },
  )))
  assert.deepEqual(outcomes, [
    { ...host, status: 'done', ...all }, { ...host, status: 'failed', ...partly, step: 'verify 25/smtp', message: 'shows another' },
    { ...host, status: 'parked', message: 'interrupted' },
  ])
})
