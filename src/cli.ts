#!/usr/bin/env node
/** Arguments, wiring, exit code: the only place that speaks for the process (spec §6). */
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { constants } from 'node:os'
import { createInterface } from 'node:readline/promises'
import { fileURLToPath } from 'node:url'
import { parseArguments, usage, type Arguments } from './args.js'
import { AcmeProblem, ConfigError, LockedError, OperationalError, UsageError } from './core/errors.js'
import { clean } from './core/text.js'
import type { EnrolRequest } from './core/enrolment.js'
import type { Configuration, Mode } from './core/types.js'
import type { Asked } from './narrow.js'

/** What a run that another run keeps out ends with (sysexits(3), EX_TEMPFAIL), and one that met a bug (EX_SOFTWARE). */
const lockedCode = 75
const bugCode = 70

async function main(argv: readonly string[]): Promise<number> {
  const args = parseArguments(argv)
  if (args.verb === 'help') return print(usage)
  if (args.verb === 'version') return print(`lematt ${version()}\n`)
  // What a verb does not need is not loaded: --help should not wait for an ACME library.
  const { loadConfiguration } = await import('./edge/configFiles.js')
  const loaded = await loadConfiguration(args.config, process.cwd())
  const configuration = args.parallel === undefined ? loaded : { ...loaded, settings: { ...loaded.settings, parallel: args.parallel } }
  if (args.verb === 'check') return checkAll(args, configuration)
  if (args.enroll !== undefined) return enrolHost(args.enroll, configuration)
  const mode = args.mode ?? 'test'
  return args.verb === 'plan' ? plan(args, mode, configuration) : night(args, mode, configuration)
}

const clock = (): Date => new Date()
/** What is asked for; `plan` and `--dry-run` take the same words. */
const asked = ({ delivers, only, force, targets, again }: Arguments): Asked => ({
  force,
  ...(only === undefined ? {} : { only }),
  ...(delivers ? { deliver: { targets, again } } : {}),
})

async function plan(args: Arguments, mode: Mode, configuration: Configuration): Promise<number> {
  const { dryRun } = await import('./run.js')
  const { planJson, planText } = await import('./core/report.js')
  const planned = await dryRun({ configuration, mode, asked: asked(args), clock })
  return print(args.json ? `${JSON.stringify(planJson(planned), null, 2)}\n` : `${clean(planText(planned).join('\n'))}\n`)
}

async function checkAll(args: Arguments, configuration: Configuration): Promise<number> {
  const { check } = await import('./check.js')
  const modes: Mode[] = args.mode === undefined ? ['prod', 'test'] : [args.mode]
  const { signal } = onSignals()
  const findings = await check({ configuration, modes, path: process.env['PATH'] ?? '', uid: process.geteuid?.(), clock, environment: process.env, signal })
  if (args.hosts) {
    const { checkHosts } = await import('./checkHosts.js')
    findings.push(...await checkHosts({ configuration, mode: args.mode ?? 'prod', packageRoot, environment: process.env, signal, clock }))
  }
  const { coloured, wantsColour } = await import('./edge/terminal.js')
  const colour = wantsColour(process.stdout, process.env) ? coloured : clean
  if (args.json) print(`${JSON.stringify({ version: 1, findings }, null, 2)}\n`)
  else for (const { level, text } of findings) print(`${colour(`${level}: ${text}`)}\n`)
  return findings.some(f => f.level === 'error') ? 1 : 0
}

/** The script for root alone goes to standard output, so that it can be piped to where it is run. */
async function enrolHost(request: EnrolRequest, configuration: Configuration): Promise<number> {
  const { enroll } = await import('./enroll.js')
  const { signal } = onSignals()
  const ask = async (question: string): Promise<boolean> => {
    // Not as a terminal: Ctrl-C is then a signal, as everywhere. At the end of input nobody has said yes.
    const lines = createInterface({ input: process.stdin, output: process.stderr, terminal: false })
    try {
      const answer = await Promise.race([lines.question(question, { signal }), once(lines, 'close').then(() => '')])
      return /^y(?:es)?$/iu.test(answer.trim())
    } catch (error) {
      signal.throwIfAborted()
      throw error
    } finally {
      lines.close()
    }
  }
  const script = await enroll({
    request, configuration, packageRoot, environment: process.env, signal,
    say: line => void process.stderr.write(`${clean(line)}\n`),
    ...(process.stdin.isTTY ? { ask } : {}),
  })
  return print(script)
}

