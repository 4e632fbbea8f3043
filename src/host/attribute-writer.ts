/**
 * The child that writes kernel attributes. Its first message says that it is ready. It does one write for each
 * message and answers with the errno's name, or an empty string. It is a process of its own because a write that
 * blocks in the kernel takes its whole process with it; see `MachineHost.writeAttribute`.
 */
import {closeSync, constants, fstatSync, openSync, readlinkSync, writeSync} from 'node:fs';
import {errnoOf} from './errno.js';

/** One write, as sent to the child. */
export interface WriteRequest {
  readonly path: string;
  readonly value: string;
  /** Whether the path is of an image and free of links: nobody may have put one there since. */
  readonly inImage: boolean;
}

process.on('message', ({path, value, inImage}: WriteRequest) => {
  let errno = '';
  try {
    // Neither O_CREAT nor O_TRUNC: an attribute that is not there must fail as it does in the kernel.
    // A FIFO without a reader is answered at once.
    const file = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
    try {
      if (!fstatSync(file).isFile()) errno = 'EINVAL';
      else if (inImage && readlinkSync(`/proc/self/fd/${file}`) !== path) errno = 'EXDEV';
      else writeSync(file, value);
    } finally {
      closeSync(file);
    }
  } catch (error) {
    errno = errnoOf(error);
  }
  process.send?.(errno);
});
process.on('disconnect', () => process.exit());
process.send?.('');
