import {complained, said, unsupported, type Program} from './program.js';

/** The messages in /var/log/messages, which only root may read. */
export const journalctl: Program = (machine, userId, args) => {
  for (const arg of args)
    if (!/^--(?:boot|no-pager|no-hostname|output=short-monotonic|lines=\d+|unit=.+)$/.test(arg))
      unsupported('journalctl', arg);
  if (userId !== 0) return complained('No journal files were opened due to insufficient permissions.');
  return said(machine.tree.read('/var/log/messages') ?? '-- No entries --\n');
};
