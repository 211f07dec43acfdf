/** Spec §8: what each host lacks, from receipts. Nights are played with the receipts that `hosts.ts` writes. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { hostMembers, planHost, planHosts } from '../../src/core/hostPlan.js'
import { filesKey, hasReceipt, reloadKey, verifyKey, withoutHost } from '../../src/core/hostReceipts.js'
import { afterHosts, pruned } from '../../src/core/memory.js'
import { planDeliveries } from '../../src/core/plan.js'
import { withoutReceipts, withReceipts } from '../../src/core/receipts.js'
import type { Held, HostOutcome, Section, State, VerifyPort } from '../../src/core/types.js'
import { configuration, held, inDays, now, section } from '../helpers/held.js'

const imaps: VerifyPort = { text: '993', port: 993, protocol: 'tls' }
const smtp: VerifyPort = { text: '25/smtp', port: 25, protocol: 'smtp' }
const mail = section('mail', { domains: ['a.example', 'b.example'], hosts: ['mx1', 'mx2'], reload: ['postfix'], verify: [imaps] })
const empty: State = { receipts: {}, orderFailures: {}, deliveryFailures: {}, hostFailures: {} }

/** What a night would do at one host, as text; `fate` says how far it gets. */
class World {
  state = empty
  constructor(public section: Section, public inventory: Held[], private readonly host = 'mx1') {}

  night(fate: 'all' | 'nothing' | 'files' | 'reload' = 'all'): string {
    const of = configuration([this.section])
    this.state = pruned(this.state, of, this.inventory, now)
    const members = hostMembers({ configuration: of, inventory: this.inventory, now }).find(m => m.host === this.host)
    const delivery = members === undefined ? undefined : planHost(members, this.state.receipts)
    if (delivery === undefined || members === undefined) return ''
    const { section: s, host, send, reload, verify, certificates } = delivery
    const note = (key: string, list: readonly Held[]): void => {
      this.state = { ...this.state, receipts: withReceipts(this.state.receipts, s.name, key, list, now) }
    }
    this.state = { ...this.state, receipts: withoutHost(this.state.receipts, s, host, send) }
    if (fate !== 'nothing') note(filesKey(host), send)
    if (fate === 'reload' || fate === 'all') for (const service of reload) note(reloadKey(host, service), members.certificates.filter(h => hasReceipt(this.state.receipts, s, filesKey(host), h)))
    if (fate === 'all') for (const port of verify) note(verifyKey(host, port), certificates)
    return [`send ${send.map(h => h.name).join(' ')}`, `reload ${reload.join(' ')}`, `verify ${verify.map(p => p.text).join(' ')}`].map(t => t.trim()).filter(t => t.includes(' ')).join(', ')
  }
}

test('delivered once; a renewed certificate alone is sent, and everything is reloaded and seen', () => {
  const world = new World(mail, [held('a.example'), held('b.example')])
  assert.equal(world.night(), 'send a.example b.example, reload postfix, verify 993')
  assert.equal(world.night(), '')
  world.inventory = [held('a.example'), held('b.example', { leaf: { fingerprint: 'new' } })]
  assert.equal(world.night(), 'send b.example, reload postfix, verify 993')
  assert.equal(world.night(), '')
})

test('a service or a port that is added is caught up with, without files', () => {
  const world = new World(mail, [held('a.example')])
  world.night()
  world.section = { ...mail, reload: ['postfix', 'dovecot'] }
  assert.equal(world.night(), 'reload dovecot, verify 993')
  world.section = { ...world.section, verify: [imaps, smtp] }
  assert.equal(world.night(), 'verify 25/smtp')
  assert.equal(world.night(), '')
})

test('what was cut short goes on where it must: sent and not reloaded is reloaded, not seen is looked at', () => {
  const world = new World(mail, [held('a.example')])
  world.night('files')
  assert.equal(world.night('reload'), 'reload postfix, verify 993')
  assert.equal(world.night(), 'verify 993')
  world.inventory = [held('a.example', { leaf: { fingerprint: 'new' } })]
  world.night('nothing')
  assert.equal(world.night(), 'send a.example, reload postfix, verify 993', 'no old reload counts for new files')
})

