import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer, request } from 'node:http'
import { connect, createServer as createTcpServer, type AddressInfo, type Socket } from 'node:net'
import { networkInterfaces } from 'node:os'
import { dirname, join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { buildLeforward, startLeforward, type Forwarder } from '../helpers/leforward.js'
import { run } from '../helpers/run.js'
import { until } from '../helpers/until.js'

const base = 'http://central.example'
const token = 'LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0'
const path = `/.well-known/acme-challenge/${token}`
const root = process.getuid?.() === 0
const ipv6 = Object.values(networkInterfaces()).flat().some((address) => address?.address === '::1')

let built: Awaited<ReturnType<typeof buildLeforward>>
before(async () => {
  built = await buildLeforward()
})
after(() => built.remove())

/** Sends raw bytes and gives back all that comes until the connection is closed. */
function raw(port: number, text: string, address = '127.0.0.1'): Promise<string> {
  return new Promise((resolve) => {
    let answer = ''
    const socket = connect(port, address, () => socket.write(text))
    socket.setEncoding('latin1').on('data', (data: string) => {
      answer += data
    })
    socket.on('error', () => undefined)
    socket.on('close', () => resolve(answer))
  })
}

function get(port: number, url: string, method = 'GET', address = '127.0.0.1'):
Promise<{ status: number, location: string | undefined, body: string }> {
  return new Promise((resolve, reject) => {
    const sent = request({ host: address, port, path: url, method, agent: false, timeout: 10_000 }, (response) => {
      let body = ''
      response.setEncoding('utf8').on('data', (data: string) => {
        body += data
      })
      response.on('end', () => resolve({ status: response.statusCode ?? 0, location: response.headers.location, body }))
    })
    sent.on('error', reject)
    sent.end()
  })
}

/** Connections that never get as far as a request; closed by `close`. */
async function idle(port: number, count: number, text: string): Promise<{ open: () => number, close: () => void }> {
  const sockets = await Promise.all(Array.from({ length: count }, () => new Promise<Socket>((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.write(text)
      resolve(socket)
    })
    socket.on('error', () => undefined).resume()
  })))
  return {
    open: () => sockets.filter((socket) => !socket.destroyed).length,
    close: () => sockets.forEach((socket) => socket.destroy()),
  }
}

