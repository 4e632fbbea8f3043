/** The same rule of trust applies to all files that root uses. */
import assert from 'node:assert/strict';
import {dirname} from 'node:path';
import {defaultLayout} from '../../src/config/layout.js';
import {readSettings as readProductSettings} from '../../src/config/pearasys-conf.js';
import {parseUuid} from '../../src/devices/mdev/uuid.js';
import {parseId} from '../../src/devices/pci/id.js';
import {parseSlot} from '../../src/devices/pci/slot.js';
import {PearasysError} from '../../src/host/errors.js';
import type {HostReader} from '../../src/host/host.js';
import {readCallouts} from '../../src/state/definitions/callout.js';
import {distrustDefinition, readDefinitions} from '../../src/state/definitions/definition.js';
import {readGuestFile, readGuestFiles} from '../../src/state/guests/guest-files.js';
import {parseGuest} from '../../src/state/guests/guest-name.js';
import {readSettings} from '../../src/state/guests/guest-settings.js';
import {readDriverctl} from '../../src/state/records/driverctl.js';
import {readRecordOf, readRecords} from '../../src/state/records/record.js';
import {definitionPlace, definitionSubject} from '../corpus/definitions.js';
import {putFile, trustCases} from '../corpus/files.js';
import {recordCases, subject, subjectPath} from '../corpus/records.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';

/** A kind of file that root uses. */
interface Kind {
  readonly name: string;
  readonly place: string;
  readonly content: string;
  /** Whether a link to a trusted file is trusted. */
  readonly followsLinks?: boolean;
  readonly isObeyed: (host: HostReader) => boolean;
}

const guest = parseGuest('win11');
const guests = '/etc/pearasys/guests';
const processes = (host: HostReader) => {
  try {
    return readSettings(host, defaultLayout, guest).processes;
  } catch (error) {
    assert.ok(error instanceof PearasysError && error.code === 'bad-settings');
    return undefined;
  }
};

const kinds: readonly Kind[] = [
  {
    name: 'a record',
    place: subjectPath,
    content: recordCases[0]?.content ?? '',
    isObeyed: (host) => {
      const device = {slot: parseSlot(subject.slot), id: parseId(subject.id)};
      const record = readRecordOf(host, defaultLayout, device);
      const isObeyed = record !== undefined && record.reason === undefined;
      assert.equal(readRecords(host, defaultLayout).records.length, isObeyed ? 1 : 0);
      return isObeyed;
    },
  },
  {
    name: 'a file of driverctl',
    place: `/etc/driverctl.d/pci-${subject.slot}`,
    content: 'vfio-pci\n',
    isObeyed: (host) => readDriverctl(host).records.length === 1,
  },
  {
    name: 'a definition, by a unit',
    place: definitionPlace,
    content: '{"mdev_type": "mtty-1", "start": "auto"}',
    followsLinks: true,
    isObeyed: (host) => {
      const [definition] = readDefinitions(host, {uuid: parseUuid(definitionSubject.uuid)}).definitions;
      return definition !== undefined && distrustDefinition(host, definition) === undefined;
    },
  },
  ...['callouts', 'notifiers'].map((folder): Kind => ({
    name: `a script of ${folder}`,
    place: `/etc/mdevctl.d/scripts.d/${folder}/script`,
    content: '#!/bin/sh\n',
    followsLinks: true,
    isObeyed: (host) => {
      const {scripts, notifiers} = readCallouts(host);
      return scripts.length + notifiers.length === 1;
    },
  })),
  {
    name: "a guest's file",
    place: `${guests}/win11.conf`,
    content: '0000:02:00.0\n',
    isObeyed: (host) => readGuestFile(host, defaultLayout, guest)?.reason === undefined,
  },
  {
    name: 'a list of guests',
    place: `${guests}/gpu-passthrough-guests.conf`,
    content: 'win11\n',
    isObeyed: (host) => readGuestFiles(host, defaultLayout).lists.gpu.length === 1,
  },
  {
    name: "a guest's settings",
    place: `${guests}/win11.settings`,
    content: 'Processes=end\n',
    isObeyed: (host) => processes(host) === 'end',
  },
  {
    name: 'the settings of all guests',
    place: '/etc/pearasys/guest.settings',
    content: 'Processes=end\n',
    isObeyed: (host) => processes(host) === 'end',
  },
  {
    name: 'pearasys.conf',
    place: '/etc/pearasys/pearasys.conf',
    content: 'AutoRecord=no\n',
    isObeyed: (host) => !readProductSettings(host, defaultLayout).settings.autoRecord,
  },
  ...['/etc/pearasys/pearasys.conf.d/50-x.conf', '/usr/lib/pearasys/pearasys.conf'].map((place): Kind => ({
    name: place,
    place,
    content: 'AutoRecord=no\n',
    isObeyed: (host) => !readProductSettings(host, defaultLayout).settings.autoRecord,
  })),
];

describe('trust', () => {
  let host: SimulatedHost;
  before(() => (host = SimulatedHost.standard()));
  after(() => host.dispose());

  for (const {name, place, content, followsLinks = false, isObeyed} of kinds)
    for (const one of trustCases) {
      const obeyed = one.obeyed === 'real' ? followsLinks : one.obeyed;
      it(`${name} ${one.name} is ${obeyed ? 'used' : 'ignored'}`, () => {
        // A script has to be executable; other files may be.
        putFile(host.machine.folder, place, {mode: 0o755, ...one, content});
        const foreign = {file: place, folder: dirname(place)};
        for (const [kind, path] of Object.entries(foreign))
          host.machine.owners.set(path, one.foreign === kind ? 1000 : 0);
        try {
          assert.equal(isObeyed(host), obeyed);
        } finally {
          putFile(host.machine.folder, place, {content});
          host.machine.tree.remove(place);
        }
      });
    }
});
