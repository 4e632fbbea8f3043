/** Cards in other slots than recorded, on a real kernel: which driver probes them, and what becomes of their records. */
import assert from 'node:assert/strict';
import {DEVICES} from './devices.js';
import {chosenSuite} from './image.js';
import {installProduct} from './install.js';
import {KeptDisk} from './kept-disk.js';
import {BOOT_LIMIT, explainFailures, skipUnlessAvailable, type Machine} from './machine.js';
import {closeShared, Product} from './shared.js';

const vfio = 'vfio-pci';
const claimOf = (slot: string): string => `pearasys-claim-${slot}@${vfio}.service`;
const unitOf = (slot: string): string => `pearasys-${slot}@${vfio}.service`;
/** A network card's serial number of PCI Express is made from its address. */
const macs = ['52:54:00:aa:00:01', '52:54:00:aa:00:02', '52:54:00:aa:00:03'] as const;

describe('a card in another slot than recorded', function () {
  this.timeout(400_000);
  let disk: KeptDisk;
  let machine: Machine;
  let product: Product;
  const card = {bus: 'hotplug2', slot: '0000:08:00.0', mac: macs[0]};
  const twin = {bus: 'hotplug3', slot: '0000:09:00.0', mac: macs[1]};
  const [legacy, legacyTwin] = [DEVICES.legacy0.slot, DEVICES.legacy1.slot];

  before(async function () {
    this.timeout(BOOT_LIMIT);
    const recipe = {suite: chosenSuite()};
    await skipUnlessAvailable(this, recipe);
    await closeShared();
    disk = await KeptDisk.create(recipe);
    await boot(card, twin);
    await installProduct(machine);
    // The legacy card has no serial number: only its path identifies it.
    await product.sh('-s', card.slot, '-s', legacy, 'service', 'install', vfio);
  });
  after(async () => {
    await (machine as Machine | undefined)?.close();
    await (disk as KeptDisk | undefined)?.remove();
  });
  explainFailures(() => machine);

  /** Starts the machine with these network cards. @param further devices, as for QEMU. */
  async function boot(
    first: {readonly bus: string; readonly mac: string},
    second: {readonly bus: string; readonly mac: string} | undefined,
    ...further: readonly string[]
  ): Promise<void> {
    const cards = [first, ...(second === undefined ? [] : [second])];
    machine = await disk.boot({
      extraDevices: [...cards.map(({bus, mac}) => `e1000e,bus=${bus},mac=${mac},romfile=`), ...further],
    });
    product = new Product(machine);
  }

  /** Starts it again with other cards. */
  async function exchange(...devices: Parameters<typeof boot>): Promise<void> {
    await machine.sh('sync');
    await machine.close();
    await boot(...devices);
  }

  /** The kernel's messages in this boot in which a driver names a device. */
  const probes = async (driver: string, slot: string): Promise<string> =>
    machine.sh(`dmesg | grep -F '${driver} ${slot}' || true`);

  it('is recorded with its serial number and its path', async () => {
    const record = await machine.sh(`cat /etc/pearasys/pci/${card.slot}-*`);
    assert.match(record, /^PEARASYS_SERIAL=pcie:(?:[0-9a-f]{2}-){7}[0-9a-f]{2}$/m);
    assert.match(record, /^PEARASYS_PATH=0000:00\/19\.0\/00\.0$/m);
    assert.match(
      await machine.sh(`cat /etc/pearasys/pci/${legacy}-*`),
      /^PEARASYS_PATH=0000:00\/18\.0\/01\.0$/m,
    );
  });

  it('is claimed before its host driver probes it when buses are renumbered, and its twin is not', async () => {
    // A bridge in a lower port has a bus of its own: all buses after it are shifted by one.
    await exchange(card, twin, 'pcie-pci-bridge,bus=hotplug0');
    const [newCard, newTwin, newLegacy, newLegacyTwin] = [
      '0000:09:00.0',
      '0000:0a:00.0',
      '0000:08:01.0',
      '0000:08:02.0',
    ];
    for (const slot of [newCard, newLegacy]) {
      await product.untilState(unitOf(slot), 'active');
      assert.equal(await product.driverOf(slot), vfio);
    }
    await product.untilDriver(newTwin, 'e1000e');
    await product.untilDriver(newLegacyTwin, 'e1000');
    assert.equal(await probes('e1000e', newCard), '');
    assert.equal(await probes('e1000', newLegacy), '');
    assert.notEqual(await probes('e1000e', newTwin), '');
    await machine.waitUntil(`test ! -e /etc/systemd/system/pearasys-${card.slot}@.service`);
    const records = await machine.sh('ls /etc/pearasys/pci');
    assert.deepEqual(records.split('\n').sort(), [`${newLegacy}-0x8086-0x100e`, `${newCard}-0x8086-0x10d3`]);
  });

  it('is claimed when it was exchanged with its twin, and when its twin was taken out', async () => {
    await exchange({...card, mac: twin.mac}, {...twin, mac: card.mac});
    await product.untilState(unitOf(twin.slot), 'active');
    assert.equal(await product.driverOf(twin.slot), vfio);
    await product.untilDriver(card.slot, 'e1000e');
    assert.equal(await probes('e1000e', twin.slot), '');
    await product.untilState(unitOf(legacy), 'active');
    assert.equal(await product.driverOf(legacyTwin), 'e1000');
    await exchange({...twin, mac: card.mac}, undefined);
    await product.untilState(unitOf(twin.slot), 'active');
  });

  it('is not claimed if it is another card of the same kind, until it is adopted', async () => {
    await exchange({...twin, mac: macs[2]}, undefined);
    await product.untilDriver(twin.slot, 'e1000e');
    await product.untilState(claimOf(twin.slot), 'failed');
    assert.match(await product.journalOf(claimOf(twin.slot)), /is not the recorded one/);
    assert.equal(await product.overrideOf(twin.slot), '(null)');
    const refused = await product.run('service', 'adopt', twin.slot);
    assert.equal(refused.code, 3);
    await product.sh('service', 'adopt', twin.slot, '--force');
    await machine.sh(`systemctl start ${unitOf(twin.slot)}`);
    assert.equal(await product.driverOf(twin.slot), vfio);
  });
});
