/**
 * Text from outside (a CA, a host, a command, a certificate) is cleaned here before it is shown or logged:
 * terminal escapes, other control characters and bidirectional overrides could rewrite what the operator sees.
 */

// C0 and C1 controls but TAB and LF, DEL, line/paragraph separators, bidi marks, overrides and isolates, BOM.
const unsafe = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/gu
// ESC [ … final byte (CSI), ESC ] … BEL or ESC \ (OSC): removed whole, so that no "[31m" is left behind. An OSC without
// its end takes only the rest of its line: it must not hide what follows.
const escapes = /\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b\n]*(?:\u0007|\u001b\\)?)/gu

/** Removes terminal escapes and control characters; keeps tabs and line feeds (CRLF becomes LF). */
export function clean(text: string): string {
  return text.replace(/\r\n/gu, '\n').replace(escapes, '').replace(unsafe, '')
}

/** `clean`, on one line and cut to `limit` characters. */
export function cleanLine(text: string, limit = 500): string {
  const line = clean(text).replace(/\s+/gu, ' ').trim()
  return line.length > limit ? `${line.slice(0, limit - 1)}…` : line
}

/** `3 certificates`, `1 certificate`. */
export function count(n: number, singular: string, plural = `${singular}s`): string {
  return `${n} ${n === 1 ? singular : plural}`
}
