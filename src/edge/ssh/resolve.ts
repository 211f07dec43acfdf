/** Names → targets: `ssh -G` reads the operator's configuration as ssh itself does (Include, Match, tokens). 5 ms each. */
import { execFile } from 'node:child_process'
import { homedir, hostname, userInfo } from 'node:os'
import { parseHostName, parseSshConfig, resolveArguments, type SshSettings } from '../../core/sshConfig.js'
import { cleanLine } from '../../core/text.js'
import type { HostName } from '../../core/types.js'
import { HostError } from './hostError.js'
import { Slots } from './slots.js'

/** What `ssh -G` says of a name. */
export interface SshTarget extends SshSettings {
  readonly name: HostName
}

export interface ResolveOptions {
  readonly configFile?: string | undefined
  readonly environment: Readonly<Record<string, string | undefined>>
  readonly signal: AbortSignal
}

/** Processes at once. */
const atOnce = 8

/** @returns a function that resolves a name, each once; it throws HostError */
export function resolver(options: ResolveOptions): (name: HostName) => Promise<SshTarget> {
  const slots = new Slots(atOnce)
  const known = new Map<HostName, Promise<SshTarget>>()
  return name => {
    let target = known.get(name)
    if (target === undefined) known.set(name, target = slots.use(() => resolve(name, options)))
    return target
  }
}

async function resolve(name: HostName, { configFile, environment, signal }: ResolveOptions): Promise<SshTarget> {
  const words = parseHostName(name)
  if (words === undefined) throw new HostError(name, 'this is no host that ssh could be asked for; write an alias of ~/.ssh/config, or user@host:port')
  const text = await asked(name, resolveArguments(words, configFile), signal)
  const { username, uid } = userInfo()
  const local = { home: homedir(), user: username, uid, hostName: hostname(), original: words.host, environment }
  const { settings, refused } = parseSshConfig(text, local)
  if (refused.length > 0) {
    throw new HostError(name, `the ssh configuration asks for what lematt cannot do: ${refused.join('; ')}. Give the host an alias of its own without it in ${configFile ?? '~/.ssh/config'}`)
  }
  return { name, ...settings }
}

function asked(name: HostName, args: readonly string[], signal: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile('ssh', args, { signal, timeout: 10_000, killSignal: 'SIGKILL', maxBuffer: 1_000_000 }, (error, stdout, stderr) => {
      if (error === null) resolve(stdout)
      else if (signal.aborted) reject(signal.reason as Error)
      else if ((error as NodeJS.ErrnoException).code === 'ENOENT') reject(new HostError(name, 'there is no ssh command here to read the ssh configuration with; install openssh-client'))
      else reject(new HostError(name, `ssh -G says: ${cleanLine(stderr) || cleanLine(error.message)}; correct the ssh configuration`))
    })
  })
}
