import type {HostReader} from '../../host/host.js';
import {writeAttribute, type Step} from '../step.js';

/** A driver of virtual consoles, see Documentation/driver-api/tty/console.rst. */
export interface ConsoleDriver {
  /** `vtcon1`. */
  readonly name: string;
  /** Whether it is the system driver, `(S)`: the dummy, or VGA text. Drivers registered later are `(M)`. */
  readonly system: boolean;
  /** Whether it has consoles. */
  readonly bound: boolean;
}

const folder = '/sys/class/vtconsole';

/** The drivers of virtual consoles, in the order of their registration. */
export function readConsoleDrivers(host: HostReader): ConsoleDriver[] {
  return host.list(folder).map((name) => ({
    name,
    system: host.readText(`${folder}/${name}/name`)?.startsWith('(S)') === true,
    bound: host.readText(bindPath(name)) === '1',
  }));
}

/** Takes the consoles from a driver; another driver gets them. */
export function releaseConsoles(name: string, drivers: readonly ConsoleDriver[]): Step {
  return writeAttribute(bindPath(name), '0', {undo: [returnConsoles(name, drivers)]});
}

/**
 * Returns the consoles to a driver. Binding takes them only from the system driver (vt_bind in drivers/tty/vt/vt.c).
 * There is none once a graphics driver has replaced VGA text, which is the system driver on machines with a BIOS: then
 * the driver that has them must release them.
 */
export function returnConsoles(name: string, drivers: readonly ConsoleDriver[]): Step {
  const others = drivers.filter((driver) => driver.name !== name);
  const other = others.find(({bound}) => bound) ?? others[0];
  return other === undefined || others.some(({system}) => system)
    ? writeAttribute(bindPath(name), '1')
    : writeAttribute(bindPath(other.name), '0');
}

function bindPath(name: string): string {
  return `${folder}/${name}/bind`;
}
