/**
 * Kernel command lines, each with the expected result: whether it switches off the claim of the card in slot
 * 0000:02:00.0. The shell (libexec/early, libexec/claim), the rule and TypeScript (src/state/rescue.ts) must agree.
 */
export interface CommandLineCase {
  readonly line: string;
  /** Whether the claim of 0000:02:00.0 is switched off. */
  readonly off: boolean;
}

export const commandLineCases: readonly CommandLineCase[] = [
  {line: 'root=/dev/sda1 ro quiet', off: false},
  {line: 'root=/dev/sda1 pearasys=off quiet', off: true},
  {line: 'pearasys=off', off: true},
  {line: 'pearasys', off: false},
  {line: 'pearasys=on', off: false},
  {line: 'pearasys=offline', off: false},
  {line: 'xpearasys=off', off: false},
  {line: 'pearasys.skip=0000:02:00.0', off: true},
  {line: 'quiet pearasys.skip=02:00.0', off: true},
  {line: 'pearasys.skip=0000:01:00.0,0000:02:00.0,0000:03:00.0', off: true},
  {line: 'pearasys.skip=0000:01:00.0 pearasys.skip=02:00.0', off: true},
  {line: 'pearasys.skip=0000:01:00.0,0000:02:00.1', off: false},
  {line: 'pearasys.skip=0001:02:00.0', off: false},
  {line: 'pearasys.skip=2:00.0', off: false},
  {line: 'pearasys.skip=', off: false},
  {line: 'pearasys.skip=,', off: false},
  {line: 'pearasys.skip=*', off: false},
  {line: 'pearasys.skip=../../../etc,02:00.0', off: true},
  {line: 'pearasys.skip=0000:02:00.0;reboot', off: false},
  {line: 'pearasys.skip=$(reboot),`reboot`', off: false},
];
