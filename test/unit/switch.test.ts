import assert from 'node:assert/strict';
import {modaliasOf} from '../../src/devices/pci/device.js';
import type {Holder} from '../../src/usage/holder.js';
import type {DefaultDriver} from '../../src/devices/pci/modules.js';
import {planSwitch, type SwitchInput, type Target} from '../../src/plan/switch/switch.js';
import {aDevice, aDriver, aSwitch, linesOf, undoLines} from './values.js';

const vfio = aDriver('vfio-pci');
const card = aDevice('01:00.0', {driver: 'nouveau'});
const audio = aDevice('01:00.1', {id: '10de:10f0', classCode: 0x040300, driver: 'snd_hda_intel'});
const bridge = aDevice('00:01.0', {id: '8086:1901', classCode: 0x060400, driver: 'pcieport'});

function input(rest: Partial<SwitchInput>): SwitchInput {
  const rules = {force: false, wholeGroup: true};
  return aSwitch(vfio, rest.devices ?? [card], {rules, ...rest});
}

function aDefault(rest: Partial<DefaultDriver>): DefaultDriver {
  return {modules: [], loads: false, drivers: [], none: false, bound: false, ...rest};
}

function refusalOf(rest: Partial<SwitchInput>) {
  const planned = planSwitch(input(rest));
  assert.equal(planned.kind, 'refusal');
  return planned.error;
}

