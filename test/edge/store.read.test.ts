import assert from 'node:assert/strict'
import { chmodSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { readStored, readText } from '../../src/edge/store.js'
import { temporaryDirectory } from '../helpers/store.js'

test('a file that we may not read is denied, which is another thing than damaged or missing', async t => {
  const directory = temporaryDirectory(t)
  chmodSync(directory, 0o755)
  const path = join(directory, 'key.pem')
  writeFileSync(path, 'sound', { mode: 0o600 })
  chmodSync(path, process.geteuid?.() === 0 ? 0o600 : 0)
  // Root reads everything: for a moment we are somebody else.
  if (process.geteuid?.() === 0) process.seteuid?.(65534)
  try {
    const read = await readStored(path)
    assert.equal(read.state, 'unreadable')
    assert.equal(read.denied, true)
    assert.match(read.why, /EACCES: permission denied/u)
  } finally {
    if (process.getuid?.() === 0) process.seteuid?.(0)
  }
  assert.deepEqual(await readText(join(directory, 'none')), { state: 'missing' })
  writeFileSync(join(directory, 'large'), Buffer.alloc(2_000_000))
  assert.deepEqual(await readText(join(directory, 'large')), { state: 'unreadable', why: 'larger than a megabyte' })
})
