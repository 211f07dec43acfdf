/** The log (spec §3.2, `logFile`): JSON lines through pino, for machines; what people read is the report's. */
import { OperationalError } from '../core/errors.js'

export interface Log {
  write: (fields: Readonly<Record<string, unknown>>, message: string) => void
  close: () => Promise<void>
}

/** Appends to `path` (0640). @throws OperationalError when it cannot be opened */
export async function openLog(path: string): Promise<Log> {
  // Only where a log is asked for: loading it costs 30 ms.
  const { pino } = await import('pino')
  const destination = pino.destination({ dest: path, mkdir: false, sync: true, mode: 0o640 })
  await new Promise<void>((resolve, reject) => {
    destination.once('ready', resolve)
    destination.once('error', (error: Error) => reject(new OperationalError(`cannot write the log ${path}: ${error.message}; make its directory writable for this user or change logFile`)))
  })
  // A log that fills the disk must not end the run that it tells about.
  destination.on('error', () => undefined)
  const logger = pino({ base: { pid: process.pid }, timestamp: pino.stdTimeFunctions.isoTime }, destination)
  return {
    write: (fields, message) => logger.info(fields, message),
    close: () => new Promise(resolve => {
      destination.once('close', () => resolve())
      destination.end()
    }),
  }
}
