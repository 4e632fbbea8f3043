import assert from 'node:assert/strict';
import fs from 'node:fs';
import {record} from '../../src/entry/handlers/record.js';
import {SimulatedMachine} from '../simulated-host/kernel/machine.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {typed} from '../cli/runs.js';
import {runOn, withProduct} from './services.js';
import {machineAt, orders, slotIn, type Boot} from './twins.js';

/** Everything that is installed: files with their texts and links, by path. */
function installed(host: SimulatedHost): Map<string, string> {
  const found = new Map<string, string>();
  const look = (path: string): void => {
    const real = host.machine.tree.onDisk(path);
    for (const entry of fs.existsSync(real) ? fs.readdirSync(real, {withFileTypes: true}) : []) {
      const own = `${path}/${entry.name}`;
      if (entry.isDirectory()) look(own);
      else
        found.set(
          own,
          entry.isSymbolicLink()
            ? `-> ${fs.readlinkSync(host.machine.tree.onDisk(own))}`
            : fs.readFileSync(host.machine.tree.onDisk(own), 'utf8'),
        );
    }
  };
  for (const folder of ['/etc/pearasys', '/etc/systemd/system']) look(folder);
  return found;
}

describe('records of cards that have moved', () => {
  const hosts: SimulatedHost[] = [];
  afterEach(() => {
    for (const host of hosts.splice(0)) host.dispose();
  });

  /** The machine at a boot, with what was installed before. */
  function booted(boot: Boot, before?: ReadonlyMap<string, string>): SimulatedHost {
    const declaration = machineAt(boot);
    withProduct(declaration);
    const host = new SimulatedHost(new SimulatedMachine(declaration));
    hosts.push(host);
    for (const [path, content] of before ?? [])
      if (content.startsWith('-> ')) host.machine.tree.textLink(path, content.slice('-> '.length));
      else host.machine.tree.file(path, content, 0o644);
    return host;
  }

  async function install(host: SimulatedHost, boot: Boot, places: readonly number[]): Promise<void> {
    for (const place of places) {
      const line = `-s ${slotIn(boot, place)} -s ${slotIn(boot, place, 1)} service install vfio-pci`;
      const {exitCode, stderr} = await typed(host, line);
      assert.equal(exitCode, 0, stderr);
    }
    host.journal.length = 0;
  }

  /** What is installed when the cards are recorded at this boot for the first time. */
  async function fresh(boot: Boot, places: readonly number[]): Promise<Map<string, string>> {
    const host = booted(boot);
    await install(host, boot, places);
    return installed(host);
  }

  const first: Boot = {topology: 'own root ports', numbered: true, shift: 0, places: [0, 1, 2, 3]};

  it('are moved with units and links, and the units are started', async () => {
    const before = await fresh(first, [1]);
    const boot = {...first, shift: 3};
    const host = booted(boot, before);
    const slot = slotIn(boot, 1);
    host.machine.tree.file(`/run/pearasys/moved/${slot}`, 'PEARASYS_RECORD=x\n', 0o644);
    const {exitCode, journal} = await runOn(host, record, slot);
    assert.equal(exitCode, 0, journal.join('\n'));
    assert.deepEqual(installed(host), await fresh(boot, [1]));
    assert.ok(journal.includes(`<4>the record of ${slotIn(first, 1)} moves to ${slot}`));
    assert.equal(journal.at(-1), `<6>the record of the card was moved to ${slot}`);
    assert.equal(host.exists(`/run/pearasys/moved/${slot}`), false);
    assert.deepEqual(host.list('/run/pearasys/checked').sort(), [
      `${slot}-0x10de-0x1b80@0000:00:1c.1`,
      `${slotIn(boot, 1, 1)}-0x10de-0x10f0@0000:00:1c.1`,
    ]);
    const units = [0, 1].map((fn) => `pearasys-${slotIn(boot, 1, fn)}@vfio-pci.service`);
    assert.ok(host.effects().includes(`systemctl start --no-block ${units.join(' ')}`));
    assert.ok(!host.effects().some((line) => line.startsWith('systemctl stop')));
  });

  it('in any order of four cards, whichever unit is first', async function () {
    // A hundred runs.
    this.timeout(120_000);
    const before = await fresh(first, [0, 1, 2]);
    for (const places of orders) {
      const boot = {...first, places};
      const host = booted(boot, before);
      for (const place of [2, 3, 0, 1]) {
        const {exitCode, journal} = await runOn(host, record, slotIn(boot, place));
        assert.equal(exitCode, 0, journal.join('\n'));
      }
      const recorded = places.flatMap((card, place) => (card < 3 ? [place] : []));
      assert.deepEqual(installed(host), await fresh(boot, recorded), `order ${places.join(' ')}`);
      host.dispose();
    }
  });

  for (const [what, boot] of [
    ['buses are shifted by one', {...first, shift: 1}],
    ['cards are exchanged', {...first, places: [1, 0, 3, 2]}],
  ] as readonly (readonly [string, Boot])[])
    it(`if ${what}, also if the run is killed at any effect and repeated`, async function () {
      // Each effect needs a machine of its own.
      this.timeout(180_000);
      const before = await fresh(first, [0, 1]);
      const expected = installed(booted(boot, before));
      const whole = booted(boot, before);
      const {exitCode} = await runOn(whole, record, slotIn(boot, 0));
      assert.equal(exitCode, 0);
      const effects = whole.journal.length;
      const after = installed(whole);
      assert.notDeepEqual(after, expected);
      for (let kill = 1; kill < effects; kill++) {
        const host = booted(boot, before);
        host.killAt(kill);
        await runOn(host, record, slotIn(boot, 0));
        const again = new SimulatedHost(host.machine);
        assert.equal((await runOn(again, record, slotIn(boot, 0))).exitCode, 0);
        assert.deepEqual(installed(again), after, `killed at ${kill}: ${whole.effects()[kill - 1] ?? ''}`);
        host.dispose();
      }
    });

  it('make room if their own card is not there', async () => {
    const before = await fresh(first, [0, 1]);
    // Card 0 is in the place of card 1, which was taken out.
    const boot = {...first, places: [undefined, 0, 2, 3]};
    const host = booted(boot, before);
    assert.equal((await runOn(host, record, slotIn(boot, 1))).exitCode, 0);
    const text = (place: number) =>
      host.readText(`/etc/pearasys/pci/${slotIn(boot, place)}-0x10de-0x1b80`) ?? '';
    assert.match(text(1), /PEARASYS_SERIAL=pcie:00-11-22-33-44-55-66-00/);
    assert.match(text(0), /PEARASYS_SERIAL=pcie:00-11-22-33-44-55-66-01/);
    const back = booted({...first, shift: 1}, installed(host));
    assert.equal((await runOn(back, record, slotIn({...first, shift: 1}, 0))).exitCode, 0);
    assert.deepEqual(installed(back), await fresh({...first, shift: 1}, [0, 1]));
  });

  it('keep units that are disabled so', async () => {
    const host = booted(first);
    await install(host, first, [0, 1]);
    const unit = (boot: Boot, place: number) => `pearasys-${slotIn(boot, place)}@vfio-pci.service`;
    assert.equal((await host.run('systemctl', ['disable', unit(first, 1)])).status, 0);
    const boot = {...first, places: [3, 2, 1, 0]};
    const next = booted(boot, installed(host));
    assert.equal((await runOn(next, record, slotIn(boot, 3))).exitCode, 0);
    const enabled = [0, 1, 2, 3].map((place) =>
      next.exists(
        `/etc/systemd/system/sys-bus-pci-devices-${slotIn(boot, place)}.device.wants/${unit(boot, place)}`,
      ),
    );
    assert.deepEqual(enabled, [false, false, false, true]);
    assert.ok(
      !next
        .effects()
        .join('\n')
        .includes(`start --no-block ${unit(boot, 2)}`),
    );
  });

  describe('taken over by service adopt', () => {
    const bare: Boot = {...first, numbered: false};
    const target = slotIn(bare, 3);
    const adopt = async (host: SimulatedHost, line: string) =>
      await typed(host, `service adopt ${line}`.trim());

    /** The card of the first place was put into the last one, and the second one was taken out: only a person knows. */
    async function moved(): Promise<SimulatedHost> {
      return booted({...bare, places: [undefined, undefined, 2, 0]}, await fresh(bare, [0, 1]));
    }

    it('are listed with what is recorded and the devices that may be meant', async () => {
      const host = await moved();
      const {exitCode, stdout} = await adopt(host, '');
      assert.equal(exitCode, 0);
      const lines = stdout.split('\n');
      assert.equal(lines[0], `${slotIn(bare, 0)} on vfio-pci`);
      assert.equal(lines[1], '  recorded: id 10de:1b80, subsystem 1043:8599, path 0000:00/1c.0/00.0');
      assert.equal(
        lines[3],
        `  perhaps ${target}: id 10de:1b80, subsystem 1043:8599, path 0000:00/1c.3/00.0`,
      );
      assert.deepEqual(host.effects(), []);
    });

    it('if it is said which one, with both functions of the card', async () => {
      const host = await moved();
      const unclear = await adopt(host, `${target} --force`);
      assert.equal(unclear.exitCode, 2);
      assert.match(unclear.stderr, new RegExp(`try: pearasys service adopt ${target} --from SLOT`));
      const unconfirmed = await adopt(host, `${target} --from ${slotIn(bare, 0)}`);
      assert.equal(unconfirmed.exitCode, 3);
      assert.deepEqual(host.effects(), []);
      const dry = await adopt(host, `${target} --from ${slotIn(bare, 0)} --dry-run`);
      assert.equal(dry.exitCode, 0);
      assert.deepEqual(host.effects(), []);
      const {exitCode, stdout, stderr} = await adopt(host, `${target} --from ${slotIn(bare, 0)} --force`);
      assert.equal(exitCode, 0, stderr);
      assert.equal(stdout.split('\n').at(-2), `adopted: ${target}, ${slotIn(bare, 3, 1)}`);
      const names = (slots: readonly string[]) =>
        slots.flatMap((slot) => [`${slot}.0-0x10de-0x1b80`, `${slot}.1-0x10de-0x10f0`]);
      assert.deepEqual(host.list('/etc/pearasys/pci'), names(['0000:03:00', '0000:05:00']));
      assert.match(
        host.readText(`/etc/pearasys/pci/${target}-0x10de-0x1b80`) ?? '',
        /^PEARASYS_PATH=0000:00\/1c\.3\/00\.0$/m,
      );
      assert.ok(host.exists(`/etc/systemd/system/pearasys-${target}@.service`));
      assert.ok(!host.exists(`/etc/systemd/system/pearasys-${slotIn(bare, 0)}@.service`));
    });

    it('by a card that replaces the recorded one in its slot', async () => {
      const host = booted({...first, places: [7, 1, 2, 3]}, await fresh(first, [0]));
      const slot = slotIn(first, 0);
      const {exitCode, stderr} = await adopt(host, `${slot} --force`);
      assert.equal(exitCode, 0, stderr);
      assert.deepEqual(installed(host), await fresh({...first, places: [7, 1, 2, 3]}, [0]));
      const nothing = await adopt(host, '--json');
      assert.deepEqual((JSON.parse(nothing.stdout) as {adoptions: unknown[]}).adoptions, []);
      assert.equal((await adopt(host, `${slotIn(first, 2)} --force`)).exitCode, 4);
    });

    for (const [what, boot, from, slot] of [
      ['that was put into another place', {...bare, places: [undefined, undefined, 2, 0]}, bare, target],
      [
        'that replaces the recorded one in its slot',
        {...first, places: [7, 1, 2, 3]},
        first,
        slotIn(first, 0),
      ],
      [
        'that replaces the recorded one in another slot',
        {...first, places: [undefined, 1, 2, 7]},
        first,
        target,
      ],
    ] as readonly (readonly [string, Boot, Boot, string])[])
      it(`by a card ${what}, and completed by the next boot or run if it is killed`, async function () {
        this.timeout(180_000);
        const line = `${slot} --from ${slotIn(from, 0)} --force`;
        const before = await fresh(from, [0, 1]);
        const whole = booted(boot, before);
        assert.equal((await adopt(whole, line)).exitCode, 0);
        const after = installed(whole);
        const effects = whole.journal.length;
        for (let kill = 1; kill < effects; kill++) {
          const host = booted(boot, before);
          host.killAt(kill);
          await adopt(host, line);
          const where = `killed at ${kill}: ${whole.effects()[kill - 1] ?? ''}`;
          const next = booted(boot, installed(host));
          await runOn(next, record, slot);
          assert.deepEqual(installed(next), after, `${where}, at the next boot`);
          const again = new SimulatedHost(host.machine);
          await adopt(again, line);
          assert.deepEqual(installed(again), after, where);
          host.dispose();
        }
      });
  });

  it('are shown with what holds of them', async () => {
    const boot: Boot = {...first, shift: 3, places: [0, undefined, 1, 3]};
    const host = booted(boot, await fresh(first, [0, 1, 2]));
    const lines = (await typed(host, 'service list')).stdout.split('\n');
    const line = (slot: string) => lines.find((one) => one.startsWith(slot))?.split('\t')[5];
    assert.equal(line(slotIn(first, 0)), `moved, now in ${slotIn(boot, 0)}`);
    assert.equal(line(slotIn(first, 1)), `moved, now in ${slotIn(boot, 2)}`);
    assert.equal(line(slotIn(first, 2)), 'absent');
    const {services} = JSON.parse((await typed(host, 'service list --json')).stdout) as {
      services: {slot: string; identity: unknown}[];
    };
    assert.deepEqual(services.find(({slot}) => slot === slotIn(first, 1))?.identity, {
      holds: ['id', 'subsystem', 'serial'],
      differs: ['path', 'slot'],
    });
    const {stdout} = await typed(host, `show ${slotIn(boot, 2)}`);
    assert.match(stdout, new RegExp(`^ +record +vfio-pci, recorded for slot ${slotIn(first, 1)}$`, 'm'));
    assert.match(
      stdout,
      /^ +identity +as recorded: id, subsystem, serial; other than recorded: path, slot$/m,
    );
    const other = await typed(host, `show ${slotIn(boot, 3)}`);
    assert.match(other.stdout, /^ +record +none$/m);
  });

  it('of an older version are completed when their cards are there', async () => {
    const before = await fresh(first, [0]);
    const old = new Map(
      [...before].map(([path, text]) => [
        path,
        path.startsWith('/etc/pearasys')
          ? text.replace(/^PEARASYS_(?:SUBSYSTEM|PATH|SERIAL)=.*\n/gm, '')
          : text,
      ]),
    );
    assert.notDeepEqual(old, before);
    const host = booted(first, old);
    assert.equal((await runOn(host, record, slotIn(first, 0))).exitCode, 0);
    assert.deepEqual(installed(host), before);
  });
});
