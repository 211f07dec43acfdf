import assert from 'node:assert/strict'
import { appendFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { OperationalError } from '../../src/core/errors.js'
import { checkStore } from '../../src/edge/store.js'
import { run } from '../helpers/run.js'
import { allEntries, temporaryStore } from '../helpers/store.js'

test('a store that takes files is left as it was, also by what a killed run has left', async t => {
  const paths = await temporaryStore(t)
  await checkStore(paths)
  assert.deepEqual(allEntries(paths), [])
  writeFileSync(join(paths.csr, '.lematt-probe'), 'of a killed run')
  await checkStore(paths)
  assert.deepEqual(allEntries(paths), [])
})

test('a directory that is gone is named', async t => {
  const paths = await temporaryStore(t)
  rmSync(paths.previous, { recursive: true })
  await assert.rejects(checkStore(paths), (error: unknown) => error instanceof OperationalError
    && error.message.startsWith(`cannot write into the directory ${paths.previous}: `))
})

for (const directory of ['key', 'certificate', 'csr', 'previous'] as const) {
  test(`${directory} on a full or a read-only disk: said with the remedy, nothing is left`, async t => {
    const paths = await temporaryStore(t)
    const path = paths[directory]
    const refusal = (why: string) => (error: unknown): boolean => {
      assert.ok(error instanceof OperationalError)
      assert.equal(error.message, `cannot write into the directory ${path}: ${why}`)
      return true
    }
    const mounted = await run('mount', ['-t', 'tmpfs', '-o', 'size=16k', 'tmpfs', path])
    if (mounted.code !== 0) {
      t.skip(`needs the right to mount: ${mounted.stderr.trim()}`)
      return
    }
    try {
      await checkStore(paths)
      // One block is free: an empty file can be made, and what a pair needs cannot.
      appendFileSync(join(path, 'filler'), Buffer.alloc(12_288))
      await assert.rejects(checkStore(paths), refusal('the disk is full: make room and run again; nothing was replaced'))
      assert.deepEqual(allEntries(paths).map(e => e.replace(/^.*\//u, '')), ['filler'])
      rmSync(join(path, 'filler'))
      assert.equal((await run('mount', ['-o', 'remount,ro', path])).code, 0)
      await assert.rejects(checkStore(paths), refusal('the file system is read-only: remount it'))
      assert.deepEqual(allEntries(paths), [])
    } finally {
      await run('umount', ['-l', path])
    }
  })
}
