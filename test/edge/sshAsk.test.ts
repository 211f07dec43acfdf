/** `ssh -G` for many names at once: each gets its own answer, and one that hangs costs the others nothing. */
import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { asker } from '../../src/edge/ssh/ask.js'

describe('asking ssh', { skip: existsSync('/usr/bin/ssh') ? false : 'needs ssh (apt-get install openssh-client)' }, () => {
  let dir: string
  let config: string
  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'lematt-ask-'))
    config = join(dir, 'a config')
    writeFileSync(config, 'Match host slow exec "sleep 60"\nHost host*\n  HostName %h.example.com\n', { mode: 0o600 })
  })
  after(() => rmSync(dir, { recursive: true }))
  const never = new AbortController().signal

  test('forty names: forty answers, each with its user and port', async () => {
    const ask = asker(config, never)
    await Promise.all(Array.from({ length: 40 }, async (_, n) => {
      const { code, text } = await ask({ host: `host${n}`, ...n % 2 === 0 && { user: `user${n}` }, ...n % 3 === 0 && { port: 2000 + n } })
      assert.equal(code, 0)
      assert.match(text, new RegExp(`^hostname host${n}\\.example\\.com$`, 'mu'))
      assert.match(text, n % 3 === 0 ? new RegExp(`^port ${2000 + n}$`, 'mu') : /^port 22$/mu)
      if (n % 2 === 0) assert.match(text, new RegExp(`^user user${n}$`, 'mu'))
    }))
  })

  test('one that hangs is given up; those behind it are answered, and nothing of it is left', async () => {
    const ask = asker(config, never, 700)
    const [slow, ...others] = await Promise.all(['slow', 'host1', 'host2'].map(host => ask({ host })))
    assert.deepEqual(slow, { text: 'no answer in 0.7 s' })
    assert.deepEqual(others.map(({ code }) => code), [0, 0])
  })

  test('a word that ssh refuses: its own sentence; a configuration that is not there: the same', async () => {
    const bad = await asker(config, never)({ host: 'host1', port: 99_999 })
    assert.notEqual(bad.code, 0)
    assert.match(bad.text, /port/iu)
    const none = await asker(join(dir, 'nowhere'), never)({ host: 'host1' })
    assert.notEqual(none.code, 0)
    assert.match(none.text, /nowhere/u)
  })
})
