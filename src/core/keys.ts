/**
 * Every key that lematt.conf and actions.conf can hold, once: the readers refuse what is not here, and the
 * reference in docs/configuration.md is made from it (scripts/reference.ts).
 */

export interface Key {
  readonly name: string
  /** What may be written, for the reference. */
  readonly form: string
  /** What holds when the key is not there, for the reference. */
  readonly fallback: string
  /** Markdown, whole sentences. */
  readonly meaning: string
}

export const letsEncrypt = {
  prod: 'https://acme-v02.api.letsencrypt.org/directory',
  test: 'https://acme-staging-v02.api.letsencrypt.org/directory',
} as const

/** Section `[config]` of lematt.conf. */
export const configKeys = [
  {
    name: 'challengeDropDir', form: 'directory', fallback: 'required, unless `challengeListen` is set',
    meaning: 'Where your web server finds what it serves as `/.well-known/acme-challenge/` for all names (directly or '
      + 'by redirect). lematt puts one small file per validation there and takes it away afterwards. A relative '
      + 'path counts from the working directory of the run, here and in the other keys that name a file.',
  },
  {
    name: 'accountKey', form: 'file', fallback: 'required',
    meaning: 'Private key of the account at the CA, in PEM (PKCS#1, SEC1 or PKCS#8). When the file is missing and its '
      + 'directory exists, a key is made there (EC P-256, mode 0600). Readable by others: a warning; writable by '
      + 'others: refused.',
  },
  {
    name: 'reauthorizeDays', form: 'days, fractions allowed', fallback: 'unset',
    meaning: 'Renew this many days before expiry. Never more than 2/3 of the certificate\'s own lifetime (1/2 where '
      + 'that is under 10 days): a larger number is cut to that with a warning, for 60 with a 45-day certificate '
      + 'would reissue every night. Without this key and the next one, lematt renews with 1/3 of the lifetime '
      + 'left, or 1/2 if the lifetime is under 10 days.',
  },
  {
    name: 'generateNewCertsAfterDays', form: 'days, fractions allowed', fallback: '`0` (off)',
    meaning: 'Renew at this age instead, counted from notBefore; it works for any lifetime and wins over '
      + '`reauthorizeDays`. Not below 3.5 days: Let\'s Encrypt issues 5 certificates for the same names in 7 '
      + 'days, an RSA and an EC certificate take 2 of them, so 2 renewals fit into 7 days. Less is a warning.',
  },
  {
    name: 'alwaysGenerateNewKeys', form: 'yes or no', fallback: '`no`',
    meaning: 'Make a new key for each renewal; else the key is kept and only the certificate changes.',
  },
  {
    name: 'keyBitsRSA', form: '2048, 3072 or 4096', fallback: '`2048`',
    meaning: 'Size of RSA keys. Larger ones cost every client and server more, for no gain while RSA-2048 stands.',
  },
  {
    name: 'curve', form: '`prime256v1` (also called `secp256r1`) or `secp384r1`', fallback: '`prime256v1`',
    meaning: 'Curve of EC keys, by its OpenSSL name.',
  },
  {
    name: 'rsaTag', form: 'letters, digits, `.`, `_`, `-`', fallback: '`rsa` and the bits, as in `rsa2048`',
    meaning: 'Stands in the file names of RSA keys and certificates.',
  },
  {
    name: 'curveTag', form: 'letters, digits, `.`, `_`, `-`', fallback: 'the curve as typed, as in `prime256v1`',
    meaning: 'Stands in the file names of EC keys and certificates; differs from `rsaTag`.',
  },
  {
    name: 'keyTypes', form: '`rsa`, `ec` or both', fallback: '`rsa ec`',
    meaning: 'Which certificates each subject gets. A section of `actions.conf` can say otherwise for its subjects.',
  },
  {
    name: 'prodDirectory', form: 'https URL', fallback: `Let's Encrypt, \`${letsEncrypt.prod}\``,
    meaning: 'Directory of the ACME server that `--prod` uses (RFC 8555 §7.1.1).',
  },
  {
    name: 'testDirectory', form: 'https URL', fallback: `Let's Encrypt staging, \`${letsEncrypt.test}\``,
    meaning: 'Directory of the ACME server that `--test` uses. Its certificates are trusted by nobody; it is there to '
      + 'try things.',
  },
  {
    name: 'caBundle', form: 'file', fallback: 'unset',
    meaning: 'PEM certificates of CAs that are trusted, besides those that Node.js brings, for the connection '
      + 'to the ACME server itself: needed for a CA inside the organisation.',
  },
  {
    name: 'contact', form: 'mail addresses', fallback: 'unset',
    meaning: 'Mail addresses that the CA keeps with the account, separated by blanks or commas.',
  },
  {
    name: 'parallel', form: 'whole number from 1 to 256', fallback: '`16`',
    meaning: 'How many subjects are in progress at once. `--parallel N` wins over it.',
  },
  {
    name: 'commandTimeout', form: 'seconds', fallback: '`300`',
    meaning: 'How long one step of `actions.conf` may take. Then its process group gets TERM, and KILL 5 seconds '
      + 'later.',
  },
  {
    name: 'challengeListen', form: '`address:port`, as in `0.0.0.0:80` or `[::]:80`', fallback: 'unset',
    meaning: 'Answer challenges ourselves on this address while validations run, without a web server. Wins over '
      + '`challengeDropDir`.',
  },
  {
    name: 'challengeCheck', form: 'yes or no', fallback: '`yes`',
    meaning: 'Fetch each challenge ourselves, as the CA would, before the CA is asked: a mistake found here costs no '
      + 'failed validation. Names are looked up in DNS, as the CA does it: `/etc/hosts` is not asked. `no` where names '
      + 'resolve differently inside (split-horizon DNS); the CA is then asked as soon as each `prepare` command has '
      + 'printed a line, has ended, or has run for 5 seconds.',
  },
  {
    name: 'logFile', form: 'file', fallback: 'unset',
    meaning: 'Where to write the log, one JSON object per line.',
  },
  {
    name: 'sshConfig', form: 'file', fallback: 'unset: `~/.ssh/config` and that of the system',
    meaning: 'The ssh configuration that says how the hosts of `hosts:` are reached, in place of the usual ones (as '
      + '`ssh -F` does).',
  },
  {
    name: 'verifyGrace', form: 'seconds', fallback: '`30`',
    meaning: 'How long the ports of `verify:` are asked again after a reload until they show the new certificate. A '
      + 'service that starts slowly needs longer.',
  },
  {
    name: 'challengeUrl', form: 'http or https URL', fallback: 'unset; required with `forward: redirect`',
    meaning: 'Where the internet reaches this central host: the CA is sent from a host with `forward: redirect` to this '
      + 'URL followed by `/.well-known/acme-challenge/`. CAs follow to port 80 and 443 only, so no other port can '
      + 'stand in it, and no user or query.',
  },
] as const satisfies readonly Key[]

