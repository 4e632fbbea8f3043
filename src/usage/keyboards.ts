import type {HostReader} from '../host/host.js';
import {slotsInPath} from '../devices/pci/find.js';
import type {Slot} from '../devices/pci/slot.js';

const folder = '/sys/class/input';

/** The keys Esc to S, bits 1 to 31, by which udev distinguishes a keyboard from a power button (udev's input_id). */
const keyboardKeys = 0xfffffffen;

/** A keyboard, with the slots of the functions that it is connected through; none at a PS/2 port. */
interface Keyboard {
  readonly name: string;
  readonly slots: readonly Slot[];
}

/** The keyboards of the machine, without virtual ones. */
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

/** The names of the machine's keyboards if all of them disappear with these devices; empty if one is left or there is none. */
export function keyboardsLostWith(host: HostReader, slots: readonly Slot[]): readonly string[] {
  const keyboards = readKeyboards(host);
  const goes = (keyboard: Keyboard) => keyboard.slots.some((slot) => slots.includes(slot));
  return keyboards.every(goes) ? [...new Set(keyboards.map(({name}) => name))] : [];
}
