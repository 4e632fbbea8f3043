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