/** Sections of actions.conf. */
export const sectionKeys = [
  {
    name: 'domains', form: 'names, addresses or labels', fallback: 'required in an override, an error elsewhere',
    meaning: 'Which identifiers this section takes over from `[default]`, separated by blanks: as `domains` has them '
      + '(whole names, no short words), or the label of a subject for all its identifiers. One that no subject '
      + 'has is a warning.',
  },
  {
    name: 'prepare', form: 'list of commands', fallback: 'none',
    meaning: 'Started before validation of the identifiers that come to this section, and ended when the last subject '
      + 'that needs it is done. `DOMAIN` becomes the identifier; each distinct command runs once. One that exits '
      + 'non-zero fails its subjects.',
  },
  {
    name: 'uploadCerts', form: 'list of commands', fallback: 'none',
    meaning: 'Run once for all certificates that the section lacks. `CERTS` becomes the paths of their files and of '
      + 'the links of their identifiers, both key types.',
  },
  {
    name: 'uploadKeys', form: 'list of commands', fallback: 'none',
    meaning: 'After `uploadCerts`, in the same way: `KEYS` becomes the paths of the private keys and of their links.',
  },
  {
    name: 'update', form: 'list of commands', fallback: 'none',
    meaning: 'Then, once per section. `DOMAINS_CN` becomes the first names, `DOMAINS_ALL` all names of the '
      + 'certificates concerned, separated by blanks and sorted.',
  },
  {
    name: 'hosts', form: 'hosts', fallback: 'none',
    meaning: 'Enrolled hosts that get the keys and certificates of this section over SSH, before its commands run: aliases '
      + 'of `~/.ssh/config`, or `user@host:port`, separated by blanks. Each host puts all files in place or none, and '
      + 'puts the old ones back when a reload fails. What a host could not take is delivered in the next run.',
  },
  {
    name: 'reload', form: 'names of services', fallback: 'none',
    meaning: 'What the hosts reload when they have got something, in this order: names that `receive.conf` on the host '
      + 'gives to its commands. One that is added here is reloaded in the next run, without files being sent.',
  },
  {
    name: 'verify', form: 'ports', fallback: 'none',
    meaning: 'Ports of each host that must show the new certificate afterwards, as in `993 25/smtp 443/ec`: a delivery '
      + 'is done when they do. `/smtp`, `/imap` and `/pop3` begin with STARTTLS, the others with TLS. Each key type '
      + 'is asked for; `/rsa` or `/ec` says that the service has only that one. Every run looks at them, and what has '
      + 'drifted is delivered again.',
  },
  {
    name: 'verifyAddress', form: '`HOST=ADDRESS` words, or one address', fallback: 'where ssh finds the host',
    meaning: 'Where the ports of `verify` are reached from here, when that is not where ssh connects to: a host name or '
      + 'an address for each host that needs one. A section with one host can have the address alone.',
  },
  {
    name: 'forward', form: '`redirect` or `tunnel`', fallback: 'none',
    meaning: 'How the hosts help to validate the identifiers that come to this section. `redirect`: a forwarder runs on '
      + 'port 80 of each host meanwhile, and sends the CA to `challengeUrl`. `tunnel`: for a central host that the '
      + 'internet cannot reach; the web server of the host passes `/.well-known/acme-challenge/` to its port '
      + '127.0.0.1:8402, and lematt answers through its connection.',
  },
  {
    name: 'keyTypes', form: '`rsa`, `ec` or both', fallback: 'that of `lematt.conf`',
    meaning: 'Which certificates the subjects of this section get. Sections that disagree about a subject are an '
      + 'error.',
  },
  {
    name: 'ocspStapleRequired', form: 'anything', fallback: 'none',
    meaning: 'Accepted for old files and ignored with a warning: CAs no longer issue must-staple certificates.',
  },
] as const satisfies readonly Key[]

