import assert from 'node:assert/strict';
import {readVfioParameters} from '../../src/devices/pci/attributes.js';
import {readBridge, readDevice} from '../../src/devices/pci/device.js';
import {parseId} from '../../src/devices/pci/id.js';
import {parseSlot} from '../../src/devices/pci/slot.js';
import {applySettings, claimingDriver} from '../../src/plan/switch/settings.js';
import {changeSettings, parseSettingChange} from '../../src/state/records/device-settings.js';
import type {ServiceSetResult} from '../../src/entry/cli/commands/service/set.js';
import type {ServiceShowResult} from '../../src/entry/cli/commands/service/show.js';
import {readChecked} from '../../src/state/records/record.js';
import type {MachineDeclaration} from '../simulated-host/declaration.js';
import type {SimulatedHost} from '../simulated-host/simulated-host.js';
import {functionOf} from '../simulated-host/standard-machine.js';
import {succeeds, typed} from '../cli/runs.js';
import {aDriver} from './values.js';
import {machines, runUnits, type UnitRuns} from './services.js';
import type {UdevResult} from '../simulated-host/udev/worker.js';

const card = '0000:02:00.0';
const sound = '0000:02:00.1';
const slot = parseSlot(card);
const device = `/sys/bus/pci/devices/${card}`;
const unit = `pearasys-${card}@vfio-pci.service`;
const claimUnit = `pearasys-claim-${card}@vfio-pci.service`;
const applied = `/run/pearasys/set/${card}`;

