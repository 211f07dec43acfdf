/** The documents speak of this program: links, paths, flags, keys, examples and JSON fields are held against the code. */
import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, test } from 'node:test'
import { parseArguments, usage, verbs } from '../src/args.js'
import { receiveConf, sudoersFile, onHost } from '../src/core/enrolment.js'
import { assemble } from '../src/core/config.js'
import { configKeys, sectionKeys } from '../src/core/keys.js'
import { planJson, reportJson } from '../src/core/report.js'
import type { Delivery, Held, HostDelivery, Leaf, Order } from '../src/core/types.js'

const root = new URL('..', import.meta.url).pathname
const documents = ['README.md', 'CHANGELOG.md', ...readdirSync(join(root, 'docs')).filter(f => f.endsWith('.md')).map(f => `docs/${f}`)]
const read = (file: string): string => readFileSync(join(root, file), 'utf8')

const fence = /^ *```\w*\n([^]*?)^ *```$/gmu
const blocksOf = (text: string): string[] => [...text.matchAll(fence)].map(m => m[1] ?? '')
const spansOf = (text: string): string[] => [...text.replace(fence, '').matchAll(/`([^`\n]+(?:\n[^`\n]+)?)`/gu)].map(m => (m[1] ?? '').replace(/\s+/gu, ' '))

/** The anchors that a renderer gives to the headings. */
const anchorsOf = (text: string): string[] => [...text.replace(fence, '').matchAll(/^#+ (.*)$/gmu)]
  .map(m => (m[1] ?? '').toLowerCase().replace(/[^\p{L}\p{N} _-]/gu, '').replaceAll(' ', '-'))

/** What is wrong with the links of a document. */
function brokenLinks(file: string, text: string): string[] {
  return [...text.replace(fence, '').matchAll(/\]\(([^)\s]+)\)/gu)].map(m => m[1] ?? '').filter(link => {
    if (/^[a-z]+:/u.test(link)) return false
    const [path = '', anchor] = link.split('#')
    const target = path === '' ? file : join(dirname(file), path)
    return !existsSync(join(root, target)) || (anchor !== undefined && !anchorsOf(read(target)).includes(anchor))
  })
}

/** Words after `lematt` in code that the program would not take. */
function unknownWords(text: string): string[] {
  const lines = [...blocksOf(text).flatMap(b => b.split('\n')), ...spansOf(text)].map(line => line.replace(/#.*/u, ''))
  return lines.flatMap(line => [...line.matchAll(/(?:^|[\s(])lematt ((?! )[^&;]*)/gu)].flatMap(([, rest = '']) => {
    const flags = (rest.match(/--[a-z][a-z-]*/gu) ?? []).filter(flag => !new RegExp(`${flag}(?![a-z-])`, 'u').test(usage))
    const verb = /^[a-z]+/u.exec(rest)?.[0]
    return verb === undefined || verbs.some(known => known === verb) ? flags : [verb, ...flags]
  }))
}

const keys = new Set<string>([...configKeys, ...sectionKeys].map(k => k.name))
/** Names in camel case, as keys have them, that are none. */
const unknownKeys = (text: string): string[] => spansOf(text)
  .map(span => /^([a-z]+(?:[A-Z][A-Za-z]*)+)(?::.*)?$/u.exec(span)?.[1])
  .filter(name => name !== undefined).filter(name => !keys.has(name))

/** Files of this repository that are named in code and are not there. */
const missingPaths = (text: string): string[] => [...spansOf(text), ...blocksOf(text)]
  .flatMap(code => code.match(/(?<![\w/~.-])(?:src|forwarder|scripts|test\/helpers|remote)\/[\w./-]*/gu) ?? [])
  .filter(path => !existsSync(join(root, path)))

describe('documents', () => {
  for (const file of documents) {
    const text = read(file)
    test(`${file}: links, paths and flags are real`, () => {
      assert.deepEqual(brokenLinks(file, text), [], 'links')
      assert.deepEqual(missingPaths(text), [], 'paths')
      assert.deepEqual(unknownWords(text), [], 'flags and verbs of lematt')
    })
    // json.md speaks of fields; each of them is looked at below.
    if (file !== 'docs/json.md') test(`${file}: configuration keys are real`, () => assert.deepEqual(unknownKeys(text), []))
  }

  test('these tests see what is wrong', () => {
    const wrong = '# A b\n[x](gone.md) [y](README.md#gone) `lematt --quick` `lematt undo` `reauthoriseDays: 3` `src/core/gone.ts`\n```sh\nlematt --prod --gone # --fine\n```\n'
    assert.deepEqual(brokenLinks('README.md', wrong), ['gone.md', 'README.md#gone'])
    assert.deepEqual(unknownWords(wrong), ['--gone', '--quick', 'undo'])
    assert.deepEqual(unknownKeys(wrong), ['reauthoriseDays'])
    assert.deepEqual(missingPaths(wrong), ['src/core/gone.ts'])
  })

  test('the documents name each verb and mode that the program takes', () => {
    const all = documents.map(read).join('\n')
    for (const line of ['lematt --test', 'lematt --prod', 'lematt check', 'lematt plan --prod', 'lematt deliver mail --again --prod', 'lematt --prod --cron']) {
      assert.ok(all.includes(line), line)
      assert.doesNotThrow(() => parseArguments(line.split(' ').slice(1)))
    }
  })
})

describe('README', () => {
  const readme = read('README.md')

  test('its three files load, without a problem or a warning', () => {
    const part = readme.slice(readme.indexOf('### 4. The three files'), readme.indexOf('### 5.'))
    const [domains = '', settings = '', actions = ''] = blocksOf(part)
    const { configuration, problems, warnings } = assemble({
      settings: { file: 'lematt.conf', text: settings }, domains: { file: 'domains', text: domains }, actions: { file: 'actions.conf', text: actions },
    }, { directory: '/srv/lematt/conf', workingDirectory: '/srv/lematt' })
    assert.deepEqual([problems, warnings], [[], []])
    assert.deepEqual(configuration?.subjects.map(s => s.identifiers), [['example.com', 'www.example.com'], ['mail.example.com', 'smtp.example.com']])
    assert.deepEqual(configuration.sections.map(s => s.name), ['default', 'mail', 'every'])
    assert.equal(configuration.settings.challengeDropDir, '/srv/web/challenges')
  })

  test('the exit codes are those of --help', () => {
    const table = [...readme.matchAll(/^\| ([\d, ]+) \|/gmu)].flatMap(m => (m[1] ?? '').split(', '))
    const help = (usage.slice(usage.indexOf('exit codes:')).match(/\b\d+\b/gu) ?? [])
    assert.ok(help.length >= 7)
    assert.deepEqual(help.filter(code => !table.includes(code)), [])
  })
})

describe('docs/hosts.md', () => {
  const text = read('docs/hosts.md')
  const blocks = (language: string): string[] => [...text.matchAll(/^```(\w+)\n([^]*?)^```$/gmu)].filter(m => m[1] === language).map(m => m[2] ?? '')

  test('its examples of actions.conf load, without a problem or a warning, and name all words of hosts', () => {
    const examples = blocks('ini')
    assert.ok(examples.length >= 4)
    for (const actions of examples) {
      const { problems, warnings } = assemble({
        settings: { file: 'lematt.conf', text: '[config]\nchallengeDropDir: /c/\naccountKey: /k\nchallengeUrl: http://central.example.com\n' },
        domains: { file: 'domains', text: 'mail.example.com\nwww.example.com\n' }, actions: { file: 'actions.conf', text: actions },
      }, { directory: '/srv/lematt/conf', workingDirectory: '/srv/lematt' })
      assert.deepEqual([problems, warnings], [[], []], actions)
    }
    for (const word of ['hosts', 'reload', 'verify', 'verifyAddress', 'forward']) assert.match(examples.join('\n'), new RegExp(`^${word}: `, 'mu'))
  })

  test('its commands, and those of the README and security.md, are taken by the program', () => {
    const lines = ['docs/hosts.md', 'README.md', 'docs/security.md'].flatMap(file => [...read(file).matchAll(/^```sh\n([^]*?)^```$/gmu)])
      .flatMap(m => (m[1] ?? '').replace(/\\\n\s*/gu, '').split('\n')).filter(line => /^lematt /u.test(line))
    assert.ok(lines.filter(line => line.startsWith('lematt enroll')).length >= 3)
    for (const line of lines) {
      const words = (line.replace(/ (?:#|>) .*/u, '').match(/(?:'[^']*'|\S)+/gu) ?? []).map(word => word.replace(/'/gu, ''))
      assert.doesNotThrow(() => parseArguments(words.slice(1)), line)
    }
  })

  test('the table of what enrolment makes is what it makes', () => {
    for (const path of Object.values(onHost).filter(p => p.startsWith('/') && p !== onHost.sudo)) assert.ok(text.includes(path), path)
    const enrolment = { host: 'mx1', user: 'certmaint', reloads: [{ name: 'postfix', command: '/usr/bin/systemctl reload postfix' }], from: [], names: [], receiver: '' }
    assert.match(receiveConf(enrolment), /^certmode 0644\nkeymode 0640\ngroup ssl-cert$/mu)
    assert.match(sudoersFile(enrolment), /TIMEOUT=60 NOPASSWD: \/usr\/bin\/systemctl reload postfix$/mu)
  })
})

describe('docs/architecture.md', () => {
  test('the tree names every file above the edges, and every edge', () => {
    const text = read('docs/architecture.md')
    const files = ['src', 'src/core', 'src/edge'].flatMap(folder => readdirSync(join(root, folder)).filter(f => f.endsWith('.ts')).map(f => `${folder}/${f}`))
    assert.ok(files.length > 60)
    assert.deepEqual(files.filter(file => !text.includes(`\`${file}\``)), [])
  })
})

describe('docs/json.md', () => {
  const text = read('docs/json.md')
  const described = text.slice(text.indexOf('## The plan'), text.indexOf('## The findings'))
  const fields = [...described.matchAll(/^\| (`[^|]*) \|/gmu)].flatMap(m => [...(m[1] ?? '').matchAll(/`(\w+)`/gu)].map(f => f[1] ?? ''))

  test('every field of plan and report is described, and no other', () => {
    const produced = new Set([planJson(plan()), reportJson(report())].flatMap(fieldsOf))
    assert.ok(produced.size > 20)
    assert.deepEqual([...produced].filter(f => !described.includes(`\`${f}\``)), [], 'fields that are not described')
    assert.deepEqual(fields.filter(f => !produced.has(f)), [], 'fields that do not exist')
  })
})

/** All keys of a value and of what it holds. */
function fieldsOf(value: unknown): string[] {
  if (Array.isArray(value)) return value.flatMap(fieldsOf)
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([key, inner]) => [key, ...fieldsOf(inner)])
}

const now = new Date('2026-11-21T03:00:00Z')
const place = { file: 'domains', line: 1, column: 1 }
const held: Held = {
  subject: { identifiers: ['example.com'], place }, keyType: 'ec', name: 'example.com',
  files: { key: 'k', certificate: 'c', csr: 'r', keyLinks: [], certificateLinks: [] }, key: { state: 'missing' }, certificate: { state: 'missing' },
}
const leaf: Leaf = { fingerprint: 'f', identifiers: ['example.com'], notBefore: now, notAfter: now, keyType: 'ec', spki: 's', issuer: 'i', serial: '1' }
const order: Order = { held, reason: 'new', newKey: true, parked: { why: 'failed', until: now } }
const delivery: Delivery = {
  section: { name: 'default', prepare: [], uploadCerts: ['true'], uploadKeys: [], update: [], hosts: [], reload: [], verify: [], verifyAddress: {}, place },
  steps: [{ kind: 'uploadCerts', command: 'true', key: 'uploadCerts true', certificates: [held] }], certificates: [held], reason: 'never', parked: { why: 'failed', until: now },
}
const done = { files: 2, reloaded: ['nginx'], verified: ['443'] }
const host: HostDelivery = {
  section: delivery.section, host: 'web1', send: [held], reload: ['nginx'], verify: [{ text: '443', port: 443, protocol: 'tls' }],
  certificates: [held], reason: 'never', parked: { why: 'failed', until: now },
}

const plan = (): Parameters<typeof planJson>[0] => ({ mode: 'prod', now, orders: [order], hosts: [host], deliveries: [delivery], warnings: [] })
const report = (): Parameters<typeof reportJson>[0] => ({
  mode: 'prod', started: now, ended: now, notes: [], warnings: [], failures: [],
  orders: [{ status: 'done', order, leaf }, { status: 'failed', order, message: 'm' }, { status: 'parked', order, message: 'm' }],
  hosts: [
    { status: 'done', delivery: host, done }, { status: 'failed', delivery: host, done, step: 's', message: 'm' },
    { status: 'parked', delivery: host, message: 'm' },
  ],
  deliveries: [
    { status: 'done', delivery, ran: [] }, { status: 'failed', delivery, ran: [], step: 's', message: 'm' }, { status: 'parked', delivery, message: 'm' },
  ],
})
