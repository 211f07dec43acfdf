/** What `lematt check` can say of the hosts without asking them: each name leads somewhere, and has a host key that is known. */
import type { Finding } from './checkStore.js'
import { OperationalError } from './core/errors.js'
import { cleanLine, count } from './core/text.js'
import type { Configuration, HostName } from './core/types.js'
import { openSsh, type Ssh } from './edge/ssh.js'

export interface CheckHostKeysContext {
  readonly configuration: Configuration
  readonly environment: Readonly<Record<string, string | undefined>>
  readonly signal: AbortSignal
}

/** One finding for each host that a delivery would fail on before it begins; else one for all. Reads files alone. */
export async function checkHostKeys({ configuration, environment, signal }: CheckHostKeysContext): Promise<Finding[]> {
  const hosts = [...new Set(configuration.sections.flatMap(section => section.hosts))]
  if (hosts.length === 0) return []
  const ssh = openSsh({ signal, environment, configFile: configuration.settings.sshConfig })
  try {
    const found = (await Promise.all(hosts.map(host => amiss(host, ssh)))).filter(finding => finding !== undefined)
    return found.length > 0 ? found : [{ level: 'ok', text: `hosts: ${count(hosts.length, 'host')}, each with a known host key (lematt check --hosts asks them)` }]
  } finally {
    await ssh.close()
  }
}

async function amiss(host: HostName, ssh: Ssh): Promise<Finding | undefined> {
  try {
    if (await ssh.isPinned(host)) return undefined
    const { hostName, port, knownHostsFiles } = await ssh.resolve(host)
    const at = hostName === host ? '' : ` (${hostName}${port === 22 ? '' : ` port ${port}`})`
    return { level: 'error', text: `${host}${at} has no host key in ${knownHostsFiles.join(' or ') || 'known_hosts'}, so nothing can be delivered there: lematt enroll ${host}, or correct the name in actions.conf` }
  } catch (error) {
    if (!(error instanceof OperationalError)) throw error
    return { level: 'error', text: cleanLine(error.message, 1000) }
  }
}
