import {boolean, string} from '@oclif/core/flags';
import {usageError} from '../../host/errors.js';
import type {Host} from '../../host/host.js';
import type {MdevConfig} from '../../state/definitions/definition.js';
import {
  parseParentName,
  parseTypeName,
  type ParentName,
  type TypeName,
} from '../../devices/mdev/mdev-name.js';
import {newUuid, parseUuid, type Uuid} from '../../devices/mdev/uuid.js';
import type {Outcome} from '../../engine/carry-out.js';
import type {MdevOptions} from '../../operations/mdev-scripts.js';
import {writeFlags, type BaseCommand} from './base-command.js';
import {readConfigFile} from './config-file.js';
import {readMdevReports, type MdevReports} from './mdev-report.js';
import {withChanges, type ChangeFlags} from './switching.js';

/** What `--json` prints for a command that changes mediated devices or definitions. */
export interface MdevChangeResult extends MdevReports {
  readonly changed: boolean;
  readonly dryRun: boolean;
  /** The steps as shell lines, done or in a dry run planned. */
  readonly steps: readonly string[];
  readonly notes: readonly string[];
  readonly uuid: string;
}

/** Flags that name a mediated device, its parent and its type. */
export const mdevFlags = {
  uuid: string({char: 'u', summary: "The device's UUID", helpValue: 'UUID'}),
  parent: string({char: 'p', summary: "The parent's name in sysfs", helpValue: 'PARENT'}),
  type: string({char: 't', summary: 'The type', helpValue: 'TYPE'}),
};

/** The flag for commands that are about one UUID. */
export const uuidFlag = string({
  char: 'u',
  summary: "The device's UUID",
  helpValue: 'UUID',
  required: true,
});

/** The flag for commands that read mdevctl's JSON. */
export const jsonFileFlag = string({
  summary: "Read type, start and attributes from a file in mdevctl's JSON",
  helpValue: 'FILE',
});

/** The flag for output in mdevctl's JSON. */
export const dumpJsonFlag = boolean({summary: 'Print the JSON that mdevctl prints'});

/** Flags of commands that change a mediated device or its definition. */
export const mdevChangeFlags = {
  ...writeFlags,
  force: boolean({char: 'f', summary: 'Continue even if a callout script refuses'}),
};

/** Milliseconds that the first mdevctl waits for a parent that is still registering. */
export const firstPatience = 5000;

/** The values of {@link mdevFlags}. */
interface NamedMdev {
  readonly uuid?: Uuid | undefined;
  readonly parent?: ParentName | undefined;
  readonly type?: TypeName | undefined;
}

/** @throws PearasysError `bad-uuid`, `bad-parent` or `bad-type`. */
export function readNames(flags: {
  readonly uuid?: string | undefined;
  readonly parent?: string | undefined;
  readonly type?: string | undefined;
}): NamedMdev {
  return {
    uuid: flags.uuid === undefined ? undefined : parseUuid(flags.uuid),
    parent: flags.parent === undefined ? undefined : parseParentName(flags.parent),
    type: flags.type === undefined ? undefined : parseTypeName(flags.type),
  };
}

/** The device that `mdev define` and `mdev start` are about. */
interface MdevSubject extends NamedMdev {
  readonly uuid: Uuid;
  /** Whether the UUID was generated here: then the command prints it. */
  readonly isNew: boolean;
  /** The content of the file named by `--jsonfile`. */
  readonly config: MdevConfig | undefined;
}

/**
 * Reads the flags that name one device, by its UUID or as a new one of a parent.
 * @param existing what may have the UUID, for the hint.
 * @throws PearasysError `usage` when they name neither; what {@link readNames} and {@link readConfigFile} throw.
 */
export function readSubject(
  flags: Parameters<typeof readNames>[0] & {readonly jsonfile?: string | undefined},
  existing: string,
): MdevSubject {
  const names = readNames(flags);
  const config = readConfigFile(flags.jsonfile);
  if (names.uuid === undefined && names.parent === undefined)
    throw usageError(
      'neither a device nor a parent was named',
      `--uuid UUID of ${existing}, or --parent NAME --type TYPE`,
    );
  return {...names, uuid: names.uuid ?? newUuid(), isNew: names.uuid === undefined, config};
}

/** Changes the device or definition of a UUID as the flags say, and reads its new state. */
export async function changeMdev(
  command: BaseCommand,
  host: Host,
  uuid: Uuid,
  flags: ChangeFlags & {readonly force?: boolean},
  work: (options: MdevOptions) => Promise<Outcome>,
): Promise<MdevChangeResult> {
  const notes: string[] = [];
  const outcome = await withChanges(command, flags, notes, (options) =>
    work({...options, force: flags.force === true}),
  );
  const dryRun = flags['dry-run'] === true;
  if (dryRun) {
    for (const line of outcome.lines) command.log(line);
    if (outcome.lines.length === 0) command.note('nothing to do');
  }
  return {
    changed: outcome.changed,
    dryRun,
    steps: outcome.lines,
    notes,
    uuid,
    ...(await readMdevReports(host, {uuid})),
  };
}
