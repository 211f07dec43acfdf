/** The process group of one command: started under a shell that supervises it, and ended as a whole. */
import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'

/** After TERM, how long until KILL. */
const graceMs = 5000

/**
 * Runs the command `$1` with a watchdog beside it, which reads from file descriptor 3: a pipe whose other end we alone
 * hold and never write to. Its end means that we have died, perhaps by KILL, and the whole group is ended.
 *
 * What it says on file descriptor 4, line by line: the watchdog's process id, and the status of the command. The shell
 * stays when it has said that, with its watchdog, until the group is ended: what the command has put into the background
 * must not outlive us, and while the leader lives, its number belongs to no other group. But when `$2` is empty and the
 * command ended well, both leave: what a step has started in the background, like a service, is to stay.
 *
 * USR1 to the shell says that the group is being ended: it then stays in any case, for what the command had started may
 * ignore TERM. The shell itself outlives a TERM to the group.
 */
export const supervised = `
dying=
trap : TERM HUP INT PIPE
trap dying=1 USR1
( trap '' TERM HUP INT USR1; exec </dev/null >/dev/null 2>&1 4>&-
  read -r _ <&3; kill -USR1 $$; kill -TERM 0; sleep ${graceMs / 1000}; kill -KILL 0 ) &
echo $! >&4
/bin/sh -c "$1" 3<&- 4>&-
status=$?
if [ -z "$dying$2" ] && [ $status = 0 ]; then kill -KILL $!; wait $! 2>/dev/null; exit 0; fi
exec </dev/null >/dev/null 2>&1
echo $status >&4
while kill -0 $!; do wait $!; done
exit $status`

/** A `ChildProcess`, as far as it matters here. */
interface Child {
  readonly pid?: number | undefined
  readonly exitCode: number | null
  readonly signalCode: string | null
}

/** A command under the shell above. */
export interface Supervised {
  /** The shell, which leads the group. */
  readonly leader: Child
  /** The watchdog's process id, once the shell has said it. */
  readonly watchdog: () => number | undefined
  /** Resolves when it is known how the command ended. */
  readonly ended: Promise<unknown>
}

/**
 * Ends the group: TERM, then KILL after 5 s or as soon as all but the shell and its watchdog are gone. Resolves when nobody
 * of it is left. Without its leader, nobody is signalled: the number may belong to others by now.
 */
export async function endGroup({ leader, watchdog, ended }: Supervised): Promise<void> {
  const { pid } = leader
  if (pid === undefined || !runs(leader)) return
  // Not the wall clock, which may be set meanwhile.
  const deadline = performance.now() + graceMs
  signal(pid, 'SIGUSR1')
  signal(-pid, 'SIGTERM')
  while (runs(leader) && performance.now() < deadline) {
    const left = await members(pid)
    if (left?.every(each => each === pid || each === watchdog()) === true) break
  }
  // The shell is about to say how the command took it.
  const patience = new AbortController()
  const { signal: over } = patience
  const late = pause(Math.max(deadline - performance.now(), 100), undefined, { signal: over }).catch(() => undefined)
  await Promise.race([ended, late])
  patience.abort()
  if (!runs(leader)) return
  signal(-pid, 'SIGKILL')
  // A process in an uninterruptible wait of the kernel dies later: it is not waited for.
  const until = performance.now() + 1000
  for (let gone = false; !gone && performance.now() < until;) gone = (await members(pid))?.length === 0
}

/** Whether a child of ours has not been waited for: until then its process id is its own. */
function runs(child: Child): boolean {
  return child.exitCode === null && child.signalCode === null
}

/** To a process, or to a group as a negative number. A command behind sudo is not ours to signal. */
function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name)
  } catch {
    // Nobody is left, or none that we may signal.
  }
}

let look: Promise<ReadonlyMap<number, readonly number[]> | undefined> | undefined

/**
 * The processes of a group that run, in 20 ms: one look at /proc for all groups that are being ended. Undefined where it
 * cannot be read: not mounted, or no file descriptor left.
 */
async function members(group: number): Promise<readonly number[] | undefined> {
  look ??= pause(20).then(() => {
    look = undefined
    return allGroups()
  })
  const groups = await look
  return groups && (groups.get(group) ?? [])
}

function allGroups(): ReadonlyMap<number, readonly number[]> | undefined {
  const groups = new Map<number, number[]>()
  try {
    // Not through promises: that takes ten times as long, and threads that others wait for.
    const pids = readdirSync('/proc').filter(name => /^\d+$/u.test(name))
    if (!pids.includes(String(process.pid))) return undefined
    for (const pid of pids) {
      const group = runningIn(pid)
      if (group === undefined) continue
      const present = groups.get(group)
      if (present === undefined) groups.set(group, [Number(pid)])
      else present.push(Number(pid))
    }
    return groups
  } catch {
    return undefined
  }
}

/** @returns undefined for what has ended: in a container whose first process reaps nobody, it stays as a zombie */
function runningIn(pid: string): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    const [state, , group] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return state === 'Z' || state === 'X' ? undefined : Number(group)
  } catch (error) {
    // Gone meanwhile; or /proc is mounted with hidepid, and it is another user's, whom we could not signal.
    if (['ENOENT', 'ESRCH', 'EACCES', 'EPERM'].includes(String((error as NodeJS.ErrnoException).code))) return undefined
    throw error
  }
}
