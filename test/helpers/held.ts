/** Plain values of the inventory, for tests of what is decided from it. */
import type { Configuration, Held, Identifier, KeyType, Leaf, Section, Settings, Subject } from '../../src/core/types.js'

export const dayMs = 86_400_000
export const now = new Date('2026-11-20T03:30:00.000Z')
/** An instant so many days after `now` (before it, when negative). */
export const inDays = (days: number): Date => new Date(now.getTime() + days * dayMs)

const place = { file: 'actions.conf', line: 1, column: 1 }

export const settings: Settings = {
  challengeDropDir: '/srv/challenges', challengeCheck: true, accountKey: '/conf/account.key', generateNewCertsAfterDays: 0,
  alwaysGenerateNewKeys: false, keyBitsRSA: 2048, curve: 'prime256v1', rsaTag: 'rsa2048', curveTag: 'prime256v1',
  keyTypes: ['ec', 'rsa'], prodDirectory: 'https://ca.example/prod', testDirectory: 'https://ca.example/test', contact: [],
  parallel: 16, commandTimeoutSeconds: 300, verifyGraceSeconds: 30,
}

/** @param identifiers blank-separated, the primary first */
export function subject(identifiers: string, label?: string): Subject {
  return { identifiers: identifiers.split(' ') as [Identifier, ...Identifier[]], ...(label === undefined ? {} : { label }), place }
}

export interface HeldOptions {
  readonly keyType?: KeyType
  readonly subject?: Subject
  /** Changes of the certificate that was read; its spki stays that of the key unless changed here. */
  readonly leaf?: Partial<Leaf>
  readonly key?: Held['key']
  readonly certificate?: Held['certificate']
}

/** A healthy certificate of 90 days, ten days old, unless the options say otherwise. */
export function held(identifiers = 'a.example', options: HeldOptions = {}): Held {
  const { keyType = 'ec', subject: of = subject(identifiers) } = options
  const name = of.label ?? of.identifiers.join('_').replaceAll('*', '_wildcard')
  const tag = keyType === 'rsa' ? 'rsa2048' : 'prime256v1'
  const facts = keyType === 'rsa' ? { keyType, rsaBits: 2048 } : { keyType, curve: 'prime256v1' }
  const spki = `spki of ${name} ${keyType}`
  const links = of.identifiers.length < 2 ? [] : of.identifiers.map(id => id.replace('*', '_wildcard'))
  const leaf: Leaf = {
    ...facts, spki, fingerprint: `print of ${name} ${keyType}`, identifiers: of.identifiers, notBefore: inDays(-10), notAfter: inDays(80),
    issuer: 'Test CA', serial: '01', ...options.leaf,
  }
  return {
    subject: of, keyType, name,
    files: {
      key: `${name}-key.${tag}.pem`, certificate: `${name}-cert-combined.${tag}.pem`, csr: `${name}-csr.${tag}.csr`,
      keyLinks: links.map(l => `${l}-key.${tag}.pem`), certificateLinks: links.map(l => `${l}-cert-combined.${tag}.pem`),
    },
    key: options.key ?? { state: 'read', facts: { ...facts, spki } },
    certificate: options.certificate ?? { state: 'read', leaf },
  }
}

export function section(name: string, steps: Partial<Section> = {}): Section {
  return { name, prepare: [], uploadCerts: [], uploadKeys: [], update: [], hosts: [], reload: [], verify: [], verifyAddress: {}, place, ...steps }
}

export function configuration(sections: readonly Section[], changed: Partial<Settings> = {}): Configuration {
  return { directory: '/conf', settings: { ...settings, ...changed }, subjects: [], sections, warnings: [] }
}
