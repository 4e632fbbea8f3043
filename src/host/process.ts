import type {HostReader} from './host.js';

/**
 * When a process was started, in clock ticks since the boot (field 22 of /proc/<pid>/stat, proc(5)); undefined for
 * one that has ended, which includes zombies: they hold nothing any more.
 */
export function startOf(host: HostReader, pid: number): string | undefined {
  const stat = host.readText(`/proc/${pid}/stat`);
  if (stat === undefined) return undefined;
  // The command comes before it in parentheses, and may contain any character.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields[0] === 'Z' ? undefined : fields[19];
}
