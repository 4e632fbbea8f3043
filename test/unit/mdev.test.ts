import assert from 'node:assert/strict';
import {LosslessNumber} from 'lossless-json';
import {PearasysError} from '../../src/host/errors.js';
import {
  checkAttributeName,
  distrustDefinition,
  configObject,
  isDefined,
  parseConfig,
  printCompactConfig,
  printConfig,
  readDefinitions,
} from '../../src/state/definitions/definition.js';
import {readHoldersOf, readMdevHolders} from '../../src/usage/mdev-users.js';
import {readActiveMdevs} from '../../src/state/definitions/listing.js';
import {readMdev, readMdevs, readMdevUse, waitForType} from '../../src/devices/mdev/mdev.js';
import {asParentName, parseParentName, parseTypeName} from '../../src/devices/mdev/mdev-name.js';
import {readParent, readParentNames, readParents, waitForParent} from '../../src/devices/mdev/parent.js';
import {asUuid, newUuid, parseUuid} from '../../src/devices/mdev/uuid.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {addParents} from '../simulated-host/standard-machine.js';

const one = parseUuid('11111111-1111-4111-8111-111111111111');
const two = parseUuid('22222222-2222-4222-8222-222222222222');
const mtty = parseParentName('mtty');

function isCode(code: string): (error: unknown) => boolean {
  return (error) => error instanceof PearasysError && error.code === code;
}

describe('a UUID', () => {
  it('is read in each form that mdevctl accepts, and is lower case with hyphens', () => {
    for (const text of [
      '83c32df7-d52e-4ec1-9668-1f3c7e4df107',
      '83C32DF7-D52E-4EC1-9668-1F3C7E4DF107',
      '83c32df7d52e4ec196681f3c7e4df107',
      '{83c32df7-d52e-4ec1-9668-1f3c7e4df107}',
      'urn:uuid:83c32df7-d52e-4ec1-9668-1f3c7e4df107',
    ])
      assert.equal(asUuid(text), '83c32df7-d52e-4ec1-9668-1f3c7e4df107', text);
  });

  it('is refused if it is not one, as it would become a path', () => {
    for (const text of [
      '',
      'x',
      '83c32df7-d52e-4ec1-9668-1f3c7e4df10',
      '83c32df7-d52e-4ec1-9668-1f3c7e4df1077',
      '83c32df7d-52e-4ec1-9668-1f3c7e4df107',
      '{83c32df7-d52e-4ec1-9668-1f3c7e4df107',
      '83c32df7-d52e-4ec1-9668-1f3c7e4df107}',
      '../c32df7-d52e-4ec1-9668-1f3c7e4df107',
      '83c32df7-d52e-4ec1-9668-1f3c7e4df107\n',
    ]) {
      assert.equal(asUuid(text), undefined, text);
      assert.throws(() => parseUuid(text), isCode('bad-uuid'));
    }
  });

  it('that is generated is valid, and different each time', () => {
    assert.equal(asUuid(newUuid()) === undefined, false);
    assert.notEqual(newUuid(), newUuid());
  });
});

describe('names of parents and types', () => {
  it('are a part of a path; a short slot means domain 0000', () => {
    assert.equal(parseParentName('02:00.0'), '0000:02:00.0');
    assert.equal(parseParentName('matrix'), 'matrix');
    assert.equal(parseTypeName('i915-GVTg_V5_4'), 'i915-GVTg_V5_4');
    for (const text of ['', '.', '..', 'a/b', 'a\0', 'a\nb', 'x'.repeat(256)]) {
      assert.throws(() => parseParentName(text), isCode('bad-parent'), text);
      assert.throws(() => parseTypeName(text), isCode('bad-type'), text);
    }
    assert.equal(asParentName('scripts.d'), undefined);
  });
});

describe('an attribute’s name', () => {
  it('stays below the device', () => {
    for (const name of ['assign_adapter', 'power/control', 'a.b', '..a']) checkAttributeName(name);
    for (const name of ['', '/etc/passwd', '../x', 'a/../../x', 'a//b', './a', 'a\nb', 'a\0', 'a/'])
      assert.throws(() => checkAttributeName(name), isCode('bad-attribute'), JSON.stringify(name));
  });
});

