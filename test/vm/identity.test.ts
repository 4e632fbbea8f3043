/**
 * Cards in other slots than recorded, on a real kernel: which driver probes them, and what becomes of their records. The
 * boots that this needs also show the state in which a power cut leaves a run.
 */
import assert from 'node:assert/strict';
import {DEVICES} from './devices.js';
import {chosenSuite} from './image.js';
import {installProduct} from './install.js';
import {KeptDisk} from './kept-disk.js';
import {BOOT_LIMIT, explainFailures, skipUnlessAvailable, type Machine} from './machine.js';
import {closeShared, Product} from './shared.js';
import {runUntil} from './stop.js';

const vfio = 'vfio-pci';
const claimOf = (slot: string): string => `pearasys-claim-${slot}@${vfio}.service`;
const unitOf = (slot: string): string => `pearasys-${slot}@${vfio}.service`;
const enabledLinkOf = (slot: string): string =>
  `/etc/systemd/system/sys-bus-pci-devices-${slot}.device.wants/${unitOf(slot)}`;
const recordOf = ({slot, id}: {readonly slot: string; readonly id: string}): string =>
  `/etc/pearasys/pci/${slot}-0x${id.replace(':', '-0x')}`;
/** A network card's serial number of PCI Express is made from its address. */
const macs = ['52:54:00:aa:00:01', '52:54:00:aa:00:02', '52:54:00:aa:00:03'] as const;
const network = ({bus, mac}: {readonly bus: string; readonly mac: string}): string =>
  `e1000e,bus=${bus},mac=${mac},romfile=`;
const nvme = (bus: string, drive: string): string => `nvme,bus=${bus},drive=${drive},serial=${drive}`;

