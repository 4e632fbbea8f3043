import type {HostReader} from '../host/host.js';
import type {ProcessHolder} from './holder.js';
import {ancestorsOf, readDisplayManagers, unitOf} from './processes.js';

/** The sessions that a display manager has opened. They end when it stops, and their users' processes end after them. */
export interface DisplaySessions {
  /** `session-2.scope`. */
  readonly scopes: ReadonlySet<string>;
  readonly users: ReadonlySet<number>;
  /** The users whose service managers outlive these sessions, and why: text that follows `user 1000`. */
  readonly staying: ReadonlyMap<number, string>;
}

/** Reads which sessions have a process that the display manager started. */
export function readDisplaySessions(host: HostReader): DisplaySessions {
  const units = readDisplayManagers(host);
  const scopes = new Set<string>();
  const users = new Set<number>();
  if (units.size === 0) return {scopes, users, staying: new Map()};
  const others = new Map<number, string>();
  const isIn = (pid: string) => units.has(unitOf(host, pid).unit ?? '');
  for (const pid of host.list('/proc').filter((name) => /^\d+$/.test(name))) {
    const {unit} = unitOf(host, pid);
    if (unit === undefined || !/^session-.*\.scope$/.test(unit) || scopes.has(unit)) continue;
    const user = sessionUser(host, pid);
    if (!ancestorsOf(host, pid).some(isIn)) {
      if (user !== undefined) others.set(user, `${others.get(user) ?? ''} ${unit}`);
      continue;
    }
    scopes.add(unit);
    if (user !== undefined) users.add(user);
  }
  const staying = new Map<number, string>();
  for (const user of users) {
    // A daemon from such a session has no ancestor there any more.
    const other = others
      .get(user)
      ?.split(' ')
      .find((unit) => unit !== '' && !scopes.has(unit));
    if (lingers(host, user)) staying.set(user, 'lingers (loginctl enable-linger)');
    else if (other !== undefined) staying.set(user, `has another session (${other})`);
  }
  return {scopes, users, staying};
}

function sessionUser(host: HostReader, pid: string): number | undefined {
  const user = /\/user-(\d+)\.slice\//.exec(host.readText(`/proc/${pid}/cgroup`) ?? '')?.[1];
  return user === undefined ? undefined : Number(user);
}

/** Whether logind keeps the user's service manager without any session: a file in its folder, by name. */
function lingers(host: HostReader, user: number): boolean {
  const lingering = host.list('/var/lib/systemd/linger');
  if (lingering.length === 0) return false;
  // logind's own file has the name of any user, also of one that is not in /etc/passwd.
  const known = /^NAME=(.*)$/m.exec(host.readText(`/run/systemd/users/${user}`) ?? '')?.[1];
  const name =
    known ?? new RegExp(`^([^:]+):[^:]*:${user}:`, 'm').exec(host.readText('/etc/passwd') ?? '')?.[1];
  return name !== undefined && lingering.includes(name);
}

/**
 * Whether the process belongs to the display manager, or to a user with a session that it opened; or is logind, which
 * opens devices for sessions. It releases its devices when the display manager stops, unless it {@link outlives} that.
 */
export function belongsToDisplayManager(holder: ProcessHolder, {scopes, users}: DisplaySessions): boolean {
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

/**
 * Why the process still runs when the display manager has stopped: its user's service manager, which started it,
 * remains. Undefined when it ends.
 */
export function outlives(holder: ProcessHolder, {scopes, staying}: DisplaySessions): string | undefined {
  const {unit = '', unitUser, displayManager} = holder;
  const user = unitUser ?? Number(/^user@(\d+)\.service$/.exec(unit)?.[1] ?? NaN);
  const reason = displayManager || scopes.has(unit) ? undefined : staying.get(user);
  return reason === undefined ? undefined : `user ${user} ${reason}`;
}

/**
 * Whether the process opens devices for others and closes them when those end: logind, and seatd, which does the same
 * where there is no logind.
 */
export function opensForOthers({unit, unitUser}: ProcessHolder): boolean {
  return unitUser === undefined && (unit === 'systemd-logind.service' || unit === 'seatd.service');
}
