import type {HostReader} from '../host/host.js';
import {slotsInPath} from '../devices/pci/find.js';
import type {Slot} from '../devices/pci/slot.js';

const folder = '/sys/class/input';

/** The keys Esc to S, bits 1 to 31: by them udev tells a keyboard from a power button (input_id of udev). */
const keyboardKeys = 0xfffffffen;

/** A keyboard, with the slots of the functions on its way; none for one at the PS/2 port. */
interface Keyboard {
  readonly name: string;
  readonly slots: readonly Slot[];
}

/** The keyboards of the machine, those left out that programs make. */
function readKeyboards(host: HostReader): Keyboard[] {
  return host
    .list(folder)
    .filter((name) => /^input\d+$/.test(name))
    .flatMap((name): Keyboard[] => {
      const words = (host.readText(`${folder}/${name}/capabilities/key`) ?? '').trim().split(/\s+/);
      const last = words.at(-1) ?? '';
      const keys = /^[0-9a-f]+$/i.test(last) ? BigInt(`0x${last}`) : 0n;
      if ((keys & keyboardKeys) !== keyboardKeys) return [];
      const path = host.realPath(`${folder}/${name}`) ?? '';
      if (path.includes('/devices/virtual/')) return [];
      return [{name: host.readText(`${folder}/${name}/name`) ?? name, slots: slotsInPath(path)}];
    });
}

/** The names of the machine's keyboards when all of them go with these devices; empty when one is left, or none was there. */
export function keyboardsLostWith(host: HostReader, slots: readonly Slot[]): readonly string[] {
  const keyboards = readKeyboards(host);
  const goes = (keyboard: Keyboard) => keyboard.slots.some((slot) => slots.includes(slot));
  return keyboards.every(goes) ? [...new Set(keyboards.map(({name}) => name))] : [];
}
