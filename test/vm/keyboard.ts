import type {Product} from './shared.js';

/**
 * Plugs in a USB controller with a keyboard, in a port of its own.
 * @returns the slot of the controller, and the keyboard's device node
 */
export async function plugKeyboard(
  product: Product,
): Promise<{readonly slot: string; readonly node: string}> {
  const {machine} = product;
  const port = machine.ports.take();
  const {slot} = port;
  const controller = await port.plug('qemu-xhci');
  await product.untilDriver(slot, 'xhci_hcd');
  await machine.deviceAdd('usb-kbd', {bus: `${controller}.0`});
  const find = `find -L /sys/class/input -maxdepth 1 -name 'event*' -exec sh -c 'readlink -f "$1" | grep -q ${slot}' _ {} \\; -print`;
  await machine.waitUntil(`${find} | grep -q event`);
  const node = (await machine.sh(find)).replace(/.*\//, '/dev/input/');
  await machine.waitUntil(`test -c ${node}`);
  return {slot, node};
}
