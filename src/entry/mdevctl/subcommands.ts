import {ExitCode, PearasysError} from '../../host/errors.js';
import type {Host} from '../../host/host.js';
import {printableLine} from '../../host/printable.js';
import {readDefinitions, type Definition, type DefinitionFilter} from '../../state/definitions/definition.js';
import {ignoredNote} from '../../state/desired.js';
import {readActiveMdevs} from '../../state/definitions/listing.js';
import {readMdev} from '../../devices/mdev/mdev.js';
import {
  asParentName,
  parseParentName,
  parseTypeName,
  type ParentName,
  type TypeName,
} from '../../devices/mdev/mdev-name.js';
import {readParent, readParents} from '../../devices/mdev/parent.js';
import {newUuid, parseUuid} from '../../devices/mdev/uuid.js';
import {readMdevAttributes} from '../../operations/mdev-attributes.js';
import {defineMdev, modifyMdev, modifyMdevLive, undefineMdev} from '../../operations/mdev-define.js';
import {type MdevOptions} from '../../operations/mdev-scripts.js';
import {startMdev} from '../../operations/mdev-start.js';
import {stopMdev} from '../../operations/mdev-stop.js';
import type {DefinitionChange} from '../../plan/mdev/mdev-define.js';
import type {MdevWords} from '../../plan/mdev/mdev-start.js';
import {readConfigFile} from '../cli/config-file.js';
import type {Output} from '../cli/output.js';
import type {MdevctlValues} from './arguments.js';
import {jsonText, mdevLines, mdevsJson, typesJson, typesLines, type ListedMdev} from './format.js';

/** The context of a command. */
interface MdevctlContext {
  readonly host: Host;
  readonly stdout: Output;
  readonly stderr: Output;
  /** Prints a message on standard error if MDEVCTL_LOG includes its level. */
  readonly log: (level: 'warn' | 'debug', text: string) => void;
  /** Whether anything was changed. */
  changed: boolean;
}

/** Milliseconds that a write or a script may take, and that a parent may take to register. */
const limits = {limit: 30_000, patience: 5000};

/** Runs one command of mdevctl 1.2. @returns its exit code. */
export async function runMdevctl(
  context: MdevctlContext,
  command: string,
  values: MdevctlValues,
): Promise<0 | 1> {
  try {
    switch (command) {
      case 'list':
        await list(context, values);
        return 0;
      case 'types':
        types(context, values);
        return 0;
      case 'start-parent-mdevs':
        await startParent(context, values.get('PARENT') ?? '');
        return 0;
      default:
        await change(context, command, values);
        return 0;
    }
  } catch (error) {
    if (!(error instanceof PearasysError)) throw error;
    context.stderr.write(`Error: ${errorLines(error)}\n`);
    return 1;
  }
}

async function list(context: MdevctlContext, values: MdevctlValues): Promise<void> {
  const {stdout} = context;
  const filter = readFilter(values);
  const mdevs =
    filter === undefined
      ? []
      : values.has('defined')
        ? readDefined(context, filter)
        : await readActive(context, filter, values.has('verbose') || values.has('dumpjson'));
  stdout.write(
    values.has('dumpjson')
      ? `${jsonText(mdevsJson(mdevs, values.has('uuid')))}\n`
      : `${mdevs.map((mdev) => mdevLines(mdev, values.has('verbose'))).join('')}\n`,
  );
}

function readDefined(context: MdevctlContext, filter: DefinitionFilter): ListedMdev[] {
  const {host} = context;
  return definitionsOf(context, filter).map((definition) => {
    const mdev = readMdev(host, definition.uuid);
    const active = mdev?.parent === definition.parent && mdev.type === definition.type;
    return {...definition, remark: active ? 'active' : undefined};
  });
}

/** @param shown whether the attributes are shown: the scripts are asked only then. */
async function readActive(
  {host, log}: MdevctlContext,
  filter: DefinitionFilter,
  shown: boolean,
): Promise<ListedMdev[]> {
  const mdevs = readActiveMdevs(host, filter);
  const told = await readMdevAttributes(host, shown ? mdevs : [], limits.limit, (note) => log('warn', note));
  return mdevs.map((mdev) => ({
    ...mdev,
    attributes: told.get(mdev.uuid) ?? mdev.attributes ?? [],
    remark: mdev.defined ? 'defined' : undefined,
  }));
}

function types({host, stdout}: MdevctlContext, values: MdevctlValues): void {
  const filter = readFilter(values);
  const one = filter?.parent === undefined ? undefined : readParent(host, filter.parent);
  const parents =
    filter === undefined || (filter.parent !== undefined && one === undefined)
      ? []
      : one === undefined
        ? readParents(host)
        : [one];
  stdout.write(`${values.has('dumpjson') ? jsonText(typesJson(parents)) : typesLines(parents)}\n`);
}

/** The filter for devices; undefined when it cannot match any, because the name of the parent is not valid. */
function readFilter(values: MdevctlValues): DefinitionFilter | undefined {
  const [uuid, parent] = [values.get('uuid'), values.get('parent')];
  try {
    return {
      ...(uuid === undefined ? {} : {uuid: parseUuid(uuid)}),
      ...(parent === undefined ? {} : {parent: readParentName(parent)}),
      asTyped: true,
    };
  } catch (error) {
    if (error instanceof PearasysError) return undefined;
    throw error;
  }
}

