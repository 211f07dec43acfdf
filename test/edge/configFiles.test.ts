import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import {
  chmod, chown, cp, mkdir, mkdtemp, readdir, realpath, rename, rm, stat, symlink, truncate, writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { ConfigError, formatProblem } from '../../src/core/errors.js'
import { loadConfiguration } from '../../src/edge/configFiles.js'

const settings = '[config]\naccountKey: account.pem\nchallengeDropDir: /srv/challenges\n'

async function directory(t: TestContext): Promise<string> {
  const made = await realpath(await mkdtemp(join(tmpdir(), 'lematt-config-')))
  t.after(() => rm(made, { recursive: true, force: true }))
  return made
}

/** A working directory with a `conf` in it, from small good files and those given. */
async function conf(
  t: TestContext, files: Record<string, string | Buffer> = {},
): Promise<{ cwd: string; conf: string }> {
  const cwd = await directory(t)
  const texts = { 'lematt.conf': settings, domains: 'example.com www\n', 'actions.conf': '[default]\n', ...files }
  await mkdir(join(cwd, 'conf'), { mode: 0o755 })
  for (const [name, text] of Object.entries(texts)) await writeFile(join(cwd, 'conf', name), text, { mode: 0o644 })
  return { cwd, conf: join(cwd, 'conf') }
}

/** The problems of a configuration that must be refused, as they are printed. */
async function refused(path: string, cwd: string): Promise<string[]> {
  const error: unknown = await loadConfiguration(path, cwd)
    .then(() => assert.fail('the configuration was taken'), (thrown: unknown) => thrown)
  assert.ok(error instanceof ConfigError, String(error))
  return error.problems.map(formatProblem)
}

test('the file, the directory, a link to either: the same configuration', async (t) => {
  const { cwd, conf: there } = await conf(t)
  await symlink('conf', join(cwd, 'link'))
  await symlink('conf/lematt.conf', join(cwd, 'linked.conf'))
  for (const path of ['conf/lematt.conf', 'conf', 'conf/', 'link', 'link/lematt.conf', 'linked.conf', there]) {
    const loaded = await loadConfiguration(path, cwd)
    assert.equal(loaded.directory, there, path)
    assert.deepEqual(loaded.subjects.map(({ identifiers }) => identifiers), [['example.com', 'www.example.com']])
    assert.equal(loaded.settings.accountKey, join(cwd, 'account.pem'), 'from the working directory, as in the original')
    assert.equal(loaded.subjects[0]?.place.file, 'conf/domains')
  }
})

test('lematt.conf may have another name', async (t) => {
  const { cwd, conf: there } = await conf(t)
  await rename(join(there, 'lematt.conf'), join(there, 'other.conf'))
  assert.equal((await loadConfiguration('conf/other.conf', cwd)).directory, there)
  assert.match((await refused('conf', cwd)).join(), /^conf\/lematt\.conf:1:1: cannot be read: there is no such file$/)
})

test('a path that is not there', async (t) => {
  const cwd = await directory(t)
  const found = await refused('conf/lematt.conf', cwd)
  assert.deepEqual(found, ['conf/lematt.conf:1:1: cannot be opened: there is no such file'])
  assert.deepEqual(await readdir(cwd), [], 'nothing was made')
})

test('all problems of all three files at once, and outside of the working directory with the whole path', async (t) => {
  const bad = { 'lematt.conf': '[config]\nfoo: 1\n', domains: 'a_b.example\n', 'actions.conf': 'x\n' }
  const { conf: there } = await conf(t, bad)
  const found = await refused(there, await directory(t))
  const places = ['lematt.conf:1:1:', 'lematt.conf:1:1:', 'lematt.conf:2:1:', 'domains:1:1:', 'actions.conf:1:1:']
  assert.deepEqual(found.map((each) => each.split(' ')[0]), places.map((place) => join(there, place)))
})

test('one unreadable file does not hide the problems of the others', async (t) => {
  const { cwd, conf: there } = await conf(t, { 'lematt.conf': `${settings}parallel: 0\n` })
  await rm(join(there, 'domains'))
  const found = await refused('conf', cwd)
  assert.deepEqual(found.map((each) => each.split(': ')[0]), ['conf/domains:1:1', 'conf/lematt.conf:4:11'])
})

test('what group or others can write is refused with the chmod', async (t) => {
  const cases = [
    ['domains', 0o664, 'g-w'], ['actions.conf', 0o646, 'o-w'], ['lematt.conf', 0o666, 'go-w'],
    ['.', 0o775, 'g-w'], ['.', 0o1777, 'go-w'],
  ] as const
  for (const [name, mode, fix] of cases) {
    const { cwd, conf: there } = await conf(t)
    await chmod(join(there, name), mode)
    const found = await refused('conf', cwd)
    assert.equal(found.length, 1)
    assert.ok(found[0]?.startsWith(`${join('conf', name, '.').replace(/\/$/, '')}:1:1: `), found[0])
    assert.ok(found[0]?.endsWith(` run: chmod ${fix} ${join(there, name)}`), found[0])
  }
})

test('a link out of the directory is followed, and what it leads to is checked too', async (t) => {
  const { cwd, conf: there } = await conf(t)
  const elsewhere = await directory(t)
  await rename(join(there, 'domains'), join(elsewhere, 'domains'))
  await symlink(join(elsewhere, 'domains'), join(there, 'domains'))
  assert.equal((await loadConfiguration('conf', cwd)).subjects.length, 1)
  await chmod(elsewhere, 0o777)
  assert.match((await refused('conf', cwd)).join('\n'), /every user can write this directory/)
  await chmod(elsewhere, 0o700)
  await chmod(join(elsewhere, 'domains'), 0o666)
  assert.match((await refused('conf', cwd)).join('\n'), /^conf\/domains:1:1: every user can write this file/)
})

test('directories above that others can write: another configuration could come into its place', async (t) => {
  for (const [mode, fix] of [[0o775, 'g-w'], [0o757, 'o-w'], [0o777, 'go-w']] as const) {
    const { cwd, conf: there } = await conf(t)
    const deep = join(cwd, 'a', 'b')
    await mkdir(deep, { recursive: true })
    await cp(there, join(deep, 'conf'), { recursive: true })
    await chmod(join(cwd, 'a'), mode)
    assert.deepEqual((await refused('conf', deep)).map((each) => each.replace(/: .*; /u, ': ')), [
      `${join(cwd, 'a')}:1:1: run: chmod ${fix} ${join(cwd, 'a')}`,
    ])
    // Sticky: who can write it can still not rename what is ours.
    await chmod(join(cwd, 'a'), 0o1000 | mode)
    assert.equal((await loadConfiguration('conf', deep)).subjects.length, 1)
  }
})

test('each directory above is said once; what a link leads to has directories above it, too', async (t) => {
  const { cwd, conf: there } = await conf(t)
  await mkdir(join(cwd, 'beside'))
  await rename(join(there, 'domains'), join(cwd, 'beside', 'domains'))
  await symlink('../beside/domains', join(there, 'domains'))
  await chmod(cwd, 0o777)
  assert.equal((await refused('conf', cwd)).length, 1)
  await chmod(cwd, 0o755)
  await rm(join(there, 'domains'))
  await rename(join(cwd, 'beside', 'domains'), join(there, 'domains'))
  const elsewhere = await directory(t)
  await mkdir(join(elsewhere, 'x'))
  for (const name of ['domains', 'actions.conf']) {
    await rename(join(there, name), join(elsewhere, 'x', name))
    await symlink(join(elsewhere, 'x', name), join(there, name))
  }
  assert.equal((await loadConfiguration('conf', cwd)).subjects.length, 1)
  await chmod(elsewhere, 0o777)
  const found = await refused('conf', cwd)
  assert.deepEqual(found.length, 1)
  assert.match(found.join(), /every user can write this directory, and so put another configuration in the place of the one below it/u)
})

const skip = process.getuid?.() === 0 ? false : 'needs root to give a file away'

test('a file of another user is refused', { skip }, async (t) => {
  const { cwd, conf: there } = await conf(t)
  await chown(join(there, 'actions.conf'), 4711, 4711)
  const found = (await refused('conf', cwd)).join('\n')
  assert.match(found, /^conf\/actions\.conf:1:1: the file belongs to user 4711, who could put commands/)
})

test('a directory above that belongs to another user is refused', { skip }, async (t) => {
  const { cwd, conf: there } = await conf(t)
  const deep = join(cwd, 'a')
  await mkdir(deep)
  await rename(there, join(deep, 'conf'))
  await chown(deep, 4711, 4711)
  const found = await refused('conf', deep)
  assert.equal(found.length, 1)
  assert.match(found.join(), /^.:1:1: this directory, above the configuration, belongs to user 4711, who could put another one in its place; .* chown root \S+\/a$/u)
})

test('blanks and shell metacharacters in the path are refused', async (t) => {
  for (const name of ['a b', 'a$(x)', 'a;b', 'a\'b', 'a*', 'a~b', 'a\nb', 'a&b', 'a#b', 'a\\b']) {
    const cwd = await directory(t)
    const { conf: there } = await conf(t)
    await cp(there, join(cwd, name), { recursive: true })
    const [only, ...more] = await refused(name, cwd)
    assert.match(only ?? '', /the path of the configuration holds/)
    assert.deepEqual(more, [])
    // A link with a good name does not help: its target is what commands see.
    await symlink(name, join(cwd, 'good'))
    assert.match((await refused('good', cwd)).join(), /the path of the configuration holds/)
  }
})

test('what is not UTF-8 is a problem at its place', async (t) => {
  const cases: [Buffer, string][] = [
    [Buffer.from('# \xfcml\n', 'latin1'), '1:3: the byte 0xfc'],
    [Buffer.concat([Buffer.from('# ü\n# née '), Buffer.from([0xc3]), Buffer.from('(x\n')]), '2:7: the byte 0xc3'],
    [Buffer.concat([Buffer.from('a.example\r\n\r\n'), Buffer.from([0xe2, 0x82])]), '3:1: the byte 0xe2'],
    [Buffer.from([0xff]), '1:1: the byte 0xff'],
    [Buffer.from([0x23, 0xed, 0xa0, 0x80]), '1:2: the byte 0xed'],
  ]
  for (const [domains, expected] of cases) {
    const { cwd } = await conf(t, { domains })
    const found = await refused('conf', cwd)
    assert.deepEqual(found, [`conf/domains:${expected} is not UTF-8; save the file in UTF-8`])
  }
})

test('a file that is too large, a directory and a pipe are refused, and nothing waits for them', async (t) => {
  const { cwd, conf: there } = await conf(t)
  await truncate(join(there, 'lematt.conf'), 5_000_001)
  await rm(join(there, 'domains'))
  await mkdir(join(there, 'domains'))
  await rm(join(there, 'actions.conf'))
  assert.equal(spawnSync('mkfifo', ['-m', '644', join(there, 'actions.conf')]).status, 0)
  const found = await refused('conf', cwd)
  assert.deepEqual(found, [
    'conf/lematt.conf:1:1: is larger than 5 MB; is it the right file?',
    'conf/domains:1:1: is not a regular file',
    'conf/actions.conf:1:1: is not a regular file',
  ])
})

test('the sample files load as they are', async (t) => {
  const cwd = await directory(t)
  await mkdir(join(cwd, 'conf'), { mode: 0o755 })
  for (const name of ['lematt.conf', 'domains', 'actions.conf']) {
    await cp(new URL(`../../conf/${name}`, import.meta.url), join(cwd, 'conf', name))
    await chmod(join(cwd, 'conf', name), 0o644)
  }
  const loaded = await loadConfiguration('conf', cwd)
  assert.deepEqual(loaded.sections.map(({ name }) => name), ['default', 'override-mail', 'every'])
  assert.deepEqual(loaded.subjects, [], 'all examples are comments')
  assert.deepEqual(loaded.warnings.map(({ message }) => message.split(/[;,]/)[0]), [
    'there is no subject', 'domains: no subject in the domains file has "mail.example.com"',
  ])
})

test('a directory as the Python program leaves it loads as it is', async (t) => {
  const { cwd, conf: there } = await conf(t, {
    'lematt.conf': [
      '[config]', '# days', 'reauthorizeDays: 42.42', '#generateNewCertsAfterDays: 7',
      'challengeDropDir: /srv/web/challenges/', '', 'alwaysGenerateNewKeys: no',
      'accountKey: /etc/ssl/private/account.pem',
      'keyBitsRSA: 2048', 'curve: secp256r1', '# rsaTag: rsa2048', '',
    ].join('\n'),
    domains: '# names\nexample.com www\nmail.example.com\n\ncorp.example.com internal hr hr chat.example.com\n',
    'actions.conf': [
      '[default]', 'ocspStapleRequired: no', 'update: ["sudo service nginx reload"]', '', '# globs',
      'uploadCerts: ["rsync -avz --chmod=F644 CERTS /etc/ssl/"]',
      'uploadKeys: ["rsync -avz --chmod=F640 KEYS /etc/ssl/private/"]', '',
      '[every]', 'uploadCerts: ["rsync -avz CERTS cm:/srv/tls/"]', '',
      '[override-mail]', 'domains: mail.example.com', 'prepare: ["ssh -t mail-forward http://example.com"]',
      'update: ["ssh mail-reload-postfix", "ssh mail-reload-dovecot"]', '',
    ].join('\n'),
    'lets-encrypt-x3-cross-signed.pem': '',
  })
  for (const mode of ['prod', 'test']) {
    for (const kind of ['key', 'csr', 'cert']) await mkdir(join(there, mode, kind), { recursive: true })
  }
  const before = await stat(there)
  const loaded = await loadConfiguration('conf/lematt.conf', cwd)
  assert.equal(loaded.settings.reauthorizeDays, 42.42)
  assert.equal(loaded.settings.challengeDropDir, '/srv/web/challenges')
  const { curve, curveTag, rsaTag } = loaded.settings
  assert.deepEqual([curve, curveTag, rsaTag], ['prime256v1', 'secp256r1', 'rsa2048'])
  assert.deepEqual(loaded.subjects.map(({ identifiers }) => identifiers), [
    ['example.com', 'www.example.com'], ['mail.example.com'],
    ['corp.example.com', 'internal.corp.example.com', 'hr.corp.example.com', 'chat.example.com'],
  ])
  assert.deepEqual(loaded.sections.map(({ name }) => name), ['default', 'override-mail', 'every'])
  assert.deepEqual(loaded.sections[1]?.prepare, ['ssh -t mail-forward http://example.com'])
  assert.deepEqual(loaded.warnings.map(({ message }) => message.split(' ')[0]), ['ocspStapleRequired'])
  assert.equal((await stat(there)).mtimeMs, before.mtimeMs, 'reading changes nothing')
})
