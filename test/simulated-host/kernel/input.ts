/** How the kernel reads what is written to an attribute. */
import {Errno} from '../errno.js';

/** kstrtoul() with base 0: decimal, 0x hexadecimal or 0 octal, one newline at most. */
export function wholeNumber(text: string, most = Number.MAX_SAFE_INTEGER): number {
  const match = /^\+?(0x[0-9a-f]+|\d+)\n?$/i.exec(text);
  const digits = match?.[1];
  if (digits === undefined) throw new Errno('EINVAL');
  const octal = /^0[0-7]+$/.test(digits);
  if (!octal && /^0\d/.test(digits)) throw new Errno('EINVAL');
  const number = octal ? parseInt(digits, 8) : Number(digits);
  if (number > most) throw new Errno('ERANGE');
  return number;
}

/** kstrtobool() */
export function truth(text: string): boolean {
  if (/^([yYtT1]|[oO][nN])/.test(text)) return true;
  if (/^([nNfF0]|[oO][fF])/.test(text)) return false;
  throw new Errno('EINVAL');
}
