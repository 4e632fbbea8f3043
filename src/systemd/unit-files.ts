import {posix} from 'node:path';
import type {HostReader} from '../host/host.js';

/** The folders in which systemd searches for system units; the first match wins, see systemd.unit(5). */
const folders = [
  '/etc/systemd/system',
  '/run/systemd/system',
  '/usr/local/lib/systemd/system',
  '/usr/lib/systemd/system',
  '/lib/systemd/system',
];

/** The name of any display manager's unit, usually a link, see systemd.special(7). */
export const displayManagerAlias = 'display-manager.service';

/** The path of a unit's file or link; undefined without one. */
export function unitFile(host: HostReader, unit: string): string | undefined {
  return folders.map((folder) => `${folder}/${unit}`).find((path) => host.info(path, false) !== undefined);
}

/**
 * The name of a unit that may be named by an alias: a link to its file, possibly through further links. Undefined if
 * no such unit exists, or if it is masked.
 */
export function ownUnitName(host: HostReader, unit: string): string | undefined {
  const file = unitFile(host, unit);
  if (file === undefined) return undefined;
  const name = posix.basename(host.realPath(file) ?? host.readLink(file) ?? file);
  return name === 'null' ? undefined : name;
}
