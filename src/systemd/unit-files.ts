import {posix} from 'node:path';
import type {HostReader} from '../host/host.js';

/** Where systemd searches for system units; the first match wins: systemd.unit(5). */
const folders = [
  '/etc/systemd/system',
  '/run/systemd/system',
  '/usr/local/lib/systemd/system',
  '/usr/lib/systemd/system',
  '/lib/systemd/system',
];

/** The name under which each display manager is found, most often a link: see systemd.special(7). */
export const displayManagerAlias = 'display-manager.service';

/** The file or link of a unit; undefined without one. */
export function unitFile(host: HostReader, unit: string): string | undefined {
  return folders.map((folder) => `${folder}/${unit}`).find((path) => host.info(path, false) !== undefined);
}

/**
 * A unit's name without aliases: an alias is a link to its file, possibly through further links. Undefined if there is
 * no such unit, and for a masked one.
 */
export function ownUnitName(host: HostReader, unit: string): string | undefined {
  const file = unitFile(host, unit);
  if (file === undefined) return undefined;
  const name = posix.basename(host.realPath(file) ?? host.readLink(file) ?? file);
  return name === 'null' ? undefined : name;
}
