/** What of the store goes to hosts: the combined certificates, the keys and their links, and what they look like there. */
import { join } from 'node:path'
import { OperationalError } from './core/errors.js'
import { asLines, sha256, type Body, type HostStatus, type Link } from './core/receiver.js'
import type { Held } from './core/types.js'
import { readText, type StorePaths } from './edge/store.js'
import { Queue } from './queue.js'

/** What one `deliver` takes. */
export interface Parcel {
  readonly certificates: readonly Held[]
  readonly bodies: readonly Body[]
  readonly links: readonly Link[]
}

/** As much as lematt-receive takes at once where its receive.conf says nothing else (maxfiles, maxbytes). */
const most = { entries: 400, bytes: 3_900_000 }

const textsKept = 500
/** Files read at once, for all hosts together: any limit of open files allows that. */
const readers = 32

export class Parcels {
  /** What fifty hosts get is read once. A few, for what each host gets alone is not asked for again. */
  private readonly texts = new Map<string, Promise<string>>()
  /** A digest is asked for by every host that holds the file. */
  private readonly digests = new Map<string, Promise<string>>()

  private readonly reads = new Queue({ concurrency: readers })

  constructor(private readonly paths: StorePaths) {}

  /** What is to be sent, in parcels that a host takes, read as they are asked for. @throws OperationalError naming the file that cannot be read */
  async *of(certificates: readonly Held[]): AsyncGenerator<Parcel> {
    let parcel = { certificates: [] as Held[], bodies: [] as Body[], links: [] as Link[] }
    let bytes = 0
    for (const held of certificates) {
      const bodies = await Promise.all(filesOf(held).map(async ({ kind, file }) => ({ kind, file, text: await this.text(kind, file) })))
      const links = linksOf(held)
      const size = bodies.reduce((sum, { text }) => sum + text.length, 0) + 200 * (bodies.length + links.length)
      const entries = parcel.bodies.length + parcel.links.length + bodies.length + links.length
      if (parcel.certificates.length > 0 && (entries > most.entries || bytes + size > most.bytes)) {
        yield parcel
        parcel = { certificates: [], bodies: [], links: [] }
        bytes = 0
      }
      parcel.certificates.push(held)
      parcel.bodies.push(...bodies)
      parcel.links.push(...links)
      bytes += size
    }
    yield parcel
  }

  /** The files and links of a certificate that a host has not, or has otherwise. @throws OperationalError when one of ours cannot be read */
  async notOn({ files, links }: Pick<HostStatus, 'files' | 'links'>, held: Held): Promise<string[]> {
    const digests = await Promise.all(filesOf(held).map(async ({ kind, file }) => ({ file, digest: await this.digest(kind, file) })))
    return [
      ...digests.filter(({ file, digest }) => files.get(file) !== digest),
      ...linksOf(held).filter(({ file, target }) => links.get(file) !== target),
    ].map(({ file }) => file)
  }

  private digest(kind: Body['kind'], file: string): Promise<string> {
    const known = this.digests.get(file) ?? this.text(kind, file).then(sha256)
    this.digests.set(file, known)
    return known
  }

  private text(kind: Body['kind'], file: string): Promise<string> {
    const known = this.texts.get(file)
    if (known !== undefined) return known
    if (this.texts.size >= textsKept) this.texts.clear()
    const text = this.reads.add(() => this.read(kind, file))
    this.texts.set(file, text)
    return text
  }

  private async read(kind: Body['kind'], file: string): Promise<string> {
    const path = join(kind === 'key' ? this.paths.key : this.paths.certificate, file)
    const read = await readText(path)
    if (read.state === 'text') return asLines(read.text)
    throw new OperationalError(`${path} cannot be read: ${read.state === 'missing' ? 'it is gone' : read.why}`)
  }
}

export const filesOf = ({ files }: Held): { kind: Body['kind']; file: string }[] => [{ kind: 'cert', file: files.certificate }, { kind: 'key', file: files.key }]

const linksOf = ({ files }: Held): Link[] => [
  ...files.certificateLinks.map(file => ({ kind: 'cert' as const, file, target: files.certificate })),
  ...files.keyLinks.map(file => ({ kind: 'key' as const, file, target: files.key })),
]
