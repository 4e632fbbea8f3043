import {posix} from 'node:path';
import {parseDriver, type Driver} from '../../devices/pci/driver.js';
import {asSlot, type Slot} from '../../devices/pci/slot.js';
import {usageError} from '../../host/errors.js';

/** What the variables of SPDK's scripts/setup.sh say about devices. An empty variable counts as not set, as there. */
export interface UserspaceEnvironment {
  /** `PCI_ALLOWED`: the only devices that are selected; none for `none`; undefined for all. */
  readonly allowed: ReadonlySet<Slot> | undefined;
  /** `PCI_BLOCKED`: devices that are never touched, even if they are allowed or named. */
  readonly blocked: ReadonlySet<Slot>;
  /** `DRIVER_OVERRIDE`: a driver, or the path of its module. */
  readonly driver: Driver | undefined;
}

/** @throws PearasysError `bad-slot` or `bad-driver`, exit code 2: a list with a wrong word would mean other devices. */
export function readUserspaceEnvironment(environment: NodeJS.ProcessEnv): UserspaceEnvironment {
  const value = (name: string) => {
    const text = environment[name] ?? '';
    return text === '' ? undefined : text;
  };
  const slots = (name: string) => {
    const text = value(name);
    return text === undefined
      ? undefined
      : new Set(
          text
            .split(/\s+/)
            .filter((word) => word !== '' && word !== 'none')
            .map((word) => slotOf(name, word)),
        );
  };
  const driver = value('DRIVER_OVERRIDE');
  return {
    allowed: slots('PCI_ALLOWED'),
    blocked: slots('PCI_BLOCKED') ?? new Set(),
    driver: driver === undefined ? undefined : parseDriver(posix.basename(driver, '.ko')),
  };
}

function slotOf(name: string, word: string): Slot {
  const slot = asSlot(word);
  if (slot !== undefined) return slot;
  throw usageError(
    `${name}: '${word}' is not a slot`,
    `slots separated by blanks, as in ${name}='0000:01:00.0 0000:02:00.0'`,
    'bad-slot',
  );
}
