import assert from 'node:assert/strict';
import {guestStart} from '../../src/entry/handlers/guest-start.js';
import {guestStop} from '../../src/entry/handlers/guest-stop.js';
import type {ServiceListResult} from '../../src/entry/cli/commands/service/list.js';
import type {ShowResult} from '../../src/entry/cli/commands/show.js';
import {parseSlot} from '../../src/devices/pci/slot.js';
import {quarantinePath, readQuarantine, readQuarantines} from '../../src/state/quarantine.js';
import {parseId} from '../../src/devices/pci/id.js';
import type {FunctionDeclaration, MachineDeclaration} from '../simulated-host/declaration.js';
import type {SimulatedHost} from '../simulated-host/simulated-host.js';
import {functionOf} from '../simulated-host/standard-machine.js';
import {succeeds, typed} from '../cli/runs.js';
import {machines, runOn, runUnits, type UnitRuns} from './services.js';

const card = '0000:02:00.0';
const sound = '0000:02:00.1';
const slot = parseSlot(card);
const id = parseId('10de:1b80');
const device = `/sys/bus/pci/devices/${card}`;
const unit = `pearasys-${card}@vfio-pci.service`;
const claimUnit = `pearasys-claim-${card}@vfio-pci.service`;
const mark = quarantinePath(slot);

