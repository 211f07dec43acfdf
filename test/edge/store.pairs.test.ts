import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import fsp from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { OperationalError } from '../../src/core/errors.js'
import { makeStore, mend, readStored, readText, savePair, storePaths, writeAtomically, type StorePaths } from '../../src/edge/store.js'
import { belongTogether } from '../../src/edge/x509.js'
import { othersSkip } from '../helpers/others.js'
import { certify, openssl } from '../helpers/certificates.js'
import { run } from '../helpers/run.js'
import { allEntries, filesOf, hidden, modeOf, pairOnDisk, temporaryDirectory, temporaryStore } from '../helpers/store.js'

const files = filesOf('a.example')
const [first, second, third] = [certify('DNS:a.example'), certify('DNS:a.example'), certify('DNS:a.example')]
/** Another certificate for the key of `first`. */
const renewed = openssl(['req', '-x509', '-key', 'key', '-days', '90', '-subj', '/CN=x', '-addext', 'subjectAltName=DNS:a.example'], { key: first.key }).stdout
const save = (paths: StorePaths, pair: { key?: string; certificate: string }): Promise<void> => savePair(paths, files, { ...pair, csr: 'request\n' })
const child = ['--import', 'tsx', 'test/helpers/storeChild.ts']

describe('a pair is saved', () => {
  test('with its modes, and what it replaces is kept one generation back', async t => {
    const paths = await temporaryStore(t)
    await save(paths, first)
    assert.deepEqual(allEntries(paths), ['key/a.example-key.prime256v1.pem', 'cert/a.example-cert-combined.prime256v1.pem', 'csr/a.example-csr.prime256v1.csr'])
    await save(paths, second)
    await save(paths, third)
    assert.deepEqual(pairOnDisk(paths, files), third)
    assert.deepEqual(pairOnDisk({ ...paths, key: paths.previous, certificate: paths.previous }, files), second)
    assert.equal(modeOf(join(paths.previous, files.key)), '600')
    assert.deepEqual(hidden(paths), [])
  })

  test('with a kept key: the key file is not touched, previous/ has the old pair', async t => {
    const paths = await temporaryStore(t)
    await save(paths, first)
    await save(paths, { certificate: second.certificate })
    assert.deepEqual(pairOnDisk(paths, files), { key: first.key, certificate: second.certificate })
    assert.deepEqual(pairOnDisk({ ...paths, key: paths.previous, certificate: paths.previous }, files), first)
  })

  for (const umask of ['000', '777', '277']) {
    test(`whatever the umask (${umask}) and without being root`, { skip: process.getuid?.() === 0 ? othersSkip() : false }, async t => {
      const directory = temporaryDirectory(t)
      chmodSync(directory, 0o777)
      const pairs = join(directory, 'pairs.json')
      writeFileSync(pairs, JSON.stringify([first]))
      const ran = await run(process.execPath, [...child, umask, directory, pairs])
      assert.deepEqual(ran, { code: 0, stdout: 'done\n', stderr: '' })
      const paths = storePaths(directory, 'prod')
      assert.deepEqual([paths.key, paths.previous, paths.state, paths.certificate, paths.csr].map(modeOf), ['700', '700', '700', '755', '755'])
      assert.deepEqual([join(paths.key, files.key), join(paths.previous, files.key)].map(modeOf), ['600', '600'])
      assert.deepEqual([join(paths.certificate, files.certificate), join(paths.csr, files.csr), join(paths.state, 'receipts.json')].map(modeOf), ['644', '644', '644'])
      assert.equal(existsSync(join(paths.state, 'lock')), false, 'the lock was given back')
    })
  }

  test('a link planted at the temp name is not followed', async t => {
    const paths = await temporaryStore(t)
    const victim = join(paths.state, 'victim')
    writeFileSync(victim, 'untouched')
    symlinkSync(victim, join(paths.key, `.${files.key}.new`))
    symlinkSync(victim, join(paths.certificate, `.${files.certificate}.new`))
    await save(paths, first)
    assert.equal(readFileSync(victim, 'utf8'), 'untouched')
    assert.deepEqual(pairOnDisk(paths, files), first)
    assert.equal(modeOf(join(paths.key, files.key)), '600')
  })

  test('a link in place of the file is replaced, not followed, and counts as missing before', async t => {
    const paths = await temporaryStore(t)
    await savePair(paths, filesOf('b.example_a.example'), { ...second, csr: 'x' })
    for (const [directory, file, target] of [[paths.key, files.key, 'b.example_a.example-key.prime256v1.pem'], [paths.certificate, files.certificate, 'b.example_a.example-cert-combined.prime256v1.pem']] as const) {
      symlinkSync(target, join(directory, file))
      assert.deepEqual(await readStored(join(directory, file)), { state: 'missing' })
      assert.equal((await readText(join(directory, file))).state, 'text')
    }
    await save(paths, first)
    assert.deepEqual(pairOnDisk(paths, files), first)
    assert.deepEqual(pairOnDisk(paths, filesOf('b.example_a.example')), second, 'the other subject has its own still')
  })
})