describe('planSwitch', () => {
  it('overrides, unbinds, probes and checks the link', () => {
    assert.deepEqual(linesOf(planSwitch(input({}))), [
      "echo 'vfio-pci' > /sys/bus/pci/devices/0000:01:00.0/driver_override",
      "echo '0000:01:00.0' > /sys/bus/pci/drivers/nouveau/unbind",
      "echo '0000:01:00.0' > /sys/bus/pci/drivers_probe",
      'test -e /sys/bus/pci/drivers/vfio-pci/0000:01:00.0',
    ]);
  });

  it('knows how to undo each step, back to the first driver', () => {
    const planned = planSwitch(input({}));
    assert.equal(planned.kind, 'plan');
    assert.deepEqual(undoLines(planned.steps), [
      "echo '0000:01:00.0' > /sys/bus/pci/devices/0000:01:00.0/driver/unbind || true",
      "echo 'nouveau' > /sys/bus/pci/devices/0000:01:00.0/driver_override",
      "echo '0000:01:00.0' > /sys/bus/pci/drivers/nouveau/bind || true",
      "echo '' > /sys/bus/pci/devices/0000:01:00.0/driver_override",
      "echo '' > /sys/bus/pci/devices/0000:01:00.0/driver_override",
    ]);
  });

  it('loads the module first if the driver is missing, and checks that it provides the driver', () => {
    const lines = linesOf(planSwitch(input({source: {kind: 'module', module: 'vfio-pci'}})));
    assert.deepEqual(lines.slice(0, 2), ['modprobe vfio-pci', 'test -d /sys/bus/pci/drivers/vfio-pci']);
  });

  it('skips a device that has reached the target, and switches the others', () => {
    const there = {...audio, driver: 'vfio-pci', override: 'vfio-pci'};
    const planned = planSwitch(input({devices: [card, there], members: [card, there]}));
    assert.ok(linesOf(planned).every((line) => line.includes('0000:01:00.0')));
    assert.deepEqual(linesOf(planSwitch(input({devices: [there]}))), []);
  });

  it('writes only the override if the driver is right and the override names another', () => {
    const device = {...card, driver: 'vfio-pci', override: 'nouveau'};
    assert.deepEqual(linesOf(planSwitch(input({devices: [device]}))), [
      "echo 'vfio-pci' > /sys/bus/pci/devices/0000:01:00.0/driver_override",
    ]);
  });

  it('keeps every driver off with none, without probing', () => {
    assert.deepEqual(linesOf(planSwitch(input({target: {kind: 'claim', driver: aDriver('none')}}))), [
      "echo 'none' > /sys/bus/pci/devices/0000:01:00.0/driver_override",
      "echo '0000:01:00.0' > /sys/bus/pci/drivers/nouveau/unbind",
      'test ! -e /sys/bus/pci/devices/0000:01:00.0/driver',
    ]);
  });

  it('returns to the default driver by modalias', () => {
    const device = {...card, driver: 'vfio-pci', override: 'vfio-pci'};
    const defaults = new Map([[device.slot, aDefault({modules: ['nouveau'], loads: true})]]);
    assert.deepEqual(linesOf(planSwitch(input({devices: [device], target: {kind: 'default'}, defaults}))), [
      "echo '' > /sys/bus/pci/devices/0000:01:00.0/driver_override",
      "echo '0000:01:00.0' > /sys/bus/pci/drivers/vfio-pci/unbind",
      `modprobe ${modaliasOf(card)}`,
      "echo '0000:01:00.0' > /sys/bus/pci/drivers_probe",
      'test -e /sys/bus/pci/devices/0000:01:00.0/driver && test ! -e /sys/bus/pci/drivers/vfio-pci/0000:01:00.0',
    ]);
  });

  it('does not expect a default driver if no module knows the device', () => {
    const device = {...card, driver: 'vfio-pci', override: 'vfio-pci'};
    const lines = linesOf(planSwitch(input({devices: [device], target: {kind: 'default'}})));
    assert.equal(lines.at(-1), 'test ! -e /sys/bus/pci/drivers/vfio-pci/0000:01:00.0');
  });

  it('releases: no override, no driver', () => {
    const device = {...card, driver: 'vfio-pci', override: 'vfio-pci'};
    assert.deepEqual(linesOf(planSwitch(input({devices: [device], target: {kind: 'release'}}))), [
      "echo '' > /sys/bus/pci/devices/0000:01:00.0/driver_override",
      "echo '0000:01:00.0' > /sys/bus/pci/drivers/vfio-pci/unbind",
      'test ! -e /sys/bus/pci/devices/0000:01:00.0/driver',
    ]);
  });

  it('refuses an unknown driver, with the nearest one', () => {
    const error = refusalOf({
      target: {kind: 'claim', driver: aDriver('vfoi-pci')},
      source: {kind: 'unknown', known: ['nouveau', 'vfio-pci'], modules: ['nvidia'], isModule: false},
    });
    assert.equal(error.code, 'no-driver');
    assert.equal(error.exitCode, 2);
    assert.match(error.hint ?? '', /the nearest is vfio-pci$/);
  });

  it('refuses a bridge', () => {
    const error = refusalOf({devices: [bridge]});
    assert.equal(error.code, 'not-switchable');
    assert.equal(error.exitCode, 3);
  });

  it('refuses vfio-pci without an IOMMU group, and no other driver', () => {
    const device = {...card, group: undefined};
    assert.equal(refusalOf({devices: [device]}).code, 'no-iommu');
    const target: Target = {kind: 'claim', driver: aDriver('uio_pci_generic')};
    assert.equal(planSwitch(input({devices: [device], target})).kind, 'plan');
  });

  describe('with holders', () => {
    const process: Holder = {
      kind: 'process',
      slot: card.slot,
      class: 'yields',
      harm: 'overridable',
      pid: 812,
      command: 'Xorg',
      unit: 'gdm.service',
      nodes: ['/dev/dri/card0'],
      displayManager: true,
    };
    const mount: Holder = {
      kind: 'mount',
      slot: card.slot,
      class: 'yields',
      harm: 'certain',
      source: '/dev/nvme0n1p2',
      target: '/mnt/data',
      system: false,
    };

    it('names them and the next step, and offers --force if it helps', () => {
      const error = refusalOf({holders: [process]});
      assert.equal(error.code, 'in-use');
      assert.equal(error.exitCode, 3);
      assert.equal(error.message, '0000:01:00.0 (10de:1b80) is in use');
      assert.match(error.details?.[0] ?? '', /812.*Xorg.*gdm\.service.*\/dev\/dri\/card0/);
      assert.match(error.hint ?? '', /--force$/);
    });

    it('continues with force if no harm is certain', () => {
      const rules = {force: true, wholeGroup: true};
      assert.equal(planSwitch(input({holders: [process], rules})).kind, 'plan');
    });

    it('continues without force if they are harmless, and reports them', () => {
      const idle: Holder = {...process, command: 'pipewire', class: 'harmless', harm: 'none'};
      const planned = planSwitch(input({holders: [idle]}));
      assert.equal(planned.kind, 'plan');
      assert.match(planned.notes.join('\n'), /812 \(pipewire\).*closes the device/);
    });

    it('refuses even with force if harm is certain, and does not offer it', () => {
      const rules = {force: true, wholeGroup: true};
      const error = refusalOf({holders: [process, mount], rules});
      assert.match(error.details?.[0] ?? '', /\/mnt\/data/);
      assert.doesNotMatch(error.hint ?? '', /--force/);
      assert.equal(error.details?.length, 2);
    });
  });

  describe('with a group', () => {
    const members = [bridge, card, audio];

    it('refuses to leave another member on a host driver', () => {
      const error = refusalOf({members});
      assert.equal(error.code, 'group-not-viable');
      assert.equal(error.exitCode, 3);
      assert.deepEqual(error.details, [
        '0000:01:00.1 (10de:10f0) is on snd_hda_intel',
        'nothing was changed',
      ]);
    });

    it('takes the whole group without bridges', () => {
      const planned = planSwitch(input({devices: [card, audio], members}));
      assert.equal(planned.kind, 'plan');
      assert.equal(linesOf(planned).length, 8);
      assert.deepEqual(planned.notes, []);
    });

    it('only notes it for a unit, and with force', () => {
      for (const rules of [
        {force: false, wholeGroup: false},
        {force: true, wholeGroup: true},
      ]) {
        const planned = planSwitch(input({members, rules}));
        assert.equal(planned.kind, 'plan');
        assert.match(planned.notes[0] ?? '', /0000:01:00\.1 .* is on snd_hda_intel/);
      }
    });

    it('counts none, pci-stub and variant drivers as viable', () => {
      for (const driver of [undefined, 'pci-stub', 'mlx5_vfio_pci'])
        assert.equal(planSwitch(input({members: [card, {...audio, driver}]})).kind, 'plan');
    });

    it('does not matter for a driver other than VFIO', () => {
      const target: Target = {kind: 'claim', driver: aDriver('uio_pci_generic')};
      assert.equal(planSwitch(input({members, target})).kind, 'plan');
    });
  });
});
