/**
 * What it costs, in ratios to what is used today, whole processes each. Run by `make bench` as root in a mount
 * namespace of its own: the made-up devices are mounted over /sys there, and nowhere else.
 */
import {execFileSync, spawn, spawnSync} from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import {release, tmpdir} from 'node:os';
import {join} from 'node:path';
import {makeFakeTree, makeMdevTree} from './fake-tree.js';
import {median, peakMemory, printResult, ratio, timeAll, type Contender} from './measure.js';

if (readlinkSync('/proc/self/ns/mnt') === readlinkSync(`/proc/${process.ppid}/ns/mnt`) && process.pid !== 1)
  throw new Error('run it with `make bench`: it must not see the mounts of the machine');
execFileSync('mount', ['--make-rprivate', '/']);

// In memory, as the kernel's own is.
const work = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'pearasys-bench-'));
try {
  const program = install(join(work, 'prefix'));
  benchStart(program);
  const modules = process.env['MODULES'] ?? '';
  if (modules !== '' && !hasModules()) provideModules(modules);
  benchHandler(join(work, 'prefix'));
  benchCompletion(join(work, 'prefix'), 200);
  benchList(program, 1000, 1, 20);
  benchList(program, 4000, 0.6, 20);
  benchMdevctl(program, 500);
} finally {
  rmSync(work, {recursive: true, force: true});
}

/** Installs as `make install` does, below a folder. @returns the command. */
function install(prefix: string): string {
  // A reload concerns the machine's own systemd and udev.
  execFileSync('make', ['install', `PREFIX=${prefix}`, `SYSCONFDIR=${join(prefix, 'etc')}`, 'reload='], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  return join(prefix, 'sbin/pearasys');
}

/** Whether lspci finds what `depmod` writes of the kernel's modules, as on every machine but a container. */
function hasModules(): boolean {
  return existsSync(`/lib/modules/${release()}/modules.alias.bin`);
}

/** Lays another kernel's `modules.*` files over those of this one, which has none, in this mount namespace. */
function provideModules(folder: string): void {
  const layer = join(work, 'lib');
  const own = join(layer, 'modules', release());
  mkdirSync(own, {recursive: true});
  for (const name of readdirSync(folder))
    if (name.startsWith('modules.')) copyFileSync(join(folder, name), join(own, name));
  const lib = realpathSync('/lib');
  execFileSync('mount', ['-t', 'overlay', '-o', `lowerdir=${layer}:${lib}`, 'overlay', lib]);
}

function benchStart(program: string): void {
  const devices = execFileSync('ls', ['/sys/bus/pci/devices'], {encoding: 'utf8'}).split('\n');
  const [slot = ''] = devices;
  const contenders: Contender[] = [
    {name: 'node -e 0', command: ['node', '-e', '0']},
    {name: 'pearasys --version', command: [program, '--version']},
    {name: 'pearasys --help', command: [program, '--help']},
    {name: 'pearasys show SLOT --json', command: [program, 'show', slot, '--json']},
    {name: 'pearasys list', command: [program, 'list']},
  ];
  const times = timeAll(slot === '' ? contenders.slice(0, 3) : contenders, 40);
  const base = times.get('node -e 0') ?? [];
  const waiting = slot === '' ? undefined : besideWaiting(() => timeAll(contenders.slice(3, 4), 40));
  process.stdout.write(
    `Starting (${devices.length - 1} functions, node -e 0 is ${median(base).toFixed(1)} ms and 1)\n`,
  );
  for (const [name, time] of times)
    if (name !== 'node -e 0')
      printResult(name, ratio(time, base), name === 'pearasys list' ? undefined : 1.8);
  for (const [name, time] of waiting ?? [])
    printResult(`${name}, beside a process in state D`, ratio(time, base), 1.8);
}

/**
 * Runs `work` while a process waits in the kernel, in state D, as others do for a slow disk or a server that does not
 * answer: the parent in vfork(2), whose child pauses.
 */
function besideWaiting<T>(work: () => T): T {
  const [vfork, pause] = [58, 34];
  const {pid} = spawn('perl', ['-e', `syscall(${vfork}) or syscall(${pause})`], {
    detached: true,
    stdio: 'ignore',
  });
  if (pid === undefined) throw new Error('perl cannot be started');
  const nap = new Int32Array(new SharedArrayBuffer(4));
  try {
    while (!/\) D /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))) Atomics.wait(nap, 0, 0, 10);
    return work();
  } finally {
    process.kill(-pid, 'SIGKILL');
  }
}

