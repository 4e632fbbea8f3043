/** The contract's cases in the virtual machine. */
import assert from 'node:assert/strict';
import {mkdtempSync, rmSync} from 'node:fs';
import type {Socket} from 'node:net';
import {constants, tmpdir} from 'node:os';
import {join} from 'node:path';
import {dial} from '../vm/dial.js';
import {DEVICES} from '../vm/devices.js';
import {CHECKOUT, Machine, quote, type GuestProcess} from '../vm/machine.js';
import {mdevRecipe} from '../vm/recipes.js';
import {eventText, type ContractMachine, type Ended, type Gate, type StuckWrite} from './machine.js';

/** If a number has two names, the first is the usual one: EAGAIN, EWOULDBLOCK. */
const errnos = new Map(
  Object.entries(constants.errno)
    .map(([name, number]) => [number, name] as const)
    .reverse(),
);
/** A device whose synthetic event shows that all earlier events have been printed. */
const fence = '/sys/devices/virtual/mem/null';

/** Restores the drivers of the devices, and removes overrides and virtual functions. */
const restore = `cd /sys/bus/pci/devices
[ ! -e ${DEVICES.sriov.slot}/sriov_numvfs ] || [ "$(cat ${DEVICES.sriov.slot}/sriov_numvfs)" = 0 ] || echo 0 >${DEVICES.sriov.slot}/sriov_numvfs
modprobe e1000
for each in ${Object.values(DEVICES)
  .map(({slot, driver = ''}) => `${slot}=${driver}`)
  .join(' ')}; do
  slot=\${each%=*} driver=\${each#*=}
  [ -e "$slot" ] || echo 1 >/sys/bus/pci/rescan
  read -r override <"$slot/driver_override"
  [ "$override" = '(null)' ] || echo >"$slot/driver_override"
  now=$(readlink "$slot/driver") || :
  [ "\${now##*/}" != "$driver" ] || continue
  [ -z "$now" ] || echo "$slot" >"$slot/driver/unbind"
  [ -z "$driver" ] || echo "$slot" >/sys/bus/pci/drivers_probe
done
for device in /sys/bus/mdev/devices/*/remove; do [ ! -e "$device" ] || echo 1 >"$device"; done`;

/** The virtual machine, without pearasys. */
export class VirtualContractMachine implements ContractMachine {
  readonly machine: Machine;
  readonly #folder: string;
  readonly #socket: Socket;
  readonly #monitor: GuestProcess;
  readonly #files = new Set<string>();
  readonly #held: GuestProcess[] = [];
  #answer: (line: string) => void = () => undefined;
  #input = '';
  /** The previous request. */
  #last: Promise<unknown> = Promise.resolve();
  /** The length of the monitor's output that has been read. */
  #seen = 0;
  #gates = 0;

  private constructor(machine: Machine, folder: string, socket: Socket, monitor: GuestProcess) {
    this.machine = machine;
    this.#folder = folder;
    this.#socket = socket;
    this.#monitor = monitor;
  }

  static async boot(): Promise<VirtualContractMachine> {
    const folder = mkdtempSync(join(tmpdir(), 'pearasys-contract-'));
    const path = join(folder, 'port');
    const machine = await Machine.boot({
      ...mdevRecipe(),
      extraArguments: [
        ...['-chardev', `socket,id=contract,path=${path},server=on,wait=off`],
        ...['-device', 'virtserialport,chardev=contract,name=pearasys.contract'],
      ],
    });
    // The distribution's rule would start definitions of mediated devices.
    await machine.sh('ln -s /dev/null /etc/udev/rules.d/60-mdevctl.rules && udevadm control --reload');
    const monitor = await machine.start('exec udevadm monitor --kernel --property');
    await monitor.printed(/KERNEL - the kernel uevent/);
    await machine.start(`exec perl ${CHECKOUT}/test/contract/worker.pl`);
    let made: VirtualContractMachine | undefined = undefined;
    const socket = await dial(path, (data) => made?.heard(data.toString('latin1')));
    made = new VirtualContractMachine(machine, folder, socket, monitor);
    return made;
  }

