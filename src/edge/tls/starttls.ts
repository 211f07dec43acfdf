/**
 * The plain-text part of STARTTLS, up to where TLS begins: SMTP (RFC 3207), IMAP (RFC 3501 §6.2.1), POP3
 * (RFC 2595 §4).
 * What the server offers is asked first, so that "does not offer it" and "offers it and then refuses" are told apart.
 */
import { isIPv6, type Socket } from 'node:net'
import { cleanLine } from '../../core/text.js'
import { ProbeFailure } from './failure.js'
import { readLines, type Lines } from './lines.js'

export type MailProtocol = 'smtp' | 'imap' | 'pop3'

const speak: Readonly<Record<MailProtocol, (lines: Lines, socket: Socket) => Promise<void>>> = { smtp, imap, pop3 }

/** What is said in TLS before we go, so that the server's log tells of a client that left, not of one that was lost. */
export const farewell: Readonly<Record<MailProtocol, string>> = {
  smtp: 'QUIT\r\n', imap: 'c LOGOUT\r\n', pop3: 'QUIT\r\n',
}

/** Speaks on a fresh connection until TLS may begin on it. @throws ProbeFailure with what the server said instead */
export async function startTls(socket: Socket, protocol: MailProtocol): Promise<void> {
  const lines = readLines(socket)
  await speak[protocol](lines, socket)
  lines.end()
}

async function smtp(lines: Lines, socket: Socket): Promise<void> {
  const greeting = await smtpReply(lines)
  if (greeting.code !== 220) throw turnedAway(greeting.line)
  // An address literal (RFC 5321 §4.1.3) is true and well-formed, whatever this host calls itself.
  const local = socket.localAddress ?? '127.0.0.1'
  lines.send(`EHLO [${isIPv6(local) ? 'IPv6:' : ''}${local.replace(/%.*/u, '')}]`)
  const hello = await smtpReply(lines)
  if (hello.code !== 250) throw turnedAway(hello.line)
  if (!hello.texts.slice(1).some(text => /^STARTTLS\b/iu.test(text))) throw notOffered('STARTTLS')
  lines.send('STARTTLS')
  const go = await smtpReply(lines)
  if (go.code !== 220) throw refused('STARTTLS', go.line)
}

/** One reply of perhaps several lines (RFC 5321 §4.2.1); `line` is its last. */
async function smtpReply(lines: Lines): Promise<{ code: number; texts: string[]; line: string }> {
  const texts: string[] = []
  for (;;) {
    const line = await lines.next()
    const [, code, more, text = ''] = /^(\d{3})([ -]|$)(.*)$/u.exec(line) ?? []
    if (code === undefined) throw notSpoken('SMTP', line)
    texts.push(text)
    if (more !== '-') return { code: Number(code), texts, line }
  }
}

async function imap(lines: Lines): Promise<void> {
  const greeting = await lines.next()
  if (/^\* (?:BYE|PREAUTH)\b/iu.test(greeting)) throw turnedAway(greeting)
  if (!/^\* OK\b/iu.test(greeting)) throw notSpoken('IMAP', greeting)
  const { answer, untagged } = await imapCommand(lines, 'a', 'CAPABILITY')
  if (!/^a OK\b/iu.test(answer)) throw turnedAway(answer)
  if (!untagged.some(line => /^\* CAPABILITY\b.* STARTTLS(?: |$)/iu.test(line))) throw notOffered('STARTTLS')
  const go = await imapCommand(lines, 'b', 'STARTTLS')
  if (!/^b OK\b/iu.test(go.answer)) throw refused('STARTTLS', go.answer)
}

async function imapCommand(lines: Lines, tag: string, command: string): Promise<{ answer: string; untagged: string[] }> {
  lines.send(`${tag} ${command}`)
  const untagged: string[] = []
  for (;;) {
    const line = await lines.next()
    if (line.startsWith(`${tag} `)) return { answer: line, untagged }
    if (!line.startsWith('* ')) throw notSpoken('IMAP', line)
    if (/^\* BYE\b/iu.test(line)) throw turnedAway(line)
    untagged.push(line)
  }
}

async function pop3(lines: Lines): Promise<void> {
  const greeting = await pop3Status(lines)
  if (greeting.startsWith('-ERR')) throw turnedAway(greeting)
  lines.send('CAPA')
  const capabilities: string[] = []
  if ((await pop3Status(lines)).startsWith('+OK')) {
    for (let line = await lines.next(); line !== '.'; line = await lines.next()) capabilities.push(line)
    if (!capabilities.some(line => /^STLS\b/iu.test(line))) throw notOffered('STLS')
  }
  // A server that does not know CAPA (RFC 2449) may know STLS all the same.
  lines.send('STLS')
  const go = await pop3Status(lines)
  if (!go.startsWith('+OK')) throw refused('STLS', go)
}

async function pop3Status(lines: Lines): Promise<string> {
  const line = await lines.next()
  if (!/^(?:\+OK|-ERR)\b/u.test(line)) throw notSpoken('POP3', line)
  return line
}

const quoted = (line: string): string => `"${cleanLine(line, 160)}"`
const notSpoken = (protocol: string, line: string): ProbeFailure =>
  new ProbeFailure(`does not speak ${protocol}: it says ${quoted(line)}; see what listens on this port`)
const turnedAway = (line: string): ProbeFailure =>
  new ProbeFailure(`turns us away: ${quoted(line)}; let the service accept connections from this host`)
const notOffered = (word: string): ProbeFailure =>
  new ProbeFailure(`offers no ${word}; switch TLS on in the service and see that it can read its key`)
const refused = (word: string, line: string): ProbeFailure =>
  new ProbeFailure(`refuses ${word}: ${quoted(line)}; see the log of the service`)
