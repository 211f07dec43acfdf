/** With which of our addresses we reach somebody: what the kernel's routes say, without a packet sent. */
import { createSocket } from 'node:dgram'
import { lookup } from 'node:dns/promises'
import { once } from 'node:events'

/**
 * Our addresses towards `hostName`, one for each of its own that there is a route to, each once, IPv4 first. Empty when the
 * name resolves to nothing or there is no route; NAT on the way is not seen.
 */
export async function localAddresses(hostName: string, family?: 4 | 6): Promise<string[]> {
  const addresses = await lookup(hostName, { all: true, family: family ?? 0 }).catch(() => [])
  const found = await Promise.all(addresses.map(async each => ({ family: each.family, local: await towards(each.address, each.family) })))
  // Of the cable, and with a zone: nothing that the other side could be told.
  const usable = found.flatMap(({ family: of, local }) => (local === undefined || local.includes('%') || /^fe80:/iu.test(local) ? [] : [{ of, local }]))
  return [...new Set(usable.sort((a, b) => a.of - b.of).map(({ local }) => local))]
}

/** connect(2) of a datagram socket sends nothing; it only chooses the way. */
async function towards(address: string, family: number): Promise<string | undefined> {
  const socket = createSocket(family === 6 ? 'udp6' : 'udp4')
  try {
    const connected = once(socket, 'connect')
    socket.connect(22, address)
    await connected
    return socket.address().address
  } catch {
    return undefined
  } finally {
    socket.close()
  }
}