describe('when a pair cannot be saved', () => {
  /** Saves `second` over `first`, which must fail with this message and change nothing. */
  async function failsToSave(paths: StorePaths, message: RegExp): Promise<void> {
    await assert.rejects(save(paths, second), (error: unknown) => error instanceof OperationalError && message.test(error.message))
    assert.deepEqual(hidden(paths), [])
  }

  test('a directory in the place of the certificate: the key stays the old one', async t => {
    const paths = await temporaryStore(t)
    await save(paths, first)
    const place = join(paths.certificate, files.certificate)
    await fsp.rm(place)
    mkdirSync(place)
    await failsToSave(paths, /^cannot replace .*a\.example-cert-combined.*move it away/u)
    assert.equal(readFileSync(join(paths.key, files.key), 'utf8'), first.key)
    assert.equal(modeOf(join(paths.key, files.key)), '600')
  })

  test('a directory in its place and no key before: no key after', async t => {
    const paths = await temporaryStore(t)
    mkdirSync(join(paths.certificate, files.certificate))
    await failsToSave(paths, /move it away/u)
    assert.deepEqual(await readText(join(paths.key, files.key)), { state: 'missing' })
  })

  test('a store directory that is gone is named', async t => {
    const paths = await temporaryStore(t)
    await fsp.rm(paths.csr, { recursive: true })
    await assert.rejects(save(paths, first), /^OperationalError: cannot write .*\/csr\//u)
    mkdirSync(paths.csr)
    assert.deepEqual(allEntries(paths), [])
  })

  test('the disk is full at any point: the old pair is untouched, no temp file, the message says what to do', async t => {
    const directory = temporaryDirectory(t)
    const mounted = await run('mount', ['-t', 'tmpfs', '-o', 'size=96k', 'tmpfs', directory])
    if (mounted.code !== 0) {
      t.skip('no tmpfs can be mounted here (root is needed)')
      return
    }
    try {
      const paths = storePaths(directory, 'prod')
      await makeStore(paths)
      await save(paths, first)
      const filler = join(directory, 'filler')
      let failures = 0
      for (let freePages = 0; freePages < 6; freePages++) {
        await fsp.rm(filler, { force: true })
        const { bavail, bsize } = await fsp.statfs(directory)
        writeFileSync(filler, Buffer.alloc((bavail - freePages) * bsize))
        try {
          await save(paths, second)
          await fsp.rm(filler)
          await save(paths, first)
        } catch (error) {
          failures++
          assert.ok(error instanceof OperationalError)
          assert.match(error.message, /the disk is full: make room and run again; nothing was replaced/u)
          assert.deepEqual(pairOnDisk(paths, files), first)
        }
        assert.deepEqual(hidden(paths), [])
      }
      assert.ok(failures >= 3 && failures < 6, `${failures} of 6 failed`)
      await fsp.rm(filler, { force: true })
      await writeAtomically(join(paths.state, 'receipts.json'), 'before', 0o644)
      writeFileSync(filler, Buffer.alloc(await fsp.statfs(directory).then(s => s.bavail * s.bsize)))
      await assert.rejects(writeAtomically(join(paths.state, 'receipts.json'), 'after', 0o644), /the disk is full/u)
      assert.equal(readFileSync(join(paths.state, 'receipts.json'), 'utf8'), 'before')
      assert.deepEqual(hidden(paths), [])
    } finally {
      assert.equal((await run('umount', [directory])).code, 0)
    }
  })

  test('writeAtomically over a directory leaves no temp file', async t => {
    const paths = await temporaryStore(t)
    mkdirSync(join(paths.state, 'receipts.json'))
    await assert.rejects(writeAtomically(join(paths.state, 'receipts.json'), 'x', 0o644), OperationalError)
    assert.deepEqual(hidden(paths), [])
  })
})

describe('a crash', () => {
  const names = ['open', 'rm', 'rename', 'link', 'symlink', 'copyFile', 'chmod', 'lstat', 'readdir', 'readFile'] as const
  const real = Object.fromEntries(names.map(name => [name, fsp[name]]))

  /**
   * Runs `work` up to its call number `n` of the file system and leaves it hanging there for ever, as KILL would: nothing
   * after it happens, no clean-up either. A write that is cut short writes half. @returns whether it was cut short
   */
  async function cutShort(n: number, work: () => Promise<unknown>): Promise<boolean> {
    let left = n
    let cut = (): void => undefined
    const crashed = new Promise<boolean>(resolve => { cut = () => resolve(true) })
    const hang = (): Promise<never> => {
      cut()
      return new Promise<never>(() => undefined)
    }
    type Anything = (...args: unknown[]) => Promise<unknown>
    const wrap = (call: Anything, half?: Anything): Anything => async (...args) => {
      if (left-- > 0) return call(...args)
      if (left === -1) await half?.(...args)
      return hang()
    }
    for (const name of names) {
      const original = real[name] as unknown as Anything
      const wrapped = name !== 'open' ? original : async (...args: unknown[]) => {
        const handle = await original(...args) as fsp.FileHandle
        const write = handle.writeFile.bind(handle) as unknown as Anything
        handle.writeFile = wrap(write, data => write(String(data).slice(0, String(data).length / 2))) as unknown as typeof handle.writeFile
        handle.sync = wrap(handle.sync.bind(handle)) as typeof handle.sync
        return handle
      }
      Object.assign(fsp, { [name]: wrap(wrapped) })
    }
    syncBuiltinESMExports()
    try {
      return await Promise.race([crashed, work().then(() => false)])
    } finally {
      Object.assign(fsp, real)
      syncBuiltinESMExports()
    }
  }

  /** After a mend: one whole pair, nothing hidden, nothing more to mend. */
  async function isWhole(paths: StorePaths, possible: readonly { key: string; certificate: string }[], where: string): Promise<void> {
    const { key, certificate } = pairOnDisk(paths, files)
    assert.ok(belongTogether(key, certificate), where)
    assert.ok(possible.some(p => p.key === key && p.certificate === certificate), where)
    assert.deepEqual(hidden(paths), [], where)
    assert.deepEqual(await mend(paths, belongTogether), [], where)
  }

  test('between any two calls of savePair, and then between any two of mend, leaves a whole pair', async t => {
    let points = 0
    const mended = new Set<string>()
    for (let n = 0, cut = true; cut; n++) {
      // Of two neighbouring calls of savePair one sees the even calls of mend cut short, the other one the odd ones.
      for (let m = n % 2, again = true; again; m += 2) {
        const paths = await temporaryStore(t)
        await save(paths, first)
        cut = await cutShort(n, () => save(paths, second))
        again = cut && await cutShort(m, () => mend(paths, belongTogether))
        for (const sentence of await mend(paths, belongTogether)) mended.add(sentence.slice(0, 9))
        await isWhole(paths, [first, second], `savePair cut at ${n}, mend at ${m}`)
        points++
      }
    }
    assert.ok(points > 100, `${points} points`)
    assert.deepEqual([...mended].sort(), ['completed', 'removed a'], 'both ways of mending were seen')
  })

  test('with a kept key, and with no pair before', async t => {
    for (let n = 0, cut = true; cut; n++) {
      const paths = await temporaryStore(t)
      await save(paths, first)
      cut = await cutShort(n, () => save(paths, { certificate: renewed }))
      await mend(paths, belongTogether)
      await isWhole(paths, [first, { key: first.key, certificate: renewed }], `kept key, cut at ${n}`)
    }
    for (let n = 0, cut = true; cut; n++) {
      const paths = await temporaryStore(t)
      cut = await cutShort(n, () => save(paths, first))
      await mend(paths, belongTogether)
      if (existsSync(join(paths.key, files.key))) await isWhole(paths, [first], `nothing before, cut at ${n}`)
      else assert.deepEqual(allEntries(paths), [], `nothing before, cut at ${n}`)
    }
  })

  test('by KILL at random moments: key and certificate belong together, nothing hidden is left', async t => {
    const kills = async (): Promise<void> => {
      const paths = await temporaryStore(t)
      await save(paths, first)
      const pairs = join(paths.state, 'pairs')
      writeFileSync(pairs, JSON.stringify([second, third, first]))
      for (let n = 0; n < 5; n++) {
        const saver = spawn(process.execPath, [...child, 'save', join(paths.key, '../..'), pairs], { stdio: ['ignore', 'pipe', 'inherit'] })
        const gone = new Promise(resolve => saver.once('exit', resolve))
        await new Promise(resolve => saver.stdout.once('data', resolve))
        setTimeout(() => saver.kill('SIGKILL'), Math.random() * 40)
        await gone
        await mend(paths, belongTogether)
        await isWhole(paths, [first, second, third], `kill ${n}`)
      }
    }
    await Promise.all([kills(), kills(), kills(), kills()])
  })
})

