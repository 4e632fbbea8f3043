import type {HostReader} from '../host/host.js';
import type {BlockDevice, Blocks} from './blocks.js';

/** A user of a block device that is not linked in its `holders` folder, and often has no claim. */
export interface Backed {
  /** The block device on top; undefined for a target that serves it to others. */
  readonly upper: BlockDevice | undefined;
  /** Its description: `loop0`, `NVMe target nqn.x, namespace 1`. */
  readonly by: string;
}

const nvmeTargets = '/sys/kernel/config/nvmet/subsystems';
const targets = '/sys/kernel/config/target/core';

/**
 * Loop devices over block devices, compressed RAM disks that write back to one, and NVMe and SCSI targets, by the
 * block device below.
 */
export function readBacked(host: HostReader, blocks: Blocks): ReadonlyMap<BlockDevice, readonly Backed[]> {
  const backed = new Map<BlockDevice, Backed[]>();
  const add = (path: string | undefined, upper: BlockDevice | undefined, by: string) => {
    const block = path === undefined ? undefined : blocks.at(path);
    if (block !== undefined) backed.set(block, [...(backed.get(block) ?? []), {upper, by}]);
  };
  for (const block of blocks.all) {
    // Documentation/ABI/testing/sysfs-block-loop, sysfs-block-zram
    if (/^loop\d+$/.test(block.name))
      add(withoutDeleted(host.readText(`${block.path}/loop/backing_file`)), block, block.name);
    else if (/^zram\d+$/.test(block.name)) add(host.readText(`${block.path}/backing_dev`), block, block.name);
  }
  for (const subsystem of host.list(nvmeTargets))
    for (const namespace of host.list(`${nvmeTargets}/${subsystem}/namespaces`)) {
      const folder = `${nvmeTargets}/${subsystem}/namespaces/${namespace}`;
      if (host.readText(`${folder}/enable`) === '1')
        add(
          host.readText(`${folder}/device_path`),
          undefined,
          `NVMe target ${subsystem}, namespace ${namespace}`,
        );
    }
  for (const adapter of host.list(targets))
    for (const name of host.list(`${targets}/${adapter}`)) {
      const folder = `${targets}/${adapter}/${name}`;
      if (host.readText(`${folder}/enable`) !== '1') continue;
      // fd_show_configfs_dev_params in drivers/target/target_core_file.c
      const file = /\bFile: (\S+)/.exec(host.readText(`${folder}/info`) ?? '')?.[1];
      const path = host.readText(`${folder}/udev_path`);
      for (const one of new Set([path, file])) add(one, undefined, `SCSI target ${adapter}/${name}`);
    }
  return backed;
}

function withoutDeleted(path: string | undefined): string | undefined {
  return path?.replace(/ \(deleted\)$/, '');
}
