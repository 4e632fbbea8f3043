import assert from 'node:assert/strict';
import {selectDevices} from '../../src/operations/devices.js';
import type {PearasysError} from '../../src/host/errors.js';
import {readDevices, siblingsOf} from '../../src/devices/pci/device.js';
import {applyPlan} from '../../src/engine/apply.js';
import {planLink} from '../../src/plan/switch/verbs.js';
import {readMembers} from '../../src/plan/guest/guest-setup.js';
import type {Planned} from '../../src/plan/step.js';
import {planSwitch, readSwitch, type SwitchRules, type Target} from '../../src/plan/switch/switch.js';
import type {MachineDeclaration} from '../simulated-host/declaration.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {sriovCard} from '../simulated-host/standard-machine.js';
import {aDriver, linesOf, undoLines} from './values.js';

const pf = '0000:06:00.0';
const count = `/sys/bus/pci/devices/${pf}/sriov_numvfs`;
const vfio: Target = {kind: 'claim', driver: aDriver('vfio-pci')};

describe('devices that exist only through the driver of another', () => {
  const hosts: SimulatedHost[] = [];
  afterEach(() => {
    for (const host of hosts.splice(0)) host.dispose();
  });

  function made(tweak?: (declaration: MachineDeclaration) => void): SimulatedHost {
    const host = SimulatedHost.standard(tweak);
    hosts.push(host);
    return host;
  }

  /** A card whose virtual functions have the slots that follow its own, all in one group. */
  function withVirtualFunctions(
    number: number,
    tweak?: (card: ReturnType<typeof sriovCard>, machine: MachineDeclaration) => void,
  ): SimulatedHost {
    const host = made((machine) => {
      const card = sriovCard(pf);
      card.sriov = {total: 64, virtualId: '8086:10ca', offset: 1, stride: 1, group: 40};
      tweak?.(card, machine);
      machine.functions.push(card);
    });
    host.machine.loadModule('igb');
    host.machine.loadModule('igbvf');
    host.machine.sriov.setVirtualFunctions(pf, String(number));
    return host;
  }

  function planned(
    host: SimulatedHost,
    target: Target,
    slots: readonly string[],
    rules: Partial<SwitchRules> = {},
  ): Planned {
    const devices = readDevices(host).filter(({slot}) => slots.includes(slot));
    return planSwitch(readSwitch(host, devices, target, {force: false, wholeGroup: true, ...rules}));
  }

  const slotsOf = (host: SimulatedHost) => readDevices(host).map(({slot}) => slot as string);
  const virtualsOf = (host: SimulatedHost) =>
    slotsOf(host).filter((slot) => slot.startsWith('0000:06:') && slot !== pf);

  describe('virtual functions', () => {
    it('are not siblings, neither of their PF nor of each other', () => {
      const host = withVirtualFunctions(5, (_card, machine) => {
        // A second PF of the card, which is a sibling.
        machine.functions.push({slot: '0000:06:00.7', id: '8086:10c9', class: '020000'});
      });
      const devices = readDevices(host);
      const siblings = (slot: string) => {
        const device = devices.find((one) => one.slot === slot);
        assert.ok(device !== undefined, slot);
        return siblingsOf(host, device, devices).map((one) => one.slot as string);
      };
      assert.deepEqual(siblings(pf), ['0000:06:00.7']);
      assert.deepEqual(siblings('0000:06:00.7'), [pf]);
      assert.deepEqual(siblings('0000:06:00.1'), []);
      assert.deepEqual(siblings('0000:06:00.5'), []);
      const chosen = (...words: string[]) =>
        selectDevices(host, words, {siblings: true}).map(({slot}) => slot as string);
      assert.deepEqual(chosen('0000:06:00.1'), ['0000:06:00.1']);
      assert.deepEqual(chosen(pf), [pf, '0000:06:00.7']);
    });

    for (const number of [1, 2, 64])
      it(`that are idle (${number}) are removed with their PF, with a note; a failure restores them`, async () => {
        const host = withVirtualFunctions(number);
        const before = host.machine.bindings();
        const change = planned(host, vfio, [pf]);
        assert.equal(change.kind, 'plan');
        assert.match(
          change.notes.join('\n'),
          new RegExp(`${pf} loses its ${number} virtual function.*echo ${number} > ${count}`),
        );
        host.refuseProbe(pf, 'vfio-pci', 'ENODEV', 1);
        await assert.rejects(
          applyPlan(host, change, {limit: 5000}),
          (error: PearasysError) => error.code === 'not-bound',
        );
        assert.deepEqual(host.machine.bindings(), before);
        assert.equal(virtualsOf(host).length, number);
        await applyPlan(host, change, {limit: 5000});
        assert.equal(host.machine.device(pf).driver, 'vfio-pci');
        assert.deepEqual(virtualsOf(host), []);
      });

    it('are removed before the unbind of a driver that does not remove them', async () => {
      const host = withVirtualFunctions(3, (_card, machine) => {
        for (const driver of machine.drivers) if (driver.name === 'igb') driver.leavesSriov = true;
      });
      const change = planned(host, vfio, [pf]);
      assert.equal(change.kind, 'plan');
      await applyPlan(host, change, {limit: 5000});
      assert.equal(host.machine.device(pf).driver, 'vfio-pci');
    });

    it('return to their previous drivers and overrides', async () => {
      const host = withVirtualFunctions(4);
      host.machine.loadModule('vfio_pci');
      host.machine.loadModule('pci_stub');
      const move = (slot: string, driver: string, override: string) => {
        host.machine.drivers.setOverride(slot, driver);
        const {driver: now} = host.machine.device(slot);
        if (now !== undefined) host.machine.drivers.unbind(now, slot);
        host.machine.drivers.probe(slot);
        host.machine.drivers.setOverride(slot, override);
      };
      move('0000:06:00.1', 'pci-stub', 'pci-stub');
      move('0000:06:00.2', 'pci-stub', '\n');
      move('0000:06:00.3', 'none', 'none');
      host.machine.sriov.setVirtualAutoprobe(pf, '0');
      const before = host.machine.bindings();
      const change = planned(host, vfio, [pf], {force: true});
      assert.equal(change.kind, 'plan');
      host.refuseProbe(pf, 'vfio-pci');
      await assert.rejects(applyPlan(host, change, {limit: 5000}));
      assert.deepEqual(
        host.machine.bindings().filter((line) => !line.startsWith('0000:06:00.4')),
        before.filter((line) => !line.startsWith('0000:06:00.4')),
      );
      assert.equal(host.readText(`/sys/bus/pci/devices/${pf}/sriov_drivers_autoprobe`), '0');
    });

    it('in the group of their PF do not matter while they are idle', () => {
      const host = withVirtualFunctions(2, (card) => {
        if (card.sriov !== undefined) card.sriov.group = card.group ?? 0;
      });
      assert.equal(planned(host, vfio, [pf]).kind, 'plan');
    });

    it('that are passed to userspace are in use', () => {
      const host = withVirtualFunctions(2);
      host.machine.loadModule('vfio_pci');
      host.machine.drivers.setOverride('0000:06:00.2', 'vfio-pci');
      host.machine.drivers.unbind('igbvf', '0000:06:00.2');
      host.machine.drivers.probe('0000:06:00.2');
      const change = planned(host, vfio, [pf]);
      assert.equal(change.kind, 'refusal');
      assert.match(change.error.details?.join('\n') ?? '', /virtual function 0000:06:00\.2 is in use/);
    });

    it('selected with their PF are not written to, in any order of the arguments', () => {
      const host = withVirtualFunctions(3);
      const all = [pf, '0000:06:00.1', '0000:06:00.2', '0000:06:00.3'];
      for (const slots of [all, [...all].reverse()])
        for (const target of [
          vfio,
          {kind: 'release'} as const,
          {kind: 'claim', driver: aDriver('none')} as const,
        ]) {
          const change = planned(host, target, slots);
          assert.equal(change.kind, 'plan');
          assert.deepEqual(
            linesOf(change).filter((line) => /0000:06:00\.[1-3]/.test(line)),
            [],
          );
          assert.match(change.notes.join('\n'), /not switched.*0000:06:00\.1, 0000:06:00\.2, 0000:06:00\.3/);
        }
    });

    it('and their PF cannot both be taken if all must exist afterwards', () => {
      const host = withVirtualFunctions(3);
      const change = planned(host, vfio, [pf, '0000:06:00.2'], {allStay: true});
      assert.equal(change.kind, 'refusal');
      assert.match(change.error.message, /0000:06:00\.2 .* goes away when 0000:06:00\.0 leaves its driver/);
    });

    it('do not include their PF with --group, which would remove them', () => {
      const host = withVirtualFunctions(2, (card) => {
        card.group = 21;
        if (card.sriov !== undefined) card.sriov.group = 21;
      });
      const chosen = selectDevices(host, ['0000:06:00.1'], {group: true}).map(({slot}) => slot as string);
      assert.deepEqual(chosen, ['0000:06:00.1']);
      const change = planned(host, vfio, chosen);
      assert.equal(change.kind, 'refusal');
      assert.equal(change.error.code, 'group-not-viable');
      assert.match(change.error.hint ?? '', /exists only while 0000:06:00\.0 is on igb.*--force/);
    });

    it('do not change with their PF on its driver, and are switched alone', () => {
      const host = withVirtualFunctions(2);
      assert.deepEqual(
        linesOf(planned(host, vfio, ['0000:06:00.2'])).filter((line) => line.includes(pf)),
        [],
      );
    });

    it('have no default driver while their PF keeps drivers off them', async () => {
      const host = made((machine) => machine.functions.push(sriovCard(pf)));
      host.machine.loadModule('igb');
      host.machine.loadModule('igbvf');
      host.machine.sriov.setVirtualAutoprobe(pf, '0');
      host.machine.sriov.setVirtualFunctions(pf, '1');
      const [first = ''] = slotsOf(host).filter((slot) => slot.startsWith('0000:06:10'));
      host.machine.loadModule('vfio_pci');
      host.machine.drivers.setOverride(first, 'vfio-pci');
      host.machine.drivers.probe(first);
      const change = planned(host, {kind: 'default'}, [first]);
      assert.equal(change.kind, 'plan');
      await applyPlan(host, change, {limit: 5000});
      assert.equal(host.machine.device(first).driver, undefined);
      assert.deepEqual(linesOf(planned(host, {kind: 'default'}, [first])), []);
    });
  });

  it('are not members that a guest with their PF must take too', () => {
    const host = withVirtualFunctions(2, (card) => {
      if (card.sriov !== undefined) card.sriov.group = card.group ?? 0;
    });
    const devices = readDevices(host).filter(({slot}) => slot === pf);
    assert.deepEqual(
      readMembers(host, devices).map(({slot}) => slot as string),
      [pf],
    );
  });

  describe('disks behind a controller that creates a separate domain', () => {
    const controller = '0000:00:0e.0';
    const disks = ['10000:e1:00.0', '10000:e2:00.0'];

    function withDisks(tweak?: (machine: MachineDeclaration) => void): SimulatedHost {
      return made((machine) => {
        machine.drivers.push({name: 'vmd', module: 'vmd', aliases: ['pci:v00008086d00009A0Bsv*sd*bc*sc*i*']});
        machine.modules.push({name: 'vmd', loaded: true});
        machine.functions.push(
          {slot: controller, id: '8086:9a0b', class: '010400', driver: 'vmd', group: 50},
          ...disks.map((slot, index) => ({
            slot,
            id: '144d:a80a',
            class: '010802',
            driver: 'nvme',
            behind: controller,
            group: 50,
            nvme: {model: 'Disk', serial: `VMD${index}`},
          })),
        );
        tweak?.(machine);
      });
    }

    it('that are idle are removed with it, with a note, and block nothing', () => {
      const change = planned(withDisks(), vfio, [controller]);
      assert.equal(change.kind, 'plan');
      assert.match(
        change.notes.join('\n'),
        /10000:e1:00\.0, 10000:e2:00\.0 exist only while 0000:00:0e\.0 is on vmd/,
      );
    });

    it('selected with it are not written to', () => {
      const change = planned(withDisks(), vfio, [...disks, controller]);
      assert.equal(change.kind, 'plan');
      assert.deepEqual(
        linesOf(change).filter((line) => line.includes('10000:')),
        [],
      );
    });

    it('that are in use or passed to userspace block the switch', () => {
      const mounted = withDisks();
      const [node = ''] = mounted
        .list(`/sys/bus/pci/devices/${disks[0] ?? ''}/nvme`)
        .map((name) => `/dev/${name}n1`);
      mounted.machine.mount({source: node, target: '/mnt/data', type: 'ext4'});
      const refused = planned(mounted, vfio, [controller], {force: true});
      assert.equal(refused.kind, 'refusal');
      assert.match(refused.error.details?.join('\n') ?? '', /\/mnt\/data/);
      const given = withDisks();
      given.machine.loadModule('vfio_pci');
      given.machine.drivers.setOverride(disks[1] ?? '', 'vfio-pci');
      given.machine.drivers.unbind('nvme', disks[1] ?? '');
      given.machine.drivers.probe(disks[1] ?? '');
      const kept = planned(given, vfio, [controller]);
      assert.equal(kept.kind, 'refusal');
      assert.match(
        kept.error.details?.join('\n') ?? '',
        /10000:e2:00\.0, which exists only through its driver, is in use \(driver vfio-pci\)/,
      );
      const forced = planned(given, vfio, [controller], {force: true});
      assert.equal(forced.kind, 'plan');
      assert.ok(
        undoLines(forced.steps).includes(
          `echo 'vfio-pci' > /sys/bus/pci/devices/${disks[1] ?? ''}/driver_override`,
        ),
      );
    });
  });

  describe('in a chain', () => {
    const link = (host: SimulatedHost, verb: 'remove' | 'unbind', ...slots: string[]) =>
      planLink(
        host,
        {noun: 'device', verb},
        readDevices(host).filter(({slot}) => slots.includes(slot)),
        false,
      );

    for (const verb of ['remove', 'unbind'] as const)
      it(`${verb} writes to no removed function, and its undo restores their number`, async () => {
        const host = withVirtualFunctions(3);
        const change = link(host, verb, pf, '0000:06:00.1', '0000:06:00.3');
        assert.equal(change.kind, 'plan');
        assert.deepEqual(
          linesOf(change).filter((line) => /0000:06:00\.[13]/.test(line)),
          [],
        );
        assert.equal(linesOf(change)[0], `echo '0' > ${count} || true`);
        assert.ok(undoLines(change.steps).includes(`echo '3' > ${count}`));
        await applyPlan(host, change, {limit: 5000});
        assert.deepEqual(virtualsOf(host), []);
      });

    it('virtual functions alone are removed and unbound like other functions', () => {
      const host = withVirtualFunctions(2);
      assert.deepEqual(linesOf(link(host, 'remove', '0000:06:00.2')), [
        "echo '1' > /sys/bus/pci/devices/0000:06:00.2/remove",
      ]);
    });

    it('a PF without a driver that still has some is not removed, because the kernel would crash', () => {
      const host = withVirtualFunctions(2, (_card, machine) => {
        for (const driver of machine.drivers) if (driver.name === 'igb') driver.leavesSriov = true;
      });
      host.machine.drivers.unbind('igb', pf);
      const change = link(host, 'remove', pf);
      assert.equal(change.kind, 'refusal');
      assert.match(change.error.hint ?? '', /bind default 0000:06:00\.0/);
    });
  });
});
