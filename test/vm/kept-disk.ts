import {mkdtemp, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {execa} from 'execa';
import {ensureImage, type Recipe} from './image.js';
import {Machine, type BootOptions} from './machine.js';

/**
 * A disk whose machine is switched off and on, with other cards, or because it has rebuilt its initramfs, which QEMU
 * reads only when it starts.
 */
export class KeptDisk {
  readonly #recipe: Recipe;
  readonly #folder: string;

  private constructor(recipe: Recipe, folder: string) {
    this.#recipe = recipe;
    this.#folder = folder;
  }

  static async create(recipe: Recipe): Promise<KeptDisk> {
    const image = await ensureImage(recipe);
    const folder = await mkdtemp(path.join(tmpdir(), 'pearasys-disk-'));
    await execa('cp', ['--sparse=always', image.disk, path.join(folder, 'disk')]);
    return new KeptDisk(recipe, folder);
  }

  /** Boots the machine with the initramfs that is in its /boot now; if there is none, with that of all machines. */
  async boot(
    options: Pick<BootOptions, 'kernelParameters' | 'extraDevices' | 'countInstructions'> = {},
  ): Promise<Machine> {
    const disk = path.join(this.#folder, 'disk');
    const initrd = path.join(this.#folder, 'initrd');
    // Replays the journal after a power cut, as the next boot would. 1: something was repaired.
    const {exitCode, all} = await execa('e2fsck', ['-p', disk], {reject: false, all: true});
    if (exitCode !== 0 && exitCode !== 1) throw new Error(`the disk is damaged: ${all}`);
    const {stdout} = await execa('debugfs', ['-R', 'ls -p /boot', disk]);
    const name = /\/(initrd\.img-[^/]*-amd64)\//.exec(stdout)?.[1];
    if (name === undefined) return Machine.boot({...this.#recipe, ...options, disk});
    await execa('debugfs', ['-R', `dump /boot/${name} ${initrd}`, disk]);
    return Machine.boot({...this.#recipe, ...options, disk, initrd});
  }

  async remove(): Promise<void> {
    await rm(this.#folder, {recursive: true, force: true});
  }
}
