import {posix} from 'node:path';
import type {SimulatedMachine} from '../kernel/machine.js';
import {matchesPattern} from '../kernel/render.js';
import {Userland} from '../userland.js';
import {complained, ok, said, unsupported, type Answer, type Program} from './program.js';

export const udevadm: Program = (machine, userId, args) => {
  const userland = Userland.of(machine);
  const [verb = '', ...rest] = args;
  switch (verb) {
    case 'settle':
      for (const arg of rest)
        if (!/^(?:--timeout=|-t|-E|--exit-if-exists=|\d)/.test(arg)) unsupported('udevadm settle', arg);
      userland.handleEvents();
      return ok;
    case 'control':
      if (userId !== 0) return complained('Failed to send request: Permission denied');
      for (const arg of rest)
        if (arg === '--stop-exec-queue' || arg === '-s') userland.pauseEvents(true);
        else if (arg === '--start-exec-queue' || arg === '-S') userland.pauseEvents(false);
        // Rules are read anew for each event here.
        else if (!['--reload', '--reload-rules', '-R', '--ping'].includes(arg))
          unsupported('udevadm control', arg);
      return ok;
    case 'trigger':
      return trigger(machine, userId, rest);
    case 'info':
      return info(machine, rest);
    case '--version':
      return said('252');
    default:
      return unsupported('udevadm', verb);
  }
};

/** What udev keeps of a device: the properties of its last event, and its tags. */
function info(machine: SimulatedMachine, args: readonly string[]): Answer {
  const [query, path = '', ...more] = args;
  if (query !== '--query=property' || path.startsWith('-') || more.length > 0)
    unsupported('udevadm info', args.join(' '));
  const real = machine.tree.resolve(path);
  const last = Userland.of(machine).results.findLast(({event}) => `/sys${event.devpath}` === real);
  if (real === undefined || last === undefined) return complained(`Unknown device "${path}": No such device`);
  const tags = last.tags.size === 0 ? [] : [`CURRENT_TAGS=:${[...last.tags].join(':')}:`];
  const properties = Object.entries(last.properties).map(([key, value]) => `${key}=${value}`);
  return said([...properties, ...tags].join('\n'));
}

const synthetic = '22222222-2222-2222-2222-222222222222';

function trigger(machine: SimulatedMachine, userId: number, args: readonly string[]): Answer {
  if (userId !== 0) return complained('Permission denied');
  let action = 'change';
  const subsystems: string[] = [];
  const names: string[] = [];
  const paths: string[] = [];
  for (let index = 0; index < args.length; index++) {
    const [option = '', inline] = (args[index] ?? '').split(/=(.*)/s);
    const value = () => inline ?? args[++index] ?? '';
    if (option === '--action' || option === '-c') action = value();
    else if (option === '--subsystem-match' || option === '-s') subsystems.push(value());
    else if (option === '--sysname-match' || option === '-y') names.push(value());
    else if (option === '--type' || option === '-t') {
      if (value() !== 'devices') unsupported('udevadm trigger', '--type other than devices');
    } else if (option === '--settle' || option === '-w') continue;
    else if (option.startsWith('-')) unsupported('udevadm trigger', option);
    else paths.push(args[index] ?? '');
  }
  const found = paths.length > 0 ? [] : allDevices(machine);
  for (const path of paths) {
    const real = machine.tree.resolve(path);
    if (real === undefined || !machine.tree.has(`${real}/uevent`))
      return complained(`Failed to open the device '${path}': No such device`);
    found.push(real);
  }
  for (const path of found) {
    const subsystem = posix.basename(machine.tree.resolve(`${path}/subsystem`) ?? '');
    if (subsystems.length > 0 && !subsystems.some((pattern) => matchesPattern(pattern, subsystem))) continue;
    if (names.length > 0 && !names.some((pattern) => matchesPattern(pattern, posix.basename(path)))) continue;
    machine.events.trigger(path, action, synthetic);
  }
  Userland.of(machine).handleEvents();
  return ok;
}

/** Every device that has an event, the functions first, and VFIO's groups last. */
function allDevices(machine: SimulatedMachine): string[] {
  const groups = machine.tree
    .list('/sys/class/vfio')
    .map((name) => machine.tree.resolve(`/sys/class/vfio/${name}`));
  return [
    ...[...machine.functions.values()].flatMap(({path, parts}) => [path, ...parts.map((part) => part.path)]),
    ...groups.filter((path) => path !== undefined),
  ];
}