describe('a device that the host gets back', () => {
  const made = machines();

  interface Ready {
    readonly host: SimulatedHost;
    readonly units: UnitRuns;
  }

  function machine(
    card_: Partial<FunctionDeclaration>,
    tweak?: (declaration: MachineDeclaration) => void,
  ): Ready {
    const host = made((declaration) => {
      Object.assign(functionOf(declaration, card), card_);
      functionOf(declaration, sound).group = 77;
      tweak?.(declaration);
    });
    return {host, units: runUnits(host)};
  }

  /** On vfio-pci, in a state in which it does not survive to lose that driver. */
  async function doomed(card_: Partial<FunctionDeclaration> = {}): Promise<SimulatedHost> {
    const {host} = machine(card_);
    await succeeds(host, `bind vfio-pci ${card}`);
    functionOf(host.machine.declaration, card).diesOnUnbind ??= {};
    host.machine.log.length = 0;
    return host;
  }

  const driverOf = (host: SimulatedHost) => host.machine.device(card).driver;
  const resets = (host: SimulatedHost) =>
    host.machine.log.filter((line) => line.startsWith(`${card}: reset`));

  it('gets it without a reset if it responds', async () => {
    const {host} = machine({});
    await succeeds(host, `bind vfio-pci ${card}`);
    const {stdout} = await succeeds(host, `bind default ${card} --dry-run`);
    assert.match(stdout, /\| tr -d '\\0\\377'\)"/);
    await succeeds(host, `bind default ${card}`);
    assert.equal(driverOf(host), 'nouveau');
    assert.equal(host.machine.device(card).resets, 0);
  });

  it('gets it after the reset that revives it', async () => {
    const host = await doomed();
    functionOf(host.machine.declaration, card).diesOnUnbind = {revivedBy: 'bus'};
    await succeeds(host, `bind default ${card}`);
    assert.equal(driverOf(host), 'nouveau');
    assert.deepEqual(resets(host), [`${card}: reset by flr`, `${card}: reset by bus`]);
    assert.equal(host.readText(`${device}/reset_method`), 'flr bus');
    assert.ok(!host.exists(mark));
  });

  it('does not get it if no reset helps: it is quarantined', async () => {
    const host = await doomed();
    const {exitCode, stderr} = await typed(host, `bind default ${card}`);
    assert.equal(exitCode, 1);
    assert.match(stderr, /cannot be returned to the host: its configuration space reads all/);
    assert.match(stderr, /reset by flr did not help\n.*reset by bus did not help\n/);
    assert.match(stderr, /state of 0000:02:00\.0: no driver, override none/);
    assert.match(
      stderr,
      /try: suspend and resume the machine, or switch it off and on; then: pearasys bind default/,
    );
    assert.equal(driverOf(host), undefined);
    assert.equal(host.readText(`${device}/driver_override`), 'none');
    assert.equal(host.readText(`${device}/reset_method`), 'flr bus');
    assert.match(
      readQuarantine(host, {slot, id})?.reason ?? '',
      /^its configuration space reads all ones; reset by flr/,
    );
  });

  it('is quarantined if its reset fails, with the errno', async () => {
    const host = await doomed();
    host.failWrite(`*/${card}/reset`, 'ENOTTY');
    const {exitCode, stderr} = await typed(host, `bind default ${card}`);
    assert.equal(exitCode, 1);
    assert.match(stderr, /reset by flr failed \(ENOTTY\)/);
    assert.ok(host.exists(mark));
  });

  it('is quarantined if it has no power and no reset', async () => {
    const {host} = machine({});
    delete functionOf(host.machine.declaration, card).resetMethods;
    await succeeds(host, `bind vfio-pci ${card}`);
    host.machine.tree.file(`${host.machine.device(card).path}/power_state`, 'D3cold\n');
    host.machine.tree.remove(`${host.machine.device(card).path}/reset_method`);
    const {exitCode, stderr} = await typed(host, `bind default ${card}`);
    assert.equal(exitCode, 1);
    assert.match(stderr, /its power state is D3cold, expected D0\n.*the kernel cannot reset it/);
  });

  describe('that its host driver does not take', () => {
    async function claimed(...settings: readonly string[]): Promise<SimulatedHost> {
      const {host} = machine({});
      await succeeds(host, [`-s ${card} service install vfio-pci --now`, ...settings].join(' --set '));
      host.machine.log.length = 0;
      return host;
    }

    it('is reset by the method of its settings, and probed again', async () => {
      const host = await claimed('reset=bus');
      host.refuseProbe(card, 'nouveau', 'EIO', 2);
      await succeeds(host, `bind default ${card}`);
      assert.equal(driverOf(host), 'nouveau');
      assert.deepEqual(resets(host), [`${card}: reset by bus`]);
      assert.equal(host.readText(`${device}/reset_method`), 'flr bus');
    });

    it('is quarantined if that does not help', async () => {
      const host = await claimed('reset=bus');
      host.refuseProbe(card, 'nouveau', 'EIO');
      const {exitCode, stderr} = await typed(host, `bind default ${card}`);
      assert.equal(exitCode, 1);
      assert.match(stderr, /no driver took 0000:02:00\.0[^]*reset by bus did not help\n.*it is quarantined/);
      assert.equal(driverOf(host), undefined);
      assert.match(
        readQuarantine(host, {slot, id})?.reason ?? '',
        /^no driver took .*; reset by bus did not help$/,
      );
    });

    it('stays on the driver that it had without such a setting', async () => {
      for (const settings of [[], ['reset=none']]) {
        const host = await claimed(...settings);
        host.refuseProbe(card, 'nouveau', 'EIO');
        assert.equal((await typed(host, `bind default ${card}`)).exitCode, 1);
        assert.equal(driverOf(host), 'vfio-pci');
        assert.deepEqual(resets(host), []);
        assert.ok(!host.exists(mark));
      }
    });
  });

  it('is reset only as its setting allows', async () => {
    const {host, units} = machine({});
    await succeeds(host, `-s ${card} service install vfio-pci --now --set reset=none`);
    functionOf(host.machine.declaration, card).diesOnUnbind = {revivedBy: 'bus'};
    host.machine.log.length = 0;
    await host.run('systemctl', ['stop', unit]);
    await host.userland.idle();
    const {journal} = units.runs.get(unit) ?? {journal: []};
    assert.match(journal.join('\n'), /its setting reset=none does not allow a reset/);
    assert.deepEqual(resets(host), []);
    assert.ok(host.exists(mark));
  });

  it('by the stop of its unit is quarantined, and not claimed again by unit, rule or a guest', async () => {
    const {host, units} = machine({});
    await succeeds(host, `-s ${card} service install vfio-pci --now --set d3cold_allowed=0`);
    functionOf(host.machine.declaration, card).diesOnUnbind = {};
    await host.run('systemctl', ['stop', unit]);
    await host.userland.idle();
    assert.equal(driverOf(host), undefined);
    assert.equal(host.readText(`${device}/d3cold_allowed`), '1');
    assert.match(units.runs.get(unit)?.journal.join('\n') ?? '', /it is quarantined: no driver gets it/);

    await host.userland.start(unit);
    await host.userland.idle();
    assert.match(
      units.runs.get(claimUnit)?.journal.join('\n') ?? '',
      /0000:02:00\.0 \(10de:1b80\) is quarantined: its configuration space/,
    );
    host.userland.results.length = 0;
    await host.run('udevadm', ['trigger', '--action=add', device]);
    await host.userland.idle();
    assert.deepEqual(
      host.userland.results.flatMap(({writes}) => writes),
      [],
    );
    await host.writeFile('/etc/pearasys/guests/g.conf', `${card}\n`);
    await host.writeFile('/etc/pearasys/guests/gpu-passthrough-guests.conf', 'g\n');
    const start = await runOn(host, guestStart, 'g');
    assert.equal(start.exitCode, 3);
    assert.match(start.journal.join('\n'), /is quarantined: its configuration space/);
    assert.equal(driverOf(host), undefined);
  });

  it('by the end of a guest is quarantined, and the stop says so', async () => {
    const {host} = machine({});
    await host.writeFile('/etc/pearasys/guests/g.conf', `${card}\n`);
    await host.writeFile('/etc/pearasys/guests/gpu-passthrough-guests.conf', 'g\n');
    assert.equal((await runOn(host, guestStart, 'g')).exitCode, 0);
    assert.equal(driverOf(host), 'vfio-pci');
    functionOf(host.machine.declaration, card).diesOnUnbind = {};
    const {exitCode, journal} = await runOn(host, guestStop, 'g');
    assert.equal(exitCode, 1);
    assert.match(journal.join('\n'), /it is quarantined[^]*not returned: 0000:02:00\.0/);
    assert.equal(driverOf(host), undefined);
  });

  it('is reported as quarantined by service uninstall', async () => {
    const {host} = machine({});
    await succeeds(host, `-s ${card} service install vfio-pci --now`);
    functionOf(host.machine.declaration, card).diesOnUnbind = {};
    const {stdout, stderr} = await succeeds(host, `-s ${card} service uninstall`);
    assert.equal(stdout, `uninstalled: ${card}\n`);
    assert.match(stderr, /0000:02:00\.0 \(10de:1b80\) is quarantined: /);
    assert.doesNotMatch(stderr, /to return it to the host/);
  });

  it('is shown as quarantined everywhere', async () => {
    const {host} = machine({});
    await succeeds(host, `-s ${card} service install vfio-pci --now`);
    functionOf(host.machine.declaration, card).diesOnUnbind = {};
    await host.run('systemctl', ['stop', unit]);
    await host.userland.idle();
    const note =
      /0000:02:00\.0 \(10de:1b80\) is quarantined: its configuration space reads all ones.*--force/;
    assert.match((await succeeds(host, 'list')).stderr, note);
    const services = await succeeds(host, 'service list');
    assert.match(services.stderr, note);
    assert.match(services.stdout, /\tmatches, quarantined\trecord$/m);
    const {stdout} = await succeeds(host, 'service list --json');
    assert.match((JSON.parse(stdout) as ServiceListResult).services[0]?.quarantined ?? '', /all ones/);
    assert.match((await succeeds(host, `show ${card}`)).stdout, /^ +quarantined: its configuration space/m);
    const shown = JSON.parse((await succeeds(host, `show ${card} --json`)).stdout) as ShowResult;
    assert.match(shown.devices[0]?.quarantined ?? '', /all ones/);
  });

  it('leaves the quarantine by bind --force if it works, and not otherwise', async () => {
    const host = await doomed();
    await typed(host, `bind default ${card}`);
    const refused = await typed(host, `bind default ${card}`);
    assert.equal(refused.exitCode, 3);
    assert.match(refused.stderr, /is quarantined: its configuration space/);
    // What a suspend and resume does.
    functionOf(host.machine.declaration, card).diesOnUnbind = {revivedBy: 'flr'};
    host.machine.pci.reset(card);
    assert.equal((await typed(host, `bind vfio-pci ${card}`)).exitCode, 3);
    assert.ok(host.exists(mark));
    await succeeds(host, `bind default ${card} --force`);
    assert.equal(driverOf(host), 'nouveau');
    assert.ok(!host.exists(mark));
    await succeeds(host, `bind vfio-pci ${card}`);
  });

  it('is not quarantined by the mark of another card', async () => {
    const host = await doomed();
    await typed(host, `bind default ${card}`);
    assert.equal(readQuarantines(host).length, 1);
    assert.equal(readQuarantine(host, {slot, id: parseId('10de:1b81')}), undefined);
    await host.writeFile(mark, 'damaged');
    assert.match(readQuarantine(host, {slot, id})?.reason ?? '', /^it did not work/);
    assert.deepEqual(readQuarantines(host), []);
  });
});
