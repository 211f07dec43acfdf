import assert from 'node:assert/strict'
import { mkdirSync, existsSync, lstatSync, readdirSync, readFileSync, readlinkSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { certificateFiles, subjectName } from '../../src/core/names.js'
import type { CertificateFiles } from '../../src/core/types.js'
import { mend, syncLinks, type StorePaths } from '../../src/edge/store.js'
import { subject } from '../helpers/held.js'
import { hidden, temporaryStore } from '../helpers/store.js'

/** The files of these lines of `domains`; `names > LABEL` gives a label. */
function filesOf(...lines: string[]): CertificateFiles[] {
  const subjects = lines.map(line => {
    const [names = '', label] = line.split(' > ')
    return subject(names, label)
  })
  return certificateFiles(subjects.map(s => ({ subject: s, name: subjectName(s) })), 'prime256v1', 'prod')
}

/** Issues: the files are there. */
function issue(paths: StorePaths, ...all: CertificateFiles[]): void {
  for (const files of all) {
    writeFileSync(join(paths.key, files.key), `key of ${files.key}`)
    writeFileSync(join(paths.certificate, files.certificate), `certificate of ${files.key}`)
  }
}

/** `a.example -> b`: the links of a directory, without suffixes. */
function links(directory: string): string[] {
  const short = (name: string): string => name.replace(/-(?:key|cert-combined)\..*$/u, '')
  return readdirSync(directory).sort().filter(name => lstatSync(join(directory, name)).isSymbolicLink())
    .map(name => `${short(name)} -> ${short(readlinkSync(join(directory, name)))}`)
}

test('each name of a combined subject has relative links in both directories; a second run changes nothing', async t => {
  const paths = await temporaryStore(t)
  const [files] = filesOf('a.example *.a.example b.example') as [CertificateFiles]
  const nothing = { notes: [], failures: [] }
  assert.deepEqual(await syncLinks(paths, [files]), nothing, 'nothing issued, nothing linked')
  issue(paths, files)
  assert.deepEqual(await syncLinks(paths, [files]), nothing, 'a link made is no news')
  const target = 'a.example__wildcard.a.example_b.example'
  const expected = [`_wildcard.a.example -> ${target}`, `a.example -> ${target}`, `b.example -> ${target}`]
  assert.equal(subjectName(subject('a.example *.a.example b.example')), target)
  assert.deepEqual(links(paths.key), expected)
  assert.deepEqual(links(paths.certificate), expected)
  assert.equal(readFileSync(join(paths.key, 'b.example-key.prime256v1.pem'), 'utf8'), `key of ${files.key}`)
  assert.deepEqual(await syncLinks(paths, [files]), nothing)
  assert.deepEqual(hidden(paths), [])
})

test('a name that moves to another subject is linked there, but not before that one is issued', async t => {
  const paths = await temporaryStore(t)
  const before = filesOf('a.example b.example c.example', 'd.example e.example')
  issue(paths, ...before)
  await syncLinks(paths, before)
  const after = filesOf('a.example c.example', 'd.example b.example e.example')
  const [ac, dbe] = after as [CertificateFiles, CertificateFiles]
  await syncLinks(paths, after)
  assert.ok(links(paths.key).includes('b.example -> a.example_b.example_c.example'), 'still served by the old one')
  issue(paths, dbe)
  await syncLinks(paths, after)
  assert.ok(links(paths.key).includes('b.example -> d.example_b.example_e.example'))
  assert.ok(links(paths.key).includes('a.example -> a.example_b.example_c.example'))
  issue(paths, ac)
  await syncLinks(paths, after)
  assert.ok(links(paths.certificate).includes('a.example -> a.example_c.example'))
})

test('links of dropped names go; those of a subject that is gone stay', async t => {
  const paths = await temporaryStore(t)
  const before = filesOf('a.example b.example c.example', 'x.example y.example', 'l.example m.example > web')
  issue(paths, ...before)
  await syncLinks(paths, before)
  const after = filesOf('a.example b.example', 'l.example n.example > web')
  issue(paths, ...after)
  const { notes: changes, failures } = await syncLinks(paths, after)
  assert.deepEqual(failures, [])
  assert.deepEqual(links(paths.key), [
    'a.example -> a.example_b.example', 'b.example -> a.example_b.example', 'l.example -> web', 'n.example -> web',
    'x.example -> x.example_y.example', 'y.example -> x.example_y.example',
  ])
  assert.ok(changes.includes('removed the link c.example-key.prime256v1.pem: its subject has that name no more'))
  assert.ok(existsSync(join(paths.key, before[0]?.key ?? '')), 'files themselves are never removed')
})

test('a regular file that nobody owns any more moves to previous/; one of another subject is left', async t => {
  const paths = await temporaryStore(t)
  issue(paths, ...filesOf('b.example', 'c.example'))
  const after = filesOf('a.example b.example c.example', 'c.example')
  issue(paths, after[0] as CertificateFiles)
  const { notes: changes, failures } = await syncLinks(paths, after)
  assert.deepEqual(failures, [])
  assert.deepEqual(links(paths.key), ['a.example -> a.example_b.example_c.example', 'b.example -> a.example_b.example_c.example'])
  assert.equal(readFileSync(join(paths.previous, 'b.example-key.prime256v1.pem'), 'utf8'), 'key of b.example-key.prime256v1.pem')
  assert.equal(readFileSync(join(paths.key, 'c.example-key.prime256v1.pem'), 'utf8'), 'key of c.example-key.prime256v1.pem')
  assert.ok(changes.some(c => c.startsWith('moved b.example-key.prime256v1.pem to previous/')))
  assert.equal(existsSync(join(paths.previous, 'c.example-key.prime256v1.pem')), false)
})

test('other files and links of the operator are left alone', async t => {
  const paths = await temporaryStore(t)
  const [files] = filesOf('a.example b.example') as [CertificateFiles]
  issue(paths, files)
  writeFileSync(join(paths.key, 'README'), 'mine')
  symlinkSync('/etc/passwd', join(paths.key, 'z.example-key.prime256v1.pem'))
  symlinkSync(files.key, join(paths.key, 'shortcut.pem'))
  symlinkSync('../cert', join(paths.key, 'elsewhere'))
  await syncLinks(paths, [files])
  assert.deepEqual(readdirSync(paths.key), [
    'README', 'a.example-key.prime256v1.pem', files.key, 'b.example-key.prime256v1.pem', 'elsewhere', 'shortcut.pem', 'z.example-key.prime256v1.pem',
  ].sort())
})

test('a crash while linking leaves a temp link, which the next start clears up without touching a file', async t => {
  const paths = await temporaryStore(t)
  const [files] = filesOf('a.example b.example') as [CertificateFiles]
  issue(paths, files)
  symlinkSync(files.key, join(paths.key, `.${files.keyLinks[1] ?? ''}.new`))
  symlinkSync(files.certificate, join(paths.certificate, `.${files.certificateLinks[1] ?? ''}.new`))
  await mend(paths, () => false)
  assert.deepEqual(hidden(paths), [])
  assert.equal(readFileSync(join(paths.key, files.key), 'utf8'), `key of ${files.key}`)
  await syncLinks(paths, [files])
  assert.equal(links(paths.key).length, 2)
})

test('a link that cannot be made is named, and the others are made all the same', async t => {
  const paths = await temporaryStore(t)
  const [files] = filesOf('a.example b.example c.example') as [CertificateFiles]
  issue(paths, files)
  const [, blocked = ''] = files.keyLinks
  writeFileSync(join(paths.key, blocked), 'an old key')
  mkdirSync(join(paths.previous, blocked, 'something'), { recursive: true })
  const { failures, notes } = await syncLinks(paths, [files])
  assert.equal(failures.length, 1)
  assert.ok(failures[0]?.startsWith(`cannot link ${join(paths.key, blocked)}: a directory stands in its place`), failures[0])
  assert.deepEqual(notes, [])
  assert.equal(readFileSync(join(paths.key, blocked), 'utf8'), 'an old key')
  assert.equal(links(paths.key).length, 2)
  assert.equal(links(paths.certificate).length, 3)
})
