/**
 * The words of the contract (spec §2) as types. Read this first: every other file speaks in them.
 * Plain values only: nothing here touches the disk, the network or the clock. Times are `Date`s in UTC,
 * durations carry their unit in their name.
 */
export type * from './planTypes.js'

/** `test` is the CA's staging, `prod` the real thing. They differ in directory URL, files and state alone. */
export type Mode = 'test' | 'prod'

/** One certificate per key type and subject. */
export type KeyType = 'rsa' | 'ec'

/**
 * One DNS name or IP address (RFC 8555 §9.7.7, RFC 8738) in canonical form: lower case, A-labels, no final
 * dot, perhaps a leading `*.`; IPv4 dotted, IPv6 as RFC 5952 writes it. Only `core/identifier.ts` makes
 * them, so wherever one is seen it holds letters, digits, `.`, `-`, `:` and at most one leading `*`.
 */
export type Identifier = string

/** Where something stands in a configuration file; line and column count from 1. */
export interface Place {
  readonly file: string
  readonly line: number
  readonly column: number
}

/** Something to tell the operator about a configuration file. Printed as `file:line:column: message`. */
export interface Problem {
  readonly place: Place
  readonly message: string
}

/** One line of `domains`. */
export interface Subject {
  /** Primary first, then the others in the order of the line, each once. Never empty. */
  readonly identifiers: readonly [Identifier, ...Identifier[]]
  /** From `… > LABEL`: stands for the subject in file names and in `domains:` of `actions.conf`. */
  readonly label?: string
  readonly place: Place
}

/** The settings of `[config]` in `lematt.conf` (spec §3.2), checked and with their defaults. */
export interface Settings {
  /** Absolute path; unset only when `challengeListen` is set. */
  readonly challengeDropDir?: string
  readonly challengeListen?: { readonly address: string; readonly port: number }
  readonly challengeCheck: boolean
  /** Absolute path. */
  readonly accountKey: string
  /** Days before expiry; may be a fraction. */
  readonly reauthorizeDays?: number
  /** Age in days at which to renew; 0 is off. */
  readonly generateNewCertsAfterDays: number
  readonly alwaysGenerateNewKeys: boolean
  readonly keyBitsRSA: 2048 | 3072 | 4096
  /** OpenSSL's name of the curve, whichever alias was typed. */
  readonly curve: 'prime256v1' | 'secp384r1'
  /** Used in file names: `[A-Za-z0-9._-]`, not starting with a dot; `rsaTag` and `curveTag` differ. */
  readonly rsaTag: string
  readonly curveTag: string
  /** Without repetition, EC first: the order in which they are issued. */
  readonly keyTypes: readonly KeyType[]
  readonly prodDirectory: string
  readonly testDirectory: string
  /** Absolute path of PEM roots trusted, besides the system's, for the ACME server. */
  readonly caBundle?: string
  /** Mail addresses, without `mailto:`. */
  readonly contact: readonly string[]
  readonly parallel: number
  readonly commandTimeoutSeconds: number
  /** How long ports are asked again after a reload. */
  readonly verifyGraceSeconds: number
  /** Absolute path of the log in JSON lines. */
  readonly logFile?: string
  /** Absolute path of an ssh_config file that takes the place of `~/.ssh/config` and the system's (`ssh -F`). */
  readonly sshConfig?: string
  /** Base URL under which the internet reaches our challenges: where `forward: redirect` sends the CA. No final slash. */
  readonly challengeUrl?: string
}

export type UploadKind = 'uploadCerts' | 'uploadKeys'
export type StepKind = 'prepare' | UploadKind | 'update'

/** A host of `hosts:`, as written: an alias of `~/.ssh/config`, or `user@host`, `host:port`, `user@[v6]:port`. No blanks. */
export type HostName = string

/** A port that must show the new certificate (`verify:`). */
export interface VerifyPort {
  /** As written, in one spelling: `993`, `25/smtp`, `443/ec`. */
  readonly text: string
  readonly port: number
  /** `tls`: TLS from the first byte; the others: STARTTLS (RFC 3207, RFC 3501 §6.2.1, RFC 2595 §4). */
  readonly protocol: 'tls' | 'smtp' | 'imap' | 'pop3'
  /** The only key type that the service has; undefined when it has all that the subject has. */
  readonly keyType?: KeyType
}

