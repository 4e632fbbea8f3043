import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import fs from 'node:fs';
import {join} from 'node:path';
import {readDevices} from '../../src/devices/pci/device.js';
import {parseDriver} from '../../src/devices/pci/driver.js';
import {readLastingIdentity} from '../../src/devices/pci/identity.js';
import {printClaimLine} from '../../src/state/records/claim-line.js';
import {locateCards, readPresent} from '../../src/state/records/locate.js';
import type {RecordContent} from '../../src/state/records/record.js';
import {SimulatedMachine} from '../simulated-host/kernel/machine.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {putPrograms} from './services.js';
import {machineAt, orders, slotIn, type Boot} from './twins.js';

describe('before the first event, the shell finds the same cards as a claim', function () {
  this.timeout(120_000);

  function on<T>(boot: Boot, work: (host: SimulatedHost) => T): T {
    const host = new SimulatedHost(new SimulatedMachine(machineAt(boot)));
    try {
      return work(host);
    } finally {
      host.dispose();
    }
  }

  /** The records of the cards in the first two places. */
  const recordsAt = (boot: Boot): RecordContent[] =>
    on(boot, (host) => {
      const slots = [0, 1].flatMap((place) => [0, 1].map((fn) => slotIn(boot, place, fn)));
      return readDevices(host)
        .filter(({slot}) => slots.includes(slot))
        .map((device) => ({
          slot: device.slot,
          id: device.id,
          driver: parseDriver('vfio-pci'),
          together: [device.slot],
          identity: readLastingIdentity(host, device),
          unknown: [],
        }));
    });

  for (const topology of ['own root ports', 'one switch'] as const)
    for (const numbered of [true, false])
      it(`behind ${topology} ${numbered ? 'with' : 'without'} serial numbers, in any order`, () => {
        const first: Boot = {topology, numbered, shift: 0, places: [0, 1, 2, 3]};
        const records = recordsAt(first);
        // Without numbers, nothing tells one order from another.
        for (const places of numbered ? orders : orders.slice(0, 1)) {
          const boot = {...first, shift: 1, places};
          on(boot, (host) => {
            const where = locateCards(records, readPresent(host, readDevices(host), records, true));
            const expected = records.map((one) => where.get(one)?.slot).sort();
            const {folder} = host.machine;
            putPrograms(folder, '/bin/false');
            fs.mkdirSync(join(folder, 'run/pearasys'), {recursive: true});
            fs.writeFileSync(
              join(folder, 'claims'),
              records.map((one) => `${printClaimLine(one)}\n`).join(''),
            );
            const {status, stderr} = spawnSync(
              '/bin/sh',
              ['-euc', `failed=0; . ${folder}/reserve.sh; reserve_claims ${folder}/claims; exit "$failed"`],
              {encoding: 'utf8'},
            );
            assert.equal(status, 0, stderr);
            const devices = join(folder, 'sys/bus/pci/devices');
            const reserved = fs
              .readdirSync(devices)
              .filter(
                (slot) => fs.readFileSync(join(devices, slot, 'driver_override'), 'utf8') === 'vfio-pci\n',
              );
            assert.deepEqual(reserved.sort(), expected, `order ${places.join(' ')}`);
          });
        }
      });
});
