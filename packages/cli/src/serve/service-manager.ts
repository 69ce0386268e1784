import { execFile } from "node:child_process";
import { promisify } from "node:util";

const run = promisify(execFile);

/** Time limit for a message, in milliseconds. */
const NOTIFY_MS = 5_000;

/** The variables of sd_notify(3) and sd_watchdog_enabled(3). */
export interface NotifyEnvironment {
  readonly NOTIFY_SOCKET?: string | undefined;
  readonly WATCHDOG_USEC?: string | undefined;
  readonly WATCHDOG_PID?: string | undefined;
}

/**
 * Tells the service manager, systemd or what behaves like it, how this process fares. Does nothing without one.
 *
 * Node.js has no datagram sockets of the unix domain, so the program `systemd-notify` sends the messages. A unit needs
 * `NotifyAccess=all` for that.
 */
export class ServiceManager implements Disposable {
  readonly #isPresent: boolean;
  readonly #warn: (message: string) => void;
  readonly #watchdogMs: number | undefined;
  #watchdog: NodeJS.Timeout | undefined;
  #isBusy = false;
  #last: Promise<void> = Promise.resolve();
  #failed = false;

  /** @param warn is called once if messages cannot be sent, which fails nothing */
  constructor(warn: (message: string) => void, env: NotifyEnvironment = process.env) {
    this.#isPresent = Boolean(env.NOTIFY_SOCKET);
    this.#warn = warn;
    this.#watchdogMs = watchdogOf(env);
  }

  /** Tells that the service is ready, and from then on that its event loop runs, in time for the watchdog of the unit. */
  ready(status: string): void {
    void this.#notify("READY=1", `STATUS=${status}`);
    if (!this.#isPresent || this.#watchdogMs === undefined) return;
    const tell = () => {
      if (!this.#isBusy) void this.#notify("WATCHDOG=1");
    };
    this.#watchdog = setInterval(tell, this.#watchdogMs / 2).unref();
  }

  /** Tells that the service is about to stop. Resolves when that was said, or could not be. */
  async stopping(status: string): Promise<void> {
    clearInterval(this.#watchdog);
    await this.#notify("STOPPING=1", `STATUS=${status}`);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#watchdog);
  }

  /** Sends a message after those before it. */
  #notify(...assignments: readonly string[]): Promise<void> {
    if (this.#isPresent) this.#last = this.#last.then(() => this.#send(assignments));
    return this.#last;
  }

  async #send(assignments: readonly string[]): Promise<void> {
    this.#isBusy = true;
    try {
      await run("systemd-notify", [...assignments], { timeout: NOTIFY_MS });
      this.#failed = false;
    } catch (error) {
      if (!this.#failed) {
        this.#warn(
          `Cannot notify the service manager: expected to run "systemd-notify", found ${(error as Error).message.trim()}`,
        );
      }
      this.#failed = true;
    }
    this.#isBusy = false;
  }
}

/** Returns the time within which the service manager expects a sign of life from this process, in milliseconds. */
function watchdogOf({ WATCHDOG_USEC, WATCHDOG_PID }: NotifyEnvironment): number | undefined {
  if (WATCHDOG_PID !== undefined && Number(WATCHDOG_PID) !== process.pid) return undefined;
  const timeMs = Number(WATCHDOG_USEC) / 1000;
  return timeMs > 0 ? timeMs : undefined;
}
