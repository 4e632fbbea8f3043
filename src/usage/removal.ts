import type {HolderClass} from './holder.js';

/**
 * What the removal of a driver does while a node is open: as {@link HolderClass}, or `tells`: the kernel waits until
 * the node is closed, and notifies processes that wait for its events that it is gone.
 */
export type Removal = HolderClass | 'tells';

/** What is known about a node besides its name. */
interface NodeFacts {
  /** Its path in sysfs. */
  readonly path: string;
  /** The drivers of the devices that it belongs to. */
  readonly drivers: readonly (string | undefined)[];
  /** Whether nvidia-drm's parameter `modeset` is on. */
  readonly modeset: () => boolean;
}

/** Drivers of the PCI function that can revoke the contexts of open verbs nodes (ops.disassociate_ucontext). */
const disassociating = new Set(['mlx4_core', 'mlx5_core', 'hns3', 'ice', 'i40e']);

/**
 * The rules: the first match decides. Each names the kernel function that the removal of the PCI driver calls. Every
 * other node `yields`: its file operations hold a reference to what they need, the removal
 * (cdev_device_del, misc_deregister, tty_vhangup, usbdev_remove, del_gendisk, drm_dev_unplug, nvme_uninit_ctrl,
 * hidraw_disconnect, uio_unregister_device, watchdog_dev_unregister, posix_clock_unregister, …) does not wait for
 * them, and the next call of the opener fails.
 */
const rules: readonly (readonly [RegExp, (facts: NodeFacts) => Removal])[] = [
  // vfio_unregister_group_dev waits for the device's last reference; before 5.16 it waited for the group's too.
  [/^vfio\//, () => 'blocks'],
  // nv_pci_remove waits until the card's usage count is 0; with modeset on nvidia-drm counts for its own nodes.
  [/^nvidia\d+$/, () => 'blocks'],
  [/^dri\//, ({drivers, modeset}) => (drivers.includes('nvidia') && modeset() ? 'blocks' : 'yields')],
  // evdev_disconnect, mousedev_destroy, joydev_disconnect: readers get ENODEV. Input devices come and go.
  [/^input\/(?:event|mouse|js|mice)\d*$/, () => 'harmless'],
  // snd_card_free waits for the last file; snd_card_disconnect notifies by EPOLLERR. USB has snd_card_free_when_closed.
  [/^snd\/controlC\d+$/, ({path}) => (isOnUsb(path) ? 'harmless' : 'tells')],
  [/^snd\//, ({path}) => (isOnUsb(path) ? 'yields' : 'blocks')],
  // i2c_del_adapter waits for adap->dev_released, and i2cdev_open has a reference to the adapter.
  [/^i2c-\d+$/, () => 'blocks'],
  // dvb_dmxdev_release waits until the number of users is back to its own.
  [/^dvb\/adapter\d+\/(?:demux|dvr)\d+$/, () => 'blocks'],
  // ib_uverbs_remove_one waits if the driver cannot revoke the contexts.
  [/^infiniband\/uverbs\d+$/, ({drivers}) => (drivers.some(disassociates) ? 'yields' : 'blocks')],
  // vhost_vdpa_remove waits for the completion by vhost_vdpa_release.
  [/^vhost-vdpa-\d+$/, () => 'blocks'],
  // fw_core_remove_card waits for card->done, and an open node has a reference to the device and so to the card.
  [/^fw\d+$/, () => 'blocks'],
  // tee_device_unregister waits for c_no_users.
  [/^tee(?:priv)?\d+$/, () => 'blocks'],
];

/**
 * What the removal does while this node is open.
 * @param name the node's path below /dev, as in its uevent's DEVNAME.
 */
export function removalOf(name: string, facts: NodeFacts): Removal {
  return rules.find(([pattern]) => pattern.test(name))?.[1](facts) ?? 'yields';
}

function isOnUsb(path: string): boolean {
  return /\/usb\d+\//.test(path);
}

function disassociates(driver: string | undefined): boolean {
  return driver !== undefined && disassociating.has(driver);
}
