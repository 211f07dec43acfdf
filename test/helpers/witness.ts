/** What must not have happened: files as they were, nobody's process left, nothing asked of the CA. */
import { createHash } from 'node:crypto'
import { existsSync, lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import type { Pebble } from './pebble.js'

/** Everything below a directory: path → what is there (a link's target, a file's digest and mode). */
export function contents(directory: string): Record<string, string> {
  if (!existsSync(directory)) return {}
  return Object.fromEntries(readdirSync(directory, { recursive: true, encoding: 'utf8' }).sort().map(name => {
    const path = join(directory, name)
    const stat = lstatSync(path)
    const mode = (stat.mode & 0o7777).toString(8)
    if (stat.isSymbolicLink()) return [name, `→ ${readlinkSync(path)}`]
    return [name, stat.isFile() ? `${mode} ${createHash('sha256').update(readFileSync(path)).digest('hex')}` : `directory ${mode}`]
  }))
}

/** The processes (pid and command line) that work in a directory or below it; dead ones that nobody has waited for are none. */
export function processesIn(directory: string): string[] {
  return readdirSync('/proc').filter(pid => /^\d+$/u.test(pid)).flatMap(pid => {
    try {
      const cwd = readlinkSync(`/proc/${pid}/cwd`)
      if (cwd !== directory && !cwd.startsWith(`${directory}/`)) return []
      return [`${pid} ${readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim()}`]
    } catch {
      return [] // it has ended, or is a zombie, whose directory cannot be read
    }
  })
}

/** What was asked of a Pebble since it started. */
export interface Asked {
  /** Anything at all. */
  readonly requests: number
  readonly orders: number
  /** Challenges that it was told to validate. */
  readonly challenges: number
}

export function asked(pebble: Pebble): Asked {
  const count = (pattern: RegExp): number => pebble.output().match(pattern)?.length ?? 0
  return { requests: count(/ (?:GET|HEAD|POST) \/\S* -> calling handler/gu), orders: count(/ POST \/order-plz -> /gu), challenges: count(/ POST \/chalZ\/ -> /gu) }
}
