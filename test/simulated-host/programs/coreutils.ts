import fs from 'node:fs';
import {ok, said, unsupported, type Program} from './program.js';

/** What units of tests run. */
export const touch: Program = (machine, _userId, args) => {
  for (const path of args) {
    if (path.startsWith('-')) unsupported('touch', path);
    if (!machine.tree.has(path)) machine.tree.file(path, '', 0o644);
  }
  return ok;
};

export const chmod: Program = (machine, _userId, [mode = '', ...paths]) => {
  if (!/^[0-7]+$/.test(mode)) unsupported('chmod', mode);
  for (const path of paths) fs.chmodSync(machine.tree.onDisk(path), parseInt(mode, 8));
  return ok;
};

export const yes: Program = () => ok;
export const no: Program = () => said('', 1);

/** Owner and mode of nodes, in one format. */
export const stat: Program = (machine, _userId, [option = '', format = '', ...paths]) => {
  if (option !== '-c' || format !== '%u:%g %a') unsupported('stat', `${option} ${format}`);
  const lines = paths.map((path) => {
    const node = machine.tree.nodes.get(path);
    if (node === undefined) return unsupported('stat', path);
    return `${machine.owners.get(path) ?? 0}:${machine.groups.get(path) ?? 0} ${node.mode.toString(8)}`;
  });
  return said(`${lines.join('\n')}\n`);
};
