/** What is said to lematt-receive, and what of its answers is believed. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { asLines, deliverAnswer, deliverCommand, deliverInput, hostStatus, sha256 } from '../../src/core/receiver.js'

test('the input of deliver: entries, then the bodies in their order, then an end', () => {
  const cert = asLines('C1\nC2')
  const input = deliverInput(
    [{ kind: 'cert', file: 'a-cert-combined.x.pem', text: cert }, { kind: 'key', file: 'a-key.x.pem', text: 'K\n' }],
    [{ kind: 'cert', file: 'b-cert-combined.x.pem', target: 'a-cert-combined.x.pem' }],
  )
  assert.equal(input, `lematt-deliver 1 3
cert a-cert-combined.x.pem 2 ${sha256('C1\nC2\n')}
key a-key.x.pem 1 ${sha256('K\n')}
certlink b-cert-combined.x.pem a-cert-combined.x.pem
C1
C2
K
end
`)
  assert.equal(deliverInput([], []), 'lematt-deliver 1 0\nend\n')
  assert.equal(deliverCommand(['postfix', 'dovecot']), 'deliver postfix dovecot')
})

test('answers: the last line counts, whatever a shell start-up file has said before', () => {
  assert.deepEqual(deliverAnswer('hello\n{"ok":true,"files":4,"reloaded":["postfix"]}\n'), { ok: true, files: 4, reloaded: ['postfix'] })
  assert.deepEqual(deliverAnswer('{"ok":false,"step":"reload postfix","message":"exit\\u001b[31m 1","restored":true}'), { ok: false, step: 'reload postfix', message: 'exit 1', restored: true })
  assert.deepEqual(deliverAnswer('{"ok":false,"step":"refused","message":"no"}'), { ok: false, step: 'refused', message: 'no' })
  for (const no of ['', 'This service allows sftp connections only.', '{}', '{"ok":true}', '{"ok":"true","files":1,"reloaded":[]}', '[]', 'null', '{"ok":true,"files":1,"reloaded":[1]}']) assert.equal(deliverAnswer(no), undefined, no)
})

test('a status without any of its parts is none', () => {
  const whole = { receiver: 'ab', services: ['postfix'], forward: [], cert: '/c', key: '/k', files: { f: '12' }, links: { l: 'f' } }
  assert.equal(hostStatus(JSON.stringify(whole))?.files.get('f'), '12')
  for (const part of Object.keys(whole)) assert.equal(hostStatus(JSON.stringify({ ...whole, [part]: 5 })), undefined, part)
  assert.equal(hostStatus(JSON.stringify({ ...whole, files: { __proto__: 1 } }))?.files.size, 0)
})

test('nothing that a host prints crashes us or gets a control character into a message', () => {
  fc.assert(fc.property(fc.oneof(fc.string(), fc.json(), fc.record({ ok: fc.boolean(), files: fc.anything(), reloaded: fc.array(fc.string()), step: fc.string(), message: fc.string() }).map(v => JSON.stringify(v))), text => {
    const answer = deliverAnswer(text)
    hostStatus(text)
    if (answer?.ok === false) assert.doesNotMatch(answer.message + answer.step, /[\u0000-\u001f\u007f-\u009f]/u)
    if (answer?.ok === true) assert.doesNotMatch(answer.reloaded.join(''), /[\u0000-\u001f\u007f-\u009f]/u)
  }))
})