describe('a card in another slot than recorded', function () {
  this.timeout(400_000);
  let disk: KeptDisk;
  let machine: Machine;
  let product: Product;
  const card = {bus: 'hotplug2', slot: '0000:08:00.0', id: '8086:10d3', mac: macs[0]};
  const twin = {bus: 'hotplug3', slot: '0000:09:00.0', id: '8086:10d3', mac: macs[1]};
  const [legacy, legacyTwin] = [DEVICES.legacy0.slot, DEVICES.legacy1.slot];
  const storage = {slot: '0000:05:00.0', id: '1b36:0010', device: nvme('hotplug0', 'spare0')};
  /** A card of two functions that stays where it is, for runs that a power cut ends. */
  const display = [DEVICES.display, DEVICES.displayAudio] as const;
  const both = display.flatMap(({slot}) => ['-s', slot]);
  const install = [...both, 'service', 'install', vfio, '--no-initramfs'];
  const uninstall = [...both, 'service', 'uninstall'];
  let complete: string;

  before(async function () {
    this.timeout(BOOT_LIMIT);
    const recipe = {suite: chosenSuite()};
    await skipUnlessAvailable(this, recipe);
    await closeShared();
    disk = await KeptDisk.create(recipe);
    await boot(network(card), network(twin), storage.device);
    await installProduct(machine);
    // The legacy card and the disk have no serial number of PCI Express: only their paths identify them.
    const slots = [card.slot, legacy, storage.slot].flatMap((slot) => ['-s', slot]);
    await product.sh(...slots, 'service', 'install', vfio);
    await product.sh(...install);
    complete = await filesOfDisplay();
    await product.sh(...uninstall);
    assert.equal(await filesOfDisplay(), '');
  });
  after(async () => {
    await (machine as Machine | undefined)?.close();
    await (disk as KeptDisk | undefined)?.remove();
  });
  explainFailures(() => machine);

  /** Starts the machine with these devices, as for QEMU. */
  async function boot(...extraDevices: readonly string[]): Promise<void> {
    machine = await disk.boot({extraDevices});
    product = new Product(machine);
  }

  /** Cuts the power, and starts the machine with these devices. */
  async function cut(...devices: readonly string[]): Promise<void> {
    await machine.close();
    await boot(...devices);
  }

  /** Starts it again with other cards. */
  async function exchange(...devices: readonly string[]): Promise<void> {
    await machine.sh('sync');
    await cut(...devices);
  }

  /** The kernel's messages in this boot in which a driver names a device. */
  const probes = async (driver: string, slot: string): Promise<string> =>
    machine.sh(`dmesg | grep '\\b${driver}\\b.*${slot.replaceAll('.', '\\.')}' || true`);

  const find = async (test: string): Promise<string> =>
    machine.sh(`find /etc/pearasys /etc/systemd/system ${test} | sort`);

  /** What unfinished runs have left. */
  const drafts = async (): Promise<string> => find("-path '*/.pearasys-new*'");

  const filesOfDisplay = async (): Promise<string> => find(`-name '*${display[0].slot.slice(0, -1)}*'`);

  const driversOfDisplay = async (): Promise<string[]> =>
    Promise.all(display.map(async ({slot}) => product.driverOf(slot)));

  it('is recorded with its serial number and its path', async () => {
    const record = await machine.sh(`cat ${recordOf(card)}`);
    assert.match(record, /^PEARASYS_SERIAL=pcie:(?:[0-9a-f]{2}-){7}[0-9a-f]{2}$/m);
    assert.match(record, /^PEARASYS_PATH=0000:00\/19\.0\/00\.0$/m);
    assert.match(
      await machine.sh(`cat /etc/pearasys/pci/${legacy}-*`),
      /^PEARASYS_PATH=0000:00\/18\.0\/01\.0$/m,
    );
    assert.match(await machine.sh(`cat ${recordOf(storage)}`), /^PEARASYS_PATH=0000:00\/14\.0\/00\.0$/m);
  });

  describe('when a disk was added before all cards', () => {
    before(async () => {
      const path = enabledLinkOf(display[0].slot);
      await runUntil(machine, {when: 'after', path}, ...install);
      assert.notEqual(await drafts(), '');
      // In a lower root port: it takes the first bus, and all others are shifted by one.
      const port = 'pcie-root-port,id=added,addr=f,chassis=20,slot=20';
      await cut(network(card), network(twin), storage.device, port, nvme('added', 'spare1'));
    });

    it('is claimed before its host driver probes it, and its twin is not', async () => {
      const [newCard, newTwin, newLegacy, newLegacyTwin, newStorage] = [
        '0000:09:00.0',
        '0000:0a:00.0',
        '0000:08:01.0',
        '0000:08:02.0',
        '0000:06:00.0',
      ];
      for (const slot of [newCard, newLegacy, newStorage]) {
        await product.untilState(unitOf(slot), 'active');
        assert.equal(await product.driverOf(slot), vfio);
      }
      await product.untilDriver(newTwin, 'e1000e');
      await product.untilDriver(newLegacyTwin, 'e1000');
      assert.equal(await probes('e1000e', newCard), '');
      assert.equal(await probes('e1000', newLegacy), '');
      assert.equal(await probes('nvme', newStorage), '');
      assert.notEqual(await probes('e1000e', newTwin), '');
      // The new disk, and those of the same model, of which one is in the recorded slot now.
      for (const slot of ['0000:01:00.0', '0000:03:00.0', '0000:04:00.0', storage.slot]) {
        await product.untilDriver(slot, 'nvme');
        assert.notEqual(await probes('nvme', slot), '', slot);
      }
      for (const {slot} of [card, storage])
        await machine.waitUntil(`test ! -e /etc/systemd/system/pearasys-${slot}@.service`);
      const records = await machine.sh('ls /etc/pearasys/pci');
      assert.deepEqual(records.split('\n').sort(), [
        '0000:00:0a.0-0x1234-0x1111',
        '0000:00:0a.1-0x8086-0x293e',
        `${newStorage}-0x1b36-0x0010`,
        `${newLegacy}-0x8086-0x100e`,
        `${newCard}-0x8086-0x10d3`,
      ]);
    });

    it('an install that a power cut ended after it had enabled one function claims the whole card', async () => {
      for (const {slot} of display) await product.untilState(unitOf(slot), 'active');
      assert.deepEqual(await driversOfDisplay(), [vfio, vfio]);
      await product.sh(...install);
      assert.equal(await filesOfDisplay(), complete);
      assert.equal(await drafts(), '');
    });
  });

  describe('when it was exchanged with its twin', () => {
    before(async () => {
      await product.sh(...uninstall);
      await runUntil(machine, {when: 'before', path: recordOf(display[0])}, ...install);
      assert.match(await drafts(), /^\/etc\/pearasys\/pci\/\.pearasys-new\/./m);
      await cut(network({...card, mac: twin.mac}), network({...twin, mac: card.mac}), storage.device);
    });

    it('is claimed', async () => {
      await product.untilState(unitOf(twin.slot), 'active');
      assert.equal(await product.driverOf(twin.slot), vfio);
      await product.untilDriver(card.slot, 'e1000e');
      assert.equal(await probes('e1000e', twin.slot), '');
      for (const slot of [legacy, storage.slot]) await product.untilState(unitOf(slot), 'active');
      assert.equal(await product.driverOf(legacyTwin), 'e1000');
    });

    it('an install that a power cut ended before its first record was in place has changed nothing', async () => {
      assert.deepEqual(
        await driversOfDisplay(),
        display.map(({driver}) => driver),
      );
      assert.equal(await filesOfDisplay(), '');
      await product.sh(...install);
      assert.equal(await filesOfDisplay(), complete);
      assert.equal(await drafts(), '');
      await product.sh(...uninstall);
      assert.equal(await filesOfDisplay(), '');
    });
  });

  describe('when its twin was taken out', () => {
    before(async () => {
      await product.sh(...install);
      await cut(network({...twin, mac: card.mac}), storage.device);
    });

    it('is claimed', async () => {
      await product.untilState(unitOf(twin.slot), 'active');
      assert.equal(await product.driverOf(twin.slot), vfio);
    });

    it('an install that had ended before a power cut is complete', async () => {
      for (const {slot} of display) await product.untilState(unitOf(slot), 'active');
      assert.deepEqual(await driversOfDisplay(), [vfio, vfio]);
      assert.equal(await filesOfDisplay(), complete);
      assert.equal(await drafts(), '');
    });
  });

  describe('when it was replaced by another card of the same kind', () => {
    const replaced = {slot: '0000:06:00.0', id: storage.id};
    const devices = [network({...twin, mac: macs[2]}), nvme('hotplug1', 'spare2')];

    before(() => exchange(...devices));

    const assertNotClaimed = async () => {
      await product.untilDriver(twin.slot, 'e1000e');
      await product.untilState(claimOf(twin.slot), 'failed');
      assert.match(await product.journalOf(claimOf(twin.slot)), /is not the recorded one/);
      assert.equal(await product.overrideOf(twin.slot), '(null)');
    };

    it('is not claimed until it is adopted', async () => {
      await assertNotClaimed();
      const refused = await product.run('service', 'adopt', twin.slot);
      assert.equal(refused.code, 3);
      const record = await machine.sh(`cat ${recordOf(twin)}`);
      await runUntil(
        machine,
        {when: 'before', path: recordOf(twin)},
        'service',
        'adopt',
        twin.slot,
        '--force',
      );
      await cut(...devices);
      await assertNotClaimed();
      assert.equal(await machine.sh(`cat ${recordOf(twin)}`), record);
      await product.sh('service', 'adopt', twin.slot, '--force');
      assert.equal(await drafts(), '');
      await machine.sh(`systemctl start ${unitOf(twin.slot)}`);
      assert.equal(await product.driverOf(twin.slot), vfio);
    });

    it('and is in another slot, is claimed after an adoption that a power cut ended when it was decided', async () => {
      await product.untilDriver(replaced.slot, 'nvme');
      const adopt = ['service', 'adopt', replaced.slot, '--force'];
      await runUntil(machine, {when: 'after', path: recordOf(storage)}, ...adopt);
      await cut(...devices);
      for (const slot of [replaced.slot, twin.slot, legacy, ...display.map((one) => one.slot)]) {
        await product.untilState(unitOf(slot), 'active');
        assert.equal(await product.driverOf(slot), vfio, slot);
      }
      assert.equal(await probes('nvme', replaced.slot), '');
      assert.equal(await product.driverOf(legacyTwin), 'e1000');
      await machine.waitUntil(`test ! -e ${recordOf(storage)}`);
      await machine.sh(`test -e ${recordOf(replaced)}`);
      assert.equal(await find(`-name '*${storage.slot}*'`), '');
      assert.equal(await drafts(), '');
    });
  });
});
