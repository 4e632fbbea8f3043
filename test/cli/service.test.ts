import assert from 'node:assert/strict';
import fs from 'node:fs';
import {mkdtempSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import type {ShowResult} from '../../src/entry/cli/commands/show.js';
import type {ServiceListResult} from '../../src/entry/cli/commands/service/list.js';
import type {ImportResult} from '../../src/entry/cli/commands/service/import.js';
import type {InstallResult} from '../../src/entry/cli/commands/service/install.js';
import {MachineHost} from '../../src/host/machine-host.js';
import type {SimulatedHost} from '../simulated-host/simulated-host.js';
import {functionOf, sriovCard} from '../simulated-host/standard-machine.js';
import {machines, runUnits} from '../unit/services.js';
import {Terminal, run, typed} from './runs.js';

const card = '0000:02:00.0';
const sound = '0000:02:00.1';
const folder = '/etc/systemd/system';
const record = `/etc/pearasys/pci/${card}-0x10de-0x1b80`;
const checked = `${record.replace('/etc/pearasys/pci', '/run/pearasys/checked')}@0000:00:01.1`;
const template = `${folder}/pearasys-${card}@.service`;
const claimTemplate = `${folder}/pearasys-claim-${card}@.service`;
const unit = (driver: string, slot = card) => `pearasys-${slot}@${driver}.service`;
const claimUnit = (driver: string, slot = card) => `pearasys-claim-${slot}@${driver}.service`;
const settings = (driver: string, slot = card) => `${folder}/${unit(driver, slot)}.d/50-pearasys.conf`;
const link = (driver: string, slot = card) =>
  `${folder}/sys-bus-pci-devices-${slot}.device.wants/${unit(driver, slot)}`;

describe('pearasys service', () => {
  const made = machines();

  /** Everything below /etc, with texts and links: to be compared whole. */
  function etc(host: SimulatedHost): Record<string, string> {
    const found: Record<string, string> = {};
    const look = (path: string) => {
      for (const entry of fs.readdirSync(host.machine.tree.onDisk(path), {withFileTypes: true})) {
        const own = `${path}/${entry.name}`;
        const real = host.machine.tree.onDisk(own);
        if (entry.isDirectory()) look(own);
        else
          found[own] = entry.isSymbolicLink() ? `-> ${fs.readlinkSync(real)}` : fs.readFileSync(real, 'utf8');
      }
    };
    look('/etc');
    return found;
  }

  const driverOf = (host: SimulatedHost, slot = card) => host.machine.device(slot).driver;

  async function ok(host: SimulatedHost, line: string): Promise<string> {
    const {exitCode, stdout, stderr} = await typed(host, line);
    assert.equal(exitCode, 0, stderr);
    await host.userland.idle();
    return stdout;
  }

  const list = async (host: SimulatedHost) =>
    JSON.parse((await typed(host, 'service list --json')).stdout) as ServiceListResult;

  describe('install', () => {
    it('writes record, template and settings, enables, and says how to start; the device stays as it is', async () => {
      const host = made();
      const before = host.machine.bindings();
      assert.equal(
        await ok(host, `-s ${card} service install vfio-pci`),
        `${unit('vfio-pci')} (${template}), enabled\n` +
          `to start: systemctl start ${unit('vfio-pci')}\n` +
          `to stop: systemctl stop ${unit('vfio-pci')}\n`,
      );
      assert.deepEqual(host.effects(), [
        `write ${record}`,
        `write ${claimTemplate}`,
        `write ${template}`,
        `write ${settings('vfio-pci')}`,
        `udevadm trigger --action=change /sys/bus/pci/devices/${card}`,
        `systemctl start sys-bus-pci-devices-${card}.device`,
        `ln -s ${template} ${link('vfio-pci')}`,
        'systemctl daemon-reload',
        `write ${checked}`,
      ]);
      assert.deepEqual(host.machine.bindings(), before);
      assert.match(
        host.readText(record) ?? '',
        /\nPEARASYS_SUBSYSTEM=1043:8599\nPEARASYS_PATH=0000:00\/01\.1\/00\.0$/,
      );
      assert.deepEqual(host.userland.jobs, []);
      assert.equal(host.info(record)?.mode, 0o644);
      assert.equal(host.readLink(link('vfio-pci')), template);
    });

    it('removes the unfinished files that a power cut has left, also if nothing else is to be done', async () => {
      const host = made();
      const wants = `${folder}/sys-bus-pci-devices-${card}.device.wants`;
      const folders = [
        '/etc/pearasys',
        '/etc/pearasys/pci',
        folder,
        wants,
        `${folder}/${unit('vfio-pci')}.d`,
      ];
      const leave = () => {
        for (const one of folders) host.machine.tree.file(`${one}/.pearasys-new/1.2.old`, 'PEARASYS_', 0o600);
      };
      const left = () => Object.keys(etc(host)).filter((path) => path.includes('.pearasys-new'));
      await ok(host, `-s ${card} service install vfio-pci`);
      const complete = etc(host);
      leave();
      assert.equal(left().length, folders.length);
      await ok(host, `-s ${card} service install vfio-pci`);
      assert.deepEqual(etc(host), complete);
      leave();
      await ok(host, `-s ${card} service uninstall`);
      assert.deepEqual(left(), []);
    });

    describe('what identifies the card', () => {
      const disk = '0000:04:00.0';
      const serialOf = (host: SimulatedHost, slot: string) => {
        const name = host.list('/etc/pearasys/pci').find((each) => each.startsWith(`${slot}-`)) ?? '';
        return /^PEARASYS_SERIAL=(.*)$/m.exec(host.readText(`/etc/pearasys/pci/${name}`) ?? '')?.[1];
      };
      const numbered = (...slots: readonly string[]) =>
        made(({functions}) => {
          for (const each of functions) if (slots.includes(each.slot)) each.dsn = '00-11-22-33-44-55-66-77';
        });

      it('the number that it has by PCI Express, unless another card of its kind has it too', async () => {
        const host = numbered(card);
        await ok(host, `-s ${card} service install vfio-pci`);
        assert.equal(serialOf(host, card), 'pcie:00-11-22-33-44-55-66-77');
        const alike = numbered(card, '0000:01:00.0');
        await ok(alike, `-s ${card} service install vfio-pci`);
        assert.equal(serialOf(alike, card), undefined);
      });

      it('the serial number of a disk, also when it can no longer be read', async () => {
        const host = made();
        await ok(host, `-s ${disk} service install vfio-pci`);
        const serial = serialOf(host, disk);
        assert.match(serial ?? '', /^nvme:/);
        await ok(host, `bind vfio-pci ${disk}`);
        await ok(host, `-s ${disk} service install vfio-pci`);
        assert.equal(serialOf(host, disk), serial);
      });
    });

    describe('what is a set', () => {
      const togetherOf = (host: SimulatedHost, slot: string) => {
        const name = host.list('/etc/pearasys/pci').find((each) => each.startsWith(`${slot}-`)) ?? '';
        return /^PEARASYS_TOGETHER=(.*)$/m.exec(host.readText(`/etc/pearasys/pci/${name}`) ?? '')?.[1];
      };
      const disk = '0000:04:00.0';
      const network = '0000:05:00.0';

      it('the functions of a card, and no other card that the command names', async () => {
        const host = made();
        await ok(host, `-s ${disk} -s ${sound} -s ${network} -s ${card} service install vfio-pci`);
        assert.equal(togetherOf(host, card), `${card},${sound}`);
        assert.equal(togetherOf(host, sound), `${card},${sound}`);
        for (const slot of [disk, network]) {
          assert.equal(togetherOf(host, slot), undefined);
          assert.doesNotMatch(
            host.readText(`${folder}/pearasys-${slot}@.service`) ?? '',
            /WantedBy=pearasys/,
          );
          assert.doesNotMatch(host.readText(settings('vfio-pci', slot)) ?? '', /PartOf=/);
        }
        // The same links as systemctl makes of what the units say: its words and ours are one.
        const links = host.list(`${folder}/${unit('vfio-pci')}.wants`);
        assert.deepEqual(links, [unit('vfio-pci', sound)]);
        for (const slot of [card, sound, disk, network])
          await host.run('systemctl', ['disable', unit('vfio-pci', slot)]);
        assert.deepEqual(
          host.list(folder).filter((name) => name.endsWith('.wants') && name.includes('0000:')),
          [],
        );
      });

      it('all members of a group with --group', async () => {
        const host = made((declaration) => {
          for (const each of declaration.functions) if ([disk, network].includes(each.slot)) each.group = 77;
        });
        await ok(host, `-s ${disk} service install vfio-pci --group`);
        assert.equal(togetherOf(host, disk), `${disk},${network}`);
        assert.equal(togetherOf(host, network), `${disk},${network}`);
      });

      it('not the virtual functions of the group, which go away with the driver of their PF', async () => {
        const pf = '0000:06:00.0';
        const host = made((declaration) => {
          const added = sriovCard(pf);
          added.sriov = {total: 8, virtualId: '8086:10ca', offset: 1, stride: 1, group: added.group ?? 0};
          declaration.functions.push(added);
        });
        host.machine.loadModule('igb');
        host.machine.sriov.setVirtualFunctions(pf, '1');
        await ok(host, `-s ${pf} service install vfio-pci --group`);
        assert.deepEqual(
          host.list('/etc/pearasys/pci').filter((name) => name.startsWith('0000:06')),
          [`${pf}-0x8086-0x10c9`],
        );
        assert.equal(togetherOf(host, pf), undefined);
        // With the driver that the PF is on they stay.
        await ok(host, `-s ${pf} service install igb --group`);
        assert.equal(togetherOf(host, pf), `${pf},0000:06:00.1`);
      });

      it('systemd and udev are asked once for any number', async () => {
        const host = made();
        const words = [card, sound, disk, network, '0000:01:00.0'].map((slot) => `-s ${slot}`).join(' ');
        // The only display is among them.
        await ok(host, `${words} service install vfio-pci --force`);
        const asked = host.effects().filter((line) => /^(?:systemctl|udevadm) /.test(line));
        assert.deepEqual(
          asked.map((line) => line.split(' ').slice(0, 2).join(' ')),
          ['udevadm trigger', 'systemctl start', 'systemctl daemon-reload'],
        );
        host.journal.length = 0;
        await ok(host, `${words} service uninstall`);
        assert.deepEqual(
          host
            .effects()
            .filter((line) => /^(?:systemctl|udevadm) /.test(line))
            .map((line) => line.split(' ').slice(0, 2).join(' ')),
          ['systemctl show', 'systemctl stop', 'systemctl daemon-reload'],
        );
      });
    });

    it('a second time changes nothing', async () => {
      const host = made();
      await ok(host, `-s ${card} service install vfio-pci --siblings`);
      const before = etc(host);
      const asked = host.journal.length;
      const {stdout} = await typed(host, `-s ${card} service install vfio-pci --siblings --json`);
      const result = JSON.parse(stdout) as InstallResult;
      assert.equal(result.changed, false);
      assert.deepEqual(result.steps, []);
      assert.deepEqual(result.units, [unit('vfio-pci'), unit('vfio-pci', sound)]);
      assert.deepEqual(etc(host), before);
      assert.deepEqual(
        host
          .effects()
          .slice(asked)
          .filter((line) => !line.startsWith('systemctl show')),
        [],
      );
    });

    it('--dry-run shows the steps and changes nothing', async () => {
      const host = made();
      host.userId = 1000;
      const before = etc(host);
      const shown = await ok(host, `-s ${card} service install vfio-pci --dry-run`);
      assert.match(shown, new RegExp(`^cat > ${record} <<'EOF'\n# Written by pearasys`));
      assert.match(shown, new RegExp(`^ln -sfn ${template} ${link('vfio-pci')}$`, 'm'));
      assert.deepEqual(etc(host), before);
      assert.deepEqual(host.effects(), []);
    });

    it('--now starts the unit, whose handler does not wait for a lock of this run', async () => {
      const host = made();
      const {runs} = runUnits(host);
      await ok(host, `-s ${card} service install vfio-pci --siblings --now`);
      assert.deepEqual([driverOf(host), driverOf(host, sound)], ['vfio-pci', 'vfio-pci']);
      assert.equal(host.userland.state(unit('vfio-pci')), 'active');
      assert.equal(host.userland.state(unit('vfio-pci', sound)), 'active');
      assert.equal(runs.get(claimUnit('vfio-pci'))?.exitCode, 0);
    });

    it('--now takes several cards at once: the units are started in one request', async () => {
      const host = made();
      runUnits(host);
      await ok(host, '-s 04:00.0 -s 05:00.0 service install vfio-pci --now');
      assert.deepEqual(
        [driverOf(host, '0000:04:00.0'), driverOf(host, '0000:05:00.0')],
        ['vfio-pci', 'vfio-pci'],
      );
    });

    it('--now that fails is undone: files, enabling, the device', async () => {
      const host = made();
      runUnits(host);
      host.refuseProbe(card, 'vfio-pci');
      const before = etc(host);
      const bindings = host.machine.bindings();
      const {exitCode, stderr} = await typed(host, `-s ${card} service install vfio-pci --siblings --now`);
      await host.userland.idle();
      assert.equal(exitCode, 1);
      assert.match(stderr, /dependency job for pearasys-0000:02:00\.0@vfio-pci\.service failed/);
      assert.match(stderr, /the reason is in the journal: journalctl -b -u 'pearasys-claim-\*'/);
      assert.match(stderr, /undone: /);
      assert.deepEqual(etc(host), before);
      assert.deepEqual(host.machine.bindings(), bindings);
      assert.equal(host.effects().at(-1), 'systemctl daemon-reload');
    });

    it('--now is refused before anything is written when the device is in use or the group is not viable', async () => {
      const host = made();
      const before = etc(host);
      for (const line of [
        '-s 01:00.0 service install vfio-pci --siblings --now',
        '-s 03:00.0 service install vfio-pci --now',
        `-s ${card} service install vfio-pci --now`,
      ]) {
        const {exitCode, stderr} = await typed(host, line);
        assert.equal(exitCode, 3, line);
        assert.match(stderr, /nothing was changed/);
      }
      assert.deepEqual(etc(host), before);
      assert.ok(host.effects().every((line) => line.startsWith('systemctl show')));
    });

    it('siblings stand and fall together', async () => {
      const host = made();
      await ok(host, `-s ${card} service install vfio-pci --siblings`);
      assert.match(host.readText(template) ?? '', new RegExp(`WantedBy=pearasys-${sound}@%i\\.service$`));
      assert.match(
        host.readText(settings('vfio-pci')) ?? '',
        new RegExp(`^PartOf=${unit('vfio-pci', sound)}$`, 'm'),
      );
      assert.match(
        host.readText(settings('vfio-pci', sound)) ?? '',
        new RegExp(`^PartOf=${unit('vfio-pci')}$`, 'm'),
      );
      assert.equal(host.exists(link('vfio-pci', sound)), true);
      assert.match(host.readText(record) ?? '', new RegExp(`^PEARASYS_TOGETHER=${card},${sound}$`, 'm'));
    });

    it('another driver for the slot: the first unit is disabled, and the two exclude each other', async () => {
      const host = made();
      await ok(host, `-s ${card} service install vfio-pci`);
      await ok(host, `-s ${card} service install nouveau`);
      assert.equal(host.exists(link('vfio-pci')), false);
      assert.equal(host.exists(link('nouveau')), true);
      assert.match(host.readText(record) ?? '', /^PEARASYS_DRIVER=nouveau$/m);
      assert.match(
        host.readText(settings('vfio-pci')) ?? '',
        new RegExp(`^Conflicts=${unit('nouveau')}$`, 'm'),
      );
      assert.match(
        host.readText(settings('nouveau')) ?? '',
        new RegExp(`^Conflicts=${unit('vfio-pci')}$`, 'm'),
      );
    });

    it('a rival that was disabled and stopped is enabled and started again when the new unit fails', async () => {
      const host = made();
      runUnits(host);
      await ok(host, `-s ${card} service install vfio-pci --siblings --now`);
      const before = etc(host);
      host.refuseProbe(card, 'pci-stub');
      const {exitCode} = await typed(host, `-s ${card} service install pci-stub --siblings --now`);
      await host.userland.idle();
      assert.equal(exitCode, 1);
      assert.deepEqual(etc(host), before);
      assert.equal(host.userland.state(unit('vfio-pci')), 'active');
      assert.deepEqual([driverOf(host), driverOf(host, sound)], ['vfio-pci', 'vfio-pci']);
    });

    it('replaces the record of the card that was in the slot before, and says so', async () => {
      const host = made();
      await ok(host, `-s ${card} service install vfio-pci`);
      host.machine.hotRemove(card);
      host.machine.hotAdd({...functionOf(host.machine.declaration, card), id: '10de:1b81'});
      const {exitCode, stderr} = await typed(host, `-s ${card} service install vfio-pci`);
      assert.equal(exitCode, 0);
      assert.equal(
        stderr,
        `pearasys: warning: replacing the record for the card 10de:1b80 in slot ${card}\n`,
      );
      assert.deepEqual(host.list('/etc/pearasys/pci'), [`${card}-0x10de-0x1b81`]);
    });

    it('writes over a record that was ignored, and puts it back as it was when it fails', async () => {
      const host = made();
      const truncated = 'PEARASYS_SLOT=0000:02:00.0\nPEARASYS_ID=10de:1b80\nPEARASYS_DRIVER=vfio';
      host.machine.tree.file(record, truncated, 0o664);
      const before = etc(host);
      host.failFile(link('vfio-pci'), 'ENOSPC', 1);
      assert.equal((await typed(host, `-s ${card} service install vfio-pci`)).exitCode, 1);
      assert.deepEqual(etc(host), before);
      assert.equal(host.info(record)?.mode, 0o664);
      const {exitCode, stderr} = await typed(host, `-s ${card} service install vfio-pci`);
      assert.equal(exitCode, 0);
      assert.match(stderr, /^pearasys: warning: replacing the record .*, which was ignored: .* chmod go-w/);
      assert.equal((await list(host)).problems.length, 0);
    });

    it('refuses to write where nobody would obey it, and over what is not root’s or no file', async () => {
      const host = made();
      const {tree, owners} = host.machine;
      tree.file(record, 'x\n', 0o644);
      owners.set(record, 1000);
      const refused = async () => {
        const {exitCode, stderr} = await typed(host, `-s ${card} service install vfio-pci`);
        assert.equal(exitCode, 3);
        assert.match(
          stderr,
          /^pearasys: refusing to write a record: \/etc\/pearasys\/pci.* is not trusted\n/,
        );
        assert.match(stderr, /nothing was changed/);
        return stderr;
      };
      assert.match(await refused(), /chown root/);
      owners.clear();
      tree.remove(record);
      tree.directory(record);
      assert.match(await refused(), /it is not a file/);
      tree.remove(record);
      owners.set('/etc/pearasys/pci', 1000);
      assert.match(await refused(), /chown root \/etc\/pearasys\/pci/);
      assert.equal(host.exists(template), false);
    });

    it('no space: the old record is whole, and nothing is half installed', async () => {
      const host = made();
      await ok(host, `-s ${card} service install nouveau`);
      const before = etc(host);
      for (const path of [record, template, settings('vfio-pci')]) {
        host.failFile(path, 'ENOSPC', 1);
        const {exitCode, stderr} = await typed(host, `-s ${card} service install vfio-pci --siblings`);
        assert.equal(exitCode, 1);
        assert.equal(stderr.split('\n')[0], `pearasys: writing ${path} failed: ENOSPC (no space left)`);
        assert.deepEqual(etc(host), before, path);
      }
    });

    for (const verb of ['daemon-reload', 'start'] as const)
      it(`a systemctl ${verb} that fails is undone`, async () => {
        const host = made();
        const before = etc(host);
        host.failCommand(`systemctl ${verb}*`, 1, 'Failed: no reason', 1);
        const {exitCode, stderr} = await typed(host, `-s ${card} service install vfio-pci`);
        assert.equal(exitCode, 1);
        assert.match(stderr, /Failed: no reason/);
        assert.deepEqual(etc(host), before);
      });

    it('an interrupt in between is undone', async () => {
      const host = made();
      const before = etc(host);
      host.afterEffect((effect) => {
        if (effect.kind === 'file' && effect.path === template) process.emit('SIGTERM');
      });
      const {exitCode, stderr} = await typed(host, `-s ${card} service install vfio-pci`);
      assert.equal(exitCode, 1);
      assert.match(stderr, /^pearasys: interrupted\n/);
      assert.deepEqual(etc(host), before);
      assert.equal(process.listenerCount('SIGTERM'), 0);
    });

    it('without being root: 1, and nothing is changed', async () => {
      const host = made();
      host.userId = 1000;
      const {exitCode, stderr} = await typed(host, `-s ${card} service install vfio-pci`);
      assert.equal(exitCode, 1);
      assert.match(stderr, /^pearasys: changing a device needs root\n/);
      assert.match(stderr, /sudo/);
    });

    it('names and ids that are wrong are refused with 2, and devices that are not there with 4', async () => {
      const host = made();
      const wrong: [string[], number, RegExp][] = [
        [['-s', '02:0', 'service', 'install', 'vfio-pci'], 2, /'02:0' is neither a slot nor an id/],
        [['-s', '2:0.0', 'service', 'install', 'vfio-pci'], 2, /is neither a slot nor an id/],
        [['-d', '10de:1b8', 'service', 'install', 'vfio-pci'], 2, /'10de:1b8' is not an id/],
        [['-d', '10de:1b80', 'service', 'install', 'vfio-pci'], 2, /id 10de:1b80 matches 2 devices/],
        [['-d', '10de:ffff', 'service', 'install', 'vfio-pci'], 4, /no device with id 10de:ffff/],
        [['-s', '77:00.0', 'service', 'install', 'vfio-pci'], 4, /no device in slot 0000:77:00\.0/],
        [['-s', card, 'service', 'install', '../x'], 2, /is not a driver's name/],
        [['-s', card, 'service', 'install', '04:00.0'], 2, /looks like a device/],
        [['-s', card, 'service', 'install', ''], 2, /is not a driver's name|missing/],
        [['-s', card, 'service', 'install', 'vfoi-pci'], 2, /the nearest is vfio-pci/],
        [['-s', card, 'service', 'install', 'a@b'], 2, /is not a driver's name/],
        [['-s', card, 'service', 'install'], 2, /missing: DRIVER/],
        [['service', 'install', 'vfio-pci'], 2, /no device was named/],
        [['-s', '00:01.1', 'service', 'install', 'vfio-pci'], 3, /is a bridge/],
      ];
      const before = etc(host);
      for (const [argv, code, message] of wrong) {
        const {exitCode, stderr} = await run(host, argv);
        assert.equal(exitCode, code, `${argv.join(' ')}\n${stderr}`);
        assert.match(stderr, message);
      }
      assert.deepEqual(etc(host), before);
    });

    it('a device that goes while this waits for the lock: still recorded, as a unit without its card', async () => {
      const host = made();
      host.beforeEffect((effect) => {
        if (effect.kind === 'file' && effect.path === record && host.machine.functions.has(card))
          host.machine.hotRemove(card);
      });
      const {exitCode} = await typed(host, `-s ${card} service install vfio-pci`);
      // The trigger names a device that has gone: undone.
      assert.equal(exitCode, 1);
      assert.equal(host.exists(record), false);
      assert.equal(host.exists(template), false);
    });

    describe('--prefix', () => {
      const prefix = '/opt/units';
      const linked = `${prefix}/pearasys-${card}@.service`;

      it('writes the template there and links it; the settings stay where systemd looks for them', async () => {
        const host = made();
        runUnits(host);
        assert.equal(
          (await ok(host, `-s ${card} service install vfio-pci --siblings --now --prefix ${prefix}`)).split(
            '\n',
          )[0],
          `${unit('vfio-pci')} (${linked}), enabled`,
        );
        assert.equal(host.readLink(template), linked);
        assert.equal(host.exists(settings('vfio-pci')), true);
        assert.deepEqual(host.list(prefix), [
          `pearasys-${card}@.service`,
          `pearasys-${sound}@.service`,
          `pearasys-claim-${card}@.service`,
          `pearasys-claim-${sound}@.service`,
        ]);
        assert.equal(driverOf(host), 'vfio-pci');
      });

      it('a second time changes nothing, and uninstall takes all of it away', async () => {
        const host = made();
        const before = etc(host);
        await ok(host, `-s ${card} service install vfio-pci --prefix ${prefix}/`);
        const {stdout} = await typed(host, `-s ${card} service install vfio-pci --prefix ${prefix} --json`);
        assert.equal((JSON.parse(stdout) as InstallResult).changed, false);
        const installed = etc(host);
        host.failFile(linked, 'EROFS', 1);
        assert.equal((await typed(host, `-s ${card} service uninstall`)).exitCode, 1);
        assert.deepEqual(etc(host), installed);
        await ok(host, `-s ${card} service uninstall`);
        assert.deepEqual(etc(host), before);
        assert.equal(host.exists(prefix), false);
      });

      it('moves a template that was installed elsewhere, both ways', async () => {
        const host = made();
        await ok(host, `-s ${card} service install vfio-pci`);
        const plain = etc(host);
        await ok(host, `-s ${card} service install vfio-pci --prefix ${prefix}`);
        assert.equal(host.readLink(template), linked);
        await ok(host, `-s ${card} service install vfio-pci`);
        assert.deepEqual(etc(host), plain);
      });

      it('that fails is undone', async () => {
        const host = made();
        const before = etc(host);
        host.failFile(template, 'ENOSPC', 1);
        const {exitCode, stderr} = await typed(
          host,
          `-s ${card} service install vfio-pci --prefix ${prefix}`,
        );
        assert.equal(exitCode, 1);
        assert.doesNotMatch(stderr, /could not be undone/);
        assert.deepEqual(etc(host), before);
        assert.equal(host.exists(prefix), false);
      });

      it('is refused where it is no place for units', async () => {
        const host = made();
        host.machine.tree.file('/opt/file', 'x');
        host.machine.tree.textLink('/opt/link', '/usr/lib/systemd/system');
        const before = etc(host);
        for (const [wrong, message] of [
          ['units', /is not a folder for units/],
          ['', /is not a folder for units/],
          ['/opt/../etc', /is not a folder for units/],
          ['/opt/./units', /is not a folder for units/],
          ['/opt/a b', /is not a folder for units/],
          ['/opt/file', /is not a folder\n/],
          ['/run/systemd/system', /is reserved for packages or for one boot/],
          ['/usr/lib/systemd/system', /is reserved for packages or for one boot/],
          ['/lib/systemd', /is reserved for packages or for one boot/],
          ['/etc/systemd', /is reserved for packages or for one boot/],
          ['/etc//systemd/user', /is reserved for packages or for one boot/],
          ['/etc/systemd/system/x.d', /is reserved for packages or for one boot/],
          ['/opt/link', /is reserved for packages or for one boot/],
        ] as const) {
          const {exitCode, stderr} = await run(host, [
            ...['-s', card, 'service', 'install', 'vfio-pci', '--prefix', wrong],
          ]);
          assert.equal(exitCode, 2, `${wrong}: ${stderr}`);
          assert.match(stderr, message);
        }
        assert.deepEqual(etc(host), before);
      });
    });

    describe('--any-slot', () => {
      const any = '/etc/pearasys/pci/any-0x8086-0x10d3';

      it('records the id alone, once', async () => {
        const host = made();
        assert.equal(
          await ok(host, 'service install vfio-pci --any-slot -d 8086:10d3'),
          'Each card with id 8086:10d3 gets a unit for vfio-pci when it appears, at boot or at hot-add.\n',
        );
        assert.deepEqual(host.effects(), [`write ${any}`]);
        await ok(host, '-d 8086:10d3 service install vfio-pci --any-slot');
        assert.equal(host.journal.length, 1);
        assert.deepEqual((await list(host)).services, [
          {
            id: '8086:10d3',
            card: 'matches',
            elsewhere: [],
            identity: null,
            slot: 'any',
            driver: 'vfio-pci',
            unit: null,
            enabled: true,
            active: null,
            access: null,
            unknown: [],
            source: 'record',
            switchedOff: false,
            quarantined: null,
          },
        ]);
      });

      it('takes one id, no slot, not --now, and a driver that there is', async () => {
        const host = made();
        for (const [line, message] of [
          ['service install vfio-pci --any-slot', /--any-slot needs one id and no slot/],
          [
            '-d 8086:10d3 -d 10de:1b80 service install vfio-pci --any-slot',
            /--any-slot needs one id and no slot/,
          ],
          [
            '-s 05:00.0 -d 8086:10d3 service install vfio-pci --any-slot',
            /--any-slot needs one id and no slot/,
          ],
          ['-d 8086:10d3 service install vfio-pci --any-slot --now', /--any-slot cannot be used with --now/],
          ['-d eth1 service install vfio-pci --any-slot', /'eth1' is not an id/],
          ['-d 8086:10d3 service install vfio --any-slot --dry-run', undefined],
          ['-d 8086:10d3 service install vfoi-pci --any-slot', /the nearest is vfio-pci/],
        ] as const) {
          const {exitCode, stderr} = await typed(host, line);
          assert.equal(exitCode, message === undefined ? 0 : 2, `${line}\n${stderr}`);
          if (message !== undefined) assert.match(stderr, message);
        }
        assert.deepEqual(host.effects(), []);
      });

      it('a card of it that appears gets its own record and unit, and is claimed', async () => {
        const host = made((declaration) => {
          functionOf(declaration, '0000:05:00.0').present = false;
        });
        runUnits(host);
        await ok(host, '-d 8086:10d3 service install vfio-pci --any-slot');
        host.machine.hotAdd('0000:05:00.0');
        await host.userland.idle();
        // Its start was only queued.
        await host.run('systemctl', ['start', unit('vfio-pci', '0000:05:00.0')]);
        assert.equal(driverOf(host, '0000:05:00.0'), 'vfio-pci');
        assert.equal(host.userland.state(unit('vfio-pci', '0000:05:00.0')), 'active');
        assert.equal(host.exists(link('vfio-pci', '0000:05:00.0')), true);
        assert.equal(host.exists('/etc/pearasys/pci/0000:05:00.0-0x8086-0x10d3'), true);
        await ok(host, '-d 8086:10d3 service uninstall --any-slot');
        assert.equal(host.exists(any), false);
        assert.equal(driverOf(host, '0000:05:00.0'), 'vfio-pci');
      });
    });
  });

  describe('what a newer version has written', () => {
    const any = '/etc/pearasys/pci/any-0x8086-0x10d3';
    const network = '/etc/pearasys/pci/0000:05:00.0-0x8086-0x10d3';
    const unknown = [{key: 'PEARASYS_COLOR', value: 'red'}];
    const note = (path: string) =>
      `pearasys: warning: ${path}: PEARASYS_COLOR is not known to this version: it is kept, and has no effect\n`;
    /** Adds what this version does not know. */
    function extend(host: SimulatedHost, path: string): void {
      host.machine.tree.file(path, `${host.readText(path) ?? ''}\nPEARASYS_COLOR=red\n`, 0o644);
    }
    const isKept = (host: SimulatedHost, path: string) =>
      assert.match(host.readText(path) ?? '', /\nPEARASYS_COLOR=red$/);

    it('is told by list and show, and does not hinder the claim', async () => {
      const host = made();
      runUnits(host);
      await ok(host, `-s ${card} service install vfio-pci`);
      extend(host, record);
      assert.equal((await typed(host, 'service list')).stderr, note(record));
      assert.equal((await typed(host, `show ${card}`)).stderr.includes(note(record)), true);
      assert.deepEqual((await list(host)).services[0]?.unknown, unknown);
      const shown = JSON.parse((await typed(host, `show ${card} --json`)).stdout) as ShowResult;
      assert.deepEqual(shown.devices[0]?.record?.unknown, unknown);
      await host.run('systemctl', ['start', unit('vfio-pci')]);
      assert.equal(driverOf(host), 'vfio-pci');
    });

    it('is kept when the record gets another driver, and the same again changes nothing', async () => {
      const host = made();
      await ok(host, `-s ${card} service install vfio-pci`);
      extend(host, record);
      host.journal.length = 0;
      await ok(host, `-s ${card} service install vfio-pci`);
      assert.deepEqual(
        host.effects().filter((line) => !line.startsWith('systemctl show')),
        [],
      );
      await ok(host, `-s ${card} service install none`);
      assert.match(host.readText(record) ?? '', /^PEARASYS_DRIVER=none$/m);
      isKept(host, record);
    });

    it('is kept by --any-slot, and for each card that is recorded by it', async () => {
      const host = made((declaration) => {
        functionOf(declaration, '0000:05:00.0').present = false;
      });
      runUnits(host);
      await ok(host, '-d 8086:10d3 service install vfio-pci --any-slot');
      extend(host, any);
      await ok(host, '-d 8086:10d3 service install none --any-slot');
      isKept(host, any);
      host.machine.hotAdd('0000:05:00.0');
      await host.userland.idle();
      assert.match(host.readText(network) ?? '', /^PEARASYS_DRIVER=none$/m);
      isKept(host, network);
    });

    it('is kept by import', async () => {
      const host = made();
      await ok(host, `-s ${card} service install vfio-pci`);
      extend(host, record);
      host.machine.tree.directory('/etc/driverctl.d');
      host.machine.tree.file(`/etc/driverctl.d/pci-${card}`, 'none\n', 0o644);
      await ok(host, 'service import');
      assert.match(host.readText(record) ?? '', /^PEARASYS_DRIVER=none$/m);
      isKept(host, record);
    });
  });

  describe('uninstall', () => {
    it('takes along what was installed together, and says how to give the devices back', async () => {
      const host = made();
      runUnits(host);
      await ok(host, '-s 02:00.0 service install vfio-pci --siblings --now');
      const {exitCode, stdout, stderr} = await typed(host, '-s 02:00.1 service uninstall');
      assert.equal(exitCode, 0, stderr);
      assert.equal(stdout, 'uninstalled: 0000:02:00.0, 0000:02:00.1\n');
      assert.match(
        stderr,
        /without a driver now; to return it to the host: pearasys bind default 0000:02:00\.0 0000:02:00\.1\n$/,
      );
      assert.deepEqual(host.list('/etc/pearasys/pci'), []);
      assert.deepEqual(
        host.list('/etc/systemd/system').filter((name) => name.includes('pearasys')),
        [],
      );
    });

    it('stops, disables and removes all of it; the device is released', async () => {
      const host = made();
      runUnits(host);
      const before = etc(host);
      await ok(host, `-s ${card} service install vfio-pci --siblings --now`);
      assert.equal(
        await ok(host, `-s ${card} -s ${sound} service uninstall`),
        `uninstalled: ${card}, ${sound}\n`,
      );
      assert.deepEqual(etc(host), before);
      assert.deepEqual([driverOf(host), driverOf(host, sound)], [undefined, undefined]);
      assert.deepEqual(await list(host), {services: [], problems: []});
    });

    it('takes nothing back and ends with 5 when the unit’s own write does not return', async () => {
      const host = made();
      const units = runUnits(host);
      await ok(host, `-s ${card} service install vfio-pci --siblings --now`);
      const before = etc(host);
      units.host.neverReturn('/sys/bus/pci/drivers/vfio-pci/unbind');
      const {exitCode, stderr} = await typed(host, `-s ${card} service uninstall`);
      assert.equal(exitCode, 5, stderr);
      assert.match(stderr, /is locked by the kernel: an earlier write to it/);
      assert.deepEqual(etc(host), before);
    });

    it('needs no card', async () => {
      const host = made();
      runUnits(host);
      const before = etc(host);
      await ok(host, `-s ${card} service install vfio-pci`);
      host.machine.hotRemove(card);
      await host.userland.idle();
      await ok(host, '-d 10de:1b80 service uninstall');
      assert.deepEqual(etc(host), before);
    });

    it('takes the units of all drivers of the slot', async () => {
      const host = made();
      const before = etc(host);
      await ok(host, `-s ${card} service install vfio-pci`);
      await ok(host, `-s ${card} service install nouveau`);
      await ok(host, `-s ${card} service uninstall`);
      assert.deepEqual(etc(host), before);
    });

    it('that fails is undone, and what was stopped is started again', async () => {
      const host = made();
      runUnits(host);
      await ok(host, `-s ${card} service install vfio-pci --siblings --now`);
      const before = etc(host);
      host.failFile(template, 'EROFS', 1);
      const {exitCode, stderr} = await typed(host, `-s ${card} -s ${sound} service uninstall`);
      await host.userland.idle();
      assert.equal(exitCode, 1);
      assert.match(stderr, /^pearasys: removing .* failed: EROFS/);
      assert.deepEqual(etc(host), before);
      assert.deepEqual([driverOf(host), driverOf(host, sound)], ['vfio-pci', 'vfio-pci']);
      assert.equal(host.userland.state(unit('vfio-pci')), 'active');
    });

    it('a device that a guest still uses is told, and stays where it is', async () => {
      const host = made();
      runUnits(host);
      await ok(host, '-s 05:00.0 service install vfio-pci --now');
      host.machine.addProcess({
        pid: 4321,
        comm: 'qemu-system-x86',
        holds: ['/dev/vfio/11', 'anon_inode:[vfio-device]'],
      });
      const {exitCode, stderr} = await typed(host, '-s 05:00.0 service uninstall');
      assert.equal(exitCode, 0);
      assert.equal(
        stderr,
        'pearasys: warning: 0000:05:00.0 is still on vfio-pci: its unit could not release it; the reason is in the journal\n',
      );
      assert.equal(driverOf(host, '0000:05:00.0'), 'vfio-pci');
    });

    it('leaves a record that is ignored, and says so', async () => {
      const host = made();
      await ok(host, `-s ${card} service install vfio-pci`);
      const other = `/etc/pearasys/pci/${card}-0x10de-0x1b81`;
      host.machine.tree.file(other, 'nonsense\n', 0o644);
      const {exitCode, stderr} = await typed(host, `-s ${card} service uninstall`);
      assert.equal(exitCode, 0);
      assert.match(
        stderr,
        /^pearasys: warning: the record .*1b81 is ignored and left as it is: line 1 is 'nonsense'/,
      );
      assert.equal(host.readText(other), 'nonsense');
      const again = await typed(host, `-s ${card} service uninstall`);
      assert.equal(again.exitCode, 4);
      assert.match(again.stderr, /is ignored and left as it is/);
    });

    it('of nothing is 4, of no one is 2', async () => {
      const host = made();
      for (const [line, code, message] of [
        [`-s ${card} service uninstall`, 4, /nothing is installed for 0000:02:00\.0/],
        ['service uninstall', 2, /no slot was named/],
        ['-s zz:yy service uninstall', 2, /'zz:yy' is neither a slot nor an id/],
        ['-s nonsense service uninstall', 4, /no device, interface or disk called 'nonsense'/],
        ['-d 10de:ffff service uninstall', 2, /there is no record for id 10de:ffff/],
        ['-d 10de service uninstall', 2, /'10de' is not an id/],
        ['-d 10de:1b80 service uninstall --any-slot', 4, /no record for id 10de:1b80 in any slot/],
        ['service uninstall --any-slot', 2, /--any-slot needs one id and no slot/],
      ] as const) {
        const {exitCode, stderr} = await typed(host, line);
        assert.equal(exitCode, code, `${line}\n${stderr}`);
        assert.match(stderr, message);
      }
      assert.deepEqual(host.effects(), []);
    });

    it('--dry-run changes nothing', async () => {
      const host = made();
      await ok(host, `-s ${card} service install vfio-pci`);
      const before = etc(host);
      assert.equal(
        await ok(host, `-s ${card} service uninstall --dry-run`),
        `systemctl stop ${unit('vfio-pci')}\n` +
          `rm ${checked}\nrm ${link('vfio-pci')}\nrm ${settings('vfio-pci')}\nrm ${claimTemplate}\nrm ${template}\nrm ${record}\n` +
          'systemctl daemon-reload\n',
      );
      assert.deepEqual(etc(host), before);
    });
  });

  describe('import', () => {
    const saved = (slot: string) => `/etc/driverctl.d/pci-${slot}`;
    const savedBy = (files: Record<string, string>, mode = 0o644) => {
      const host = made();
      host.machine.tree.directory('/etc/driverctl.d');
      for (const [path, text] of Object.entries(files)) host.machine.tree.file(path, text, mode);
      return host;
    };

    it('takes over what driverctl has saved, and leaves the devices as they are', async () => {
      const host = savedBy({[saved(card)]: 'vfio-pci\n', [saved('0000:05:00.0')]: 'none\n'});
      const before = host.machine.bindings();
      assert.equal(
        await ok(host, 'service import'),
        `${unit('vfio-pci')}, enabled; ${saved(card)} was removed\n` +
          `${unit('none', '0000:05:00.0')}, enabled; ${saved('0000:05:00.0')} was removed\n`,
      );
      assert.deepEqual(host.list('/etc/driverctl.d'), []);
      assert.equal(host.info('/etc/driverctl.d')?.kind, 'directory');
      assert.match(host.readText(record) ?? '', /^PEARASYS_DRIVER=vfio-pci$/m);
      assert.equal(host.exists(link('vfio-pci')), true);
      assert.deepEqual(host.machine.bindings(), before);
      assert.equal((await typed(host, 'service import')).stderr, 'nothing to import from /etc/driverctl.d\n');
    });

    it('leaves what it cannot take over, and says why', async () => {
      const files = {
        [saved('0000:0f:00.0')]: 'vfio-pci\n',
        [saved(card)]: 'not a driver\n',
        '/etc/driverctl.d/vmbus-1': 'x\n',
      };
      const host = savedBy(files);
      const before = etc(host);
      const {exitCode, stdout} = await typed(host, 'service import --json');
      assert.equal(exitCode, 0);
      const {left, changed} = JSON.parse(stdout) as ImportResult;
      assert.equal(changed, false);
      assert.deepEqual(left.map(({path}) => path).sort(), Object.keys(files).sort());
      assert.deepEqual(etc(host), before);
    });

    it('does not obey a file that others can write', async () => {
      const host = savedBy({[saved(card)]: 'vfio-pci\n'}, 0o666);
      assert.match(
        (await typed(host, 'service import')).stderr,
        /is left unchanged: .* is writable by others/,
      );
      assert.equal(host.exists(record), false);
    });

    it('puts the file back when installing fails', async () => {
      const host = savedBy({[saved(card)]: 'vfio-pci\n'});
      const before = etc(host);
      host.failFile(link('vfio-pci'), 'ENOSPC', 1);
      assert.equal((await typed(host, 'service import')).exitCode, 1);
      assert.deepEqual(etc(host), before);
      assert.match(await ok(host, 'service import --dry-run'), new RegExp(`^rm ${saved(card)}$`, 'm'));
      assert.deepEqual(etc(host), before);
    });
  });

  describe('list', () => {
    it('is empty where nothing is installed', async () => {
      const host = made();
      assert.equal(await ok(host, 'service list'), '');
    });

    it('shows enabled and disabled, active and failed, and whether the card is the recorded one', async () => {
      const host = made();
      runUnits(host);
      await ok(host, `-s ${card} service install vfio-pci --siblings --now`);
      await ok(host, '-s 05:00.0 service install vfio-pci');
      await ok(host, '-s 04:00.0 service install nvme');
      await host.run('systemctl', ['disable', unit('nvme', '0000:04:00.0')]);
      host.machine.hotRemove('0000:05:00.0');
      await host.userland.idle();
      host.machine.hotRemove(card);
      await host.userland.idle();
      host.machine.hotAdd({...functionOf(host.machine.declaration, card), id: '10de:1b81'});
      await host.userland.idle();
      assert.equal(
        await ok(host, 'service list'),
        `${card}\t10de:1b80\tvfio-pci\tenabled\tfailed\tother-card\trecord\n` +
          `${sound}\t10de:10f0\tvfio-pci\tenabled\tactive\tmatches\trecord\n` +
          '0000:04:00.0\t144d:a80a\tnvme\tdisabled\tinactive\tmatches\trecord\n' +
          '0000:05:00.0\t8086:10d3\tvfio-pci\tenabled\tinactive\tabsent\trecord\n',
      );
    });

    it('is a table on a terminal', async () => {
      const host = made();
      await ok(host, `-s ${card} service install vfio-pci`);
      const stdout = new Terminal(100);
      await typed(host, 'service list', {stdout, environment: {NO_COLOR: '1'}});
      assert.deepEqual(
        stdout.text.split('\n').map((line) => line.split(/ {2,}/)),
        [
          ['SLOT', 'ID', 'DRIVER', 'AT BOOT', 'UNIT', 'CARD'],
          [card, '10de:1b80', 'vfio-pci', 'enabled', 'inactive', 'matches'],
          [''],
        ],
      );
    });

    it('shows where a claim comes from that pearasys-generator has written, and such a claim is not uninstalled', async () => {
      const host = made();
      const disk = '0000:04:00.0';
      const generated = '/run/systemd/generator';
      for (const [slot, id, source] of [
        [card, '10de:1b80', 'kernel-command-line'],
        [disk, '144d:a80a', 'credential'],
      ] as const) {
        host.machine.tree.file(
          `/run/pearasys/pci/${slot}-0x${id.replace(':', '-0x')}`,
          `PEARASYS_SLOT=${slot}\nPEARASYS_ID=${id}\nPEARASYS_DRIVER=vfio-pci\nPEARASYS_SOURCE=${source}\n`,
          0o644,
        );
        host.machine.tree.file(`${generated}/pearasys-${slot}@.service`, '[Unit]\n', 0o644);
        host.machine.tree.textLink(
          `${generated}/sys-bus-pci-devices-${slot}.device.wants/${unit('vfio-pci', slot)}`,
          `../pearasys-${slot}@.service`,
        );
      }
      const shown = await list(host);
      assert.deepEqual(
        shown.services.map(({slot, source, enabled}) => [slot, source, enabled]),
        [
          [card, 'kernel-command-line', true],
          [disk, 'credential', true],
        ],
      );
      const stdout = new Terminal(120);
      await typed(host, 'service list', {stdout, environment: {NO_COLOR: '1'}});
      assert.match(stdout.text, /CARD +FROM\n.* matches +kernel-command-line\n.* matches +credential\n/);
      const {exitCode, stderr} = await typed(host, `-s ${card} service uninstall`);
      assert.equal(exitCode, 3);
      assert.match(stderr, /cannot be uninstalled: it is not from a record/);
      assert.match(stderr, /is claimed by pearasys\.claim= on the kernel command line, at each boot/);
      // A record replaces it.
      await ok(host, `-s ${card} service install pci-stub`);
      const replaced = (await list(host)).services.find(({driver}) => driver === 'pci-stub');
      assert.deepEqual([replaced?.slot, replaced?.source], [card, 'record']);
    });

    it('names records that are ignored, on standard error and in JSON', async () => {
      const host = made();
      host.machine.tree.file(record, 'nonsense\n', 0o644);
      const {exitCode, stdout, stderr} = await typed(host, 'service list');
      assert.equal(exitCode, 0);
      assert.equal(stdout, '');
      assert.match(
        stderr,
        new RegExp(`^pearasys: warning: the record ${record} is ignored: line 1 is 'nonsense'`),
      );
      assert.deepEqual(
        (await list(host)).problems.map(({path}) => path),
        [record],
      );
    });

    it('shows a unit without a record, a record without a unit, and both records of a slot', async () => {
      const host = made();
      await ok(host, `-s ${card} service install vfio-pci`);
      await ok(host, '-s 05:00.0 service install vfio-pci');
      host.machine.tree.remove('/etc/pearasys/pci/0000:05:00.0-0x8086-0x10d3');
      const other = `${record.slice(0, -1)}1`;
      host.machine.tree.file(other, (host.readText(record) ?? '').replaceAll('1b80', '1b81') + '\n', 0o644);
      host.machine.tree.file(
        '/etc/pearasys/pci/0000:09:00.0-0x10de-0x1b80',
        'PEARASYS_SLOT=0000:09:00.0\nPEARASYS_ID=10de:1b80\nPEARASYS_DRIVER=none\n',
        0o644,
      );
      const {services} = await list(host);
      assert.deepEqual(
        services.map(({slot, id, unit: name, card: match, enabled}) => [slot, id, name, match, enabled]),
        [
          [card, '10de:1b80', unit('vfio-pci'), 'matches', true],
          [card, '10de:1b81', null, 'other-card', false],
          ['0000:05:00.0', null, unit('vfio-pci', '0000:05:00.0'), 'unrecorded', true],
          ['0000:09:00.0', '10de:1b80', null, 'absent', false],
        ],
      );
    });
  });

  it('disable means hands off at the next hot-add, enable brings it back; nothing of the files changes', async () => {
    const host = made();
    runUnits(host);
    await ok(host, `-s ${card} service install vfio-pci`);
    await host.run('systemctl', ['disable', unit('vfio-pci')]);
    const replug = async () => {
      host.machine.hotRemove(card);
      host.machine.hotAdd(card);
      await host.userland.idle();
      return driverOf(host);
    };
    assert.equal(await replug(), 'nouveau');
    await host.run('systemctl', ['enable', unit('vfio-pci')]);
    assert.equal(await replug(), 'vfio-pci');
  });

  describe('on an image', () => {
    let image: string;
    beforeEach(() => {
      image = mkdtempSync(join(tmpdir(), 'pearasys-image-'));
      fs.mkdirSync(`${image}/etc`);
    });
    afterEach(() => fs.rmSync(image, {recursive: true, force: true}));

    /** The image as its own host, but for systemctl: it is asked to work in the image. */
    class ImageHost extends MachineHost {
      readonly asked: string[] = [];
      override run(file: string, args: readonly string[]) {
        this.asked.push([file, ...args].join(' '));
        return Promise.resolve({status: 0, stdout: '', stderr: ''});
      }
      override lock() {
        return Promise.resolve({release: () => Promise.resolve()});
      }
    }

    const install = (host: MachineHost, ...argv: string[]) =>
      run(host as unknown as SimulatedHost, [...argv, '--json']);

    it('slot and id together say which card; nothing runs in the image', async () => {
      const host = new ImageHost(image);
      const {exitCode, stderr} = await install(
        host,
        '-s',
        card,
        '-d',
        '10de:1b80',
        'service',
        'install',
        'vfio-pci',
      );
      assert.equal(exitCode, 0, stderr);
      assert.deepEqual(host.asked, []);
      assert.equal(fs.readlinkSync(image + link('vfio-pci')), template);
      assert.equal(fs.existsSync(image + record), true);
      assert.equal(fs.existsSync(image + template), true);
      assert.match(
        fs.readFileSync(image + settings('vfio-pci'), 'utf8'),
        /^Description=device 10de:1b80 \(PCI device/m,
      );
      const again = await install(host, '-s', card, '-d', '10de:1b80', 'service', 'install', 'vfio-pci');
      assert.deepEqual((JSON.parse(again.stdout) as InstallResult).steps, []);
      assert.equal((await install(host, '-s', card, 'service', 'uninstall')).exitCode, 0);
      assert.equal(fs.existsSync(image + record), false);
    });

    it('a driver that none of its kernels has is refused', async () => {
      const host = new ImageHost(image);
      for (const [release, module] of [
        ['6.1.0-28-amd64', 'nvme'],
        ['6.12.9-amd64', 'vfio-pci'],
      ] as const) {
        fs.mkdirSync(`${image}/lib/modules/${release}`, {recursive: true});
        fs.writeFileSync(`${image}/lib/modules/${release}/modules.dep`, `kernel/${module}.ko.xz:\n`);
      }
      const request = (driver: string) =>
        install(host, '-s', card, '-d', '10de:1b80', 'service', 'install', driver);
      const {exitCode, stdout} = await request('vfoi-pci');
      assert.equal(exitCode, 2, stdout);
      assert.equal(fs.existsSync(image + record), false);
      assert.equal((await request('vfio-pci')).exitCode, 0);
    });

    it('one of them alone, and --now, are refused', async () => {
      const host = new ImageHost(image);
      for (const [argv, message] of [
        [['-s', card, 'service', 'install', 'vfio-pci'], /an image has no devices/],
        [['-d', '10de:1b80', 'service', 'install', 'vfio-pci'], /an image has no devices/],
        [
          ['-s', card, '-d', '10de:1b80', 'service', 'install', 'vfio-pci', '--now'],
          /--now cannot be used with --root/,
        ],
      ] as const) {
        const {exitCode, stderr} = await install(host, ...argv);
        assert.equal(exitCode, 2, stderr);
        assert.match(stderr, message);
      }
      assert.deepEqual(host.asked, []);
      assert.deepEqual(fs.readdirSync(`${image}/etc`), []);
    });
  });
});
