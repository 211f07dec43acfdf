/**
 * An interrupted run still takes the certificates that are on their way: what the CA has issued counts against its limits,
 * whether it was saved or not.
 */

/** How long they are waited for; the operator who is in a hurry sends a second signal. */
const graceMs = 10_000

export interface LateAbort {
  /** Aborts with `signal`, or when what is done `during` it has ended, 10 s later at most. */
  readonly signal: AbortSignal
  during: <T>(work: () => Promise<T>) => Promise<T>
  /** Stops listening. */
  close: () => void
}

export function lateAbort(signal: AbortSignal): LateAbort {
  const late = new AbortController()
  let working = 0
  let timer: NodeJS.Timeout | undefined
  const abort = (): void => late.abort(signal.reason)
  const onAbort = (): void => {
    if (working === 0) abort()
    else timer = setTimeout(abort, graceMs)
  }
  if (signal.aborted) abort()
  else signal.addEventListener('abort', onAbort, { once: true })
  return {
    signal: late.signal,
    async during(work) {
      working += 1
      try {
        return await work()
      } finally {
        working -= 1
        if (working === 0 && signal.aborted) abort()
      }
    },
    close() {
      clearTimeout(timer)
      signal.removeEventListener('abort', onAbort)
    },
  }
}
