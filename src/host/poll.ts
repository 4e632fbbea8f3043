import type {HostQuery} from './host.js';

/** How long {@link poll} waits. */
interface Polling {
  /** Milliseconds in total; 0 checks once. */
  readonly limit: number;
  /** Milliseconds between two checks; default 100. */
  readonly interval?: number | undefined;
  /** Ends the waiting. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Checks repeatedly until a condition holds, for states of the kernel that no event announces. The last check comes
 * after the last wait, so a condition that holds at the limit counts.
 * @param holds the check; what it throws ends the wait and is passed on.
 * @returns whether the condition holds: false after the limit, or when the signal came first.
 */
export async function poll(
  host: HostQuery,
  holds: () => boolean | Promise<boolean>,
  {limit, interval = 100, signal}: Polling,
): Promise<boolean> {
  for (let left = limit; !(await holds()); left -= interval) {
    if (left <= 0 || signal?.aborted === true) return false;
    await host.pause(interval);
  }
  return true;
}
