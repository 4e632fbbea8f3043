import assert from 'node:assert/strict';
import type {MachineDeclaration} from '../simulated-host/declaration.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {addParents} from '../simulated-host/standard-machine.js';
import {withProduct} from '../unit/services.js';
import {typed, type Run} from './runs.js';

const [card, sound] = ['0000:02:00.0', '0000:02:00.1'];
const uuid = '11111111-1111-4111-8111-111111111111';
const definition = `/etc/mdevctl.d/mtty/${uuid}`;
const record = `/etc/pearasys/pci/${card}-0x10de-0x1b80`;
const dropIn = `/etc/systemd/system/pearasys-${card}@vfio-pci.service.d/50-pearasys.conf`;
const guests = '/etc/pearasys/guests';
const commonHook = '/etc/libvirt/hooks/qemu.d/50-pearasys';
const completion = '/home/u/.local/share/bash-completion/completions/pearasys';

/** Metadata that is lost when a file is rewritten: mode, owner and link of each kind of file. */
describe('a file that is rewritten', () => {
  const hosts: SimulatedHost[] = [];
  afterEach(() => {
    for (const host of hosts.splice(0)) host.dispose();
  });

  async function made(...lines: readonly string[]): Promise<SimulatedHost> {
    const host = SimulatedHost.standard((declaration: MachineDeclaration) => {
      withProduct(declaration);
      addParents(declaration);
    });
    hosts.push(host);
    for (const line of lines) await done(host, line);
    return host;
  }

  const call = (host: SimulatedHost, line: string): Promise<Run> =>
    typed(host, line, {environment: {HOME: '/home/u', SHELL: '/bin/bash'}});

  async function done(host: SimulatedHost, line: string): Promise<void> {
    const {exitCode, stderr} = await call(host, line);
    assert.equal(exitCode, 0, `${line}: ${stderr}`);
  }

  /** The commands that create and rewrite each kind of file. */
  const kinds: Record<string, {path: string; make: string; change: string; mode: number}> = {
    'a definition': {
      path: definition,
      make: `mdev define -u ${uuid} -p mtty -t mtty-1`,
      change: `mdev modify -u ${uuid} --auto`,
      mode: 0o600,
    },
    'a list of guests': {
      path: `${guests}/gpu-passthrough-guests.conf`,
      make: `guest setup g --device ${card}`,
      change: `guest setup h --device ${card}`,
      mode: 0o640,
    },
    'the settings of a guest': {
      path: `${guests}/g.settings`,
      make: `guest setup g --device ${card}`,
      change: `guest setup g --device ${card} --device ${sound}`,
      mode: 0o640,
    },
    'a record': {
      path: record,
      make: `-s ${card} service install vfio-pci`,
      change: `-s ${card} service install pci-stub`,
      mode: 0o640,
    },
    'a drop-in': {
      path: dropIn,
      make: `-s ${card} service install vfio-pci`,
      change: `-s ${card} service install pci-stub`,
      mode: 0o640,
    },
  };

  for (const [name, {path, make, change, mode}] of Object.entries(kinds))
    it(`keeps mode and group: ${name}`, async () => {
      const host = await made(make);
      const before = host.readText(path) ?? '';
      host.machine.tree.file(path, `${before}\n`, mode);
      host.machine.groups.set(path, 64);
      await done(host, change);
      assert.notEqual(host.readText(path), before);
      const {mode: now, uid, gid} = host.info(path) ?? {};
      assert.deepEqual([now, uid, gid], [mode, 0, 64]);
    });

  it('keeps mode and group when it is restored: a record', async () => {
    const host = await made(`-s ${card} service install vfio-pci`);
    host.machine.tree.file(record, `${host.readText(record) ?? ''}\n`, 0o640);
    host.machine.groups.set(record, 64);
    host.failCommand('systemctl daemon-reload', 1, 'no', 1);
    assert.equal((await call(host, `-s ${card} service install pci-stub`)).exitCode, 1);
    const {mode, uid, gid} = host.info(record) ?? {};
    assert.deepEqual([mode, uid, gid], [0o640, 0, 64]);
    assert.match(host.readText(record) ?? '', /^PEARASYS_DRIVER=vfio-pci$/m);
  });

  it('stays executable for the same users: a hook', async () => {
    const host = await made();
    host.machine.tree.file(commonHook, '#!/bin/sh\n# Written by pearasys: an old one\n', 0o700);
    host.machine.groups.set(commonHook, 64);
    await done(host, `guest setup g --device ${card}`);
    await done(host, 'guest install-hooks g');
    const {mode, gid} = host.info(commonHook) ?? {};
    assert.deepEqual([mode, gid], [0o700, 64]);
    assert.doesNotMatch(host.readText(commonHook) ?? '', /an old one/);
  });

  const linked = ['a definition', 'a list of guests', 'the settings of a guest', 'a drop-in'] as const;
  for (const name of linked) {
    const {path, make, change, mode} = kinds[name]!;
    it(`keeps its link, and the target is written: ${name}`, async () => {
      const host = await made(make);
      const before = host.readText(path) ?? '';
      host.machine.tree.file('/etc/kept/here', `${before}\n`, mode);
      host.machine.tree.remove(path);
      host.machine.tree.textLink(path, '/etc/kept/here');
      await done(host, change);
      assert.equal(host.readLink(path), '/etc/kept/here');
      assert.notEqual(host.readText('/etc/kept/here'), before);
      assert.equal(host.info('/etc/kept/here')?.mode, mode);
    });
  }

  const spoilers: Record<string, (host: SimulatedHost) => void> = {
    'another user’s file': ({machine}) => machine.owners.set('/etc/kept/here', 1000),
    'a file that others can write': ({machine}) => {
      machine.tree.file('/etc/kept/here', machine.tree.read('/etc/kept/here') ?? '', 0o666);
    },
    'a folder of another user’s': ({machine}) => machine.owners.set('/etc/kept', 1000),
    nothing: ({machine}) => machine.tree.remove('/etc/kept/here'),
  };
  for (const [name, spoil] of Object.entries(spoilers))
    it(`is not written through a link to ${name}`, async () => {
      const host = await made(`mdev define -u ${uuid} -p mtty -t mtty-1`);
      const before = host.readText(definition) ?? '';
      host.machine.tree.file('/etc/kept/here', before, 0o644);
      host.machine.tree.remove(definition);
      host.machine.tree.textLink(definition, '../../kept/here');
      spoil(host);
      const effects = host.journal.length;
      const {exitCode} = await call(host, `mdev modify -u ${uuid} --auto`);
      assert.ok(exitCode === 3 || exitCode === 4, String(exitCode));
      assert.deepEqual(host.journal.slice(effects), []);
      assert.equal(host.readLink(definition), '../../kept/here');
    });

  it('is a link: only the link is removed, and the undo restores it', async () => {
    const first = `/etc/mdevctl.d/0000:02:00.0/${uuid}`;
    const host = await made(
      `mdev define -u ${uuid} -p 0000:02:00.0 -t nvidia-1`,
      `mdev define -u ${uuid} -p mtty -t mtty-1`,
    );
    host.machine.tree.file('/etc/kept/here', host.readText(first) ?? '', 0o644);
    host.machine.tree.remove(first);
    host.machine.tree.textLink(first, '../../kept/here');
    host.failFile(definition, 'EIO', 1);
    assert.equal((await call(host, `mdev undefine -u ${uuid}`)).exitCode, 1);
    assert.equal(host.readLink(first), '../../kept/here');
    await done(host, `mdev undefine -u ${uuid}`);
    assert.equal(host.readLink(first), undefined);
    assert.equal(host.exists('/etc/kept/here'), true);
  });

  it('of a user keeps its mode and its link too: the completion', async () => {
    const host = await made();
    host.userId = 1000;
    host.machine.tree.file('/home/u/dotfiles/pearasys', 'old\n', 0o600);
    host.machine.tree.textLink(completion, '/home/u/dotfiles/pearasys');
    const {owners, groups} = host.machine;
    owners.set('/home/u/dotfiles/pearasys', 1000);
    groups.set('/home/u/dotfiles/pearasys', 1000);
    await done(host, 'completion bash --install');
    assert.equal(host.readLink(completion), '/home/u/dotfiles/pearasys');
    const {mode, uid, gid} = host.info(completion) ?? {};
    assert.deepEqual([mode, uid, gid], [0o600, 1000, 1000]);
    assert.notEqual(host.readText(completion), 'old');
  });

  it('of a user is not written by root through the user’s link: the completion', async () => {
    const host = await made();
    host.machine.tree.file('/home/u/other', 'old\n', 0o644);
    host.machine.owners.set('/home/u/other', 1000);
    host.machine.tree.textLink(completion, '/home/u/other');
    const {exitCode, stderr} = await call(host, 'completion bash --install');
    assert.equal(exitCode, 3);
    assert.match(stderr, /refusing to overwrite/);
    assert.equal(host.readText('/home/u/other'), 'old');
  });
});
