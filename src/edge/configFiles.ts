/**
 * The three configuration files on disk (spec §3). They are code: their commands run as the user that runs lematt,
 * so what somebody else could write is refused before a word of it is used.
 */
import { constants, type Stats } from 'node:fs'
import { open, realpath, stat } from 'node:fs/promises'
import { basename, dirname, join, relative, resolve } from 'node:path'
import { geteuid } from 'node:process'
import { assemble, type SourceText } from '../core/config.js'
import { ConfigError } from '../core/errors.js'
import { cleanLine } from '../core/text.js'
import type { Configuration, Place, Problem } from '../core/types.js'

/** More than any real file of the three; a mistaken path (a disk image, a log) is not read whole. */
const mostBytes = 5_000_000

/**
 * Reads and checks the configuration that `path` names: lematt.conf, or the directory that holds it.
 * @param path as typed after `--config`, relative to `cwd`
 * @param cwd absolute; relative paths inside lematt.conf count from it too
 * @throws ConfigError with every problem of all three files
 */
export async function loadConfiguration(path: string, cwd: string): Promise<Configuration> {
  const show = await shownFrom(cwd)
  const problems: Problem[] = []
  const typed = resolve(cwd, path)
  const real = await realpath(typed).catch((error: unknown) => {
    throw new ConfigError([{ place: start(show(typed)), message: `cannot be opened: ${reason(error)}` }])
  })
  const isDirectory = (await stat(real)).isDirectory()
  const directory = isDirectory ? real : dirname(real)
  const wrongPath = pathProblem(directory)
  if (wrongPath !== undefined) throw new ConfigError([{ place: start(show(directory)), message: wrongPath }])

  const checked = new Set<string>()
  const checkDirectory = async (each: string): Promise<void> => {
    if (checked.has(each)) return
    checked.add(each)
    const message = writableByOthers(await stat(each), each)
    if (message !== undefined) problems.push({ place: start(show(each)), message })
    await checkAbove(each)
  }
  // Who can rename what is above can put another configuration in its place.
  const above = new Set<string>()
  const checkAbove = async (below: string): Promise<void> => {
    const each = dirname(below)
    if (each === below || above.has(each)) return
    above.add(each)
    const message = replaceableByOthers(await stat(each), (await stat('/')).uid, each)
    if (message !== undefined) problems.push({ place: start(show(each)), message })
    await checkAbove(each)
  }
  await checkDirectory(directory)
  const read = async (name: string): Promise<SourceText> => {
    const file = join(directory, name)
    const shown = show(file)
    try {
      const target = await realpath(file)
      // Who can write where a link leads can replace the file there.
      await checkDirectory(dirname(target))
      return { file: shown, text: await readText(target, (message) => problems.push({ place: start(shown), message })) }
    } catch (error) {
      const wrong = error instanceof FileProblem ? error : new FileProblem(`cannot be read: ${reason(error)}`)
      problems.push({ place: { file: shown, line: wrong.line, column: wrong.column }, message: wrong.message })
      return { file: shown, text: undefined }
    }
  }
  const texts = {
    settings: await read(isDirectory ? 'lematt.conf' : basename(real)),
    domains: await read('domains'),
    actions: await read('actions.conf'),
  }
  const assembled = assemble(texts, { directory, workingDirectory: cwd })
  problems.push(...assembled.problems)
  if (problems.length > 0 || !assembled.configuration) throw new ConfigError(problems)
  return assembled.configuration
}

const start = (file: string): Place => ({ file, line: 1, column: 1 })

// As the user would type it: relative where it is below the working directory.
async function shownFrom(cwd: string): Promise<(file: string) => string> {
  const bases = [cwd, await realpath(cwd)]
  return (file) => {
    const inside = bases.map((base) => relative(base, file)).find((each) => each !== '..' && !each.startsWith('../'))
    return cleanLine(inside === '' ? '.' : inside ?? file)
  }
}

// Paths of this directory become words of commands, and commands pass them on to other hosts' shells.
function pathProblem(directory: string): string | undefined {
  const odd = /[^\p{L}\p{M}\p{N}._/+@%=,:-]/u.exec(directory)?.[0]
  if (odd === undefined) return undefined
  return `the path of the configuration holds ${cleanLine(odd) === '' ? 'a blank' : `"${cleanLine(odd)}"`}, which shells take for something else; `
    + 'move it where only letters, digits and ._/+@%=,:- are in the path'
}

