/** Lists of plain words, separated by blanks: what people write instead is told by name. */
import { cleanLine } from './text.js'
import type { Problem } from './types.js'
import type { Value } from './values.js'

export type Warn = (problem: Problem) => void

/** That a list was written in another form (JSON as in the lists of commands, commas), and how it is meant; else undefined. */
export function notPlainWords(value: Value, word: string): string | undefined {
  const json = /^\[\s*(?:"|\])/u.test(value.text)
  if (!json && !/[,;"']/u.test(word)) return undefined
  const plain = cleanLine(value.text.replace(json ? /[,;"'[\]]/gu : /[,;"']/gu, ' '), 80)
  return `words belong here with blanks between them, without commas${json ? ', brackets' : ''} and quotes`
    + (plain === '' ? '' : `: ${plain}`)
}
