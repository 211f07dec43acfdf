/** `npm run bench -- NAME [OPTION…]`: the measured comparisons. Each has its own file here. */
import { push } from './push.js'

const benches: Readonly<Record<string, (args: readonly string[]) => Promise<void>>> = { push }

const [name = '', ...args] = process.argv.slice(2)
const bench = benches[name]
if (bench === undefined) {
  console.error(`usage: npm run bench -- ${Object.keys(benches).join('|')} [OPTION…]`)
  process.exitCode = 2
} else {
  await bench(args)
}
