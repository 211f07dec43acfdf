/**
 * A central host that is ready for a night: a lab with a real CA, a web server for challenges, and a `conf/` directory, in
 * which the real command line runs.
 */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { X509Certificate, createPrivateKey, createPublicKey } from 'node:crypto'
import { Lab } from './lab.js'
import type { Daemon, Ran, RunOptions } from './lab-process.js'
import type { Pebble, PebbleOptions } from './pebble.js'

/** The built command line: `npm test` builds before it tests. */
export const cli = new URL('../../dist/src/cli.js', import.meta.url).pathname

export interface NightOptions {
  readonly domains?: string
  readonly actions?: string
  /** Added to `[config]`; a key given here replaces ours. */
  readonly settings?: Readonly<Record<string, string>>
  readonly pebble?: Partial<PebbleOptions>
  /** Without a web server for the challenges. */
  readonly noWebServer?: boolean
}

export interface Certificate {
  readonly names: string[]
  readonly x509: X509Certificate
  /** Whether the key file beside it is its own. */
  readonly belongs: boolean
}

export class Night {
  readonly conf: string
  readonly challenges: string

  private constructor(readonly lab: Lab, readonly pebble: Pebble) {
    this.conf = join(lab.dir, 'conf')
    this.challenges = join(lab.dir, 'challenges')
    mkdirSync(this.conf)
    mkdirSync(this.challenges)
  }

  /** Close it whatever happens. */
  static async open(options: NightOptions = {}): Promise<Night> {
    const lab = await Lab.open()
    try {
      const night = new Night(lab, await lab.pebble({ authzReuse: 100, ...options.pebble }))
      if (options.noWebServer !== true) await lab.nginx({ root: night.challenges })
      night.settings(options.settings ?? {})
      await night.domains(options.domains ?? '')
      night.actions(options.actions ?? '[default]\n')
      return night
    } catch (error) {
      await lab.close()
      throw error
    }
  }

  /** Writes lematt.conf for this lab's CA. */
  settings(settings: Readonly<Record<string, string>>, without: readonly string[] = []): void {
    const all: Record<string, string> = {
      challengeDropDir: this.challenges,
      accountKey: join(this.lab.dir, 'account.key'),
      prodDirectory: this.pebble.directoryUrl,
      testDirectory: this.pebble.directoryUrl,
      caBundle: this.pebble.certFile,
      ...settings,
    }
    const lines = Object.entries(all).filter(([key]) => !without.includes(key)).map(([key, value]) => `${key}: ${value}\n`)
    this.write('lematt.conf', `[config]\n${lines.join('')}`)
  }

  /** Writes `domains`, and lets every name that stands in it (in full) lead to the central host. */
  async domains(text: string, names: readonly string[] = text.match(/[a-z0-9*-]+(?:\.[a-z0-9-]+)+/gu) ?? []): Promise<void> {
    this.write('domains', text)
    await Promise.all([...new Set(names)].map(name => this.lab.dns.set(name, [this.lab.address])))
  }

  actions(text: string): void {
    this.write('actions.conf', text)
  }

  write(name: string, text: string): void {
    writeFileSync(join(this.conf, name), text, { mode: 0o644 })
  }

  /** Runs `lematt ARGS --config conf` on the central host, with its working directory in the lab's. */
  lematt(args: readonly string[], options: RunOptions = {}): Promise<Ran> {
    return this.lab.run(process.execPath, [cli, ...args, '--config', this.conf], { cwd: this.lab.dir, timeoutMs: 60_000, ...options })
  }

  /** Starts it without waiting for its end. */
  start(args: readonly string[], options: RunOptions = {}): Daemon {
    return this.lab.spawn(process.execPath, [cli, ...args, '--config', this.conf], { cwd: this.lab.dir, ...options })
  }

  path(...parts: string[]): string {
    return join(this.conf, ...parts)
  }

  read(...parts: string[]): string {
    return readFileSync(this.path(...parts), 'utf8')
  }

  /** What stands in one directory of the store; nothing when it is not there. */
  files(...parts: string[]): string[] {
    return existsSync(this.path(...parts)) ? readdirSync(this.path(...parts)).sort() : []
  }

  /** A certificate of the store. @param name NAME @param tag `rsa2048`, `prime256v1` … */
  certificate(name: string, tag: string, mode = 'test'): Certificate {
    const test = mode === 'test' ? '.test' : ''
    const x509 = new X509Certificate(this.read(mode, 'cert', `${name}-cert-combined.${tag}${test}.pem`))
    const key = createPrivateKey(this.read(mode, 'key', `${name}-key.${tag}${test}.pem`))
    const names = (x509.subjectAltName ?? '').split(', ').map(n => n.replace(/^(?:DNS|IP Address):/u, '')).sort()
    return { names, x509, belongs: createPublicKey(key).export({ type: 'spki', format: 'der' }).equals(x509.publicKey.export({ type: 'spki', format: 'der' })) }
  }

  /** What must hold after every run, however it went: whole pairs, no temp file, no token left. */
  assertWhole(mode = 'test'): void {
    for (const directory of ['key', 'cert', 'csr', 'previous', 'state']) {
      assert.deepEqual(this.files(mode, directory).filter(f => f.startsWith('.')), [], `temp files in ${directory}`)
    }
    const test = mode === 'test' ? '.test' : ''
    for (const file of this.files(mode, 'cert')) {
      const [, name = '', tag = ''] = /^(.*)-cert-combined\.([a-z0-9]+)(?:\.test)?\.pem$/u.exec(file) ?? []
      assert.ok(this.certificate(name, tag, mode).belongs, `${file}${test} and its key do not belong together`)
    }
    assert.deepEqual(readdirSync(this.challenges), [], 'challenge tokens are left')
  }

  async close(): Promise<void> {
    await this.lab.close()
  }
}