describe('mdevctl’s JSON', () => {
  it('is written byte for byte as mdevctl writes it', () => {
    const config = {
      type: parseTypeName('mtty-1'),
      start: 'auto' as const,
      attributes: [
        {name: 'b', value: '1'},
        {name: 'a', value: '2 é \u0001 " / \u007f'},
        {name: 'b', value: ''},
      ],
    };
    assert.equal(
      printConfig(config),
      '{\n  "mdev_type": "mtty-1",\n  "start": "auto",\n  "attrs": [\n    {\n      "b": "1"\n    },\n    {\n      "a": "2 é \\u0001 \\" / \u007f"\n    },\n    {\n      "b": ""\n    }\n  ]\n}',
    );
    assert.equal(
      printConfig({...config, attributes: []}),
      '{\n  "mdev_type": "mtty-1",\n  "start": "auto",\n  "attrs": []\n}',
    );
    assert.equal(
      printCompactConfig({...config, attributes: config.attributes.slice(0, 1)}),
      '{"mdev_type":"mtty-1","start":"auto","attrs":[{"b":"1"}]}',
    );
    assert.deepEqual(parseConfig(printConfig(config)), {...config, others: {}});
  });

  it('keeps unknown keys, and treats any start except auto as manual', () => {
    const text = '{"x": {"deep": [1]}, "start": "foo", "mdev_type": "t", "z": null}';
    const config = parseConfig(text);
    assert.deepEqual(config, {
      type: 't',
      start: 'manual',
      attributes: [],
      others: {x: {deep: [new LosslessNumber('1')]}, z: null},
    });
    assert.deepEqual(JSON.parse(printConfig(config)), {
      mdev_type: 't',
      start: 'manual',
      attrs: [],
      x: {deep: [1]},
      z: null,
    });
    // What is listed is what mdevctl knows.
    assert.deepEqual(configObject(config), {mdev_type: 't', start: 'manual', attrs: []});
  });

  it('keeps the spelling of numbers in unknown keys', () => {
    const text = printConfig({...parseConfig('{"mdev_type": "t", "start": "auto"}'), others: {}}).replace(
      /\n\}$/,
      ',\n  "big": 12345678901234567890,\n  "whole": 1.0,\n  "deep": [\n    1e2\n  ]\n}',
    );
    assert.equal(printConfig(parseConfig(text)), text);
    assert.deepEqual(parseConfig(text.replace('"big": 1', '"big": 2, "big": 1')), parseConfig(text));
  });

  it('is refused with the reason', () => {
    for (const [text, reason] of [
      ['', /not JSON/],
      ['{', /not JSON/],
      ['{"mdev_type": "\u001b[2J"}', /not JSON: \P{Cc}*$/u],
      ['[]', /not a JSON object/],
      ['{"start": "auto"}', /no mdev_type/],
      ['{"mdev_type": 1, "start": "auto"}', /mdev_type 1 is not a type's name/],
      ['{"mdev_type": "../x", "start": "auto"}', /is not a type's name/],
      ['{"mdev_type": "t"}', /has no start: expected auto or manual/],
      ['{"mdev_type": "t", "start": "auto", "attrs": {}}', /not a list/],
      ['{"mdev_type": "t", "start": "auto", "attrs": [1]}', /attribute 0/],
      ['{"mdev_type": "t", "start": "auto", "attrs": [{"a": "1"}, {"a": 1}]}', /attribute 1/],
      ['{"mdev_type": "t", "start": "auto", "attrs": [{"a": "1", "b": "2"}]}', /attribute 0/],
      ['{"mdev_type": "t", "start": "auto", "attrs": [{}]}', /attribute 0/],
    ] as const)
      assert.throws(
        () => parseConfig(text),
        (error) =>
          error instanceof PearasysError && error.code === 'bad-definition' && reason.test(error.message),
        text,
      );
  });
});

describe('mediated devices of a host', () => {
  const hosts: SimulatedHost[] = [];
  const made = (mdevs: Record<string, string> = {}, files: Record<string, string> = {}) => {
    const host = SimulatedHost.standard((machine) => {
      addParents(machine);
      machine.mdevs = mdevs;
      machine.files = files;
    });
    hosts.push(host);
    return host;
  };
  afterEach(() => hosts.splice(0).forEach((host) => host.dispose()));

  it('parents with their types, PCI functions and others', () => {
    const host = made({[one]: 'mtty/mtty-2'});
    const parents = readParents(host);
    assert.deepEqual(
      parents.map(({name, slot, registered}) => [name, slot, registered]),
      [
        ['0000:02:00.0', '0000:02:00.0', true],
        ['mtty', undefined, true],
      ],
    );
    assert.deepEqual(parents[1]?.types, [
      {
        name: 'mtty-1',
        available: 20,
        deviceApi: 'vfio-pci',
        title: 'Single port serial',
        description: undefined,
      },
      {
        name: 'mtty-2',
        available: 10,
        deviceApi: 'vfio-pci',
        title: 'Dual port serial',
        description: undefined,
      },
    ]);
    assert.equal(parents[0]?.types[0]?.description, 'memory: 1024MB\nresolution: 1920x1200\n');
    assert.equal(readParent(host, parseParentName('nosuch')), undefined);
    assert.deepEqual(host.effects(), []);
  });

  it('none where no parent has registered', () => {
    const host = SimulatedHost.standard();
    hosts.push(host);
    assert.deepEqual([readParentNames(host), readMdevs(host), readParents(host)], [[], [], []]);
  });

  it('devices by parent and UUID, with type, driver and group', () => {
    const host = made({[two]: 'mtty/mtty-1', [one]: 'mtty/mtty-2', [newUuid()]: '0000:02:00.0/vgpu-1'});
    const mdevs = readMdevs(host);
    assert.deepEqual(
      mdevs.map(({parent, type}) => `${parent} ${type ?? '-'}`),
      ['0000:02:00.0 vgpu-1', 'mtty mtty-2', 'mtty mtty-1'],
    );
    assert.deepEqual(mdevs[1], {uuid: one, parent: 'mtty', type: 'mtty-2'});
    assert.equal(readMdevUse(host, one).driver, 'mtty');
    assert.match(String(readMdevUse(host, one).group), /^1\d\d$/);
    assert.equal(readMdev(host, newUuid()), undefined);
  });

  it('a device whose type is not linked yet is waited for, and is not listed as active', async () => {
    const host = made({[one]: 'mtty/mtty-1'});
    const {tree} = host.machine;
    const path = `/sys/devices/virtual/mtty/mtty/${one}`;
    tree.remove(`${path}/mdev_type`);
    assert.deepEqual(readMdev(host, one), {uuid: one, parent: 'mtty', type: undefined});
    assert.deepEqual(readActiveMdevs(host), []);
    host.machine.after(200, () =>
      tree.link(`${path}/mdev_type`, '/sys/devices/virtual/mtty/mtty/mdev_supported_types/mtty-1'),
    );
    await waitForType(host, one, 1000);
    assert.equal(readMdev(host, one)?.type, 'mtty-1');
    assert.equal(host.machine.elapsed, 200);
    await waitForType(host, two, 1000);
    assert.equal(host.machine.elapsed, 200);
  });

  it('a registering parent is waited for within a limit, and only while it may still appear', async () => {
    const host = made();
    const late = host.machine.declaration.mdevParents.find(({name}) => name === '0000:02:00.0');
    assert.ok(late);
    host.machine.mdevs.unregister(late.name);
    host.machine.after(300, () => host.machine.mdevs.register(late));
    await waitForParent(host, parseParentName(late.name), 1000);
    assert.equal(readParent(host, parseParentName(late.name))?.registered, true);
    assert.equal(host.machine.elapsed, 300);
    await waitForParent(host, parseParentName('nosuch'), 1000);
    assert.equal(host.machine.elapsed, 300);
    await waitForParent(host, parseParentName('0000:05:00.0'), 1000);
    assert.equal(host.machine.elapsed, 1300);
  });

  it('users of a device: by the node of its group, for all devices at once', () => {
    const host = made({[one]: 'mtty/mtty-1', [two]: 'mtty/mtty-1'});
    const node = `/dev/vfio/${readMdevUse(host, two).group ?? ''}`;
    host.machine.addProcess({
      pid: 700,
      comm: 'qemu-system-x86',
      cgroup: '/machine.slice/machine-qemu\\x2d1\\x2dwin11.scope',
      holds: [node],
    });
    assert.deepEqual(readMdevHolders(host, one), []);
    const [holder, ...others] = readMdevHolders(host, two);
    assert.deepEqual([holder?.pid, holder?.command, holder?.nodes], [700, 'qemu-system-x86', [node]]);
    assert.deepEqual(others, []);
    assert.deepEqual([...readHoldersOf(host, [one, two]).keys()], [two]);
  });

  it('users in a container, where its node has another path', () => {
    const host = made({[one]: 'mtty/mtty-1'});
    const node = `/dev/vfio/${readMdevUse(host, one).group ?? ''}`;
    const number = host.info(node)?.deviceNumber ?? '';
    const elsewhere = `/var/lib/container/root${node}`;
    host.machine.tree.node(elsewhere, {type: 'character', number, mode: 0o600});
    host.machine.addProcess({pid: 701, comm: 'qemu', holds: [elsewhere]});
    assert.deepEqual(
      readMdevHolders(host, one).map(({pid, nodes}) => [pid, nodes]),
      [[701, [node]]],
    );
  });

  describe('definitions', () => {
    const path = (parent: string, uuid: string) => `/etc/mdevctl.d/${parent}/${uuid}`;
    const text = (type: string, start = 'manual') => `{"mdev_type": "${type}", "start": "${start}"}`;

    it('of all parents, also several of one UUID, and broken ones separately', () => {
      const host = made(
        {},
        {
          [path('mtty', two)]: text('mtty-2', 'auto'),
          [path('mtty', one)]: text('mtty-1'),
          [path('absent', one)]: text('other'),
          [path('mtty', newUuid())]: 'broken',
          [path('mtty', 'notes.txt')]: text('mtty-1'),
          [path('mtty', '83C32DF7-D52E-4EC1-9668-1F3C7E4DF107')]: text('mtty-1'),
          '/etc/mdevctl.d/scripts.d/callouts/x.sh': '#!/bin/sh\n',
          [`/etc/mdevctl.d/${one}`]: text('mtty-1'),
        },
      );
      const {definitions, broken} = readDefinitions(host);
      assert.deepEqual(
        definitions.map(({parent, uuid, type, start}) => `${parent} ${uuid} ${type} ${start}`),
        [
          `absent ${one} other manual`,
          `mtty ${one} mtty-1 manual`,
          `mtty ${two} mtty-2 auto`,
          'mtty 83c32df7-d52e-4ec1-9668-1f3c7e4df107 mtty-1 manual',
        ],
      );
      assert.deepEqual(broken.map(({uuid, reason}) => [uuid === undefined, reason.split(':')[0]]).sort(), [
        [false, 'it is not JSON'],
        [true, 'its name is not a UUID'],
      ]);
      assert.deepEqual(
        readDefinitions(host, {uuid: one, parent: mtty}).definitions.map(({parent}) => parent),
        ['mtty'],
      );
      assert.deepEqual(readDefinitions(host, {parent: parseParentName('nosuch')}).definitions, []);
      assert.equal(isDefined(host, one), true);
      assert.equal(isDefined(host, newUuid()), false);
    });

    describe('with another spelling than the kernel’s', () => {
      const slot = parseParentName('0000:2b:00.0');
      const listed = (host: SimulatedHost, filter = {}) =>
        readDefinitions(host, filter).definitions.map(({parent, uuid, path}) => `${parent} ${uuid} ${path}`);

      it('of a PCI parent, a subchannel, a domain above ffff: the kernel’s spelling is used', () => {
        for (const [typed, kernels] of [
          ['0000:2B:00.0', '0000:2b:00.0'],
          ['2B:00.0', '0000:2b:00.0'],
          ['0.0.26AB', '0.0.26ab'],
          ['10000:AB:1C.7', '10000:ab:1c.7'],
          ['mtty', 'mtty'],
          ['MATRIX', 'MATRIX'],
          ['AP_matrix', 'AP_matrix'],
        ] as const)
          assert.equal(parseParentName(typed), kernels);
      });

      it('of the folder: it is found by the kernel’s name, and keeps its name', () => {
        const file = path('0000:2B:00.0', one);
        const host = made({}, {[file]: text('t')});
        for (const filter of [{}, {parent: slot}, {uuid: one}, {parent: slot, uuid: one}])
          assert.deepEqual(listed(host, filter), [`${slot} ${one} ${file}`]);
        assert.equal(isDefined(host, one), true);
        // As mdevctl has it: only by the name that the folder has.
        assert.deepEqual(listed(host, {parent: slot, asTyped: true}), []);
        assert.deepEqual(listed(host, {asTyped: true}), [`0000:2B:00.0 ${one} ${file}`]);
      });

      it('of the file: in capitals, without hyphens, as a URN', () => {
        for (const name of [
          '83C32DF7-D52E-4EC1-9668-1F3C7E4DF107',
          '83c32df7d52e4ec196681f3c7e4df107',
          'urn:uuid:83c32df7-d52e-4ec1-9668-1f3c7e4df107',
        ]) {
          const host = made({}, {[path('mtty', name)]: text('t')});
          const uuid = parseUuid('83c32df7-d52e-4ec1-9668-1f3c7e4df107');
          assert.deepEqual(listed(host, {uuid}), [`mtty ${uuid} ${path('mtty', name)}`]);
          assert.deepEqual(listed(host), [`mtty ${uuid} ${path('mtty', name)}`]);
        }
      });

      it('of two files for one device the kernel’s spelling wins, and the other one is reported', () => {
        const uuid = parseUuid('83c32df7-d52e-4ec1-9668-1f3c7e4df107');
        const host = made(
          {},
          {
            [path('0000:2B:00.0', uuid)]: text('a'),
            [path(slot, uuid)]: text('b'),
            [path(slot, uuid.toUpperCase())]: text('c'),
          },
        );
        const {definitions, broken} = readDefinitions(host);
        assert.deepEqual(
          definitions.map(({type}) => type),
          ['b'],
        );
        assert.deepEqual(
          broken.map(({path: file, reason}) => [file, reason]),
          [
            [path('0000:2B:00.0', uuid), `${path(slot, uuid)} defines the same device`],
            [path(slot, uuid.toUpperCase()), `${path(slot, uuid)} defines the same device`],
          ],
        );
      });
    });

    it('of an empty type are read: no parent has it', () => {
      const host = made({}, {[path('mtty', one)]: text('')});
      assert.deepEqual(
        readDefinitions(host).definitions.map(({type}) => type),
        [''],
      );
    });

    it('behind a link are trusted only if the folders of link and target are', () => {
      const host = made(
        {},
        {
          '/srv/mdevs/one': text('t'),
          '/open/mtty/x': text('t'),
          [path('other', one)]: text('t'),
        },
      );
      const distrust = (file: string) => distrustDefinition(host, {path: file});
      host.machine.tree.textLink(path('mtty', one), '/srv/mdevs/one');
      assert.equal(distrust(path('mtty', one)), undefined);
      // Whoever can write to the target's folder, or the link's.
      host.machine.owners.set('/srv/mdevs', 1000);
      assert.match(distrust(path('mtty', one)) ?? '', /^\/srv\/mdevs is owned by user 1000/);
      host.machine.owners.delete('/srv/mdevs');
      host.machine.owners.set('/etc/mdevctl.d/mtty', 1000);
      assert.match(distrust(path('mtty', one)) ?? '', /^\/etc\/mdevctl.d\/mtty is owned by user 1000/);
      // A link in a folder on the way.
      host.machine.tree.textLink('/etc/mdevctl.d/linked', '/open/link');
      host.machine.tree.textLink('/open/link', 'mtty');
      host.machine.owners.set('/open', 1000);
      assert.match(distrust(path('linked', 'x')) ?? '', /^\/open is owned by user 1000/);
    });

    it('say how existing devices start', () => {
      const host = made(
        {[one]: 'mtty/mtty-1', [two]: 'mtty/mtty-1'},
        {
          [path('mtty', one)]: '{"mdev_type": "mtty-1", "start": "auto", "attrs": [{"a": "1"}]}',
          [path('absent', two)]: text('mtty-1', 'auto'),
        },
      );
      assert.deepEqual(readActiveMdevs(host, {parent: mtty}), [
        {
          uuid: one,
          parent: 'mtty',
          type: 'mtty-1',
          defined: true,
          start: 'auto',
          attributes: [{name: 'a', value: '1'}],
        },
        {uuid: two, parent: 'mtty', type: 'mtty-1', defined: false, start: 'manual', attributes: undefined},
      ]);
      assert.deepEqual(readActiveMdevs(host, {uuid: newUuid()}), []);
    });
  });
});
