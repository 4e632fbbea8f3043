/** Completion as a user has it: the three shells on a terminal, and keys. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import {join} from 'node:path';
import {shells, type Shell} from '../../src/entry/completion/script.js';
import type {SimulatedHost} from '../simulated-host/simulated-host.js';
import {completedMachine, hiddenNames, hostileNames, uuids} from './completed-machine.js';
import {missingPackages, ShellOnTerminal} from './shells.js';

describe('completion in the shells', function () {
  this.timeout(60_000);
  let host: SimulatedHost;
  let folder: string;
  const started: ShellOnTerminal[] = [];
  before(async function () {
    const missing = missingPackages();
    if (missing.length > 0 && process.env['CI'] !== 'true') this.skip();
    assert.deepEqual(missing, [], 'needed: apt install bash bash-completion zsh fish tmux');
    host = completedMachine();
    ({folder} = host.machine.tree);
    for (const shell of await Promise.all(shells.map((shell) => ShellOnTerminal.start(shell, folder))))
      started.push(shell);
  });
  after(() => {
    for (const shell of started) shell.end();
    // Undefined if a shell is missing.
    (host as SimulatedHost | undefined)?.dispose();
  });

  /** What each shell starts when this is typed. A tab completes. */
  async function typed(text: string): Promise<Record<Shell, string[]>> {
    const words = await Promise.all(started.map(async (shell) => [shell.shell, await shell.wordsOf(text)]));
    return Object.fromEntries(words) as Record<Shell, string[]>;
  }

  const inAll = (words: readonly string[]) => Object.fromEntries(shells.map((shell) => [shell, words]));

  const lines: [typed: string, words: string][] = [
    ['pearasys li\t', 'pearasys list'],
    ['pearasys service un\t', 'pearasys service uninstall'],
    ['pearasys list --tr\t', 'pearasys list --tree'],
    ['pearasys bind nou\t0000:01:00.1\t', 'pearasys bind nouveau 0000:01:00.1'],
    ['pearasys show 0000:05\t', 'pearasys show 0000:05:00.0'],
    ['pearasys show 05:\t', 'pearasys show 05:00.0'],
    ['pearasys show "0000:05\t', 'pearasys show 0000:05:00.0'],
    ['pearasys -s05\t show', 'pearasys -s05:00.0 show'],
    ['pearasys show 10de:10\t', 'pearasys show 10de:10f0'],
    ['pearasys list --driver=nou\t', 'pearasys list --driver=nouveau'],
    ['pearasys list --class disp\t', 'pearasys list --class display'],
    ['pearasys service set 0000:02\td3\t1', 'pearasys service set 0000:02:00.0 d3cold_allowed=1'],
    ['pearasys pci device --dri\tnou\tunb\tresc\t', 'pearasys pci device --driver nouveau unbind rescan'],
    ['pearasys guest show deb\t', 'pearasys guest show debian'],
    ['pearasys hugepages set 4G --user an\t', 'pearasys hugepages set 4G --user ann'],
    ['pearasys help vg\tty\t', 'pearasys help vgpu types'],
    ['mdevctl mod\t-u 11\t--au\t', `mdevctl modify -u ${uuids.both} --auto`],
    ['mdevctl define --parent mt\t--type=mt\t', 'mdevctl define --parent mtty --type=mtty-2'],
    // Nothing can be offered.
    ['pearasys hugepages set \t4G', 'pearasys hugepages set 4G'],
    ['pearasys show nothing\t', 'pearasys show nothing'],
    ['sudo pearasys guest show deb\t', 'pearasys guest show debian'],
    ['sudo mdevctl stop --uuid=22\t', `mdevctl stop --uuid=${uuids.active}`],
    ['lsmdev --dum\t', 'lsmdev --dumpjson'],
  ];
  for (const [text, words] of lines)
    it(`${JSON.stringify(text)} is ${words}`, async () => {
      assert.deepEqual(await typed(text), inAll(words.split(' ')));
    });

  it('names of folders and files come from the shell', async () => {
    for (const {folder: present} of started) {
      fs.mkdirSync(join(present, 'image $(touch ran)'));
      fs.writeFileSync(join(present, 'definition.json'), '');
    }
    for (const option of ['--root ', '--root='])
      for (const [shell, words] of Object.entries(await typed(`pearasys ${option}ima\t`)))
        assert.equal(words.join(' ').replace(/\/$/, ''), `pearasys ${option}image $(touch ran)`, shell);
    assert.deepEqual(
      await typed('mdevctl define --jsonfile def\t'),
      inAll(['mdevctl', 'define', '--jsonfile', 'definition.json']),
    );
    for (const {folder: present} of started) fs.rmdirSync(join(present, 'image $(touch ran)'));
  });

  it('a word is completed up to the cursor, and what follows it is not offered again', async () => {
    // The keys that move the cursor.
    const back = '\u001b[D'.repeat(' --tree'.length);
    assert.deepEqual(
      await typed(`pearasys list --tree${back} --deb\t`),
      inAll(['pearasys', 'list', '--debug', '--tree']),
    );
  });

  it('all values are listed with their descriptions', async () => {
    for (const shell of started) {
      shell.type('pearasys --root /none service \t\t');
      const screen = await shell.screen(/uninstall .*Undo `service install`/);
      assert.match(screen, /adopt .*Take over a card that was moved or replaced/);
      await shell.clear();
      shell.type('pearasys unbind 0000:0\t\t');
      assert.match(
        await shell.screen(/00\.1 .*NVIDIA Audio, snd_hda_intel/),
        /05:00\.0 .*Intel 10d3, e1000e/,
      );
      await shell.clear();
    }
  });

  describe('of names that others chose', () => {
    /** Each name alone, so that a tab completes it whatever it begins with. */
    async function alone(
      path: (name: string) => string,
      typedLine: string,
      words: readonly string[],
      names = hostileNames,
    ): Promise<void> {
      for (const name of names) {
        fs.mkdirSync(join(folder, path(name)), {recursive: true});
        // fish cannot quote a tilde at the beginning: the name is not offered.
        const fish = name.startsWith('~') ? words : [...words, name];
        assert.deepEqual(await typed(typedLine), {...inAll([...words, name]), fish});
        fs.rmdirSync(join(folder, path(name)));
      }
    }

    after(() => {
      for (const {shell, folder: present} of started)
        assert.deepEqual(fs.readdirSync(present), ['definition.json'], shell);
    });

    it('guests are words', async () => {
      fs.rmSync(join(folder, 'etc/pearasys/guests'), {recursive: true});
      fs.rmSync(join(folder, 'etc/libvirt/qemu'), {recursive: true});
      await alone((name) => `etc/pearasys/guests/${name}.conf`, 'pearasys guest show \t', [
        'pearasys',
        'guest',
        'show',
      ]);
    });

    it('types of mediated devices are words', async () => {
      fs.rmSync(join(folder, 'sys/class/mdev_bus/mtty'), {recursive: true});
      await alone(
        (name) => `sys/class/mdev_bus/mtty/mdev_supported_types/${name}`,
        'mdevctl define -p mtty -t \t',
        ['mdevctl', 'define', '-p', 'mtty', '-t'],
        hostileNames.slice(0, 8),
      );
    });

    it('beginnings in quotes are completed', async () => {
      for (const name of ['two words', "it's $(touch ran)"])
        fs.mkdirSync(join(folder, `etc/pearasys/guests/${name}.conf`), {recursive: true});
      for (const text of ['two\\ w', '"two', "'two w"])
        assert.deepEqual(
          await typed(`pearasys guest show ${text}\t`),
          inAll(['pearasys', 'guest', 'show', 'two words']),
          text,
        );
    });

    it('lists show them and the descriptions as they are, and hide what a line cannot show', async () => {
      fs.writeFileSync(
        join(folder, 'usr/share/misc/pci.ids'),
        '10de  NVIDIA %B$(touch ran)\n\t1b80  `touch ran`: "x"\n\t10f0  esc\u001b[31m\n',
      );
      for (const name of [...hostileNames, ...hiddenNames])
        fs.mkdirSync(join(folder, `etc/pearasys/guests/${name}.conf`), {recursive: true});
      for (const shell of started) {
        shell.type('pearasys unbind 0000:0\t\t');
        await shell.screen(/00\.0 .*NVIDIA %B\$\(touch ran\) `touch ran`: "x", nouveau/);
        await shell.clear();
        shell.type('pearasys guest show \t\t');
        const screen = await shell.screen(/%F.*red/);
        for (const part of ['touch', 'two', '日本', 'slash']) assert.ok(screen.includes(part), part);
        assert.doesNotMatch(screen, /31m|esc|c1|direction|-rf|lines/);
        await shell.clear();
      }
    });
  });
});
