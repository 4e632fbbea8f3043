/**
 * Run by `make try`: a root shell in a test machine that has the Debian packages, for people who want to try pearasys
 * before they install it. The host is not touched, and the machine is discarded at the end. Arguments: the packages.
 */
import {rmSync} from 'node:fs';
import {mkdtemp} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {DEVICES} from '../vm/devices.js';
import {dial} from '../vm/dial.js';
import {domain} from '../vm/domain.js';
import {available} from '../vm/image.js';
import {Machine, quote} from '../vm/machine.js';
import {libvirtRecipe} from '../vm/recipes.js';

const {display, displayAudio, disk0, disk1, network, spareNetwork, sriov} = DEVICES;
const guest = 'guest';
/** What Ctrl-] sends, as in virsh and telnet. */
const LEAVE = 0x1d;
const short = (slot: string): string => slot.replace(/^0000:/, '');

const welcome = `
This is a virtual machine with pearasys. You are root in it, and it is discarded at the end. It has:

  ${short(display.slot)}, ${short(displayAudio.slot)}  a graphics card and its audio function
  ${short(network.slot)}, ${short(spareNetwork.slot)}  network cards of the same model
  ${short(disk0.slot)}, ${short(disk1.slot)}  NVMe disks of the same model
  ${short(sriov.slot)}           an NVMe disk with up to 4 virtual functions
  mtty              a parent of mediated devices: pearasys mdev types
  ${guest}             a libvirt guest whose definition has the graphics card: pearasys guest setup ${guest}

Try:

  pearasys list
  pearasys bind vfio-pci ${short(display.slot)} --siblings
  pearasys -s ${short(disk1.slot)} service install vfio-pci --now    # holds after a reboot, too

To leave: poweroff, exit or Ctrl-]
`;

/** How a shell ended: it was left, or the machine reboots. */
type Outcome = 'left' | 'reboot';

/** Runs a shell on the console until it ends. */
async function runShell(machine: Machine, left: Promise<Outcome>): Promise<Outcome> {
  const ended = machine
    .event(({event}) => event === 'RESET' || event === 'SHUTDOWN', 2 ** 31 - 1)
    .then(
      ({event}) => (event === 'RESET' ? 'reboot' : 'left'),
      // QEMU has ended.
      () => 'left',
    ) satisfies Promise<Outcome>;
  const properties = [
    ...['StandardInput=tty', 'StandardOutput=tty', 'StandardError=tty', 'TTYPath=/dev/hvc0', 'TTYReset=yes'],
    // An interactive shell ignores SIGTERM, and would delay each shutdown.
    ...['KillSignal=SIGHUP', 'WorkingDirectory=/root'],
  ].flatMap((property) => ['--property', property]);
  const variables = ['HOME=/root', 'LANG=C.UTF-8', `TERM=${process.env['TERM'] ?? 'xterm'}`];
  const setup = `${resize()}; tput -T "$TERM" cols >/dev/null 2>&1 || TERM=xterm; cat /etc/motd; exec bash --login`;
  const shell = await machine.start(
    ['systemd-run', '--quiet', '--wait', '--collect', ...properties]
      .concat(variables.flatMap((variable) => ['--setenv', variable]))
      .concat('sh', '-c', setup)
      .map(quote)
      .join(' '),
  );
  const closed = shell.exited.then(
    async ({stderr}): Promise<Outcome> => {
      process.stderr.write(stderr);
      // A shutdown stops the shell first. Then the next event says whether it is a reboot.
      const state = await machine.run('systemctl is-system-running').catch(() => undefined);
      return state === undefined || state.stdout.startsWith('stopping') ? ended : 'left';
    },
    () => ended,
  );
  return Promise.race([ended, closed, left]);
}

/** The command that gives the machine's console the size of this terminal. */
function resize(): string {
  return `stty -F /dev/hvc0 rows ${process.stdout.rows || 24} columns ${process.stdout.columns || 80}`;
}

/** Passes what is typed on to the machine's console. @returns a promise for the key that ends it */
async function connectTerminal(socket: string): Promise<{readonly left: Promise<Outcome>}> {
  const connection = await dial(socket, (data) => process.stdout.write(data));
  const left = new Promise<Outcome>((resolve) =>
    process.stdin.on('data', (typed: Buffer) => {
      if (typed.includes(LEAVE)) resolve('left');
      else connection.write(typed);
    }),
  );
  process.stdin.setRawMode(true);
  return {left};
}

async function tryPackages(packages: readonly string[]): Promise<void> {
  if (!process.stdin.isTTY || !process.stdout.isTTY) throw new Error('make try needs a terminal');
  const recipe = libvirtRecipe();
  const why = await available(recipe);
  if (why !== undefined) throw new Error(why);
  const folder = await mkdtemp(path.join(tmpdir(), 'pearasys-try-'));
  // The machine is ended by its own listener.
  process.on('exit', () => rmSync(folder, {recursive: true}));
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => process.exit(1));
  const socket = path.join(folder, 'shell');
  process.stderr.write('starting a virtual machine\n');
  const machine = await Machine.boot({
    ...recipe,
    memory: 2048,
    shares: {packages: path.dirname(path.resolve(packages[0] ?? ''))},
    extraArguments: [
      ...['-chardev', `socket,id=shell,path=${socket},server=on,wait=off`],
      ...['-device', 'virtconsole,chardev=shell'],
    ],
  });
  process.stderr.write('installing the packages in it\n');
  const files = packages.map((file) => quote(`/mnt/packages/${path.basename(file)}`)).join(' ');
  await machine.sh(`DEBIAN_FRONTEND=noninteractive apt-get --yes --quiet install ${files}`);
  await machine.sh('echo mtty >/etc/modules-load.d/mtty.conf && modprobe mtty');
  await machine.sh('virsh --quiet define /dev/stdin', {
    input: domain(guest, [display.slot, displayAudio.slot], 'no'),
  });
  await machine.writeFile('/etc/motd', welcome);

  const {left} = await connectTerminal(socket);
  process.stdout.on('resize', () => void machine.run(resize()).catch(() => undefined));
  while ((await runShell(machine, left)) === 'reboot') {
    process.stdout.write('\r\nThe machine reboots.\r\n');
    await machine.booted();
  }
  process.stdin.setRawMode(false);
  process.stdout.write('\n');
  await machine.close();
}

try {
  await tryPackages(process.argv.slice(2));
  // The terminal would keep this process running.
  process.exit();
} catch (error) {
  process.stderr.write(`make try: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exit(1);
}
