/**
 * The shape of the code (docs/architecture.md): imports run one way, each package comes in through one file, and what speaks
 * for the process stands in cli.ts alone. Read from the sources by the compiler's own parser.
 */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { basename, dirname, join, relative } from 'node:path'
import { describe, test } from 'node:test'
import ts from 'typescript'

const root = new URL('../src/', import.meta.url).pathname

interface Source {
  /** Relative to src/, as `edge/store.ts`. */
  readonly file: string
  readonly text: string
  /** As written: `./core/plan.js`, `node:fs`, `yaml`; those of `import()` and `export … from` too. */
  readonly imports: readonly string[]
}

const sources: Source[] = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter(f => f.endsWith('.ts')).sort().map(file => {
  const text = readFileSync(join(root, file), 'utf8')
  return { file, text, imports: importsOf(ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true)) }
})

function importsOf(source: ts.SourceFile): string[] {
  const found: string[] = []
  const visit = (node: ts.Node): void => {
    if ((ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) && node.moduleSpecifier !== undefined && ts.isStringLiteral(node.moduleSpecifier)) {
      found.push(node.moduleSpecifier.text)
    }
    if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      const [argument] = node.arguments
      assert.ok(argument !== undefined && ts.isStringLiteral(argument), `${source.fileName}: an import() of something computed`)
      found.push(argument.text)
    }
    ts.forEachChild(node, visit)
  }
  visit(source)
  return found
}

/** The file of ours that an import means, relative to src/; undefined for packages and node:. */
function ours(from: string, specifier: string): string | undefined {
  return specifier.startsWith('.') ? join(dirname(from), specifier).replace(/\.js$/u, '.ts') : undefined
}

const isPackage = (specifier: string): boolean => !specifier.startsWith('.') && !specifier.startsWith('node:')
const under = (directory: string) => (file: string): boolean => file.startsWith(`${directory}/`)
const isCore = under('core')
const isEdge = under('edge')

