import assert from 'node:assert/strict'
import { test } from 'node:test'
import { challengeUrl, followRedirect } from '../../src/core/redirect.js'

const start = challengeUrl('a.example.com', 'TOKEN')
const refused = (status: number, location: string | undefined, visited = [start]) => {
  const step = followRedirect(status, location, visited)
  return 'refused' in step ? step.refused : assert.fail(`followed to ${step.next}`)
}

test('the first URL, with IPv6 in brackets', () => {
  assert.equal(start, 'http://a.example.com/.well-known/acme-challenge/TOKEN')
  assert.equal(challengeUrl('2001:db8::1', 'T'), 'http://[2001:db8::1]/.well-known/acme-challenge/T')
})

test('what CAs follow', () => {
  for (const status of [301, 302, 307, 308]) {
    for (const [location, next] of [
      ['http://b.example.com/x?y=1#z', 'http://b.example.com/x?y=1'],
      ['https://b.example.com/x', 'https://b.example.com/x'],
      ['https://b.example.com:443/x', 'https://b.example.com/x'],
      ['http://b.example.com:443/x', 'http://b.example.com:443/x'],
      ['/elsewhere', 'http://a.example.com/elsewhere'],
      ['http://192.0.2.1/x', 'http://192.0.2.1/x'],
    ]) assert.deepEqual(followRedirect(status, location, [start]), { next })
  }
})

test('what they do not follow, and why', () => {
  assert.match(refused(303, 'http://b.example.com/'), /301, 302, 307 or 308/u)
  assert.match(refused(304, undefined), /301, 302, 307 or 308/u)
  assert.match(refused(302, undefined), /no Location/u)
  assert.match(refused(302, 'http://'), /not a URL/u)
  assert.match(refused(302, 'ftp://b.example.com/'), /neither http nor https/u)
  assert.match(refused(302, 'http://b.example.com:8080/'), /port other than 80 and 443/u)
  assert.match(refused(302, 'http://b.example.com.well-known/acme-challenge/T'), /slash after the host/u)
  assert.match(refused(302, 'http://central/.well-known/'), /no public host name/u)
  assert.match(refused(302, `http://b.example.com/${'a'.repeat(2000)}`), /2000 bytes/u)
  assert.match(refused(302, start), /loop/u)
  assert.doesNotMatch(refused(302, 'http://b\u001b[2J.example.com:8080/'), /\u001b/u)
})

test('ten redirects are followed, the eleventh is not', () => {
  const visited = [start]
  for (let i = 1; i <= 10; i++) {
    const step = followRedirect(302, `http://a.example.com/${i}`, visited)
    assert.ok('next' in step)
    visited.push(step.next)
  }
  assert.match(refused(302, 'http://a.example.com/11', visited), /the 11th, and 10 are the most/u)
})