/** The start of a unit whose device is right, by the launcher of libexec and by the handler alone. */
function benchHandler(prefix: string): void {
  const tree = join(work, 'sys-handler');
  makeFakeTree(tree, 16);
  const drivers = join(tree, 'bus/pci/drivers/vfio-pci');
  const [slot = ''] = readdirSync(drivers).sort();
  const [vendor, device] = ['vendor', 'device'].map((name) =>
    readFileSync(join(drivers, slot, name), 'utf8').trim(),
  );
  writeFileSync(
    join(prefix, `etc/pearasys/pci/${slot}-${vendor}-${device}`),
    `PEARASYS_SLOT=${slot}\nPEARASYS_ID=${vendor?.slice(2)}:${device?.slice(2)}\nPEARASYS_DRIVER=vfio-pci\n`,
  );
  execFileSync('mount', ['--bind', tree, '/sys']);
  try {
    const contenders: Contender[] = [
      {name: 'node -e 0', command: ['node', '-e', '0']},
      {
        name: 'libexec/claim',
        command: [join(prefix, 'libexec/pearasys/claim'), slot, 'vfio-pci'],
      },
      {
        name: 'the handler alone',
        // As libexec/claim starts it.
        command: ['node', '--no-rehash-snapshot', join(prefix, 'lib/pearasys/claim.cjs'), slot, 'vfio-pci'],
      },
    ];
    const times = timeAll(contenders, 40);
    const base = times.get('node -e 0') ?? [];
    process.stdout.write(
      `Starting the unit of a device that is right (node -e 0 is ${median(base).toFixed(1)} ms and 1)\n`,
    );
    for (const [name, time] of times) if (name !== 'node -e 0') printResult(name, ratio(time, base), 1.25);
    for (const [name, time] of besideWaiting(() => timeAll(contenders.slice(2), 40)))
      printResult(`${name}, beside a process in state D`, ratio(time, base), 1.25);
  } finally {
    execFileSync('umount', ['--lazy', '/sys']);
  }
}

/** A tab after `pearasys show`: what the scripts of all shells run, and in shells with their start. */
function benchCompletion(prefix: string, count: number): void {
  const tree = join(work, `sys-completion-${count}`);
  makeFakeTree(tree, count);
  const script = join(prefix, 'share/bash-completion/completions/pearasys');
  const library = join(prefix, 'lib/pearasys/completion');
  const inBash = `. '${script}'; COMP_LINE='pearasys show ' COMP_POINT=14 COMP_WORDS=(pearasys show '') COMP_CWORD=2 COMP_TYPE=9
    _pearasys; [ \${#COMPREPLY[@]} -ge ${count} ]`;
  execFileSync('mount', ['--bind', tree, '/sys']);
  try {
    const base: Contender = {name: 'ls', command: ['ls', '/sys/bus/pci/devices']};
    const own: Contender[] = [
      {
        name: 'what all shells run',
        command: [
          'sh',
          join(library, 'complete'),
          join(library, 'pearasys'),
          '/etc/pearasys',
          '1',
          'show',
          '',
        ],
      },
      {name: 'in bash, with its start', command: ['bash', '--norc', '-c', inBash]},
    ];
    const times = timeAll([base, ...own], 40);
    const listing = times.get(base.name) ?? [];
    process.stdout.write(
      `Completing a slot, ${count} functions (ls /sys/bus/pci/devices is ${median(listing).toFixed(1)} ms and 1)\n`,
    );
    for (const {name} of own) printResult(name, ratio(times.get(name) ?? [], listing), 25);
  } finally {
    execFileSync('umount', ['--lazy', '/sys']);
  }
}

