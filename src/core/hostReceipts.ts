/**
 * Receipts of hosts (spec §8): per host, section and certificate, that its files are there, which services have been
 * reloaded since, and which ports have shown it. They stand beside the receipts of the section's steps.
 */
import { hostOfKey, receiptId, without } from './receipts.js'
import type { Held, HostName, Receipts, Section, VerifyPort } from './types.js'

/** Under what key it is noted that a host holds a certificate's files. Host names have no blanks. */
export const filesKey = (host: HostName): string => `host ${host}`
export const reloadKey = (host: HostName, service: string): string => `reload ${host} ${service}`
export const verifyKey = (host: HostName, { text }: VerifyPort): string => `verify ${host} ${text}`

/** Every key that a section's hosts have receipts under. */
export const keysOfHosts = (section: Section): string[] => section.hosts.flatMap(host => keysOfHost(section, host))

export function keysOfHost({ reload, verify }: Section, host: HostName): string[] {
  return [filesKey(host), ...reload.map(service => reloadKey(host, service)), ...verify.map(port => verifyKey(host, port))]
}

/** Whether something is noted for a certificate. */
export const hasReceipt = (receipts: Receipts, section: Section, key: string, held: Held): boolean =>
  receipts[section.name]?.[key]?.[receiptId(held)] !== undefined

/**
 * The receipts without those of one host for some certificates. Done when the host turned out to lack them, and before they
 * are sent: whatever then happens, no old reload or look counts as one that saw the new files.
 */
export const withoutHost = (receipts: Receipts, section: Section, host: HostName, certificates: readonly Held[]): Receipts =>
  without(receipts, section, certificates, key => hostOfKey(key) === host)

/** The receipts without those of what one port of a host has shown: it is looked at again. */
export const withoutPort = (receipts: Receipts, section: Section, host: HostName, port: VerifyPort, certificates: readonly Held[]): Receipts =>
  without(receipts, section, certificates, key => key === verifyKey(host, port))
