import fs from 'node:fs';
import {join} from 'node:path';
import {claim} from '../../src/entry/handlers/claim.js';
import {guestStart} from '../../src/entry/handlers/guest-start.js';
import {guestStop} from '../../src/entry/handlers/guest-stop.js';
import {report, type Handler, type HandlerContext} from '../../src/entry/handlers/handler.js';
import {record} from '../../src/entry/handlers/record.js';
import {release} from '../../src/entry/handlers/release.js';
import {vgpuSet} from '../../src/entry/handlers/vgpu-set.js';
import {vgpuStop} from '../../src/entry/handlers/vgpu-stop.js';
import {vfs} from '../../src/entry/handlers/vfs.js';
import {defaultLayout} from '../../src/config/layout.js';
import {render} from '../../src/systemd/templates.js';
import type {MachineDeclaration} from '../simulated-host/declaration.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';

const repository = join(import.meta.dirname, '../..');

/** The text of a shipped file as `make install` without settings puts it. */
export function shipped(path: string): string {
  return fs
    .readFileSync(join(repository, path), 'utf8')
    .replaceAll('@SYSCONFDIR@', '/etc')
    .replaceAll('@LIBDIR@', '/usr/local/lib/pearasys')
    .replaceAll('@LIBEXECDIR@', '/usr/local/libexec/pearasys')
    .replaceAll('@NODE@', '/usr/bin/node');
}

/** With which Node runs everything. */
export const nodeFlags = /^flags='(.*)'$/m.exec(shipped('libexec/node.sh'))?.[1] ?? '';

/**
 * Puts the programs of libexec for devices into a folder, for the machine whose root the folder is: sh runs them as
 * they are, on its files.
 * @param node what they start as Node.
 */
export function putPrograms(folder: string, node: string): void {
  for (const name of [
    'claim',
    'release',
    'record',
    'vfs',
    'early',
    'records.sh',
    'reserve.sh',
    'trust.sh',
    'rescue.sh',
    'node.sh',
    'turn.sh',
    'pearasys-generator',
  ]) {
    const from = name === 'pearasys-generator' ? 'systemd-generators' : 'libexec';
    const text = shipped(`${from}/${name}`)
      .replaceAll('/usr/local/libexec/pearasys', folder)
      .replaceAll('/usr/bin/node', node)
      // Of what may be installed here.
      .replaceAll('$libdir/cache', `${folder}/cache`)
      .replaceAll('/etc/', `${folder}/etc/`)
      .replaceAll('/sys/bus', `${folder}/sys/bus`)
      .replaceAll('/proc/cmdline', `${folder}/proc/cmdline`)
      .replaceAll('/run/pearasys', `${folder}/run/pearasys`)
      .replaceAll('/run/systemd', `${folder}/run/systemd`)
      .replaceAll('/dev/kmsg', `${folder}/kmsg`);
    fs.writeFileSync(join(folder, name), text, {mode: 0o755});
  }
}

/** Puts the rule file and the units that are the same everywhere on the machine. */
export function withProduct(declaration: MachineDeclaration): void {
  for (const rules of ['60-pearasys.rules', '60-pearasys-sriov.rules', '60-pearasys-vgpu.rules'])
    declaration.files[`/usr/lib/udev/rules.d/${rules}`] = shipped(`udev/${rules}`);
  for (const unit of [
    'pearasys-record@.service',
    'pearasys-guest@.service',
    'pearasys-awake@.service',
    'vgpu@.service',
    'vgpu_set@.service',
    'pearasys-sriov@.target',
    'pearasys-vfs@.service',
  ])
    declaration.files[`/usr/lib/systemd/system/${unit}`] = render(unit, defaultLayout);
}

/** For a suite: makes standard machines with the product, which are disposed of after each test. */
export function machines(): (tweak?: (declaration: MachineDeclaration) => void) => SimulatedHost {
  const hosts: SimulatedHost[] = [];
  afterEach(() => {
    for (const host of hosts.splice(0)) host.dispose();
  });
  return (tweak) => {
    const host = SimulatedHost.standard((declaration) => {
      withProduct(declaration);
      tweak?.(declaration);
    });
    hosts.push(host);
    return host;
  };
}

/** A handler's run: its exit code and its lines for the journal. */
export interface HandlerRun {
  readonly exitCode: number;
  readonly journal: readonly string[];
}

/** Runs a handler in this process as `runHandler` does in its own. */
export async function runOn(
  host: SimulatedHost,
  handler: Handler,
  ...args: readonly string[]
): Promise<HandlerRun> {
  const journal: string[] = [];
  const log: HandlerContext['log'] = (priority, text) => {
    for (const line of text.split('\n')) journal.push(`<${priority}>${line}`);
  };
  try {
    await host.findLocked(1000);
    await handler({host, layout: defaultLayout, log}, args);
    return {exitCode: 0, journal};
  } catch (error) {
    return {exitCode: report(error, log), journal};
  }
}

/** What the units of a machine have run, by unit. */
export interface UnitRuns {
  readonly runs: ReadonlyMap<string, HandlerRun>;
  /** The host that the handlers work on: its journal is theirs. */
  readonly host: SimulatedHost;
}

/** What Node runs for the programs in libexec. */
const handlers: ReadonlyMap<string, Handler> = new Map([
  ['claim', claim],
  ['release', release],
  ['record', record],
  ['vfs', vfs],
  ['guest-start', guestStart],
  ['guest-stop', guestStop],
  ['vgpu-set', vgpuSet],
  ['vgpu-stop', vgpuStop],
]);

/** Lets the units of this machine run the product's handlers, each as a process of its own. */
export function runUnits(host: SimulatedHost): UnitRuns {
  const runs = new Map<string, HandlerRun>();
  const own = new SimulatedHost(host.machine);
  const {execute} = host.userland;
  host.userland.execute = async (unit, argv) => {
    const [program = '', ...args] = argv;
    const folder = `${defaultLayout.libexec}/`;
    if (!program.startsWith(folder)) return await execute(unit, argv);
    const handler = handlers.get(program.slice(folder.length));
    // As systemd's exit code for a program that is not there.
    if (handler === undefined) return 203;
    const run = await runOn(own, handler, ...args);
    runs.set(unit, run);
    return run.exitCode;
  };
  return {runs, host: own};
}
