/** The comparison of bench/ runs, delivers what it says, and sees when something was not delivered. Its numbers are not looked at. */
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { median } from '../bench/measure.js'
import { run } from './helpers/lab-process.js'
import { labSkip } from './helpers/lab.js'

const here = new URL('..', import.meta.url).pathname
// The bench's machine has an empty /run and /run/tmp, and sees nothing in ours.
const dir = mkdtempSync('/var/tmp/lematt-bench-')
after(() => rmSync(dir, { recursive: true }))

/** On a machine of its own, beside other labs. */
const bench = (args: readonly string[]): ReturnType<typeof run> =>
  run('scripts/netns', ['node', '--import', 'tsx', 'bench/index.ts', ...args], { cwd: here, timeoutMs: 60_000 })

describe('npm run bench -- push', { skip: labSkip() || (process.getuid?.() !== 0 && 'its hosts are made by root') }, () => {
  const json = join(dir, 'push.json')
  const small = ['push', '--hosts', '2', '--turns', '1', '--memory-hosts', '3', '--json', json]

  test('each way delivers to each host, and what it took is printed and kept', async () => {
    const ran = await bench([...small, '--delay', '2'])
    assert.equal(ran.code, 0, ran.stderr)
    assert.match(ran.stdout, /^2 hosts × 4 files and a reload; median of 1/u)
    assert.equal(ran.stdout.match(/^ {2}(?:rsync|tar|lematt).* processor +\d+\.\d\d s$/gmu)?.length, 4)
    assert.match(ran.stdout, /^lematt, 3 hosts: \d+\.\d\d s, at most \d+ MiB resident$/mu)
    const report = JSON.parse(readFileSync(json, 'utf8')) as { rounds: { delayMs: number; ways: { turns: { seconds: number; cpu: number }[] }[] }[]; memory: { peakMiB: number } }
    assert.deepEqual(report.rounds.map(({ delayMs, ways }) => [delayMs, ways.length]), [[2, 4]])
    for (const { turns: [took] } of report.rounds.flatMap(round => round.ways)) assert.ok(took !== undefined && took.seconds > 0 && took.cpu > 0)
    assert.ok(report.memory.peakMiB > 20)
  })

  test('a lematt that delivers nothing and says that all is well is found out', async () => {
    const idle = join(dir, 'idle.js')
    writeFileSync(idle, '')
    rmSync(json, { force: true })
    const ran = await bench([...small, '--delay', '0', '--ways', 'tar', '--cli', idle])
    assert.notEqual(ran.code, 0)
    assert.match(ran.stderr, /h1: reloaded 0 times/u)
    assert.equal(ran.stdout, '')
    assert.throws(() => readFileSync(json))
  })
})

test('the median', () => {
  assert.equal(median([3]), 3)
  assert.equal(median([9, 1, 2]), 2)
  assert.equal(median([4, 1, 2, 3]), 2.5)
})
