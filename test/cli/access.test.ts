import assert from 'node:assert/strict';
import type {ServiceListResult} from '../../src/entry/cli/commands/service/list.js';
import type {ServiceSetResult} from '../../src/entry/cli/commands/service/set.js';
import type {ServiceShowResult} from '../../src/entry/cli/commands/service/show.js';
import type {ShowResult} from '../../src/entry/cli/commands/show.js';
import {record as recordHandler} from '../../src/entry/handlers/record.js';
import {SimulatedMachine} from '../simulated-host/kernel/machine.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {machines, runOn, runUnits, withProduct} from '../unit/services.js';
import {machineAt, slotIn, type Boot} from '../unit/twins.js';
import type {MachineDeclaration} from '../simulated-host/declaration.js';
import {succeeds, typed} from './runs.js';

const card = '0000:02:00.0';
const sound = '0000:02:00.1';
const disk = '0000:04:00.0';
const rules = '/etc/udev/rules.d/61-pearasys-access.rules';
const record = `/etc/pearasys/pci/${card}-0x10de-0x1b80`;

function withUsers(declaration: MachineDeclaration): void {
  declaration.files['/etc/passwd'] =
    'root:x:0:0::/:/bin/sh\nalice:x:1000:1000::/:/bin/sh\nbob:x:1001:1001::/:/bin/sh\n';
  declaration.files['/etc/group'] = 'root:x:0:\nvfio:x:990:\n';
}

const nodeOf = (host: SimulatedHost, path: string) => {
  const info = host.info(path);
  return info === undefined ? undefined : `${info.uid}:${info.gid} ${info.mode.toString(8)}`;
};
const ownedBy = (host: SimulatedHost) => nodeOf(host, '/dev/vfio/2');
const json = async <Result>(host: SimulatedHost, line: string): Promise<Result> =>
  JSON.parse((await succeeds(host, `${line} --json`)).stdout) as Result;

