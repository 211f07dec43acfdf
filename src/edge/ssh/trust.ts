/** Host keys: known_hosts from the disk, each file read once, and the sentences about keys that are not as they should be. */
import { readFile } from 'node:fs/promises'
import { algorithmsFor, isPinned, judge, keyFingerprint, keyType, linesFor, parseKnownHosts, typeName, type Judgement, type KnownLine } from '../../core/knownHosts.js'
import { HostError } from './hostError.js'
import type { SshTarget } from './resolve.js'

/** What known_hosts says about one host. */
export interface Trust {
  /** For `algorithms.serverHostKey`. */
  readonly algorithms: readonly string[]
  readonly judge: (key: Buffer) => Judgement
  /** Whether there is some key that would be taken. */
  readonly isPinned: boolean
}

/** @returns a function that looks a target up; it throws HostError for a file that is there and cannot be read */
export function trustStore(): (target: SshTarget) => Promise<Trust> {
  const files = new Map<string, Promise<KnownLine[]>>()
  return async target => {
    const lines: KnownLine[] = []
    for (const file of target.knownHostsFiles) {
      let read = files.get(file)
      if (read === undefined) files.set(file, read = known(file))
      try {
        lines.push(...await read)
      } catch (error) {
        throw new HostError(target.name, `its known_hosts cannot be read: ${error instanceof Error ? error.message : String(error)}; give us the right to`)
      }
    }
    const found = linesFor(lines, { hostName: target.hostName, port: target.port, alias: target.hostKeyAlias })
    return { algorithms: algorithmsFor(found), judge: key => judge(found, key), isPinned: isPinned(found) }
  }
}

async function known(file: string): Promise<KnownLine[]> {
  try {
    return parseKnownHosts(await readFile(file, 'latin1'), file)
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(String((error as NodeJS.ErrnoException).code))) return []
    throw error
  }
}

/** Why a host with this key is not talked to, and what to do. */
export function distrust(target: SshTarget, key: Buffer, { known: how, line, authority }: Judgement): HostError {
  const { name, knownHostsFiles } = target
  const shown = `its ${typeName(keyType(key))} host key ${keyFingerprint(key)}`
  const at = line === undefined ? '' : `${line.file}:${line.line}`
  const file = knownHostsFiles[0] ?? 'known_hosts'
  if (how === 'revoked') {
    return new HostError(name, `${shown} is revoked (${at}); the host needs a new key, and known_hosts that one`)
  }
  if (how === 'changed' && line !== undefined) {
    return new HostError(name, `${shown} is not the one that is known (${keyFingerprint(line.key)}, ${at}): the host was rebuilt, or somebody is in between; compare it on the host's console, and only if it is right, replace that line`)
  }
  const why = authority === undefined ? `is not in ${file}` : `is not in ${file}, and the @cert-authority at ${authority.file}:${authority.line} is of no use to lematt, which cannot check host certificates`
  return new HostError(name, `${shown} ${why}; compare it with what ssh-keygen -lf /etc/ssh/ssh_host_${typeName(keyType(key)).toLowerCase()}_key.pub prints on the host, then: lematt enroll ${name}`)
}
