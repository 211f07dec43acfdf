/**
 * Makes docs/configuration.md from the table of keys (src/core/keys.ts):
 *   node --import tsx scripts/reference.ts
 * test/reference.test.ts fails when the document is not what this gives.
 */
import { writeFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { configKeys, type Key, sectionKeys } from '../src/core/keys.js'

export const referencePath = new URL('../docs/configuration.md', import.meta.url)

function describe({ name, form, fallback, meaning }: Key): string {
  return `### \`${name}\`\n\n${meaning}\n\n- Value: ${form}\n- Default: ${fallback}\n`
}

const head = `# Configuration

<!-- Made from src/core/keys.ts by scripts/reference.ts. Change it there. -->

Three text files in one directory: \`lematt.conf\` (settings), \`domains\` (which certificates) and \`actions.conf\`
(where they go). \`--config PATH\` names that directory or its \`lematt.conf\`; without it, \`conf/lematt.conf\`.
Commented samples are in \`conf/\`. The store of keys and certificates, \`prod/\` and \`test/\`, grows beside the files.

All problems of all three files are reported at once, as \`file:line:column: message\`, before anything is touched;
the exit code is then 2. Try a change with \`lematt check\` and \`lematt --test\`.

The files are code: \`actions.conf\` holds commands that run as the user who runs lematt. So a file or a directory that
group or others can write is refused, and so is one that belongs to somebody other than root or that user; the same goes
for the directories above, except that sticky ones like \`/tmp\` may be written by others. The path of the directory holds
letters, digits and \`._/+@%=,:-\` only. Files are UTF-8, up to 5 MB.

## The form of lematt.conf and actions.conf

That of Python's configparser, in which files of the original program are written:

- \`[section]\`, then \`key: value\` or \`key = value\`. Keys have no case; sections have.
- A line that begins with \`#\` or \`;\` is a comment. After a value there are none: what stands there belongs to it.
- A line that is indented deeper than its key continues the value. So a list may span lines, with comments between;
  its closing bracket is indented too.
- \`[DEFAULT]\` in capitals gives values to all sections. It is not the \`[default]\` of \`actions.conf\`.
- \`%%\` means \`%\`; \`%(\` is an error (configparser would insert another value); any other \`%\` stands for itself.
- A section or a key that is there twice is an error, and so is an unknown key.
- CRLF and a byte order mark are accepted.
- yes or no: \`yes\`/\`no\`, \`true\`/\`false\`, \`on\`/\`off\`, \`1\`/\`0\`.
- A list is a JSON array of strings: \`["service nginx reload", "ssh mail-reload postfix"]\`.

## domains

One line is one subject: an RSA and an EC certificate for all its identifiers (\`keyTypes\` can change that).

\`\`\`
# what stands after a # is a comment
example.com www                        # → example.com www.example.com
corp.example.com internal hr           # → corp.example.com internal.corp.example.com hr.corp.example.com
bücher.example                         # → xn--bcher-kva.example
*.wild.example                         # needs a DNS challenge
cdn.example.com > cdn-berlin           # two servers, the same name,
cdn.example.com > cdn-tokyo            # each with a key and certificate of its own
\`\`\`

- Identifiers are DNS names, or public IPv4 and IPv6 addresses, separated by blanks; up to 100 on a line. A name that is
  repeated on a line counts once.
- A word without a dot is a subdomain of the first name of its line.
- Names are letters, digits and hyphens in labels of up to 63 octets, 253 octets in all, with at least two labels.
  Names in other scripts become A-labels, if that changes nothing else about them.
- Private, loopback, documentation and other special addresses are errors, for no CA can reach them.
- \`> LABEL\` at the end, between blanks, names the subject: up to 100 of \`a-z 0-9 . _ -\`, not beginning with \`.\`
  or \`-\`, not ending with \`.\`, unique, and not a name of another line. The label stands for the subject in file names
  and in \`domains:\` of \`actions.conf\`.
- Two lines that would have the same files are an error. A name in two subjects is a warning, unless both have a label.

## lematt.conf

All settings are in the section \`[config]\`.
`

const actions = `
## actions.conf

- \`[default]\` serves every identifier that no other section lists. Without it there is a warning.
- \`[every]\` serves all identifiers in addition, after the other sections.
- Any other section is an override: it serves those that its \`domains:\` lists, instead of \`[default]\`. An identifier
  in several overrides goes to each of them.

A subject belongs to each section that at least one of its identifiers comes to. Sections are delivered in the order of
the file.

Commands run by \`/bin/sh -c\` in the working directory of the run, with standard input \`/dev/null\` and with
\`LEMATT_MODE\` (\`test\` or \`prod\`) and \`LEMATT_SECTION\` added to the environment. What is substituted is quoted
for the shell. The commands of a section run in order and stop at the first that fails; what has not worked is done in
the next run, without a new certificate. An empty command is left out with a warning.

A section with \`hosts:\` delivers over SSH to hosts that were enrolled, and then runs its commands, if it has any.
\`reload\`, \`verify\`, \`verifyAddress\` and \`forward\` say what these hosts do; without \`hosts\` they are an error,
unless they come from \`[DEFAULT]\` and are meant for other sections.

\`\`\`
[mail]
domains: mail.example.com dev.example.com
hosts: mx1 mx2
reload: postfix dovecot
verify: 993 465 25/smtp
verifyAddress: mx1=10.0.0.25
forward: redirect
\`\`\`
`

/** The whole text of docs/configuration.md. */
export function renderReference(): string {
  return [head, ...configKeys.map(describe), actions, ...sectionKeys.map(describe)].join('\n')
    .replace(/\n{3,}/gu, '\n\n')
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) writeFileSync(referencePath, renderReference())
