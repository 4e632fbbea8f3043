/** One effect on the machine, in the order they were asked for. */
export type Effect =
  | {readonly kind: 'write'; readonly path: string; readonly value: string; answer: string}
  | {
      readonly kind: 'file';
      readonly path: string;
      readonly content: string;
      readonly mode: number;
      answer: string;
    }
  | {readonly kind: 'link'; readonly path: string; readonly target: string; answer: string}
  | {readonly kind: 'remove'; readonly path: string; answer: string}
  | {
      readonly kind: 'owner';
      readonly path: string;
      readonly owner: string;
      readonly mode: number;
      answer: string;
    }
  | {readonly kind: 'signal'; readonly pid: number; readonly signal: string; answer: string}
  | {readonly kind: 'run'; readonly file: string; readonly args: readonly string[]; answer: string};

/**
 * The effect as a person could type it, with what went wrong behind a `#`: `echo '0000:01:00.0' >
 * /sys/bus/pci/drivers/nouveau/unbind # EBUSY`.
 */
export function effectText(effect: Effect): string {
  const answer = effect.answer === '' ? '' : ` # ${effect.answer}`;
  switch (effect.kind) {
    case 'write':
      return `echo '${effect.value.replace(/\n$/, '')}' > ${effect.path}${answer}`;
    case 'file':
      return `write ${effect.path}${effect.mode === 0o644 ? '' : ` (${effect.mode.toString(8)})`}${answer}`;
    case 'link':
      return `ln -s ${effect.target} ${effect.path}${answer}`;
    case 'remove':
      return `rm ${effect.path}${answer}`;
    case 'owner':
      return `chown ${effect.owner} ${effect.path} (${effect.mode.toString(8)})${answer}`;
    case 'signal':
      return `kill -${effect.signal} ${effect.pid}`;
    case 'run':
      return `${[effect.file, ...effect.args].join(' ')}${answer}`;
  }
}
