import {claimListPath} from '../../../src/state/initramfs/claim-list.js';
import {defaultLayout} from '../../../src/config/layout.js';
import {readInitramfs} from '../../../src/state/initramfs/generator.js';
import {MachineHost} from '../../../src/host/machine-host.js';
import {complained, ok, said, unsupported, type Program} from './program.js';

/** A generator: the list of claims is all that the simulated images contain. */
const generator =
  (line: string): Program =>
  (machine, userId, args) => {
    if (args.join(' ') !== line) unsupported('generator of the initramfs', args.join(' '));
    if (userId !== 0) return complained('permission denied');
    const {generator: found} = readInitramfs(new MachineHost(machine.tree.root));
    const list = machine.tree.read(claimListPath(defaultLayout)) ?? '';
    for (const {path} of found?.images ?? []) machine.tree.file(path, list);
    return ok;
  };

export const updateInitramfs = generator('-u -k all');
export const dracut = generator('--regenerate-all --force');
export const mkinitcpio = generator('-P');

/** libexec/initramfs-claims. */
export const initramfsClaims: Program = (machine, _userId, [, image = '']) => {
  const list = machine.tree.read(image);
  return list === undefined ? complained(`${image}: no such file`) : said(list);
};
