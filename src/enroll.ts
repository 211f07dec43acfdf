/**
 * `lematt enroll HOST` (spec §8): a key pair of its own for the host, its host key confirmed and pinned, a block in ssh_config,
 * and the script for root there, which is all that goes to standard output. Twice the same changes nothing.
 */
import { access, readFile } from 'node:fs/promises'
import { isIPv6 } from 'node:net'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { authorizedKeysLine, checkChallengeUrl, onHost, sshdFile, sudoersFile, type Enrolment, type EnrolRequest } from './core/enrolment.js'
import { hostBlock, type HostBlock } from './core/enrolmentClient.js'
import { enrolmentScript } from './core/enrolmentScript.js'
import { OperationalError, UsageError } from './core/errors.js'
import type { Configuration } from './core/types.js'
import { localAddresses } from './edge/localAddress.js'
import { openSsh, type ShownKey, type Ssh, type SshTarget } from './edge/ssh.js'
import { explained } from './edge/store.js'
import { addBlock, hasBlock, makeKey, pin, presentKey } from './enrollFiles.js'

export interface EnrollContext {
  readonly request: EnrolRequest
  readonly configuration: Configuration
  /** The directory of package.json, which holds what hosts get. */
  readonly packageRoot: string
  readonly environment: Readonly<Record<string, string | undefined>>
  readonly signal: AbortSignal
  /** For the operator: everything but the script. */
  readonly say: (line: string) => void
  /** Asks the operator yes or no; undefined when nobody is there. */
  readonly ask?: (question: string) => Promise<boolean>
}

/** @returns the script for root on the host. @throws UsageError, OperationalError */
export async function enroll(context: EnrollContext): Promise<string> {
  const { request, configuration, say } = context
  const { sshConfig } = configuration.settings
  const forward = request.forward ?? forwardOf(request.host, configuration)
  const challengeUrl = forward === 'redirect' ? challengeUrlOf(configuration) : undefined
  const texts = await hostTexts(context.packageRoot, forward)
  const configFile = sshConfig ?? join(homedir(), '.ssh', 'config')
  const keyFile = join(dirname(configFile), `lematt-${request.host}`)
  const place = { configFile, keyFile, isNamed: await hasBlock(configFile, request.host) }

  const ssh = await open(context)
  try {
    const target = await targetOf(ssh, place.isNamed, request)
    const keys = await confirmed(ssh, target, context)
    const from = await fromOf(request, target, say)
    const publicKey = request.print ? await presentKey(keyFile) : await keyOf(keyFile, context)
    const enrolment: Enrolment = {
      ...request, from, ...texts,
      ...forward === undefined ? {} : { forward },
      ...challengeUrl === undefined ? {} : { challengeUrl },
      ...publicKey === undefined ? {} : { publicKey },
    }
    const { hostName, port, proxyJump } = target
    const block: HostBlock = { host: request.host, hostName, port, user: request.user, proxyJump, keyFile }
    if (request.print) show(context, enrolment, block, { ...place, target, keys })
    else {
      await write(context, block, { ...place, target, keys })
      await agrees(context, block, configFile)
    }
    hints(context, enrolment)
    return enrolmentScript(enrolment)
  } finally {
    await ssh.close()
  }
}

interface Place {
  readonly configFile: string
  readonly keyFile: string
  /** ssh_config has a block for the host already. */
  readonly isNamed: boolean
}
type Found = Place & { readonly target: SshTarget; readonly keys: readonly ShownKey[] }

async function open({ configuration: { settings: { sshConfig } }, signal, environment }: EnrollContext): Promise<Ssh> {
  if (sshConfig === undefined) return openSsh({ signal, environment })
  // ssh refuses a file that is not there; the first enrolment makes it.
  const isThere = await access(sshConfig).then(() => true, () => false)
  return openSsh({ signal, environment, configFile: isThere ? sshConfig : '/dev/null' })
}

/** What the sections that name this host say; undefined when they do not agree or say nothing. */
function forwardOf(host: string, { sections }: Configuration): Enrolment['forward'] {
  const said = new Set(sections.filter(s => s.hosts.includes(host)).flatMap(s => s.forward ?? []))
  if (said.size > 1) throw new UsageError(`actions.conf says forward: redirect and forward: tunnel for ${host}: say by --forward which of them it is to be enrolled for`)
  return [...said][0]
}

