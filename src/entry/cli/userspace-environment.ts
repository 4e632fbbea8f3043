import {posix} from 'node:path';
import {parseDriver, type Driver} from '../../devices/pci/driver.js';
import {asSlot, type Slot} from '../../devices/pci/slot.js';
import {usageError} from '../../host/errors.js';
import type {HugePageVariables} from '../../plan/userspace/huge-variables.js';

/** What the variables of SPDK's scripts/setup.sh say about devices. An empty variable counts as not set, as there. */
export interface UserspaceEnvironment {
  /**
   * `PCI_ALLOWED`, and `NVME_ALLOWED` as its other name: the only devices that are selected; none for `none`, and with
   * `SKIP_PCI`; undefined for all.
   */
  readonly allowed: ReadonlySet<Slot> | undefined;
  /** `PCI_BLOCKED`: devices that are never touched, even if they are allowed or named. */
  readonly blocked: ReadonlySet<Slot>;
  /** `DRIVER_OVERRIDE`: a driver, or the path of its module. */
  readonly driver: Driver | undefined;
  /** `TARGET_USER`: who may open the devices. */
  readonly user: string | undefined;
}

/** @throws PearasysError `bad-slot` or `bad-driver`, exit code 2: a list with a wrong word would mean other devices. */
export function readUserspaceEnvironment(environment: NodeJS.ProcessEnv): UserspaceEnvironment {
  const value = (name: string) => valueOf(environment, name);
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
  const lists = [slots('PCI_ALLOWED'), slots('NVME_ALLOWED')].filter((list) => list !== undefined);
  const allowed = lists.length === 0 ? undefined : new Set(lists.flatMap((list) => [...list]));
  return {
    allowed: value('SKIP_PCI') === undefined ? allowed : new Set(),
    blocked: slots('PCI_BLOCKED') ?? new Set(),
    driver: driver === undefined ? undefined : parseDriver(posix.basename(driver, '.ko')),
    user: value('TARGET_USER'),
  };
}

function valueOf(environment: NodeJS.ProcessEnv, name: string): string | undefined {
  const text = environment[name] ?? '';
  return text === '' ? undefined : text;
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

/**
 * Reads the variables; undefined if none of them asks for anything. Unlike setup.sh, which then allocates 2 GiB.
 * @throws PearasysError `usage`, exit code 2.
 */
export function readHugePageVariables(environment: NodeJS.ProcessEnv): HugePageVariables | undefined {
  const value = (name: string) => valueOf(environment, name);
  const number = (name: string) => {
    const text = value(name);
    if (text === undefined) return undefined;
    if (!/^\d{1,9}$/.test(text))
      throw usageError(`${name}: '${text}' is not a number`, `a number, as in ${name}=1024`);
    return Number(text);
  };
  const [memory, pages, kilobytes] = [number('HUGEMEM'), number('NRHUGE'), number('HUGEPGSZ')];
  const isSet = (name: string) => value(name) === 'yes';
  const clear = isSet('CLEAR_HUGE');
  if (isSet('SKIP_HUGE') || (memory === undefined && pages === undefined && !clear)) return undefined;
  return {
    memory,
    pages,
    pageSize: kilobytes === undefined ? undefined : kilobytes * 1024,
    nodes: (value('HUGENODE') ?? '').split(',').flatMap(parseNode),
    even: isSet('HUGE_EVEN_ALLOC'),
    clear,
    shrink: isSet('SHRINK_HUGE'),
    persist: isSet('PERSIST_HUGE'),
  };
}

function parseNode(word: string): HugePageVariables['nodes'] {
  if (word === '') return [];
  const [, own, pages, plain] = /^(?:nodes_hp\[(\d{1,6})\]=(\d{1,9})|(\d{1,6}))$/.exec(word.trim()) ?? [];
  if (own !== undefined) return [{node: Number(own), pages: Number(pages)}];
  if (plain !== undefined) return [{node: Number(plain), pages: undefined}];
  throw usageError(
    `HUGENODE: '${word}' is not a node`,
    'nodes separated by commas, as in HUGENODE=0,1 or HUGENODE=nodes_hp[0]=2048,1',
  );
}
