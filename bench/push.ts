/**
 * `npm run bench -- push`: four files and a reload to many hosts, by lematt and by what else is used for it, in turns. What each
 * has delivered is checked every time. Files are in memory; hosts and central host share the processor.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { machine, measure, median, type Took } from './measure.js'
import { Fleet, type Files } from './push/fleet.js'
import { Lematt, makeFiles, peers, type Way } from './push/ways.js'

const repository = new URL('../', import.meta.url).pathname

/** What was measured: what each turn took by way, for one latency. */
interface Round { readonly delayMs: number; readonly ways: { readonly name: string; readonly turns: Took[] }[] }

/** What lematt needs for many hosts. */
interface Memory extends Took { readonly hosts: number; readonly peakMiB: number }

/** @param args `--hosts 50 --turns 3 --delay 0,20 --memory-hosts 200 --json FILE`; `--ways PATTERN`: only those, and lematt */
export async function push(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      'hosts': { type: 'string', default: '50' },
      'turns': { type: 'string', default: '3' },
      'delay': { type: 'string', default: '0,20' },
      'memory-hosts': { type: 'string', default: '200' },
      'json': { type: 'string', default: join(repository, 'bench/push.json') },
      'ways': { type: 'string', default: '' },
      'cli': { type: 'string', default: join(repository, 'dist/src/cli.js') },
    },
  })
  const [hosts, turns, memoryHosts] = [Number(values.hosts), Number(values.turns), Number(values['memory-hosts'])]
  if (process.env['LEMATT_NETNS'] !== '1' || process.getuid?.() !== 0) throw new Error('push needs a machine of its own and root: npm run bench, as root')

  const dir = mkdtempSync(join(tmpdir(), 'bench-'))
  const hostsDir = join(dir, 'hosts')
  const fleet = await Fleet.start(hostsDir, Math.max(hosts, memoryHosts))
  try {
    const files = makeFiles(dir)
    const lematt = new Lematt(dir, values.cli)
    const ways = [...peers(dir, hostsDir).filter(({ name }) => new RegExp(values.ways, 'u').test(name)), lematt]
    const rounds: Round[] = []
    for (const delayMs of values.delay.split(',').map(Number)) rounds.push(await compare(fleet, ways, files, { hosts, turns, delayMs }))
    const memory = memoryHosts === 0 ? undefined : await remember(fleet, lematt, files, memoryHosts)
    const report = { hosts, files: Object.keys(files).length, turns, machine: await machine(), rounds, ...(memory && { memory }) }
    writeFileSync(values.json, `${JSON.stringify(report, null, 2)}\n`)
    print(report)
  } finally {
    await fleet.stop()
    rmSync(dir, { recursive: true, force: true })
  }
}

/** All ways one after the other, so many times over, so that what slows the machine down for a while slows all of them. */
async function compare(
  fleet: Fleet, ways: readonly Way[], files: Files, { hosts, turns, delayMs }: { hosts: number; turns: number; delayMs: number },
): Promise<Round> {
  const config = await fleet.behind(delayMs, hosts)
  const round: Round = { delayMs, ways: ways.map(({ name }) => ({ name, turns: [] })) }
  for (let turn = 1; turn <= turns; turn++) {
    for (const [i, way] of ways.entries()) {
      fleet.clear()
      const took = await measure(() => way.deliver(hosts, config))
      fleet.check(files, hosts)
      round.ways[i]?.turns.push(took)
      console.error(`${delayMs} ms, turn ${turn} of ${turns}: ${way.name}: ${took.seconds.toFixed(2)} s, processor ${took.cpu.toFixed(2)} s`)
    }
  }
  return round
}

async function remember(fleet: Fleet, lematt: Lematt, files: Files, hosts: number): Promise<Memory> {
  const config = await fleet.behind(0, hosts)
  fleet.clear()
  lematt.peak = 0
  const took = await measure(() => lematt.deliver(hosts, config))
  fleet.check(files, hosts)
  return { hosts, ...took, peakMiB: lematt.peak }
}

function print({ hosts, files, turns, machine: on, rounds, memory }: {
  hosts: number; files: number; turns: number; machine: Record<string, string | number>; rounds: readonly Round[]
  memory?: Memory
}): void {
  console.log(`${hosts} hosts × ${files} files and a reload; median of ${turns} (least to most); ${on['cores']} × ${on['processor']}, node ${on['node']}`)
  for (const { delayMs, ways } of rounds) {
    const ours = median((ways.at(-1)?.turns ?? []).map(took => took.seconds))
    console.log(`\nlatency ${delayMs} ms`)
    for (const { name, turns: took } of ways) {
      const all = took.map(({ seconds }) => seconds)
      const middle = median(all)
      const range = `(${Math.min(...all).toFixed(2)} to ${Math.max(...all).toFixed(2)})`
      const cpu = median(took.map(turn => turn.cpu)).toFixed(2)
      console.log(`  ${name.padEnd(46)} ${middle.toFixed(2).padStart(7)} s ${range.padEnd(17)} ${(middle / ours).toFixed(1).padStart(5)} ×  processor ${cpu.padStart(6)} s`)
    }
  }
  if (memory !== undefined) console.log(`\nlematt, ${memory.hosts} hosts: ${memory.seconds.toFixed(2)} s, at most ${Math.round(memory.peakMiB)} MiB resident`)
}
