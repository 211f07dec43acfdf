/** The nightly look at a host (spec §8, Verify): what it says it holds, and what its ports show, against what receipts say. */
import { filesKey, hasReceipt, verifyKey } from './core/hostReceipts.js'
import type { HostMembers } from './core/hostPlan.js'
import type { HostStatus } from './core/receiver.js'
import type { Held, Receipts, VerifyPort } from './core/types.js'
import { mismatch } from './core/verify.js'
import type { Parcels } from './parcel.js'
import { handshakes, type VerifyContext } from './verify.js'

/** What is not as receipts say: these certificates are delivered again. */
export interface Drift {
  readonly certificates: readonly Held[]
  /** Ports that do not answer, which says nothing about files: they are looked at again, for longer. */
  readonly silent: readonly { readonly port: VerifyPort; readonly held: Held }[]
  /** In words; undefined when all is well. */
  readonly found?: string
}

/** @param status undefined where nothing has been delivered yet. @throws OperationalError when a file of our own store cannot be read */
export async function look(members: HostMembers, receipts: Receipts, status: HostStatus | undefined, context: VerifyContext & { readonly parcels: Parcels }): Promise<Drift> {
  const { section, host } = members
  const delivered = members.certificates.filter(h => hasReceipt(receipts, section, filesKey(host), h))
  const certificates = new Set<Held>()
  const files: string[] = []
  for (const held of delivered) {
    const wrong = status === undefined ? [] : await context.parcels.notOn(status, held)
    if (wrong.length > 0) certificates.add(held)
    files.push(...wrong)
  }
  const [file] = files
  const silent: Drift['silent'][number][] = []
  const found = file === undefined ? [] : [`${file}${files.length === 1 ? '' : ` and ${files.length - 1} more`} not as delivered on the host`]
  // In test mode services go on with the certificates of production, whatever is delivered.
  if (context.mode === 'prod') {
    for (const port of section.verify) {
      const proved = delivered.filter(h => !certificates.has(h) && hasReceipt(receipts, section, verifyKey(host, port), h))
      const failed = await handshakes({ section, verify: [port], certificates: proved }, context)
      for (const { expectation: { held }, shown } of failed) {
        if (shown.ok) certificates.add(held)
        else silent.push({ port, held })
      }
      const [first] = failed
      if (first !== undefined) found.push(mismatch(first.expectation, first.shown))
    }
  }
  return { certificates: [...certificates], silent, ...(found.length === 0 ? {} : { found: `${certificates.size === 0 ? '' : 'drifted: '}${found.join('; ')}` }) }
}
