/**
 * All programs of dist/ as the content of one startup snapshot of Node (`node --build-snapshot`): modules evaluated,
 * and the modules of Node that they need loaded. With `--snapshot-blob`, Node does not run the program whose path it is
 * given: the function below does, by the path's name. See `libexec/node.sh`.
 *
 * What is evaluated here is evaluated with the environment, the working directory and the machine of the build. So no
 * module of ours has a state, and packages that read the environment are evaluated when they are first used.
 */
import {mkdtempSync, rmdirSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {basename, join} from 'node:path';
import {startupSnapshot} from 'node:v8';
import {pearasys} from './cli/pearasys.js';
import {claim} from './handlers/claim.js';
import {guestStart} from './handlers/guest-start.js';
import {guestStop} from './handlers/guest-stop.js';
import {runHandler} from './handlers/handler.js';
import {mdevCreate} from './handlers/mdev-create.js';
import {mdevParent} from './handlers/mdev-parent.js';
import {mdevRecord} from './handlers/mdev-record.js';
import {mdevStop} from './handlers/mdev-stop.js';
import {record} from './handlers/record.js';
import {release} from './handlers/release.js';
import {vfs} from './handlers/vfs.js';
import {vgpuSet} from './handlers/vgpu-set.js';
import {vgpuStop} from './handlers/vgpu-stop.js';
import {mdevctl} from './mdevctl/drop-in.js';

/** What each program of dist/ does, by its name without the extension. */
const programs: Readonly<Record<string, () => Promise<unknown>>> = {
  start: async () => process.exit(await pearasys(process.argv.slice(2))),
  mdevctl: async () => process.exit(await mdevctl(process.argv[2] ?? '', process.argv.slice(3))),
  'attribute-writer': () => import('../host/attribute-writer.js'),
  claim: () => runHandler(claim),
  'guest-start': () => runHandler(guestStart),
  'guest-stop': () => runHandler(guestStop),
  'mdev-create': () => runHandler(mdevCreate),
  'mdev-parent': () => runHandler(mdevParent),
  'mdev-record': () => runHandler(mdevRecord),
  'mdev-stop': () => runHandler(mdevStop),
  record: () => runHandler(record),
  release: () => runHandler(release),
  vfs: () => runHandler(vfs),
  'vgpu-set': () => runHandler(vgpuSet),
  'vgpu-stop': () => runHandler(vgpuStop),
};

/** Loads what commands load when they run, oclif among it: commands that read, on an empty machine. */
async function warmUp(): Promise<void> {
  const root = mkdtempSync(join(tmpdir(), 'pearasys-empty-'));
  const silent = {isTerminal: false, columns: 80, write: () => undefined};
  for (const words of [['--version'], ['--help'], ['list'], ['list', '--json'], ['show', '00:00.0']])
    await pearasys([...words, '--root', root], {stdout: silent, stderr: silent, interactive: false});
  rmdirSync(root);
}

void warmUp();
startupSnapshot.setDeserializeMainFunction(() => {
  const name = basename(process.argv[1] ?? '', '.cjs');
  const program = programs[name];
  if (program === undefined) throw new Error(`the snapshot has no program ${name}`);
  void program();
});