  async close(): Promise<void> {
    this.#socket.destroy();
    await this.machine.close();
    rmSync(this.#folder, {recursive: true, force: true});
  }

  /** @internal Receives the output of the worker. */
  heard(text: string): void {
    this.#input += text;
    const end = this.#input.indexOf('\n');
    if (end === -1) return;
    const line = this.#input.slice(0, end);
    this.#input = this.#input.slice(end + 1);
    this.#answer(line);
  }

  /** Begins a case: earlier events are discarded. */
  async begin(): Promise<void> {
    await this.settle();
    await this.events();
  }

  /** Ends a case: restores the previous state of the machine. */
  async end(): Promise<void> {
    for (const process of this.#held.splice(0)) await endOf(process);
    const units = await this.machine.sh(
      "systemctl list-units --all --plain --no-legend 'contract*' | cut -d ' ' -f 1",
    );
    if (units !== '') await this.machine.run(`systemctl stop ${units.replaceAll('\n', ' ')}`);
    for (const path of this.#files) await this.remove(path);
    if (this.#files.size > 0)
      await this.machine.sh(
        "rm -rf /etc/systemd/system/*.device.wants /run/contract; udevadm control --reload; systemctl daemon-reload; systemctl reset-failed 'contract*' || true",
      );
    this.#files.clear();
    await this.machine.sh(restore);
  }

  /** Sends a request to the worker, which handles one at a time. */
  #ask(...words: string[]): Promise<string[]> {
    const line = words.map((word) => encodeURIComponent(word).replaceAll("'", '%27')).join(' ');
    const asked = this.#last.then(async () => {
      const answered = new Promise<string>((resolve) => (this.#answer = resolve));
      this.#socket.write(`${line}\n`);
      return (await answered).split(' ').map((word) => decodeURIComponent(word));
    });
    this.#last = asked.catch(() => undefined);
    return asked;
  }

  async read(path: string): Promise<string | undefined> {
    const [kind, text = ''] = await this.#ask('read', path);
    if (kind === 'none') return undefined;
    if (kind === 'errno') throw new Error(`reading ${path}: ${errnoName(text)}`);
    return text.replace(/\n$/, '');
  }

  async exists(path: string): Promise<boolean> {
    return (await this.#ask('exists', path))[0] === 'yes';
  }

  async list(path: string): Promise<string[]> {
    return (await this.#ask('list', path)).slice(1);
  }

  async link(path: string): Promise<string | undefined> {
    return (await this.#ask('link', path))[1];
  }

  async write(path: string, text: string): Promise<string> {
    const [, errno = ''] = await this.#ask('write', path, text);
    return errnoName(errno);
  }

  async writeForever(path: string, text: string): Promise<StuckWrite> {
    const [kind, word = ''] = await this.#ask('forever', path, text);
    assert.equal(kind, 'stuck', `the write to ${path} has returned: ${errnoName(word)}`);
    return {returned: async () => errnoName((await this.#ask('returned', word))[1] ?? '')};
  }

  async run(program: string, ...args: string[]): Promise<Ended> {
    const [, code = '', stdout = '', stderr = ''] = await this.#ask('run', program, ...args);
    return {code: Number(code), stdout: stdout.trimEnd(), stderr: stderr.trimEnd()};
  }

  async put(path: string, text: string): Promise<void> {
    this.#files.add(path);
    const [, errno = ''] = await this.#ask('put', path, text);
    assert.equal(errnoName(errno), 'ok', path);
  }

  async remove(path: string): Promise<void> {
    await this.#ask('remove', path);
  }

  async settle(): Promise<void> {
    await this.machine.waitUntil('udevadm settle && test -z "$(systemctl list-jobs --no-legend)"');
  }

  async events(): Promise<string[]> {
    await this.#ask('write', `${fence}/uevent`, 'change');
    const last = new RegExp(`KERNEL\\S+ change +${fence.slice('/sys'.length)} [^]*?\\n\\n`);
    for (;;) {
      const text = this.#monitor.stdout.slice(this.#seen);
      const end = last.exec(text);
      if (end === null) {
        await this.#monitor.changed();
        continue;
      }
      this.#seen += end.index + end[0].length;
      return text.slice(0, end.index).split('\n\n').flatMap(eventOf);
    }
  }

  async hold(device: string): Promise<() => Promise<void>> {
    const process = await this.machine.start(`exec perl ${CHECKOUT}/test/vm/stuck.pl ${quote(device)}`);
    this.#held.push(process);
    await process.printed(/held/);
    return async () => endOf(process);
  }

  async gate(): Promise<Gate> {
    const path = `/run/contract-gate-${++this.#gates}`;
    await this.machine.sh(`mkfifo ${path}`);
    return {
      command: `/usr/bin/cat ${path}`,
      open: async () => {
        await this.machine.sh(`: >${path}; rm ${path}`);
      },
    };
  }
}

async function endOf(process: GuestProcess): Promise<void> {
  process.kill();
  await process.exited;
}

function errnoName(number: string): string {
  return number === '0' ? 'ok' : (errnos.get(Number(number)) ?? `errno ${number}`);
}

/** The event in a block of the monitor's output; none for a subsystem that no case uses. */
function eventOf(block: string): string[] {
  const [, action, path = '', subsystem = ''] = /KERNEL\S+ (\S+) +(\S+) \((\S+)\)/.exec(block) ?? [];
  if (action === undefined) return [];
  return eventText(
    action,
    path,
    subsystem,
    /^SYNTH_UUID=/m.test(block),
    /^MDEV_STATE=(.*)$/m.exec(block)?.[1],
  );
}