function challengeUrlOf({ settings: { challengeUrl } }: Configuration): string {
  if (challengeUrl === undefined) throw new UsageError('forward: redirect needs challengeUrl in lematt.conf, the base URL where the internet reaches our challenges: set it, as in challengeUrl: http://central.example.com')
  return checkChallengeUrl(challengeUrl)
}

async function hostTexts(packageRoot: string, forward: Enrolment['forward']): Promise<Pick<Enrolment, 'receiver' | 'leforward'>> {
  const read = (path: string): Promise<string> => readFile(join(packageRoot, path), 'utf8').catch((error: unknown) => {
    throw explained(error, `${path} of lematt itself cannot be read; install lematt again (or npm run build)`)
  })
  const receiver = await read('remote/lematt-receive')
  return forward === 'redirect' ? { receiver, leforward: await read('dist/forwarder/leforward.cjs') } : { receiver }
}

/** Where the host is: as ssh_config says for the alias, or as the command line does. */
async function targetOf(ssh: Ssh, isNamed: boolean, { host, hostName, port, user }: EnrolRequest): Promise<SshTarget> {
  const byAlias = await ssh.resolve(host)
  if (isNamed) return byAlias
  const [name, at] = [hostName ?? byAlias.hostName, port ?? byAlias.port]
  return ssh.resolve(`${user}@${isIPv6(name) ? `[${name}]` : name}:${at}`)
}

/** The key to pin, when the operator says that it is the host's own; none when known_hosts has one already. @throws OperationalError, UsageError */
async function confirmed(ssh: Ssh, target: SshTarget, { request: { host, fingerprint, yes, print }, say, ask }: EnrollContext): Promise<readonly ShownKey[]> {
  const keys = await ssh.hostKeys(target.name).catch((error: unknown) => {
    if (!print || !(error instanceof OperationalError)) throw error
    say(`note: ${error.message}`)
    return []
  })
  const bad = keys.find(key => key.known === 'changed' || key.known === 'revoked')
  if (bad !== undefined) {
    throw new OperationalError(`${host}: its host key ${bad.fingerprint} ${bad.known === 'revoked' ? 'is revoked' : 'is not the one that is known'} in ${target.knownHostsFiles.join(' or ')}: `
      + 'the host was rebuilt, or somebody is in between; compare it on the host\'s console, and only if it is right take the old line out (ssh-keygen -R) and enrol again')
  }
  const matching = keys.filter(key => key.fingerprint === fingerprint)
  if (fingerprint !== undefined && keys.length > 0 && matching.length === 0) {
    throw new OperationalError(`${host}: none of its host keys is ${fingerprint} (it shows ${keys.map(k => k.fingerprint).join(', ')}): this is another machine, or somebody is in between; nothing was written`)
  }
  if (keys.some(key => key.known === 'known')) {
    say(`host key of ${host}: known`)
    return []
  }
  // Each type came over a connection of its own, perhaps from somebody else: only the one that is compared is believed.
  const [key] = fingerprint === undefined ? keys : matching
  if (key === undefined) return []
  say(`host key of ${host}, not known yet: ${key.type} ${key.fingerprint}`)
  if (fingerprint !== undefined || yes || print) return [key]
  const how = `compare it with what ssh-keygen -lf ${hostKeyFile(key.type)} prints on the host`
  if (ask === undefined) throw new UsageError(`${host}: nobody is here to confirm its host key: ${how}, then say --fingerprint SHA256:…, or --yes to take what is shown; nothing was written`)
  say(how)
  if (!await ask(`is that the host key of ${host}? [yes/no] `)) throw new OperationalError(`${host}: its host key was not confirmed; nothing was written`)
  return [key]
}

/** Where sshd has the public half of its key of this type, unless its configuration says otherwise. */
const hostKeyFile = (type: string): string => `/etc/ssh/ssh_host_${type.replace(/^ssh-|^(ecdsa)-.*$/u, '$1')}_key.pub`

/** From where the host will see us. */
async function fromOf({ host, from }: EnrolRequest, target: SshTarget, say: EnrollContext['say']): Promise<readonly string[]> {
  if (from.length > 0) return from
  if (target.proxyJump.length > 0) throw new UsageError(`${host} is reached through ${target.proxyJump.join(', ')}, whose address it sees: say it by --from`)
  const found = target.bindAddress === undefined ? await localAddresses(target.hostName, target.addressFamily) : [target.bindAddress]
  if (found.length === 0) throw new UsageError(`${host}: there is no way to ${target.hostName} from here, so it cannot be known from which address it will see us: say it by --from`)
  say(`from: the key will be good from ${found.join(' and ')} alone (where the host sees another address, as behind NAT, say it by --from)`)
  return found
}