async function change(context: MdevctlContext, command: string, values: MdevctlValues): Promise<void> {
  const {host, stdout} = context;
  const words = readWords(values);
  const {uuid, parent} = words;
  const options = optionsOf(context, values);
  switch (command) {
    case 'define':
      if (words.config !== undefined) definitionsOf(context, {uuid, parent});
      await defineMdev(host, {...words, start: values.has('auto') ? 'auto' : 'manual'}, options);
      break;
    case 'undefine':
      definitionsOf(context, {uuid, parent});
      await undefineMdev(host, uuid, parent, options);
      return;
    case 'modify':
      await modify(context, words, values);
      return;
    case 'start':
      await start(context, words, options);
      break;
    case 'stop':
      await stopMdev(host, uuid, {...options, mayBeGone: false});
      return;
  }
  // A UUID that was generated.
  if (!values.has('uuid')) stdout.write(`${uuid}\n`);
}

async function modify(context: MdevctlContext, words: MdevWords, values: MdevctlValues): Promise<void> {
  const {host} = context;
  const {uuid, parent, type, config} = words;
  const options = optionsOf(context, values);
  if (values.has('live') && config !== undefined) {
    await modifyMdevLive(host, uuid, config, {...options, parent, defined: values.has('defined')});
    return;
  }
  definitionsOf(context, {uuid, parent});
  const [name, value] = [values.get('addattr'), values.get('value') ?? ''];
  const index = values.has('index') ? Number(values.get('index')) : undefined;
  const change: DefinitionChange = {
    type,
    start: values.has('auto') ? 'auto' : values.has('manual') ? 'manual' : undefined,
    add: name === undefined ? undefined : {name, value, index},
    remove: values.has('delattr') ? {index} : undefined,
    config,
  };
  await modifyMdev(host, uuid, parent, change, options);
}

async function start(context: MdevctlContext, words: MdevWords, options: MdevOptions): Promise<void> {
  if (words.config === undefined) definitionsOf(context, {uuid: words.uuid, parent: words.parent});
  await startMdev(context.host, words, {...options, mayExist: false, patience: limits.patience});
}

/** What mdevctl's own udev rule calls: if one device fails, the others are started nevertheless. */
async function startParent(context: MdevctlContext, parent: string): Promise<void> {
  const filter = readFilter(new Map([['parent', parent]]));
  if (filter === undefined) return;
  for (const {uuid, parent: name, start: mode} of definitionsOf(context, filter))
    if (mode === 'auto')
      try {
        await start(context, {uuid, parent: name}, optionsOf(context));
      } catch (error) {
        if (!(error instanceof PearasysError)) throw error;
        context.log('warn', errorLines(error));
      }
}

/**
 * The matching definitions, as in mdevctl: a broken one is an error, and a file whose name is no UUID causes a warning.
 */
function definitionsOf({host, log}: MdevctlContext, filter: DefinitionFilter): readonly Definition[] {
  const {definitions, broken} = readDefinitions(host, {...filter, asTyped: true});
  for (const file of broken)
    if (file.uuid === undefined && filter.uuid === undefined) log('warn', ignoredNote(file));
  const problem = broken.find(({uuid}) => uuid !== undefined);
  if (problem !== undefined)
    throw new PearasysError({
      code: 'bad-definition',
      exitCode: ExitCode.failed,
      message: `the definition ${problem.path} is broken: ${problem.reason}`,
    });
  return definitions;
}

function readWords(values: MdevctlValues): MdevWords {
  const [uuid, parent, type] = ['uuid', 'parent', 'type'].map((name) => values.get(name));
  return {
    uuid: uuid === undefined ? newUuid() : parseUuid(uuid),
    parent: parent === undefined ? undefined : readParentName(parent),
    type: type === undefined ? undefined : type === '' ? ('' as TypeName) : parseTypeName(type),
    config: readConfigFile(values.get('jsonfile')),
  };
}

/** The name as it is typed, because mdevctl accepts no other spelling. */
function readParentName(text: string): ParentName {
  return asParentName(text) ?? parseParentName(text);
}

function optionsOf(context: MdevctlContext, values?: MdevctlValues): MdevOptions {
  const {log} = context;
  return {
    limit: limits.limit,
    dryRun: false,
    force: values?.has('force') === true,
    asTyped: true,
    onStep: (line, undoing) => {
      context.changed = true;
      log('debug', undoing ? `undoing: ${line}` : line);
    },
    onNote: (note) => log('warn', note),
  };
}

/** An error in the lines that pearasys prints: what failed, details, and the next step. */
function errorLines({code, message, details, hint}: PearasysError): string {
  // As the next step for those who are not root, pearasys names an option that mdevctl does not have.
  const next = hint === undefined || code === 'not-root' ? [] : [`try: ${hint}`];
  return [message, ...details.map((detail) => `  ${detail}`), ...next].map(printableLine).join('\n');
}