describe('the settings of a device', () => {
  const made = machines();

  interface Ready {
    readonly host: SimulatedHost;
    readonly units: UnitRuns;
  }

  function machine(tweak?: (declaration: MachineDeclaration) => void): Ready {
    const host = made((declaration) => {
      functionOf(declaration, card).resizable = {1: {sizes: [6, 8, 9, 13], room: 12}};
      // In a group of its own, the display function alone can be given to VFIO.
      functionOf(declaration, sound).group = 77;
      tweak?.(declaration);
    });
    return {host, units: runUnits(host)};
  }

  async function refused(host: SimulatedHost, line: string, exitCode: number): Promise<string> {
    const before = host.machine.log.length;
    const run = await typed(host, line);
    assert.equal(run.exitCode, exitCode, run.stderr);
    assert.equal(host.machine.log.length, before);
    return run.stderr;
  }

  const value = (host: SimulatedHost, name: string) => host.readText(`${device}/${name}`);
  const plain = (host: SimulatedHost) =>
    ['reset_method', 'd3cold_allowed', 'power/control'].map((name) => value(host, name));
  const driverOf = (host: SimulatedHost) => host.machine.device(card).driver;
  const barSize = (host: SimulatedHost) => host.machine.device(card).regions[1];
  const install = `-s ${card} service install vfio-pci --now`;

  it('are applied by the claim, and what was before is restored by the release', async () => {
    const {host} = machine();
    await succeeds(host, `${install} --set reset_method=bus --set d3cold_allowed=0 --set power/control=on`);
    assert.equal(driverOf(host), 'vfio-pci');
    assert.deepEqual(plain(host), ['bus', '0', 'on']);
    await succeeds(host, `-s ${card} service uninstall`);
    assert.equal(driverOf(host), undefined);
    assert.deepEqual(plain(host), ['flr bus', '1', 'on']);
    assert.ok(!host.exists(applied));
  });

  for (const line of [`bind default ${card}`, `unbind ${card}`, `bind pci-stub ${card}`])
    it(`are restored by ${line}`, async () => {
      const {host} = machine();
      await succeeds(
        host,
        `${install} --set reset_method=none --set d3cold_allowed=0 --set resource1_resize=512M`,
      );
      assert.deepEqual(plain(host), ['', '0', 'auto']);
      assert.equal(barSize(host), 2 ** 29);
      await succeeds(host, line);
      assert.deepEqual(plain(host), ['flr bus', '1', 'on']);
      assert.equal(barSize(host), 2 ** 28);
      assert.ok(!host.exists(applied));
    });

  it('are applied in the order that the kernel needs', async () => {
    const {host} = machine();
    await succeeds(
      host,
      `-s ${card} service install vfio-pci --set reset=bus --set resource1_resize=512M --set power/control=auto`,
    );
    host.machine.log.length = 0;
    host.userland.results.length = 0;
    await host.userland.start(unit);
    await host.userland.idle();
    assert.equal(driverOf(host), 'vfio-pci');
    assert.deepEqual(
      host.machine.log.filter((line) => line.startsWith(card)),
      [`${card}: BAR 1 has 512 MiB`, `${card}: reset by bus`],
    );
    assert.equal(value(host, 'reset_method'), 'flr bus');
  });

  it('with a value that the kernel refuses, fail the claim with the reason, and undo it', async () => {
    const {host, units} = machine();
    await succeeds(
      host,
      `-s ${card} service install vfio-pci --set d3cold_allowed=0 --set resource1_resize=8G --set reset_method=bus`,
    );
    await host.userland.start(unit);
    await host.userland.idle();
    assert.equal(host.userland.state(unit), 'inactive');
    const {exitCode, journal} = units.runs.get(claimUnit) ?? {exitCode: 0, journal: []};
    assert.equal(exitCode, 1);
    assert.match(journal.join('\n'), /resource1_resize.*ENOSPC[^]*undone[^]*on driver nouveau/);
    assert.match(journal.join('\n'), /try: .*service set 0000:02:00\.0 resource1_resize=VALUE/);
    assert.equal(driverOf(host), 'nouveau');
    assert.deepEqual(plain(host), ['flr bus', '1', 'on']);
    assert.equal(barSize(host), 2 ** 28);
    assert.ok(!host.exists(applied));
  });

  it('are applied by install --now to a device that is on the driver already', async () => {
    const {host} = machine();
    await succeeds(host, `bind vfio-pci ${card} --siblings`);
    host.machine.log.length = 0;
    await succeeds(host, `${install} --set d3cold_allowed=0 --set reset=flr`);
    assert.equal(value(host, 'd3cold_allowed'), '0');
    assert.deepEqual(
      host.machine.log.filter((line) => line.startsWith(card)),
      [`${card}: reset by flr`],
    );
    assert.ok(!host.exists(`/run/pearasys/pending/${card}`));
    await host.run('systemctl', ['restart', unit]);
    await host.userland.idle();
    assert.equal(value(host, 'd3cold_allowed'), '0');
    assert.equal(driverOf(host), 'vfio-pci');
  });

  it('are no reason for a step where they hold', async () => {
    const {host} = machine();
    await succeeds(host, `${install} --set reset_method=bus --set d3cold_allowed=0 --set power/control=on`);
    const now = readDevice(host, slot);
    assert.ok(now !== undefined);
    const settings = changeSettings(
      [],
      ['reset_method=bus', 'd3cold_allowed=0', 'power/control=on'].map(parseSettingChange),
    );
    const steps = applySettings(host, now, settings, false);
    assert.deepEqual([steps.first, steps.without, steps.after, steps.again], [[], [], [], false]);
  });

  it('are planned again for a device that was plugged in anew', async () => {
    const {host} = machine();
    await succeeds(host, `${install} --set reset=flr`);
    host.machine.hotRemove(card);
    await host.userland.idle();
    host.machine.hotAdd(card);
    await host.userland.idle();
    const now = readDevice(host, slot);
    assert.ok(now !== undefined);
    assert.equal(host.machine.device(card).resets, 1);
    assert.equal(now.driver, 'vfio-pci');
  });

  describe('at a hot-add', () => {
    async function replug(host: SimulatedHost): Promise<readonly UdevResult[]> {
      host.machine.hotRemove(card);
      await host.userland.idle();
      host.userland.results.length = 0;
      host.machine.log.length = 0;
      host.machine.hotAdd(card);
      await host.userland.idle();
      return host.userland.results.filter(({event}) => event.devpath.endsWith(card));
    }

    it('are plain writes of the rule, without a process', async () => {
      const {host, units} = machine();
      await succeeds(host, `${install} --set reset_method=bus --set d3cold_allowed=0 --set power/control=on`);
      const claimed = units.runs.get(claimUnit);
      const events = await replug(host);
      assert.equal(driverOf(host), 'vfio-pci');
      assert.deepEqual(plain(host), ['bus', '0', 'on']);
      assert.deepEqual(
        events.flatMap(({processes}) => processes),
        [],
      );
      assert.equal(units.runs.get(claimUnit), claimed);
      assert.equal(host.userland.state(unit), 'active');
      await succeeds(host, `bind default ${card}`);
      assert.equal(driverOf(host), 'nouveau');
      assert.deepEqual(plain(host), ['flr bus', '1', 'on']);
    });

    it('are plain writes of the rule after an install that has started nothing', async () => {
      const {host, units} = machine();
      await succeeds(host, `-s ${card} service install vfio-pci --set d3cold_allowed=0`);
      await replug(host);
      assert.equal(driverOf(host), 'vfio-pci');
      assert.equal(value(host, 'd3cold_allowed'), '0');
      assert.equal(units.runs.get(claimUnit), undefined);
    });

    it('may leave no reset method', async () => {
      const {host} = machine();
      await succeeds(host, `${install} --set reset_method=none`);
      await replug(host);
      assert.deepEqual(plain(host), ['', '1', 'auto']);
      assert.equal(driverOf(host), 'vfio-pci');
      await host.run('systemctl', ['stop', unit]);
      assert.equal(value(host, 'reset_method'), 'flr bus');
    });

    it('are left to the unit, which fails with the reason, if the kernel refuses one', async () => {
      const {host, units} = machine();
      await succeeds(
        host,
        `-s ${card} service install vfio-pci --set reset_method=bus --set d3cold_allowed=0`,
      );
      functionOf(host.machine.declaration, card).resetMethods = ['flr'];
      await replug(host);
      const {exitCode, journal} = units.runs.get(claimUnit) ?? {exitCode: 0, journal: []};
      assert.equal(exitCode, 1);
      assert.match(journal.join('\n'), /reset_method.*EINVAL/);
      assert.equal(driverOf(host), 'nouveau');
      assert.deepEqual(plain(host), ['flr', '1', 'on']);
    });

    it('keep all drivers off until the unit has made what is more than a write', async () => {
      const {host} = machine();
      await succeeds(host, `-s ${card} service install vfio-pci --set reset=flr --set resource1_resize=512M`);
      await replug(host);
      assert.equal(driverOf(host), 'vfio-pci');
      assert.deepEqual(
        host.machine.log.filter((line) => line.startsWith(card)),
        [`${card}: BAR 1 has 512 MiB`, `${card}: reset by flr`],
      );
    });
  });

  describe('variant', () => {
    const nic = '0000:05:00.0';
    const withVariant = () =>
      machine((declaration) => {
        const declared = functionOf(declaration, nic);
        declared.id = '15b3:101e';
        delete declared.driver;
      });

    it('selects the VFIO driver whose alias has the fewest wildcards', async () => {
      const {host} = withVariant();
      const settings = changeSettings([], [parseSettingChange('variant=yes')]);
      const [special, other] = [nic, card].map((one) => readDevice(host, parseSlot(one)));
      assert.ok(special !== undefined && other !== undefined);
      assert.equal(claimingDriver(host, special, aDriver('vfio-pci'), settings), 'mlx5_vfio_pci');
      assert.equal(claimingDriver(host, special, aDriver('vfio-pci'), []), 'vfio-pci');
      assert.equal(claimingDriver(host, special, aDriver('pci-stub'), settings), 'pci-stub');
      assert.equal(claimingDriver(host, other, aDriver('vfio-pci'), settings), 'vfio-pci');
      await succeeds(host, `-s ${nic} service install vfio-pci --now --set variant=yes`);
      assert.equal(host.machine.device(nic).driver, 'mlx5_vfio_pci');
      await succeeds(host, `-s ${nic} service uninstall`);
      assert.equal(host.machine.device(nic).driver, undefined);
    });
  });

  describe('service set', () => {
    it('changes the record, and the copy for the udev rule', async () => {
      const {host} = machine();
      await succeeds(host, `-s ${card} service install vfio-pci --set d3cold_allowed=0`);
      const {stdout} = await succeeds(
        host,
        `service set ${card} reset_method=bus,flr d3cold_allowed= --json`,
      );
      const {changed, settings} = JSON.parse(stdout) as ServiceSetResult;
      assert.ok(changed);
      assert.deepEqual(settings, [{name: 'reset_method', value: 'bus flr'}]);
      const line = /^PEARASYS_SET_RESET_METHOD=bus flr$/m;
      assert.match(host.readText(`/etc/pearasys/pci/${card}-0x10de-0x1b80`) ?? '', line);
      assert.match(readChecked(host, {slot, id: parseId('10de:1b80')}, readBridge(host, slot)) ?? '', line);
      assert.equal(value(host, 'reset_method'), 'flr bus');
      const again = await succeeds(host, `service set ${card} reset_method=bus,flr`);
      assert.equal(again.stdout, `${card} reset_method=bus flr\n`);
      assert.equal(again.stderr, '');
      const dry = await succeeds(host, `service set ${card} reset_method= --dry-run`);
      assert.match(dry.stdout, /^cat > \/etc\/pearasys\/pci\//);
      assert.match(host.readText(`/etc/pearasys/pci/${card}-0x10de-0x1b80`) ?? '', line);
      assert.match(
        (await succeeds(host, `service set ${card} reset_method=`)).stderr,
        /systemctl restart pearasys-/,
      );
      assert.equal(
        (await succeeds(host, `service set ${card} reset_method=`)).stdout,
        `${card} has no settings\n`,
      );
    });

    it('prints the size of a BAR with its index', async () => {
      const {host} = machine();
      await succeeds(host, `-s ${card} service install vfio-pci`);
      const {stdout} = await succeeds(host, `service set ${card} resource1_resize=512M`);
      assert.equal(stdout, `${card} resource1_resize=9 (512M)\n`);
      const shown = await succeeds(host, `service show ${card}`);
      assert.match(shown.stdout, /^ {2}resource1_resize set to 9 \(512M\), now 8 \(256M\)$/m);
      const stderr = await refused(host, `service set ${card} resource1_resize=1G`, 3);
      assert.match(stderr, /cannot set resource1_resize=10 \(1G\): the device does not support this size/);
    });

    it('survives another service install', async () => {
      const {host} = machine();
      await succeeds(host, `-s ${card} service install vfio-pci --set d3cold_allowed=0 --set reset=flr`);
      await succeeds(host, `-s ${card} service install vfio-pci --set reset=`);
      const text = host.readText(`/etc/pearasys/pci/${card}-0x10de-0x1b80`) ?? '';
      assert.match(text, /^PEARASYS_SET_D3COLD_ALLOWED=0$/m);
      assert.doesNotMatch(text, /PEARASYS_SET_RESET/);
    });

    const impossible: readonly [setting: string, reason: RegExp][] = [
      ['reset_method=pm', /does not offer the reset method pm[^]*use flr, bus/],
      ['reset=acpi', /does not offer the reset method acpi/],
      ['resource0_resize=1G', /BAR 0 is not resizable/],
      ['resource1_resize=1G', /does not support this size[^]*one of these sizes: 64M, 256M, 512M, 8G/],
      ['variant=yes', /the record's driver is pci-stub/],
    ];
    for (const [setting, reason] of impossible)
      it(`refuses ${setting} where it cannot work, with the reason`, async () => {
        const {host} = machine();
        await succeeds(host, `-s ${card} service install pci-stub`);
        assert.match(await refused(host, `service set ${card} ${setting}`, 3), reason);
        assert.match(await refused(host, `-s ${card} service install pci-stub --set ${setting}`, 3), reason);
      });

    it('refuses a method for a device that the kernel cannot reset', async () => {
      const {host} = machine((declaration) => {
        delete functionOf(declaration, card).resetMethods;
      });
      await succeeds(host, `-s ${card} service install pci-stub`);
      assert.match(
        await refused(host, `service set ${card} reset=flr`, 3),
        /the kernel has no reset method for the device/,
      );
    });

    it('is checked without the device as far as possible, and not for a slot without a record', async () => {
      const {host} = machine();
      await succeeds(host, `-s ${card} service install vfio-pci`);
      host.machine.hotRemove(card);
      await host.userland.idle();
      await succeeds(host, `service set ${card} reset=acpi`);
      assert.match(await refused(host, `service set ${card} reset=1`, 2), /reset=1 is invalid/);
      assert.match(
        await refused(host, `service set 05:00.0 reset=flr`, 4),
        /no record for slot 0000:05:00\.0/,
      );
    });
  });

  describe('service show', () => {
    it('shows what is set, what the kernel has, and the parameters of vfio-pci', async () => {
      const {host} = machine();
      await succeeds(host, `${install} --set reset_method=none --set reset=flr`);
      const {stdout} = await succeeds(host, `service show ${card} --json`);
      const {services, machineWide} = JSON.parse(stdout) as ServiceShowResult;
      assert.deepEqual(services, [
        {
          slot: card,
          id: '10de:1b80',
          driver: 'vfio-pci',
          present: true,
          settings: [
            {name: 'reset_method', value: 'none', current: 'none'},
            {name: 'd3cold_allowed', value: null, current: '1'},
            {name: 'power/control', value: null, current: 'auto'},
            {name: 'reset', value: 'flr', current: null},
            {name: 'resource1_resize', value: null, current: '8'},
          ],
          access: null,
          nodes: [{path: '/dev/vfio/2', user: 'root', group: 'root', mode: '0600'}],
        },
      ]);
      assert.deepEqual(machineWide, readVfioParameters(host));
      assert.deepEqual(
        machineWide.map(({name}) => name),
        ['disable_idle_d3', 'disable_vga', 'nointxmask', 'enable_sriov'],
      );
      const text = (await succeeds(host, 'service show')).stdout;
      assert.match(
        text,
        /^0000:02:00\.0 \(10de:1b80\), driver vfio-pci\n {2}reset_method +set to none, now none$/m,
      );
      assert.match(text, /^ {2}reset +set to flr$/m);
      assert.match(text, /^parameters of vfio-pci/m);
    });

    it('shows records of absent cards', async () => {
      const {host} = machine();
      await succeeds(host, `-s ${card} service install vfio-pci --set d3cold_allowed=0`);
      host.machine.hotRemove(card);
      await host.userland.idle();
      assert.match(
        (await succeeds(host, `service show ${card}`)).stdout,
        /^0000:02:00\.0 \(10de:1b80\), driver vfio-pci, absent\n {2}d3cold_allowed +set to 0$/m,
      );
    });
  });

  it('of a record by id alone are those of each card that gets a record through it', async () => {
    const {host} = machine();
    await succeeds(host, `service install vfio-pci -d 10de:1b80 --any-slot --set d3cold_allowed=0`);
    host.machine.hotRemove(card);
    await host.userland.idle();
    host.machine.hotAdd(card);
    await host.userland.idle();
    assert.equal(driverOf(host), 'vfio-pci');
    assert.equal(value(host, 'd3cold_allowed'), '0');
  });
});
