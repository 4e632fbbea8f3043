import assert from 'node:assert/strict';
import {hasSwitch, readCommandLine, type CommandLine} from '../../src/entry/cli/prelude.js';

const ids = ['list', 'show', 'bind', 'pci', 'service:install', 'service:uninstall', 'completion'];

function read(line: string): CommandLine {
  return readCommandLine(line === '' ? [] : line.split(' '), ids);
}

describe('the argv prelude', () => {
  const runs: [line: string, id: string, argv: string][] = [
    ['list', 'list', ''],
    ['list --json', 'list', '--json'],
    ['--json list', 'list', '--json'],
    ['-v --root /mnt list --class display', 'list', '-v --root /mnt --class display'],
    ['--root=/mnt list', 'list', '--root=/mnt'],
    ['show 04:00.0', 'show', '04:00.0'],
    [
      '-s 04:00.0 -d10de:1b80 --pid=8086:10d3 -v bind vfio-pci',
      'bind',
      '-v vfio-pci 04:00.0 10de:1b80 8086:10d3',
    ],
    ['service install vfio-pci', 'service:install', 'vfio-pci'],
    ['-s 04:00.0 service install vfio-pci', 'service:install', '-s 04:00.0 vfio-pci'],
    [
      '-s04:00.0 -vd 10de:1b80 service install vfio-pci',
      'service:install',
      '-s04:00.0 -vd 10de:1b80 vfio-pci',
    ],
    [
      '--slot 04:00.0 --pid 10de:1b80 service uninstall',
      'service:uninstall',
      '--slot 04:00.0 --pid 10de:1b80',
    ],
    ['--timeout 3 --force show x', 'show', '--timeout 3 --force x'],
    ['--show-completion', 'completion', ''],
    ['--install-completion', 'completion', '--install'],
    ['--install-completion zsh', 'completion', '--install zsh'],
    ['--debug --show-completion', 'completion', '--debug'],
    // What follows -- is nobody's option.
    ['list -- --help', 'list', '-- --help'],
  ];
  for (const [line, id, argv] of runs)
    it(`runs ${line}`, () => {
      assert.deepEqual(read(line), {kind: 'run', id, argv: argv === '' ? [] : argv.split(' ')});
    });

  describe('pci chains', () => {
    const chains: [line: string, argv: string][] = [
      ['pci rescan', '-- rescan'],
      [
        '-d 10de:10f0 -d 10de:1b80 pci driver vfio-pci unbind driver nvidia new-id',
        '-d 10de:10f0 -d 10de:1b80 -- driver vfio-pci unbind driver nvidia new-id',
      ],
      [
        '-s 04:00.0 pci device -s 05:00.0 --driver vfio-pci bind',
        '-s 04:00.0 -- device -s 05:00.0 --driver vfio-pci bind',
      ],
      ['pci --dry-run driver vfio-pci bind --json -v', '--dry-run --json -v -- driver vfio-pci bind'],
      ['pci device remove --timeout 3 rescan', '--timeout 3 -- device remove rescan'],
      ['pci device remove --timeout=3 rescan', '--timeout=3 -- device remove rescan'],
      ['pci --root /mnt driver vfio-pci ls', '--root /mnt -- driver vfio-pci ls'],
    ];
    for (const [line, argv] of chains)
      it(line, () => {
        assert.deepEqual(read(line), {kind: 'run', id: 'pci', argv: argv.split(' ')});
      });

    it('keeps an empty word', () => {
      assert.deepEqual(readCommandLine(['pci', 'device', '--driver', '', 'driver-override'], ids), {
        kind: 'run',
        id: 'pci',
        argv: ['--', 'device', '--driver', '', 'driver-override'],
      });
    });
  });

  const helps: [line: string, words: string][] = [
    ['', ''],
    ['--help', ''],
    ['-h', ''],
    ['help', ''],
    ['-v', ''],
    ['list --help', 'list'],
    ['list -h', 'list'],
    ['--help list', 'list'],
    ['help service install', 'service install'],
    ['service', 'service'],
    ['service --help', 'service'],
    ['service install vfio-pci --help', 'service install'],
    ['pci driver vfio-pci --help', 'pci'],
  ];
  for (const [line, words] of helps)
    it(`helps with '${line}'`, () => {
      assert.deepEqual(read(line), {kind: 'help', words: words === '' ? [] : words.split(' ')});
    });

  for (const line of ['--version', '-v --version list', '--version --json'])
    it(`${line} is the version`, () => {
      assert.deepEqual(read(line), {kind: 'version'});
    });

  for (const [line, words] of [
    ['lst', 'lst'],
    ['-s 04:00.0 lst', 'lst'],
    ['lst --json', 'lst'],
    ['service instal', 'service instal'],
    ['help lst', 'lst'],
    ['04:00.0', '04:00.0'],
  ] as const)
    it(`does not know ${line}`, () => {
      assert.deepEqual(read(line), {kind: 'unknown', words: words.split(' ')});
    });

  it('sees switches before -- only', () => {
    assert.equal(hasSwitch(['a', '--json'], '--json'), true);
    assert.equal(hasSwitch(['a', '--', '--json'], '--json'), false);
  });
});
