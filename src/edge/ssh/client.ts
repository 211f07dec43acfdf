/** The client behind the door: links to hosts, and what runs over them. Loaded, with ssh2, when the first host is asked for. */
import { setMaxListeners } from 'node:events'
import type { Connection, Ssh, SshOptions } from '../ssh.js'
import { runCommand, startCommand } from './channel.js'
import { Links, type Link } from './links.js'
import { Listeners } from './listen.js'
import { resolver } from './resolve.js'
import { shownKeys } from './scan.js'

export function openClient(options: SshOptions): Ssh {
  const own = new AbortController()
  const signal = AbortSignal.any([options.signal, own.signal])
  setMaxListeners(0, signal, own.signal) // one for each thing under way
  const resolve = resolver({ configFile: options.configFile, environment: options.environment ?? {}, signal })
  const links = new Links({ resolve, signal, parallel: options.parallel ?? 32 })
  const connections = new WeakMap<Link, Connection>()
  signal.addEventListener('abort', () => void links.close(), { once: true })
  return {
    resolve,
    async connect(name) {
      const link = await links.to(name)
      const connection = connections.get(link) ?? connectionOf(link, signal)
      connections.set(link, connection)
      return connection
    },
    hostKeys: async name => shownKeys(await resolve(name), links, signal),
    isPinned: async name => (await links.trust(await resolve(name))).isPinned,
    async close() {
      own.abort(new Error('the connections were closed'))
      await links.close()
    },
  }
}

function connectionOf({ target, loggedIn }: Link, signal: AbortSignal): Connection {
  const listeners = new Listeners(target, loggedIn)
  return {
    target,
    closed: loggedIn.closed,
    run: (command, options = {}) => runCommand(loggedIn, command, options, [signal]),
    start: command => startCommand(loggedIn, command),
    listen: (address, port, accept) => listeners.listen(address, port, accept),
  }
}
