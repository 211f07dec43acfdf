/** STARTTLS with servers that say odd things. Real ones are in tls.mail.test.ts. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type AddressInfo, type Socket } from 'node:net'
import { describe, test } from 'node:test'
import { createSecureContext, TLSSocket } from 'node:tls'
import { X509Certificate } from 'node:crypto'
import { probe, type Probe } from '../../src/edge/tls.js'
import { certify } from '../helpers/certificates.js'

type Protocol = 'smtp' | 'imap' | 'pop3'
const pair = certify('DNS:mail.example')
const secureContext = createSecureContext({ cert: pair.certificate, key: pair.key })

/**
 * A server that says a text at first, then one for each line that it hears; `TLS` at the end of a text: TLS begins.
 * Gives what the probe made of it, and what the server heard in plain text.
 */
async function talk(protocol: Protocol, says: readonly string[], { pieces = false } = {}): Promise<{ seen: Probe; heard: string[]; tls: boolean }> {
  const heard: string[] = []
  let tls = false
  const open: Socket[] = []
  const server = createServer(socket => {
    open.push(socket.on('error', () => undefined))
    let said = 0
    let text = ''
    const say = (): void => {
      const line = says[said++] ?? ''
      const plain = line.replace(/TLS$/u, '')
      if (!pieces || plain === '') socket.write(plain)
      else for (const letter of plain) socket.write(letter)
      if (plain === line) return
      socket.off('data', onData)
      open.push(new TLSSocket(socket, { isServer: true, secureContext }).on('error', () => undefined).on('secure', () => { tls = true }).resume())
    }
    const onData = (chunk: Buffer): void => {
      // The first byte of a handshake.
      if (chunk[0] === 0x16) say()
      text += chunk.toString('latin1')
      const lines = text.split('\r\n')
      text = lines.pop() ?? ''
      for (const line of lines) {
        heard.push(line)
        say()
      }
    }
    socket.setNoDelay(true).on('data', onData)
    say()
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  try {
    const { port } = server.address() as AddressInfo
    const seen = await probe({ address: '127.0.0.1', port, protocol, timeoutMs: 2000, signal: new AbortController().signal })
    return { seen, heard, tls }
  } finally {
    server.close()
    for (const socket of open) socket.destroy()
  }
}

const fingerprint = new X509Certificate(pair.certificate).fingerprint256.replaceAll(':', '').toLowerCase()

describe('STARTTLS', () => {
  const good: [Protocol, string[], string[]][] = [
    ['smtp', ['220-mx.example\r\n220 ready\r\n', '250-mx.example hello\r\n250-SIZE 1\r\n250-starttls\r\n250 HELP\r\n', '220 go\r\nTLS'], ['EHLO [127.0.0.1]', 'STARTTLS']],
    ['smtp', ['220\r\n', '250-x\n250 STARTTLS\n', '220 go\nTLS'], ['EHLO [127.0.0.1]', 'STARTTLS']],
    ['imap', ['* OK [CAPABILITY IMAP4rev1] hi\r\n', '* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED\r\n* NO disk is low\r\na OK done\r\n', 'b OK go\r\nTLS'], ['a CAPABILITY', 'b STARTTLS']],
    ['pop3', ['+OK hi\r\n', '+OK list\r\nUSER\r\nSTLS\r\n.\r\n', '+OK go\r\nTLS'], ['CAPA', 'STLS']],
    ['pop3', ['+OK hi\r\n', '-ERR unknown\r\n', '+OK go\r\nTLS'], ['CAPA', 'STLS']],
  ]
  for (const [protocol, says, hears] of good) {
    test(`${protocol}: ${JSON.stringify(says[1])}`, async () => {
      for (const pieces of [false, true]) {
        const { seen, heard, tls } = await talk(protocol, says, { pieces })
        assert.deepEqual({ ...seen, names: undefined, issuer: undefined, notAfter: undefined }, { ok: true, fingerprint, names: undefined, issuer: undefined, notAfter: undefined })
        assert.deepEqual(heard, hears)
        assert.equal(tls, true)
      }
    })
  }

  const greeted = { smtp: ['220 hi\r\n', '250-x\r\n250 STARTTLS\r\n'], imap: ['* OK hi\r\n', '* CAPABILITY STARTTLS\r\na OK\r\n'], pop3: ['+OK\r\n', '+OK\r\nSTLS\r\n.\r\n'] }
  const bad: [string, Protocol, string[], RegExp][] = [
    ['not offered', 'smtp', ['220 hi\r\n', '250-x\r\n250 STARTTLSX\r\n'], /^offers no STARTTLS; switch TLS on/u],
    ['its own name is no offer', 'smtp', ['220 hi\r\n', '250 STARTTLS\r\n'], /^offers no STARTTLS; /u],
    ['not offered', 'imap', ['* OK hi\r\n', '* CAPABILITY IMAP4rev1 XSTARTTLS\r\na OK\r\n'], /^offers no STARTTLS; /u],
    ['not offered', 'pop3', ['+OK\r\n', '+OK\r\nUSER\r\n.\r\n'], /^offers no STLS; /u],
    ['refused', 'smtp', [...greeted.smtp, '454 TLS not available\r\n'], /^refuses STARTTLS: "454 TLS not available"; see the log/u],
    ['refused', 'imap', [...greeted.imap, 'b BAD no\r\n'], /^refuses STARTTLS: "b BAD no"; /u],
    ['refused', 'pop3', [...greeted.pop3, '-ERR no\r\n'], /^refuses STLS: "-ERR no"; /u],
    ['turned away', 'smtp', ['554 go away\r\n'], /^turns us away: "554 go away"; let the service accept/u],
    ['turned away', 'smtp', ['220 hi\r\n', '501 bad name\r\n'], /^turns us away: "501 bad name"; /u],
    ['turned away', 'imap', ['* BYE full\r\n'], /^turns us away: "\* BYE full"; /u],
    ['turned away', 'imap', ['* OK\r\n', '* BYE later\r\n'], /^turns us away: "\* BYE later"; /u],
    ['turned away', 'pop3', ['-ERR full\r\n'], /^turns us away: "-ERR full"; /u],
    ['another protocol', 'smtp', ['SSH-2.0-OpenSSH\r\n'], /^does not speak SMTP: it says "SSH-2\.0-OpenSSH"; see what listens/u],
    ['text of theirs is cleaned', 'smtp', ['\u001b[31m554\u0007 \u202eevil\r\n'], /^does not speak SMTP: it says "554 evil";/u],
    ['plain text after STARTTLS', 'smtp', [...greeted.smtp, '220 go\r\n250 injected\r\nTLS'], /^says more in plain text after its answer to STARTTLS, .*CVE-2011-0411\); update the service$/u],
    ['plain text after STARTTLS', 'imap', [...greeted.imap, 'b OK go\r\n* CAPABILITY\r\nTLS'], /^says more in plain text/u],
    ['plain text after STARTTLS', 'pop3', [...greeted.pop3, '+OK go\r\n+OTLS'], /^says more in plain text/u],
    ['no TLS after STARTTLS', 'smtp', [...greeted.smtp, '220 go\r\n', '250 still plain text\r\n'.repeat(3)], /^what follows STARTTLS is not TLS; see what listens/u],
    ['one endless line', 'smtp', [`220 ${'x'.repeat(9000)}`], /^says more than 8192 bytes before TLS; /u],
    ['endless lines', 'imap', ['* OK\r\n', '* NO\r\n'.repeat(2000)], /^says more than 8192 bytes before TLS; /u],
    ['endless lines', 'pop3', ['+OK\r\n', '+OK\r\n'.repeat(2000)], /^says more than 8192 bytes before TLS; /u],
  ]
  for (const [what, protocol, says, message] of bad) {
    test(`${protocol}: ${what}: ${JSON.stringify(says.at(-1)).slice(0, 50)}`, async () => {
      const { seen, tls } = await talk(protocol, says)
      assert.ok(!seen.ok)
      assert.match(seen.message, message)
      assert.doesNotMatch(seen.message, /[\r\n\u001b\u202e]/u)
      assert.equal(tls, false, 'no TLS was begun')
    })
  }
})
