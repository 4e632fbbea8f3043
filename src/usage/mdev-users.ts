import type {HostReader} from '../host/host.js';
import type {NodeUser} from './holder.js';
import {Nodes} from './nodes.js';
import {readUsersOf} from './processes.js';
import {mdevPath, readMdevUse} from '../devices/mdev/mdev.js';
import type {Uuid} from '../devices/mdev/uuid.js';

/**
 * Processes that use a mediated device through VFIO: they have the node of its group or of the device open. Its group
 * has no other device. Only root sees what processes of other users have open.
 */
export function readMdevHolders(host: HostReader, uuid: Uuid): readonly NodeUser[] {
  return readHoldersOf(host, [uuid]).get(uuid) ?? [];
}

/** Like {@link readMdevHolders} for several devices, by UUID. The processes are read once. */
export function readHoldersOf(
  host: HostReader,
  uuids: readonly Uuid[],
): ReadonlyMap<Uuid, readonly NodeUser[]> {
  const owners = new Map<string, Uuid>();
  const nodes = new Nodes({host, devices: new Map()});
  const add = (uuid: Uuid, path: string, number: string | undefined) => {
    owners.set(path, uuid);
    nodes.add({path, owners: [], removal: 'blocks'}, 'char', number);
  };
  for (const uuid of uuids) {
    const {group} = readMdevUse(host, uuid);
    if (group !== undefined) add(uuid, `/dev/vfio/${group}`, host.readText(`/sys/class/vfio/${group}/dev`));
    for (const name of host.list(mdevPath(uuid, 'vfio-dev')))
      add(uuid, `/dev/vfio/devices/${name}`, host.readText(mdevPath(uuid, `vfio-dev/${name}/dev`)));
  }
  const holders = new Map<Uuid, NodeUser[]>();
  for (const user of readUsersOf(host, nodes)) {
    for (const uuid of new Set(user.nodes.map((node) => owners.get(node)))) {
      if (uuid === undefined) continue;
      const nodes = user.nodes.filter((node) => owners.get(node) === uuid);
      holders.set(uuid, [...(holders.get(uuid) ?? []), {...user, nodes}]);
    }
  }
  return holders;
}
