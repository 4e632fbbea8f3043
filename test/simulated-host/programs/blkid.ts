import {complained, said, unsupported, type Program} from './program.js';

/** blkid(8) of util-linux 2.38 with low-level probing, of one disk. */
export const blkid: Program = (machine, userId, args) => {
  const [probe, output, format, end, path = '', ...more] = args;
  if ([probe, output, format, end].join(' ') !== '-p -o export --' || more.length > 0)
    unsupported('blkid', args.join(' '));
  // It ignores the names of files that do not exist.
  if (machine.tree.nodes.get(path)?.type !== 'block') return said('', 2);
  if (userId !== 0) return complained(`blkid: error: ${path}: Permission denied`, 2);
  const found = machine.declaration.signatures?.[path];
  // A read error is not reported.
  if (found === undefined || found === 'unreadable') return said('', 2);
  if (found === 'ambiguous')
    return complained(
      `blkid: ${path}: ambivalent result (probably more filesystems on the device, use wipefs(8) to see more details)`,
      8,
    );
  return said([`DEVNAME=${path}`, ...Object.entries(found).map((pair) => pair.join('=')), ''].join('\n'));
};
