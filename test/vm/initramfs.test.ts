/**
 * Claims in a real initramfs, into which the drivers of the claimed devices and of their twins are forced: of
 * initramfs-tools in bookworm, of dracut in trixie.
 */
import assert from 'node:assert/strict';
import type {BootStatusResult} from '../../src/entry/cli/commands/boot/status.js';
import {DEVICES} from './devices.js';
import {installProduct} from './install.js';
import {KeptDisk} from './kept-disk.js';
import {BOOT_LIMIT, explainFailures, skipUnlessAvailable, type Machine} from './machine.js';
import {initramfsRecipe} from './recipes.js';
import {closeShared, Product} from './shared.js';

/** A rebuild of an image, in milliseconds. */
const REBUILD_LIMIT = 400_000;

const {display, displayAudio, spareNetwork, disk0, disk1, network, bootDisplay, sriov} = DEVICES;
const claimed = [display, displayAudio, spareNetwork, disk1];
const twins = [bootDisplay, network, disk0];

describe('claims in the initramfs', function () {
  this.timeout(1_200_000);
  let disk: KeptDisk;
  let machine: Machine;
  let product: Product;

  before(async function () {
    this.timeout(BOOT_LIMIT);
    await skipUnlessAvailable(this, initramfsRecipe());
    await closeShared();
    disk = await KeptDisk.create(initramfsRecipe());
    await boot();
    await installProduct(machine);
  });
  after(async () => {
    await (machine as Machine | undefined)?.close();
    await (disk as KeptDisk | undefined)?.remove();
  });
  explainFailures(() => machine);

  async function boot(kernelParameters = ''): Promise<void> {
    machine = await disk.boot({kernelParameters});
    product = new Product(machine);
  }

  const status = () => product.json<BootStatusResult>('boot', 'status');

  /** The slots in a list of claims. */
  const slotsOf = (claims: readonly string[] | null | undefined) =>
    (claims ?? []).map((line) => line.split(' ')[0]);

  /** The lines of the kernel's log in which the driver of this device names its slot. */
  async function linesOf({
    slot,
    driver,
  }: {
    readonly slot: string;
    readonly driver: string;
  }): Promise<string[]> {
    const own = new RegExp(`\\b${driver}\\b.*${slot.replaceAll('.', '\\.')}`);
    return (await machine.kernelLog()).split('\n').filter((line) => own.test(line));
  }

  it('are not in it before there are any, and drivers in it take all devices', async () => {
    for (const device of [...claimed, ...twins])
      assert.notDeepEqual(await linesOf(device), [], `${device.slot} ${device.driver}`);
    const {images, takesPart} = await status();
    assert.equal(takesPart, true);
    assert.deepEqual(
      images.map(({claims, current, running}) => ({claims, current, running})),
      [{claims: [], current: true, running: true}],
    );
  });

  it('are put into it by service install, once for all devices', async () => {
    const slots = claimed.map(({slot}) => `-s ${slot}`).join(' ');
    const {stderr} = await machine.run(`pearasys ${slots} service install vfio-pci`, {
      timeout: REBUILD_LIMIT,
    });
    assert.equal(stderr.match(/rebuilding the initramfs/g)?.length, 1, stderr);
    const {images, claims, listCurrent} = await status();
    assert.equal(listCurrent, true);
    assert.deepEqual(
      slotsOf(claims),
      claimed.map(({slot}) => slot),
    );
    assert.deepEqual(images[0]?.claims, claims);
  });

  it('keep the host drivers off, and no twin is touched', async () => {
    await machine.powerOff();
    await boot();
    for (const device of claimed) {
      assert.deepEqual(await linesOf(device), [], device.slot);
      assert.equal(await product.driverOf(device.slot), 'vfio-pci', device.slot);
    }
    for (const device of twins) {
      assert.notDeepEqual(await linesOf(device), [], device.slot);
      assert.equal(await product.driverOf(device.slot), device.driver, device.slot);
    }
    assert.equal((await status()).images[0]?.current, true);
  });

  it('are switched off by pearasys=off', async () => {
    await machine.powerOff();
    await boot('pearasys=off');
    for (const device of [...claimed, ...twins]) {
      assert.notDeepEqual(await linesOf(device), [], device.slot);
      assert.equal(await product.driverOf(device.slot), device.driver, device.slot);
    }
  });

  describe('in an image that is older than they are, because the machine went down during the rebuild', () => {
    before(async () => {
      await product.sh('-s', disk1.slot, 'service', 'uninstall', '--no-initramfs');
      const {images, claims} = await status();
      assert.equal(images[0]?.current, false);
      assert.ok(slotsOf(images[0].claims).includes(disk1.slot));
      assert.ok(!slotsOf(claims).includes(disk1.slot));

      const install = await machine.start(`pearasys -s ${sriov.slot} service install vfio-pci`);
      install.exited.catch(() => undefined);
      // The brackets keep the shell that looks for it from being found.
      await machine.waitUntil('pgrep -f "/[m]kinitramfs|[d]racut --kver"', {timeout: 120_000});
      await machine.close();
      await boot(`pearasys.skip=${spareNetwork.slot}`);
    });

    it('do not keep a device from the host that was uninstalled', async () => {
      assert.deepEqual(await product.overrideOf(disk1.slot), '(null)');
      assert.equal(await product.driverOf(disk1.slot), disk1.driver);
    });

    it('take effect after the root file system is mounted', async () => {
      assert.notDeepEqual(await linesOf(sriov), []);
      assert.equal(await product.driverOf(sriov.slot), 'vfio-pci');
      const {images, claims} = await status();
      assert.ok(slotsOf(claims).includes(sriov.slot));
      assert.equal(images[0]?.current, false);
    });

    it('are switched off by pearasys.skip=', async () => {
      assert.notDeepEqual(await linesOf(spareNetwork), []);
      assert.equal(await product.driverOf(spareNetwork.slot), spareNetwork.driver);
      assert.deepEqual(await linesOf(display), []);
      assert.equal(await product.driverOf(display.slot), 'vfio-pci');
    });
  });
});
