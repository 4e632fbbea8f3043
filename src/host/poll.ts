import type {HostQuery} from './host.js';

/** How long {@link poll} goes on. */
export interface Polling {
  /** Milliseconds of waiting in all; 0 looks once. */
  readonly limit: number;
  /** Milliseconds between two looks; default 100. */
  readonly interval?: number | undefined;
  /** Ends the waiting. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Looks again until something holds, for states of the kernel that no event announces. The last look comes after the
 * last wait, so that what holds at the limit counts.
 * @param holds looks; what it throws ends the waiting and is passed on.
 * @returns whether it holds: false after the limit, or when the signal came first.
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
