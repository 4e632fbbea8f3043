/** Cards in other slots than recorded, on a real kernel: which driver probes them, and what becomes of their records. */
import assert from 'node:assert/strict';
import {DEVICES} from './devices.js';
import {withProduct} from './shared.js';

const vfio = 'vfio-pci';
const unitOf = (slot: string): string => `pearasys-${slot}@${vfio}.service`;
/** A network card's serial number of PCI Express is made from its address. */
const macs = ['52:54:00:aa:00:01', '52:54:00:aa:00:02', '52:54:00:aa:00:03'] as const;

describe('a card in another slot than recorded', function () {
  const product = withProduct(this);

  /** The kernel's messages in this boot in which a driver names a device. */
  const probes = async (driver: string, slot: string): Promise<string> =>
    product().machine.sh(`dmesg | grep -F '${driver} ${slot}' || true`);

  it('is claimed before its host driver probes it, and its twin is not', async () => {
    const {machine} = product();
    const [bridge, , card, twin] = [0, 1, 2, 3].map(() => machine.ports.take());
    assert.ok(bridge !== undefined && card !== undefined && twin !== undefined);
    await card.plug('e1000e', {mac: macs[0]});
    await twin.plug('e1000e', {mac: macs[1]});
    // Without a serial number: only its path tells it.
    const legacy = DEVICES.legacy0.slot;
    await product().sh('-s', card.slot, '-s', legacy, 'service', 'install', vfio, '--no-initramfs');
    const record = await machine.sh(`cat /etc/pearasys/pci/${card.slot}-*`);
    assert.match(record, /^PEARASYS_SERIAL=pcie:(?:[0-9a-f]{2}-){7}[0-9a-f]{2}$/m);
    assert.match(record, /^PEARASYS_PATH=0000:00\/19\.0\/00\.0$/m);

    // A bridge with a bus of its own in a lower port: all buses behind it are shifted by one.
    await bridge.plug('pcie-pci-bridge');
    await machine.reboot();
    const [newCard, newTwin, newLegacy] = ['0000:09:00.0', '0000:0a:00.0', '0000:08:01.0'];
    await product().untilState(unitOf(newCard), 'active');
    await product().untilState(unitOf(newLegacy), 'active');
    assert.equal(await product().driverOf(newCard), vfio);
    assert.equal(await product().driverOf(newLegacy), vfio);
    await product().untilDriver(newTwin, 'e1000e');
    await product().untilDriver('0000:08:02.0', 'e1000');
    assert.equal(await probes('e1000e', newCard), '');
    assert.equal(await probes('e1000', newLegacy), '');
    assert.notEqual(await probes('e1000e', newTwin), '');
    await machine.waitUntil(`test ! -e /etc/systemd/system/pearasys-${card.slot}@.service`);
    const records = await machine.sh('ls /etc/pearasys/pci');
    assert.deepEqual(records.split('\n'), [`${newLegacy}-0x8086-0x100e`, `${newCard}-0x8086-0x10d3`].sort());

    // Exchanged by hand, and the buses as at first.
    await product().sh('-s', newLegacy, 'service', 'uninstall', '--no-initramfs');
    await machine.ports.giveBack();
  });

  it('is not claimed if it is another card of the same kind, until it is adopted', async () => {
    const {machine} = product();
    const port = machine.ports.take();
    await port.plug('e1000e', {mac: macs[0]});
    await product().sh('-s', port.slot, 'service', 'install', vfio, '--now', '--no-initramfs');
    await port.unplug();
    await product().untilState(unitOf(port.slot), 'inactive');
    await port.plug('e1000e', {mac: macs[2]});
    await product().untilDriver(port.slot, 'e1000e');
    await machine.waitUntil(
      `journalctl --no-pager -b -o cat -u 'pearasys-claim-${port.slot}@*' | grep -q 'is not the recorded one'`,
    );
    assert.equal(await product().overrideOf(port.slot), '(null)');
    const refused = await product().run('service', 'adopt', port.slot, '--no-initramfs');
    assert.equal(refused.code, 3);
    await product().sh('service', 'adopt', port.slot, '--force', '--no-initramfs');
    await machine.sh(`systemctl start ${unitOf(port.slot)}`);
    assert.equal(await product().driverOf(port.slot), vfio);
    await product().sh('-s', port.slot, 'service', 'uninstall', '--no-initramfs');
  });
});
