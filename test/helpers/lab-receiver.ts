// A lab host as enrolment leaves it: lematt-receive behind the forced command of its own key. The real enrolment has a
// test of its own (it needs a user database); here the receiver runs as whoever runs the tests, from the host's directory.
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { LabHost } from './lab.js'
import type { Sshd } from './sshd.js'

const receiver = new URL('../../remote/lematt-receive', import.meta.url).pathname

export interface ReceiverOptions {
  /** Service → what it runs, as root would write it into receive.conf; each start is recorded. */
  readonly services?: Readonly<Record<string, string>>
  /** More lines for receive.conf. */
  readonly conf?: string
  /** More options of the key, as `port-forwarding,…`. */
  readonly keyOptions?: string
  /** The shell that runs the receiver; default: what its first line says. */
  readonly shell?: string
  /** Lines for sshd_config. */
  readonly sshd?: string
}

/** What a test looks at, and turns. */
export interface Receiver {
  readonly sshd: Sshd
  readonly cert: string
  readonly key: string
  readonly conf: string
  /** How often each service was reloaded, in order, as they were called. */
  readonly reloads: () => string[]
  /** Makes the next reload of a service fail: with the new files, not with the old ones. */
  readonly breakReload: (service: string) => void
}

/** A host's entry in the report of `--json` (docs/json.md), as far as tests look at it. */
export interface HostJson {
  readonly host: string
  readonly status: string
  readonly reason: string
  readonly files: number
  readonly reloaded: readonly string[]
  readonly verified: readonly string[]
  readonly step?: string
  readonly message?: string
}

/** Starts sshd on the host; `hosts: NAME` with `sshConfig` of the lab reaches its receiver. */
export async function receiverOn(host: LabHost, options: ReceiverOptions = {}): Promise<Receiver> {
  const at = (...parts: string[]): string => join(host.dir, ...parts)
  const [cert, key, conf] = [at('tls', 'cert'), at('tls', 'key'), at('receive.conf')]
  for (const directory of [cert, key]) mkdirSync(directory, { recursive: true, mode: 0o755 })
  const services = Object.entries(options.services ?? {}).map(([name, command]) => {
    const script = at(`reload-${name}`)
    writeFileSync(script, `#!/bin/sh\necho ${name} >> ${at('reloads')}\nif rm ${at(`broken-${name}`)} 2>/dev/null; then echo 'the configuration is broken' >&2; exit 1; fi\nexec ${command}\n`)
    chmodSync(script, 0o755)
    return `reload ${name} ${script}\n`
  })
  writeFileSync(conf, `cert ${cert}\nkey ${key}\n${services.join('')}${options.conf ?? ''}`, { mode: 0o644 })
  // It wants its configuration to be root's: whoever is not root here is it in a user namespace of his own.
  const asRoot = process.getuid?.() === 0 ? '' : '/usr/bin/unshare --user --map-root-user '
  const command = `${asRoot}${options.shell === undefined ? '' : `${options.shell} `}${receiver} ${conf}`
  const extra = options.keyOptions === undefined ? '' : `,${options.keyOptions}`
  const sshd = await host.sshd({ keys: { [host.name]: `restrict${extra},command="${command}"` }, ...(options.sshd === undefined ? {} : { config: options.sshd }) })
  return {
    sshd, cert, key, conf,
    reloads: () => (existsSync(at('reloads')) ? readFileSync(at('reloads'), 'utf8').trim().split('\n').filter(line => line !== '') : []),
    breakReload: service => { writeFileSync(at(`broken-${service}`), '') },
  }
}
