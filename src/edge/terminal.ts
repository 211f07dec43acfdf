/** The screen (spec §6): a live line for each thing in progress below the lines that stay. */
import type { WriteStream } from 'node:tty'
import { clean, cleanLine } from '../core/text.js'

export interface Live {
  /** Shows or changes the live line of `id`. */
  show: (id: string, text: string) => void
  hide: (id: string) => void
  /** A line that stays, above the live ones. */
  print: (line: string) => void
  close: () => void
}

const hideCursor = '\u001b[?25l'
const showCursor = '\u001b[?25h'
const eraseBelow = '\u001b[0J'
const redrawMs = 80

/** @param stream a terminal */
export function openLive(stream: WriteStream): Live {
  const lines = new Map<string, string>()
  let drawn = 0
  let timer: NodeJS.Timeout | undefined

  const erase = (): string => (drawn === 0 ? '' : `\u001b[${drawn}A\r${eraseBelow}`)
  function draw(above = ''): void {
    // A terminal that does not know its size says 0.
    const room = Math.max(1, (stream.rows || 24) - 2)
    const width = Math.max(20, (stream.columns || 80) - 1)
    const all = [...lines.values()]
    const shown = all.length <= room ? all : [...all.slice(0, room - 1), `… and ${all.length - room + 1} more`]
    const text = shown.map(line => `${cleanLine(line, width)}\n`).join('')
    stream.write(`${hideCursor}${erase()}${above}${text}`)
    drawn = shown.length
  }
  /** Many things happen at once: redrawing for each would cost more than the work. */
  function soon(): void {
    timer ??= setTimeout(() => {
      timer = undefined
      draw()
    }, redrawMs)
  }

  return {
    show(id, text) {
      lines.set(id, text)
      soon()
    },
    hide(id) {
      lines.delete(id)
      soon()
    },
    print: line => draw(`${line}\n`),
    close() {
      clearTimeout(timer)
      lines.clear()
      stream.write(`${erase()}${showCursor}`)
      drawn = 0
    },
  }
}

/** Whether colours are wanted: on a terminal, and NO_COLOR (no-color.org) is unset or empty. */
export const wantsColour = (stream: { isTTY?: boolean }, env: NodeJS.ProcessEnv): boolean =>
  stream.isTTY === true && (env['NO_COLOR'] ?? '') === '' && env['TERM'] !== 'dumb'

const colours: Readonly<Record<string, number>> = { issued: 32, delivered: 32, verified: 32, failed: 31, error: 31, parked: 33, warning: 33 }

/** Colours the word with which a line begins, if it is a status; the rest is cleaned text. */
export function coloured(line: string): string {
  const match = /^(issued|delivered|verified|failed|parked|warning|error)\b/u.exec(line)
  const code = match === null ? undefined : colours[match[0]]
  return match === null || code === undefined ? clean(line) : `\u001b[${code}m${match[0]}\u001b[0m${clean(line.slice(match[0].length))}`
}
