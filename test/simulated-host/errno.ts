import {isErrno} from '../../src/host/errno.js';

/** What modprobe says of an error. */
const texts: Readonly<Record<string, string>> = {
  EBUSY: 'Device or resource busy',
  EINVAL: 'Invalid argument',
  ENODEV: 'No such device',
  ENOENT: 'Unknown symbol in module, or unknown parameter (see dmesg)',
};

/** The kernel's refusal of a write: the errno's name. */
export class Errno extends Error {
  readonly errno: string;

  /** @throws Error for a name that the kernel has no error of: a test must not rest on one. */
  constructor(errno: string, why = '') {
    super(why === '' ? errno : `${errno}: ${why}`);
    if (!isErrno(errno)) throw new Error(`Linux has no error ${errno}`);
    this.errno = errno;
  }

  /** As modprobe says it. */
  get text(): string {
    return texts[this.errno] ?? this.errno;
  }
}

/** A write that the kernel does not end by itself. What it waits for may end it later. */
export class NeverReturns extends Error {
  /** The device whose lock the writer holds or waits for. */
  readonly slot: string | undefined;

  constructor(slot: string | undefined, why: string) {
    super(why);
    this.slot = slot;
  }
}
