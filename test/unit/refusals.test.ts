/** What a switch refuses, and the message it gives. */
import assert from 'node:assert/strict';
import {parseSlot} from '../../src/devices/pci/slot.js';
import {loadModule, type Refusal} from '../../src/plan/step.js';
import {
  bringDriver,
  harmlessNotes,
  refuseBridges,
  refuseHeld,
  refuseLocked,
  refuseOverride,
  refuseSilent,
  refuseVgpus,
} from '../../src/plan/switch/refusals.js';
import type {Holder} from '../../src/usage/holder.js';
import {aDevice, aDriver} from './values.js';

const slot = parseSlot('0000:02:00.0');
const other = parseSlot('0000:03:00.0');
const plain = aDevice(other, {id: '8086:10d3'});
const nothing = 'nothing was changed';

/** The code, the exit code and the message of a refusal. */
const told = (refusal: Refusal | undefined) =>
  refusal === undefined
    ? undefined
    : [
        refusal.error.code,
        refusal.error.exitCode,
        [refusal.error.message, ...(refusal.error.details ?? []), refusal.error.hint],
      ];

describe('a planner of switches', () => {
  it('refuses a bridge', () => {
    assert.equal(refuseBridges([plain]), undefined);
    assert.deepEqual(told(refuseBridges([plain, aDevice(slot, {classCode: 0x060400})])), [
      'not-switchable',
      3,
      [
        '0000:02:00.0 (10de:1b80) is a bridge: all devices behind it would lose their bus',
        nothing,
        'name the devices behind it; a bridge need not be bound for its group to be viable',
      ],
    ]);
  });

  it('refuses a device that the kernel keeps locked', () => {
    assert.equal(refuseLocked([plain]), undefined);
    const [code, exitCode, lines] = told(refuseLocked([plain, aDevice(slot, {locked: true})])) ?? [];
    assert.deepEqual([code, exitCode], ['write-stuck', 5]);
    assert.match(
      String(lines),
      /^0000:02:00\.0 \(10de:1b80\) is locked .*nothing was changed,end the processes/,
    );
  });

  it('refuses a vGPU, unless forced', () => {
    const vgpu = aDevice(slot, {vgpuType: 0});
    assert.equal(refuseVgpus([plain], false), undefined);
    assert.equal(refuseVgpus([plain, vgpu], true), undefined);
    const assign =
      "assign it to the guest as a hostdev with managed='no'; or unbind it from its driver with --force";
    const stays = (driver: string) =>
      `0000:02:00.0 (10de:1b80) is a virtual function for NVIDIA vGPUs, which a guest uses while it stays on ${driver}`;
    assert.deepEqual(told(refuseVgpus([plain, vgpu], false)), [
      'not-switchable',
      3,
      [
        stays('nvidia'),
        'it has no vGPU type yet',
        nothing,
        'set a type: pearasys vgpu set 0000:02:00.0 TYPE' +
          ` (\`pearasys vgpu types 0000:02:00.0\` lists the types); ${assign}`,
      ],
    ]);
    assert.deepEqual(
      told(refuseVgpus([aDevice(slot, {vgpuType: 259, driver: aDriver('nvidia-vgpu')})], false))?.[2],
      [stays('nvidia-vgpu'), 'its vGPU type is 259', nothing, assign],
    );
  });

  it('refuses any change of a device whose override cannot be read', () => {
    for (const claims of [true, false])
      assert.deepEqual(told(refuseOverride([plain, aDevice(slot, {overrideState: 'unreadable'})], claims)), [
        'no-override',
        3,
        [
          'the driver_override of 0000:02:00.0 (10de:1b80) could not be read: its state is unknown',
          nothing,
          'check it: cat /sys/bus/pci/devices/0000:02:00.0/driver_override',
        ],
      ]);
  });

  it('refuses to claim a device that has no override', () => {
    const old = aDevice(slot, {overrideState: 'missing'});
    assert.equal(refuseOverride([plain], true), undefined);
    assert.equal(refuseOverride([plain, old], false), undefined);
    const [code, exitCode, lines] = told(refuseOverride([plain, old], true)) ?? [];
    assert.deepEqual([code, exitCode], ['no-override', 3]);
    assert.match(
      String(lines),
      /^0000:02:00\.0 \(10de:1b80\) has no driver_override.*nothing was changed,on such a kernel, use: .* -s 0000:02:00\.0 /,
    );
  });

  it('refuses a device that does not respond, unless forced', () => {
    const devices = [plain, aDevice(slot)];
    assert.equal(refuseSilent(devices, new Set(), false), undefined);
    assert.equal(refuseSilent(devices, new Set([slot]), true), undefined);
    const [code, exitCode, lines] = told(refuseSilent(devices, new Set([slot]), false)) ?? [];
    assert.deepEqual([code, exitCode], ['no-answer', 3]);
    assert.match(
      String(lines),
      /^0000:02:00\.0 \(10de:1b80\) does not respond.*nothing was changed,remove it and rescan: pearasys -s 0000:02:00\.0 /,
    );
  });
});

