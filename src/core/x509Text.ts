/** What node:crypto writes of a certificate as text, read: its names, and its issuer. */
import { parseAddress } from './address.js'
import { cleanLine } from './text.js'
import type { Identifier } from './types.js'

/** Node's text of the extension: `DNS:a.example, IP Address:192.0.2.1`; odd values come as JSON strings and are none of ours. */
export function identifiersOf(subjectAltName: string | undefined): Identifier[] {
  const names = (subjectAltName ?? '').split(', ').flatMap(entry => {
    if (entry.startsWith('DNS:')) return [entry.slice(4).toLowerCase()]
    if (entry.startsWith('IP Address:')) return [parseAddress(entry.slice(11))?.address ?? entry.slice(11)]
    return entry === '' ? [] : [cleanLine(entry, 100)]
  })
  return [...new Set(names)]
}

/** The issuer as a person would name it: its CN, else its O, else the whole, cleaned. Node gives undefined for an empty one. */
export function issuerOf(issuer: string | undefined): string {
  if (issuer === undefined || issuer === '') return 'nobody'
  return cleanLine(/^CN=(.*)$/mu.exec(issuer)?.[1] ?? /^O=(.*)$/mu.exec(issuer)?.[1] ?? issuer, 80)
}