/** A `[name]` of `actions.conf`. Step lists are shell commands, as written. */
export interface Section {
  readonly name: string
  /** Identifiers or labels of an override; undefined for `[default]` and `[every]`. */
  readonly domains?: readonly string[]
  readonly prepare: readonly string[]
  readonly uploadCerts: readonly string[]
  readonly uploadKeys: readonly string[]
  readonly update: readonly string[]
  /** Hosts to deliver to over SSH (spec §8), each once, in the order of the file. */
  readonly hosts: readonly HostName[]
  /** Services that the hosts reload, by the names that their `receive.conf` knows. */
  readonly reload: readonly string[]
  readonly verify: readonly VerifyPort[]
  /** Where a host's ports are reached from here, when not at its HostName: host → host name or address. */
  readonly verifyAddress: Readonly<Record<HostName, string>>
  /** How the hosts bring challenges home. */
  readonly forward?: 'redirect' | 'tunnel'
  /** Certificate settings that this section overrides for its subjects. */
  readonly keyTypes?: readonly KeyType[]
  readonly place: Place
}

/** The three files, read and checked together. */
export interface Configuration {
  /** Absolute, symlinks resolved; holds the three files and the store. */
  readonly directory: string
  readonly settings: Settings
  readonly subjects: readonly Subject[]
  /** In delivery order: that of the file, `[every]` last. */
  readonly sections: readonly Section[]
  readonly warnings: readonly Problem[]
}

// ---------------------------------------------------------------------------------------------------
// Inventory: what the disk holds now.

/** What `edge/x509.ts` reads from a certificate. */
export interface Leaf {
  /** SHA-256 of the DER, lower-case hex: the fingerprint that receipts and checks use. */
  readonly fingerprint: string
  readonly identifiers: readonly Identifier[]
  readonly notBefore: Date
  readonly notAfter: Date
  readonly keyType: KeyType | 'other'
  /** RSA modulus length in bits; undefined for other keys. */
  readonly rsaBits?: number
  /** OpenSSL's curve name; undefined for other keys. */
  readonly curve?: string
  /** SHA-256 of the SubjectPublicKeyInfo, lower-case hex: equal to that of the key it belongs to. */
  readonly spki: string
  /** The issuer as a person would name it (CN, else O), control characters removed. */
  readonly issuer: string
  readonly serial: string
}

/** What `edge/x509.ts` reads from a private key; the key itself is not in here. */
export interface KeyFacts {
  readonly keyType: KeyType | 'other'
  readonly rsaBits?: number
  readonly curve?: string
  readonly spki: string
}

/**
 * `missing`, or `unreadable` with why, or what was read. `denied`: what stands there is not damaged, but we may not (or the
 * disk could not) read it, so it is no reason for a new one.
 */
export type Observed<T> = { readonly state: 'missing' } | { readonly state: 'unreadable'; readonly why: string; readonly denied?: boolean } | ({ readonly state: 'read' } & T)

/** One certificate slot of the store: a subject × key type with the files that it uses. */
export interface Held {
  readonly subject: Subject
  readonly keyType: KeyType
  /** NAME of spec §4. */
  readonly name: string
  readonly files: CertificateFiles
  readonly key: Observed<{ readonly facts: KeyFacts }>
  readonly certificate: Observed<{ readonly leaf: Leaf }>
}

/** File names (no directories) of one certificate in the store. */
export interface CertificateFiles {
  readonly key: string
  readonly certificate: string
  readonly csr: string
  /** Relative symlinks for each identifier of a multi-name subject: link name → target name. */
  readonly keyLinks: readonly string[]
  readonly certificateLinks: readonly string[]
}

// ---------------------------------------------------------------------------------------------------
// State: what earlier nights left for this one (spec §4, `state/`).

/** Receipts: section name → step identity (of a host: core/hostReceipts.ts) → certificate fingerprint → when (ISO 8601). */
export type Receipts = Readonly<Record<string, Readonly<Record<string, Readonly<Record<string, string>>>>>>

/** What went wrong last time with one order or section, and how often in a row. */
export interface Failure {
  readonly count: number
  /** ISO 8601. */
  readonly last: string
  readonly message: string
  /** What failed: a change of it (other names, another command) makes the record void. */
  readonly of: string
  /** Said by the CA (Retry-After): nothing before this instant (ISO 8601), whatever the back-off says. */
  readonly notBefore?: string
  /** Of a host in test mode: what its ports showed before the first try (core/verify.ts, `question` → fingerprint). */
  readonly before?: Readonly<Record<string, string>>
}

export interface State {
  readonly receipts: Receipts
  /** By `slotKey` (core/names.ts). */
  readonly orderFailures: Readonly<Record<string, Failure>>
  /** By section name. */
  readonly deliveryFailures: Readonly<Record<string, Failure>>
  /** By `hostKey` (core/hostPlan.ts): one host of one section. */
  readonly hostFailures: Readonly<Record<string, Failure>>
  /** The CA bars the whole account: no new order before `until`. Said at `since` by and to `authority`. */
  readonly accountBar?: { readonly until: string; readonly message: string; readonly since: string; readonly authority: string }
}