function alive(pid: number): boolean {
  try {
    // A zombie, too, has ended.
    return !/^State:\s+Z/mu.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}

describe('answers', () => {
  let forwarder: Forwarder
  before(async () => {
    forwarder = await startLeforward(built.path, ['--baseurl', base, '--port', '0'])
  })
  after(() => forwarder.stop())

  test('a challenge is redirected, exactly, for GET and HEAD, also of HTTP/1.0', async () => {
    assert.equal(forwarder.stdout(), `leforward: port ${forwarder.port} → ${base}\n`)
    for (const method of ['GET', 'HEAD']) {
      assert.deepEqual(await get(forwarder.port, path, method), { status: 301, location: base + path, body: '' })
    }
    const old = await raw(forwarder.port, `GET ${path} HTTP/1.0\r\n\r\n`)
    assert.match(old, /^HTTP\/1\.1 301 [^]*\r\nlocation: http:\/\/central\.example\/\.well-known[^]*\r\n\r\n$/iu)
    assert.match(old, /\r\nconnection: close\r\n/iu)
    assert.match(await raw(forwarder.port, `GET ${path} HTTP/1.1\r\n\r\n`), /^HTTP\/1\.1 301 /u)
    const longest = 'x'.repeat(128)
    assert.equal((await get(forwarder.port, `/.well-known/acme-challenge/${longest}`)).status, 301)
  })

  test('everything else is 404 without a body or a location', async () => {
    const others: [string, string][] = [
      ['GET', '/'], ['GET', '/.well-known/acme-challenge/'], ['GET', '/.well-known/acme-challenge'],
      ['GET', `${path}/`], ['GET', `${path}?x=1`], ['GET', `${path}%0d%0aX:1`], ['GET', `/x${path}`],
      ['GET', `/.well-known/acme-challenge/../${token}`], ['GET', `/.well-known/acme-challenge/${token}/../x`],
      ['GET', `/.well-known/acme-challenge/${'x'.repeat(129)}`], ['GET', `http://127.0.0.1${path}`],
      ['GET', `//evil.example${path}`], ['GET', `/.WELL-KNOWN/acme-challenge/${token}`],
      ['POST', path], ['PUT', path], ['DELETE', path], ['OPTIONS', path], ['TRACE', path], ['PROPFIND', path],
    ]
    for (const [method, url] of others) {
      assert.deepEqual(await get(forwarder.port, url, method), { status: 404, location: undefined, body: '' },
        `${method} ${url}`)
    }
  })

  test('what is not HTTP, too large, or asks for more is 404 without a body, and then closed', async () => {
    const head = `GET ${path} HTTP/1.1\r\nHost: a\r\n`
    const requests = [
      'hello\r\n\r\n', '\u0016\u0003\u0001\u0002\u0000', `GET ${path} HTTP/9.9\r\n\r\n`,
      `${head}X: ${'x'.repeat(9000)}\r\n\r\n`, `${head}${'Xxxx: yyyy\r\n'.repeat(3000)}\r\n`,
      `GET /${'x'.repeat(20_000)} HTTP/1.1\r\n\r\n`, `CONNECT central.example:443 HTTP/1.1\r\nHost: a\r\n\r\n`,
      `POST ${path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n`,
      `POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n`,
    ]
    for (const text of requests) {
      const answer = await raw(forwarder.port, text)
      assert.match(answer, /^HTTP\/1\.1 404 Not Found\r\n(?:[^\r\n]+\r\n)+\r\n$/u, text.slice(0, 60))
      assert.doesNotMatch(answer, /location|keep-alive|100 Continue/iu)
    }
  })

  test('a connection is answered once: what is pipelined behind is not', async () => {
    const answer = await raw(forwarder.port, `GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`.repeat(3))
    assert.equal(answer.split('HTTP/1.1 301').length - 1, 1)
  })

  test('each request is one line of the log, with its client and no control characters', async () => {
    const before = forwarder.stderr().length
    await raw(forwarder.port, `GET /\u001b[31m\u0080x${'y'.repeat(500)} HTTP/1.1\r\nHost: a\r\n\r\n`)
    await get(forwarder.port, path)
    await until(() => forwarder.stderr().slice(before).includes(`leforward: 127.0.0.1 GET ${path} 301\n`))
    const lines = forwarder.stderr().slice(before).trimEnd().split('\n')
    assert.equal(lines.length, 2)
    for (const line of lines) {
      assert.match(line, /^leforward: 127\.0\.0\.1 [ -~…]+ (?:301|404)$/u)
      assert.ok(line.length < 300)
    }
  })

  test('IPv6 is served by the same socket', { skip: ipv6 ? false : 'needs IPv6 on lo' }, async () => {
    assert.equal((await get(forwarder.port, path, 'GET', '::1')).location, base + path)
  })
})

describe('slow and hostile clients', () => {
  test('1000 connections that never end their request do not keep a CA waiting', async () => {
    const forwarder = await startLeforward(built.path, ['--baseurl', base, '--port', '0'])
    try {
      const kinds = await Promise.all([
        idle(forwarder.port, 500, ''), idle(forwarder.port, 500, `GET ${path} HTTP/1.1\r\nX: `),
      ])
      const start = Date.now()
      const answers = await Promise.all(Array.from({ length: 6 }, () => get(forwarder.port, path)))
      assert.deepEqual(answers.map((answer) => answer.status), Array<number>(6).fill(301))
      assert.ok(Date.now() - start < 2000, `answered after ${Date.now() - start} ms`)
      // Bounded in number at once (the oldest go) …
      await until(() => kinds.reduce((sum, kind) => sum + kind.open(), 0) <= 256, { ms: 2000 })
      // … and none lives longer than 5 s, with nothing further asked.
      await until(() => kinds.every((kind) => kind.open() === 0), { ms: 8000 })
      assert.equal(forwarder.child.exitCode, null)
      kinds.forEach((kind) => kind.close())
    } finally {
      await forwarder.stop()
    }
  })

  test('a flood of requests is answered but not logged line by line', async () => {
    const forwarder = await startLeforward(built.path, ['--baseurl', base, '--port', '0'])
    try {
      for (let i = 0; i < 20; i += 1) {
        await Promise.all(Array.from({ length: 40 }, () => get(forwarder.port, path)))
      }
      const lines = forwarder.stderr().split('\n').length
      assert.ok(lines >= 100 && lines < 400, `${lines} lines for 800 requests`)
      await until(async () => {
        await get(forwarder.port, path)
        return /leforward: \d+ more requests, too many to log/u.test(forwarder.stderr())
      })
    } finally {
      await forwarder.stop()
    }
  })

  test('clients that reset the connection, also after a CONNECT, do not end it', async () => {
    const forwarder = await startLeforward(built.path, ['--baseurl', base, '--port', '0'])
    try {
      for (const text of ['CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n', `GET ${path} HTTP/1.1\r\n`, 'nonsense\r\n\r\n']) {
        await Promise.all(Array.from({ length: 20 }, () => new Promise<void>((resolve) => {
          const socket = connect(forwarder.port, '127.0.0.1', () => {
            socket.write(text, () => socket.resetAndDestroy())
          })
          socket.on('error', () => undefined).once('close', () => resolve())
        })))
      }
      assert.equal((await get(forwarder.port, path)).status, 301)
      assert.equal(forwarder.child.exitCode, null)
    } finally {
      await forwarder.stop()
    }
  })
})

describe('usage', () => {
  const bad: [string, string[]][] = [
    ['no arguments', []],
    ['unknown option', ['--baseurl', base, '--nope']],
    ['a word too many', ['--baseurl', base, 'http://x']],
    ['no scheme', ['--baseurl', 'central.example']],
    ['ftp', ['--baseurl', 'ftp://central.example']],
    ['no host', ['--baseurl', 'http://']],
    ['empty host with path', ['--baseurl', 'http:///x']],
    ['user', ['--baseurl', 'http://user@central.example']],
    ['empty user', ['--baseurl', 'http://@central.example']],
    ['password', ['--baseurl', 'http://u:p@central.example']],
    ['port 8080', ['--baseurl', 'http://central.example:8080']],
    ['port 81', ['--baseurl', 'https://central.example:81']],
    ['query', ['--baseurl', 'http://central.example/?a=b']],
    ['empty query', ['--baseurl', 'http://central.example/?']],
    ['fragment', ['--baseurl', 'http://central.example/#x']],
    ['line feed', ['--baseurl', 'http://central.example/\r\nX: y']],
    ['blank', ['--baseurl', ' http://central.example']],
    ['tab in the host', ['--baseurl', 'http://cen\ttral.example']],
    ['backslash', ['--baseurl', 'http://central.example\\@evil.example']],
    ['not ASCII', ['--baseurl', 'http://zentrale-köln.example']],
    ['too long', ['--baseurl', `http://central.example/${'x'.repeat(1000)}`]],
    ['bad port', ['--baseurl', base, '--port', '65536']],
    ['port of words', ['--baseurl', base, '--port', 'http']],
    ['bind to a name', ['--baseurl', base, '--bind', 'localhost']],
    ['minutes', ['--baseurl', base, '--minutes', '61']],
    ['no minutes', ['--baseurl', base, '--minutes', '0']],
    ['--ssh without --allow', ['--ssh']],
    ['--ssh with --baseurl', ['--ssh', '--allow', base, '--baseurl', base]],
    ['--allow without --ssh', ['--allow', base, '--baseurl', base]],
    ['--allow that no CA follows', ['--ssh', '--allow', 'http://central.example:8080']],
  ]
  test('what cannot work is refused with exit 2 and a reason, and nothing listens', async () => {
    const results = await Promise.all(bad.map(async ([what, args]) => {
      // The environment would be fine: only the arguments are wrong.
      const env = { ...process.env, SSH_ORIGINAL_COMMAND: base }
      return { what, ...await run(built.path, [...args, ...args.includes('--port') ? [] : ['--port', '0']], { env }) }
    }))
    for (const { what, code, stdout, stderr } of results) {
      assert.equal(code, 2, `${what}: ${stderr}`)
      assert.match(stderr, /^leforward: [^\n]{10,}/u, what)
      assert.doesNotMatch(stderr, /\n\s+at /u, what)
      assert.equal(stdout, '', what)
    }
  })

  test('--help', async () => {
    const { code, stdout, stderr } = await run(built.path, ['--help'])
    assert.deepEqual([code, stderr], [0, ''])
    assert.match(stdout, /^usage: leforward --baseurl URL/u)
  })

  test('a base URL may have a path, a standard port and a final slash', async () => {
    const cases = [
      ['http://central.example/', 'http://central.example'], ['HTTP://Central.Example:80', 'http://central.example'],
      ['https://central.example:443/a/b//', 'https://central.example/a/b'],
      ['http://[2001:db8::1]', 'http://[2001:db8::1]'],
    ]
    await Promise.all(cases.map(async ([given = '', wanted = '']) => {
      const forwarder = await startLeforward(built.path, ['--baseurl', given, '--port', '0', '--bind', '127.0.0.1'])
      try {
        assert.equal((await get(forwarder.port, path)).location, wanted + path)
      } finally {
        await forwarder.stop()
      }
    }))
  })

  test('a port in use is named, with exit 1', async () => {
    const server = createServer()
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    const ran = await run(built.path, ['--baseurl', base, '--port', String(port), '--bind', '127.0.0.1'])
    server.close()
    assert.equal(ran.code, 1)
    assert.match(ran.stderr, new RegExp(`^leforward: port ${port} is in use; .*remote-hosts\\.md\n$`, 'u'))
    assert.equal(ran.stdout, '')
  })
})

describe('as a forced command', () => {
  const start = (asked: string | undefined, ...allow: string[]) => startLeforward(built.path,
    ['--ssh', '--port', '0', '--bind', '127.0.0.1', ...allow.flatMap((url) => ['--allow', url])],
    { SSH_ORIGINAL_COMMAND: asked })

  test('the URL asked for, in any of its spellings, is used when it is allowed', async () => {
    for (const asked of [base, `${base}/`, 'HTTP://CENTRAL.EXAMPLE:80']) {
      const forwarder = await start(asked, 'https://other.example/x', `${base}/`)
      try {
        assert.equal((await get(forwarder.port, path)).location, base + path)
      } finally {
        await forwarder.stop()
      }
    }
  })

  test('anything else is refused with exit 2, and no shell reads it', async () => {
    const asked = [
      undefined, '', ' ', 'https://central.example', 'http://evil.example', 'http://central.example.evil.example',
      'http://central.example/x', 'http://central.example:443', 'http://central.example@evil.example',
      `${base} ${base}`,
      `${base}\nhttp://evil.example`, `${base}; touch /tmp/lematt-pwned`, '$(touch /tmp/lematt-pwned)',
      '`touch /tmp/lematt-pwned`', `--baseurl ${base}`, '--help', `leforward ${base}`, 'sh', 'x'.repeat(5000),
      'http://central.example\u001b[2J', 'internal-sftp', 'rsync --server . /',
    ]
    const results = await Promise.all(asked.map(async (command) => {
      const env = { ...process.env, SSH_ORIGINAL_COMMAND: command }
      return { command, ...await run(built.path, ['--ssh', '--port', '0', '--allow', base], { env }) }
    }))
    for (const { command, code, stdout, stderr } of results) {
      assert.equal(code, 2, `${command}: ${stderr}`)
      assert.equal(stdout, '')
      assert.match(stderr, /^leforward: [ -~…]{10,500}\n$/u)
    }
    assert.equal(existsSync('/tmp/lematt-pwned'), false)
  })
})

/** Its exit code; a forwarder that does not end by itself is ended, and the test fails. */
async function exitCode(forwarder: Forwarder): Promise<number | null> {
  try {
    await until(() => forwarder.child.exitCode !== null, { ms: 5000, what: 'the forwarder ends by itself' })
    return await forwarder.ended
  } finally {
    await forwarder.stop()
  }
}

describe('its end', { concurrency: 4 }, () => {
  const args = ['--baseurl', base, '--port', '0', '--bind', '127.0.0.1']
  const refusesConnections = async (port: number) => {
    const answer = await raw(port, `GET ${path} HTTP/1.0\r\n\r\n`)
    assert.equal(answer, '')
  }

  for (const signal of ['SIGHUP', 'SIGTERM', 'SIGINT'] as const) {
    test(`on ${signal}, with connections open`, async () => {
      const forwarder = await startLeforward(built.path, args)
      const held = await idle(forwarder.port, 3, 'GET ')
      forwarder.child.kill(signal)
      assert.equal(await exitCode(forwarder), 0)
      assert.match(forwarder.stderr(), new RegExp(`leforward: ended \\(${signal}\\)\n$`, 'u'))
      await refusesConnections(forwarder.port)
      held.close()
    })
  }

  test('with its standard input, as an SSH session or a pipe ends', async () => {
    for (const given of [args, ['--ssh', '--allow', base, '--port', '0', '--bind', '127.0.0.1']]) {
      const forwarder = await startLeforward(built.path, given, { SSH_ORIGINAL_COMMAND: base })
      forwarder.child.stdin?.write('ignored\n')
      assert.equal((await get(forwarder.port, path)).status, 301)
      forwarder.child.stdin?.end()
      assert.equal(await exitCode(forwarder), 0)
      await refusesConnections(forwarder.port)
    }
  })

  test('not with /dev/null as standard input, as cron and systemd give it', async () => {
    const forwarder = await startLeforward(built.path, args, {}, ['ignore', 'pipe', 'pipe'])
    try {
      assert.equal((await get(forwarder.port, path)).status, 301)
      // Two rounds of looking for the parent later it still serves.
      const until1s = Date.now() + 1100
      await until(() => Date.now() > until1s)
      assert.equal((await get(forwarder.port, path)).status, 301)
    } finally {
      await forwarder.stop()
    }
  })

  test('after its minutes', async () => {
    const forwarder = await startLeforward(built.path, [...args, '--minutes', '0.01'])
    assert.equal(await exitCode(forwarder), 0)
    assert.match(forwarder.stderr(), /ended \(0\.01 minutes are over\)/u)
    await refusesConnections(forwarder.port)
  })

  test('when its parent is killed with -9, without a standard input that would end', async () => {
    // The parent in the middle hands down /dev/null and our pipes, which stay open when it is gone.
    const script = 'const c = require("node:child_process").spawn(process.argv[1], process.argv.slice(2), '
      + '{ stdio: "inherit" }); console.log("pid " + c.pid)'
    const parent = spawn(process.execPath, ['-e', script, built.path, ...args],
      { stdio: ['ignore', 'pipe', 'pipe'] })
    parent.stderr.resume()
    let out = ''
    parent.stdout.setEncoding('utf8').on('data', (text: string) => {
      out += text
    })
    await until(() => out.includes('pid') && out.includes('→'))
    const pid = Number(/pid (\d+)/u.exec(out)?.[1])
    const port = Number(/port (\d+)/u.exec(out)?.[1])
    assert.equal((await get(port, path)).status, 301)
    try {
      parent.kill('SIGKILL')
      await until(() => !alive(pid), { ms: 5000 })
      await refusesConnections(port)
    } finally {
      if (alive(pid)) process.kill(pid)
    }
  })
})

describe('port 80 without root', () => {
  const sudo = { SUDO_UID: '65534', SUDO_GID: '65533', SUDO_USER: 'nobody' }
  const ids = (pid: number | undefined) => Object.fromEntries(readFileSync(`/proc/${pid}/status`, 'utf8').split('\n')
    .filter((line) => /^(?:Uid|Gid|Groups|CapEff):/u.test(line))
    .map((line) => [line.split(':')[0] ?? '', (line.split(':')[1] ?? '').trim()]))

  /** Who serves: a child, where Node may not become anybody itself. */
  const serving = (pid: number | undefined) => Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim() || pid)
  const nobody = {
    Uid: '65534\t65534\t65534\t65534', Gid: '65533\t65533\t65533\t65533', Groups: '', CapEff: '0000000000000000',
  }

  test('where Node may not become the calling user (Debian 13) a child is it, and ends with us', {
    skip: root ? false : 'needs root',
  }, async () => {
    chmodSync(dirname(built.path), 0o755)
    const refusing = join(dirname(built.path), 'refusing.cjs')
    writeFileSync(refusing, "process.setgroups = () => { throw Object.assign(new Error('disabled'), { code: 'ERR_INVALID_STATE' }) }\n")
    const port = 940 + process.pid % 40
    const forwarder = await startLeforward('setpriv', ['--groups', '4,27', '--', built.path, '--baseurl', base,
      '--port', String(port), '--bind', '127.80.80.81'], { ...sudo, NODE_OPTIONS: `--require ${refusing}` })
    try {
      assert.notEqual(serving(forwarder.child.pid), forwarder.child.pid)
      assert.deepEqual(ids(serving(forwarder.child.pid)), nobody)
      assert.equal((await get(port, path, 'GET', '127.80.80.81')).location, base + path)
      assert.doesNotMatch(forwarder.stderr(), /serving as root/u)
      process.kill(forwarder.child.pid ?? 0, 'SIGKILL')
      await until(() => get(port, path, 'GET', '127.80.80.81').then(() => false, () => true), { what: 'the port to be free again' })
    } finally {
      await forwarder.stop()
    }
  })

  test('started by sudo it binds as root and then is the calling user for good', {
    skip: root ? false : 'needs root',
  }, async () => {
    chmodSync(dirname(built.path), 0o755)
    // A port below 1024 on an address of its own is what root is for here.
    const port = 980 + process.pid % 40
    const forwarder = await startLeforward('setpriv', ['--groups', '4,27', '--', built.path, '--baseurl', base,
      '--port', String(port), '--bind', '127.80.80.80'], sudo)
    try {
      assert.deepEqual(ids(serving(forwarder.child.pid)), nobody)
      assert.equal((await get(port, path, 'GET', '127.80.80.80')).location, base + path)
      assert.doesNotMatch(forwarder.stderr(), /serving as root/u)
    } finally {
      await forwarder.stop()
    }
  })

  test('if it cannot become the calling user it serves nobody', { skip: root ? false : 'needs root' }, async () => {
    for (const broken of [{ SUDO_UID: 'x', SUDO_GID: '1' }, { SUDO_UID: '65534' }, { SUDO_UID: '-1', SUDO_GID: '1' }]) {
      const ran = await run(built.path, ['--baseurl', base, '--port', '0'], { env: { ...process.env, ...broken } })
      assert.equal(ran.code, 1)
      assert.match(ran.stderr, /^leforward: SUDO_UID or SUDO_GID is not a number/u)
      assert.equal(ran.stdout, '')
    }
    // Root in name only, without the right to become somebody else.
    const capless = await run('setpriv', ['--bounding-set=-setuid,-setgid', '--inh-caps=-all', '--', built.path,
      '--baseurl', base, '--port', '0'], { env: { ...process.env, ...sudo } })
    assert.equal(capless.code, 1)
    assert.match(capless.stderr, /cannot become user 65534: .*not serving as root\n$/u)
    assert.equal(capless.stdout, '')
  })

  test('a socket that systemd has bound is served', {
    skip: existsSync('/usr/bin/systemd-socket-activate') ? false : 'needs systemd-socket-activate',
  }, async () => {
    const probe = createTcpServer()
    await new Promise<void>((resolve) => probe.listen(0, '127.0.0.1', resolve))
    const { port } = probe.address() as AddressInfo
    await new Promise((resolve) => probe.close(resolve))
    const child = spawn('systemd-socket-activate', ['-l', `127.0.0.1:${port}`, built.path, '--baseurl', base],
      { stdio: ['ignore', 'pipe', 'pipe'] })
    let out = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      out += text
    })
    child.stderr.resume()
    const ended = new Promise((resolve) => child.once('close', resolve))
    try {
      await until(async () => (await get(port, path).catch(() => undefined))?.location === base + path)
      assert.equal(out, `leforward: port ${port} → ${base}\n`)
    } finally {
      child.kill('SIGTERM')
      await ended
    }
  })

  test('sockets for another process are not touched', async () => {
    const forwarder = await startLeforward(built.path, ['--baseurl', base, '--port', '0', '--bind', '127.0.0.1'],
      { LISTEN_PID: '1', LISTEN_FDS: '1' })
    try {
      assert.equal((await get(forwarder.port, path)).status, 301)
    } finally {
      await forwarder.stop()
    }
  })
})
