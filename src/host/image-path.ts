import fs from 'node:fs';
import {join} from 'node:path';

/** As many links as the kernel follows in one path, see path_resolution(7). */
const mostLinks = 40;

/**
 * Where a path of an image is on this machine, with links followed as the image's own system would: an absolute
 * link leads to the image's root, and `..` never above it. What does not exist is left as it is.
 * @param follow whether a link in the last place is followed.
 */
export function pathInImage(root: string, path: string, follow: boolean): string {
  const left = path.split('/').filter((part) => part !== '');
  const done: string[] = [];
  let links = 0;
  for (let part = left.shift(); part !== undefined; part = left.shift()) {
    if (part === '.') continue;
    if (part === '..') {
      done.pop();
      continue;
    }
    const target = follow || left.length > 0 ? readLink(join(root, ...done, part)) : undefined;
    if (target === undefined || ++links > mostLinks) {
      done.push(part);
      continue;
    }
    if (target.startsWith('/')) done.length = 0;
    left.unshift(...target.split('/').filter((one) => one !== ''));
  }
  return join(root, ...done);
}

function readLink(path: string): string | undefined {
  try {
    return fs.readlinkSync(path);
  } catch {
    return undefined;
  }
}
