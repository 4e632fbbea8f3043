import {Errno} from '../errno.js';
import type {SimulatedMachine} from './machine.js';
import type {LiveFunction} from './pci.js';

/** The consoles and framebuffers, that of the firmware included. */
export class Console {
  readonly #machine: SimulatedMachine;
  /** The framebuffer that has the console. */
  #consoleOn: string | undefined;

  constructor(machine: SimulatedMachine) {
    this.#machine = machine;
  }

  /**
   * A driver gives the consoles to the other one, or takes them (`1`): from the system's own driver only, and where
   * there is none, from nobody.
   */
  bindConsole(number: string, on: boolean): void {
    const folder = '/sys/devices/virtual/vtconsole';
    const drivers = ['0', '1'].filter((each) => this.#machine.tree.has(`${folder}/vtcon${each}`));
    if (!drivers.includes(number)) throw new Errno('ENODEV');
    const isSystems = (each: string) =>
      this.#machine.tree.read(`${folder}/vtcon${each}/name`)?.startsWith('(S)') === true;
    if (on && !drivers.some(isSystems)) return;
    for (const each of drivers)
      this.#machine.tree.file(`${folder}/vtcon${each}/bind`, (each === number) === on ? '1\n' : '0\n', 0o644);
    this.#consoleOn = (number === '1') === on ? this.#firstFramebuffer() : undefined;
  }

  /** The firmware's framebuffer: a platform device, not a PCI one. */
  bindFirmwareFramebuffer(driver: string, device: string, on: boolean): void {
    if (device !== `${driver}.0`) throw new Errno('ENODEV');
    const bound = this.#machine.tree.has(`/sys/bus/platform/drivers/${driver}/${device}`);
    if (on && bound) throw new Errno('EBUSY');
    if (!on && !bound) throw new Errno('ENODEV');
    if (on) this.addFirmwareFramebuffer(driver);
    else {
      this.#machine.tree.remove(`/sys/bus/platform/drivers/${driver}/${device}`);
      this.#machine.tree.remove(`/sys/devices/platform/${device}/driver`);
      this.#removeFramebufferPart(`/sys/devices/platform/${device}/graphics/fb0`);
      this.renderFramebuffers();
    }
  }

  /** A driver's own framebuffer takes the console by itself, and gives it back when it goes. */
  consoleAppears(device: LiveFunction): void {
    if (device.parts.some((part) => part.subsystem === 'graphics')) this.bindConsole('1', true);
  }

  /** To the dummy, even when another framebuffer is there: nobody takes it over by itself. */
  consoleGoes(): void {
    if (this.#consoleOn !== undefined && !this.#machine.tree.has(`/sys/class/graphics/${this.#consoleOn}`))
      this.bindConsole('1', false);
  }

  #firstFramebuffer(): string | undefined {
    return this.#machine.tree.list('/sys/class/graphics').find((name) => /^fb\d+$/.test(name));
  }

  addFirmwareFramebuffer(driver: string): void {
    const device = `/sys/devices/platform/${driver}.0`;
    this.#machine.tree.link(`/sys/bus/platform/drivers/${driver}/${driver}.0`, device);
    this.#machine.tree.link(`${device}/driver`, `/sys/bus/platform/drivers/${driver}`);
    const number = this.#machine.classDevices.allocate('framebuffer');
    this.#machine.classDevices.addPart(undefined, {
      path: `${device}/graphics/fb${number}`,
      subsystem: 'graphics',
      device,
      numbers: [`framebuffer ${number}`],
      node: {path: `/dev/fb${number}`, type: 'character', number: `29:${number}`, mode: 0o660},
      files: {name: 'EFI VGA', dev: `29:${number}`, uevent: `MAJOR=29\nMINOR=${number}\nDEVNAME=fb${number}`},
    });
    this.bindConsole('1', true);
  }

  #removeFramebufferPart(path: string): void {
    const number = path.slice(path.lastIndexOf('fb') + 2);
    this.#machine.classDevices.removePart({
      path,
      subsystem: 'graphics',
      numbers: [`framebuffer ${number}`],
      node: {path: `/dev/fb${number}`, type: 'character', number: `29:${number}`, mode: 0o660},
      files: {},
    });
    this.consoleGoes();
  }

  renderFramebuffers(): void {
    const lines = this.#machine.tree
      .list('/sys/class/graphics')
      .filter((name) => name.startsWith('fb'))
      .map(
        (name) =>
          `${name.slice(2)} ${(this.#machine.tree.read(`/sys/class/graphics/${name}/name`) ?? '').trim()}\n`,
      );
    this.#machine.tree.file('/proc/fb', lines.join(''));
  }

  buildConsoles(): void {
    const consoles: [string, string, string][] = [['0', '(S) dummy device', '1']];
    consoles.push(['1', '(M) frame buffer device', '0']);
    for (const [number, name, bound] of consoles) {
      const folder = `/sys/devices/virtual/vtconsole/vtcon${number}`;
      this.#machine.tree.file(`${folder}/name`, `${name}\n`);
      this.#machine.tree.file(`${folder}/bind`, `${bound}\n`, 0o644);
      this.#machine.tree.link(`/sys/class/vtconsole/vtcon${number}`, folder);
    }
    this.#machine.tree.file('/sys/devices/virtual/tty/tty0/active', 'tty1\n');
    this.#machine.tree.link('/sys/class/tty/tty0', '/sys/devices/virtual/tty/tty0');
    this.#machine.tree.file('/sys/devices/virtual/tty/console/active', 'tty0\n');
    this.#machine.tree.link('/sys/class/tty/console', '/sys/devices/virtual/tty/console');
    for (const [name, minor] of [
      ['tty0', 0],
      ['tty1', 1],
    ] as const)
      this.#machine.tree.node(`/dev/${name}`, {type: 'character', number: `4:${minor}`, mode: 0o620});
    this.#machine.tree.node('/dev/null', {type: 'character', number: '1:3', mode: 0o666});
  }
}
