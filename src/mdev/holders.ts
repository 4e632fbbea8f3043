import type {HostReader} from '../host/host.js';
import type {NodeUser} from '../pci/holders/holder.js';
import {readUsersOf} from '../pci/holders/processes.js';
import {mdevPath, readMdevUse} from './mdev.js';
import type {Uuid} from './uuid.js';

/**
 * Processes that use a mediated device through VFIO: they have the node of its group open, or its own. Its group has
 * no other device. What another user's processes have open only root sees.
 */
export function readMdevHolders(host: HostReader, uuid: Uuid): NodeUser[] {
  const {group} = readMdevUse(host, uuid);
  const nodes = host.list(mdevPath(uuid, 'vfio-dev')).map((name) => `/dev/vfio/devices/${name}`);
  return readUsersOf(host, new Set(group === undefined ? nodes : [`/dev/vfio/${group}`, ...nodes]));
}
