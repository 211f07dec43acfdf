/** A store as the Python program left it: made by openssl, in the formats, names and modes of its day. */
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { must } from './lab-process.js'

const day = 86_400_000

export interface OldSubject {
  /** The primary first. */
  readonly names: readonly string[]
  /** What it called the files: the names joined by `_`, sorted by its rule. */
  readonly name: string
  /** Days left of 90. */
  readonly left: number
}

/** A throw-away CA: an intermediate, and how it signs requests for a time of one's own choice. */
export class OldCa {
  private constructor(private readonly directory: string) {}

  static async make(): Promise<OldCa> {
    const directory = mkdtempSync(join(tmpdir(), 'old-ca-'))
    const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '3650']
    const ca = ['-addext', 'basicConstraints=critical,CA:TRUE']
    await must('openssl', ['req', '-x509', ...ec, '-subj', '/CN=Old Root', ...ca, '-keyout', 'root.key', '-out', 'root.pem'],
      { cwd: directory })
    await must('openssl', ['req', '-x509', ...ec, '-subj', '/CN=Old Intermediate', ...ca, '-CA', 'root.pem', '-CAkey', 'root.key',
      '-keyout', 'ca.key', '-out', 'ca.pem'], { cwd: directory })
    return new OldCa(directory)
  }

  /** Leaf and intermediate. */
  async sign(csr: string, left: number): Promise<string> {
    const work = mkdtempSync(join(this.directory, 'sign-'))
    const end = new Date(Date.now() + left * day)
    const utc = (date: Date): string => date.toISOString().replace(/[-:T]|\.\d+/gu, '')
    writeFileSync(join(work, 'index.txt'), '')
    writeFileSync(join(work, 'cnf'), `[ca]\ndefault_ca=own\n[own]\ndatabase=index.txt\nnew_certs_dir=.\nrand_serial=yes
certificate=../ca.pem\nprivate_key=../ca.key\ndefault_md=sha256\npolicy=any\ncopy_extensions=copy\n[any]\ncommonName=optional\n`)
    await must('openssl', ['ca', '-batch', '-notext', '-config', 'cnf', '-in', csr, '-out', 'leaf.pem',
      '-startdate', utc(new Date(end.getTime() - 90 * day)), '-enddate', utc(end)], { cwd: work })
    return readFileSync(join(work, 'leaf.pem'), 'utf8') + readFileSync(join(this.directory, 'ca.pem'), 'utf8')
  }

  remove(): void {
    rmSync(this.directory, { recursive: true })
  }
}

/** Writes `subjects` into `directory` (`conf/prod`), RSA and EC, with a relative link for each name of a longer line. */
export async function writePythonStore(ca: OldCa, directory: string, subjects: readonly OldSubject[]): Promise<void> {
  for (const part of ['key', 'csr', 'cert']) mkdirSync(join(directory, part), { recursive: true, mode: 0o755 })
  await Promise.all(subjects.flatMap(subject => (['rsa2048', 'prime256v1'] as const).map(async (tag) => {
    const { names, name, left } = subject
    const file = (part: string, stem: string): string => join(directory, part, stem)
    const key = file('key', `${name}-key.${tag}.pem`)
    const csr = file('csr', `${name}-csr.${tag}.csr`)
    if (tag === 'rsa2048') await must('openssl', ['genrsa', '-traditional', '-out', key, '2048'])
    else await must('openssl', ['ecparam', '-genkey', '-name', 'prime256v1', '-out', key])
    chmodSync(key, 0o600)
    await must('openssl', ['req', '-new', '-sha256', '-key', key, '-subj', `/CN=${names[0] ?? ''}`,
      '-addext', `subjectAltName=${names.map(one => `DNS:${one}`).join(',')}`, '-out', csr])
    writeFileSync(file('cert', `${name}-cert-combined.${tag}.pem`), await ca.sign(csr, left))
    if (names.length < 2) return
    for (const one of names) {
      symlinkSync(`${name}-key.${tag}.pem`, file('key', `${one}-key.${tag}.pem`))
      symlinkSync(`${name}-cert-combined.${tag}.pem`, file('cert', `${one}-cert-combined.${tag}.pem`))
    }
  })))
}
