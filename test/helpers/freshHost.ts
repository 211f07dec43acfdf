// A lab host as it comes from the installer: what is written to its user database, configuration and state stays in its own
// mount namespace and goes with it. And a real sshd that believes /etc/passwd there, as Debian sets it up.
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { LabHost } from './lab.js'
import type { Sshd } from './sshd.js'

/** Directories that enrolment writes to. */
const written = ['/etc', '/var/lib', '/usr/local', '/home', '/root', '/opt']

/** Gives `host` layers of its own over `written`; they are in memory. */
export async function freshen(host: LabHost): Promise<void> {
  const layers = join(host.dir, 'layers')
  mkdirSync(layers, { recursive: true })
  const overlays = written.map((path, i) => `
    mkdir -p ${layers}/${i}/upper ${layers}/${i}/work
    mount -t overlay -o lowerdir=${path},upperdir=${layers}/${i}/upper,workdir=${layers}/${i}/work overlay ${path}`)
  await host.must('sh', ['-ec', `mount -t tmpfs tmpfs ${layers}\n${overlays.join('\n')}
    printf '127.0.0.1 localhost\n%s %s\n' ${host.address} ${host.name} >/etc/hosts # sudo looks its own host up
    : >/etc/resolv.conf`])
}

/**
 * sshd on port 22 with StrictModes and the users' own authorized_keys; no PAM, which would hide what a locked account means.
 * `/etc/ssh` there is its configuration, and its process is where that says.
 */
export async function systemSshd(host: LabHost, config = ''): Promise<Sshd> {
  const sshd = await host.sshd({
    keys: {},
    config: `Include /etc/ssh/sshd_config.d/*.conf\nPidFile ${join(host.dir, 'sshd.pid')}\nAuthorizedKeysFile .ssh/authorized_keys\nStrictModes yes\nUsePAM no\n${config}`,
  })
  await host.must('sh', ['-ec', 'echo "Include $0" >/etc/ssh/sshd_config', join(sshd.directory, 'sshd_config')])
  return sshd
}
