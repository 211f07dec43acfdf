/** The words of `lematt enroll` (spec §8), each checked before anything is looked at. */
import { parseArgs } from 'node:util'
import {
  checkFingerprint, checkFrom, checkHost, checkHostName, checkPattern, checkPort, checkUser, parseReload, type EnrolRequest,
} from './core/enrolment.js'
import { UsageError } from './core/errors.js'
import { cleanLine } from './core/text.js'

const options = {
  'reload': { type: 'string', multiple: true },
  'from': { type: 'string', multiple: true },
  'names': { type: 'string', multiple: true },
  'user': { type: 'string' },
  'hostname': { type: 'string' },
  'port': { type: 'string' },
  'forward': { type: 'string' },
  'fingerprint': { type: 'string' },
  'yes': { type: 'boolean' },
  'print': { type: 'boolean' },
  'config': { type: 'string' },
  'help': { type: 'boolean', short: 'h' },
} as const

export interface EnrollArguments {
  /** Undefined when only help is wanted. */
  readonly request?: EnrolRequest
  readonly config: string
}

/** @param argv what stands after `enroll`. @throws UsageError */
export function parseEnroll(argv: readonly string[]): EnrollArguments {
  const { values, positionals } = parse(argv)
  const config = values.config ?? 'conf/lematt.conf'
  if (values.help === true) return { config }
  if (config === '') throw new UsageError('--config needs a path')
  const [host, stray] = positionals
  if (host === undefined) throw new UsageError('lematt enroll needs a host: say the alias that it has, or is to have, in ~/.ssh/config, as in lematt enroll mx1')
  if (stray !== undefined) throw new UsageError(`"${cleanLine(stray, 80)}" is one host too many: enroll one after the other`)
  const reloads = (values.reload ?? []).map(parseReload)
  const twice = reloads.find(({ name }, i) => reloads.findIndex(other => other.name === name) !== i)
  if (twice !== undefined) throw new UsageError(`--reload ${twice.name} is there twice: a service has one command; put several into a script of root's on the host and name that`)
  const { forward } = values
  if (forward !== undefined && forward !== 'redirect' && forward !== 'tunnel') {
    throw new UsageError(`--forward ${cleanLine(forward, 40)}: say redirect (the CA reaches us) or tunnel (it reaches only the host)`)
  }
  if (values.yes === true && values.fingerprint !== undefined) throw new UsageError('--yes takes any host key, --fingerprint only that one: say one of the two')
  return {
    config,
    request: {
      host: checkHost(host),
      user: checkUser(values.user ?? 'certmaint'),
      reloads,
      from: [...new Set((values.from ?? []).map(checkFrom))],
      names: [...new Set((values.names ?? []).map(checkPattern))],
      yes: values.yes === true,
      print: values.print === true,
      ...values.hostname === undefined ? {} : { hostName: checkHostName(values.hostname) },
      ...values.port === undefined ? {} : { port: checkPort(values.port) },
      ...forward === undefined ? {} : { forward },
      ...values.fingerprint === undefined ? {} : { fingerprint: checkFingerprint(values.fingerprint) },
    },
  }
}

function parse(args: readonly string[]): ReturnType<typeof parseArgs<{ args: string[]; options: typeof options; strict: true; allowPositionals: true }>> {
  try {
    return parseArgs({ args: [...args], options, strict: true, allowPositionals: true })
  } catch (error) {
    throw new UsageError(`lematt enroll: ${sentenceOf(error)}; lematt --help names its options`)
  }
}

/** What parseArgs says: its first sentence names the option; what it says of `--` and positionals does not concern us. */
export function sentenceOf(error: unknown): string {
  const said = cleanLine(error instanceof Error ? error.message.split('. ')[0] ?? '' : String(error), 200)
  return said.charAt(0).toLowerCase() + said.slice(1)
}
