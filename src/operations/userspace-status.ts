import {readNumaNode, type Device} from '../devices/pci/device.js';
import type {DeviceType} from '../devices/pci/device-type.js';
import {spdkKindOf, typesOf, type SpdkKind} from '../devices/pci/device-types.js';
import {isForUserspace} from '../devices/pci/driver.js';
import {modulesFor} from '../devices/pci/modules.js';
import {readParts} from '../devices/pci/parts.js';
import type {Slot} from '../devices/pci/slot.js';
import type {Host} from '../host/host.js';
import {decide, devicesToSearch, readUserspace, type Skip} from '../plan/userspace/userspace.js';
import {readContents, readDisks, type DiskContents} from '../usage/contents.js';

/** A device as far as userspace drivers are concerned. */
export interface UserspaceDevice {
  readonly device: Device;
  readonly types: readonly DeviceType[];
  /** Which of SPDK's kinds it is; undefined for none. */
  readonly kind: SpdkKind | undefined;
  /** `userspace`: on VFIO or UIO; `kernel`: on another driver; `unused`: on none. */
  readonly state: 'userspace' | 'kernel' | 'unused';
  readonly numaNode: number | undefined;
  readonly interfaces: readonly string[];
  readonly disks: readonly string[];
  /** What its disks carry, if that decides whether it can be taken. */
  readonly contents: readonly DiskContents[];
  /** The driver that `userspace config` would give it; undefined if it needs no change or cannot be taken. */
  readonly driver: string | undefined;
  /** Why it cannot be taken. */
  readonly skip: Skip | undefined;
  /** Modules of drivers for it that it is not on. */
  readonly unused: readonly string[];
}

/** Reads the state of these devices, and what `userspace config` would do with each of them. */
export async function readUserspaceStatus(
  host: Host,
  devices: readonly Device[],
  blocked: ReadonlySet<Slot>,
): Promise<UserspaceDevice[]> {
  const request = {
    driver: undefined,
    variant: true,
    take: new Set<Slot>(),
    blocked,
    claimed: new Set<Slot>(),
  };
  const input = readUserspace(host, devices, request);
  const contents = await readContents(host, readDisks(host, devicesToSearch(input)));
  const {switched, skipped} = decide(input, contents);
  const parts = readParts(host, new Set(devices.map(({slot}) => slot)));
  return devices.map((device): UserspaceDevice => {
    const {slot, driver} = device;
    const {disks = [], interfaces = []} = parts.get(slot) ?? {};
    const own = driver?.replaceAll('-', '_');
    return {
      device,
      types: typesOf(device),
      kind: spdkKindOf(device),
      state: driver === undefined ? 'unused' : isForUserspace(driver) ? 'userspace' : 'kernel',
      numaNode: readNumaNode(host, slot),
      interfaces,
      disks,
      contents: contents.filter(({slots}) => slots.includes(slot)),
      driver: switched.find((one) => one.device.slot === slot)?.driver,
      skip: skipped.find((one) => one.slot === slot),
      unused: modulesFor(host, device).filter((module) => module.replaceAll('-', '_') !== own),
    };
  });
}
