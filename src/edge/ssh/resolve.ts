/** Names → targets: `ssh -G` reads the operator's configuration as ssh itself does (Include, Match, tokens). */
import { homedir, hostname, userInfo } from 'node:os'
import { parseHostName, parseSshConfig, type HostWords, type SshSettings } from '../../core/sshConfig.js'
import { cleanLine } from '../../core/text.js'
import type { HostName } from '../../core/types.js'
import { asker, type Answer } from './ask.js'
import { HostError } from './hostError.js'

/** What `ssh -G` says of a name. */
export interface SshTarget extends SshSettings {
  readonly name: HostName
}

export interface ResolveOptions {
  readonly configFile?: string | undefined
  readonly environment: Readonly<Record<string, string | undefined>>
  readonly signal: AbortSignal
}

/** @returns a function that resolves a name, each once; it throws HostError */
export function resolver(options: ResolveOptions): (name: HostName) => Promise<SshTarget> {
  const ask = asker(options.configFile, options.signal)
  const known = new Map<HostName, Promise<SshTarget>>()
  return name => {
    let target = known.get(name)
    if (target === undefined) known.set(name, target = resolve(name, options, ask))
    return target
  }
}

async function resolve(name: HostName, { configFile, environment, signal }: ResolveOptions, ask: (words: HostWords) => Promise<Answer>): Promise<SshTarget> {
  const words = parseHostName(name)
  if (words === undefined) throw new HostError(name, 'this is no host that ssh could be asked for; write an alias of ~/.ssh/config, or user@host:port')
  const { code, text } = await Promise.race([ask(words), aborted(signal)])
  if (code === 127) throw new HostError(name, 'there is no ssh command here to read the ssh configuration with; install openssh-client')
  if (code !== 0) throw new HostError(name, `ssh -G says: ${cleanLine(text, 300) || 'nothing'}; correct the ssh configuration`)
  const { username, uid } = userInfo()
  const local = { home: homedir(), user: username, uid, hostName: hostname(), original: words.host, environment }
  const { settings, refused } = parseSshConfig(text, local)
  if (refused.length > 0) {
    throw new HostError(name, `the ssh configuration asks for what lematt cannot do: ${refused.join('; ')}. Give the host an alias of its own without it in ${configFile ?? '~/.ssh/config'}`)
  }
  return { name, ...settings }
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const end = (): void => reject(signal.reason as Error)
    if (signal.aborted) end()
    else signal.addEventListener('abort', end, { once: true })
  })
}
