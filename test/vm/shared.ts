/** The machine that several suites share: booted once, with pearasys installed. And those of single suites. */
import assert from 'node:assert/strict';
import {installProduct} from './install.js';
import {
  BOOT_LIMIT,
  CHECKOUT,
  explainFailures,
  Machine,
  quote,
  recipeOf,
  skipUnlessAvailable,
  type BootOptions,
  type Result,
} from './machine.js';

let booting: Promise<Machine> | undefined;

/** The installed pearasys in the machine. */
export class Product {
  readonly machine: Machine;

  constructor(machine: Machine) {
    this.machine = machine;
  }

  /** Runs `pearasys` with these arguments. */
  async run(...args: string[]): Promise<Result> {
    return this.machine.run(['pearasys', ...args].map(quote).join(' '));
  }

  /** Runs `pearasys`, which must succeed. @returns its standard output. */
  async sh(...args: string[]): Promise<string> {
    return this.machine.sh(['pearasys', ...args].map(quote).join(' '));
  }

  /** Runs `pearasys … --json`, which must succeed. */
  async json<T>(...args: string[]): Promise<T> {
    return JSON.parse(await this.sh(...args, '--json')) as T;
  }

  /** The driver of the slot's device; empty without one. */
  async driverOf(slot: string): Promise<string> {
    return this.machine.sh(`basename "$(readlink /sys/bus/pci/devices/${slot}/driver)"`);
  }

  /** The device's override; `(null)` without one. */
  async overrideOf(slot: string): Promise<string> {
    return this.machine.sh(`cat /sys/bus/pci/devices/${slot}/driver_override`);
  }

  /** systemd's ActiveState of a unit. */
  async stateOf(unit: string): Promise<string> {
    return this.machine.sh(`systemctl show --value --property=ActiveState ${quote(unit)}`);
  }

  /** Whether systemd has checked a unit's conditions, and has not started it. */
  async wasSkipped(unit: string): Promise<boolean> {
    const text = await this.machine.sh(
      `systemctl show --property=ConditionResult,ConditionTimestampMonotonic ${quote(unit)}`,
    );
    return text.includes('ConditionResult=no') && !text.includes('ConditionTimestampMonotonic=0');
  }

  /** Waits for a driver; empty for none. */
  async untilDriver(slot: string, driver: string): Promise<void> {
    await this.machine.waitUntil(
      `test "$(basename "$(readlink /sys/bus/pci/devices/${slot}/driver)")" = "${driver}"`,
    );
  }

  /** Waits for a unit's ActiveState. */
  async untilState(unit: string, state: string): Promise<void> {
    await this.machine.waitUntil(
      `test "$(systemctl show --value --property=ActiveState ${quote(unit)})" = ${state}`,
    );
  }

  /** The messages of a unit in the journal of this boot. */
  async journalOf(unit: string): Promise<string> {
    return this.machine.sh(`journalctl --no-pager -b -o cat -u ${quote(unit)}`);
  }
}

/**
 * For a suite: the machine with pearasys, booted for the first suite that needs it and closed after the last.
 * @returns a function for tests that returns it.
 */
export function withProduct(suite: Mocha.Suite): () => Product {
  suite.timeout(400_000);
  let product: Product | undefined;
  suite.beforeAll(async function () {
    this.timeout(BOOT_LIMIT);
    await skipUnlessAvailable(this);
    booting ??= boot();
    product = new Product(await booting);
  });
  explainFailures(() => product?.machine);
  suite.afterEach(async function () {
    this.timeout(120_000);
    await product?.machine.ports.giveBack();
  });
  return () => {
    if (product === undefined) throw new Error('the machine is asked for before it has booted');
    return product;
  };
}

/**
 * For a suite with a machine of its own: boots it, and installs pearasys. It is closed after the suite.
 * @param setUp what else the suite needs
 */
export function withOwnMachine(
  suite: Mocha.Suite,
  options: BootOptions,
  setUp: (product: Product) => Promise<void> | void,
): void {
  let machine: Machine | undefined;
  suite.beforeAll(async function () {
    this.timeout(BOOT_LIMIT);
    await skipUnlessAvailable(this, recipeOf(options));
    // The host may not have the resources for two machines.
    await closeShared();
    machine = await Machine.boot(options);
    await installProduct(machine);
    await setUp(new Product(machine));
  });
  suite.afterAll(async () => machine?.close());
  explainFailures(() => machine);
}

/**
 * Shuts the shared machine down, at the end and before a suite with a machine of its own, because the host may not have
 * the resources for two. The next suite that needs it boots another. Does nothing if it is not running.
 */
export async function closeShared(): Promise<void> {
  const machine = await booting;
  booting = undefined;
  await machine?.close();
}

/** Lists every file of the machine except data, logs and the agent of these tests, with its size, one per line. */
const FILES =
  "find / -xdev \\( -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /var -o -path /opt -o -path /root \\) -prune -o ! -name '*pearasys-agent*' ! -type d -printf '%p %s\\n' | sort";

/** Lists the files that {@link changedFiles} compares with: before pearasys is installed. */
export async function listFiles(machine: Machine): Promise<void> {
  await machine.sh(`${FILES} >/var/files.before`);
}

/** The files below a folder that were added or removed since before pearasys was installed. */
export async function changedFiles(machine: Machine, folder = '/'): Promise<string> {
  return machine.sh(
    `${FILES} >/var/files.now; diff /var/files.before /var/files.now | grep '^[<>] ${folder}' || true`,
  );
}

/**
 * Reboots the machine while a process has a device open through VFIO.
 * @param held the slot or the UUID of the device
 * @returns the journal of the shutdown, which was completed
 */
export async function rebootWhileHeld(machine: Machine, held: string): Promise<string> {
  const guest = await machine.start(`exec perl ${CHECKOUT}/test/vm/stuck.pl ${held}`);
  guest.exited.catch(() => undefined);
  await guest.printed(/held/);
  await machine.reboot();
  const journal = await machine.sh('journalctl --no-pager -b -1 -o cat');
  const shutdown = journal.slice(journal.indexOf('System is rebooting'));
  assert.match(shutdown, /Reached target reboot\.target/);
  return shutdown;
}

async function boot(): Promise<Machine> {
  // The initramfs loads the disks' driver first at each boot, so claims must unbind it.
  const machine = await Machine.boot({early: ['nvme']});
  await listFiles(machine);
  await installProduct(machine);
  return machine;
}
