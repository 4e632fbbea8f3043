/**
 * What it costs, in ratios to what is used today, whole processes each. Run by `make bench` as root in a mount
 * namespace of its own: the made-up devices are mounted over /sys there, and nowhere else.
 */
import {execFileSync, spawn, spawnSync} from 'node:child_process';
import {mkdtempSync, readdirSync, readFileSync, readlinkSync, rmdirSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {makeFakeTree, makeMdevTree} from './fake-tree.js';
import {install, type Installed} from './installed.js';
import {median, peakMemory, printResult, ratio, timeAll, type Contender} from './measure.js';

if (readlinkSync('/proc/self/ns/mnt') === readlinkSync(`/proc/${process.ppid}/ns/mnt`) && process.pid !== 1)
  throw new Error('run it with `make bench`: it must not see the mounts of the machine');
execFileSync('mount', ['--make-rprivate', '/']);

const program = '/usr/sbin/pearasys';

/** Without the launcher's work, which is ours: what a start of Debian's Node takes. */
const bareNode: Contender = {name: 'node -e 0', command: ['node', '-e', '0']};

// In memory, as the kernel's own is.
const work = mkdtempSync(join(tmpdir(), 'pearasys-bench-'));
execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', work]);
try {
  const installed = await install(work);
  benchStart(installed);
  benchHandler(installed);
  benchCompletion(installed, 200);
  benchList(installed, 1000, 0.72, 50, 20);
  benchList(installed, 4000, 0.45, 55, 20);
  benchMdevctl(installed, 500);
} finally {
  execFileSync('umount', ['--recursive', '--lazy', work]);
  rmdirSync(work);
}

function timeInside({inside}: Installed, contenders: readonly Contender[], runs: number) {
  return timeAll(
    contenders.map(({name, command}) => ({name, command: inside(command)})),
    runs,
  );
}

function benchStart(installed: Installed): void {
  const devices = readdirSync('/sys/bus/pci/devices');
  const [slot = ''] = devices;
  const own: (Contender & {readonly target: number})[] = [
    {name: 'pearasys --version', command: [program, '--version'], target: 1.1},
    {name: 'pearasys --help', command: [program, '--help'], target: 1.1},
    {name: 'pearasys show SLOT --json', command: [program, 'show', slot, '--json'], target: 1.3},
    {name: 'pearasys list', command: [program, 'list'], target: 1.3},
  ];
  const shown = slot === '' ? own.slice(0, 2) : own;
  const times = timeInside(installed, [bareNode, ...shown], 40);
  const base = times.get(bareNode.name) ?? [];
  const waiting = slot === '' ? undefined : besideWaiting(() => timeInside(installed, own.slice(2, 3), 40));
  const version = execFileSync('chroot', [installed.root, 'node', '--version'], {encoding: 'utf8'}).trim();
  process.stdout.write(
    `Starting (Node ${version}, ${devices.length} functions, node -e 0 is ${median(base).toFixed(1)} ms and 1)\n`,
  );
  for (const {name, target} of shown) printResult(name, ratio(times.get(name) ?? [], base), target);
  for (const [name, time] of waiting ?? [])
    printResult(`${name}, beside a process in state D`, ratio(time, base), 1.3);
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
function benchHandler(installed: Installed): void {
  const tree = join(work, 'sys-handler');
  makeFakeTree(tree, 16);
  const drivers = join(tree, 'bus/pci/drivers/vfio-pci');
  const [slot = ''] = readdirSync(drivers).sort();
  const [vendor, device] = ['vendor', 'device'].map((name) =>
    readFileSync(join(drivers, slot, name), 'utf8').trim(),
  );
  writeFileSync(
    join(installed.root, `etc/pearasys/pci/${slot}-${vendor}-${device}`),
    `PEARASYS_SLOT=${slot}\nPEARASYS_ID=${vendor?.slice(2)}:${device?.slice(2)}\nPEARASYS_DRIVER=vfio-pci\n`,
  );
  const handler = '. /usr/libexec/pearasys/node.sh; run_node claim "$@"';
  withSys(installed, tree, () => {
    const contenders: Contender[] = [
      bareNode,
      {name: 'libexec/claim', command: ['/usr/libexec/pearasys/claim', slot, 'vfio-pci']},
      // As libexec/claim starts it.
      {name: 'the handler alone', command: ['sh', '-c', handler, 'sh', slot, 'vfio-pci']},
    ];
    const times = timeInside(installed, contenders, 40);
    const base = times.get(bareNode.name) ?? [];
    process.stdout.write(
      `Starting the unit of a device that is right (node -e 0 is ${median(base).toFixed(1)} ms and 1)\n`,
    );
    for (const [name, time] of times) if (name !== bareNode.name) printResult(name, ratio(time, base), 1);
    for (const [name, time] of besideWaiting(() => timeInside(installed, contenders.slice(2), 40)))
      printResult(`${name}, beside a process in state D`, ratio(time, base), 1);
  });
}

/** Runs `measure` with a made-up tree as the /sys of what is installed. */
function withSys({root}: Installed, tree: string, measure: () => void): void {
  execFileSync('mount', ['--bind', tree, join(root, 'sys')]);
  try {
    measure();
  } finally {
    execFileSync('umount', ['--lazy', join(root, 'sys')]);
  }
}

/** A tab after `pearasys show`: what the scripts of all shells run, and in bash with its start. */
function benchCompletion(installed: Installed, count: number): void {
  const tree = join(work, `sys-completion-${count}`);
  makeFakeTree(tree, count);
  const folder = '/usr/lib/pearasys/completion';
  const inBash = `. /usr/share/bash-completion/completions/pearasys
    COMP_LINE='pearasys show ' COMP_POINT=14 COMP_WORDS=(pearasys show '') COMP_CWORD=2 COMP_TYPE=9
    _pearasys; [ \${#COMPREPLY[@]} -ge ${count} ]`;
  withSys(installed, tree, () => {
    const base: Contender = {name: 'ls', command: ['ls', '/sys/bus/pci/devices']};
    const own: Contender[] = [
      {
        name: 'what all shells run',
        command: ['sh', `${folder}/complete`, `${folder}/pearasys`, '/etc/pearasys', '1', 'show', ''],
      },
      {name: 'in bash, with its start', command: ['bash', '--norc', '-c', inBash]},
    ];
    const times = timeInside(installed, [base, ...own], 40);
    const listing = times.get(base.name) ?? [];
    process.stdout.write(
      `Completing a slot, ${count} functions (ls /sys/bus/pci/devices is ${median(listing).toFixed(1)} ms and 1)\n`,
    );
    for (const {name} of own) printResult(name, ratio(times.get(name) ?? [], listing), 25);
  });
}

/** @param memory at most, in MB. */
function benchList(installed: Installed, count: number, target: number, memory: number, runs: number): void {
  const tree = join(work, `sys-${count}`);
  makeFakeTree(tree, count);
  withSys(installed, tree, () => {
    const lspci: Contender = {name: 'lspci -Dnnk', command: ['lspci', '-Dnnk']};
    const peers: Contender[] = [
      {name: 'driverctl -v list-devices', command: ['driverctl', '-v', 'list-devices']},
      {name: 'dpdk-devbind.py -s', command: ['dpdk-devbind.py', '-s']},
    ];
    const own: Contender[] = [
      {name: 'pearasys list', command: [program, 'list']},
      {name: 'pearasys list --json', command: [program, 'list', '--json']},
    ];
    const times = timeInside(installed, [lspci, ...own], runs);
    const slow = count > 1000 ? [] : peers.filter(({command: [file]}) => isInstalled(installed, file));
    const others = timeInside(installed, slow, 1);
    const base = times.get(lspci.name) ?? [];
    process.stdout.write(`Listing ${count} functions (lspci -Dnnk is ${median(base).toFixed(1)} ms and 1)\n`);
    for (const [name, time] of times)
      if (name !== lspci.name)
        printResult(name, ratio(time, base), name === 'pearasys list' ? target : undefined);
    for (const [name, time] of besideWaiting(() => timeInside(installed, own.slice(0, 1), runs)))
      printResult(`${name}, beside a process in state D`, ratio(time, base), target);
    // Too slow to take turns.
    for (const [name, time] of others) printResult(name, median(time) / median(base), undefined);
    const peak = peakMemory(installed.inside([program, 'list']));
    printResult('pearasys list, memory', peak, memory, ' MB');
  });
}

function benchMdevctl(installed: Installed, count: number): void {
  // What cannot be done without: a device's parent and its type are links.
  const reads = `const fs = require('fs'), folder = '/sys/bus/mdev/devices/';
    for (const name of fs.readdirSync(folder)) {
      fs.readlinkSync(folder + name);
      fs.readlinkSync(folder + name + '/mdev_type');
    }`;
  const tree = join(work, `sys-mdev-${count}`);
  makeMdevTree(tree, count);
  withSys(installed, tree, () => {
    const own: Contender = {name: 'mdevctl list', command: ['mdevctl', 'list']};
    const reading: Contender = {name: 'the reads alone', command: ['node', '-e', reads]};
    const times = timeInside(installed, [bareNode, reading, own], 40);
    const of = ({name}: Contender) => median(times.get(name) ?? []);
    const needed = of(reading) - of(bareNode);
    process.stdout.write(
      `Listing ${count} mediated devices (node -e 0 is ${of(bareNode).toFixed(1)} ms and 1, the reads are ${needed.toFixed(1)} ms)\n`,
    );
    printResult('mdevctl list, without the reads', (of(own) - needed) / of(bareNode), 1.8);
  });
}

function isInstalled({root}: Installed, file: string): boolean {
  const found = spawnSync('chroot', [root, 'sh', '-c', `command -v ${file}`]).status === 0;
  if (!found) process.stdout.write(`${file} is not installed: left out\n`);
  return found;
}
