/** The nightly look at a host (spec §8, Verify): what it says it holds, and what its ports show, against what receipts say. */
import { filesKey, hasReceipt, verifyKey } from './core/hostReceipts.js'
import type { HostMembers } from './core/hostPlan.js'
import type { HostStatus } from './core/receiver.js'
import type { Held, Receipts } from './core/types.js'
import { mismatch } from './core/verify.js'
import { linksOf, type Parcels } from './parcel.js'
import { handshakes, type VerifyContext } from './verify.js'

/** What is not as receipts say: these certificates are delivered again. */
export interface Drift {
  readonly certificates: readonly Held[]
  /** In words; undefined when all is well. */
  readonly found?: string
}

/** @param status undefined where nothing has been delivered yet. @throws OperationalError when a file of our own store cannot be read */
export async function look(members: HostMembers, receipts: Receipts, status: HostStatus | undefined, context: VerifyContext & { readonly parcels: Parcels }): Promise<Drift> {
  const { section, host } = members
  const delivered = members.certificates.filter(h => hasReceipt(receipts, section, filesKey(host), h))
  const gone: Held[] = []
  for (const held of delivered) if (status !== undefined && !await isThere(held, status, context.parcels)) gone.push(held)
  const certificates = new Set(gone)
  const found = gone.length === 0 ? [] : [`${gone.length === 1 ? gone[0]?.files.certificate ?? '' : `${gone.length} certificates`} not as delivered on the host`]
  // In test mode services go on with the certificates of production, whatever is delivered.
  if (context.mode === 'prod') {
    for (const port of section.verify) {
      const proved = delivered.filter(h => !certificates.has(h) && hasReceipt(receipts, section, verifyKey(host, port), h))
      const { failed } = await handshakes({ section, verify: [port], certificates: proved }, new Map(), context)
      for (const { expectation } of failed) certificates.add(expectation.held)
      const [first] = failed
      if (first !== undefined) found.push(mismatch(first.expectation, first.shown))
    }
  }
  return { certificates: [...certificates], ...(found.length === 0 ? {} : { found: `drifted: ${found.join('; ')}` }) }
}

async function isThere(held: Held, { files, links }: HostStatus, parcels: Parcels): Promise<boolean> {
  const expected = await parcels.digestsOf(held)
  return expected.every(({ file, digest }) => files.get(file) === digest) && linksOf(held).every(({ file, target }) => links.get(file) === target)
}
