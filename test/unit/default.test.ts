import assert from 'node:assert/strict';
import type {PearasysError} from '../../src/host/errors.js';
import {readDevices} from '../../src/devices/pci/device.js';
import {applyPlan} from '../../src/engine/apply.js';
import {planSwitch, readSwitch} from '../../src/plan/switch/switch.js';
import {planReturn} from '../../src/plan/guest/guest-stop.js';
import {parseGuest} from '../../src/state/guests/guest-name.js';
import {parseId} from '../../src/devices/pci/id.js';
import {parseSlot} from '../../src/devices/pci/slot.js';
import type {MachineDeclaration} from '../simulated-host/declaration.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {addNvidia, functionOf} from '../simulated-host/standard-machine.js';
import {linesOf} from './values.js';

const card = '0000:02:00.0';
const sound = '0000:02:00.1';
/** No module of the machine has its id. */
const sram = '0000:00:14.2';

describe('the default driver is what the kernel would choose, regardless of the override', () => {
  const hosts: SimulatedHost[] = [];
  afterEach(() => {
    for (const host of hosts.splice(0)) host.dispose();
  });

  function made(tweak?: (declaration: MachineDeclaration) => void): SimulatedHost {
    const host = SimulatedHost.standard(tweak);
    hosts.push(host);
    return host;
  }

  function planned(host: SimulatedHost, ...slots: string[]) {
    const devices = readDevices(host).filter(({slot}) => slots.includes(slot));
    return planSwitch(readSwitch(host, devices, {kind: 'default'}, {force: false, wholeGroup: true}));
  }

  async function toDefault(host: SimulatedHost, ...slots: string[]): Promise<void> {
    const wanted = planned(host, ...slots);
    assert.equal(wanted.kind, 'plan');
    await applyPlan(host, wanted, {limit: 5000});
  }

  async function failure(work: Promise<unknown>): Promise<PearasysError> {
    let failed: unknown;
    await work.catch((error: unknown) => (failed = error));
    assert.ok(failed !== undefined, 'it did not fail');
    return failed as PearasysError;
  }

  const driverOf = (host: SimulatedHost, slot: string) => host.machine.device(slot).driver;

  /** As dpdk-devbind and SPDK leave a device: bound under an override, which is cleared afterwards. */
  function leave(host: SimulatedHost, slot: string, driver: string): void {
    host.machine.loadModule(driver.replaceAll('-', '_'));
    const {driver: before} = host.machine.device(slot);
    host.machine.drivers.setOverride(slot, driver);
    if (before !== undefined) host.machine.drivers.unbind(before, slot);
    host.machine.drivers.probe(slot);
    host.machine.drivers.setOverride(slot, '\n');
    assert.equal(driverOf(host, slot), driver);
  }

  for (const driver of ['vfio-pci', 'uio_pci_generic', 'pci-stub'])
    it(`takes a device from ${driver} without an override, once`, async () => {
      const host = made();
      leave(host, card, driver);
      leave(host, sound, driver);
      await toDefault(host, card, sound);
      assert.equal(driverOf(host, card), 'nouveau');
      assert.equal(driverOf(host, sound), 'snd_hda_intel');
      assert.deepEqual(linesOf(planned(host, card, sound)), []);
    });

  it("takes a device from a vfio driver's variant without an override", async () => {
    const host = made((machine) => {
      machine.drivers.push({
        name: 'mlx5_core',
        module: 'mlx5_core',
        aliases: ['pci:v000015B3d0000101Esv*sd*bc*sc*i*'],
        gives: ['net'],
      });
      machine.modules.push({name: 'mlx5_core'});
      machine.functions.push({
        slot: '0000:07:00.2',
        id: '15b3:101e',
        class: '020000',
        group: 30,
        net: [{name: 'eth9', address: '52:54:00:00:00:99'}],
      });
    });
    leave(host, '0000:07:00.2', 'mlx5_vfio_pci');
    await toDefault(host, '0000:07:00.2');
    assert.equal(driverOf(host, '0000:07:00.2'), 'mlx5_core');
  });

  it('wins against an id that vfio-pci got through new_id', async () => {
    const host = made();
    host.machine.loadModule('vfio_pci');
    host.machine.drivers.unbind('nouveau', card);
    host.machine.drivers.addId('vfio-pci', '10de 1b80');
    assert.equal(driverOf(host, card), 'vfio-pci');
    await toDefault(host, card);
    assert.equal(driverOf(host, card), 'nouveau');
  });

  it('wins against ids= of the module, which was registered first', async () => {
    const host = made((machine) => {
      for (const name of ['nouveau', 'snd_hda_intel']) {
        const module = machine.modules.find((each) => each.name === name);
        if (module !== undefined) module.loaded = false;
      }
      for (const slot of ['0000:01:00.0', '0000:01:00.1', card, sound])
        delete functionOf(machine, slot).driver;
    });
    host.machine.loadModule('vfio_pci', {ids: '10de:1b80,10de:10f0'});
    assert.equal(driverOf(host, card), 'vfio-pci');
    host.machine.loadModule('nouveau');
    host.machine.loadModule('snd_hda_intel');
    await toDefault(host, card, sound);
    assert.equal(driverOf(host, card), 'nouveau');
    assert.equal(driverOf(host, sound), 'snd_hda_intel');
  });

  it('is none if no id table matches the device: it stays without a driver', async () => {
    const host = made();
    leave(host, sram, 'vfio-pci');
    await toDefault(host, sram);
    assert.equal(driverOf(host, sram), undefined);
    assert.deepEqual(linesOf(planned(host, sram)), []);
  });

  it('is reported when the kernel binds the device to a driver with its id from new_id, and nothing else matches', async () => {
    const host = made();
    host.machine.loadModule('vfio_pci');
    host.machine.drivers.addId('vfio-pci', '8086 a36f');
    assert.equal(driverOf(host, sram), 'vfio-pci');
    const error = await failure(toDefault(host, sram));
    assert.equal(error.code, 'not-bound');
    assert.match(error.message, /driver vfio-pci took 0000:00:14\.2 \(8086:a36f\)/);
    assert.match(error.hint ?? '', /pearasys -s 0000:00:14\.2 pci driver vfio-pci remove-id/);
    assert.equal(driverOf(host, sram), 'vfio-pci');
    host.machine.drivers.removeId('vfio-pci', '8086 a36f');
    await toDefault(host, sram);
    assert.equal(driverOf(host, sram), undefined);
  });

  it('is not a host driver that got the id through new_id while an id table names another', async () => {
    const host = made();
    host.machine.loadModule('igb');
    host.machine.drivers.unbind('e1000e', '0000:05:00.0');
    host.machine.drivers.addId('igb', '8086 10d3');
    assert.equal(driverOf(host, '0000:05:00.0'), 'igb');
    await toDefault(host, '0000:05:00.0');
    assert.equal(driverOf(host, '0000:05:00.0'), 'e1000e');
  });

  it('may be any of several modules that match', async () => {
    const host = made(addNvidia);
    leave(host, card, 'vfio-pci');
    await toDefault(host, card);
    assert.ok(['nouveau', 'nvidia'].includes(driverOf(host, card) ?? ''), driverOf(host, card));
    const other = made(addNvidia);
    other.machine.drivers.unbind('nouveau', card);
    other.machine.loadModule('nvidia');
    assert.equal(driverOf(other, card), 'nvidia');
    assert.deepEqual(linesOf(planned(other, card)), []);
  });

  for (const [what, module] of [
    ['built in, with a module of its own name', 'nouveau'],
    ['built in, without a folder in /sys/module', undefined],
  ] as const)
    it(`may be ${what}`, async () => {
      const host = made((machine) => {
        const driver = machine.drivers.find(({name}) => name === 'nouveau');
        if (driver !== undefined && module === undefined) delete driver.module;
        const declared = machine.modules.find(({name}) => name === 'nouveau');
        if (declared !== undefined) declared.builtin = true;
      });
      assert.deepEqual(linesOf(planned(host, card)), []);
      leave(host, card, 'vfio-pci');
      assert.ok(linesOf(planned(host, card)).every((line) => !line.startsWith('modprobe')));
      await toDefault(host, card);
      assert.equal(driverOf(host, card), 'nouveau');
    });

  it('is not known without the files of the kernel: then only drivers for userspace are unbound', async () => {
    const host = made((machine) => (machine.files['/proc/sys/kernel/osrelease'] = '9.9.9\n'));
    assert.deepEqual(linesOf(planned(host, card)), []);
    leave(host, card, 'vfio-pci');
    await toDefault(host, card);
    assert.equal(driverOf(host, card), 'nouveau');
  });

  it('only clears the override if that names the driver that the kernel chooses', () => {
    const host = made((machine) => (functionOf(machine, card).override = 'nouveau'));
    assert.deepEqual(linesOf(planned(host, card)), [
      `echo '' > /sys/bus/pci/devices/${card}/driver_override`,
    ]);
  });

  it('is reached by a second run when the first was killed after any of its steps', async () => {
    for (let killed = 1; ; killed += 1) {
      const host = made();
      leave(host, card, 'vfio-pci');
      host.machine.drivers.setOverride(card, 'vfio-pci');
      const first = planned(host, card);
      assert.equal(first.kind, 'plan');
      if (killed > first.steps.length) break;
      await applyPlan(host, {...first, steps: first.steps.slice(0, killed)}, {limit: 5000});
      await toDefault(host, card);
      assert.equal(driverOf(host, card), 'nouveau', `killed after step ${killed}`);
      assert.equal(host.machine.device(card).override, undefined);
    }
  });

  describe('when a guest returns its devices', () => {
    const guest = parseGuest('win11');
    const taken = (driver: string) => ({
      slot: parseSlot(card),
      id: parseId('10de:1b80'),
      driver,
      override: undefined,
    });

    it('unbinds them from vfio-pci without an override', async () => {
      const host = made();
      leave(host, card, 'vfio-pci');
      const back = planReturn(host, guest, taken('nouveau'));
      assert.equal(back.kind, 'plan');
      await applyPlan(host, back, {limit: 5000});
      assert.equal(driverOf(host, card), 'nouveau');
      assert.equal(host.machine.device(card).override, undefined);
    });

    it('loads the module of a driver for userspace by its name', async () => {
      const host = made();
      leave(host, card, 'vfio-pci');
      const back = planReturn(host, guest, taken('uio_pci_generic'));
      assert.equal(back.kind, 'plan');
      await applyPlan(host, back, {limit: 5000});
      assert.equal(driverOf(host, card), 'uio_pci_generic');
    });

    it('clears the override that a killed run has left', () => {
      const host = made((machine) => (functionOf(machine, card).override = 'nouveau'));
      const back = planReturn(host, guest, taken('nouveau'));
      assert.deepEqual(linesOf(back), [`echo '' > /sys/bus/pci/devices/${card}/driver_override`]);
      assert.equal(driverOf(host, card), 'nouveau');
      assert.deepEqual(linesOf(planReturn(made(), guest, taken('nouveau'))), []);
    });
  });
});
