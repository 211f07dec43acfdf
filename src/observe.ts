/** What the disk holds now: every certificate slot of the configuration, read (spec §2, inventory). Changes nothing. */
import { join } from 'node:path'
import { keyTypesOf } from './core/actions.js'
import { certificateFiles, fileTag, nameInStore, storedNames } from './core/names.js'
import { cleanLine } from './core/text.js'
import type { CertificateFiles, Configuration, Held, KeyType, Mode, Observed, Subject } from './core/types.js'
import { certificateEntries, readStored, type StorePaths } from './edge/store.js'
import { readKey, readLeaf } from './edge/x509.js'

/** How many files are read at once: enough to hide the disk, few enough for any limit of open files. */
const readers = 32

/** Reads key and certificate of each subject and key type, in the order of `domains`, EC before RSA. */
export async function observe(configuration: Configuration, mode: Mode, paths: StorePaths): Promise<Held[]> {
  const slots = slotsOf(configuration, mode, await certificateEntries(paths))
  const held: Held[] = []
  for (let i = 0; i < slots.length; i += readers) {
    held.push(...await Promise.all(slots.slice(i, i + readers).map(slot => readSlot(slot, paths))))
  }
  return held
}

type Slot = Pick<Held, 'subject' | 'keyType' | 'name' | 'files'>

function slotsOf({ subjects, sections, settings }: Configuration, mode: Mode, entries: readonly string[]): Slot[] {
  const keyTypes = new Map(subjects.map(subject => [subject, keyTypesOf(subject, sections, settings)]))
  const bySubject = new Map<Subject, Slot[]>(subjects.map(subject => [subject, []]))
  for (const keyType of ['ec', 'rsa'] satisfies KeyType[]) {
    const tag = fileTag(keyType, settings)
    const stored = storedNames(entries, tag, mode)
    const named = subjects.filter(s => keyTypes.get(s)?.includes(keyType)).map(subject => ({ subject, name: nameInStore(subject, stored) }))
    const files: CertificateFiles[] = certificateFiles(named, tag, mode)
    for (const [i, { subject, name }] of named.entries()) {
      const mine = files[i]
      if (mine !== undefined) bySubject.get(subject)?.push({ subject, keyType, name, files: mine })
    }
  }
  return [...bySubject.values()].flat()
}

async function readSlot(slot: Slot, paths: StorePaths): Promise<Held> {
  const [key, certificate] = await Promise.all([
    observed(join(paths.key, slot.files.key), pem => ({ facts: readKey(pem) })),
    observed(join(paths.certificate, slot.files.certificate), pem => ({ leaf: readLeaf(pem) })),
  ])
  return { ...slot, key, certificate }
}

async function observed<T>(path: string, read: (pem: string) => T): Promise<Observed<T>> {
  const file = await readStored(path)
  if (file.state !== 'text') return file
  try {
    return { state: 'read', ...read(file.text) }
  } catch (error) {
    return { state: 'unreadable', why: cleanLine(error instanceof Error ? error.message : String(error)) }
  }
}
