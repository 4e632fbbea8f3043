import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import fs from 'node:fs';
import {join} from 'node:path';
import {completedProgram} from '../../src/entry/cli/completion.js';
import {loadableCommands} from '../../src/entry/cli/config.js';
import {completionScript, shells} from '../../src/entry/completion/script.js';
import {completionTable} from '../../src/entry/completion/table.js';
import {completedLsmdev, completedMdevctl} from '../../src/entry/mdevctl/completion.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {completedMachine, hiddenNames, hostileNames, replaceByPipes, uuids} from './completed-machine.js';
import {run} from './runs.js';

const dist = join(import.meta.dirname, '../../dist');
const places = {library: dist, config: '/etc/pearasys'};

/** What bash would offer for the last of these words. */
function offered(...words: string[]): string[] {
  const script = `${completionScript('bash', 'pearasys', places)}
compopt() { :; }
COMP_WORDS=("$@") COMP_LINE="$*" COMP_TYPE=9
COMP_CWORD=$(($# - 1)) COMP_POINT=\${#COMP_LINE}
_pearasys
printf '%s\\n' "\${COMPREPLY[@]}"`;
  const {status, stdout, stderr} = spawnSync('bash', ['--norc', '-c', script, 'bash', 'pearasys', ...words], {
    encoding: 'utf8',
  });
  assert.equal(stderr, '');
  assert.equal(status, 0);
  return stdout.trimEnd().split('\n');
}

/** The values that completion/complete prints for the last of these words, with their descriptions. */
function completed(program: string, ...words: readonly string[]): Map<string, string> {
  const last = words.length - 1;
  return completedAt(last, program, ...words);
}

/** The same for the word with this number. */
function completedAt(cursor: number, program: string, ...words: readonly string[]): Map<string, string> {
  const {status, stdout, stderr} = spawnSync(
    'sh',
    [
      join(dist, 'completion/complete'),
      join(dist, 'completion', program),
      '/etc/pearasys',
      `${cursor}`,
      ...words,
    ],
    {encoding: 'utf8', timeout: 10_000},
  );
  assert.deepEqual([stderr, status], ['', 0]);
  return new Map(
    stdout
      .split('\n')
      .slice(0, -1)
      .map((line) => [line.replace(/\t.*/, ''), line.replace(/^[^\t]*\t/, '')]),
  );
}

const values = (...words: readonly string[]) => [...completed('pearasys', ...words).keys()];

