/**
 * What `userspace config` and `reset` do, and what scripts/setup.sh of SPDK does for the same devices: its functions
 * probe_driver, linux_bind_driver and linux_unbind_driver, and their callers, at SPDK's commit 0005b3ed082f. Huge pages
 * are not part of this.
 */
import assert from 'node:assert/strict';
import type {UserspaceResult} from '../../src/entry/cli/userspace.js';
import {changesOf, columnsOf, writesFor, writeTo, type Row} from '../sequence.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {run} from './runs.js';

const disk = '0000:04:00.0';
/** A DSA engine; no module of this machine provides a driver for it. */
const engine = '0000:05:01.0';

const {setsOverride, clearsOverride, unbinds, binds, probes} = writesFor(disk);
const noted = `/run/pearasys/userspace/${disk}`;
const rescans = {
  theirs: writeTo('/sys/bus/pci/rescan', '1'),
  why: 'a search for new devices; these are there',
};
const loadsVfio: Row[] = [
  {
    theirs: 'modprobe vfio_iommu_type1',
    why: 'modprobe loads it with vfio, which names it in a softdep (MODULE_SOFTDEP)',
  },
  'modprobe vfio-pci',
];
const notes = {ours: `cat > ${noted}`, why: 'notes the disks that the reset waits for'};
const early = 'before the unbind, so that no probe in between gives it to another driver';
const late = 'only after the unbind; pearasys has set it before';
const kept = 'pearasys keeps it, so that no later probe gives it to another driver';

/** From nvme to vfio-pci. */
const takes: Row[] = [
  {ours: setsOverride('vfio-pci'), why: early},
  unbinds('nvme'),
  {theirs: setsOverride('vfio-pci'), why: late},
  probes,
  {theirs: clearsOverride, why: kept},
];

/** From vfio-pci back to nvme. */
const returns: Row[] = [
  {theirs: 'modprobe virtio-pci', why: 'for virtio disks; this is none'},
  {ours: clearsOverride, why: 'the override that pearasys has kept'},
  unbinds('vfio-pci'),
  {
    ours: 'modprobe pci:v0000144Dd0000A80Asv0000144Dsd0000A801bc01sc08i02',
    why: 'setup.sh leaves a device without a driver if the module is not loaded; no change if it is',
  },
  {
    theirs: setsOverride('nvme'),
    ours: binds('nvme'),
    why: 'by name as well, but without an override that a killed run would leave',
  },
  probes,
  {theirs: clearsOverride, why: 'there is none by now'},
  {ours: `rm ${noted}`, why: 'removes the note about its disks'},
];

const rules = '/run/udev/rules.d/62-pearasys-access-boot.rules';
const appliesRules = [
  'udevadm control --reload',
  'udevadm trigger --action=change --subsystem-match=vfio --subsystem-match=vfio-dev --subsystem-match=uio',
];

interface Case {
  readonly title: string;
  /** The runs before it, with their variables. */
  readonly before?: readonly Run[];
  readonly run: Run;
  /** The driver of the device at the end. */
  readonly driver: string | undefined;
  readonly rows: readonly Row[];
}
type Run = readonly ['config' | 'reset', NodeJS.ProcessEnv];

const only = {PCI_ALLOWED: disk};