function benchList(program: string, count: number, target: number, runs: number): void {
  const tree = join(work, `sys-${count}`);
  makeFakeTree(tree, count);
  execFileSync('mount', ['--bind', tree, '/sys']);
  try {
    const lspci: Contender = {name: 'lspci -Dnnk', command: ['lspci', '-Dnnk']};
    const peers: Contender[] = [
      {name: 'driverctl -v list-devices', command: ['driverctl', '-v', 'list-devices']},
      {name: 'dpdk-devbind.py -s', command: ['dpdk-devbind.py', '-s']},
    ];
    const own: Contender[] = [
      {name: 'pearasys list', command: [program, 'list']},
      {name: 'pearasys list --json', command: [program, 'list', '--json']},
    ];
    const times = timeAll([lspci, ...own], runs);
    const others = timeAll(count > 1000 ? [] : peers.filter(({command: [file]}) => isInstalled(file)), 1);
    const base = times.get(lspci.name) ?? [];
    process.stdout.write(`Listing ${count} functions (lspci -Dnnk is ${median(base).toFixed(1)} ms and 1)\n`);
    if (!hasModules())
      process.stdout.write(
        '  There are no modules here (MODULES=): elsewhere lspci looks up those of each function.\n',
      );
    for (const [name, time] of times)
      if (name !== lspci.name)
        printResult(name, ratio(time, base), name === 'pearasys list' ? target : undefined);
    for (const [name, time] of besideWaiting(() => timeAll(own.slice(0, 1), runs)))
      printResult(`${name}, beside a process in state D`, ratio(time, base), target);
    // Too slow to take turns.
    for (const [name, time] of others) printResult(name, median(time) / median(base), undefined);
    const start = join(program, '../../lib/pearasys/start.cjs');
    printResult('pearasys list, memory', peakMemory(start, ['list']), 80, ' MB');
  } finally {
    execFileSync('umount', ['--lazy', '/sys']);
  }
}

function benchMdevctl(program: string, count: number): void {
  // What cannot be done without: a device's parent and its type are links.
  const reads = `const fs = require('fs'), folder = '/sys/bus/mdev/devices/';
    for (const name of fs.readdirSync(folder)) {
      fs.readlinkSync(folder + name);
      fs.readlinkSync(folder + name + '/mdev_type');
    }`;
  const tree = join(work, `sys-mdev-${count}`);
  makeMdevTree(tree, count);
  const mdevctl = join(program, '../mdevctl');
  symlinkSync('pearasys', mdevctl);
  execFileSync('mount', ['--bind', tree, '/sys']);
  try {
    const own: Contender = {name: 'mdevctl list', command: [mdevctl, 'list']};
    const times = timeAll(
      [
        {name: 'node -e 0', command: ['node', '-e', '0']},
        {name: 'the reads alone', command: ['node', '-e', reads]},
        own,
      ],
      40,
    );
    const of = (name: string) => median(times.get(name) ?? []);
    const reading = of('the reads alone') - of('node -e 0');
    process.stdout.write(
      `Listing ${count} mediated devices (node -e 0 is ${of('node -e 0').toFixed(1)} ms and 1, the reads are ${reading.toFixed(1)} ms)\n`,
    );
    printResult('mdevctl list, without the reads', (of(own.name) - reading) / of('node -e 0'), 1.8);
  } finally {
    execFileSync('umount', ['--lazy', '/sys']);
  }
}

function isInstalled(file: string): boolean {
  const found = spawnSync('sh', ['-c', `command -v ${file}`]).status === 0;
  if (!found) process.stdout.write(`${file} is not installed: left out\n`);
  return found;
}
