/**
 * The child that writes kernel attributes. Its first message says that it is ready. It does one write for each
 * message and answers with the errno's name, or an empty string. It is a separate process because a write that
 * blocks in the kernel takes its whole process with it; see `MachineHost.writeAttribute`.
 */
import {closeSync, constants, fstatSync, openSync, readlinkSync, writeSync} from 'node:fs';
import {errnoOf} from './errno.js';

/** One write, as sent to the child. */
export interface WriteRequest {
  readonly path: string;
  readonly value: string;
  /** Whether the path is in an image and has no links: none may have been put there since. */
  readonly inImage: boolean;
}

process.on('message', ({path, value, inImage}: WriteRequest) => {
  let errno = '';
  try {
    // Neither O_CREAT nor O_TRUNC: a missing attribute must fail as it does in the kernel.
    // For a FIFO without a reader, open(2) fails immediately.
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
