/** What all comparisons need: medians, and on what machine they were measured. */
import { cpus, release, totalmem } from 'node:os'
import { readdirSync, readFileSync } from 'node:fs'
import { run } from '../test/helpers/lab-process.js'

/** The middle of some numbers; of an even count the mean of the middle two. */
export function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b)
  const half = Math.floor(sorted.length / 2)
  const [low = NaN, high = NaN] = sorted.length % 2 === 1 ? [sorted[half], sorted[half]] : [sorted[half - 1], sorted[half]]
  return (low + high) / 2
}

/** What something took: seconds on the clock, and of the processor, its own and of all whom it employed on this machine. */
export interface Took { readonly seconds: number; readonly cpu: number }

/** What it takes to do something. The processor's part hardly depends on what else this machine is doing. */
export async function measure(what: () => Promise<void>): Promise<Took> {
  const [start, used] = [performance.now(), cpuSeconds()]
  await what()
  return { seconds: (performance.now() - start) / 1000, cpu: cpuSeconds() - used }
}

/** Of all processes in our namespace, with those that have ended and been waited for (proc(5), /proc/PID/stat, 14 to 17). */
function cpuSeconds(): number {
  const ticks = readdirSync('/proc').filter(name => /^\d+$/u.test(name)).flatMap(pid => {
    try {
      // The name, in parentheses, may hold anything.
      const [, after = ''] = /^.*\) (.*)$/su.exec(readFileSync(`/proc/${pid}/stat`, 'utf8')) ?? []
      return after.split(' ').slice(11, 15).map(Number)
    } catch {
      return [] // it has ended meanwhile
    }
  })
  return ticks.reduce((sum, n) => sum + n, 0) / 100
}

/** Processor, memory, kernel, and the releases of the programs compared. */
export async function machine(): Promise<Record<string, string | number>> {
  const said = async (command: string, args: readonly string[]): Promise<string> => {
    const { stdout, stderr } = await run(command, args)
    return (stdout || stderr).trim().split('\n')[0] ?? ''
  }
  return {
    processor: cpus()[0]?.model ?? 'unknown',
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    system: /^PRETTY_NAME="(.*)"$/mu.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? 'unknown',
    node: process.version,
    ssh: await said('ssh', ['-V']),
    rsync: await said('rsync', ['--version']),
    tar: await said('tar', ['--version']),
  }
}

/** The most memory that a running process has had resident so far, in MiB; undefined when it has ended. */
export function peakMiB(pid: number): number | undefined {
  try {
    const kib = /^VmHWM:\s+(\d+) kB$/mu.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
    return kib === undefined ? undefined : Number(kib) / 1024
  } catch {
    return undefined
  }
}
