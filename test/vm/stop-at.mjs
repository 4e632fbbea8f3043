/**
 * For `node --import` in the test machine: the process stops (SIGSTOP) immediately before or after it renames a new file
 * into place, as the environment variable STOP says: `before PATH` or `after PATH`. Only SIGKILL, or the end of the
 * machine, ends it then.
 */
import fs from 'node:fs';
import process from 'node:process';

const [when, path] = (process.env.STOP ?? '').split(' ');
const {renameSync} = fs;

fs.renameSync = (from, to) => {
  const stop = (now) => {
    if (when === now && to === path) process.kill(process.pid, 'SIGSTOP');
  };
  stop('before');
  renameSync(from, to);
  stop('after');
};