describe('holders', () => {
  const devices = [aDevice(slot), plain];
  const mount = (rest: Partial<Extract<Holder, {kind: 'mount' | 'swap'}>>): Holder => ({
    ...{kind: 'mount', slot, class: 'yields', harm: 'certain', source: '/dev/nvme0n1', target: '/data'},
    ...{system: false, ...rest},
  });
  const network = (last: boolean): Holder => ({
    ...{kind: 'interface', slot: other, class: 'yields', harm: 'certain', name: 'eth0', last},
    ...{addresses: ['192.0.2.1/24'], routes: [], through: undefined},
  });
  const hintOf = (holders: readonly Holder[], force = false) =>
    refuseHeld(devices, holders, force)?.error.hint;

  it('refuse depending on their harm', () => {
    assert.equal(refuseHeld(devices, [], false), undefined);
    assert.equal(refuseHeld(devices, [mount({harm: 'none'})], false), undefined);
    assert.equal(refuseHeld(devices, [mount({harm: 'overridable'})], true), undefined);
    assert.equal(refuseHeld(devices, [mount({harm: 'overridable'})], false)?.error.code, 'in-use');
    assert.equal(refuseHeld(devices, [mount({})], true)?.error.exitCode, 3);
  });

  it('are named, with each advice once', () => {
    const swap = mount({kind: 'swap', source: '/dev/nvme0n1p3', target: 'swap'});
    assert.deepEqual(told(refuseHeld(devices, [mount({}), mount({}), swap], false)), [
      'in-use',
      3,
      [
        '0000:02:00.0 (10de:1b80) is in use',
        '0000:02:00.0: /dev/nvme0n1 is mounted at /data',
        '0000:02:00.0: /dev/nvme0n1 is mounted at /data',
        '0000:02:00.0: /dev/nvme0n1p3 is used as swap',
        nothing,
        'umount /data; swapoff /dev/nvme0n1p3',
      ],
    ]);
  });

  it('of several devices are reported with each device', () => {
    const {message} = refuseHeld(devices, [mount({}), network(false)], false)?.error ?? {};
    assert.equal(message, '0000:02:00.0 (10de:1b80), 0000:03:00.0 (8086:10d3) are in use');
    const unknown = refuseHeld([], [mount({})], false)?.error.message;
    assert.equal(unknown, '0000:02:00.0 (?) is in use');
  });

  it('can be overridden if all of them can', () => {
    const [soft, hard] = [mount({harm: 'overridable'}), mount({target: '/x'})];
    assert.match(hintOf([soft]) ?? '', /^umount \/data; or override with --force$/);
    assert.doesNotMatch(hintOf([soft, hard]) ?? '', /--force/);
  });

  it('that the machine needs hide all other advice', () => {
    const system = 'use another device: the system runs from it';
    assert.equal(hintOf([mount({}), mount({target: '/', system: true})]), system);
    assert.match(hintOf([mount({}), network(true)]) ?? '', /^without it this machine is cut off/);
    assert.match(hintOf([mount({}), network(false)]) ?? '', /^umount \/data; /);
    // Swap of the system can be switched off.
    assert.match(hintOf([mount({}), mount({kind: 'swap', system: true})]) ?? '', /^umount \/data; swapoff/);
  });

  it('that are harmless are reported in notes', () => {
    assert.deepEqual(harmlessNotes([mount({}), mount({harm: 'none', target: '/x'})]), [
      '0000:02:00.0: /dev/nvme0n1 is mounted at /x; it closes the device when the device goes away',
    ]);
  });
});

describe('a driver', () => {
  const driver = aDriver('vfio-pci');

  it('needs no step if it is registered', () => {
    assert.deepEqual(bringDriver(driver, {kind: 'present'}), []);
  });

  it('is loaded with its module, which is unloaded again only if it was not loaded before', () => {
    const expected = {kind: 'expect-registered', driver, module: 'vfio_pci', undo: []};
    const load = loadModule('vfio_pci');
    assert.notDeepEqual(load.undo, []);
    assert.deepEqual(bringDriver(driver, {kind: 'module', module: 'vfio_pci'}), [load, expected]);
    assert.deepEqual(bringDriver(driver, {kind: 'module', module: 'vfio_pci', loaded: false}), [
      load,
      expected,
    ]);
    assert.deepEqual(bringDriver(driver, {kind: 'module', module: 'vfio_pci', loaded: true}), [
      {...load, undo: []},
      expected,
    ]);
  });

  it('gets a hint if its name is that of a module', () => {
    const known = [aDriver('one'), aDriver('two')];
    const refusal = bringDriver(driver, {kind: 'unknown', isModule: true, known, modules: []});
    assert.deepEqual(told(refusal as Refusal), [
      'no-driver',
      2,
      ['vfio-pci is a module, not a driver', nothing, 'its PCI driver is called one or two'],
    ]);
  });

  it('gets a hint with the nearest driver or module if it is unknown', () => {
    const hint = (known: readonly string[], modules: readonly string[]) => {
      const source = {kind: 'unknown', isModule: false, known: known.map(aDriver), modules} as const;
      return (bringDriver(driver, source) as Refusal).error.hint ?? '';
    };
    const refusal = bringDriver(driver, {
      kind: 'unknown',
      isModule: false,
      known: [],
      modules: [],
    }) as Refusal;
    assert.deepEqual([refusal.error.code, refusal.error.exitCode], ['no-driver', 2]);
    assert.deepEqual(refusal.error.details, [nothing]);
    assert.match(hint(['vfio-pcj'], ['zzz']), /the nearest is vfio-pcj/);
    assert.match(hint(['zzz'], ['vfio-pcj']), /the nearest is the module vfio-pcj/);
    assert.match(hint(['nvme', 'vfio-pcj'], []), /the nearest is vfio-pcj/);
    assert.doesNotMatch(hint([], []), /nearest/);
  });
});
