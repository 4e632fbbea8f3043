import {attributes, virtualFunctions} from './cases/attributes.js';
import {binding, ids, override} from './cases/binding.js';
import {hotplug} from './cases/hotplug.js';
import {inUse} from './cases/in-use.js';
import {mdev} from './cases/mdev.js';
import {modules} from './cases/modules.js';
import {udev} from './cases/udev.js';
import {deviceUnits, units} from './cases/units.js';
import type {ContractArea} from './machine.js';

/** How the kernel, udev and systemd behave, on the simulated machine as on the virtual one. */
export const contract: readonly ContractArea[] = [
  override,
  binding,
  ids,
  attributes,
  virtualFunctions,
  hotplug,
  inUse,
  modules,
  mdev,
  udev,
  units,
  deviceUnits,
];
