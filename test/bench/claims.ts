/**
 * What claims cost, beside driverctl, in a test machine: the time that the boot's user space takes and the processes
 * that it starts, with 2, 8 and 32 devices claimed, their driver in the initramfs or not; and the time of one
 * `service install` of 1, 8 and 64 devices beside as many `driverctl set-override`.
 */
import {available} from '../vm/image.js';
import {installProduct} from '../vm/install.js';
import {KeptDisk} from '../vm/kept-disk.js';
import {Machine} from '../vm/machine.js';
import {initramfsRecipe} from '../vm/recipes.js';
import {median, printResult, ratio} from './measure.js';

const COUNTS = [2, 8, 32] as const;
const ROUNDS = 3;
/** The most that a boot's user space may take with so many claims, as a ratio to a boot without claims. */
const IMAGE_TARGETS = {2: 1.05, 32: 1.6} as const;
/** An installation that rebuilds an initramfs, in milliseconds. */
const INSTALL_LIMIT = 400_000;

const functions = (cards: readonly string[]): string[] =>
  cards.flatMap((card) => [0, 1, 2, 3, 4, 5, 6, 7].map((number) => `0000:00:${card}.${number}`));
const device = (kind: string, slot: string, more = ''): string =>
  `${kind},addr=${slot.slice(8)}${slot.endsWith('.0') ? ',multifunction=on' : ''}${more}`;

const cards = functions(['0b', '0c', '0d', '0e']);
/** Of the same kind, and never claimed: it loads the driver of the kind. */
const twin = '0000:00:0f.0';
/** Without a host driver. */
const plain = functions(['16', '17', '19', '1a', '1b', '1c', '1d', '1e']);

const tools = {
  pearasys: {
    claim: (slots: readonly string[]) =>
      `pearasys ${slots.map((slot) => `-s ${slot}`).join(' ')} service install vfio-pci`,
    forget: (slots: readonly string[]) =>
      `pearasys ${slots.map((slot) => `-s ${slot}`).join(' ')} service uninstall`,
  },
  driverctl: {
    claim: (slots: readonly string[]) =>
      `for slot in ${slots.join(' ')}; do driverctl set-override $slot vfio-pci || exit; done`,
    // The kernel has 32 sound cards (SNDRV_CARDS): the last one finds no place, and driverctl says that it has failed.
    forget: (slots: readonly string[]) =>
      `for slot in ${slots.join(' ')}; do driverctl unset-override $slot || true; done`,
  },
} as const;
type Tool = keyof typeof tools;
const names: readonly Tool[] = ['pearasys', 'driverctl'];

/** The boot that has ended: seconds of its user space, and how many processes were started. */
interface Boot {
  readonly seconds: number;
  readonly processes: number;
}

const why = await available();
if (why === undefined) {
  await benchBoots('snd_hda_intel, which udev loads', 'ich9-intel-hda', '', false);
  await benchBoots('e1000e, which the initramfs loads', 'e1000e', ',romfile=', true);
  await benchImage();
  await benchInstall();
} else process.stdout.write(`Claims at boot: skipped: ${why}\n`);

async function benchBoots(title: string, kind: string, more: string, early: boolean): Promise<void> {
  const machine = await Machine.boot({
    ...(early ? {early: ['e1000e'] as const} : {}),
    extraDevices: [...cards, twin].map((slot) => device(kind, slot, more)),
  });
  try {
    await installProduct(machine);
    await machine.reboot();
    const nothing = await readBoot(machine);
    process.stdout.write(
      `A boot with claims of devices on ${title} (nothing claimed: ${nothing.seconds.toFixed(1)} s, ${nothing.processes} processes)\n`,
    );
    for (const count of COUNTS) {
      const slots = cards.slice(0, count);
      const added: Record<Tool, Boot> = {pearasys: nothing, driverctl: nothing};
      for (const tool of names) {
        await machine.sh(tools[tool].claim(slots), {timeout: 300_000});
        await machine.reboot();
        const boot = await readBoot(machine);
        added[tool] = {
          seconds: boot.seconds - nothing.seconds,
          processes: boot.processes - nothing.processes,
        };
        await machine.sh(tools[tool].forget(slots), {timeout: 300_000});
      }
      printResult(
        `${count}: seconds added (driverctl: ${added.driverctl.seconds.toFixed(1)})`,
        added.pearasys.seconds,
        Math.max(added.driverctl.seconds, 0),
      );
      printResult(
        `${count}: processes added (driverctl: ${added.driverctl.processes})`,
        added.pearasys.processes,
        added.driverctl.processes,
      );
    }
  } finally {
    await machine.close();
  }
}

/**
 * Boots with the driver of all cards in the initramfs, and the claims in it as `service install` leaves them. The boots
 * take turns, each with a disk of its own.
 */
async function benchImage(): Promise<void> {
  const extraDevices = [...cards, twin].map((slot) => device('e1000e', slot, ',romfile='));
  const disks = new Map<number, KeptDisk>();
  const seconds = new Map<number, number[]>();
  try {
    for (const count of [0, 2, 32]) {
      const disk = await KeptDisk.create(initramfsRecipe());
      disks.set(count, disk);
      seconds.set(count, []);
      const machine = await disk.boot({extraDevices});
      await installProduct(machine);
      if (count > 0) await machine.sh(tools.pearasys.claim(cards.slice(0, count)), {timeout: INSTALL_LIMIT});
      await machine.powerOff();
    }
    for (let round = 0; round < ROUNDS; round++)
      for (const [count, disk] of disks) {
        const machine = await disk.boot({extraDevices, countInstructions: true});
        seconds.get(count)?.push((await readBoot(machine)).seconds);
        await machine.powerOff();
      }
    process.stdout.write('A boot with claims and driver in the initramfs (without claims: 1)\n');
    for (const count of [2, 32] as const)
      printResult(
        `${count} claims`,
        ratio(seconds.get(count) ?? [], seconds.get(0) ?? []),
        IMAGE_TARGETS[count],
      );
  } finally {
    for (const disk of disks.values()) await disk.remove();
  }
}

async function readBoot(machine: Machine): Promise<Boot> {
  const text = await machine.sh(
    "grep '^processes' /proc/stat; systemctl show --property=UserspaceTimestampMonotonic,FinishTimestampMonotonic",
  );
  const numberOf = (key: string) => Number(new RegExp(`^${key}[ =](\\d+)$`, 'm').exec(text)?.[1]);
  return {
    seconds: (numberOf('FinishTimestampMonotonic') - numberOf('UserspaceTimestampMonotonic')) / 1e6,
    processes: numberOf('processes'),
  };
}

async function benchInstall(): Promise<void> {
  const machine = await Machine.boot({extraDevices: plain.map((slot) => device('pci-testdev', slot))});
  try {
    await installProduct(machine);
    process.stdout.write('Installing claims (as many calls of driverctl set-override are 1)\n');
    for (const count of [1, 8, 64]) {
      const slots = plain.slice(0, count);
      const times: Record<Tool, number[]> = {pearasys: [], driverctl: []};
      for (let round = 0; round < ROUNDS; round++)
        for (const tool of names) {
          const began = performance.now();
          await machine.sh(tools[tool].claim(slots), {timeout: 300_000});
          times[tool].push(performance.now() - began);
          await machine.sh(tools[tool].forget(slots), {timeout: 300_000});
        }
      printResult(`service install of ${count}`, median(times.pearasys) / median(times.driverctl), undefined);
    }
  } finally {
    await machine.close();
  }
}
