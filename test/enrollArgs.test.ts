/** The words of `lematt enroll`: what they come to, and which are refused before anything is looked at. */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parseArguments } from '../src/args.js'
import { UsageError } from '../src/core/errors.js'
import { parseEnroll } from '../src/enrollArgs.js'

describe('lematt enroll, its words', () => {
  test('what is not said has its default', () => {
    const parsed = parseArguments(['enroll', 'mx1'])
    assert.equal(parsed.verb, 'enroll')
    assert.equal(parsed.config, 'conf/lematt.conf')
    assert.deepEqual(parsed.enroll, { host: 'mx1', user: 'certmaint', reloads: [], from: [], names: [], yes: false, print: false })
  })

  test('everything said, before or after the host', () => {
    const { request, config } = parseEnroll([
      '--reload', 'postfix=/usr/bin/systemctl reload postfix', '--reload=own=/x/y', '--from', '192.0.2.1', '--from', '2001:DB8::1', '--from', '192.0.2.1', 'mx1', '--user', 'certs',
      '--hostname', 'mx1.example.com', '--port', '2222', '--names', '*.example.com', '--names', 'b*', '--forward', 'tunnel', '--fingerprint', `SHA256:${'a'.repeat(43)}`, '--print', '--config', 'x',
    ])
    assert.equal(config, 'x')
    assert.deepEqual(request, {
      host: 'mx1', user: 'certs', reloads: [{ name: 'postfix', command: '/usr/bin/systemctl reload postfix' }, { name: 'own', command: '/x/y' }],
      from: ['192.0.2.1', '2001:db8::1'], names: ['*.example.com', 'b*'], yes: false, print: true, hostName: 'mx1.example.com', port: 2222, forward: 'tunnel', fingerprint: `SHA256:${'a'.repeat(43)}`,
    })
  })

  test('--help wins', () => {
    assert.equal(parseArguments(['enroll', '--help']).verb, 'help')
  })

  const cases: [string[], RegExp][] = [
    [[], /needs a host: say the alias/u],
    [['mx1', 'mx2'], /"mx2" is one host too many/u],
    [['mx1', '--prod'], /unknown option '--prod'; lematt --help/u],
    [['mx1', '--reload'], /argument missing/u],
    [['mx1', '--reload', 'a=/x', '--reload', 'a=/y'], /--reload a is there twice/u],
    [['mx1', '--reload', 'a=/x; id'], /no shell reads it on the host/u],
    [['mx1', '--forward', 'proxy'], /--forward proxy: say redirect .* or tunnel/u],
    [['mx1', '--yes', '--fingerprint', `SHA256:${'a'.repeat(43)}`], /say one of the two/u],
    [['mx1', '--config', ''], /--config needs a path/u],
    [['mx1\u001b[31m'], /an alias for the host/u],
  ]
  for (const [words, message] of cases) {
    test(`refused: ${JSON.stringify(words)}`, () => {
      assert.throws(() => parseArguments(['enroll', ...words]), error => error instanceof UsageError && message.test(error.message) && !error.message.includes('\u001b'))
    })
  }
})

describe('lematt check --hosts', () => {
  test('goes with check alone', () => {
    assert.equal(parseArguments(['check', '--hosts']).hosts, true)
    assert.equal(parseArguments(['check']).hosts, false)
    assert.throws(() => parseArguments(['--test', '--hosts']), /--hosts goes with lematt check/u)
  })
})
