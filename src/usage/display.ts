import type {HostReader} from '../host/host.js';
import {devicePath} from '../devices/pci/device.js';
import {slotInPath} from '../devices/pci/find.js';
import type {DisplayHolder} from './holder.js';
import type {Slot} from '../devices/pci/slot.js';
import {byNumber, ownersOf, type Scope} from './scope.js';

interface Framebuffer {
  readonly name: string;
  readonly description: string;
  readonly owners: readonly Slot[];
  /** Whether it is on the boot display. */
  readonly boot: boolean;
}

interface Console {
  readonly name: string;
  readonly description: string;
}

/**
 * The boot framebuffer and the consoles. Each graphics driver makes a framebuffer for its card; on cards where
 * neither the firmware nor a console shows anything, it is not in use.
 */
export function readDisplayHolders(scope: Scope): DisplayHolder[] {
  const framebuffers = readFramebuffers(scope);
  const consoles = readBoundConsoles(scope.host);
  // sysfs does not say which framebuffer has the console: the kernel prefers that of the boot display, else the first.
  const shown = framebuffers.find(({boot}) => boot) ?? framebuffers[0];
  const bootDisplays = [...scope.devices.values()]
    .filter(({bootDisplay}) => bootDisplay)
    .map(({slot}) => slot);
  const holders: DisplayHolder[] = [];
  for (const framebuffer of framebuffers) {
    const inUse = framebuffer.boot || (framebuffer === shown && consoles.some(isOnFramebuffer));
    for (const slot of inUse ? framebuffer.owners : [])
      holders.push({
        kind: 'framebuffer',
        slot,
        class: 'yields',
        harm: 'overridable',
        name: framebuffer.name,
        description: framebuffer.description,
      });
  }
  for (const bound of consoles)
    for (const slot of isOnFramebuffer(bound) ? (shown?.owners ?? []) : bootDisplays)
      holders.push({kind: 'console', slot, class: 'yields', harm: 'overridable', ...bound});
  return holders;
}

/** /sys/class/graphics (Documentation/fb/framebuffer.rst), lowest number first. */
function readFramebuffers(scope: Scope): Framebuffer[] {
  const {host, devices} = scope;
  const framebuffers: Framebuffer[] = [];
  const names = host.list('/sys/class/graphics').filter((name) => /^fb\d+$/.test(name));
  for (const name of names.sort(byNumber)) {
    const link = host.readLink(`/sys/class/graphics/${name}`);
    if (link === undefined) continue;
    // The firmware's framebuffer is a platform device; since Linux 6.9 it may be below the card.
    const firmware = /\/((?:efi|simple|vesa)-framebuffer\.\d+)\//.exec(link)?.[1];
    const slot = slotInPath(link);
    framebuffers.push({
      name,
      description: firmware ?? host.readText(`/sys/class/graphics/${name}/name`) ?? '',
      owners:
        firmware !== undefined && slot === undefined
          ? [...devices.values()].filter(({bootDisplay}) => bootDisplay).map((device) => device.slot)
          : ownersOf(scope, link),
      boot: firmware !== undefined || (slot !== undefined && isBootDisplay(scope, slot)),
    });
  }
  return framebuffers;
}

function isBootDisplay({host, devices}: Scope, slot: Slot): boolean {
  return devices.get(slot)?.bootDisplay ?? host.readText(devicePath(slot, 'boot_vga')) === '1';
}

/** Consoles that have terminals (Documentation/driver-api/tty/console.rst); the dummy console shows nothing. */
function readBoundConsoles(host: HostReader): Console[] {
  return host
    .list('/sys/class/vtconsole')
    .filter((name) => host.readText(`/sys/class/vtconsole/${name}/bind`) === '1')
    .map((name) => ({
      name,
      description: (host.readText(`/sys/class/vtconsole/${name}/name`) ?? '').replace(/^\([A-Z]\) /, ''),
    }))
    .filter((bound) => isOnFramebuffer(bound) || bound.description.includes('VGA'));
}

function isOnFramebuffer({description}: Console): boolean {
  return description.includes('frame buffer');
}
