import assert from 'node:assert/strict';
import {claim} from '../../src/entry/handlers/claim.js';
import {report, takeArguments} from '../../src/entry/handlers/handler.js';
import {record} from '../../src/entry/handlers/record.js';
import {release} from '../../src/entry/handlers/release.js';
import type {MachineDeclaration} from '../simulated-host/declaration.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {functionOf} from '../simulated-host/standard-machine.js';
import {typed} from '../cli/runs.js';
import {runOn, withProduct} from './services.js';

const card = '0000:02:00.0';
const sound = '0000:02:00.1';
const file = `/etc/pearasys/pci/${card}-0x10de-0x1b80`;
const mark = `/run/pearasys/released/${card}`;
const unit = (slot: string, driver = 'vfio-pci') => `pearasys-${slot}@${driver}.service`;

describe('the handlers', () => {
  const hosts: SimulatedHost[] = [];
  afterEach(() => {
    for (const host of hosts.splice(0)) host.dispose();
  });

  /** A machine where this was typed; its units do nothing by themselves. */
  async function made(
    lines: readonly string[],
    tweak?: (declaration: MachineDeclaration) => void,
  ): Promise<SimulatedHost> {
    const host = SimulatedHost.standard((declaration) => {
      withProduct(declaration);
      tweak?.(declaration);
    });
    hosts.push(host);
    for (const line of lines) {
      const {exitCode, stderr} = await typed(host, line);
      assert.equal(exitCode, 0, stderr);
    }
    await host.userland.idle();
    host.journal.length = 0;
    return host;
  }

  const install = `-s ${card} service install vfio-pci`;
  const drivers = (host: SimulatedHost) =>
    [card, sound].map((slot) => host.machine.functions.get(slot)?.driver);
  const changes = (host: SimulatedHost) =>
    host.effects().filter((line) => !line.startsWith('systemctl show'));

  describe('claim', () => {
    it('has a record of an older version completed, and does not depend on it', async () => {
      const host = await made([install]);
      const text = host.machine.tree.read(file) ?? '';
      const old = text.replace(/^PEARASYS_(?:SUBSYSTEM|PATH)=.*\n/gm, '');
      assert.notEqual(old, text);
      host.machine.tree.file(file, old, 0o644);
      assert.equal((await runOn(host, claim, card, 'vfio-pci')).exitCode, 0);
      assert.ok(changes(host).includes(`systemctl start --no-block pearasys-record@${card}.service`));
      assert.equal((await runOn(host, record, card)).exitCode, 0);
      assert.equal(host.machine.tree.read(file), text);
      const refused = await made([install]);
      refused.machine.tree.file(file, old, 0o644);
      refused.failCommand(`systemctl start --no-block pearasys-record@${card}.service`, 1);
      assert.equal((await runOn(refused, claim, card, 'vfio-pci')).exitCode, 0);
      assert.equal(refused.machine.device(card).driver, 'vfio-pci');
    });

    it('puts the recorded card on the driver, and logs it', async () => {
      const host = await made([install]);
      const {exitCode, journal} = await runOn(host, claim, card, 'vfio-pci');
      assert.equal(exitCode, 0);
      assert.deepEqual(drivers(host), ['vfio-pci', 'snd_hda_intel']);
      assert.ok(journal.includes(`<7>echo '${card}' > /sys/bus/pci/drivers/nouveau/unbind`));
      assert.match(journal[0] ?? '', /^<4>group 2 is not viable for VFIO while 0000:02:00\.1/);
      assert.equal(journal.at(-1), `<6>${card} on driver vfio-pci`);
    });

    it('tells what the record has of a newer version', async () => {
      const host = await made([install]);
      host.machine.tree.file(file, `${host.readText(file) ?? ''}\nPEARASYS_COLOR=red\n`, 0o644);
      const {exitCode, journal} = await runOn(host, claim, card, 'vfio-pci');
      assert.equal(exitCode, 0);
      assert.ok(
        journal.includes(
          `<5>${file}: PEARASYS_COLOR is not known to this version: it is kept, and has no effect`,
        ),
      );
      assert.deepEqual(drivers(host), ['vfio-pci', 'snd_hda_intel']);
    });

    it('does nothing to a card that is already on it, and says so', async () => {
      const host = await made([install]);
      await runOn(host, claim, card, 'vfio-pci');
      const before = host.journal.length;
      assert.deepEqual(await runOn(host, claim, card, 'vfio-pci'), {
        exitCode: 0,
        journal: [`<6>${card} is already on driver vfio-pci`],
      });
      assert.equal(host.journal.length, before);
    });

    it('refuses with 3 what the kernel command line switches off, and takes along none of those', async () => {
      const both = `${install} --siblings`;
      for (const [word, wanted] of [
        ['pearasys=off', ['nouveau', 'snd_hda_intel']],
        ['pearasys.skip=02:00.0', ['nouveau', 'snd_hda_intel']],
      ] as const) {
        const host = await made([both], (declaration) => (declaration.cmdline += ` ${word}`));
        const {exitCode, journal} = await runOn(host, claim, card, 'vfio-pci');
        assert.equal(exitCode, 3);
        assert.match(
          journal[0] ?? '',
          /^<3>0000:02:00\.0 is not claimed: pearasys\S+ on the kernel command line/,
        );
        assert.deepEqual(drivers(host), wanted);
      }
      const host = await made([both], (declaration) => (declaration.cmdline += ' pearasys.skip=02:00.1'));
      assert.equal((await runOn(host, claim, card, 'vfio-pci')).exitCode, 0);
      assert.deepEqual(drivers(host), ['vfio-pci', 'snd_hda_intel']);
    });

    it('includes those installed with it', async () => {
      const host = await made([`${install} --siblings`]);
      const {journal} = await runOn(host, claim, sound, 'vfio-pci');
      assert.deepEqual(drivers(host), ['vfio-pci', 'vfio-pci']);
      assert.equal(journal.at(-1), `<6>${card}, ${sound} on driver vfio-pci`);
    });

    it('except one whose unit was disabled, or whose record is for another driver or ignored', async () => {
      const host = await made([`${install} --siblings`]);
      await host.run('systemctl', ['disable', unit(sound)]);
      await runOn(host, claim, card, 'vfio-pci');
      assert.deepEqual(drivers(host), ['vfio-pci', 'snd_hda_intel']);
      const other = await made([`${install} --siblings`]);
      const path = `/etc/pearasys/pci/${sound}-0x10de-0x10f0`;
      other.machine.tree.file(path, other.machine.tree.read(path) ?? '', 0o666);
      await runOn(other, claim, card, 'vfio-pci');
      assert.deepEqual(drivers(other), ['vfio-pci', 'snd_hda_intel']);
      const third = await made([`${install} --siblings`]);
      third.machine.tree.file(
        path,
        (third.machine.tree.read(path) ?? '').replace('DRIVER=vfio-pci', 'DRIVER=none'),
        0o644,
      );
      await runOn(third, claim, card, 'vfio-pci');
      assert.deepEqual(drivers(third), ['vfio-pci', 'snd_hda_intel']);
    });

    it('all of them or none', async () => {
      const host = await made([`${install} --siblings`]);
      host.refuseProbe(sound, 'vfio-pci');
      const {exitCode, journal} = await runOn(host, claim, card, 'vfio-pci');
      assert.equal(exitCode, 1);
      assert.deepEqual(drivers(host), ['nouveau', 'snd_hda_intel']);
      assert.ok(journal.includes(`<3>driver vfio-pci did not take ${sound} (10de:10f0): it has no driver`));
      assert.ok(journal.includes(`<3>  state of ${card}: on driver nouveau`));
      assert.ok(journal.some((line) => line.startsWith('<4>undoing: ')));
    });

    it('refuses another card in the slot with 3 and says which', async () => {
      const host = await made([install]);
      host.machine.hotRemove(card);
      host.machine.hotAdd({...functionOf(host.machine.declaration, card), id: '10de:1b81'});
      await host.userland.idle();
      host.journal.length = 0;
      const {exitCode, journal} = await runOn(host, claim, card, 'vfio-pci');
      assert.equal(exitCode, 3);
      assert.deepEqual(journal, [
        `<3>${card} is not claimed: the card in the slot is 10de:1b81, the recorded one is 10de:1b80`,
        `<3>  try: to give the driver to this card: pearasys -s ${card} service install DRIVER`,
      ]);
      assert.deepEqual(host.effects(), []);
      await typed(host, 'service install vfio-pci --any-slot -d 10de:1b81');
      assert.match(
        (await runOn(host, claim, card, 'vfio-pci')).journal[1] ?? '',
        /this card is recorded for any slot, but this slot has a record for another card/,
      );
      host.machine.tree.remove('/etc/pearasys/pci');
      assert.equal(
        (await runOn(host, claim, card, 'vfio-pci')).journal[0],
        `<3>${card} (10de:1b81) is not claimed: there is no record for it`,
      );
    });

    describe('with a card of the same kind in the slot', () => {
      const number = '00-11-22-33-44-55-66-77';
      const numbered = (declaration: MachineDeclaration) => {
        functionOf(declaration, card).dsn = number;
        functionOf(declaration, '0000:01:00.0').dsn = '00-11-22-33-44-55-66-79';
      };
      /** Exchanges the card, and moves the recorded one to another slot if it is given. */
      async function exchange(host: SimulatedHost, slot?: string): Promise<void> {
        const declared = functionOf(host.machine.declaration, card);
        host.machine.hotRemove(card);
        host.machine.hotAdd({...declared, dsn: '00-11-22-33-44-55-66-78'});
        if (slot !== undefined) host.machine.hotAdd({...declared, slot, behind: '0000:00:1c.0'});
        await host.userland.idle();
        host.journal.length = 0;
      }
      const recorded =
        'id 10de:1b80, subsystem 1043:8599, path 0000:00/01.1/00.0, serial pcie:00-11-22-33-44-55-66-77';

      it('does not claim it, shows both, and says how to claim it', async () => {
        const host = await made([install], numbered);
        await exchange(host);
        const {exitCode, journal} = await runOn(host, claim, card, 'vfio-pci');
        assert.equal(exitCode, 3);
        assert.deepEqual(journal, [
          `<3>${card} is not claimed: the card in the slot is not the recorded one`,
          `<3>  recorded: ${recorded}`,
          `<3>  in the slot: ${recorded.replace('66-77', '66-78')}`,
          `<3>  try: to claim this card instead of the recorded one: pearasys service adopt ${card}`,
        ]);
        assert.deepEqual(host.effects(), []);
      });

      it('says where the recorded card is', async () => {
        const host = await made([install], numbered);
        await exchange(host, '0000:09:00.0');
        const {journal} = await runOn(host, claim, card, 'vfio-pci');
        assert.deepEqual(journal.slice(-2), [
          '<3>  the recorded card is in 0000:09:00.0',
          '<3>  try: to move the record to the slot of its card: pearasys service adopt 0000:09:00.0',
        ]);
      });

      it('says where the recorded card may be, if that is not certain', async () => {
        const host = await made([install]);
        const text = host.machine.tree.read(file) ?? '';
        host.machine.tree.file(file, text.replace('0000:00/01.1/00.0', '0000:00/1f.0/00.0'), 0o644);
        const {exitCode, journal} = await runOn(host, claim, card, 'vfio-pci');
        assert.equal(exitCode, 3);
        assert.equal(journal.at(-2), `<3>  the recorded card may be in 0000:01:00.0 or ${card}`);
        assert.deepEqual(host.effects(), []);
      });
    });

    it('does not change a card with an ignored record, logs the reason, and keeps the record', async () => {
      const host = await made([install]);
      const bad = 'PEARASYS_SLOT=nonsense\n';
      host.machine.tree.file(file, bad, 0o644);
      const {exitCode, journal} = await runOn(host, claim, card, 'vfio-pci');
      assert.equal(exitCode, 1);
      assert.deepEqual(journal, [
        `<3>${card} (10de:1b80) is not claimed: its record ${file} is ignored`,
        '<3>  the line PEARASYS_ID= is missing',
        `<3>  try: pearasys -s ${card} service install DRIVER rewrites it`,
      ]);
      assert.equal(host.machine.tree.read(file), bad);
      assert.deepEqual(host.effects(), []);
    });

    it('is 4 for a missing device, or one that disappears during the wait', async () => {
      const host = await made([install]);
      const lock = await host.lock(card, 1000);
      const waiting = runOn(new SimulatedHost(host.machine), claim, card, 'vfio-pci');
      await new Promise((resolve) => setTimeout(resolve, 10));
      host.machine.hotRemove(card);
      await lock.release();
      assert.deepEqual(await waiting, {exitCode: 4, journal: [`<3>there is no device in slot ${card}`]});
      assert.equal((await runOn(host, claim, card, 'vfio-pci')).exitCode, 4);
    });

    it('refuses a device that is in use with 3 and its holders', async () => {
      const host = await made(['-s 04:00.0 service install vfio-pci']);
      host.machine.mount({source: '/dev/nvme1n1', target: '/mnt/data', type: 'ext4'});
      const {exitCode, journal} = await runOn(host, claim, '0000:04:00.0', 'vfio-pci');
      assert.equal(exitCode, 3);
      assert.equal(journal[0], '<3>0000:04:00.0 (144d:a80a) is in use');
      assert.match(journal[1] ?? '', /^<3> {2}0000:04:00\.0: .*\/mnt\/data/);
      assert.deepEqual(host.machine.harm, []);
    });

    it('ends with 5 when a write does not return', async () => {
      const host = await made([install]);
      host.neverReturn('/sys/bus/pci/drivers/nouveau/unbind');
      const {exitCode, journal} = await runOn(host, claim, card, 'vfio-pci');
      assert.equal(exitCode, 5);
      assert.match(journal.join('\n'), /did not return within 15 s/);
    });

    it('removes the mark of a release', async () => {
      const host = await made([install]);
      await host.writeFile(mark, '');
      await runOn(host, claim, card, 'vfio-pci');
      assert.equal(host.exists(mark), false);
    });

    it('claims only the slot for a driver other than the recorded one', async () => {
      const host = await made([`${install} --siblings`]);
      await runOn(host, claim, card, 'pci-stub');
      assert.deepEqual(drivers(host), ['pci-stub', 'snd_hda_intel']);
    });

    it('accepts a slot and a driver as arguments, and is 2 for others', async () => {
      const host = await made([]);
      for (const [args, message] of [
        [[], '<3>expected SLOT DRIVER, got nothing'],
        [[card], `<3>expected SLOT DRIVER, got ${card}`],
        [['../../x', 'vfio-pci'], "<3>'../../x' is not a slot"],
        [[card, '../x'], "<3>'../x' is not a driver's name"],
      ] as const) {
        const {exitCode, journal} = await runOn(host, claim, ...args);
        assert.equal(exitCode, 2);
        assert.equal(journal[0], message);
      }
    });
  });

  describe('release', () => {
    /** Claimed by its unit, as systemd has started it. */
    async function claimed(line = install): Promise<SimulatedHost> {
      const host = await made([line]);
      await host.run('systemctl', ['start', unit(card)]);
      await runOn(host, claim, card, 'vfio-pci');
      host.journal.length = 0;
      return host;
    }

    it('leaves the device without driver and override, and marks it', async () => {
      const host = await claimed();
      const {exitCode, journal} = await runOn(host, release, card, 'vfio-pci');
      assert.equal(exitCode, 0);
      assert.equal(host.machine.device(card).driver, undefined);
      assert.equal(host.machine.device(card).override, undefined);
      assert.equal(host.exists(mark), true);
      assert.equal(journal.at(-1), `<6>${card} was released from vfio-pci`);
    });

    it('does not change a device that has been switched since', async () => {
      const host = await claimed();
      await typed(host, `bind default ${card}`);
      host.journal.length = 0;
      const {exitCode, journal} = await runOn(host, release, card, 'vfio-pci');
      assert.equal(exitCode, 0);
      assert.equal(journal[0], `<4>${card} is on nouveau, not on vfio-pci: not touched`);
      assert.deepEqual(changes(host), []);
    });

    it('ignores another card, and a missing one', async () => {
      const host = await claimed();
      host.machine.hotRemove(card);
      host.machine.hotAdd({...functionOf(host.machine.declaration, card), id: '10de:1b81'});
      const {exitCode, journal} = await runOn(host, release, card, 'vfio-pci');
      assert.equal(exitCode, 0);
      assert.equal(
        journal[0],
        `<4>${card} (10de:1b81) is not released: there is no record for this card in this slot`,
      );
      host.machine.hotRemove(card);
      assert.equal((await runOn(host, release, card, 'vfio-pci')).exitCode, 0);
      assert.deepEqual(changes(host), []);
      assert.equal(host.exists(mark), false);
    });

    it('of a device that was removed and is back requests the start again, and does not touch it', async () => {
      const host = await claimed();
      host.machine.hotRemove(card);
      host.machine.hotAdd({...functionOf(host.machine.declaration, card), id: '10de:1b80'});
      host.userland.handleEvents();
      const {exitCode, journal} = await runOn(host, release, card, 'vfio-pci');
      assert.equal(exitCode, 0);
      assert.equal(journal[0], `<4>${card} went away and is back: its unit starts again`);
      assert.deepEqual(changes(host), [`systemctl start --no-block ${unit(card)}`]);
    });

    it('refuses a device that a guest uses with 3: the write would never return', async () => {
      const host = await claimed();
      host.machine.addProcess({
        pid: 4321,
        comm: 'qemu-system-x86',
        holds: ['/dev/vfio/2', 'anon_inode:[vfio-device]'],
      });
      const {exitCode, journal} = await runOn(host, release, card, 'vfio-pci');
      assert.equal(exitCode, 3);
      assert.match(journal.join('\n'), /4321 \(qemu-system-x86\)/);
      assert.equal(host.machine.stuck.isStuck(card), false);
    });
  });

  describe('record', () => {
    const slot = '0000:05:00.0';
    const any = '-d 8086:10d3 service install vfio-pci --any-slot';
    const own = `/etc/pearasys/pci/${slot}-0x8086-0x10d3`;

    it('makes a record of the slot from the record of an id, enables the unit and only queues its start', async () => {
      const host = await made([any]);
      const {exitCode, journal} = await runOn(host, record, slot);
      assert.equal(exitCode, 0);
      assert.equal(journal.at(-1), `<6>${slot} was recorded: there is a record for its id`);
      assert.match(host.readText(own) ?? '', /^PEARASYS_DRIVER=vfio-pci$/m);
      assert.equal(host.effects().at(-1), `systemctl start --no-block ${unit(slot)}`);
    });

    it('does nothing for a device that is recorded, missing, or not wanted', async () => {
      const host = await made([any, `-s ${slot} service install none`]);
      for (const one of [slot, card, '0000:77:00.0']) {
        const {exitCode, journal} = await runOn(host, record, one);
        assert.equal(exitCode, 0);
        assert.deepEqual(journal, [`<6>${one}: nothing to record`]);
      }
      assert.deepEqual(host.effects(), []);
      assert.match(host.readText(own) ?? '', /^PEARASYS_DRIVER=none$/m);
    });

    it('never replaces a record that is ignored, nor that of another card', async () => {
      const host = await made([any]);
      host.machine.tree.file(own, 'nonsense\n', 0o644);
      await runOn(host, record, slot);
      assert.equal(host.readText(own), 'nonsense');
      host.machine.tree.remove(own);
      const other = own.replace('10d3', '10d4');
      host.machine.tree.file(
        other,
        'PEARASYS_SLOT=0000:05:00.0\nPEARASYS_ID=8086:10d4\nPEARASYS_DRIVER=none\n',
        0o644,
      );
      await runOn(host, record, slot);
      assert.equal(host.exists(other), true);
      assert.deepEqual(host.effects(), []);
    });
  });

  it('an internal error is logged with its stack, each line with its priority', () => {
    const lines: string[] = [];
    assert.equal(
      report(new TypeError('no such thing'), (priority, line) => lines.push(`<${priority}>${line}`)),
      1,
    );
    assert.match(lines[0] ?? '', /^<3>internal error in pearasys: TypeError: no such thing\n +at /);
    assert.throws(() => takeArguments(['a', 'b'], ['SLOT']), /expected SLOT, got a b/);
  });
});
