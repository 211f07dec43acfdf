/** The words that a step's placeholders become (spec §3.3), shell-quoted, and the splitting of very long command lines. */
import type { DeliveryStep, Held, Identifier } from './types.js'

/**
 * Longest command that is run as one: the kernel takes 128 KiB for one argument (`MAX_ARG_STRLEN`), and `sh -c` gets the
 * whole command as one.
 */
export const longestCommand = 100_000

/** Any text as one word of a POSIX shell, in single quotes. */
export const shellWord = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`

/** One word for /bin/sh: as it is where every character is harmless, else in single quotes. */
export const shellQuote = (word: string): string => (/^[A-Za-z0-9_/.:=@%+,-]+$/u.test(word) ? word : shellWord(word))

/** Placeholders are words of their own: `MYKEYS` and `DOMAINS_ALLOWED` are none. */
const placeholders = {
  prepare: /(?<![A-Za-z0-9_])DOMAIN(?![A-Za-z0-9_])/gu,
  uploadCerts: /(?<![A-Za-z0-9_])(?:CERTS|KEYS)(?![A-Za-z0-9_])/gu,
  uploadKeys: /(?<![A-Za-z0-9_])(?:CERTS|KEYS)(?![A-Za-z0-9_])/gu,
  update: /(?<![A-Za-z0-9_])DOMAINS_(?:CN|ALL)(?![A-Za-z0-9_])/gu,
} as const

/** A `prepare` command for one identifier. */
export const prepareCommand = (command: string, identifier: Identifier): string =>
  command.replace(placeholders.prepare, () => shellQuote(identifier))

/** Where the store keeps certificates and keys: absolute directories. */
export interface StoreDirectories {
  readonly key: string
  readonly certificate: string
}

/** A command line that does a step for some of its certificates. */
export interface Part {
  readonly command: string
  readonly certificates: readonly Held[]
}

/**
 * The command lines of one step: one, or several where one would pass 100 kB, each with the certificates it is for.
 * A command without placeholders is run once.
 */
export function commandsOf(step: DeliveryStep, directories: StoreDirectories): Part[] {
  const pattern = placeholders[step.kind]
  const found = step.command.match(pattern)
  if (found === null) return [{ command: step.command, certificates: step.certificates }]
  const parts: Part[] = []
  let rest = step.certificates
  while (rest.length > 0) {
    const size = fitting(step.command, found, rest, directories)
    const certificates = rest.slice(0, size)
    const command = step.command.replace(pattern, name => wordsFor(name, certificates, directories).map(shellQuote).join(' '))
    parts.push({ command, certificates })
    rest = rest.slice(size)
  }
  return parts
}

/** How many of the certificates fit into one command line; at least one. */
function fitting(command: string, found: readonly string[], certificates: readonly Held[], directories: StoreDirectories): number {
  let length = Buffer.byteLength(command)
  for (const [i, certificate] of certificates.entries()) {
    for (const name of found) {
      for (const word of wordsFor(name, [certificate], directories)) length += Buffer.byteLength(shellQuote(word)) + 1
    }
    if (length > longestCommand) return Math.max(1, i)
  }
  return certificates.length
}

function wordsFor(placeholder: string, certificates: readonly Held[], directories: StoreDirectories): string[] {
  switch (placeholder) {
    case 'CERTS': return unique(certificates.flatMap(h => [h.files.certificate, ...h.files.certificateLinks].map(f => `${directories.certificate}/${f}`)))
    case 'KEYS': return unique(certificates.flatMap(h => [h.files.key, ...h.files.keyLinks].map(f => `${directories.key}/${f}`)))
    case 'DOMAINS_CN': return unique(certificates.map(h => h.subject.identifiers[0])).sort()
    default: return unique(certificates.flatMap(h => h.subject.identifiers)).sort()
  }
}

const unique = (words: readonly string[]): string[] => [...new Set(words)]
