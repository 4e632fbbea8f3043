import {Errno, NeverReturns} from '../errno.js';
import {moduleName, parameters, probeModule, removeModule, resolveModule} from './kmod.js';
import {complained, ok, unsupported, type Program} from './program.js';

const modprobeOptions: Readonly<Record<string, string>> = {
  '-r': 'remove',
  '--remove': 'remove',
  '-b': 'blacklist',
  '--use-blacklist': 'blacklist',
  '-q': 'quiet',
  '--quiet': 'quiet',
  '-n': 'dry run',
  '--dry-run': 'dry run',
  '-a': 'all',
  '--all': 'all',
  '-v': 'verbose',
  '--verbose': 'verbose',
};

export const modprobe: Program = (machine, userId, args) => {
  const options = new Set<string>();
  const end = args.includes('--') ? args.indexOf('--') : args.length;
  const words = args.slice(end + 1);
  for (const arg of args.slice(0, end).reverse())
    if (arg.startsWith('-')) options.add(modprobeOptions[arg] ?? unsupported('modprobe', arg));
    else words.unshift(arg);
  const remove = options.has('remove');
  const all = options.has('all');
  const {release} = machine.declaration;
  const names = remove || all ? words : words.slice(0, 1);
  if (names.length === 0) return complained('modprobe: ERROR: missing parameters. See -h.');
  for (const text of names) {
    const resolved = resolveModule(machine, text);
    if (resolved.length === 0)
      return options.has('quiet')
        ? complained('')
        : complained(
            remove
              ? `modprobe: FATAL: Module ${text} not found.`
              : `modprobe: FATAL: Module ${text} not found in directory /lib/modules/${release}`,
          );
    if (options.has('dry run')) continue;
    try {
      if (remove) {
        for (const name of resolved) {
          const builtin = machine.declaration.modules.find((each) => each.name === name)?.builtin === true;
          if (builtin) return complained(`modprobe: FATAL: Module ${name} is builtin.`);
          if (!machine.isLoaded(name)) continue;
          if (userId !== 0)
            return complained(`modprobe: ERROR: could not remove '${name}': Operation not permitted`);
          if (machine.modules.moduleUsers(name) > 0)
            return complained(`modprobe: FATAL: Module ${name} is in use.`);
          removeModule(machine, name);
        }
      } else {
        const missing = resolved.find((name) => !machine.isLoaded(name));
        if (userId !== 0 && missing !== undefined)
          return complained(`modprobe: ERROR: could not insert '${missing}': Operation not permitted`);
        probeModule(machine, text, {
          blacklist: options.has('blacklist'),
          parameters: all ? {} : parameters(words.slice(1)),
        });
      }
    } catch (error) {
      if (error instanceof NeverReturns) {
        machine.elapsed += 90_000;
        return {status: 124, stdout: '', stderr: `modprobe: ${error.message}`};
      }
      if (!(error instanceof Errno)) throw error;
      return complained(`modprobe: ERROR: could not insert '${moduleName(text)}': ${error.text}`);
    }
  }
  return ok;
};

export const rmmod: Program = (machine, userId, args) => {
  for (const text of args) {
    const name = moduleName(text);
    if (text.startsWith('-')) unsupported('rmmod', text);
    if (!machine.isLoaded(name)) return complained(`rmmod: ERROR: Module ${name} is not currently loaded`);
    if (machine.modules.moduleUsers(name) > 0) {
      const users = machine.modules.dependents(name);
      return complained(
        `rmmod: ERROR: Module ${name} is in use${users.length === 0 ? '' : ` by: ${users.join(' ')}`}`,
      );
    }
    if (userId !== 0) return complained(`rmmod: ERROR: could not remove '${name}': Operation not permitted`);
    machine.modules.unloadModule(name);
  }
  return ok;
};
