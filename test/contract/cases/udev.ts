import assert from 'node:assert/strict';
import {DEVICES} from '../../vm/devices.js';
import type {ContractArea, ContractMachine} from '../machine.js';
import {
  attribute,
  driverOf,
  drivers,
  edu,
  give,
  nic,
  overrideOf,
  probe,
  succeeds,
  twin,
  write,
} from './pci.js';

const rescan = '/sys/bus/pci/rescan';
const values = '/run/contract/values';

async function load(on: ContractMachine, rules: string): Promise<void> {
  await on.put(
    '/etc/udev/rules.d/60-contract.rules',
    `SUBSYSTEM!="pci", GOTO="contract_end"\n${rules}\nLABEL="contract_end"\n`,
  );
  await succeeds(on, 'udevadm', 'control', '--reload');
}

/** Runs the rules on a synthetic event. @returns the properties of the device that begin with `C_`, and its tags. */
async function triggered(
  on: ContractMachine,
  slot: string,
  rules: string,
  action = 'change',
): Promise<Record<string, string>> {
  await load(on, rules);
  await succeeds(on, 'udevadm', 'trigger', `--action=${action}`, `/sys/bus/pci/devices/${slot}`);
  await on.settle();
  const printed = await succeeds(
    on,
    ...(['udevadm', 'info', '--query=property', `/sys/bus/pci/devices/${slot}`] as const),
  );
  return Object.fromEntries(
    printed
      .split('\n')
      .map((line) => line.split(/=(.*)/s) as [string, string])
      .filter(([key]) => key.startsWith('C_') || key === 'CURRENT_TAGS'),
  );
}

async function replug(on: ContractMachine, slot: string): Promise<void> {
  await write(on, [attribute(slot, 'remove'), '1'], [rescan, '1']);
  await on.settle();
}

