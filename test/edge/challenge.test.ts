/** Where challenges are put: the web server's directory and our own listener. */
import assert from 'node:assert/strict'
import { chmodSync, existsSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { duplexPair } from 'node:stream'
import { describe, test, type TestContext } from 'node:test'
import { OperationalError } from '../../src/core/errors.js'
import { allOf, answerer, dropDirectory, listener } from '../../src/edge/challenge.js'
import { until } from '../helpers/until.js'

describe('challengeDropDir', () => {
  async function directory(t: TestContext): Promise<string> {
    const path = await mkdtemp(join(tmpdir(), 'lematt-drop-'))
    t.after(() => rm(path, { recursive: true, force: true }))
    return path
  }
  const solver = (path: string) => {
    const warnings: string[] = []
    return { warnings, ...dropDirectory(path, (message) => warnings.push(message)) }
  }

  test('a file that the web server can read, whatever the umask; gone after cleanUp', async (t) => {
    const path = await directory(t)
    writeFileSync(join(path, 'foreign'), 'not ours')
    const drop = solver(path)
    const umask = process.umask(0o077)
    try {
      await drop.present('TOKEN-_1', 'TOKEN-_1.thumb')
    } finally {
      process.umask(umask)
    }
    assert.equal(readFileSync(join(path, 'TOKEN-_1'), 'utf8'), 'TOKEN-_1.thumb')
    assert.equal(statSync(join(path, 'TOKEN-_1')).mode & 0o7777, 0o644)
    assert.deepEqual(readdirSync(path).sort(), ['TOKEN-_1', 'foreign'])
    await drop.cleanUp('foreign')
    await drop.cleanUp('TOKEN-_1')
    await drop.cleanUp('TOKEN-_1')
    assert.deepEqual(readdirSync(path), ['foreign'])
    assert.deepEqual(drop.warnings, [])
  })

  test('a link of the token’s name is replaced, not followed', async (t) => {
    const path = await directory(t)
    const target = join(path, 'target')
    writeFileSync(target, 'precious')
    symlinkSync(target, join(path, 'TOKEN'))
    await solver(path).present('TOKEN', 'x')
    assert.equal(readFileSync(target, 'utf8'), 'precious')
    assert.equal(readFileSync(join(path, 'TOKEN'), 'utf8'), 'x')
  })

  test('a token presented twice stays until it is cleaned up twice; close removes the rest', async (t) => {
    const path = await directory(t)
    const drop = solver(path)
    await drop.present('A', '1')
    await drop.present('A', '1')
    await drop.present('B', '2')
    await drop.cleanUp('A')
    assert.ok(existsSync(join(path, 'A')))
    await drop.cleanUp('A')
    assert.deepEqual(readdirSync(path), ['B'])
    await drop.close()
    assert.deepEqual(readdirSync(path), [])
  })

  test('present and cleanUp of one token that overlap: what was presented last is there', async (t) => {
    const path = await directory(t)
    const drop = solver(path)
    const hops = async (count: number) => {
      for (let n = 0; n < count; n++) await new Promise(setImmediate)
    }
    let lost = 0
    for (let n = 0; n < 300; n++) {
      await drop.present('T', 'x')
      // The end of the first at every moment of the second.
      await Promise.all([drop.present('T', 'x'), hops(n % 12).then(() => drop.cleanUp('T'))])
      if (!existsSync(join(path, 'T'))) lost++
      // And the second at every moment of the end of the first.
      await Promise.all([drop.cleanUp('T'), hops(n % 7).then(() => drop.present('T', 'x'))])
      if (!existsSync(join(path, 'T'))) lost++
      await drop.cleanUp('T')
      assert.ok(!existsSync(join(path, 'T')), 'the last one removes it')
    }
    assert.equal(lost, 0)
    assert.deepEqual(readdirSync(path), [])
    assert.deepEqual(drop.warnings, [])
  })

  test('a present that fails takes nothing from the order that shares the token', async (t) => {
    const path = await directory(t)
    let full = false
    const warnings: string[] = []
    const drop = dropDirectory(path, (message) => warnings.push(message), () => full ? Promise.reject(new Error('disk full')) : Promise.resolve())
    await drop.present('T', 'x')
    full = true
    await assert.rejects(drop.present('T', 'x'), /disk full/u)
    assert.deepEqual(readdirSync(path), ['T'])
    // The first is done while another that is going to fail is on its way: nobody is left.
    await Promise.all([assert.rejects(drop.present('T', 'x'), /disk full/u), drop.cleanUp('T')])
    assert.deepEqual(readdirSync(path), [])
    assert.deepEqual(warnings, [])
  })

  test('close waits for what is being written, and removes it', async (t) => {
    const path = await directory(t)
    const drop = solver(path)
    const presenting = drop.present('T', 'x')
    await drop.close()
    await presenting
    assert.deepEqual(readdirSync(path), [])
  })

  test('what is wrong with the directory, and what to do', async (t) => {
    const path = await directory(t)
    const refused = (where: string, message: RegExp) => assert.rejects(solver(where).present('T', 'x'), (error) =>
      error instanceof OperationalError && error.message.startsWith(`challengeDropDir ${where} `)
      && message.test(error.message))
    await refused(join(path, 'none'), /does not exist; create it/u)
    writeFileSync(join(path, 'file'), '')
    await refused(join(path, 'file'), /is not a directory; name/u)
    await mkdir(join(path, 'taken', 'T'), { recursive: true })
    await refused(join(path, 'taken'), /holds a directory with the name of a challenge token/u)
    assert.deepEqual(readdirSync(join(path, 'taken')), ['T'], 'no temp file is left')
  })

  test('a directory that this user cannot write to', async (t) => {
    const path = await directory(t)
    chmodSync(path, 0o555)
    const asRoot = process.geteuid?.() === 0
    try {
      // Root may write everywhere; for this one test we are nobody.
      if (asRoot) process.seteuid?.(65_534)
    } catch {
      t.skip('this root cannot become another user (a user namespace with one uid)')
      return
    }
    try {
      await assert.rejects(solver(path).present('T', 'x'), (error) =>
        error instanceof OperationalError && /is not writable for uid \d+; .*setfacl/u.test(error.message))
    } finally {
      if (asRoot) process.seteuid?.(0)
    }
    assert.deepEqual(readdirSync(path), [])
  })

  test('cleanUp does not throw, but tells', async (t) => {
    const path = await directory(t)
    const drop = solver(path)
    await drop.present('T', 'x')
    await rm(join(path, 'T'))
    await mkdir(join(path, 'T'))
    await drop.cleanUp('T')
    assert.match(drop.warnings.join(), /cannot remove T from .*by hand/u)
  })

  test('a token that could be a path writes nothing', async (t) => {
    const path = await directory(t)
    for (const token of ['../x', '', '.x', 'a/b', 'a\0b']) {
      await assert.rejects(solver(path).present(token, 'x'), TypeError)
    }
    assert.deepEqual(readdirSync(path), [])
  })
})

describe('challengeListen', () => {
  const start = async (t: TestContext) => {
    const server = await listener({ address: '127.0.0.1', port: 0 })
    t.after(() => server.close())
    const ask = async (path: string, method = 'GET') => {
      const answer = await fetch(`http://127.0.0.1:${server.port}${path}`, { method })
      return { status: answer.status, type: answer.headers.get('content-type'), body: await answer.text() }
    }
    return { server, ask }
  }
  const path = '/.well-known/acme-challenge/'

  test('answers for presented tokens, and for nothing else', async (t) => {
    const { server, ask } = await start(t)
    const [absent, there] = [{ status: 404, type: null, body: '' }, 'application/octet-stream']
    assert.deepEqual(await ask(`${path}T`), absent)
    await server.present('T', 'T.thumb')
    await server.present('T', 'T.thumb')
    assert.deepEqual(await ask(`${path}T`), { status: 200, type: there, body: 'T.thumb' })
    assert.deepEqual(await ask(`${path}T`, 'HEAD'), { status: 200, type: there, body: '' })
    for (const other of ['/', path, `${path}U`, `${path}T/`, `${path}T?x`, `${path}constructor`, '/T']) {
      assert.deepEqual(await ask(other), absent, other)
    }
    assert.deepEqual(await ask(`${path}T`, 'POST'), absent)
    await server.cleanUp('T')
    assert.equal((await ask(`${path}T`)).status, 200)
    await server.cleanUp('T')
    assert.deepEqual(await ask(`${path}T`), absent)
    await assert.rejects(async () => server.present('../x', 'y'), TypeError)
  })

  test('endless headers are cut, and close waits for nobody', async (t) => {
    const { server } = await start(t)
    const talk = (text: string) => new Promise<string>((resolve) => {
      let got = ''
      const socket = net.connect(server.port, '127.0.0.1', () => socket.write(text))
      socket.setEncoding('utf8').on('data', (part: string) => { got += part }).on('error', () => undefined)
        .on('close', () => resolve(got))
    })
    assert.match(await talk(`GET / HTTP/1.1\r\nx: ${'a'.repeat(20_000)}`), /^HTTP\/1.1 431 /u)
    const idle = talk('GET / HT')
    await server.close()
    assert.equal(await idle, '')
    await assert.rejects(fetch(`http://127.0.0.1:${server.port}${path}T`))
  })

  test('hundreds of idle connections keep nobody out, and are closed', { timeout: 60_000 }, async (t) => {
    const { server, ask } = await start(t)
    await server.present('T', 'T.thumb')
    const open = new Set<net.Socket>()
    let opened = 0
    let ended = false
    t.after(() => {
      ended = true
      open.forEach(socket => socket.destroy())
    })
    // Some say nothing, some half a request; who is sent away comes back.
    const hold = (n: number) => {
      if (ended) return
      const socket = net.connect(server.port, '127.0.0.1', () => {
        opened++
        if (n % 2 === 0) socket.write('GET /.well-known/acme')
      })
      open.add(socket)
      socket.on('error', () => undefined).on('close', () => {
        open.delete(socket)
        setTimeout(hold, 20, n)
      })
    }
    for (let n = 0; n < 400; n++) hold(n)
    await until(() => opened > 400)
    for (let n = 0; n < 30; n++) assert.equal((await ask(`${path}T`)).body, 'T.thumb', `question ${n}`)
    ended = true
    const from = performance.now()
    await until(() => open.size === 0, { ms: 8000, what: 'the idle ones are closed' })
    assert.ok(performance.now() - from > 2000, 'they had time for a request')
    assert.equal((await ask(`${path}T`)).status, 200)
  })

  test('an address that cannot be had', async (t) => {
    const { server } = await start(t)
    await assert.rejects(listener({ address: '127.0.0.1', port: server.port }), (error) =>
      error instanceof OperationalError && /challengeListen 127\.0\.0\.1:\d+ is in use by another/u.test(error.message))
    await assert.rejects(listener({ address: '192.0.2.1', port: 8080 }), (error) =>
      error instanceof OperationalError && /192\.0\.2\.1:8080 is not an address of this machine/u.test(error.message))
  })
})

describe('answers on connections that others have accepted, as those of a tunnel', () => {
  const path = '/.well-known/acme-challenge/'
  /** What came back until the end of the connection. */
  function ask(answers: ReturnType<typeof answerer>, request: string): Promise<string> {
    const [ours, theirs] = duplexPair()
    answers.accept(ours)
    theirs.write(request)
    let got = ''
    return new Promise((resolve) => {
      theirs.setEncoding('utf8').on('data', (part: string) => { got += part }).on('error', () => undefined)
      theirs.on('end', () => theirs.destroy()).on('close', () => resolve(got))
      // Node 20 does not tell the other side.
      ours.on('close', () => theirs.destroy())
    })
  }
  const noWarning = (message: string) => assert.equal(message, undefined)
  const get = (url: string) => `GET ${url} HTTP/1.0\r\nHost: a.example\r\n\r\n`

  test('the presented token, nothing else, and nothing after close', async (t) => {
    const answers = answerer()
    t.after(() => answers.close())
    await answers.present('T', 'T.thumb')
    const all = await Promise.all(Array.from({ length: 50 }, () => ask(answers, get(`${path}T`))))
    for (const one of all) assert.match(one, /^HTTP\/1\.1 200 OK\r\n[^]*\r\n\r\nT\.thumb$/u)
    assert.match(await ask(answers, get('/')), /^HTTP\/1\.1 404 /u)
    assert.match(await ask(answers, 'no HTTP at all\r\n\r\n'), /^HTTP\/1\.1 400 /u)
    assert.doesNotMatch(await ask(answers, `CONNECT ${path}T HTTP/1.1\r\nHost: a.example\r\n\r\n`), /thumb/u)
    await answers.cleanUp('T')
    assert.match(await ask(answers, get(`${path}T`)), /^HTTP\/1\.1 404 /u)
    await answers.present('T', 'T.thumb')
    const idle = ask(answers, 'GET /')
    await answers.close()
    assert.equal(await idle, '')
    assert.equal(await ask(answers, get(`${path}T`)), '', 'closed is closed')
  })

  test('a connection that breaks off takes nobody with it', async (t) => {
    const answers = answerer()
    t.after(() => answers.close())
    const [ours] = duplexPair()
    answers.accept(ours)
    ours.destroy(new Error('the connection was lost'))
    assert.match(await ask(answers, get('/')), /^HTTP\/1\.1 404 /u)
  })

  test('all of several ways: presented in each, and in none when one of them cannot', async (t) => {
    const directory = await mkdtemp(join(tmpdir(), 'lematt-all-'))
    t.after(() => rm(directory, { recursive: true, force: true }))
    const answers = answerer()
    const both = allOf(answers, dropDirectory(directory, noWarning))
    await both.present('T', 'T.thumb')
    assert.deepEqual(readdirSync(directory), ['T'])
    assert.match(await ask(answers, get(`${path}T`)), /T\.thumb$/u)
    await both.cleanUp('T')
    assert.deepEqual(readdirSync(directory), [])
    assert.match(await ask(answers, get(`${path}T`)), /^HTTP\/1\.1 404 /u)

    const one = allOf(answers, dropDirectory(join(directory, 'none'), noWarning))
    await assert.rejects(one.present('U', 'U.thumb'), OperationalError)
    assert.match(await ask(answers, get(`${path}U`)), /^HTTP\/1\.1 404 /u)

    await both.present('V', 'V.thumb')
    await both.close()
    assert.deepEqual(readdirSync(directory), [])
    assert.equal(await ask(answers, get(`${path}V`)), '')
  })
})
