/** Settings of applying a plan. */
export interface ApplyOptions {
  /** Milliseconds that one write to an attribute may take, or one script of a callout. */
  readonly limit: number;
  /** Called with each step before it is done, and with each step of an undo. */
  readonly onStep?: (line: string, undoing: boolean) => void;
  /** Called with notes that stop nothing, such as the output of a script. */
  readonly onNote?: (note: string) => void;
  /** Called with what takes minutes when it begins. What it returns is called at its end. */
  readonly onLong?: (what: string) => () => void;
  /** An interrupt: the current step ends, then all is undone. */
  readonly signal?: AbortSignal;
}
