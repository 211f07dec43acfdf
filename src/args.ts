/** The command line (spec §6): what was asked for, or what is wrong with it. */
import { parseArgs } from 'node:util'
import type { EnrolRequest } from './core/enrolment.js'
import { UsageError } from './core/errors.js'
import { cleanLine } from './core/text.js'
import type { Mode } from './core/types.js'
import { parseEnroll, sentenceOf } from './enrollArgs.js'

export type Verb = 'run' | 'plan' | 'check' | 'enroll' | 'help' | 'version'

export interface Arguments {
  readonly verb: Verb
  /** Undefined for `check` alone, which then looks at both stores. */
  readonly mode?: Mode
  readonly config: string
  readonly cron: boolean
  readonly parallel?: number
  readonly only?: readonly string[]
  /** The verb was `deliver`: a run, or a plan, without orders. */
  readonly delivers: boolean
  /** What `deliver` names: subjects, sections and hosts; empty for all. */
  readonly targets: readonly string[]
  readonly again: boolean
  /** With `check`: look at the hosts of actions.conf, too. */
  readonly hosts: boolean
  /** With `enroll`: what it was asked for. */
  readonly enroll?: EnrolRequest
  readonly force: boolean
  readonly json: boolean
  readonly verbose: boolean
}

export const usage = `usage: lematt --test|--prod [options]         issue what is due, deliver what is lacking
       lematt plan --test|--prod [options]    print what would be done and why; change nothing
       lematt deliver [NAME|SECTION|HOST...] --test|--prod [--again]
                                              deliver what is lacking, order nothing
       lematt check [--test|--prod] [--hosts] check configuration, permissions, tools, hosts
       lematt enroll HOST [options below]     let a host take deliveries: prints a script for root

  --test             the CA's staging, files in conf/test: proves a configuration end to end
  --prod             the real thing, files in conf/prod
  --config PATH      lematt.conf or its directory (default conf/lematt.conf)
  --cron             silent unless something changed or failed
  --parallel N       subjects in progress at once (default: \`parallel\` of lematt.conf, 16)
  --dry-run          the same as plan
  --only NAME...     only subjects with these names or labels, also when they failed lately
  --force            with --only: reissue also what is not due
  --again            with deliver: also what was delivered before
  --hosts            with check: log in to each host, ask its receiver, try its ports
  --json             print the plan or the report as JSON
  --verbose          print each step and its output
  --version, --help

lematt enroll HOST makes a key, has the host key confirmed, adds HOST to ~/.ssh/config, and prints
the script:
  --reload NAME=COMMAND      a service and what reloads it there (postfix='/sbin/postfix reload')
  --from ADDRESS             from where the key is good (default: our address towards HOST)
  --hostname NAME, --port N  where it is, when ~/.ssh/config does not say so
  --user NAME                the account there (default certmaint)
  --names PATTERN            only certificates with such names
  --forward redirect|tunnel  how it brings challenges home (default: what actions.conf says)
  --fingerprint SHA256:...   its host key, when nobody is there to ask; --yes takes what is shown
  --print                    show everything, write nothing

exit codes: 0 all well; 1 something failed, everything else was done; 2 usage or configuration;
            70 a bug in lematt; 75 another run holds the lock; 130, 143 interrupted
`

/** Words that may come first. */
export const verbs = ['plan', 'check', 'deliver', 'enroll'] as const

const options = {
  'test': { type: 'boolean' },
  'prod': { type: 'boolean' },
  'config': { type: 'string' },
  'cron': { type: 'boolean' },
  'parallel': { type: 'string' },
  'dry-run': { type: 'boolean' },
  'only': { type: 'string', multiple: true },
  'force': { type: 'boolean' },
  'again': { type: 'boolean' },
  'hosts': { type: 'boolean' },
  'json': { type: 'boolean' },
  'verbose': { type: 'boolean' },
  'version': { type: 'boolean' },
  'help': { type: 'boolean', short: 'h' },
} as const