const cases: readonly Case[] = [
  {
    title: 'config of an NVMe disk',
    run: ['config', only],
    driver: 'vfio-pci',
    rows: [notes, ...loadsVfio, ...takes, rescans],
  },
  {
    title: 'config for TARGET_USER',
    run: ['config', {...only, TARGET_USER: 'alice'}],
    driver: 'vfio-pci',
    rows: [
      {
        ours: `cat > ${rules}`,
        why: 'by this rule udev gives the node to the user, also when it appears again',
      },
      ...appliesRules.map((ours) => ({ours, why: 'makes udev read the rule'})),
      notes,
      ...loadsVfio,
      ...takes,
      {theirs: 'chown alice /dev/vfio/10', why: 'the rule does it when the node appears'},
      rescans,
    ],
  },
  {
    title: 'config of a disk that is on vfio-pci already',
    before: [['config', only]],
    run: ['config', only],
    driver: 'vfio-pci',
    rows: [
      {theirs: 'modprobe vfio_iommu_type1', why: 'nothing is to do'},
      {theirs: 'modprobe vfio-pci', why: 'nothing is to do'},
      rescans,
    ],
  },
  {
    title: 'config with DRIVER_OVERRIDE=none',
    run: ['config', {...only, DRIVER_OVERRIDE: 'none'}],
    driver: undefined,
    rows: [
      notes,
      {
        ours: setsOverride('none'),
        why: 'keeps all drivers off: otherwise any probe returns it to its driver',
      },
      unbinds('nvme'),
      rescans,
    ],
  },
  {
    title: 'reset of a disk',
    before: [['config', only]],
    run: ['reset', only],
    driver: 'nvme',
    rows: [...returns, rescans],
  },
  {
    title: 'reset of a disk that has been given to a user',
    before: [['config', {...only, TARGET_USER: 'alice'}]],
    run: ['reset', only],
    driver: 'nvme',
    rows: [
      ...returns,
      {ours: 'chown 0:0 /dev/vfio/10 && chmod 0600 /dev/vfio/10', why: 'the user has the node no longer'},
      {ours: `rm ${rules}`, why: 'the user has the node no longer'},
      ...appliesRules.map((ours) => ({ours, why: 'makes udev forget the rule'})),
      rescans,
    ],
  },
  {
    title: 'reset of a device without a driver of its own',
    before: [['config', {PCI_ALLOWED: engine}]],
    run: ['reset', {PCI_ALLOWED: engine}],
    driver: undefined,
    rows: [
      {theirs: 'modprobe virtio-pci', why: 'for virtio disks; this is none'},
      {ours: writesFor(engine).clearsOverride, why: 'before the unbind, so that the probe finds none'},
      writesFor(engine).unbinds('vfio-pci'),
      {
        theirs: writesFor(engine).clearsOverride,
        why: 'only after the unbind; pearasys has cleared it before',
      },
      {ours: writesFor(engine).probes, why: 'for a driver that modules.alias does not know'},
      rescans,
    ],
  },
];

describe("the sequences of SPDK's setup.sh", () => {
  const hosts: SimulatedHost[] = [];
  afterEach(() => {
    for (const host of hosts.splice(0)) host.dispose();
  });

  /** The machine after these runs of pearasys. */
  async function machineAfter(runs: readonly Run[]): Promise<SimulatedHost> {
    const host = SimulatedHost.standard((machine) => {
      machine.files['/etc/passwd'] = 'root:x:0:0::/:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n';
      machine.modules.push({name: 'virtio_pci', loaded: true});
      machine.functions.push({slot: engine, id: '8086:0b25', class: '088000', group: 77});
    });
    hosts.push(host);
    for (const one of runs) await stepsOf(host, one);
    return host;
  }

  /** Runs pearasys. @returns its steps. */
  async function stepsOf(host: SimulatedHost, [verb, environment]: Run): Promise<readonly string[]> {
    const {exitCode, stdout, stderr} = await run(host, ['userspace', verb, '--json'], {environment});
    assert.equal(exitCode, 0, stderr);
    await host.userland.idle();
    return (JSON.parse(stdout) as UserspaceResult).steps;
  }

  /** Does what setup.sh does; the owner of a node is no part of it. */
  async function replay(host: SimulatedHost, steps: readonly string[]): Promise<void> {
    for (const step of steps) {
      const [, path, value] = /^([^ ]+)=(.*)$/.exec(step) ?? [];
      const [, module] = /^modprobe (.*)$/.exec(step) ?? [];
      if (path !== undefined) await host.writeAttribute(`/sys/bus/pci/${path}`, `${value}\n`, 1000);
      else if (module !== undefined) await host.run('modprobe', [module]);
      else assert.match(step, /^chown /);
    }
    await host.userland.idle();
  }

  for (const {title, before = [], run: last, driver, rows} of cases)
    it(`${title} differs only as listed`, async () => {
      const slot = last[1]['PCI_ALLOWED'] ?? '';
      const {theirs, ours} = columnsOf(rows);
      const host = await machineAfter(before);
      assert.deepEqual(changesOf(await stepsOf(host, last)), ours);
      assert.equal(host.machine.device(slot).driver, driver);
      const other = await machineAfter(before);
      await replay(other, theirs);
      assert.equal(other.machine.device(slot).driver, driver);
    });
});
