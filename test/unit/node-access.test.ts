import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import fs from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {parseAccountLine, readGroups, readGroupsOf, readUsers} from '../../src/config/accounts.js';
import {printLimit, readMemlock} from '../../src/config/memlock.js';
import {PearasysError} from '../../src/host/errors.js';
import type {HostQuery} from '../../src/host/host.js';
import {describeMemlock, resolveAccess} from '../../src/operations/node-access.js';
import {
  changeNodeAccess,
  describeAccess,
  isSameAccess,
  parseAccessWords,
  parseAccount,
  parseMode,
  printAccessWords,
  printNodeAccess,
  readMode,
  type NodeAccess,
} from '../../src/state/records/node-access.js';
import {printUnconfirmed, readUnconfirmed, unconfirmedPath} from '../../src/state/unconfirmed.js';
import {machines, putPrograms} from './services.js';
import {aDriver} from './values.js';

const account = (name: string) => parseAccount(name) ?? assert.fail(name);
const alice: NodeAccess = {user: account('alice'), mode: 0o600};

const passwd = [
  'root:x:0:0::/root:/bin/sh',
  'alice:x:1000:1000::/home/alice:/bin/sh',
  'alice:x:7:7::/:/bin/sh',
  'DOM\\eve:x:2000:2000::/:/bin/sh',
  '+::::::',
  '#bob:x:3:3::/:/bin/sh',
  'broken',
  '',
].join('\n');
const group = 'root:x:0:\nvfio:x:990:alice,carol\nkvm:x:104:\n';

describe('a user in a record', () => {
  const names: readonly (readonly [text: string, valid: boolean])[] = [
    ['alice', true],
    ['_x', true],
    ['a-b_c.d', true],
    ['Alice', true],
    ['0', true],
    ['1000', true],
    ['4294967294', true],
    ['x'.repeat(32), true],
    ['', false],
    ['4294967295', false],
    ['00', false],
    ['1alice', false],
    ['-alice', false],
    ['.alice', false],
    ['a b', false],
    ['a"', false],
    ['$kernel', false],
    ['%k', false],
    ['a\nb', false],
    ['a:b', false],
    ['ä', false],
    ['x'.repeat(33), false],
  ];
  let folder: string;
  before(() => {
    folder = fs.mkdtempSync(join(tmpdir(), 'pearasys-account-'));
    putPrograms(folder, '/nonexistent');
  });
  after(() => fs.rmSync(folder, {recursive: true, force: true}));

  for (const [text, valid] of names)
    it(`${valid ? 'can' : 'cannot'} be ${JSON.stringify(text)}, in TypeScript and in the shell`, () => {
      assert.equal(parseAccount(text) === undefined, !valid);
      const {status} = spawnSync('/bin/sh', ['-c', `. ${folder}/records.sh; is_account "$1"`, 'sh', text], {
        env: {PATH: '/nowhere'},
      });
      assert.equal(status === 0, valid);
    });
});

describe('the access to nodes', () => {
  it('has a mode that lets the owner read and write', () => {
    for (const [text, mode] of [
      ['0660', 0o660],
      ['660', 0o660],
      ['0600', 0o600],
      ['0666', 0o666],
      ['0640', 0o640],
    ] as const)
      assert.equal(parseMode(text), mode, text);
    for (const text of ['', '0', '066', '0060', '0770', '0661', '4660', '00660', 'rw', '0x1b0'])
      assert.equal(parseMode(text), undefined, text);
    assert.equal(readMode(''), undefined);
    assert.throws(() => readMode('777'), {exitCode: 2, message: /'777' is not a mode for a device/});
  });

  it('is changed part by part, and gone without a user', () => {
    assert.deepEqual(changeNodeAccess(undefined, {user: account('alice')}), {user: 'alice', mode: 0o660});
    assert.deepEqual(changeNodeAccess(alice, {group: account('vfio')}), {
      user: 'alice',
      group: 'vfio',
      mode: 0o600,
    });
    assert.deepEqual(changeNodeAccess(alice, {mode: undefined}), {user: 'alice', mode: 0o660});
    assert.deepEqual(changeNodeAccess(alice, {}), alice);
    assert.equal(changeNodeAccess(alice, {user: undefined}), undefined);
    assert.deepEqual(changeNodeAccess(undefined, {mode: 0o666}), {mode: 0o666});
    assert.equal(changeNodeAccess(undefined, {}), undefined);
  });

  it('is written with its mode, and said in words', () => {
    assert.deepEqual(printNodeAccess(alice), ['PEARASYS_USER=alice', 'PEARASYS_MODE=0600']);
    assert.deepEqual(printNodeAccess(undefined), []);
    assert.equal(describeAccess({...alice, group: account('vfio')}), 'user alice, group vfio, mode 0600');
    assert.equal(isSameAccess(alice, {...alice}), true);
    assert.equal(isSameAccess(alice, {...alice, mode: 0o660}), false);
    assert.equal(isSameAccess(alice, undefined), false);
  });

  it('is kept as words in the file of an unconfirmed change, with what is removed', () => {
    for (const change of [
      {user: account('alice'), mode: 0o600},
      {user: undefined, group: account('990')},
      {mode: undefined},
      {},
    ])
      assert.deepEqual(parseAccessWords(printAccessWords(change)), change);
    for (const words of [{user: 'a b'}, {group: '"'}, {mode: '777'}])
      assert.equal(parseAccessWords(words), undefined);
  });
});