describe('completion', () => {
  const cases: [words: string[], expected: string[]][] = [
    [['li'], ['list']],
    [
      ['service', ''],
      ['install', 'uninstall', 'list', 'set', 'show', 'adopt', 'import'],
    ],
    [['-s', '04:00.0', 'service', 'un'], ['uninstall']],
    [['list', '--cl'], ['--class']],
    [
      ['list', '--class', 'd'],
      ['display', 'docking'],
    ],
    [
      ['pci', 'device', 're'],
      ['remove-id', 'remove', 'rescan', 'reset'],
    ],
    [
      ['completion', ''],
      ['bash', 'zsh', 'fish'],
    ],
    [['bind', 'vfio-pci', '--sib'], ['--siblings']],
    [['bind', 'no'], ['none']],
    [['bind', '--group', 'no'], ['none']],
    [
      ['service', 'set', '04:00.0', 're'],
      ['reset_method=', 'reset=', ...[0, 1, 2, 3, 4, 5].map((bar) => `resource${bar}_resize=`)],
    ],
    [['service', 'install', 'vfio-pci', '--set', 'd3'], ['d3cold_allowed=']],
  ];
  for (const [words, expected] of cases)
    it(`of ${words.join(' ')}`, () => {
      assert.deepEqual(offered(...words), expected);
    });

  it('has scripts with a syntax that the shells accept', () => {
    for (const shell of shells)
      for (const program of ['pearasys', 'mdevctl', 'lsmdev']) {
        const {status, stderr, error} = spawnSync(
          shell,
          ['-n', join(dist, 'share/completion', `${program}.${shell}`)],
          {encoding: 'utf8'},
        );
        if ((error as NodeJS.ErrnoException | undefined)?.code === 'ENOENT' && process.env['CI'] !== 'true')
          continue;
        assert.ifError(error);
        assert.deepEqual([stderr, status], ['', 0], `${shell} ${program}`);
      }
  });

  it('has the tables of the present command lines', async () => {
    const tables = {
      pearasys: await completedProgram(loadableCommands()),
      mdevctl: completedMdevctl(),
      lsmdev: completedLsmdev(),
    };
    for (const [program, description] of Object.entries(tables))
      assert.equal(fs.readFileSync(join(dist, 'completion', program), 'utf8'), completionTable(description));
  });

  describe('of options', () => {
    const of = (...words: readonly string[]) => values(...words, '--');

    it('describes them', () => {
      assert.equal(
        completed('pearasys', 'list', '--tr').get('--tree'),
        'Print devices below their bridges and physical functions',
      );
      assert.equal(completed('pearasys', 'se').get('service'), 'Claim devices at boot and at each hot-add');
      assert.equal(completed('pearasys', 'service', 'un').get('uninstall'), 'Undo `service install`');
    });

    it('offers those before the command, and those of the command', () => {
      assert.ok(of().includes('--version') && !of().includes('--tree'));
      assert.ok(of('list').includes('--tree') && !of('list').includes('--version'));
      assert.deepEqual(of('help'), []);
    });

    it('offers the short ones after a single dash', () => {
      assert.deepEqual(
        values('confirm', '-').filter((name) => /^-[^-]/.test(name)),
        ['-v', '-h'],
      );
      assert.deepEqual(
        of('confirm').filter((name) => /^-[^-]/.test(name)),
        [],
      );
    });

    it('does not offer again what was given, by any of its names, before or after the cursor', () => {
      assert.ok(of('mdev', 'list').includes('--parent'));
      assert.ok(!of('mdev', 'list', '-p', 'mtty').includes('--parent'));
      assert.ok(!of('mdev', 'list', '--parent=mtty').includes('--parent'));
      assert.ok(!of('-v', 'list').includes('--verbose'));
      assert.ok(!of('mdev', 'list', '-dv').includes('--verbose'));
      assert.ok(![...completedAt(1, 'pearasys', 'list', '--', '--tree').keys()].includes('--tree'));
    });

    it('offers again what may be repeated', () => {
      assert.ok(of('-s', '04:00.0', 'service', 'install', 'vfio-pci').includes('--slot'));
      assert.ok(of('list', '--class', 'display').includes('--class'));
    });

    it('does not offer what cannot be combined with what was given, in either order', () => {
      assert.ok(!of('mdev', 'modify', '--auto').includes('--manual'));
      assert.ok(!of('mdev', 'modify', '--manual').includes('--auto'));
      assert.ok(![...completed('mdevctl', 'define', '--jsonfile', 'x', '--').keys()].includes('--type'));
      assert.ok(![...completed('mdevctl', 'define', '-t', 'x', '--').keys()].includes('--jsonfile'));
    });

    it('offers none after --, and none as the value of another', () => {
      assert.deepEqual(of('list', '--'), []);
      assert.deepEqual(of('bind', 'vfio-pci', '--confirm'), []);
    });

    it('offers them where nothing else may be', () => {
      assert.deepEqual(values('confirm', ''), of('confirm'));
      assert.deepEqual([...completed('lsmdev', '').keys()], [...completed('lsmdev', '--').keys()]);
    });

    it('offers the values of those that have a list of them, also after an equals sign', () => {
      assert.deepEqual(values('sriov', 'set', '--autoprobe', ''), ['yes', 'no']);
      assert.deepEqual(values('sriov', 'set', '--autoprobe=y'), ['--autoprobe=yes', '--autoprobe=no']);
    });

    it('asks for the names of files and folders', () => {
      assert.deepEqual([...completed('pearasys', '--root', '')], [['', 'folder\t']]);
      assert.deepEqual([...completed('pearasys', 'list', '--root=/u')], [['', 'folder\t--root=']]);
      assert.deepEqual([...completed('mdevctl', 'start', '--jsonfile', '')], [['', 'file\t']]);
    });
  });

  describe('of a chain of pci', () => {
    it('offers what a link may be, link by link', () => {
      const links = ['rescan', 'driver', 'device'];
      assert.deepEqual(values('pci', ''), links);
      assert.deepEqual(values('pci', 'driver', 'vfio-pci', ''), [
        'bind',
        'unbind',
        'new-id',
        'remove-id',
        'ls',
      ]);
      assert.deepEqual(values('pci', 'driver', 'vfio-pci', 'unbind', ''), links);
      assert.deepEqual(values('pci', 'rescan', 'driver', 'a', '-s', '04:00.0', 'unbind', 'device', ''), [
        ...['bind', 'unbind', 'new-id', 'remove-id', 'driver-override', 'remove', 'rescan', 'reset'],
      ]);
      assert.deepEqual(values('pci', 'device', '--driver', 'a', 'bind', ''), links);
    });

    it('offers --driver for devices only, in each link', () => {
      assert.ok(!values('pci', 'driver', '--').includes('--driver'));
      assert.ok(values('pci', 'device', '--driver', 'a', 'bind', 'device', '--').includes('--driver'));
      assert.deepEqual(values('--root', '/none', 'pci', 'device', '--driver', ''), ['vfio-pci', 'none']);
    });
  });

  describe('of help', () => {
    it('offers the commands', () => {
      assert.deepEqual(values('help', 'hugepages', ''), ['set', 'show', 'clear']);
      assert.ok(values('help', '').includes('list') && !values('help', '').includes('help'));
      assert.ok([...completed('mdevctl', 'help', '').keys()].includes('define'));
    });
  });

  describe('of what the machine has', () => {
    let host: SimulatedHost;
    let folder: string;
    before(() => {
      host = completedMachine();
      ({folder} = host.machine.tree);
    });
    after(() => host.dispose());

    const here = (...words: readonly string[]) => completed('pearasys', '--root', folder, ...words);
    const offers = (...words: readonly string[]) => [...here(...words).keys()];

    it('names slots and ids, with their drivers', () => {
      assert.equal(here('show', '').get('0000:01:00.0'), 'NVIDIA GeForce, nouveau');
      assert.equal(here('list', '--id', '').get('10de:1b80'), 'NVIDIA GeForce, 0000:01:00.0, 0000:02:00.0');
      assert.equal(here('show', '').get('eth1'), 'Intel 10d3, e1000e');
      assert.equal(here('show', '').get('0000:00:14.0'), 'Intel a36d, xhci_hcd');
    });

    it('offers what the drivers of devices provide, and nothing of other devices', () => {
      const names = offers('show', '').filter((name) => !name.includes(':'));
      assert.deepEqual(names.sort(), [
        ...[
          'card0',
          'card1',
          'eth0',
          'eth1',
          'nvme0',
          'nvme0n1',
          'nvme1',
          'nvme1n1',
          'renderD128',
          'renderD129',
        ],
      ]);
    });

    it('offers a slot without its domain where it is typed so', () => {
      assert.ok(offers('-s', '01:').includes('01:00.0'));
      assert.ok(offers('-s', '0').includes('0000:01:00.0'));
      assert.ok(offers('-s01:').includes('-s01:00.0'));
      assert.ok(offers('service', 'install', 'vfio-pci', '--slot=01').includes('--slot=01:00.0'));
    });

    it('does not offer an argument again that may be repeated', () => {
      assert.ok(!offers('unbind', '0000:01:00.0', '').includes('0000:01:00.0'));
      assert.ok(offers('unbind', '0000:01:00.0', '').includes('0000:01:00.1'));
    });

    const kinds: [words: string[], values: Readonly<Record<string, string>>][] = [
      [['sriov', 'set'], {'0000:05:00.0': 'Intel 10d3, e1000e'}],
      [['vgpu', 'set'], {'0000:00:14.2': 'Intel a36f'}],
      [['service', 'set'], {'0000:02:00.0': 'NVIDIA GeForce, pearasys-0000:02:00.0@vfio-pci.service'}],
      [
        ['service', 'uninstall', '-s'],
        {'0000:02:00.0': 'NVIDIA GeForce, pearasys-0000:02:00.0@vfio-pci.service'},
      ],
      [
        ['service', 'uninstall', '-d'],
        {'10de:1b80': 'NVIDIA GeForce, 0000:02:00.0', '8086:15bb': 'Intel Ethernet Connection, in any slot'},
      ],
      [['guest', 'show'], {win11: 'has devices, domain of libvirt', debian: 'domain of libvirt'}],
      [['hugepages', 'set', '4G', '--user'], {root: 'UID 0', ann: 'UID 1000'}],
      [['hugepages', 'set', '4G', '--user-group'], {root: 'GID 0', kvm: 'GID 106'}],
      [['hugepages', 'clear'], {'1G': '', '2M': '', '64K': ''}],
      [['hugepages', 'clear', '-n'], {0: 'NUMA node', 1: 'NUMA node'}],
      [['driver', 'no-iommu'], {on: '', off: ''}],
      [['mdev', 'types', '-p'], {'0000:00:02.0': '', mtty: 'has definitions', matrix: 'has definitions'}],
      [
        ['mdev', 'define', '-t'],
        {'i915-GVTg_V5_4': 'GVTg_V5_4 on 0000:00:02.0', 'mtty-2': 'Dual port serial on mtty'},
      ],
      [['mdev', 'define', '--parent', '00:02.0', '--type'], {'i915-GVTg_V5_4': 'GVTg_V5_4 on 0000:00:02.0'}],
      [
        ['mdev', 'list', '-u'],
        {
          [uuids.both]: 'active on mtty, defined on mtty',
          [uuids.active]: 'active on mtty',
          [uuids.defined]: 'defined on matrix',
        },
      ],
      [['mdev', 'list', '--parent=matrix', '-u'], {[uuids.defined]: 'defined on matrix'}],
      [['mdev', 'stop', '-u'], {[uuids.both]: 'active on mtty', [uuids.active]: 'active on mtty'}],
      [['mdev', 'start', '-u'], {[uuids.both]: 'defined on mtty', [uuids.defined]: 'defined on matrix'}],
    ];
    for (const [words, expected] of kinds)
      it(`offers what ${words.join(' ')} takes`, () => {
        assert.deepEqual(
          Object.fromEntries([...here(...words, '')].sort()),
          Object.fromEntries(Object.entries(expected).sort()),
        );
      });

    it('offers drivers, and the words that stand for one', () => {
      const {none, nouveau, 'vfio-pci': vfio} = Object.fromEntries(here('bind', ''));
      assert.deepEqual(
        [none, nouveau, vfio],
        ['keep all drivers off', 'loaded driver', 'give the device to userspace through VFIO'],
      );
      assert.ok(offers('bind', '').includes('default'));
      assert.ok(!offers('service', 'install', '').includes('default'));
    });

    it('offers groups with their members', () => {
      assert.equal(here('list', '--group', '').get('1'), '0000:00:01.0, 0000:01:00.0, 0000:01:00.1');
    });
  });

  describe('of names that others chose', () => {
    let host: SimulatedHost;
    let folder: string;
    before(() => {
      host = completedMachine();
      ({folder} = host.machine.tree);
      for (const name of [...hostileNames, ...hiddenNames]) {
        fs.writeFileSync(join(folder, `etc/pearasys/guests/${name}.conf`), '');
        fs.mkdirSync(join(folder, `sys/class/mdev_bus/mtty/mdev_supported_types/${name}`));
        fs.symlinkSync(
          `../../devices/pci0000:00/0000:00:1f.6/net/${name}`,
          join(folder, `sys/class/net/${name}`),
        );
      }
    });
    after(() => host.dispose());

    for (const words of [['guest', 'show'], ['mdev', 'define', '-t'], ['show']])
      it(`${words.join(' ')} offers those that a line can show`, () => {
        const found = completed('pearasys', '--root', folder, ...words, '');
        assert.deepEqual(
          [...hostileNames, ...hiddenNames].filter((name) => found.has(name)),
          hostileNames,
        );
        for (const [name, description] of found) assert.doesNotMatch(name + description, /\p{Cc}|\p{Cf}/u);
      });

    describe('in bash', () => {
      const guests = (text: string) => offered('--root', folder, 'guest', 'show', text).sort();
      const names = [...hostileNames, 'debian', 'win11'];
      /** The words as bash reads them from the command line. */
      const read = (words: readonly string[]) =>
        spawnSync('bash', ['--norc'], {
          input: words.map((word) => `printf '%s\\n' ${word}\n`).join(''),
          cwd: folder,
          encoding: 'utf8',
        })
          .stdout.split('\n')
          .slice(0, -1);

      it('they are quoted', () => {
        assert.deepEqual(read(guests('')).sort(), names.sort());
        assert.equal(fs.existsSync(join(folder, 'ran')), false);
      });

      it('inside quotes, those are offered that need no other quotes', () => {
        assert.deepEqual(guests("'"), names.filter((name) => !name.includes("'")).sort());
        assert.deepEqual(guests('"'), names.filter((name) => !/["$`\\!]/.test(name)).sort());
      });

      it('a quoted beginning is completed', () => {
        assert.deepEqual(guests(String.raw`two\ w`), [String.raw`two\ words`]);
        assert.deepEqual(guests(String.raw`\$(to`), [String.raw`\$\(touch\ ran\)`]);
        assert.deepEqual(guests(String.raw`back\\s`), [String.raw`back\\slash`]);
        assert.deepEqual(guests("'['"), ['']);
      });
    });

    it('a name or a description from a file is printed only if a line can show it', () => {
      fs.writeFileSync(
        join(folder, 'usr/share/misc/pci.ids'),
        '10de  NVIDIA $(touch ran)\n\t1b80  GeForce\u001b[31m\n\t10f0  `touch ran`\n',
      );
      const found = completed('pearasys', '--root', folder, 'show', '');
      assert.equal(found.get('0000:01:00.0'), 'nouveau');
      assert.equal(found.get('0000:01:00.1'), 'NVIDIA $(touch ran) `touch ran`, snd_hda_intel');
    });

    it('a unit or a title that a line cannot show is left out, and not what it describes', () => {
      fs.writeFileSync(join(folder, 'usr/share/misc/pci.ids'), '10de  NVIDIA\n');
      const wants = 'etc/systemd/system/sys-bus-pci-devices-0000:02:00.0.device.wants';
      for (const name of ['$(touch ran)', 'esc\u001b[31m', 'two\nlines']) {
        fs.rmSync(join(folder, wants), {recursive: true});
        fs.mkdirSync(join(folder, wants));
        const unit = `pearasys-0000:02:00.0@${name}.service`;
        fs.writeFileSync(join(folder, wants, unit), '');
        fs.writeFileSync(
          join(folder, 'sys/class/mdev_bus/mtty/mdev_supported_types/mtty-2/name'),
          `${name}\n`,
        );
        const shown = !/\p{Cc}/u.test(name);
        const at = completed('pearasys', '--root', folder, 'service', 'set', '');
        assert.equal(at.get('0000:02:00.0'), `NVIDIA 1b80${shown ? `, ${unit}` : ''}`);
        const title = completed('pearasys', '--root', folder, 'mdev', 'define', '--type', '').get('mtty-2');
        // The kernel ends a title at its first newline.
        assert.equal(title, shown ? `${name} on mtty` : name.includes('\n') ? 'two on mtty' : '');
      }
    });

    it('a name that is not UTF-8 is not offered', () => {
      // In a terminal of eight bits, 9b begins a control sequence.
      const name = Buffer.from('guest \u009b31m.conf', 'latin1');
      fs.writeFileSync(Buffer.concat([Buffer.from(`${folder}/etc/pearasys/guests/`), name]), '');
      const found = [...completed('pearasys', '--root', folder, 'guest', 'show', '').keys()];
      assert.deepEqual(
        found.filter((one) => one.startsWith('guest')),
        [],
      );
    });

    it('a root whose name looks like an option, an assignment or a substitution is a folder', () => {
      for (const name of ['-v', 'a=b', '$(touch ran)', "it's"]) {
        fs.mkdirSync(join(folder, name, 'etc/pearasys/guests'), {recursive: true});
        fs.writeFileSync(join(folder, name, 'etc/pearasys/guests/inner.conf'), '');
        const {stdout} = spawnSync(
          'sh',
          [
            join(dist, 'completion/complete'),
            join(dist, 'completion/pearasys'),
            ...['/etc/pearasys', '3', `--root=${name}`, 'guest', 'show', ''],
          ],
          {cwd: folder, encoding: 'utf8'},
        );
        assert.equal(stdout, 'inner\thas devices\n', name);
      }
      assert.equal(fs.existsSync(join(folder, 'ran')), false);
    });
  });

  it('opens nothing of a device but its numbers, and no file that may be a pipe', () => {
    const host = completedMachine();
    try {
      const {folder} = host.machine.tree;
      const filesBelow = (path: string) =>
        fs
          .readdirSync(join(folder, path), {recursive: true, withFileTypes: true})
          .filter((entry) => entry.isFile())
          .map((entry) => join(entry.parentPath, entry.name));
      const read = /\/(?:vendor|device)$|\/mdev_supported_types\/[^/]*\/name$/;
      const pipes = ['etc', 'usr/share/misc', 'sys'].flatMap(filesBelow).filter((path) => !read.test(path));
      assert.ok(
        ['uevent', 'config', 'vpd', 'sriov_numvfs', 'driver_override'].every((name) =>
          pipes.some((path) => path.endsWith(`/${name}`)),
        ),
      );
      replaceByPipes(pipes);
      for (const program of ['pearasys', 'mdevctl']) {
        const table = fs.readFileSync(join(dist, 'completion', program), 'utf8').split('\n');
        const kinds = new Set<string>();
        for (const [what, command = '', option = '', , kind = '-'] of table.map((line) => line.split('\t')))
          if (what === 'option' && kind !== '-' && !kinds.has(kind)) {
            kinds.add(kind);
            const root = program === 'pearasys' ? ['--root', folder] : [];
            completed(
              program,
              ...root,
              ...command.split(' ').filter(Boolean),
              option.split(',')[0] ?? '',
              '',
            );
          }
        for (const words of [
          ['show'],
          ['guest', 'show'],
          ['sriov', 'set'],
          ['vgpu', 'set'],
          ['hugepages', 'clear'],
        ])
          completed('pearasys', '--root', folder, ...words, '');
      }
    } finally {
      host.dispose();
    }
  });

  describe('the command', () => {
    let host: SimulatedHost;
    before(() => (host = SimulatedHost.standard()));
    after(() => host.dispose());

    it('prints the script for the shell that runs it', async () => {
      const {exitCode, stdout} = await run(host, ['--show-completion'], {
        environment: {SHELL: '/usr/bin/zsh'},
      });
      assert.equal(exitCode, 0);
      assert.match(stdout, /^#compdef pearasys\n/);
    });

    it('writes it where the shell looks for it', async () => {
      const environment = {SHELL: '/bin/bash', HOME: '/root'};
      const {exitCode, stdout} = await run(host, ['--install-completion'], {environment});
      assert.equal(exitCode, 0);
      const path = '/root/.local/share/bash-completion/completions/pearasys';
      assert.match(stdout, new RegExp(`^Written to ${path}`));
      assert.match(host.readText(path) ?? '', /^complete -F _pearasys pearasys$/m);
    });

    it('writes that of fish, also where XDG_CONFIG_HOME is', async () => {
      for (const [variables, path] of [
        [{}, '/root/.config/fish/completions/pearasys.fish'],
        [{XDG_CONFIG_HOME: '/root/settings'}, '/root/settings/fish/completions/pearasys.fish'],
      ] as const) {
        const environment = {SHELL: '/usr/bin/fish', HOME: '/root', ...variables};
        assert.equal((await run(host, ['completion', '--install'], {environment})).exitCode, 0);
        assert.match(host.readText(path) ?? '', /^complete --command pearasys /m);
      }
    });

    it('prints, in a checkout, a script that runs what is built', () => {
      const {stdout} = spawnSync(join(dist, '../sbin/pearasys'), ['completion', 'bash'], {encoding: 'utf8'});
      const helper = /^.* < <\(sh '([^']+)'/m.exec(stdout)?.[1] ?? '';
      assert.equal(fs.realpathSync(helper), fs.realpathSync(join(dist, 'completion/complete')));
    });

    it('needs no root, shows the file with --dry-run, and writes it once', async () => {
      host.userId = 1000;
      const environment = {SHELL: '/bin/bash', HOME: '/home/ann'};
      const path = '/home/ann/.local/share/bash-completion/completions/pearasys';
      const dry = await run(host, ['completion', '--install', '--dry-run'], {environment});
      assert.deepEqual([dry.exitCode, dry.stdout.split('\n')[0]], [0, `cat > ${path} <<'EOF'`]);
      assert.equal(host.readText(path), undefined);
      await run(host, ['completion', '--install'], {environment});
      const again = await run(host, ['completion', '--install', '-v'], {environment});
      assert.deepEqual([again.exitCode, again.stderr], [0, '']);
    });

    it('refuses a shell it does not know', async () => {
      const {exitCode, stderr} = await run(host, ['completion', 'tcsh']);
      assert.equal(exitCode, 2);
      assert.match(stderr, /one of bash, zsh, fish/);
    });
  });
});
