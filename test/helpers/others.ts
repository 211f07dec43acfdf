/** Tests that become another user need a checkout that this one can read: one below /root is none. */
import { statSync } from 'node:fs'
import { dirname } from 'node:path'

/** Why a test cannot run as another user, for its `skip` option; false when it can. */
export function othersSkip(): string | false {
  if (process.getuid?.() !== 0) return 'needs root, to be two users'
  for (let directory = new URL('.', import.meta.url).pathname; directory !== '/'; directory = dirname(directory)) {
    if ((statSync(directory).mode & 0o005) !== 0o005) return `needs a checkout that others can read: chmod o+rx ${directory}`
  }
  return false
}
