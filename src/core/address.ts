/**
 * IP addresses as identifiers (RFC 8738): canonical text, and which special range one lies in. Public CAs
 * certify only addresses that the whole internet can reach, so every range of the IANA special-purpose
 * registries is refused here, with its name, before a CA counts a failure.
 */
import { isIPv4, isIPv6 } from 'node:net'

const bytesOfV4 = (text: string): number[] => text.split('.').map(Number)

// `text` has passed isIPv6, so there is at most one `::` and each group has one to four hexadecimal digits.
function bytesOfV6(text: string): number[] {
  const expand = (part: string): number[] => part === '' ? [] : part.split(':').flatMap((group) => {
    if (group.includes('.')) return bytesOfV4(group)
    const value = Number.parseInt(group, 16)
    return [value >> 8, value & 255]
  })
  const [head = '', tail] = text.split('::')
  const before = expand(head)
  const after = expand(tail ?? '')
  return [...before, ...Array<number>(16 - before.length - after.length).fill(0), ...after]
}

// RFC 5952 §4: lower case, no leading zeros, the longest run of two or more zero groups as `::` (the first of equals).
function textOfV6(bytes: readonly number[]): string {
  const pair = (i: number): number => ((bytes[2 * i] ?? 0) << 8) | (bytes[2 * i + 1] ?? 0)
  const groups = Array.from({ length: 8 }, (_, i) => pair(i).toString(16))
  let best = { start: 0, length: 1 }
  for (let start = 0; start < 8; start++) {
    let length = 0
    while (groups[start + length] === '0') length++
    if (length > best.length) best = { start, length }
  }
  if (best.length === 1) return groups.join(':')
  return `${groups.slice(0, best.start).join(':')}::${groups.slice(best.start + best.length).join(':')}`
}

interface Range {
  readonly text: string
  readonly bytes: readonly number[]
  readonly bits: number
  readonly what: string
}

const range = (text: string, what: string): Range => {
  const [address = '', bits = '0'] = text.split('/')
  return { text, what, bits: Number(bits), bytes: isIPv4(address) ? bytesOfV4(address) : bytesOfV6(address) }
}

// From the IANA special-purpose address registries (RFC 6890); narrower ranges before those that hold them.
const ranges: readonly Range[] = [
  range('0.0.0.0/8', 'this network'),
  range('10.0.0.0/8', 'private'),
  range('100.64.0.0/10', 'shared behind a carrier\'s NAT'),
  range('127.0.0.0/8', 'loopback'),
  range('169.254.0.0/16', 'link-local'),
  range('172.16.0.0/12', 'private'),
  range('192.0.0.0/24', 'reserved for protocols'),
  range('192.0.2.0/24', 'documentation'),
  range('192.88.99.0/24', 'reserved, formerly 6to4'),
  range('192.168.0.0/16', 'private'),
  range('198.18.0.0/15', 'benchmarking'),
  range('198.51.100.0/24', 'documentation'),
  range('203.0.113.0/24', 'documentation'),
  range('224.0.0.0/4', 'multicast'),
  range('255.255.255.255/32', 'broadcast'),
  range('240.0.0.0/4', 'reserved'),
  range('::/128', 'unspecified'),
  range('::1/128', 'loopback'),
  range('::ffff:0:0/96', 'an IPv4 address in IPv6 clothes'),
  range('64:ff9b::/96', 'NAT64'),
  range('64:ff9b:1::/48', 'NAT64'),
  range('100::/64', 'discard'),
  range('2001::/32', 'Teredo'),
  range('2001::/23', 'reserved for protocols'),
  range('2001:db8::/32', 'documentation'),
  range('2002::/16', '6to4'),
  range('3fff::/20', 'documentation'),
  range('fc00::/7', 'private (unique local)'),
  range('fe80::/10', 'link-local'),
  range('fec0::/10', 'site-local'),
  range('ff00::/8', 'multicast'),
]
const globalUnicast = range('2000::/3', 'global unicast')

const holds = (range: Range, bytes: readonly number[]): boolean =>
  range.bytes.length === bytes.length && range.bytes.every((byte, i) => {
    const bits = Math.min(8, Math.max(0, range.bits - 8 * i))
    const mask = (0xff << (8 - bits)) & 0xff
    return (byte & mask) === ((bytes[i] ?? 0) & mask)
  })

/**
 * Reads an IPv4 or IPv6 address without zone, brackets or prefix length.
 * Gives its canonical text (dotted, or RFC 5952) and, where it is not one that the whole internet can reach,
 * the special range it lies in; undefined when `text` is no address.
 */
export function parseAddress(text: string): { readonly address: string; readonly special?: string } | undefined {
  const v4 = isIPv4(text)
  if (!v4 && (!isIPv6(text) || text.includes('%'))) return undefined
  const bytes = v4 ? bytesOfV4(text) : bytesOfV6(text)
  const address = v4 ? bytes.join('.') : textOfV6(bytes)
  const found = ranges.find((each) => holds(each, bytes))
  if (found) return { address, special: `${found.text}, ${found.what}` }
  if (!v4 && !holds(globalUnicast, bytes)) return { address, special: 'reserved, outside 2000::/3' }
  return { address }
}
