/** lematt-receive and clients that mean no good, or whose stream was damaged: nothing changes, nothing is run or shown. */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { flavours, makeHost, pair, sha256, stream, type Entry, type Host } from '../helpers/receiver.js'

const skip = process.getuid?.() === 0 ? false : 'needs root, to whom receive.conf belongs'
const [certificate, key] = pair('a.example')
const renewed = pair('a.example')
const [wrongCertificate] = pair('a.example')

for (const flavour of flavours) {
  describe(`lematt-receive and hostile clients (${flavour})`, { skip }, () => {
    let host: Host
    let files: Record<string, string>
    let around: string[]
    before(async () => {
      host = makeHost(flavour)
      host.configure('names a.example b.* _wildcard.example x?', 'maxbytes 100000', 'maxfiles 20', 'reloadtimeout 10',
        `reload mark ${host.script('mark', `: >${host.base}/ran`)}`, 'forward http://central.example', 'leforward /bin/echo')
      assert.equal((await host.deliver([certificate, key])).code, 0)
      mkdirSync(join(host.key, 'b.directory-key.x.pem'))
      symlinkSync('../outside', join(host.key, 'b.link-key.x.pem'))
      symlinkSync('/etc/hosts', join(host.cert, 'b.link-cert-combined.x.pem'))
      writeFileSync(join(host.base, 'outside'), 'outside')
      files = host.snapshot()
      around = readdirSync(host.base)
    })
    after(() => host.remove())

    /** Nothing has changed, nothing has been run, and no line of a key is in the answer. */
    async function refused(what: string, asked: Promise<{ code: number | null, answer: Record<string, unknown> }>,
      step: string, message: RegExp): Promise<void> {
      const { code, answer } = await asked
      assert.deepEqual([code, answer.ok, answer.step, answer.restored], step === 'refused' ? [2, false, 'refused', undefined]
        : [1, false, step, true], `${what}: ${JSON.stringify(answer)}`)
      assert.match(String(answer.message), message, what)
      for (const line of `${key.text}${renewed[1].text}`.split('\n').filter((text) => text.length > 10 && !text.startsWith('-'))) {
        assert.equal(JSON.stringify(answer).includes(line.slice(0, 12)), false, `${what} shows a key`)
      }
      assert.deepEqual(host.snapshot(), files, what)
      assert.deepEqual(readdirSync(host.base), around, what)
    }

    test('commands', async () => {
      const commands: (string | undefined)[] = [undefined, '', ' ', 'sh', 'bash -i', 'id', 'scp -t .', 'internal-sftp', 'rsync --server . .',
        '-', '--', '-c id', 'DELIVER', 'Deliver mark', 'deliver;id', 'deliver mark;id', 'deliver mark && id', 'deliver mark\nid',
        'deliver $(touch ran)', 'deliver `touch ran`', 'deliver mark|id', 'deliver > ran', 'deliver mark\r', 'deliver\tmark', 'deliver mark\u0007',
        'deliver *', 'deliver m*', 'deliver ?ark', 'deliver [m]ark', 'deliver mar', 'deliver markk', 'deliver ../mark', 'deliver /bin/true',
        'deliver -mark', 'deliver --force', 'deliver mark ssh', 'deliver mark /usr/bin/id', "deliver 'mark'", 'deliver "mark"', 'deliver ~',
        'deliver mark=1', 'deliver \u00e4', 'status mark', 'status -v', 'status ../..', 'forward', 'forward http://evil.example',
        'forward http://central.example http://evil.example', 'forward --baseurl http://evil.example', 'forward http://central.example@evil.example',
        'forward http://central.example --port=1', 'eval id', 'exec id', 'deliver\\', `deliver ${'mark '.repeat(1000)}`, `/bin/sh ${'x'.repeat(5000)}`]
      for (const command of commands) {
        await refused(JSON.stringify(command?.slice(0, 80)), host.ask(command, stream([])), 'refused', /^[ -~]{10,900}$/u)
      }
    })

    test('names', async () => {
      const pem = certificate.text
      const cert = (file: string): Entry => ({ kind: 'cert', file, text: pem })
      const private_ = (file: string): Entry => ({ kind: 'key', file, text: key.text })
      const names = ['../a.example-key.x.pem', '/etc/a.example-key.x.pem', 'x/a.example-key.x.pem', './a.example-key.x.pem', '..', '.',
        '-rf-key.x.pem', '--key.x.pem', '.a.example-key.x.pem', '-key.x.pem', 'a.example-key.pem', 'a.example-key.x.pem.sh', 'a.example-key.x',
        'a.example-key.x.PEM', 'authorized_keys', 'a.example-cert-combined.x.pem', 'a.example-key.x;id.pem', 'a.example-key.$(id).pem',
        'a.example-key.*.pem', 'a.example-key.`id`.pem', 'a.example-key.x.pem\\', 'a.exämple-key.x.pem', 'a\u0007-key.x.pem',
        'a.example-key.x.pem\r', '"a"-key.x.pem', `${'a'.repeat(250)}-key.x.pem`, 'a.example-key..lematt/../x.pem', '~-key.x.pem', '%-key.x.pem']
      for (const name of names) await refused(name, host.deliver([private_(name)], 'mark'), 'input', /rename it in domains|is not an entry/u)
      for (const name of ['a.example key.x.pem', 'a.example-key.x.pem\nkey b.x-key.x.pem', '']) {
        await refused(name, host.deliver([private_(name)], 'mark'), 'input', /is not an entry/u)
      }
      await refused('a key as certificate', host.deliver([cert('a.example-key.x.pem')]), 'input', /not a name for a cert/u)
      for (const name of ['c.example', 'a.example.evil', 'xa.example', 'a-example', 'x', 'xyz', 'b', 'A.example', 'a.example-key.x']) {
        await refused(name, host.deliver([private_(`${name}-key.x.pem`)], 'mark'), 'refused', /does not let .* come to this host; add it there/u)
        const link: Entry = { kind: 'keylink', file: `${name}-key.x.pem`, target: key.file }
        await refused(name, host.deliver([link], 'mark'), 'refused', /does not let .* come to this host/u)
      }
      await refused('twice', host.deliver([private_(key.file), private_(key.file)]), 'input', /comes twice/u)
    })

    test('links, and targets that are no files', async () => {
      const link = (file: string, target: string): Entry => ({ kind: 'keylink', file, target })
      for (const target of ['../outside', '/etc/passwd', '..', '.', '.lematt', './a.example-key.x.pem', '.lematt/lock', '-key.x.pem',
        'authorized_keys', certificate.file, 'a b']) {
        await refused(target, host.deliver([link('b.x-key.x.pem', target)], 'mark'), 'input', /not a name for|is not an entry/u)
      }
      await refused('to itself', host.deliver([link('b.x-key.x.pem', 'b.x-key.x.pem')]), 'input', /a link to a link; deliver again/u)
      await refused('to nothing', host.deliver([link('b.x-key.x.pem', 'b.y-key.x.pem')]), 'input', /is not here; deliver that too/u)
      await refused('to a link', host.deliver([link('b.x-key.x.pem', 'b.link-key.x.pem')]), 'input', /is not here/u)
      const place = (kind: 'key' | 'cert', file: string): Entry => ({ kind, file, text: kind === 'key' ? key.text : certificate.text })
      await refused('a directory', host.deliver([place('key', 'b.directory-key.x.pem')]), 'refused', /b\.directory-key\.x\.pem is in the way, .*; root should see what it is, and remove it/u)
      await refused('a link out', host.deliver([place('key', 'b.link-key.x.pem')]), 'refused', /a link that leads elsewhere; remove it/u)
      await refused('a link out', host.deliver([place('cert', 'b.link-cert-combined.x.pem')]), 'refused', /leads elsewhere/u)
      await refused('a link out', host.deliver([link('b.link-key.x.pem', key.file)]), 'refused', /leads elsewhere/u)
    })

    test('damaged streams', async () => {
      const good = stream(renewed)
      const line = `key ${key.file} 5 ${sha256(key.text)}`
      const table: [string, string | Buffer, RegExp][] = [
        ['nothing', '', /ends in the middle/u], ['one line feed', '\n', /first line/u], ['another version', good.replace(' 1 ', ' 2 '), /first line/u],
        ['no count', 'lematt-deliver 1\nend\n', /first line/u], ['a count below', good.replace(' 1 2', ' 1 1'), /./u],
        ['a count above', good.replace(' 1 2', ' 1 3'), /is not an entry/u], ['too many', `lematt-deliver 1 21\n`, /more than 20 files; raise maxfiles/u],
        ['far too many', `lematt-deliver 1 ${'9'.repeat(40)}\n`, /more than 20 files/u], ['negative', 'lematt-deliver 1 -1\nend\n', /first line/u],
        ['an octal-looking digest', good.replace(sha256(renewed[1].text), '0'.repeat(64)), /wrong SHA-256 of a\.example-key/u],
        ['a digest in capitals', good.replace(sha256(renewed[1].text), sha256(renewed[1].text).toUpperCase()), /not a SHA-256/u],
        ['a short digest', `lematt-deliver 1 1\n${line.slice(0, -1)}\n${key.text}end\n`, /not a SHA-256/u],
        ['no lines', `lematt-deliver 1 1\n${line.replace(' 5 ', ' 0 ')}\nend\n`, /wrong number of lines/u],
        ['a wrong number', `lematt-deliver 1 1\n${line.replace(' 5 ', ' 5x ')}\nend\n`, /wrong number of lines/u],
        ['one line less', `lematt-deliver 1 1\n${line.replace(' 5 ', ' 4 ')}\n${key.text}end\n`, /not a whole PEM file/u],
        ['one line more', `lematt-deliver 1 1\n${line.replace(' 5 ', ' 6 ')}\n${key.text}end\n`, /is not PEM/u],
        ['an unknown kind', good.replace('\ncert ', '\nexec '), /is not an entry/u], ['an extra word', good.replace('\ncert ', '\ncert -f '), /is not an entry/u],
        ['no end', good.slice(0, -4), /ends in the middle/u], ['another end', good.replace(/end\n$/u, 'END\n'), /where "end" should/u],
        ['a changed byte', good.replace('\nMII', '\nMIJ'), /wrong SHA-256/u],
        ['a NUL', Buffer.from(good.replace('MII', '\0II')), /is not PEM|wrong SHA-256/u],
        ['all NUL', Buffer.alloc(50_000), /first line/u], ['a long line', `lematt-deliver 1 ${'x'.repeat(90_000)}`, /first line/u],
        ['oversize', `${good.slice(0, -4)}${'A'.repeat(200_000)}\n`, /more than 100000 bytes; raise maxbytes/u],
        ['oversize before the end', `lematt-deliver 1 1\n${line}\n${'\n'.repeat(150_000)}`, /more than 100000 bytes|is not PEM|not a whole PEM/u],
      ]
      for (let bytes = 20; bytes < good.length - 4; bytes += 97) table.push([`cut after ${bytes}`, good.slice(0, bytes), /./u])
      for (const [what, input, message] of table) await refused(what, host.ask('deliver mark', input), 'input', message)
    })

    test('files that are not what they are called, and pairs that are none', async () => {
      const send = (kind: 'cert' | 'key', text: string) => host.deliver([
        { kind, file: kind === 'key' ? 'b.x-key.x.pem' : 'b.x-cert-combined.x.pem', text }], 'mark')
      const encrypted = key.text.replaceAll('PRIVATE KEY', 'ENCRYPTED PRIVATE KEY')
      for (const [kind, text] of [['cert', key.text], ['key', certificate.text], ['key', encrypted], ['cert', `#!/bin/sh\n${certificate.text}`],
        ['cert', certificate.text + key.text], ['key', key.text + certificate.text], ['cert', 'ssl_certificate x;\n'], ['cert', '\n\n'],
        ['cert', certificate.text.replace(/-----END.*\n/u, '')], ['cert', certificate.text.replaceAll('CERTIFICATE', 'X509 CRL')],
        ['cert', certificate.text.replaceAll('CERTIFICATE', 'TRUSTED CERTIFICATE')],
        ['key', key.text + key.text], ['key', `-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n`],
        ['cert', certificate.text.replace('\nM', '\n$(id)\nM')]] as const) {
        await refused(`${kind} ${text.slice(0, 40)}`, send(kind, text), 'input', /is not PEM of a|is not a whole PEM file/u)
      }
      const cert = (text: string): Entry => ({ kind: 'cert', file: certificate.file, text })
      for (const entries of [[renewed[1], wrongCertificate], [renewed[0]], [renewed[1]], [cert(wrongCertificate.text + renewed[0].text), renewed[1]],
        [renewed[0], renewed[1], { ...renewed[1], file: 'b.x-key.ec.pem' }, { ...certificate, file: 'b.x-cert-combined.ec.pem' }]]) {
        await refused('another key', host.deliver(entries, 'mark'), 'check', /the first certificate in .* is not of the key in .*deliver both/u)
      }
      await refused('no certificate', send('cert', '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n').then(async (alone) => {
        // Alone nothing can be said of it; with its key openssl does.
        assert.equal(alone.code, 0)
        for (const name of ['ran', 'cert/b.x-cert-combined.x.pem']) rmSync(join(host.base, name))
        return host.deliver([cert('-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n'), renewed[1]], 'mark')
      }), 'check', /is not of the key/u)
      assert.equal(existsSync(join(host.base, 'ran')), false)
    })
  })
}
