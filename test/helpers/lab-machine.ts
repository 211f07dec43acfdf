// One machine of a lab: the central host or a remote one. Both run programs; only the way in differs.
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Daemon, must, run, type Ran, type RunOptions } from './lab-process.js'

/** A command line. */
export type Command = readonly [command: string, args: readonly string[]]

export class Machine {
  private readonly services: Daemon[] = []

  /**
   * @param name also its directory's name
   * @param address its IPv4 address
   * @param address6 its IPv6 address
   * @param dir a directory for its files, which all machines of the lab see under the same path
   * @param enter gives the command line that runs another one on this machine, in the given directory
   */
  constructor(
    readonly name: string,
    readonly address: string,
    readonly address6: string,
    readonly dir: string,
    private readonly enter: (command: string, args: readonly string[], cwd: string) => Command,
  ) {
    mkdirSync(dir, { recursive: true })
  }

  /** The command line that runs `command` on this machine, for those who start it by themselves. */
  command(command: string, args: readonly string[], cwd = process.cwd()): Command {
    return this.enter(command, args, cwd)
  }

  /** Runs a program to its end. Never rejects: see `code`. */
  async exec(command: string, args: readonly string[] = [], options: RunOptions = {}): Promise<Ran> {
    return run(...this.enter(command, args, options.cwd ?? process.cwd()), options)
  }

  /** Runs a program that must exit 0. @returns its standard output */
  async must(command: string, args: readonly string[] = [], options: RunOptions = {}): Promise<string> {
    return must(...this.enter(command, args, options.cwd ?? process.cwd()), options)
  }

  /** Starts a program that ends with the machine at the latest. */
  spawn(command: string, args: readonly string[] = [], options: RunOptions = {}): Daemon {
    const daemon = new Daemon(...this.enter(command, args, options.cwd ?? process.cwd()), options)
    this.services.push(daemon)
    return daemon
  }

  /** Writes a file into the machine's directory. @returns its path */
  write(name: string, text: string, mode = 0o644): string {
    const path = join(this.dir, name)
    writeFileSync(path, text, { mode })
    return path
  }

  /** Ends every program that was started by spawn. */
  async stop(): Promise<void> {
    await Promise.all(this.services.map(daemon => daemon.stop()))
  }
}
