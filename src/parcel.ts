/** What of the store goes to hosts: the combined certificates, the keys and their links, and what they look like there. */
import { join } from 'node:path'
import { OperationalError } from './core/errors.js'
import { asLines, sha256, type Body, type Link } from './core/receiver.js'
import type { Held } from './core/types.js'
import { readText, type StorePaths } from './edge/store.js'

export interface Parcel {
  readonly bodies: readonly Body[]
  readonly links: readonly Link[]
}

const textsKept = 200

export class Parcels {
  /** What fifty hosts get is read once. A few, for what each host gets alone is not asked for again. */
  private readonly texts = new Map<string, Promise<string>>()
  /** A digest is asked for by every host that holds the file. */
  private readonly digests = new Map<string, Promise<string>>()

  constructor(private readonly paths: StorePaths) {}

  /** Reads what is to be sent. @throws OperationalError naming the file that cannot be read */
  async of(certificates: readonly Held[]): Promise<Parcel> {
    const bodies = await Promise.all(certificates.flatMap(held => filesOf(held).map(async ({ kind, file }) => ({ kind, file, text: await this.text(kind, file) }))))
    return { bodies, links: certificates.flatMap(linksOf) }
  }

  /** The digest that each of a certificate's files must have on a host. @throws OperationalError */
  async digestsOf(held: Held): Promise<{ file: string; digest: string }[]> {
    return Promise.all(filesOf(held).map(async ({ kind, file }) => {
      const known = this.digests.get(file) ?? this.text(kind, file).then(sha256)
      this.digests.set(file, known)
      return { file, digest: await known }
    }))
  }

  private text(kind: Body['kind'], file: string): Promise<string> {
    const known = this.texts.get(file) ?? this.read(kind, file)
    if (this.texts.size >= textsKept) this.texts.clear()
    this.texts.set(file, known)
    return known
  }

  private async read(kind: Body['kind'], file: string): Promise<string> {
    const path = join(kind === 'key' ? this.paths.key : this.paths.certificate, file)
    const read = await readText(path)
    if (read.state === 'text') return asLines(read.text)
    throw new OperationalError(`${path} cannot be read: ${read.state === 'missing' ? 'it is gone' : read.why}`)
  }
}

const filesOf = ({ files }: Held): { kind: Body['kind']; file: string }[] => [{ kind: 'cert', file: files.certificate }, { kind: 'key', file: files.key }]

export const linksOf = ({ files }: Held): Link[] => [
  ...files.certificateLinks.map(file => ({ kind: 'cert' as const, file, target: files.certificate })),
  ...files.keyLinks.map(file => ({ kind: 'key' as const, file, target: files.key })),
]