// What is wrong with one file, and where in it.
class FileProblem extends Error {
  constructor(message: string, readonly line = 1, readonly column = 1) {
    super(message)
  }
}

// Reads a file as strict UTF-8. Throws a FileProblem or what the disk says; what `problem` gets spoils no text.
async function readText(path: string, problem: (message: string) => void): Promise<string> {
  // Not blocking: the open of a pipe that nobody writes to would never return.
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    const facts = await file.stat()
    if (!facts.isFile()) throw new FileProblem('is not a regular file')
    const unsafe = writableByOthers(facts, path)
    if (unsafe !== undefined) problem(unsafe)
    const buffer = Buffer.alloc(Math.min(facts.size, mostBytes) + 1)
    let length = 0
    for (;;) {
      const { bytesRead } = await file.read(buffer, length, buffer.length - length)
      length += bytesRead
      if (bytesRead === 0 || length === buffer.length) break
    }
    if (length > mostBytes) throw new FileProblem(`is larger than ${mostBytes / 1e6} MB; is it the right file?`)
    const { text, wrong } = decode(buffer.subarray(0, length))
    if (wrong === undefined) return text
    const before = text.split(/\r\n|\r|\n/u)
    const message = `the byte 0x${wrong.toString(16)} is not UTF-8; save the file in UTF-8`
    throw new FileProblem(message, before.length, (before.at(-1) ?? '').length + 1)
  } finally {
    await file.close()
  }
}

// The text up to the first byte that is not UTF-8, and that byte.
function decode(bytes: Buffer): { readonly text: string; readonly wrong?: number } {
  const upTo = (length: number, more: boolean): string | undefined => {
    try {
      const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
      return decoder.decode(bytes.subarray(0, length), { stream: more })
    } catch {
      return undefined
    }
  }
  const whole = upTo(bytes.length, false)
  if (whole !== undefined) return { text: whole }
  // Each prefix of a good prefix is good (it may end within a character), so halving finds the longest.
  let [low, high] = [0, bytes.length + 1]
  while (high - low > 1) {
    const middle = (low + high) >> 1
    if (upTo(middle, true) === undefined) high = middle
    else low = middle
  }
  const text = upTo(low, true) ?? ''
  return { text, wrong: bytes[Buffer.byteLength(text)] ?? 0 }
}

// Owner and mode as sshd's StrictModes has them, but for us: nobody except root and the user who runs lematt.
function writableByOthers(facts: Stats, path: string): string | undefined {
  const user = geteuid?.()
  const what = facts.isDirectory() ? 'directory' : 'file'
  if (user !== undefined && facts.uid !== 0 && facts.uid !== user) {
    return `the ${what} belongs to user ${facts.uid}, who could put commands into it that run as you (user ${user}); `
      + `run lematt as that user, or: chown ${user} ${cleanLine(path)}`
  }
  const who = writers(facts)
  if (who === '') return undefined
  const named = who === 'g' ? 'its group' : 'every user'
  return `${named} can write this ${what}, and so put commands into it that run as you; `
    + `run: chmod ${who}-w ${cleanLine(path)}`
}

// The same for a directory above. `rootUser` owns "/": in a user namespace root may have another number.
function replaceableByOthers(facts: Stats, rootUser: number, path: string): string | undefined {
  const user = geteuid?.()
  if (user !== undefined && ![0, user, rootUser].includes(facts.uid)) {
    return `this directory, above the configuration, belongs to user ${facts.uid}, who could put another one in its place; `
      + `move the configuration to where only root and you can write, or: chown root ${cleanLine(path)}`
  }
  const who = writers(facts)
  // Sticky (/tmp): names of root and of ourselves stay ours.
  if (who === '' || (facts.mode & 0o1000) !== 0) return undefined
  return `${who === 'g' ? 'its group' : 'every user'} can write this directory, and so put another configuration in the place of the one below it; `
    + `run: chmod ${who}-w ${cleanLine(path)}`
}

const writers = ({ mode }: Stats): string => [mode & 0o020 ? 'g' : '', mode & 0o002 ? 'o' : ''].join('')

function reason(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException
  if (code === 'ENOENT') return 'there is no such file'
  if (code === 'EACCES') return 'permission denied; give the user who runs lematt the right to read it'
  return cleanLine(message)
}