describe('the users and groups of a machine', () => {
  const made = machines();
  const host = (more: Readonly<Record<string, string>> = {}) =>
    made((declaration) => {
      Object.assign(declaration.files, {'/etc/passwd': passwd, '/etc/group': group, ...more});
    });

  it('are those of its files', () => {
    const machine = host();
    assert.deepEqual(
      [...readUsers(machine)],
      [
        ['root', 0],
        ['alice', 1000],
        ['DOM\\eve', 2000],
      ],
    );
    assert.deepEqual([...readGroups(machine).keys()], ['root', 'vfio', 'kvm']);
    assert.deepEqual(readGroupsOf(machine, 'alice'), ['vfio']);
    assert.deepEqual(readGroupsOf(machine, 'lice'), []);
    assert.deepEqual(parseAccountLine('x:*:5:6::'), {name: 'x', number: 5});
    assert.equal(parseAccountLine('x:*::6::'), undefined);
  });

  it('must exist to get a device; an empty word is nobody', async () => {
    const machine = host();
    assert.deepEqual(await resolveAccess(machine, {user: 'alice', group: 'vfio', mode: '600'}), {
      change: {user: 'alice', group: 'vfio', mode: 0o600},
      notes: [],
    });
    assert.deepEqual(await resolveAccess(machine, {user: '', mode: ''}), {
      change: {user: undefined, mode: undefined},
      notes: [],
    });
    assert.deepEqual((await resolveAccess(machine, {user: '1234'})).change, {user: '1234'});
    for (const user of ['mallory', 'a b', '-x', 'alice"', '00', '4294967295'])
      await assert.rejects(resolveAccess(machine, {user}), (error: unknown) => {
        assert.ok(error instanceof PearasysError);
        assert.equal(error.exitCode, 2);
        assert.equal(error.message, `there is no user '${user}'`);
        return true;
      });
    await assert.rejects(resolveAccess(machine, {group: 'alice'}), /there is no group 'alice'/);
  });

  it('are recorded by number if a directory service has them, or a rule cannot name them', async () => {
    const machine = host({'/run/directory/passwd': 'dora:x:70000:70000::/:/bin/sh\n'});
    const {change, notes} = await resolveAccess(machine, {user: 'dora'});
    assert.deepEqual(change, {user: '70000'});
    assert.deepEqual(notes, ['user dora is recorded by its number 70000: it is not in /etc/passwd']);
    const eve = await resolveAccess(machine, {user: 'DOM\\eve'});
    assert.deepEqual(eve.change, {user: '2000'});
    assert.match(eve.notes[0] ?? '', /a udev rule cannot name it/);
  });

  it('must be system users with some versions of udev, which is said', async () => {
    const machine = host();
    const answer = {status: 0, stdout: '259\n', stderr: ''};
    const asked = {
      root: '/',
      readText: (path: string) => machine.readText(path),
      ask: () => Promise.resolve(answer),
    } as unknown as HostQuery;
    const {notes} = await resolveAccess(asked, {user: 'alice', group: 'vfio'});
    assert.match(
      notes[0] ?? '',
      /^user alice may lose the nodes at the next boot: udev of systemd 259 ignores/,
    );
    assert.deepEqual((await resolveAccess(asked, {group: 'vfio'})).notes, []);
    answer.stdout = '257\n';
    assert.deepEqual((await resolveAccess(asked, {user: 'alice'})).notes, []);
  });

  it('are not looked up in a directory service that does not answer', async () => {
    const machine = host();
    machine.failCommand('getent *', 2);
    await assert.rejects(resolveAccess(machine, {user: 'dora'}), /there is no user 'dora'/);
  });

  it('have a limit of locked memory: the most specific one of limits.conf, soft or hard', () => {
    const limits = (text: string, more: Readonly<Record<string, string>> = {}) =>
      host({'/etc/security/limits.conf': text, ...more});
    const limitOf = (machine: ReturnType<typeof host>) => readMemlock(machine, 'alice', ['vfio']).limit;
    assert.equal(limitOf(host()), undefined);
    assert.equal(limitOf(limits('* hard memlock 64\n')), 65_536);
    assert.equal(limitOf(limits('@other - memlock 1\nbob - memlock 1\n')), undefined);
    assert.equal(limitOf(limits('* soft memlock 64\n@other - memlock 1\nbob - memlock 1\n')), 65_536);
    assert.equal(limitOf(limits('alice soft memlock 64\nalice hard memlock unlimited\n')), 65_536);
    assert.equal(limitOf(limits('alice soft memlock 64\nalice hard memlock 32\n')), 32_768);
    assert.equal(limitOf(limits('alice - memlock unlimited\n* - memlock 64 # all\n')), 'unlimited');
    assert.equal(limitOf(limits('@vfio hard memlock 1024\n* hard memlock 64\n')), 1_048_576);
    assert.equal(limitOf(limits('* - memlock 1\n* - memlock 2\n')), 2048);
    const machine = limits('alice - memlock 1\n', {
      '/etc/security/limits.d/a.conf': 'alice - memlock infinity\n',
      '/etc/security/limits.d/b': 'alice - memlock 5\n',
    });
    assert.deepEqual(readMemlock(machine, 'alice', []), {
      limit: 'unlimited',
      from: '/etc/security/limits.d/a.conf',
    });
    assert.deepEqual(
      [0, 1023, 8 << 20, 1536 * 1024, 2 ** 40].map((bytes) => printLimit(bytes)),
      ['0 bytes', '1023 bytes', '8 MiB', '1536 KiB', '1 TiB'],
    );
    assert.equal(printLimit('unlimited'), 'no limit');
  });

  it('are told what they may lock, and how to raise it', async () => {
    const files = {'/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages': '512\n'};
    const [first = '', second = ''] = await describeMemlock(host(files), {user: account('alice')});
    assert.match(first, /^user alice may lock 8 MiB \(DefaultLimitMEMLOCK of systemd\) of memory/);
    assert.match(first, /the huge pages of DPDK and SPDK \(now 1 GiB\)$/);
    assert.match(second, /echo 'alice - memlock unlimited' > \/etc\/security\/limits\.d\/90-vfio\.conf/);
    assert.match(second, /LimitMEMLOCK=infinity/);
    const [byNumber = ''] = await describeMemlock(host(), {user: account('1000')});
    assert.match(byNumber, /^user alice may lock/);
    const [unknown = ''] = await describeMemlock(host(), {user: account('70000')});
    assert.match(unknown, /^user 70000 may lock/);
    const [ofGroup = '', raise = ''] = await describeMemlock(host(), {group: account('vfio')});
    assert.match(ofGroup, /^members of group vfio may lock 8 MiB/);
    assert.match(raise, /echo '@vfio - memlock unlimited'/);
    assert.deepEqual(
      await describeMemlock(host({'/etc/systemd/system.conf': 'DefaultLimitMEMLOCK=infinity\n'}), {
        user: account('alice'),
      }),
      ['user alice may lock any amount of memory (DefaultLimitMEMLOCK of systemd)'],
    );
    assert.deepEqual(await describeMemlock(host(), {mode: 0o666}), []);
    assert.deepEqual(await describeMemlock(host(), {user: undefined}), []);
  });
});

describe('an unconfirmed claim', () => {
  const made = machines();

  it('keeps who may open the nodes', async () => {
    const host = made();
    const claim = {
      driver: aDriver('vfio-pci'),
      folder: '/etc/systemd/system',
      group: false,
      rebuild: true,
      changes: [],
      accessChange: {user: account('alice'), group: undefined},
      devices: [],
    };
    await host.writeFile(unconfirmedPath, printUnconfirmed({devices: [], claim}));
    assert.deepEqual(readUnconfirmed(host)?.claim, claim);
    await host.writeFile(
      unconfirmedPath,
      printUnconfirmed({devices: [], claim}).replace('"alice"', '"a\\"b"'),
    );
    assert.throws(() => readUnconfirmed(host), /is damaged/);
  });
});
