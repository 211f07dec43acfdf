/** Spec §5: deliveries are desired state. Nights are played with the real plan and the receipts that `deliver` writes. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { planDeliveries } from '../../src/core/plan.js'
import { receiptId, withoutUpdates, withReceipts } from '../../src/core/receipts.js'
import type { Held, Receipts, Section } from '../../src/core/types.js'
import { configuration, held, now, section } from '../helpers/held.js'

/** One section's host: what it did, step by step. */
class World {
  receipts: Receipts = {}
  readonly log: { command: string; prints: string[] }[] = []
  constructor(public section: Section, public inventory: Held[]) {}

  /** One night: runs what is lacking. `fate` says what becomes of each command: undefined is success. */
  night(fate: (command: string) => 'fails' | 'dies before' | 'dies after' | undefined = () => undefined): string[] {
    const [delivery] = planDeliveries({
      configuration: configuration([this.section]), inventory: this.inventory, state: { receipts: this.receipts, orderFailures: {}, deliveryFailures: {}, hostFailures: {} }, now,
    })
    const ran: string[] = []
    for (const step of delivery?.steps ?? []) {
      if (step.kind !== 'update') this.receipts = withoutUpdates(this.receipts, this.section, step.certificates)
      const what = fate(step.command)
      if (what === 'dies before') return ran
      this.log.push({ command: step.command, prints: step.certificates.map(receiptId) })
      ran.push(`${step.command}: ${step.certificates.map(h => h.name).join(' ')}`)
      if (what !== undefined) return ran // failed, or killed before the receipt
      this.receipts = withReceipts(this.receipts, this.section.name, step.key, step.certificates, now)
    }
    return ran
  }
}

const all = { uploadCerts: ['certs'], uploadKeys: ['keys'], update: ['reload'] }
const renewed = (h: Held, n: number): Held => held(h.name, { leaf: { fingerprint: `${h.name} renewed ${n}` } })

test('delivered once, then not again; a renewed certificate goes everywhere, alone', () => {
  const world = new World(section('default', all), [held('a.example'), held('b.example')])
  assert.deepEqual(world.night(), ['certs: a.example b.example', 'keys: a.example b.example', 'reload: a.example b.example'])
  assert.deepEqual(world.night(), [])
  world.inventory = [held('a.example'), renewed(held('b.example'), 1)]
  assert.deepEqual(world.night(), ['certs: b.example', 'keys: b.example', 'reload: b.example'])
  assert.deepEqual(world.night(), [])
})

test('a section with only update reloads after a renewal', () => {
  const world = new World(section('default', { update: ['reload'] }), [held('a.example')])
  assert.deepEqual(world.night(), ['reload: a.example'])
  assert.deepEqual(world.night(), [])
  world.inventory = [renewed(held('a.example'), 1)]
  assert.deepEqual(world.night(), ['reload: a.example'])
})

test('a step added is caught up with; an added upload is followed by the reload', () => {
  const world = new World(section('default', all), [held('a.example')])
  world.night()
  world.section = section('default', { ...all, update: ['reload', 'mail'] })
  assert.deepEqual(world.night(), ['mail: a.example'])
  world.section = section('default', { ...all, uploadCerts: ['certs', 'certs to b'], update: ['reload', 'mail'] })
  assert.deepEqual(world.night(), ['certs to b: a.example', 'reload: a.example', 'mail: a.example'])
  assert.deepEqual(world.night(), [])
})

test('uploaded but not reloaded: the next night only reloads; not uploaded: nothing after it runs', () => {
  const world = new World(section('default', all), [held('a.example')])
  assert.deepEqual(world.night(command => command === 'reload' ? 'fails' : undefined).length, 3)
  assert.deepEqual(world.night(), ['reload: a.example'])
  world.inventory = [renewed(held('a.example'), 1)]
  assert.deepEqual(world.night(command => command === 'keys' ? 'fails' : undefined), ['certs: a.example', 'keys: a.example'])
  assert.deepEqual(world.night(), ['keys: a.example', 'reload: a.example'])
})

test('killed between an added upload and the reload: the old reload does not count for the new files', () => {
  const world = new World(section('default', all), [held('a.example')])
  world.night()
  world.section = section('default', { ...all, uploadCerts: ['certs', 'certs to b'] })
  assert.deepEqual(world.night(command => command === 'reload' ? 'dies before' : undefined), ['certs to b: a.example'])
  assert.deepEqual(world.night(), ['reload: a.example'])
})

test('whatever fails or is killed, and whatever is renewed or added: two good nights later all is delivered, reloads came last, nothing is left', () => {
  const event = fc.oneof(
    fc.record({ type: fc.constant('night' as const), at: fc.nat(5), fate: fc.constantFrom('fails' as const, 'dies before' as const, 'dies after' as const) }),
    fc.record({ type: fc.constant('good' as const) }),
    fc.record({ type: fc.constant('renew' as const), which: fc.nat(2) }),
    fc.record({ type: fc.constant('step' as const), kind: fc.constantFrom('uploadCerts' as const, 'uploadKeys' as const, 'update' as const) }),
  )
  fc.assert(fc.property(fc.array(event, { maxLength: 12 }), events => {
    const world = new World(section('default', all), [held('a.example'), held('b.example'), held('c.example')])
    events.forEach((e, n) => {
      if (e.type === 'good') world.night()
      if (e.type === 'renew') world.inventory = world.inventory.map((h, i) => (i === e.which ? renewed(h, n) : h))
      if (e.type === 'step') world.section = { ...world.section, [e.kind]: [...world.section[e.kind], `${e.kind} of ${n}`] }
      let left = e.type === 'night' ? e.at : 0
      if (e.type === 'night') world.night(() => (left-- === 0 ? e.fate : undefined))
    })
    world.night()
    assert.deepEqual(world.night(), [])
    const last = (command: string, print: string): number => world.log.findLastIndex(l => l.command === command && l.prints.includes(print))
    for (const print of world.inventory.map(receiptId)) {
      const uploads = [...world.section.uploadCerts, ...world.section.uploadKeys].map(command => last(command, print))
      assert.ok(uploads.every(i => i >= 0))
      for (const command of world.section.update) assert.ok(last(command, print) > Math.max(...uploads))
    }
  }), { numRuns: 500 })
})