test('a host added is served; a host removed is forgotten at once, and served again when it is back', () => {
  const world = new World(mail, [held('a.example')])
  world.night()
  world.section = { ...mail, hosts: ['mx2'] }
  world.night()
  world.section = mail
  assert.equal(world.night(), 'send a.example, reload postfix, verify 993')
  assert.equal(world.night(), '')
})

test('hosts and steps of a section do not touch each other', () => {
  const both = { ...mail, update: ['say'] }
  const world = new World(both, [held('a.example')])
  world.night()
  const of = configuration([both])
  const steps = (): unknown[] => planDeliveries({ configuration: of, inventory: world.inventory, state: world.state, now })
  assert.equal((steps() as { reason: string }[])[0]?.reason, 'never delivered to this section')
  world.state = { ...world.state, receipts: withoutReceipts(withReceipts(world.state.receipts, 'mail', 'update say', world.inventory, now), both, world.inventory) }
  assert.equal(steps().length, 1, 'the step is run again')
  assert.equal(world.night(), '', 'and the host is left alone')
})

test('a failure is counted per host and section, is the reason the next time, and parks from the second on', () => {
  const of = configuration([mail])
  const input = { configuration: of, inventory: [held('a.example')], now }
  const plan = (state: State, narrowing = {}): ReturnType<typeof planHosts> => planHosts({ ...input, state, narrowing })
  const [first] = plan(empty)
  assert.ok(first)
  const failed: HostOutcome = { status: 'failed', delivery: first, done: { files: 0, reloaded: [], verified: [] }, step: 'connect', message: 'no route\nto host' }
  const once = afterHosts(empty, [failed], inDays(-0.01))
  assert.deepEqual(Object.keys(once.hostFailures), ['mx1 mail'])
  assert.match(plan(once)[0]?.reason ?? '', /^failed last time \(.* UTC\): connect: no route to host$/u)
  assert.equal(plan(once)[0]?.parked, undefined)
  const twice = afterHosts(once, [failed], inDays(-0.001))
  assert.match(plan(twice)[0]?.parked?.why ?? '', /^failed 2 times in a row: .*\(to try it now: lematt deliver mx1\)$/u)
  assert.equal(plan(twice)[1]?.parked, undefined, 'mx2 has not failed')
  assert.equal(plan(twice, { deliver: { again: false } })[0]?.parked, undefined)
  const changed = configuration([{ ...mail, verifyAddress: { mx1: '192.0.2.1' } }])
  assert.equal(planHosts({ ...input, configuration: changed, state: twice })[0]?.parked, undefined, 'what the operator changes is tried at once')
  assert.deepEqual(afterHosts(twice, [{ status: 'done', delivery: first, done: failed.done }], now).hostFailures, {})
})

test('what the command line names: a host, a section, a subject', () => {
  const web = section('web', { domains: ['c.example'], hosts: ['mx1', 'web1'] })
  const input = { configuration: configuration([mail, web]), inventory: [held('a.example'), held('b.example'), held('c.example')], state: empty, now }
  const named = (targets: { sections?: string[]; subjects?: string[]; hosts?: string[] }): string[] => planHosts({
    ...input, narrowing: { deliver: { again: false, targets: { sections: new Set(targets.sections), subjects: new Set(targets.subjects), hosts: new Set(targets.hosts) } } },
  }).map(d => `${d.section.name} ${d.host}: ${d.send.map(h => h.name).join(' ')}`)
  assert.deepEqual(named({ hosts: ['mx1'] }), ['mail mx1: a.example b.example', 'web mx1: c.example'])
  assert.deepEqual(named({ sections: ['web'] }), ['web mx1: c.example', 'web web1: c.example'])
  assert.deepEqual(named({ subjects: ['b.example'] }), ['mail mx1: b.example', 'mail mx2: b.example'])
  const steps = configuration([{ ...mail, update: ['say'] }])
  const byHost = planDeliveries({ ...input, configuration: steps, narrowing: { deliver: { again: false, targets: { sections: new Set(), subjects: new Set(), hosts: new Set(['mx1']) } } } })
  assert.deepEqual(byHost, [], 'naming a host runs no step')
})