describe('pearasys service with --user, --user-group and --mode', () => {
  const made = machines();

  function machine(tweak?: (declaration: MachineDeclaration) => void): SimulatedHost {
    const host = made((declaration) => {
      withUsers(declaration);
      tweak?.(declaration);
    });
    runUnits(host);
    return host;
  }

  const install = `-s ${card} service install vfio-pci --siblings --user alice --user-group vfio`;

  it('gives the group to the user as soon as the driver makes its node', async () => {
    const host = machine();
    const {stderr} = await succeeds(host, `${install} --now`);
    assert.equal(ownedBy(host), '1000:990 660');
    assert.match(
      host.readText(record) ?? '',
      /^PEARASYS_USER=alice\nPEARASYS_GROUP=vfio\nPEARASYS_MODE=0660$/m,
    );
    assert.match(stderr, /user alice may lock 8 MiB/);
    assert.match(stderr, /to raise the limit: /);
    assert.deepEqual(host.userland.udev.processes, []);
  });

  it('does so again after each rebind, and no more after the uninstall', async () => {
    const host = machine();
    await succeeds(host, `${install} --now`);
    await succeeds(host, `bind default ${card} ${sound}`);
    assert.equal(ownedBy(host), undefined);
    await succeeds(host, `bind vfio-pci ${card} ${sound}`);
    assert.equal(ownedBy(host), '1000:990 660');
    await succeeds(host, `-s ${card} service uninstall`);
    assert.equal(host.exists(rules), false);
    await succeeds(host, `bind vfio-pci ${card} ${sound}`);
    assert.equal(ownedBy(host), '0:0 600');
  });

  it('gives the nodes of UIO to the user too', async () => {
    const host = machine();
    await succeeds(host, `-s ${disk} service install uio_pci_generic --user bob --mode 600 --now`);
    assert.equal(nodeOf(host, '/dev/uio0'), '1001:0 600');
  });

  it('shows who may open it, and the nodes', async () => {
    const host = machine();
    await succeeds(host, `${install} --now`);
    const access = {user: 'alice', group: 'vfio', mode: '0660'};
    const nodes = [{path: '/dev/vfio/2', user: 'alice', group: 'vfio', mode: '0660'}];
    const {devices} = await json<ShowResult>(host, `show ${card}`);
    assert.deepEqual(devices[0]?.record?.access, access);
    assert.deepEqual(devices[0].nodes, nodes);
    const {stdout} = await succeeds(host, `show ${card}`);
    assert.match(stdout, /^ {2}access {5}user alice, group vfio, mode 0660$/m);
    assert.match(stdout, /^ {2}nodes {6}\/dev\/vfio\/2 alice:vfio 0660$/m);
    const {services} = await json<ServiceShowResult>(host, `service show ${card}`);
    assert.deepEqual([services[0]?.access, services[0]?.nodes], [access, nodes]);
    assert.match(
      (await succeeds(host, `service show ${card}`)).stdout,
      /access +user alice, group vfio, mode 0660\n/,
    );
    const list = await json<ServiceListResult>(host, 'service list');
    assert.deepEqual(
      list.services.map((one) => one.access),
      [access, access],
    );
    assert.equal((await json<ShowResult>(host, `show ${disk}`)).devices[0]?.nodes.length, 0);
    host.machine.tree.file('/etc/passwd', '', 0o644);
    assert.match(
      (await succeeds(host, `show ${card}`)).stdout,
      /access {5}user alice \(does not exist\), group vfio/,
    );
    assert.match((await succeeds(host, `show ${card}`)).stdout, /nodes {6}\/dev\/vfio\/2 1000:vfio 0660/);
  });

  it('changes it with `service set`, at once; an empty value removes it', async () => {
    const host = machine();
    await succeeds(host, `-s ${disk} service install vfio-pci --now`);
    const node = '/dev/vfio/10';
    assert.equal(nodeOf(host, node), '0:0 600');
    const set = await json<ServiceSetResult>(host, `service set ${disk} --user alice`);
    assert.deepEqual(set.access, {user: 'alice', group: null, mode: '0660'});
    assert.equal(nodeOf(host, node), '1000:0 660');
    const {stdout, stderr} = await succeeds(
      host,
      `service set ${disk} d3cold_allowed=0 --user= --user-group vfio --mode 0640`,
    );
    assert.equal(stdout, `${disk} d3cold_allowed=0\n${disk} group vfio, mode 0640\n`);
    assert.match(stderr, /systemctl restart/);
    assert.equal(nodeOf(host, node), '0:990 640');
    const removed = await succeeds(host, `service set ${disk} --user-group=`);
    assert.doesNotMatch(removed.stderr, /systemctl restart/);
    assert.equal(nodeOf(host, node), '0:0 600');
    assert.equal(host.exists(rules), false);
    assert.doesNotMatch(
      host.readText(`/etc/pearasys/pci/${disk}-0x144d-0xa80a`) ?? '',
      /PEARASYS_(?:USER|GROUP|MODE)/,
    );
  });

  it('gives a node to the user that appears while the rules are written', async () => {
    const host = machine();
    await succeeds(host, `-s ${disk} service install vfio-pci --now`);
    const driver = '/sys/bus/pci/drivers/vfio-pci';
    host.machine.write(`${driver}/unbind`, disk);
    host.beforeEffect((effect) => {
      if (effect.kind !== 'file' || effect.path !== rules) return;
      host.machine.write(`${driver}/bind`, disk);
      host.userland.handleEvents();
      assert.equal(nodeOf(host, '/dev/vfio/10'), '0:0 600');
    });
    await succeeds(host, `service set ${disk} --user alice`);
    assert.equal(nodeOf(host, '/dev/vfio/10'), '1000:0 660');
  });

  it('keeps it when the record is written again', async () => {
    const host = machine();
    await succeeds(host, install);
    await succeeds(host, `-s ${card} service install vfio-pci --siblings --set d3cold_allowed=0`);
    assert.match(host.readText(record) ?? '', /^PEARASYS_USER=alice$/m);
    await succeeds(host, `-s ${disk} service install vfio-pci`);
    assert.match(host.readText(rules) ?? '', new RegExp(`^# ${card} 10de:1b80 alice vfio 0660$`, 'm'));
  });

  it('writes the rules again after a record was changed by hand', async () => {
    const host = machine();
    await succeeds(host, `${install} --now`);
    for (const path of [record, `/etc/pearasys/pci/${sound}-0x10de-0x10f0`])
      host.machine.tree.file(path, `${(host.readText(path) ?? '').replace('alice', 'bob')}\n`, 0o644);
    await succeeds(host, `service set ${card} --mode 0660`);
    assert.match(host.readText(rules) ?? '', /OWNER="bob"/);
    assert.equal(ownedBy(host), '1001:990 660');
  });

  it('names the other members of the group, which are opened together', async () => {
    const host = machine();
    const {stderr} = await succeeds(host, `-s ${card} service install vfio-pci --user alice`);
    assert.match(stderr, new RegExp(`users of ${card} .*: ${sound}`));
    assert.doesNotMatch(stderr, /0000:00:01\.1/);
    assert.doesNotMatch((await succeeds(host, install)).stderr, /users of/);
  });

  it('refuses two users for one group, and changes nothing', async () => {
    const host = machine();
    await succeeds(host, `-s ${card} service install vfio-pci --user alice`);
    const effects = host.effects().length;
    const {exitCode, stderr} = await typed(host, `-s ${sound} service install vfio-pci --user bob`);
    assert.equal(exitCode, 3);
    assert.match(stderr, /are in one IOMMU group, which only one user can open/);
    assert.equal(
      host
        .effects()
        .slice(effects)
        .some((line) => line.startsWith('write ')),
      false,
    );
    await succeeds(host, `-s ${sound} service install vfio-pci --user alice`);
  });

  for (const [words, message] of [
    ['--user mallory', /there is no user 'mallory'/],
    ['--user-group mallory', /there is no group 'mallory'/],
    ['--user alice",RUN+="x', /there is no user/],
    ['--mode 0777', /'0777' is not a mode/],
  ] as const)
    it(`refuses ${words} before any change`, async () => {
      const host = machine();
      const {exitCode, stderr} = await typed(host, `-s ${disk} service install vfio-pci ${words}`);
      assert.equal(exitCode, 2);
      assert.match(stderr, message);
      assert.equal(host.exists(rules), false);
    });

  it('refuses a driver that has no nodes for users', async () => {
    const host = machine();
    const {exitCode, stderr} = await typed(host, `-s ${disk} service install nvme --user alice`);
    assert.equal(exitCode, 3);
    assert.match(stderr, /nvme is not a userspace driver/);
  });

  it('needs something to set', async () => {
    const host = machine();
    await succeeds(host, `-s ${disk} service install vfio-pci`);
    const {exitCode, stderr} = await typed(host, `service set ${disk}`);
    assert.equal(exitCode, 2);
    assert.match(stderr, /no changes specified/);
  });

  it('ignores a record that others can write, as for the driver', async () => {
    const host = machine();
    await succeeds(host, `-s ${disk} service install vfio-pci --user alice --now`);
    const own = `/etc/pearasys/pci/${disk}-0x144d-0xa80a`;
    host.machine.tree.file(own, `${host.readText(own) ?? ''}\n`, 0o666);
    await succeeds(host, `-s ${card} service install vfio-pci --user bob`);
    assert.doesNotMatch(host.readText(rules) ?? '', /alice/);
    assert.equal(nodeOf(host, '/dev/vfio/10'), '0:0 600');
  });

  it('shows in a dry run what it would do, and does not', async () => {
    const host = machine();
    const {stdout} = await succeeds(host, `${install} --dry-run`);
    assert.match(stdout, /^cat > \/etc\/udev\/rules\.d\/61-pearasys-access\.rules <<'EOF'$/m);
    assert.match(stdout, /^udevadm control --reload$/m);
    assert.equal(host.exists(rules), false);
  });

  it('undoes the rules with all else', async () => {
    const host = machine();
    host.failCommand('systemctl start pearasys-0*', 1);
    const {exitCode} = await typed(host, `-s ${disk} service install vfio-pci --user alice --now`);
    assert.equal(exitCode, 1);
    assert.equal(host.exists(rules), false);
  });

  it('is kept until `confirm` makes a claim permanent', async () => {
    const host = machine();
    await succeeds(host, `-s ${disk} service install vfio-pci --user alice --now --confirm 60`);
    assert.equal(host.exists(rules), false);
    await succeeds(host, 'confirm');
    assert.equal(nodeOf(host, '/dev/vfio/10'), '1000:0 660');
  });

  it('applies to a card by its id in any slot, when it is recorded', async () => {
    const host = machine();
    await succeeds(host, '-d 144d:a80a service install vfio-pci --any-slot --user alice');
    assert.equal(host.exists(rules), false);
    const {exitCode, journal} = await runOn(host, recordHandler, disk);
    assert.equal(exitCode, 0, journal.join('\n'));
    assert.match(host.readText(rules) ?? '', new RegExp(`^# ${disk} 144d:a80a alice - 0660$`, 'm'));
    const refused = await typed(host, '-d 144d:a808 service install nvme --any-slot --user alice');
    assert.equal(refused.exitCode, 3);
  });

  it('follows a card whose record moves', async () => {
    const first: Boot = {topology: 'own root ports', numbered: true, shift: 0, places: [0, 1, 2, 3]};
    const boot = (shift: number) => {
      const declaration = machineAt({...first, shift});
      withProduct(declaration);
      withUsers(declaration);
      return new SimulatedHost(new SimulatedMachine(declaration));
    };
    const before = boot(0);
    await succeeds(before, `-s ${slotIn(first, 1)} service install vfio-pci --user alice`);
    const after = boot(3);
    for (const folder of ['/etc/pearasys/pci', '/etc/systemd/system', '/etc/udev/rules.d'])
      for (const name of before.list(folder)) {
        const text =
          before.info(`${folder}/${name}`)?.kind === 'file'
            ? before.readText(`${folder}/${name}`)
            : undefined;
        if (text !== undefined) after.machine.tree.file(`${folder}/${name}`, `${text}\n`, 0o644);
      }
    const slot = slotIn({...first, shift: 3}, 1);
    const {exitCode, journal} = await runOn(after, recordHandler, slot);
    assert.equal(exitCode, 0, journal.join('\n'));
    assert.match(after.readText(rules) ?? '', new RegExp(`^# ${slot} 10de:1b80 alice - 0660$`, 'm'));
    assert.doesNotMatch(after.readText(rules) ?? '', new RegExp(`^# ${slotIn(first, 1)} `, 'm'));
    before.dispose();
    after.dispose();
  });

  it('gives nothing to the user while the card of another record is in the slot', async () => {
    const host = machine();
    await succeeds(host, `${install} --now`);
    await succeeds(host, `bind default ${card} ${sound}`);
    host.machine.tree.file(`/run/pearasys/moved/${card}`, '', 0o644);
    host.machine.tree.file(`/run/pearasys/moved/${sound}`, '', 0o644);
    await succeeds(host, `bind vfio-pci ${card} ${sound}`);
    assert.equal(ownedBy(host), '0:0 600');
  });

  it('gives the node of a device without an IOMMU to the user too', async () => {
    const host = machine((declaration) => (declaration.iommu = false));
    await succeeds(host, 'driver no-iommu on --force');
    await succeeds(host, `-s ${disk} service install vfio-pci --user alice --now`);
    assert.equal(nodeOf(host, '/dev/vfio/noiommu-0'), '1000:0 660');
  });
});
