/**
 * What a CA's validation server follows on its way to an http-01 challenge (RFC 8555 §8.3 and Boulder's va/http.go):
 * stricter than a browser, so a forwarder that works in one may fail there. Pure.
 */
import { isIP } from 'node:net'
import { cleanLine } from './text.js'
import type { Identifier } from './types.js'

const maxRedirects = 10

/** Where the CA looks first: port 80, an IPv6 address in brackets. */
export function challengeUrl(identifier: Identifier, token: string): string {
  const host = isIP(identifier) === 6 ? `[${identifier}]` : identifier
  return `http://${host}/.well-known/acme-challenge/${token}`
}

/**
 * Where an answer with a 3xx status leads. `visited` are the URLs fetched so far, the answering one last.
 * Gives the next URL, or one line saying why the CA does not go there.
 */
export function followRedirect(
  status: number, location: string | undefined, visited: readonly string[],
): { readonly next: string } | { readonly refused: string } {
  const refused = (why: string) => ({ refused: `a redirect (${status}) that CAs do not follow: ${why}` })
  if (![301, 302, 307, 308].includes(status)) return refused('its status must be 301, 302, 307 or 308')
  const shown = `“${cleanLine(location ?? '', 200)}”`
  if (location === undefined || location === '') return refused('it has no Location')
  if (!URL.canParse(location, visited.at(-1))) return refused(`its Location ${shown} is not a URL`)
  const url = new URL(location, visited.at(-1))
  url.hash = ''
  const host = url.hostname.replace(/^\[|\]$/gu, '')
  if (url.protocol !== 'http:' && url.protocol !== 'https:') return refused(`${shown} is neither http nor https`)
  // The default port of the scheme reads as ''; 443 for http and 80 for https are odd, and allowed.
  if (!['', '80', '443'].includes(url.port)) return refused(`${shown} has a port other than 80 and 443`)
  if (host.endsWith('.well-known')) return refused(`${shown} lacks the slash after the host name`)
  if (isIP(host) === 0 && !host.includes('.')) return refused(`${shown} has no public host name`)
  if (url.pathname.length > 2000) return refused('its path is longer than 2000 bytes')
  if (visited.includes(url.href)) return refused(`${shown} was visited before: a loop`)
  if (visited.length > maxRedirects) return refused(`it is the ${visited.length}th, and ${maxRedirects} are the most`)
  return { next: url.href }
}
