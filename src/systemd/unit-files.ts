import {posix} from 'node:path';
import type {HostReader} from '../host/host.js';

/** Where systemd looks for units of the system, the first one that has it wins: systemd.unit(5). */
const folders = [
  '/etc/systemd/system',
  '/run/systemd/system',
  '/usr/local/lib/systemd/system',
  '/usr/lib/systemd/system',
  '/lib/systemd/system',
];

/** The name under which each display manager is found, most often a link: see systemd.special(7). */
export const displayManagerAlias = 'display-manager.service';

/** The file or link of a unit; undefined where there is none. */
export function unitFile(host: HostReader, unit: string): string | undefined {
  return folders.map((folder) => `${folder}/${unit}`).find((path) => host.info(path, false) !== undefined);
}

/**
 * A unit's own name: a link to its file is another one, and may lead there by way of further links. undefined where
 * there is no such unit, and for one that is masked.
 */
export function ownUnitName(host: HostReader, unit: string): string | undefined {
  const file = unitFile(host, unit);
  if (file === undefined) return undefined;
  const name = posix.basename(host.realPath(file) ?? host.readLink(file) ?? file);
  return name === 'null' ? undefined : name;
}
