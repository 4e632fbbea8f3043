import type {HostReader} from '../../host/host.js';
import type {ProcessHolder} from './holder.js';
import {ancestorsOf, readDisplayManagers, unitOf} from './processes.js';

/** The sessions that a display manager has opened: with its stop they end, and what their users run ends after them. */
export interface DisplaySessions {
  /** `session-2.scope`. */
  readonly scopes: ReadonlySet<string>;
  readonly users: ReadonlySet<number>;
}

/** Reads which sessions have a process that the display manager started. */
export function readDisplaySessions(host: HostReader): DisplaySessions {
  const units = readDisplayManagers(host);
  const scopes = new Set<string>();
  const users = new Set<number>();
  if (units.size === 0) return {scopes, users};
  const isIn = (pid: string) => units.has(unitOf(host, pid).unit ?? '');
  for (const pid of host.list('/proc').filter((name) => /^\d+$/.test(name))) {
    const {unit} = unitOf(host, pid);
    if (unit === undefined || !/^session-.*\.scope$/.test(unit) || scopes.has(unit)) continue;
    if (!ancestorsOf(host, pid).some(isIn)) continue;
    scopes.add(unit);
    const user = /\/user-(\d+)\.slice\//.exec(host.readText(`/proc/${pid}/cgroup`) ?? '')?.[1];
    if (user !== undefined) users.add(Number(user));
  }
  return {scopes, users};
}

/**
 * Whether the process lets go of its devices when the display manager stops: it is the display manager's, or part of
 * a session that it opened; or logind, which opens devices for sessions and closes them with these.
 */
export function endsWithDisplayManager(holder: ProcessHolder, {scopes, users}: DisplaySessions): boolean {
  const {unit = '', unitUser, displayManager} = holder;
  const manager = /^user@(\d+)\.service$/.exec(unit)?.[1];
  return (
    displayManager ||
    scopes.has(unit) ||
    (unitUser !== undefined && users.has(unitUser)) ||
    (manager !== undefined && users.has(Number(manager))) ||
    unit === 'systemd-logind.service'
  );
}
