import assert from 'node:assert/strict';
import {parseChain} from '../../src/entry/cli/chain-words.js';
import {readDevices} from '../../src/devices/pci/device.js';
import {planLink, type Link} from '../../src/plan/switch/verbs.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {aDriver, linesOf, undoLines} from './values.js';

describe('parseChain', () => {
  const link = (action: object, ...words: string[]) => ({action, words});

  for (const [line, links] of [
    ['rescan', [link({noun: 'rescan'})]],
    [
      'driver vfio-pci unbind driver nvidia new-id',
      [
        link({noun: 'driver', verb: 'unbind', driver: 'vfio-pci'}),
        link({noun: 'driver', verb: 'new-id', driver: 'nvidia'}),
      ],
    ],
    [
      'driver vfio-pci remove-id device remove rescan',
      [
        link({noun: 'driver', verb: 'remove-id', driver: 'vfio-pci'}),
        link({noun: 'device', verb: 'remove'}),
        link({noun: 'rescan'}),
      ],
    ],
    ['device rescan', [link({noun: 'device', verb: 'rescan'})]],
    ['device --driver=vfio-pci bind', [link({noun: 'device', verb: 'bind', driver: 'vfio-pci'})]],
    [
      'device --driver= driver-override',
      [link({noun: 'device', verb: 'driver-override', driver: undefined})],
    ],
    [
      'driver -s 01:00.0 nvme -d 10de:1b80 ls',
      [link({noun: 'driver', verb: 'ls', driver: 'nvme'}, '01:00.0', '10de:1b80')],
    ],
    [
      'device -s01:00.0 --slot=02:00.0 --pid 10de:1b80 reset',
      [link({noun: 'device', verb: 'reset'}, '01:00.0', '02:00.0', '10de:1b80')],
    ],
  ] as const)
    it(line, () => {
      assert.deepEqual(
        parseChain(line.split(' ')).map(({action, words}) => ({action, words})),
        links,
      );
    });
});

describe('planLink', () => {
  let host: SimulatedHost;
  beforeEach(() => {
    host = SimulatedHost.standard();
  });
  afterEach(() => host.dispose());

  const planned = (link: Link, ...slots: string[]) =>
    planLink(
      host,
      link,
      readDevices(host).filter(({slot}) => slots.includes(slot)),
      false,
    );

  it('new-id for several devices of one id writes it once; the undo first unbinds the devices that it bound', () => {
    const plan = planned({noun: 'driver', verb: 'new-id', driver: aDriver('pci-stub')}, '0000:00:14.2');
    assert.equal(plan.kind, 'plan');
    assert.deepEqual(linesOf(plan), [
      'modprobe pci-stub',
      'test -d /sys/bus/pci/drivers/pci-stub',
      "echo '8086 a36f' > /sys/bus/pci/drivers/pci-stub/new_id || true",
      "echo '0000:00:14.2' > /sys/bus/pci/drivers/pci-stub/bind || true",
    ]);
    assert.deepEqual(undoLines(plan.steps), [
      "echo '0000:00:14.2' > /sys/bus/pci/devices/0000:00:14.2/driver/unbind || true",
      "echo '0000:00:14.2' > /sys/bus/pci/drivers/pci-stub/unbind || true",
      "echo '8086 a36f' > /sys/bus/pci/drivers/pci-stub/remove_id || true",
      'modprobe -r pci-stub',
    ]);
  });

  it('remove is undone by a rescan, reset by nothing', () => {
    const slot = '0000:05:00.0';
    const removal = planned({noun: 'device', verb: 'remove'}, slot);
    assert.equal(removal.kind, 'plan');
    assert.deepEqual(undoLines(removal.steps), ["echo '1' > /sys/bus/pci/rescan"]);
    const reset = planned({noun: 'device', verb: 'reset'}, slot);
    assert.equal(reset.kind, 'plan');
    assert.deepEqual(undoLines(reset.steps), []);
  });

  it('the undo restores the previous override', () => {
    const plan = planned({noun: 'device', verb: 'driver-override', driver: undefined}, '0000:05:00.0');
    assert.equal(plan.kind, 'plan');
    assert.deepEqual(linesOf(plan), ["echo '' > /sys/bus/pci/devices/0000:05:00.0/driver_override"]);
    assert.deepEqual(undoLines(plan.steps), ["echo '' > /sys/bus/pci/devices/0000:05:00.0/driver_override"]);
  });

  it('no devices, nothing to do', () => {
    for (const verb of ['unbind', 'remove', 'reset', 'rescan'] as const)
      assert.deepEqual(linesOf(planned({noun: 'device', verb})), []);
  });
});
