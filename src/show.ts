/**
 * How a run is shown (spec §6): on a terminal live lines and a table at the end, elsewhere a line per fact, with `--cron`
 * nothing until it is known that something changed or failed, with `--json` one document at the end.
 */
import { deliveryLine, hostLine, hostTitle, isEventful, orderLine, reportJson, reportText, summary, title, type Report } from './core/report.js'
import { clean } from './core/text.js'
import type { Log } from './edge/log.js'
import { coloured, openLive, wantsColour } from './edge/terminal.js'
import { slotKey } from './core/names.js'
import type { Listener, Progress } from './progress.js'

export interface ShowOptions {
  readonly cron: boolean
  readonly json: boolean
  readonly verbose: boolean
}

export interface Show {
  readonly listen: Listener
  readonly end: (report: Report) => void
  /** Takes live lines off the screen, whatever happened. */
  readonly close: () => void
}

/** The line that a fact is worth on paper; undefined for what only a screen shows. */
export function lineOf(progress: Progress, verbose: boolean): string | undefined {
  switch (progress.type) {
    case 'ordered': return orderLine(progress.outcome)
    case 'delivered': return deliveryLine(progress.outcome)
    case 'hosted': return hostLine(progress.outcome)
    case 'note': return progress.text
    case 'warning': return `warning: ${progress.text}`
    case 'step': return verbose ? [`ran: [${progress.delivery.section.name}] ${progress.command}`, ...progress.output === '' ? [] : progress.output.split('\n').map(l => `  ${l}`)].join('\n') : undefined
    case 'order': return verbose ? `${title(progress.order.held)} ${progress.order.held.keyType}: ${progress.doing}` : undefined
    case 'delivery': return verbose ? `[${progress.delivery.section.name}] runs ${progress.doing}` : undefined
    case 'well': return verbose ? `${hostTitle(progress.delivery)}: nothing is lacking` : undefined
    case 'host': return verbose ? `${hostTitle(progress.delivery)}: ${progress.doing}` : undefined
  }
}

export function openShow(options: ShowOptions, stdout: NodeJS.WriteStream, env: NodeJS.ProcessEnv): Show {
  const print = (line: string): void => void stdout.write(`${clean(line)}\n`)
  if (options.json) return asJson(print)
  if (options.cron) return onPaper(options, print, true)
  // A dumb terminal cannot take a line back.
  return stdout.isTTY && env['TERM'] !== 'dumb' ? onScreen(options, stdout, env) : onPaper(options, print, false)
}

function asJson(print: (line: string) => void): Show {
  // Of the run itself; the others say them as they come.
  const warnings: string[] = []
  return {
    listen(progress) {
      if (progress.type === 'warning') warnings.push(progress.text)
    },
    end: report => print(JSON.stringify(reportJson({ ...report, warnings: [...warnings, ...report.warnings] }), null, 2)),
    close: () => undefined,
  }
}

function onPaper({ verbose }: ShowOptions, print: (line: string) => void, cron: boolean): Show {
  const held: string[] = []
  const say = cron ? (line: string) => held.push(line) : print
  return {
    listen(progress) {
      const line = lineOf(progress, verbose)
      if (line !== undefined) say(line)
    },
    end(report) {
      if (cron && !isEventful(report)) return
      held.forEach(print)
      // What stands until somebody changes the configuration is no news for cron's mail.
      if (!cron) for (const warning of report.warnings) print(`warning: ${warning}`)
      for (const failure of report.failures) print(`failed: ${failure}`)
      print(summary(report))
    },
    close: () => undefined,
  }
}

function onScreen({ verbose }: ShowOptions, stdout: NodeJS.WriteStream, env: NodeJS.ProcessEnv): Show {
  const colour = wantsColour(stdout, env) ? coloured : clean
  const live = openLive(stdout)
  return {
    listen(progress) {
      if (progress.type === 'order') live.show(slotKey(progress.order.held), `${title(progress.order.held)} ${progress.order.held.keyType}: ${progress.doing}`)
      else if (progress.type === 'delivery') live.show(`[${progress.delivery.section.name}]`, `[${progress.delivery.section.name}] ${progress.doing}`)
      else if (progress.type === 'host') live.show(hostTitle(progress.delivery), `${hostTitle(progress.delivery)}: ${progress.doing}`)
      else if (progress.type === 'ordered') live.hide(slotKey(progress.outcome.order.held))
      else if (progress.type === 'delivered') live.hide(`[${progress.outcome.delivery.section.name}]`)
      else if (progress.type === 'well') live.hide(hostTitle(progress.delivery))
      else if (progress.type === 'hosted') live.hide(hostTitle(progress.outcome.delivery))
      const isFailure = (progress.type === 'ordered' || progress.type === 'delivered' || progress.type === 'hosted') && progress.outcome.status === 'failed'
      const line = isFailure || progress.type === 'note' || progress.type === 'warning' || verbose ? lineOf(progress, verbose) : undefined
      if (line !== undefined) live.print(colour(line))
    },
    end(report) {
      live.close()
      for (const warning of report.warnings) stdout.write(`${colour(`warning: ${warning}`)}\n`)
      for (const line of reportText(report)) stdout.write(`${colour(line)}\n`)
    },
    close: live.close,
  }
}

/** Writes each fact to the log as fields, so that no text needs to be taken apart again. */
export function logListener(log: Log): Listener {
  return progress => {
    const message = lineOf(progress, true) ?? ''
    switch (progress.type) {
      case 'ordered': {
        const { order: { held, reason }, status } = progress.outcome
        log.write({ event: 'order', name: held.name, keyType: held.keyType, reason, status, ...(progress.outcome.status === 'done' ? { fingerprint: progress.outcome.leaf.fingerprint } : {}) }, message); return;
      }
      case 'delivered': { log.write({ event: 'delivery', section: progress.outcome.delivery.section.name, status: progress.outcome.status }, message); return; }
      case 'hosted': {
        const { delivery: { section, host, reason }, status } = progress.outcome
        log.write({ event: 'host', section: section.name, host, reason, status, ...(progress.outcome.status === 'parked' ? {} : progress.outcome.done), ...(progress.outcome.status === 'failed' ? { step: progress.outcome.step } : {}) }, message); return;
      }
      case 'step': { log.write({ event: 'step', section: progress.delivery.section.name }, message); return; }
      case 'note':
      case 'warning': { log.write({ event: progress.type }, message); return; }
      default: return undefined
    }
  }
}
