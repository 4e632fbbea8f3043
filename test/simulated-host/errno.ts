/** The kernel's refusal of a write: the errno's name. */
export class Errno extends Error {
  readonly errno: string;

  constructor(errno: string, why = '') {
    super(why === '' ? errno : `${errno}: ${why}`);
    this.errno = errno;
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