export const udev: ContractArea = {
  title: 'udev',
  cases: [
    {
      title: 'ATTR writes an override, unbinds and probes: a hot-added device changes its driver',
      check: async (on) => {
        await succeeds(on, 'modprobe', 'vfio-pci');
        await load(
          on,
          `ACTION=="add", KERNEL=="${nic}", ATTR{driver_override}="vfio-pci"\n` +
            `ACTION=="add", KERNEL=="${nic}", ENV{SYNTH_UUID}!="?*", TEST=="driver", ATTR{driver/unbind}="$kernel"\n` +
            `ACTION=="add", KERNEL=="${nic}", ATTR{[subsystem/pci]drivers_probe}="$kernel"`,
        );
        await replug(on, nic);
        assert.deepEqual([await driverOf(on, nic), await overrideOf(on, nic)], ['vfio-pci', 'vfio-pci']);
        assert.equal(await driverOf(on, DEVICES.network.slot), 'e1000e');
      },
    },
    {
      title: 'RUN{builtin} kmod loads the module after all rules, and its driver binds the device',
      check: async (on) => {
        await succeeds(on, 'modprobe', '-r', 'vfio-pci');
        await load(
          on,
          `ACTION=="add", KERNEL=="${edu}", ATTR{driver_override}="vfio-pci", ATTR{[subsystem/pci]drivers_probe}="$kernel"\n` +
            `ACTION=="add", KERNEL=="${edu}", ENV{C_DRIVER}="vfio-pci", RUN{builtin}+="kmod load $env{C_DRIVER}"`,
        );
        await replug(on, edu);
        assert.deepEqual([await driverOf(on, edu), await driverOf(on, twin)], ['vfio-pci', undefined]);
      },
    },
    {
      title: 'loads the module of a device that appears, by its default rules',
      check: async (on) => {
        const {slot} = DEVICES.legacy0;
        await succeeds(on, 'modprobe', '-r', 'e1000');
        await replug(on, slot);
        assert.equal(await driverOf(on, slot), 'e1000');
      },
    },
    {
      title: 'distinguishes synthetic events from those of the kernel by SYNTH_UUID',
      check: async (on) => {
        const rules = 'ENV{SYNTH_UUID}!="?*", ENV{C_TRUE}="1"\nENV{SYNTH_UUID}=="?*", ENV{C_SYNTHETIC}="1"';
        assert.deepEqual(await triggered(on, edu, rules), {C_SYNTHETIC: '1'});
        await on.events();
        await write(on, [attribute(edu, 'uevent'), 'change']);
        await on.settle();
        assert.deepEqual(await on.events(), [`change pci ${edu} synthetic`]);
      },
    },
    {
      title: 'trigger creates the requested events; a write to uevent may contain its own UUID',
      check: async (on) => {
        for (const action of ['add', 'change', 'bind', 'unbind', 'remove', 'add'])
          await succeeds(on, 'udevadm', 'trigger', `--action=${action}`, `/sys/bus/pci/devices/${edu}`);
        assert.deepEqual(
          await on.events(),
          ['add', 'change', 'bind', 'unbind', 'remove', 'add'].map(
            (action) => `${action} pci ${edu} synthetic`,
          ),
        );
        assert.equal(await on.write(attribute(edu, 'uevent'), 'nonsense'), 'EINVAL');
        assert.equal(
          await on.write(attribute(edu, 'uevent'), 'add 11111111-1111-1111-1111-111111111111'),
          'ok',
        );
        assert.deepEqual(await on.events(), [`add pci ${edu} synthetic`]);
      },
    },
    {
      title: 'within a line, matches come before imports; the next line sees the imported properties',
      check: async (on) => {
        await on.put(values, '# comment\nC_X=1\nC_QUOTED="a b"\n');
        assert.deepEqual(
          await triggered(
            on,
            edu,
            `IMPORT{file}=="${values}", ENV{C_X}=="1", ENV{C_SAME_LINE}="yes"\n` +
              `IMPORT{file}=="${values}"\n` +
              'ENV{C_X}=="1", ENV{C_NEXT_LINE}="$env{C_QUOTED} %k"\n' +
              'IMPORT{file}=="/run/contract/nothing", ENV{C_NOTHING}="1"',
          ),
          {C_X: '1', C_QUOTED: 'a b', C_NEXT_LINE: `a b ${edu}`},
        );
      },
    },
    {
      title: 'a property of the last event can be imported from the database, until the device is removed',
      check: async (on) => {
        const keeps = 'IMPORT{db}="C_KEPT"\nIMPORT{db}="C_NOTHING", ENV{C_ABSENT}="1"';
        assert.deepEqual(await triggered(on, edu, 'ENV{C_KEPT}="yes"'), {C_KEPT: 'yes'});
        for (let time = 0; time < 2; time++)
          assert.deepEqual(await triggered(on, edu, keeps), {C_KEPT: 'yes'});
        await replug(on, edu);
        assert.deepEqual(await triggered(on, edu, keeps), {});
      },
    },
    {
      title: 'a file name may contain attributes of the device: no process is needed to identify it',
      check: async (on) => {
        await on.put(`/run/contract/${edu}-0x1234-0x11e8`, 'C_RECORD=yes\n');
        const name = '/run/contract/$kernel-$attr{vendor}-$attr{device}';
        const rules = `TEST=="${name}", IMPORT{file}="${name}"\nTEST!="${name}", ENV{C_RECORD}="no"`;
        assert.deepEqual(await triggered(on, edu, rules), {C_RECORD: 'yes'});
        assert.deepEqual(await triggered(on, twin, rules), {C_RECORD: 'no'});
      },
    },
    {
      title: 'a missing attribute matches nothing, not even an inequality',
      check: async (on) => {
        assert.deepEqual(
          await triggered(
            on,
            edu,
            'ATTR{nothing}!="x", ENV{C_UNEQUAL}="1"\nATTR{nothing}=="", ENV{C_EMPTY}="1"\n' +
              'ATTR{class}=="0x0300*|0x00ff*", ENV{C_EITHER}="1"\nATTR{vendor}!="0x8086", ENV{C_VENDOR}="1"',
          ),
          {C_EITHER: '1', C_VENDOR: '1'},
        );
      },
    },
    {
      title: 'TEST with a mode checks whether any of its bits is set',
      check: async (on) => {
        await on.put(values, 'X=1\n');
        assert.deepEqual(
          await triggered(
            on,
            edu,
            `TEST{0022}=="${values}", ENV{C_OTHERS}="1"\nTEST{0022}!="${values}", ENV{C_OWN}="1"\n` +
              `TEST{0644}=="${values}", ENV{C_SOME}="1"\nTEST{0001}=="/run/contract/nothing", ENV{C_NOTHING}="1"`,
          ),
          {C_OWN: '1', C_SOME: '1'},
        );
        await succeeds(on, 'chmod', '666', values);
        assert.deepEqual(await triggered(on, edu, `TEST{0022}=="${values}", ENV{C_OTHERS}="1"`), {
          C_OTHERS: '1',
        });
      },
    },
    {
      title: 'ENV is set, added to and removed; GOTO skips lines',
      check: async (on) => {
        assert.deepEqual(
          await triggered(
            on,
            edu,
            'ENV{C_LIST}="a"\nENV{C_LIST}+="b", ENV{C_GONE}="x"\nENV{C_GONE}=""\nGOTO="over"\nENV{C_SKIPPED}="1"\n' +
              'LABEL="over"\nENV{C_AFTER}="$$ %%"',
          ),
          {C_LIST: 'a b', C_AFTER: '$ %'},
        );
      },
    },
    {
      title: 'tags are those of the last event',
      check: async (on) => {
        const tagged = await triggered(
          on,
          edu,
          'TAG+="contract", ENV{C_T}="1"\nTAG=="contract", ENV{C_TAGGED}="1"',
        );
        assert.deepEqual(tagged, {C_T: '1', C_TAGGED: '1', CURRENT_TAGS: ':contract:'});
        assert.deepEqual(await triggered(on, edu, 'ENV{C_T}="2"'), {C_T: '2'});
      },
    },
    {
      title: 'KERNELS finds a parent, and $id is then its name',
      check: async (on) => {
        assert.deepEqual(
          await triggered(on, nic, 'KERNELS=="0000:00:*", ENV{C_PARENT}="$id", ENV{C_NUMBER}="$number"'),
          {C_PARENT: '0000:00:10.0', C_NUMBER: '0'},
        );
      },
    },
    {
      title:
        'OWNER, GROUP and MODE apply to the node of a group with a certain member, and outlast their rule, but not the node',
      check: async (on) => {
        const rules = '/etc/udev/rules.d/61-contract.rules';
        const member = (slot: string, vendor: string) =>
          `SUBSYSTEM=="vfio", TEST=="/sys/kernel/iommu_groups/$kernel/devices/${slot}", ATTR{[pci/${slot}]vendor}=="${vendor}", `;
        await on.put(
          rules,
          // Whether an unknown user also cancels a former OWNER depends on the version of systemd.
          ['OWNER="nobody-of-this-name"', 'OWNER="12"', 'GROUP="34"', 'MODE="0640"']
            .map((part) => `${member(edu, '0x1234')}${part}\n`)
            .join('') + `${member(twin, '0x8086')}OWNER="56"\n`,
        );
        await succeeds(on, 'udevadm', 'control', '--reload');
        await succeeds(on, 'modprobe', 'vfio-pci');
        const nodeOf = async (slot: string) =>
          `/dev/vfio/${(await on.link(attribute(slot, 'iommu_group'))) ?? ''}`;
        const ownerOf = async (slot: string) => succeeds(on, 'stat', '-c', '%u:%g %a', await nodeOf(slot));
        for (const slot of [edu, twin]) await give(on, slot, 'vfio-pci');
        await on.settle();
        assert.deepEqual([await ownerOf(edu), await ownerOf(twin)], ['12:34 640', '0:0 600']);
        await on.remove(rules);
        await succeeds(on, 'udevadm', 'control', '--reload');
        const group = (await nodeOf(edu)).replace('/dev/', '/sys/class/');
        await succeeds(on, 'udevadm', 'trigger', '--action=change', group);
        await on.settle();
        assert.equal(await ownerOf(edu), '12:34 640');
        await write(on, [`${drivers}/vfio-pci/unbind`, edu], [probe, edu]);
        await on.settle();
        assert.equal(await ownerOf(edu), '0:0 600');
      },
    },
    {
      title: 'a write that the kernel refuses is not an error of the rules',
      check: async (on) => {
        assert.deepEqual(
          await triggered(
            on,
            edu,
            'ATTR{vendor}="0x1", ENV{C_SAME}="1"\nATTR{nothing}="1", ENV{C_MISSING}="1"\nENV{C_NEXT}="1"',
          ),
          {C_SAME: '1', C_MISSING: '1', C_NEXT: '1'},
        );
      },
    },
  ],
};
