import type {HostReader} from '../host/host.js';
import type {NodeUser} from './holder.js';
import {otherProcesses, readNodeUser} from './processes.js';

/** A process that uses huge pages. */
export interface PageUser extends NodeUser {
  /** Of all sizes and nodes together. */
  readonly bytes: number;
}

/**
 * Processes that have huge pages mapped, by HugetlbPages in /proc/<pid>/status (since Linux 4.4). Pages of files that no
 * process has mapped are in use too, and have none.
 */
export function readPageUsers(host: HostReader): PageUser[] {
  return otherProcesses(host).flatMap((pid) => {
    const text = host.readText(`/proc/${pid}/status`) ?? '';
    const bytes = Number(/^HugetlbPages:\s*(\d+) kB$/m.exec(text)?.[1] ?? 0) * 1024;
    const user = bytes === 0 ? undefined : readNodeUser(host, pid, [], new Set());
    return user === undefined ? [] : [{...user, bytes}];
  });
}
