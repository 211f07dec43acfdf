import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import fsp from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { OperationalError } from '../../src/core/errors.js'
import { certificateEntries, makeStore, readStored, readText, storePaths } from '../../src/edge/store.js'
import { temporaryDirectory, temporaryStore } from '../helpers/store.js'

test('a file that we may not read is denied, which is another thing than damaged or missing', async t => {
  const directory = temporaryDirectory(t)
  chmodSync(directory, 0o755)
  const path = join(directory, 'key.pem')
  writeFileSync(path, 'sound', { mode: 0o600 })
  chmodSync(path, process.geteuid?.() === 0 ? 0o600 : 0)
  // Root reads everything: for a moment we are somebody else, where Node can be (not beside io_uring, as Debian 13 builds it).
  try {
    if (process.geteuid?.() === 0) process.seteuid?.(65534)
  } catch (error) {
    t.skip(String(error))
    return
  }
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

/** Lets one function of the file system fail with this code until the test ends. */
function failing(t: TestContext, name: 'lstat' | 'stat' | 'readFile' | 'readdir', code: string): void {
  const real = fsp[name]
  const restore = (): void => {
    Object.assign(fsp, { [name]: real })
    syncBuiltinESMExports()
  }
  t.after(restore)
  Object.assign(fsp, { [name]: () => Promise.reject(Object.assign(new Error(`${code}: it failed`), { code })) })
  syncBuiltinESMExports()
}

for (const name of ['lstat', 'stat', 'readFile'] as const) {
  for (const code of ['ESTALE', 'ETIMEDOUT', 'EIO', 'ENOMEM', 'EMFILE', 'ENFILE', 'EACCES', 'EPERM', 'ELOOP', 'ENOTCONN', 'EINTR']) {
    test(`${code} from ${name}: nothing was read, so nothing is known to be bad`, async t => {
      const path = join(temporaryDirectory(t), 'key.pem')
      writeFileSync(path, 'sound')
      failing(t, name, code)
      assert.deepEqual(await readStored(path), { state: 'unreadable', why: `${code}: it failed`, denied: true })
    })
  }
}

test('missing is what is not there, and a link to what is not there; something in the way is denied', async t => {
  const directory = temporaryDirectory(t)
  symlinkSync('nowhere', join(directory, 'dangling'))
  symlinkSync('round', join(directory, 'round'))
  writeFileSync(join(directory, 'file'), '')
  mkdirSync(join(directory, 'directory'))
  assert.deepEqual(await readText(join(directory, 'dangling')), { state: 'missing' })
  assert.deepEqual(await readStored(join(directory, 'dangling')), { state: 'missing' })
  for (const [read, name] of [[readText, 'round'], [readText, 'file/below'], [readStored, 'file/below'], [readStored, 'directory']] as const) {
    const found = await read(join(directory, name))
    assert.ok(found.state === 'unreadable' && found.denied === true, `${name}: ${found.state}`)
  }
})

test('the entries of the cert directory: none without a store, and an error that says so when it cannot be read', async t => {
  assert.deepEqual(await certificateEntries(storePaths(temporaryDirectory(t), 'prod')), [])
  const paths = await temporaryStore(t)
  writeFileSync(join(paths.certificate, 'a.pem'), '')
  assert.deepEqual(await certificateEntries(paths), ['a.pem'])
  for (const [code, why] of [['ESTALE', 'ESTALE: it failed'], ['EMFILE', 'EMFILE: it failed'], ['EACCES', 'permission denied: run lematt as the owner']] as const) {
    await t.test(code, async inner => {
      failing(inner, 'readdir', code)
      await assert.rejects(certificateEntries(paths), (error: unknown) => error instanceof OperationalError
        && error.message.startsWith(`cannot read the directory ${paths.certificate}: ${why}`))
    })
  }
  const odd = storePaths(temporaryDirectory(t), 'prod')
  await makeStore({ ...odd, certificate: odd.csr })
  writeFileSync(odd.certificate, '')
  await assert.rejects(certificateEntries(odd), /cannot read the directory .*: something that is no directory stands in its way/u)
})
