import assert from 'node:assert/strict'
import { test } from 'node:test'
import { lateAbort } from '../src/late.js'

test('without anything under way, the abort passes on at once', () => {
  const run = new AbortController()
  const late = lateAbort(run.signal)
  run.abort(new Error('stop'))
  assert.equal(late.signal.aborted, true)
  assert.equal((late.signal.reason as Error).message, 'stop')
  late.close()
})

test('what is under way ends first, and then the abort passes on', async () => {
  const run = new AbortController()
  const late = lateAbort(run.signal)
  let finish = (): void => undefined
  const work = late.during(() => new Promise<string>(resolve => { finish = () => resolve('a certificate') }))
  const failing = late.during(() => Promise.reject(new Error('refused')))
  run.abort()
  await assert.rejects(failing, /refused/u)
  assert.equal(late.signal.aborted, false, 'the other one is still under way')
  finish()
  assert.equal(await work, 'a certificate')
  assert.equal(late.signal.aborted, true)
  late.close()
})

test('what never ends is aborted after ten seconds', t => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const run = new AbortController()
  const late = lateAbort(run.signal)
  void late.during(() => new Promise(() => undefined))
  run.abort()
  t.mock.timers.tick(9_999)
  assert.equal(late.signal.aborted, false)
  t.mock.timers.tick(1)
  assert.equal(late.signal.aborted, true)
  late.close()
})
