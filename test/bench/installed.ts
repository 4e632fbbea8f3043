import {execFileSync} from 'node:child_process';
import {existsSync, mkdirSync, readdirSync} from 'node:fs';
import {release} from 'node:os';
import {join} from 'node:path';
import {available, chosenSuite, ensureImage} from '../vm/image.js';
import type {Contender} from './measure.js';

/** A Debian in a folder of this machine, with the packages of pearasys installed and with Debian's own Node. */
export interface Installed {
  /** Its root. /sys and /proc are those of this machine. */
  readonly root: string;
  /** The same command, run in it. */
  readonly inside: (command: Contender['command']) => Contender['command'];
}

/**
 * Installs the packages over the disk image of the virtual machines; the caller has a mount namespace of
 * its own.
 * @param folder an empty file system in memory, to mount in and for what is written.
 */
export async function install(folder: string): Promise<Installed> {
  const missing = await available();
  if (missing !== undefined) throw new Error(missing);
  const image = await ensureImage({suite: chosenSuite()});
  const at = (name: string) => join(folder, name);
  for (const name of ['image', 'upper', 'work', 'root', 'packages']) mkdirSync(at(name));
  const mount = (...words: string[]) => execFileSync('mount', words);
  mount('-o', 'ro,loop', image.disk, at('image'));
  const layers = `lowerdir=${at('image')},upperdir=${at('upper')},workdir=${at('work')}`;
  mount('-t', 'overlay', '-o', layers, 'overlay', at('root'));
  const root = at('root');
  for (const name of ['proc', 'sys', 'dev']) mount('--rbind', `/${name}`, join(root, name));
  // The virtual machines have a Node there that suits an emulator.
  execFileSync('rm', [join(root, 'usr/local/bin/node')]);
  useModules(join(root, 'lib/modules'));
  execFileSync('make', ['deb', `packages=${at('packages')}`], {stdio: ['ignore', 'ignore', 'inherit']});
  const packages = readdirSync(at('packages')).map((name) => join(at('packages'), name));
  execFileSync('cp', [...packages, join(root, 'tmp')]);
  const inside = ([file, ...words]: Contender['command']): Contender['command'] => [
    'chroot',
    root,
    file,
    ...words,
  ];
  const [chroot, ...words] = inside(['sh', '-c', 'dpkg --force-depends --install /tmp/pearasys*.deb']);
  execFileSync(chroot, words, {env: {PATH: '/usr/sbin:/usr/bin'}, stdio: ['ignore', 'ignore', 'inherit']});
  return {root, inside};
}

/** lspci looks up the modules of each function, in the folder of the running kernel: it gets those of the image's. */
function useModules(folder: string): void {
  const [version = ''] = readdirSync(folder);
  if (!existsSync(join(folder, release())))
    execFileSync('cp', ['-a', join(folder, version), join(folder, release())]);
}