async function night(args: Arguments, mode: Mode, configuration: Configuration): Promise<number> {
  const { run } = await import('./run.js')
  const { exitCode } = await import('./core/report.js')
  const { logListener, openShow } = await import('./show.js')
  const { openLog } = await import('./edge/log.js')
  const { logFile } = configuration.settings
  const log = logFile === undefined ? undefined : await openLog(logFile)
  const toLog = log === undefined ? undefined : logListener(log)
  const show = openShow(args, process.stdout, process.env)
  const interruption = onSignals()
  try {
    const { report, bugs } = await run({
      configuration, mode, asked: asked(args), workingDirectory: process.cwd(), version: version(), clock, signal: interruption.signal, environment: process.env,
      listen: progress => {
        show.listen(progress)
        toLog?.(progress)
      },
    })
    show.end(report)
    log?.write({ event: 'end', exitCode: exitCode(report), seconds: (report.ended.getTime() - report.started.getTime()) / 1000 }, 'run ended')
    for (const bug of bugs) reportBug(bug)
    return interruption.code() ?? (bugs.length > 0 ? bugCode : exitCode(report))
  } catch (error) {
    log?.write({ event: 'error', message: error instanceof Error ? error.message : String(error) }, 'run failed')
    throw error
  } finally {
    show.close()
    const incomplete = await log?.close()
    if (incomplete !== undefined) process.stderr.write(`lematt: ${incomplete}\n`)
  }
}

/** The first signal asks for an orderly end, a second one of the same kind ends at once. */
function onSignals(): { signal: AbortSignal; code: () => number | undefined } {
  const controller = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(name, () => {
      interruptedCode ??= 128 + constants.signals[name]
      controller.abort(new OperationalError(`interrupted by ${name}`))
    })
  }
  return { signal: controller.signal, code: () => interruptedCode }
}

/** Of the first signal. */
let interruptedCode: number | undefined

/** The directory of package.json: this file is dist/src/cli.js there. */
const packageRoot = fileURLToPath(new URL('../../', import.meta.url))

function version(): string {
  const text = readFileSync(`${packageRoot}package.json`, 'utf8')
  return (JSON.parse(text) as { version: string }).version
}

function print(text: string): 0 {
  process.stdout.write(text)
  return 0
}

function reportBug(error: unknown): void {
  const stack = error instanceof Error ? error.stack ?? error.message : String(error)
  process.stderr.write(clean(`lematt: this is a bug in lematt, please report it with these lines:\n${stack}\n`))
}

/** The one place that turns errors into exit codes. */
function codeFor(error: unknown): number {
  const say = (text: string): void => void process.stderr.write(`${clean(text)}\n`)
  if (error instanceof ConfigError) {
    say(error.message)
    return 2
  }
  if (error instanceof UsageError) {
    say(`lematt: ${error.message}\ntry lematt --help`)
    return 2
  }
  if (error instanceof LockedError) {
    say(`lematt: ${error.message}`)
    return lockedCode
  }
  if (error instanceof OperationalError || error instanceof AcmeProblem) {
    say(`lematt: ${error.message}`)
    return interruptedCode ?? 1
  }
  reportBug(error)
  return bugCode
}

// A reader that went away (`lematt … | head`) is no reason to stop in the middle of a night.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined)

// What nobody waited for is a bug like any other. Nothing more can be relied on: the next run tidies up.
process.on('uncaughtException', error => {
  reportBug(error)
  process.exit(bugCode)
})

process.exitCode = await main(process.argv.slice(2)).catch(codeFor)
