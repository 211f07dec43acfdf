/** A directory that stands for a host with lematt-receive, and deliveries to it as the central host sends them. */
import { createHash } from 'node:crypto'
import {
  copyFileSync, existsSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { certify } from './certificates.js'
import { run, type Ran } from './run.js'

export const receiverPath = fileURLToPath(new URL('../../remote/lematt-receive', import.meta.url))

/** The tools that the receiver says it needs. */
export const tools = ['awk', 'chgrp', 'chmod', 'find', 'flock', 'head', 'ln', 'ls', 'mkdir', 'mv', 'rm', 'setsid', 'sh',
  'sha256sum', 'sync', 'tail', 'timeout']

/** dash with Debian's tools; busybox with its own, but for openssl and flock. */
export const flavours = (['dash', 'busybox'] as const).filter((name) => existsSync(`/bin/${name}`))
export type Flavour = typeof flavours[number]

export type Entry =
  | { readonly kind: 'cert' | 'key', readonly file: string, readonly text: string }
  | { readonly kind: 'certlink' | 'keylink', readonly file: string, readonly target: string }

export const sha256 = (text: string | Buffer): string => createHash('sha256').update(text).digest('hex')

/** Standard input of `deliver`. */
export function stream(entries: readonly Entry[]): string {
  const lines = entries.map((entry) => 'text' in entry
    ? `${entry.kind} ${entry.file} ${entry.text.split('\n').length - 1} ${sha256(entry.text)}`
    : `${entry.kind} ${entry.file} ${entry.target}`)
  const bodies = entries.map((entry) => 'text' in entry ? entry.text : '').join('')
  return `lematt-deliver 1 ${entries.length}\n${lines.map((line) => `${line}\n`).join('')}${bodies}end\n`
}

/** Key and certificate of a new pair, as entries for NAME and TAG. */
export function pair(name: string, tag = 'prime256v1'): [Entry & { text: string }, Entry & { text: string }] {
  const { key, certificate } = certify(`DNS:${name}`)
  return [{ kind: 'cert', file: `${name}-cert-combined.${tag}.pem`, text: certificate },
    { kind: 'key', file: `${name}-key.${tag}.pem`, text: key }]
}

/** What the receiver answers: its one line of JSON. */
export interface Answer { ok?: boolean, step?: string, message?: string, restored?: boolean, files?: unknown, [key: string]: unknown }

export interface Host {
  readonly base: string
  readonly cert: string
  readonly key: string
  readonly config: string
  /** Writes receive.conf: the directories, and these lines. */
  configure(...lines: string[]): void
  /** Runs the receiver as sshd would, and checks that it answers with one line of JSON and nothing else. */
  ask(command: string | undefined, input?: string | Buffer, env?: NodeJS.ProcessEnv): Promise<{ code: number | null, answer: Answer }>
  deliver(entries: readonly Entry[], services?: string): Promise<{ code: number | null, answer: Answer }>
  /** The command that sshd would run. */
  readonly command: readonly string[]
  /** name → kind, mode and contents of everything that services see; and of what is left in .lematt but the lock. */
  snapshot(): Record<string, string>
  /** An executable script for `reload`. */
  script(name: string, text: string): string
  remove(): void
}

/** A directory of links to busybox (and openssl) that stands for /usr/bin of a small system. */
function busyboxTools(base: string): string {
  const bin = join(base, 'bin')
  mkdirSync(bin)
  for (const tool of tools) symlinkSync('/bin/busybox', join(bin, tool))
  // Debian builds its busybox without flock; Alpine does not.
  for (const tool of ['flock', 'openssl']) {
    rmSync(join(bin, tool), { force: true })
    symlinkSync(`/usr/bin/${tool}`, join(bin, tool))
  }
  return bin
}

/** The receiver with another PATH, for the script fixes its own. */
export function withPath(script: string, path: string): void {
  copyFileSync(receiverPath, script)
  const text = readFileSync(script, 'utf8')
  const changed = text.replace(/^PATH=.*$/mu, `PATH=${path}`)
  if (changed === text) throw new Error('no PATH= in lematt-receive')
  writeFileSync(script, changed)
}

export function makeHost(flavour: Flavour): Host {
  const base = mkdtempSync(join(tmpdir(), 'lematt-receive-'))
  const [cert, key, config] = [join(base, 'cert'), join(base, 'key'), join(base, 'receive.conf')]
  mkdirSync(cert, { mode: 0o755 })
  mkdirSync(key, { mode: 0o750 })
  let script = receiverPath
  if (flavour === 'busybox') {
    script = join(base, 'lematt-receive')
    withPath(script, busyboxTools(base))
  }
  const command = [...flavour === 'dash' ? ['/bin/dash'] : ['/bin/busybox', 'sh'], script, config]
  const ask: Host['ask'] = async (asked, input = '', env = {}) => {
    const ran: Ran = await run(command[0] ?? '', command.slice(1), {
      input, cwd: base, env: { PATH: process.env.PATH, SSH_ORIGINAL_COMMAND: asked, ...env },
    })
    if (ran.stderr !== '' || !/^\{[ -~]*\}\n$/u.test(ran.stdout)) {
      throw new Error(`not one line of JSON (exit ${ran.code}): ${ran.stdout}${ran.stderr}`)
    }
    return { code: ran.code, answer: JSON.parse(ran.stdout) as Answer }
  }
  const host: Host = {
    base, cert, key, config, command, ask,
    configure: (...lines) => {
      writeFileSync(config, [`cert ${cert}`, `key ${key}`, ...lines, ''].join('\n'), { mode: 0o644 })
    },
    deliver: (entries, services = '') => ask(`deliver ${services}`.trim(), stream(entries)),
    snapshot: () => Object.fromEntries([cert, key].flatMap((directory) =>
      readdirSync(directory, { recursive: true, encoding: 'utf8' })
        .filter((name) => !/^\.lematt(?:\/(?:lock|new|old|plan|said))?$/u.test(name)).sort()
        .map((name) => [join(directory, name).slice(base.length + 1), describeFile(join(directory, name))]))),
    script: (name, text) => {
      writeFileSync(join(base, name), `#!/bin/sh\nPATH=/usr/bin:/bin\n${text}\n`, { mode: 0o755 })
      return join(base, name)
    },
    remove: () => { rmSync(base, { recursive: true, force: true }) },
  }
  host.configure()
  return host
}

function describeFile(path: string): string {
  const stat = lstatSync(path)
  const mode = (stat.mode & 0o7777).toString(8)
  if (stat.isSymbolicLink()) return `link ${readlinkSync(path)}`
  return stat.isFile() ? `${mode} ${stat.uid}:${stat.gid} ${sha256(readFileSync(path))}` : `${mode} other`
}