describe('imports', () => {
  test('the sources are there, and every import of ours leads to one of them', () => {
    assert.ok(sources.length > 30, 'this test looks into the wrong directory')
    const files = new Set(sources.map(s => s.file))
    for (const { file, imports } of sources) {
      for (const target of imports.map(i => ours(file, i)).filter(t => t !== undefined)) assert.ok(files.has(target), `${file} imports ${target}`)
    }
  })

  test('core imports core alone, besides yaml and what of node: is pure', () => {
    const pure = new Set(['node:url', 'node:net', 'node:crypto', 'node:path', 'yaml'])
    for (const { file, imports } of sources.filter(s => isCore(s.file))) {
      for (const specifier of imports) {
        const target = ours(file, specifier)
        assert.ok(target === undefined ? pure.has(specifier) : isCore(target), `${file} imports ${specifier}`)
      }
    }
  })

  test('core has no clock, no random numbers and no environment', () => {
    for (const { file, text } of sources.filter(s => isCore(s.file))) {
      const found = /\bDate\.now\b|\bnew Date\(\)|\bperformance\.|\bMath\.random\b|\brandomBytes\b|\brandomUUID\b|\bprocess\.|\bconsole\./u.exec(text)
      assert.equal(found?.[0], undefined, file)
    }
  })

  test('an edge imports core and its own folder, never another edge; what is in a folder is for its edge alone', () => {
    // edge/store.ts is the door of edge/store/*: one outside thing.
    const edgeOf = (file: string): string => file.split('/')[1]?.replace(/\.ts$/u, '') ?? ''
    for (const { file, imports } of sources) {
      for (const target of imports.map(i => ours(file, i)).filter(t => t !== undefined)) {
        if (isEdge(file)) assert.ok(isCore(target) || (isEdge(target) && edgeOf(target) === edgeOf(file)), `${file} imports ${target}`)
        else if (isEdge(target)) assert.equal(target.split('/').length, 2, `${file} goes round the door: ${target}`)
      }
    }
  })

  test('above the edges: cli → run, show, check → issue, deliver → what they use', () => {
    const ranks: Record<string, number> = {
      'cli.ts': 5,
      'args.ts': 4, 'show.ts': 4, 'check.ts': 4.5, 'checkStore.ts': 4, 'checkHosts.ts': 4.5, 'checkHostKeys.ts': 4.3, 'enroll.ts': 4, 'enrollFiles.ts': 3, 'enrollArgs.ts': 3,
      'run.ts': 3,
      'bars.ts': 1.5, 'session.ts': 1, 'late.ts': 0, 'issue.ts': 2, 'deliver.ts': 2, 'hosts.ts': 2, 'narrow.ts': 2,
      'look.ts': 1, 'verify.ts': 0.5, 'parcel.ts': 0, 'queue.ts': -2, 'needs.ts': 0, 'forward.ts': -1,
      'validate.ts': 1,
      'prepare.ts': 0.5, 'observe.ts': 0, 'account.ts': 0, 'progress.ts': 0, 'keep.ts': 0,
    }
    const top = sources.filter(s => !s.file.includes('/'))
    assert.deepEqual(top.map(s => s.file).filter(f => ranks[f] === undefined), [], 'a new file above the edges: give it a rank here')
    for (const { file, imports } of top) {
      for (const target of imports.map(i => ours(file, i)).filter(t => t !== undefined && !t.includes('/'))) {
        const [mine = 0, theirs = 0] = [ranks[file], ranks[target ?? '']]
        assert.ok(theirs < mine, `${file} imports ${target ?? ''}`)
      }
    }
    // Nobody below imports what is above; cli.ts is imported by nobody.
    for (const { file, imports } of sources.filter(s => s.file.includes('/'))) {
      for (const target of imports.map(i => ours(file, i)).filter(t => t !== undefined)) assert.ok(target.includes('/'), `${file} imports ${target}`)
    }
  })

  test('each package comes in through one file, and is a dependency', () => {
    const users = new Map<string, Set<string>>()
    for (const { file, imports } of sources) {
      for (const specifier of imports.filter(isPackage)) users.set(specifier, (users.get(specifier) ?? new Set()).add(file))
    }
    assert.deepEqual(Object.fromEntries([...users].sort().map(([name, files]) => [name, [...files]])), {
      '@peculiar/x509': ['edge/x509.ts'],
      'acme-client': ['edge/acme.ts'],
      'p-queue': ['queue.ts'],
      'pino': ['edge/log.ts'],
      'ssh2': ['edge/ssh/ssh2.ts'],
      'yaml': ['core/values.ts'],
    })
    const { dependencies } = JSON.parse(readFileSync(join(root, '../package.json'), 'utf8')) as { dependencies: Record<string, string> }
    assert.deepEqual(Object.keys(dependencies).sort(), [...users.keys()].sort(), 'a dependency that nobody imports, or an import that is none')
  })

  test('only cli.ts speaks for the process: arguments, exit code, standard streams, signals, the working directory', () => {
    const spoken = /\bprocess\.(?:argv|exit|exitCode|stdout|stderr|stdin|on|once|cwd|chdir|abort|umask)\b|\bconsole\./u
    for (const { file, text } of sources.filter(s => s.file !== 'cli.ts')) assert.equal(spoken.exec(text)?.[0], undefined, file)
    assert.match(sources.find(s => s.file === 'cli.ts')?.text ?? '', spoken)
  })

  test('nothing but edge/shell.ts starts programs, besides the one that asks ssh -G', () => {
    const users = sources.filter(s => s.imports.includes('node:child_process')).map(s => s.file)
    assert.deepEqual(users, ['edge/shell.ts', 'edge/ssh/ask.ts'])
    for (const { file, text } of sources) assert.doesNotMatch(text, /\beval\(|\bnew Function\(/u, file)
  })

  test('every file can be read in one sitting: at most 250 lines', () => {
    for (const { file, text } of sources) {
      const lines = text.trimEnd().split('\n')
      assert.ok(lines.length <= 250, `${file} has ${lines.length} lines`)
    }
  })

  test('the forwarder is one file that imports node: alone', () => {
    const directory = join(root, '../forwarder')
    const files = readdirSync(directory)
    assert.deepEqual(files, ['leforward.cts'])
    const file = join(directory, basename(files[0] ?? ''))
    const imports = importsOf(ts.createSourceFile(relative(root, file), readFileSync(file, 'utf8'), ts.ScriptTarget.Latest, true))
    assert.deepEqual(imports.filter(i => !i.startsWith('node:')), [])
  })
})
