import {dirname, join, resolve} from 'node:path';
import type {FileInfo, HostReader} from '../host/host.js';

/** Whether the file belongs to another user. Files of an image or simulated host belong to the user who unpacked it. */
export function isForeign(host: HostReader, {uid}: FileInfo): boolean {
  return uid !== 0 && (host.root === '/' || uid !== host.userId);
}

/** Why root must ignore the file; undefined if the file can be trusted or does not exist. */
export function distrust(host: HostReader, path: string, kind: 'file' | 'directory'): string | undefined {
  const info = host.info(path, false);
  if (info === undefined) return undefined;
  if (info.kind !== kind) return `it is not a ${kind === 'directory' ? 'folder' : kind}`;
  if (isForeign(host, info)) return `${path} is owned by user ${info.uid}, not by root: chown root ${path}`;
  if ((info.mode & 0o022) !== 0) return `${path} is writable by others: chmod go-w ${path}`;
  return undefined;
}

/**
 * As {@link distrust}, and for each folder above: a user who can write to one of them can replace the file. Links are
 * followed. The folders that contain them must be trusted too, because a link can be replaced as well.
 */
export function distrustPath(host: HostReader, path: string, kind: 'file' | 'directory'): string | undefined {
  const real = host.realPath(path);
  if (real === undefined) return 'it is a broken link';
  if (real !== path) {
    const folder = distrustLinks(host, path);
    if (folder !== undefined) return folder;
  }
  const reason = distrust(host, real, kind);
  if (reason !== undefined || real === '/') return reason;
  return distrustPath(host, dirname(real), 'directory');
}

/** Why one of the links on a path must not be followed: its folder is writable by others. */
function distrustLinks(host: HostReader, path: string): string | undefined {
  let here = path;
  // The kernel follows at most 40 links, see path_resolution(7).
  for (let followed = 0; followed < 40; followed++) {
    const at = firstLink(host, here);
    if (at === undefined) return undefined;
    const reason = distrustPath(host, dirname(at), 'directory');
    if (reason !== undefined) return reason;
    const target = resolve(dirname(at), host.readLink(at) ?? '');
    here = join(target, here.slice(at.length));
  }
  return undefined;
}

function firstLink(host: HostReader, path: string): string | undefined {
  const parts = path.split('/').slice(1);
  return parts
    .map((_, index) => `/${parts.slice(0, index + 1).join('/')}`)
    .find((each) => host.readLink(each) !== undefined);
}