async function keyOf(keyFile: string, { request: { host }, say }: EnrollContext): Promise<string> {
  const { value, changed } = await makeKey(keyFile, `lematt-${host}`)
  say(changed ? `changed: ${keyFile}, a new key pair for ${host}` : `unchanged: ${keyFile}`)
  return value
}

function knownHostsFile({ host }: EnrolRequest, { knownHostsFiles: [first] }: SshTarget): string {
  if (first === undefined || first === '/dev/null') throw new OperationalError(`${host}: ssh_config gives it no known_hosts that can be written: set UserKnownHostsFile to a file`)
  return first
}

async function write({ request, say }: EnrollContext, block: HostBlock, { configFile, isNamed, target, keys }: Found): Promise<void> {
  if (keys.length > 0) {
    const file = knownHostsFile(request, target)
    await pin(file, keys.map(key => key.line))
    say(`changed: ${file}, ${keys.map(key => key.fingerprint).join(', ')} for ${request.host}`)
  }
  if (!isNamed) await addBlock(configFile, block)
  say(isNamed ? `unchanged: ${configFile}, which has Host ${request.host}` : `changed: ${configFile}, Host ${request.host}`)
}

/** Whether ssh_config, as ssh understands it, leads where it should; an older block may say otherwise. */
async function agrees(context: EnrollContext, block: HostBlock, configFile: string): Promise<void> {
  const fresh = await open(context)
  try {
    const { hostName, port, user, identityFiles } = await fresh.resolve(block.host)
    const { request } = context
    const wrong = [
      ...user === block.user ? [] : [`User is ${user}`],
      ...identityFiles.includes(block.keyFile) ? [] : [`there is no IdentityFile ${block.keyFile}`],
      ...hostName === (request.hostName ?? block.hostName) ? [] : [`HostName is ${hostName}`],
      ...port === (request.port ?? block.port) ? [] : [`Port is ${port}`],
    ]
    if (wrong.length > 0) context.say(`warning: Host ${block.host} in ${configFile} says otherwise (${wrong.join(', ')}); it should be:\n${hostBlock({ ...block, hostName: request.hostName ?? block.hostName, port: request.port ?? block.port })}`)
  } finally {
    await fresh.close()
  }
}

/** --print: what would be written, where. */
function show({ request, say }: EnrollContext, enrolment: Enrolment, block: HostBlock, { configFile, keyFile, isNamed, target, keys }: Found): void {
  say('nothing is written (--print)')
  if (enrolment.publicKey === undefined) say(`would make a key pair: ${keyFile}`)
  if (keys.length > 0) say(`would add to ${knownHostsFile(request, target)}:\n${keys.map(key => key.line).join('\n')}`)
  if (!isNamed) say(`would add to ${configFile}:\n${hostBlock(block)}`)
  say(`the host's authorized_keys gets:\n${authorizedKeysLine(enrolment)}`)
  if (enrolment.reloads.length > 0) say(`the host's ${onHost.sudoers} gets:\n${sudoersFile(enrolment)}`)
  if (enrolment.forward === 'tunnel') say(`the host's ${onHost.sshd} gets:\n${sshdFile(enrolment)}`)
}

function hints({ request: { host, reloads }, configuration, say }: EnrollContext, { forward }: Enrolment): void {
  const sections = configuration.sections.filter(s => s.hosts.includes(host))
  const missing = new Set(sections.flatMap(s => s.reload).filter(service => !reloads.some(({ name }) => name === service)))
  for (const service of missing) {
    say(`warning: actions.conf has ${service} reloaded on ${host}, which will refuse that: add --reload ${service}='/usr/bin/systemctl reload ${service}'`)
  }
  if (sections.length > 0) say(`actions.conf names ${host} in ${sections.map(s => `[${s.name}]`).join(' ')}`)
  else {
    const lines = [`hosts: ${host}`, ...reloads.length === 0 ? [] : [`reload: ${reloads.map(r => r.name).join(' ')}`], ...forward === undefined ? [] : [`forward: ${forward}`]]
    say(`for a section of actions.conf:\n  ${lines.join('\n  ')}`)
  }
  say(`the script below is for root on ${host}, as in: lematt enroll ${host} … > enrol.sh; less enrol.sh; ssh root@${host} sh < enrol.sh   then: lematt check --hosts`)
}
