import assert from 'node:assert/strict';
import {readDevice, readDevices} from '../../src/devices/pci/device.js';
import {readIdentity} from '../../src/devices/pci/identity.js';
import {parseId} from '../../src/devices/pci/id.js';
import {parseSlot} from '../../src/devices/pci/slot.js';
import {
  compareIdentity,
  locateCards,
  readPresent,
  type PresentDevice,
  type RecordedCard,
  type Whereabouts,
} from '../../src/state/records/locate.js';
import type {FunctionDeclaration} from '../simulated-host/declaration.js';
import {SimulatedMachine} from '../simulated-host/kernel/machine.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {machineAt, numberOf, orders, pathIn, slotIn, type Boot, type Topology} from './twins.js';

describe('readIdentity', () => {
  let host: SimulatedHost;
  afterEach(() => host.dispose());

  /** The identity of a device of the standard machine, with what a test declares of it. */
  function identityOf(slot: string, declare: Partial<FunctionDeclaration> = {}, wake = true, userId = 0) {
    host = SimulatedHost.standard((machine) => {
      Object.assign(machine.functions.find((one) => one.slot === slot) ?? {}, declare);
    });
    host.userId = userId;
    const device = readDevice(host, parseSlot(slot));
    assert.ok(device !== undefined);
    return readIdentity(host, device, wake);
  }

  const card = '0000:02:00.0';
  const known = {subsystem: '1043:8599', path: '0000:00/01.1/00.0'};

  it('has the subsystem, and the path without numbers of buses behind bridges', () => {
    assert.deepEqual(identityOf(card), known);
    host.dispose();
    assert.deepEqual(identityOf('0000:00:14.0'), {subsystem: '0000:0000', path: '0000:00/14.0'});
  });

  it('has the number of PCI Express, printed as by lspci', () => {
    assert.deepEqual(identityOf(card, {dsn: '00-11-22-33-44-55-66-77'}), {
      ...known,
      serial: 'pcie:00-11-22-33-44-55-66-77',
    });
  });

  for (const [what, dsn] of [
    ['without such a number', ''],
    ['with a number of zeros', '00-00-00-00-00-00-00-00'],
    ['with a number of ones', 'ff-ff-ff-ff-ff-ff-ff-ff'],
    ["with the number that all of Realtek's cards have", '01-00-00-00-68-4c-e0-00'],
  ] as const)
    it(`knows that a card ${what} has none`, () => {
      assert.deepEqual(identityOf(card, {dsn}), {...known, hasNoNumber: true});
    });

  it('does not know the number of a card that has failed', () => {
    assert.deepEqual(
      identityOf(card, {dsn: '00-11-22-33-44-55-66-77', config: Array<number>(4096).fill(0xff)}),
      known,
    );
  });

  it('ends if the list of capabilities does not', () => {
    const config: number[] = [];
    // A capability at 0x100 that points to itself.
    config[0x100] = 1;
    config[0x102] = 2;
    config[0x103] = 0x10;
    assert.deepEqual(identityOf(card, {dsn: '', config}), known);
  });

  it('does not know the number if the user is not root', () => {
    assert.deepEqual(identityOf(card, {dsn: '00-11-22-33-44-55-66-77'}, true, 1000), known);
  });

  it('wakes a suspended device only if asked to', () => {
    const dsn = '00-11-22-33-44-55-66-77';
    identityOf(card, {dsn});
    host.machine.tree.file(`/sys/bus/pci/devices/${card}/power/runtime_status`, 'suspended\n');
    const device = readDevice(host, parseSlot(card));
    assert.ok(device !== undefined);
    assert.equal(readIdentity(host, device, false).serial, undefined);
    assert.equal(readIdentity(host, device, true).serial, `pcie:${dsn}`);
  });

  it('has the serial number of a disk while its driver has it', () => {
    const {serial} = identityOf('0000:03:00.0');
    assert.match(serial ?? '', /^nvme:\S+$/);
    host.machine.write('/sys/bus/pci/drivers/nvme/unbind', '0000:03:00.0');
    const device = readDevice(host, parseSlot('0000:03:00.0'));
    assert.ok(device !== undefined);
    assert.equal(readIdentity(host, device, true).serial, undefined);
  });

  it('has the address of a network card, unless somebody has set it', () => {
    const {serial} = identityOf('0000:00:1f.6');
    assert.match(serial ?? '', /^mac:[0-9a-f:]{17}$/);
    const [name = ''] = host.list('/sys/bus/pci/devices/0000:00:1f.6/net');
    host.machine.tree.file(`/sys/bus/pci/devices/0000:00:1f.6/net/${name}/addr_assign_type`, '3\n');
    const device = readDevice(host, parseSlot('0000:00:1f.6'));
    assert.ok(device !== undefined);
    assert.equal(readIdentity(host, device, true).serial, undefined);
  });
});