/** @param argv without node and script. @throws UsageError */
export function parseArguments(argv: readonly string[]): Arguments {
  const [first = ''] = argv
  const verb = verbs.find(known => known === first)
  if (verb === 'enroll') return enrollArguments(argv.slice(1))
  const { values, positionals } = parse(spreadOnly(verb === undefined ? argv : argv.slice(1)))
  const given = (name: 'test' | 'prod' | 'cron' | 'force' | 'json' | 'verbose' | 'dry-run' | 'again' | 'hosts'): boolean => values[name] === true
  const common = { config: values.config ?? 'conf/lematt.conf', cron: given('cron'), force: given('force'), json: given('json'), verbose: given('verbose'), again: given('again'), hosts: given('hosts'), delivers: verb === 'deliver', targets: positionals }
  if (values.help === true) return { ...common, verb: 'help' }
  if (values.version === true) return { ...common, verb: 'version' }

  const [positional] = positionals
  if (positional !== undefined && verb !== 'deliver') throw new UsageError(strayWord(positional))
  if (given('test') && given('prod')) throw new UsageError('--test and --prod exclude each other')
  const mode = given('test') ? 'test' : given('prod') ? 'prod' : undefined
  if (mode === undefined && verb !== 'check') throw new UsageError('say --test (the CA\'s staging) or --prod (the real thing)')
  if (common.config === '') throw new UsageError('--config needs a path')
  if (common.again && verb !== 'deliver') throw new UsageError('--again goes with lematt deliver: it sends what was delivered before once more')
  if (common.hosts && verb !== 'check') throw new UsageError('--hosts goes with lematt check: it looks at the hosts of actions.conf')
  if (verb === 'deliver' && (values.only !== undefined || common.force)) throw new UsageError('lematt deliver takes names, sections and hosts without --only, and orders nothing that --force could mean')
  const strange = verb === 'check' ? (['force', 'dry-run', 'cron'] as const).find(given) ?? (values.only === undefined ? undefined : 'only') : undefined
  if (strange !== undefined) throw new UsageError(`--${strange} means nothing to lematt check, which looks at everything and changes nothing`)
  if (common.force && values.only === undefined) throw new UsageError('--force needs --only NAME: reissuing everything would use up the CA\'s rate limits')
  return {
    ...common,
    verb: verb === 'check' ? 'check' : verb === 'plan' || given('dry-run') ? 'plan' : 'run',
    ...(mode === undefined ? {} : { mode }),
    ...(values.parallel === undefined ? {} : { parallel: parallelOf(values.parallel) }),
    ...(values.only === undefined ? {} : { only: values.only }),
  }
}

/** Its options are its own; of the others only --config means something to it. */
function enrollArguments(argv: readonly string[]): Arguments {
  const { request, config } = parseEnroll(argv)
  const none = { cron: false, force: false, json: false, verbose: false, again: false, hosts: false, delivers: false, targets: [] }
  return request === undefined ? { ...none, config, verb: 'help' } : { ...none, config, verb: 'enroll', enroll: request }
}

function parse(args: readonly string[]): ReturnType<typeof parseArgs<{ args: string[]; options: typeof options; strict: true; allowPositionals: true }>> {
  try {
    return parseArgs({ args: [...args], options, strict: true, allowPositionals: true })
  } catch (error) {
    throw new UsageError(sentenceOf(error))
  }
}

function strayWord(word: string): string {
  const shown = cleanLine(word, 80)
  return verbs.some(verb => verb === word) ? `the verb comes first: lematt ${shown} …` : `"${shown}" is no verb and no option of lematt`
}

/** `--only a b c` is `--only a --only b --only c`. */
function spreadOnly(argv: readonly string[]): string[] {
  const spread: string[] = []
  let inOnly = false
  for (const word of argv) {
    if (word === '--only') inOnly = true
    else if (word.startsWith('-')) inOnly = false
    if (inOnly && word !== '--only') spread.push('--only', word)
    else if (word !== '--only') spread.push(word)
  }
  const lonely = argv.some((word, i) => word === '--only' && (argv[i + 1] === undefined || argv[i + 1]?.startsWith('-') === true))
  if (lonely) throw new UsageError('--only needs at least one name or label')
  return spread
}

function parallelOf(text: string): number {
  const n = Number(text)
  if (!/^\d+$/u.test(text) || n < 1 || n > 256) throw new UsageError(`--parallel ${cleanLine(text, 40)}: not a whole number from 1 to 256`)
  return n
}
