import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import test from 'node:test'
import { referencePath, renderReference } from '../scripts/reference.js'
import { configKeys, sectionKeys } from '../src/core/keys.js'

test('docs/configuration.md is what the table of keys gives', () => {
  const command = 'make it anew: node --import tsx scripts/reference.ts'
  assert.equal(readFileSync(referencePath, 'utf8'), renderReference(), command)
})

test('the reference has every key once per file, and lematt.conf names no unknown one', () => {
  const text = renderReference()
  const headings = [...text.matchAll(/^### `(.*)`$/gmu)].map((match) => match[1])
  assert.deepEqual(headings, [...configKeys, ...sectionKeys].map(({ name }) => name))
  const sample = readFileSync(new URL('../conf/lematt.conf', import.meta.url), 'utf8')
  const shown = [...sample.matchAll(/^#?(\w+): ?\S/gmu)].map((match) => match[1])
  assert.ok(shown.length >= 9, 'the sample shows the settings of the original')
  for (const name of shown) assert.ok(configKeys.some((key) => key.name === name), name)
})
