import {complained, said, unsupported, type Program} from './program.js';

/** Entries of passwd(5) and group(5): those of the files, and those of a directory service in /run/directory. */
export const getent: Program = (machine, _userId, args) => {
  const [database = '', ...words] = args;
  if (database !== 'passwd' && database !== 'group') unsupported('getent', database);
  const name = words.at(-1) ?? '';
  if (words.length !== 2 || words[0] !== '--') unsupported('getent', words.join(' '));
  for (const file of [`/etc/${database}`, `/run/directory/${database}`]) {
    const line = (machine.tree.read(file) ?? '').split('\n').find((one) => one.startsWith(`${name}:`));
    if (line !== undefined) return said(`${line}\n`);
  }
  return complained('', 2);
};
