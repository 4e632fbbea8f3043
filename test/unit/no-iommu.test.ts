import assert from 'node:assert/strict';
import {readDevices} from '../../src/devices/pci/device.js';
import {noIommuParameter} from '../../src/devices/pci/no-iommu.js';
import {applyPlan} from '../../src/engine/apply.js';
import {planLink} from '../../src/plan/switch/verbs.js';
import {planClaim} from '../../src/plan/switch/claim.js';
import {planSwitch, readSwitch} from '../../src/plan/switch/switch.js';
import type {MachineDeclaration} from '../simulated-host/declaration.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {aDriver} from './values.js';

const disk = '0000:04:00.0';

describe('a device without an IOMMU group', () => {
  const hosts: SimulatedHost[] = [];
  afterEach(() => {
    for (const host of hosts.splice(0)) host.dispose();
  });

  function made(tweak?: (declaration: MachineDeclaration) => void): SimulatedHost {
    const host = SimulatedHost.standard((machine) => {
      machine.iommu = false;
      tweak?.(machine);
    });
    hosts.push(host);
    return host;
  }

  const devicesOf = (host: SimulatedHost) => readDevices(host).filter(({slot}) => slot === disk);

  function planned(host: SimulatedHost, driver = 'vfio-pci', force = false) {
    const target = {kind: 'claim', driver: aDriver(driver)} as const;
    return planSwitch(readSwitch(host, devicesOf(host), target, {force, wholeGroup: true}));
  }

  function refusal(host: SimulatedHost, driver?: string, force?: boolean) {
    const answer = planned(host, driver, force);
    assert.equal(answer.kind, 'refusal');
    assert.equal(answer.error.code, 'no-iommu');
    assert.equal(answer.error.exitCode, 3);
    return answer.error;
  }

  async function turnOn(host: SimulatedHost): Promise<void> {
    host.machine.loadModule('vfio');
    await host.writeAttribute(noIommuParameter, 'Y', 1000);
  }

  for (const driver of ['vfio-pci', 'mlx5_vfio_pci'])
    for (const force of [false, true])
      it(`is refused to ${driver}${force ? ' with --force too' : ''} while no-IOMMU mode is off, with a hint how to enable it`, () => {
        const host = made();
        host.machine.loadModule('vfio');
        const {hint = '', details = []} = refusal(host, driver, force);
        assert.match(details.join('\n'), /enable_unsafe_noiommu_mode is N/);
        assert.match(hint, /echo 1 > \/sys\/module\/vfio\/parameters\/enable_unsafe_noiommu_mode/);
        assert.match(hint, /DMA isolation.*tainted/);
        assert.match(hint, /uio_pci_generic/);
        assert.doesNotMatch(hint, /--force/);
      });

  it('is refused while vfio is not loaded, with a hint how to load it', () => {
    const {hint = ''} = refusal(made());
    assert.match(hint, /modprobe vfio enable_unsafe_noiommu_mode=1/);
    assert.match(hint, /options vfio enable_unsafe_noiommu_mode=1.*modprobe\.d/);
  });

  it('is refused by a kernel without the mode, which names no parameter to set', () => {
    const host = made((machine) => {
      const module = machine.modules.find(({name}) => name === 'vfio');
      if (module !== undefined) module.parameters = {};
    });
    host.machine.loadModule('vfio');
    const {hint = '', details = []} = refusal(host);
    assert.match(details.join('\n'), /CONFIG_VFIO_NOIOMMU/);
    assert.doesNotMatch(hint, /enable_unsafe/);
  });

  it('is accepted with a note while the mode is on', async () => {
    const host = made();
    await turnOn(host);
    const answer = planned(host);
    assert.equal(answer.kind, 'plan');
    assert.match(answer.notes.join('\n'), /0000:04:00\.0 .*without DMA isolation/);
    await applyPlan(host, answer, {limit: 5000});
    assert.equal(host.machine.device(disk).driver, 'vfio-pci');
    assert.deepEqual(planned(host), {kind: 'plan', steps: [], notes: [], afterUndo: []});
  });

  it('is accepted for a unit and a chain as well, and refused to both', async () => {
    for (const on of [false, true]) {
      const host = made();
      if (on) await turnOn(host);
      const driver = aDriver('vfio-pci');
      const answers = [
        planClaim(host, {devices: devicesOf(host), driver, records: [], recorded: []}),
        planLink(host, {noun: 'driver', verb: 'bind', driver}, devicesOf(host), true),
      ];
      for (const answer of answers) {
        assert.equal(answer.kind, on ? 'plan' : 'refusal');
        if (answer.kind === 'plan') assert.match(answer.notes.join('\n'), /no-IOMMU mode/);
      }
    }
  });

  it('does not matter to a driver other than VFIO', () => {
    const answer = planned(made(), 'uio_pci_generic');
    assert.equal(answer.kind, 'plan');
    assert.deepEqual(answer.notes, []);
  });

  for (const [what, path, content] of [
    ['modprobe.d', '/etc/modprobe.d/vfio.conf', 'options vfio enable_unsafe_noiommu_mode=1\n'],
    [
      'modprobe.d, with other options and a continued line',
      '/usr/lib/modprobe.d/x.conf',
      '# VFIO\noptions vfio foo=1 \\\n  enable_unsafe_noiommu_mode=Y\n',
    ],
    ['the kernel command line', '/proc/cmdline', 'root=/dev/sda1 vfio.enable_unsafe_noiommu_mode=on quiet\n'],
    ['a bare option', '/run/modprobe.d/a.conf', 'options vfio enable_unsafe_noiommu_mode\n'],
  ] as const)
    it(`is accepted if ${what} will turn the mode on with the module`, () => {
      assert.equal(planned(made((machine) => (machine.files[path] = content))).kind, 'plan');
    });

  for (const [what, path, content] of [
    ['turned off', '/etc/modprobe.d/vfio.conf', 'options vfio enable_unsafe_noiommu_mode=0\n'],
    ['of another module', '/etc/modprobe.d/vfio.conf', 'options vfio_pci enable_unsafe_noiommu_mode=1\n'],
    ['in a comment', '/etc/modprobe.d/vfio.conf', '#options vfio enable_unsafe_noiommu_mode=1\n'],
    ['in a file that is no .conf', '/etc/modprobe.d/vfio.off', 'options vfio enable_unsafe_noiommu_mode=1\n'],
  ] as const)
    it(`is refused when the option is ${what}`, () => {
      refusal(made((machine) => (machine.files[path] = content)));
    });
});
