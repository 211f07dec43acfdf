/**
 * `ssh -G` for many names by a few shells: to start a program from a process as large as this one stops it for some 5 ms, which
 * for fifty hosts is a tenth of all that their deliveries take. The values are arguments; no shell reads them.
 */
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import type { HostWords } from '../../core/sshConfig.js'

/** Names for one shell, and shells at once. */
const together = 8
const shellsAtOnce = 4
/** Without an answer for so long (`Match exec` may start anything), a name is given up. */
const patienceMs = 10_000

/** For each host, user and port: of the latter two, either may be empty. */
const script = [
  'mark=$1 file=$2; shift 2',
  'while [ $# -gt 0 ]; do',
  '  ssh -T -G ${file:+-F "$file"} ${2:+-l "$2"} ${3:+-p "$3"} -- "$1" </dev/null 2>&1',
  "  printf '\\n%s %s\\n' \"$mark\" $?; shift 3",
  'done',
].join('\n')

export interface Answer {
  /** ssh's exit status; undefined when it did not come to an end. */
  readonly code?: number
  /** What it printed, on both streams. */
  readonly text: string
}

interface Question {
  readonly words: HostWords
  readonly answer: (answer: Answer) => void
}

/** @returns a function that asks for a name; it never rejects, and never resolves after an abort */
export function asker(configFile: string | undefined, signal: AbortSignal, patience = patienceMs): (words: HostWords) => Promise<Answer> {
  const waiting: Question[] = []
  let [shells, scheduled] = [0, false]
  const flush = (): void => {
    scheduled = false
    while (waiting.length > 0 && shells < shellsAtOnce && !signal.aborted) {
      shells += 1
      void askAll(waiting.splice(0, together), { configFile, signal, patience }).then(left => {
        shells -= 1
        waiting.unshift(...left)
        flush()
      })
    }
  }
  return words => new Promise(answer => {
    waiting.push({ words, answer })
    // Whoever asks in the same breath goes along.
    if (!scheduled) setImmediate(flush)
    scheduled = true
  })
}

/** @returns those that have not had their turn */
function askAll(questions: readonly Question[], { configFile, signal, patience }: { configFile: string | undefined; signal: AbortSignal; patience: number }): Promise<Question[]> {
  return new Promise(resolve => {
    const left = [...questions]
    const mark = randomBytes(16).toString('hex')
    const words = questions.flatMap(({ words: { host, user = '', port } }) => [host, user, port === undefined ? '' : String(port)])
    const shell = spawn('/bin/sh', ['-c', script, 'sh', mark, configFile ?? '', ...words], { stdio: ['ignore', 'pipe', 'ignore'], detached: true })
    let text = ''
    let ended = false
    const end = (why: string): void => {
      if (ended) return
      ended = true
      clearTimeout(timer)
      signal.removeEventListener('abort', kill)
      if (!signal.aborted) left.shift()?.answer({ text: why })
      resolve(left)
    }
    const kill = (): void => {
      try {
        process.kill(-(shell.pid ?? 0), 'SIGKILL')
      } catch {
        // It has ended by itself.
      }
    }
    const timer = setTimeout(kill, patience)
    signal.addEventListener('abort', kill, { once: true })
    shell.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk
      for (let found = seek(text, mark); found !== undefined; found = seek(text, mark)) {
        timer.refresh()
        text = found.rest
        left.shift()?.answer(found.answer)
      }
    })
    shell.on('error', error => end(error.message))
    shell.on('close', () => end(text === '' ? `no answer in ${patience / 1000} s` : text))
  })
}

/** The first whole answer in the text. */
function seek(text: string, mark: string): { answer: Answer; rest: string } | undefined {
  const at = text.indexOf(`\n${mark} `)
  const end = at < 0 ? -1 : text.indexOf('\n', at + 1)
  if (end < 0) return undefined
  const code = Number(text.slice(at + mark.length + 2, end))
  return { answer: { code, text: text.slice(0, at) }, rest: text.slice(end + 1) }
}