describe('locateCards', () => {
  const id = parseId('10de:1b80');
  const subsystem = '1043:8599';
  const record = (slot: string, identity: RecordedCard['identity'] = {}): RecordedCard => ({
    slot: parseSlot(slot),
    id,
    identity,
  });
  const device = (slot: string, identity: PresentDevice['identity'] = {}, other?: string): PresentDevice => ({
    slot: parseSlot(slot),
    id: other === undefined ? id : parseId(other),
    identity: {subsystem, ...identity},
  });
  /** The result in short: the device, or the candidates. */
  const brief = (place: Whereabouts | undefined) => {
    const {kind, slot, candidates} = place ?? {kind: 'unknown', candidates: []};
    return slot === undefined ? {kind, candidates} : {kind, slot};
  };
  const locate = (one: RecordedCard, ...devices: PresentDevice[]) =>
    brief(locateCards([one], devices).get(one));
  const numbers = ['pcie:00-00-00-00-00-00-00-01', 'pcie:00-00-00-00-00-00-00-02'] as const;
  const here = '0000:00/1c.0/00.0';
  const there = '0000:00/1d.0/00.0';

  it('finds a card of an older record by slot and id', () => {
    const old = record('02:00.0');
    assert.deepEqual(locate(old, device('02:00.0'), device('04:00.0')), {
      kind: 'matches',
      slot: '0000:02:00.0',
    });
    assert.deepEqual(locate(old, device('04:00.0')), {kind: 'absent', candidates: ['0000:04:00.0']});
    assert.deepEqual(locate(old, device('02:00.0', {}, '10de:1b81'), device('04:00.0')), {
      kind: 'other-card',
      candidates: ['0000:04:00.0'],
    });
    assert.deepEqual(locate(old, device('04:00.0'), device('05:00.0')), {
      kind: 'ambiguous',
      candidates: ['0000:04:00.0', '0000:05:00.0'],
    });
    assert.deepEqual(locate(old), {kind: 'absent', candidates: []});
  });

  it('finds a card by its serial number in any slot, whatever its path', () => {
    const one = record('02:00.0', {subsystem, path: here, serial: numbers[0]});
    assert.deepEqual(
      locate(
        one,
        device('02:00.0', {path: here, serial: numbers[1]}),
        device('04:00.0', {path: there, serial: numbers[0]}),
      ),
      {kind: 'moved', slot: '0000:04:00.0'},
    );
    assert.deepEqual(locate(one, device('02:00.0', {path: here, serial: numbers[1]})), {
      kind: 'other-card',
      candidates: [],
    });
    assert.deepEqual(locate(one, device('02:00.0', {path: here, hasNoNumber: true})), {
      kind: 'other-card',
      candidates: [],
    });
  });

  it('finds a card by its path if its serial number cannot be read', () => {
    const one = record('02:00.0', {path: here, serial: numbers[0]});
    assert.deepEqual(locate(one, device('02:00.0', {path: there}), device('03:00.0', {path: here})), {
      kind: 'moved',
      slot: '0000:03:00.0',
    });
    assert.deepEqual(locate(one, device('02:00.0', {path: there})), {
      kind: 'other-card',
      candidates: ['0000:02:00.0'],
    });
  });

  it('decides by the path between cards with one serial number', () => {
    const one = record('02:00.0', {path: here, serial: numbers[0]});
    assert.deepEqual(
      locate(
        one,
        device('02:00.0', {path: there, serial: numbers[0]}),
        device('03:00.0', {path: here, serial: numbers[0]}),
      ),
      {kind: 'moved', slot: '0000:03:00.0'},
    );
    assert.deepEqual(
      locate(
        one,
        device('05:00.0', {path: there, serial: numbers[0]}),
        device('06:00.0', {path: '0000:00/1e.0/00.0', serial: numbers[0]}),
      ),
      {kind: 'ambiguous', candidates: ['0000:05:00.0', '0000:06:00.0']},
    );
  });

  it('uses a serial number of the host driver only if it can be read', () => {
    const one = record('02:00.0', {path: here, serial: 'nvme:A'});
    assert.equal(locate(one, device('02:00.0', {path: here})).kind, 'matches');
    assert.equal(locate(one, device('02:00.0', {path: here, serial: 'nvme:B'})).kind, 'other-card');
    assert.deepEqual(locate(one, device('03:00.0', {path: there, serial: 'nvme:A'})), {
      kind: 'moved',
      slot: '0000:03:00.0',
    });
    assert.equal(locate(one, device('02:00.0', {path: here, serial: numbers[0]})).kind, 'matches');
  });

  it('does not take a card of another maker for the recorded one', () => {
    assert.equal(
      locate(record('02:00.0', {subsystem: '1458:3702', path: here}), device('02:00.0', {path: here})).kind,
      'other-card',
    );
  });

  it('leaves a card to the record of the slot in which it is', () => {
    const stale = record('02:00.0', {path: here});
    const current = record('03:00.0', {path: here});
    const found = locateCards([stale, current], [device('03:00.0', {path: here})]);
    assert.deepEqual(brief(found.get(stale)), {kind: 'superseded', slot: '0000:03:00.0'});
    assert.deepEqual(brief(found.get(current)), {kind: 'matches', slot: '0000:03:00.0'});
  });

  it('leaves a card to the record that proves it, also in the slot of an older record', () => {
    const old = record('03:00.0');
    const proven = record('02:00.0', {path: here});
    const found = locateCards([old, proven], [device('03:00.0', {path: here})]);
    assert.deepEqual(brief(found.get(old)), {kind: 'other-card', candidates: []});
    assert.deepEqual(brief(found.get(proven)), {kind: 'moved', slot: '0000:03:00.0'});
  });

  it('gives a card that several records find in another slot to none of them', () => {
    const all = [record('02:00.0', {path: here}), record('03:00.0', {path: here, serial: numbers[0]})];
    const found = locateCards(all, [device('04:00.0', {path: here})]);
    for (const one of all)
      assert.deepEqual(brief(found.get(one)), {kind: 'absent', candidates: ['0000:04:00.0']});
  });

  it('takes records of one content for the same one, which a killed run has left twice', () => {
    const all = [record('02:00.0', {path: here}), record('03:00.0', {path: here})];
    const found = locateCards(all, [device('04:00.0', {path: here})]);
    assert.deepEqual(
      all.map((one) => brief(found.get(one))),
      [
        {kind: 'moved', slot: '0000:04:00.0'},
        {kind: 'superseded', slot: '0000:04:00.0'},
      ],
    );
  });

  it('knows the card although the recorded function of it is missing', () => {
    const all = [0, 1].map((fn) => record(`02:00.${fn}`, {path: `0000:00/1c.0/00.${fn}`}));
    const found = locateCards(all, [device('05:00.0', {path: here})]);
    assert.deepEqual(
      all.map((one) => found.get(one)),
      [
        {kind: 'moved', slot: '0000:05:00.0', card: '0000:05:00', candidates: []},
        {kind: 'absent', card: '0000:05:00', candidates: []},
      ],
    );
  });

  it('does not exchange the functions of a card that has one serial number for all', () => {
    const all = [0, 1].map((fn) =>
      record(`02:00.${fn}`, {path: `0000:00/1c.0/00.${fn}`, serial: numbers[0]}),
    );
    const devices = [0, 1].map((fn) =>
      device(`05:00.${fn}`, {path: `0000:00/1d.0/00.${fn}`, serial: numbers[0]}),
    );
    const found = locateCards(all, devices);
    assert.deepEqual(
      all.map((one) => brief(found.get(one))),
      devices.map(({slot}) => ({kind: 'moved', slot})),
    );
  });

  it('names what holds of a record and what differs', () => {
    const one = record('02:00.0', {subsystem, path: here, serial: numbers[0]});
    assert.deepEqual(compareIdentity(one, device('03:00.0', {path: here})), {
      holds: ['id', 'subsystem', 'path'],
      differs: ['slot'],
    });
    assert.deepEqual(compareIdentity(one, device('02:00.0', {path: there, hasNoNumber: true})), {
      holds: ['id', 'subsystem', 'slot'],
      differs: ['path', 'serial'],
    });
  });

  describe('of four cards of one model', () => {
    /** The records of the cards in the first two places at the first boot. */
    function recordsAt(boot: Boot): RecordedCard[] {
      const machine = new SimulatedMachine(machineAt(boot));
      const host = new SimulatedHost(machine);
      try {
        return [0, 1].flatMap((place) =>
          [0, 1].map((fn) => {
            const slot = parseSlot(slotIn(boot, place, fn));
            const there = readDevice(host, slot);
            assert.ok(there !== undefined);
            const {subsystem: maker = '', path = '', serial} = readIdentity(host, there, true);
            const identity = {subsystem: maker, path, ...(serial === undefined ? {} : {serial})};
            assert.equal(identity.path, pathIn(boot.topology, place, fn));
            assert.equal(
              identity.serial,
              boot.numbered && fn === 0 ? `pcie:${numberOf(boot.places[place] ?? 9)}` : undefined,
            );
            return {slot, id: there.id, identity};
          }),
        );
      } finally {
        host.dispose();
      }
    }

    /** The slots of the recorded cards at a boot, in the order of the records; undefined if nothing is certain. */
    function found(records: readonly RecordedCard[], boot: Boot): (string | undefined)[] {
      const host = new SimulatedHost(new SimulatedMachine(machineAt(boot)));
      try {
        const where = locateCards(records, readPresent(host, readDevices(host), records, true));
        return records.map((one) => {
          const place = where.get(one);
          return place?.slot;
        });
      } finally {
        host.dispose();
      }
    }

    for (const topology of ['own root ports', 'one switch'] as const satisfies readonly Topology[])
      for (const numbered of [true, false])
        for (const shift of [0, 1, 2])
          it(`behind ${topology} ${numbered ? 'with' : 'without'} serial numbers: claims the right ones in any order, buses shifted by ${shift}`, () => {
            const first: Boot = {topology, numbered, shift: 0, places: [0, 1, 2, 3]};
            const records = recordsAt(first);
            for (const places of orders) {
              const boot = {...first, shift, places};
              // Without serial numbers nothing tells the cards apart but their places.
              const expected = [0, 1].flatMap((card) =>
                [0, 1].map((fn) => slotIn(boot, numbered ? places.indexOf(card) : card, fn)),
              );
              assert.deepEqual(found(records, boot), expected, `order ${places.join(' ')}`);
            }
          });

    for (const topology of ['own root ports', 'one switch'] as const)
      it(`behind ${topology}: claims no other card for one that was taken out or replaced`, () => {
        for (const numbered of [true, false]) {
          const first: Boot = {topology, numbered, shift: 0, places: [0, 1, 2, 3]};
          const records = recordsAt(first);
          const out = {...first, shift: 1, places: [undefined, 2, 1, 3]};
          assert.deepEqual(
            found(records, out),
            numbered
              ? [undefined, undefined, slotIn(out, 2), slotIn(out, 2, 1)]
              : [undefined, undefined, slotIn(out, 1), slotIn(out, 1, 1)],
          );
          const replaced = {...first, shift: 0, places: [8, 1, 2, 3]};
          assert.deepEqual(found(records, replaced).slice(0, 2), [
            numbered ? undefined : slotIn(replaced, 0),
            numbered ? undefined : slotIn(replaced, 0, 1),
          ]);
        }
      });
  });
});
