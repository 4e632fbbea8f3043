import {Userland} from '../userland.js';
import {complained, unsupported, type Program} from './program.js';

/** Only what `run-later` uses: a transient timer, see systemd-run(1). A test plays the time. */
export const systemdRun: Program = async (machine, userId, args) => {
  const end = args.indexOf('--');
  const options = new Map(args.slice(0, end).map((arg) => arg.split(/=(.*)/s) as [string, string]));
  const unit = options.get('--unit') ?? unsupported('systemd-run', 'a unit without a name');
  const seconds = options.get('--on-active') ?? unsupported('systemd-run', 'no --on-active');
  if (userId !== 0) return complained('Failed to start transient timer unit: Access denied');
  const userland = Userland.of(machine);
  if (userland.state(`${unit}.timer`) === 'active')
    return complained(
      `Failed to start transient timer unit: Unit ${unit}.timer was already loaded or has a fragment file.`,
    );
  const folder = '/run/systemd/transient';
  machine.tree.file(`${folder}/${unit}.timer`, `[Timer]\nOnActiveSec=${seconds}s\n`);
  machine.tree.file(
    `${folder}/${unit}.service`,
    `[Service]\nType=oneshot\nExecStart=${args.slice(end + 1).join(' ')}\n`,
  );
  return await userland.start(`${unit}.timer`).then(({status, stderr}) => ({status, stdout: '', stderr}));
};
