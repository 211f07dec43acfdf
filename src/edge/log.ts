/** The log (spec §3.2, `logFile`): JSON lines through pino, for machines; what people read is the report's. */
import { OperationalError } from '../core/errors.js'
import { cleanLine } from '../core/text.js'

export interface Log {
  write: (fields: Readonly<Record<string, unknown>>, message: string) => void
  /** Writes what is left. @returns what is wrong when the log is not whole */
  close: () => Promise<string | undefined>
}

/** Appends to `path` (0640). @throws OperationalError when it cannot be opened */
export async function openLog(path: string): Promise<Log> {
  // Only where a log is asked for: loading it costs 30 ms.
  const { pino } = await import('pino')
  const refused = (error: unknown): OperationalError => new OperationalError(
    `cannot write the log ${path}: ${cleanLine(error instanceof Error ? error.message : String(error))}; make its directory writable for this user or change logFile`)
  let destination: ReturnType<typeof pino.destination>
  try {
    destination = pino.destination({ dest: path, mkdir: false, sync: true, mode: 0o640 })
  } catch (error) {
    throw refused(error)
  }
  // A log that fills the disk must neither end the run that it tells about nor keep it from ending.
  let problem: string | undefined
  destination.on('error', (error: Error) => { problem ??= refused(error).message })
  const logger = pino({ base: { pid: process.pid }, timestamp: pino.stdTimeFunctions.isoTime }, destination)
  return {
    write: (fields, message) => logger.info(fields, message),
    close: () => new Promise(resolve => {
      const done = (): void => resolve(problem)
      destination.once('close', done)
      destination.once('error', done)
      if (problem === undefined) destination.end()
      else {
        destination.destroy()
        done()
      }
    }),
  }
}
