import fs from 'node:fs';
import {errnoOf} from './errors.js';

/**
 * Writes all of the text to an open file immediately, so that nothing is lost however the process ends.
 * @returns the errno's name when it cannot be written; undefined when it was.
 */
export function writeFully(descriptor: number, text: string): string | undefined {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length;)
    try {
      at += fs.writeSync(descriptor, bytes, at);
    } catch (error) {
      const errno = errnoOf(error);
      if (errno !== 'EAGAIN') return errno;
      // Another process made the pipe non-blocking, and it is full.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
    }
  return undefined;
}
