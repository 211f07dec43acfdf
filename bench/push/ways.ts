/** The ways to deliver that are compared. Each gets the same four files to the same hosts and runs the same reload there. */
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { certify } from '../../test/helpers/certificates.js'
import { Daemon } from '../../test/helpers/lab-process.js'
import { peakMiB } from '../measure.js'
import type { Files } from './fleet.js'

export interface Way {
  readonly name: string
  /** Delivers to h1 to hN, reached by this ssh configuration; rejects when it says that something failed. */
  deliver(count: number, sshConfig: string): Promise<void>
}

/** The store of a lematt with one subject of two key types, and the same four files beside it, for the others. */
export function makeFiles(dir: string): Files {
  const intermediate = certify('', { algorithm: 'rsa', ca: true, cn: 'Bench R1' })
  const [rsa, ec] = (['rsa', 'ec'] as const).map(algorithm => certify('DNS:mail.example.com', { algorithm, issuer: intermediate }))
  const files = {
    'key/mail.example.com-key.rsa2048.pem': rsa?.key ?? '',
    'key/mail.example.com-key.prime256v1.pem': ec?.key ?? '',
    'cert/mail.example.com-cert-combined.rsa2048.pem': `${rsa?.certificate ?? ''}${intermediate.certificate}`,
    'cert/mail.example.com-cert-combined.prime256v1.pem': `${ec?.certificate ?? ''}${intermediate.certificate}`,
  }
  for (const root of [join(dir, 'files'), join(dir, 'conf', 'prod')]) {
    for (const [path, text] of Object.entries(files)) {
      mkdirSync(dirname(join(root, path)), { recursive: true, mode: path.startsWith('key') ? 0o700 : 0o755 })
      writeFileSync(join(root, path), text, { mode: path.startsWith('key') ? 0o600 : 0o644 })
    }
  }
  return files
}

/** Runs a command to its end. @param watch is given its process id every 20 ms @throws Error with what it printed */
async function complete(command: string, args: readonly string[], watch?: (pid: number) => void): Promise<void> {
  // The agent of whoever runs this is none of the comparison's business.
  const program = new Daemon(command, args, { input: '', env: { SSH_AUTH_SOCK: undefined } })
  const timer = watch === undefined ? undefined : setInterval(() => watch(program.pid), 20)
  const ended = await program.ended
  clearInterval(timer)
  if (ended.code !== 0) throw new Error(`${command}: exit ${String(ended.code)}: ${ended.stderr}${ended.stdout}`.slice(0, 4000))
}

/** Those that others use: a script for one host, so many hosts at a time. */
export function peers(dir: string, hostsDir: string): Way[] {
  const files = join(dir, 'files')
  const script = (name: string, text: string): string => {
    writeFileSync(join(dir, name), `#!/bin/sh\nset -e\nhost=$1 config=$2\n${text}\n`)
    chmodSync(join(dir, name), 0o755)
    return join(dir, name)
  }
  const rsync = script('push-rsync', `rsync -a -e "ssh -F $config" ${files}/cert/ "$host-shell:${hostsDir}/$host/cert/"
rsync -a -e "ssh -F $config" ${files}/key/ "$host-shell:${hostsDir}/$host/key/"
ssh -F "$config" "$host-shell" ${hostsDir}/"$host"/reload`)
  const tar = script('push-tar', `tar -C ${files} -cf - cert key | ssh -F "$config" "$host-tar"`)
  const way = (name: string, push: string, atOnce: number): Way => ({
    name,
    deliver: (count, config) => complete('sh', ['-c', `seq 1 ${count} | xargs -P ${atOnce} -I{} ${push} h{} ${config}`]),
  })
  return [
    way('rsync + rsync + ssh, one host after the other', rsync, 1),
    way('rsync + rsync + ssh, ten hosts at a time', rsync, 10),
    way('tar through one ssh, ten hosts at a time', tar, 10),
  ]
}

/** lematt itself, by its command line; it remembers the most memory that it has ever had. */
export class Lematt implements Way {
  readonly name = 'lematt deliver --again'
  /** In MiB. */
  peak = 0

  constructor(private readonly dir: string, private readonly cli: string) {}

  async deliver(count: number, sshConfig: string): Promise<void> {
    const conf = join(this.dir, 'conf')
    const hosts = Array.from({ length: count }, (_, i) => `h${i + 1}`).join(' ')
    writeFileSync(join(conf, 'domains'), 'mail.example.com\n')
    writeFileSync(join(conf, 'actions.conf'), `[default]\nhosts: ${hosts}\nreload: mark\n`)
    writeFileSync(join(conf, 'lematt.conf'), `[config]
accountKey: ${this.dir}/account.pem
challengeDropDir: ${this.dir}
keyTypes: rsa ec
sshConfig: ${sshConfig}
`)
    await complete('node', [this.cli, 'deliver', '--again', '--prod', '--config', conf], pid => {
      this.peak = Math.max(this.peak, peakMiB(pid) ?? 0)
    })
  }
}