export type ConfigKey = typeof configKeys[number]['name']
export type SectionKey = typeof sectionKeys[number]['name']

/** The candidate that `word` was probably meant to be, case ignored; undefined when none is near. */
export function nearest(word: string, candidates: Iterable<string>): string | undefined {
  const typed = word.toLowerCase()
  let best: { readonly name: string; readonly distance: number } | undefined
  for (const name of candidates) {
    const most = Math.max(1, Math.min(4, Math.floor(name.length / 3)))
    if (Math.abs(name.length - typed.length) > most) continue
    const distance = editDistance(typed, name.toLowerCase())
    if (distance <= most && distance < (best?.distance ?? Infinity)) best = { name, distance }
  }
  return best?.name
}

// Insertions, deletions, substitutions and swaps of neighbours (optimal string alignment).
function editDistance(a: string, b: string): number {
  const rows = [Array.from({ length: b.length + 1 }, (_, j) => j)]
  const at = (i: number, j: number): number => rows[i]?.[j] ?? Infinity
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    rows.push(row)
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1
      const swap = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1] ? at(i - 2, j - 2) + 1 : Infinity
      row.push(Math.min(at(i - 1, j) + 1, at(i, j - 1) + 1, at(i - 1, j - 1) + same, swap))
    }
  }
  return at(a.length, b.length)
}
