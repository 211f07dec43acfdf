// The tests' own ground: what the end-to-end tests rely on, and that a lab leaves nothing behind.
import { axios, Client, crypto } from 'acme-client'
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { Agent } from 'node:https'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { Lab, labSkip } from './helpers/lab.js'
import { run } from './helpers/lab-process.js'
import { until } from './helpers/until.js'

describe('a lab', { skip: labSkip() }, () => {
  let lab: Lab
  before(async () => { lab = await Lab.open() })
  after(async () => { await lab.close() })

  test('names resolve as the lab says, and unknown ones fail at once', async () => {
    await lab.dns.set('one.example.com', ['10.20.250.1'])
    const known = await lab.run('getent', ['ahosts', 'one.example.com'])
    assert.match(known.stdout, /^10\.20\.250\.1 /)
    await lab.dns.set('one.example.com', ['10.20.250.2'])
    assert.match((await lab.run('getent', ['ahosts', 'one.example.com'])).stdout, /^10\.20\.250\.2 /)
    await lab.dns.clear('one.example.com')
    const started = Date.now()
    const unknown = await lab.run('getent', ['ahosts', 'one.example.com'])
    assert.equal(unknown.code, 2)
    assert.equal(unknown.stdout, '')
    assert.ok(Date.now() - started < 1500, 'no name server was waited for')
    // This process itself keeps the machine's resolver.
    assert.doesNotMatch(readFileSync('/etc/resolv.conf', 'utf8'), new RegExp(lab.address.replaceAll('.', '\\.')))
  })

  test('two labs at once have networks and names of their own', async () => {
    const other = await Lab.open()
    try {
      assert.notEqual(other.address, lab.address)
      const [here, there] = await Promise.all([lab.host('www'), other.host('www')])
      for (const [at, host] of [[lab, here], [other, there]] as const) {
        await at.dns.set('www.example.com', [host.address])
        const { stdout } = await at.run('getent', ['ahosts', 'www.example.com'])
        assert.ok(stdout.startsWith(`${host.address} `), stdout)
      }
    } finally {
      await other.close()
    }
  })

  test('a host has an address, a name, IPv6 and further addresses; unplugged it is unreachable', async () => {
    const extra = `192.0.2.${lab.network.number}`
    const host = await lab.host('mail', { addresses: [`${extra}/32`] })
    assert.equal((await host.exec('hostname')).stdout, 'mail\n')
    await host.nginx('server { listen *:80; listen [::]:80; return 200 "I am $server_addr\\n"; }', [80])
    for (const [url, address] of [[host.address, host.address], [`[${host.address6}]`, host.address6], [extra, extra]]) {
      const answer = await fetch(`http://${url ?? ''}/`)
      assert.equal(await answer.text(), `I am ${address ?? ''}\n`)
    }
    await host.unplug()
    await assert.rejects(fetch(`http://${host.address}/`, { signal: AbortSignal.timeout(200) }))
    await host.plug()
    await until(async () => fetch(`http://${host.address}/`).then(answer => answer.ok, () => false))
  })

  test('ssh by alias runs what the key allows; another key is refused', async () => {
    const host = await lab.host('db')
    await host.sshd({ keys: { db: 'restrict,command="echo \\"$SSH_ORIGINAL_COMMAND\\" in $HOME"' } })
    const other = await lab.host('db2')
    await other.sshd({ keys: { db2: 'restrict,command="hostname"' } })
    const allowed = await lab.run('ssh', ['-F', lab.sshConfig, 'db', 'rm', '-rf'])
    assert.equal(allowed.stdout, `rm -rf in ${host.dir}/home\n`, allowed.stderr)
    assert.equal((await lab.run('ssh', ['-F', lab.sshConfig, 'db2', 'rm', '-rf'])).stdout, 'db2\n')
    // A key of one host opens no other.
    const refused = await lab.run('ssh', ['-F', lab.sshConfig, '-o', `HostName=${other.address}`, '-o',
      'StrictHostKeyChecking=no', 'db', 'id'])
    assert.equal(refused.code, 255)
    assert.equal(refused.stdout, '')
    assert.match(refused.stderr, /Permission denied \(publickey\)/)
  })

  test('a host that is stopped takes all its processes along', async () => {
    const host = await lab.host('old')
    const marker = `6${String(process.pid)}${String(lab.network.number)}`
    await host.must('sh', ['-c', `setsid sleep ${marker} >/dev/null 2>&1 &`])
    const alive = async () => (await run('pgrep', ['-f', `^sleep ${marker}$`])).code === 0
    await until(alive)
    await host.stop()
    await until(async () => !(await alive()))
  })

  test('Pebble validates http-01 through nginx, and a TLS server shows the certificate after a reload', async () => {
    const root = join(lab.dir, 'challenges')
    mkdirSync(root)
    await lab.nginx({ root })
    const pebble = await lab.pebble()
    const name = 'shop.example.com'
    await lab.dns.set(name, [lab.address])
    axios.defaults.httpsAgent = new Agent({ ca: pebble.roots })
    const client = new Client({ directoryUrl: pebble.directoryUrl, accountKey: await crypto.createPrivateEcdsaKey() })
    const [key, csr] = await crypto.createCsr({ commonName: name }, await crypto.createPrivateEcdsaKey())
    const present = { seen: 0 }
    const cert = await client.auto({
      csr, termsOfServiceAgreed: true, skipChallengeVerification: true, challengePriority: ['http-01'],
      challengeCreateFn: async (_authz, challenge, keyAuthorization) => {
        present.seen++
        writeFileSync(join(root, challenge.token), keyAuthorization)
        return Promise.resolve()
      },
      challengeRemoveFn: async (_authz, challenge) => {
        rmSync(join(root, challenge.token))
        return Promise.resolve()
      },
    })
    assert.equal(present.seen, 1)
    assert.deepEqual(readdirSync(root), [])

    const host = await lab.host('shop')
    const pair = { key: join(host.dir, 'tls', 'key.pem'), cert: join(host.dir, 'tls', 'cert.pem') }
    const server = await host.tlsServer([name], [pair])
    const shown = async () => {
      const { stdout } = await lab.run('sh', ['-c',
        `openssl s_client -connect ${host.address}:443 -servername ${name} 2>&1 | openssl x509 -noout -ext subjectAltName`])
      return stdout
    }
    assert.doesNotMatch(await shown(), /shop\.example\.com/)
    writeFileSync(pair.cert, cert)
    writeFileSync(pair.key, key)
    await server.reload()
    await until(async () => (await shown()).includes(`DNS:${name}`))
    assert.match(await pebble.issuerRoot(), /BEGIN CERTIFICATE/)
  })
})

test('a closed lab leaves no process, no network and no file behind', { skip: labSkip() }, async () => {
  const lab = await Lab.open()
  const left = async () => [
    (await run('pgrep', ['-af', lab.dir])).stdout.trim(),
    (await run('sh', ['-c', `ip -o link | grep ${lab.network.bridge}[h:]`])).stdout.trim(),
    existsSync(lab.dir) ? lab.dir : '',
  ].filter(text => text !== '')
  try {
    const host = await lab.host('gone')
    await host.sshd({ keys: {} })
    await host.nginx('server { listen 80; }', [80])
    await lab.nginx({ root: lab.dir })
    await lab.pebble()
    await host.must('sh', ['-c', 'setsid sleep 600 >/dev/null 2>&1 &'])
    assert.equal((await left()).length, 3, 'an open lab is seen')
  } finally {
    await lab.close()
  }
  assert.deepEqual(await left(), [])
})
