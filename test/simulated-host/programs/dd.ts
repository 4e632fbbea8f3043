import {complained, ok, unsupported, type Program} from './program.js';

const mebibyte = 1024 ** 2;

/** dd(1) of GNU coreutils, which reads a part of one disk. */
export const dd: Program = (machine, userId, args) => {
  const words = new Map(
    args.map((arg): [string, string] => {
      const [name = '', value = ''] = arg.split(/=(.*)/s);
      return [name, value];
    }),
  );
  const word = (name: string) => {
    const value = words.get(name);
    words.delete(name);
    return value;
  };
  const path = word('if') ?? '';
  const fixed = [word('of'), word('bs'), word('status')].join(' ');
  const start = Number(word('skip') ?? 0) * mebibyte;
  const end = start + Number(word('count') ?? Infinity) * mebibyte;
  if (fixed !== '/dev/null 1M none' || words.size > 0) unsupported('dd', args.join(' '));
  const failed = (what: string, why: string) => complained(`dd: ${what} '${path}': ${why}`);
  if (machine.tree.nodes.get(path)?.type !== 'block')
    return failed('failed to open', 'No such file or directory');
  if (userId !== 0) return failed('failed to open', 'Permission denied');
  const {signatures, damaged} = machine.declaration;
  const bad = damaged?.[path] ?? Infinity;
  return signatures?.[path] === 'unreadable' || (bad >= start && bad < end)
    ? failed('error reading', 'Input/output error')
    : ok;
};
