import {errnoOf, FileFault, PearasysError} from '../../host/errors.js';
import type {Host} from '../../host/host.js';
import {readNamedFile} from '../../host/root-folder.js';
import {
  parseConfig,
  readDefinitions,
  type Definition,
  type DefinitionFilter,
  type MdevConfig,
} from '../../state/definitions/definition.js';
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
import {
  defineMdev,
  modifyMdev,
  modifyMdevLive,
  specifyDefinition,
  undefineMdev,
} from '../../operations/mdev-define.js';
import {type MdevOptions} from '../../operations/mdev-scripts.js';
import {startMdev} from '../../operations/mdev-start.js';
import {stopMdev} from '../../operations/mdev-stop.js';
import {specifyMdev, type MdevWords} from '../../plan/mdev/mdev-start.js';
import type {Output} from '../cli/output.js';
import type {MdevctlValues} from './arguments.js';
import {jsonText, mdevLines, mdevsJson, typesJson, typesLines, type ListedMdev} from './format.js';
import {errorText, osError} from './messages.js';

/** What a command works with. */
export interface MdevctlContext {
  readonly host: Host;
  readonly stdout: Output;
  readonly stderr: Output;
  /** Tells what is not the result, as far as MDEVCTL_LOG wants it. */
  readonly log: (level: 'warn' | 'debug', text: string) => void;
  /** Whether anything was changed. */
  changed: boolean;
}

/** Milliseconds that a write or a script may take, and that a parent may take to register. */
const limits = {limit: 30_000, patience: 5000};

/** A failure in mdevctl's own words. */
class MdevctlError extends Error {}

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
    if (!(error instanceof MdevctlError || error instanceof PearasysError)) throw error;
    context.stderr.write(error instanceof MdevctlError ? error.message : `Error: ${error.message}\n`);
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

/** @param shown whether the attributes are shown: only then are the scripts asked. */
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

/** The devices that are meant; undefined when no device can be, as its parent's name is none. */
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
  const words = readWords(command, values);
  const {uuid, parent} = words;
  const options = optionsOf(context, values);
  switch (command) {
    case 'define': {
      const full = {...words, start: values.has('auto') ? ('auto' as const) : ('manual' as const)};
      if (words.config === undefined) {
        const mdev = values.has('uuid') ? readMdev(host, uuid) : undefined;
        if (parent === undefined && (mdev === undefined || words.type !== undefined))
          fail('No parent specified');
        if (words.type === undefined && mdev?.type === undefined) fail('No type specified');
      } else definitionsOf(context, {uuid, parent});
      const about = {
        command,
        words: {...words, parent: specifyDefinition(full, readMdev(host, uuid)).parent},
      };
      await attempt(host, about, () => defineMdev(host, full, options));
      if (!values.has('uuid')) stdout.write(`${uuid}\n`);
      return;
    }
    case 'undefine':
      if (definitionsOf(context, {uuid, parent}).length === 0) fail('No devices match the specified uuid');
      await attempt(host, {command, words}, () => undefineMdev(host, uuid, parent, options));
      return;
    case 'modify':
      await modify(context, words, values);
      return;
    case 'start':
      await start(context, words, options);
      if (!values.has('uuid')) stdout.write(`${uuid}\n`);
      return;
    case 'stop':
      await attempt(host, {command, words}, () => stopMdev(host, uuid, {...options, mayBeGone: false}));
      return;
  }
}

async function modify(context: MdevctlContext, words: MdevWords, values: MdevctlValues): Promise<void> {
  const {host} = context;
  const {uuid, parent, type, config} = words;
  if (values.has('live') && config !== undefined) {
    const options = {...optionsOf(context, values), parent, defined: values.has('defined')};
    await attempt(host, {command: 'modify', words}, () => modifyMdevLive(host, uuid, config, options));
    return;
  }
  const definitions = definitionsOf(context, {uuid, parent});
  const [definition] = definitions;
  const named = parent === undefined ? uuid : `${parent}/${uuid}`;
  if (definition === undefined) fail(`Mediated device ${named} is not defined`);
  if (definitions.length > 1) fail(`Multiple definitions found for ${uuid}, specify a parent`);
  const [name, value] = [values.get('addattr'), values.get('value') ?? ''];
  const index = values.has('index') ? Number(values.get('index')) : undefined;
  const {attributes} = definition;
  const most = name === undefined ? attributes.length - 1 : attributes.length;
  if ((name !== undefined || values.has('delattr')) && index !== undefined && index > most)
    fail(`Attribute index ${index} is invalid`);
  await attempt(host, {command: 'modify', words}, () =>
    modifyMdev(
      host,
      uuid,
      parent,
      {
        type,
        start: values.has('auto') ? 'auto' : values.has('manual') ? 'manual' : undefined,
        add: name === undefined ? undefined : {name, value, index},
        remove: values.has('delattr') ? {index} : undefined,
        config,
      },
      optionsOf(context, values),
    ),
  );
}

async function start(context: MdevctlContext, words: MdevWords, options: MdevOptions): Promise<void> {
  const {host} = context;
  const {uuid, parent, type, config} = words;
  let wish: MdevWords = words;
  if (config === undefined) {
    const definitions = definitionsOf(context, {uuid, parent});
    const [definition] = definitions;
    if (definitions.length > 1)
      fail(`Multiple definitions found for device ${uuid}. Please specify a parent.`);
    if (definition !== undefined && type !== undefined && type !== definition.type)
      fail(`Device ${uuid} already exists on parent ${definition.parent} with type ${definition.type}`);
    if (definition === undefined && type !== undefined && parent === undefined)
      fail("can't provide type without parent");
    if (definition === undefined && (type === undefined || parent === undefined))
      fail('Device is insufficiently specified');
    wish = specifyMdev(words, {definitions, broken: []});
  }
  const about = {
    command: 'start',
    words: {...words, parent: wish.parent},
    type: config?.type ?? wish.type,
  };
  await attempt(host, about, () =>
    startMdev(host, words, {...options, mayExist: false, patience: limits.patience}),
  );
}

/** What mdevctl's own udev rule calls: a failure of one device keeps none of the others from being started. */
async function startParent(context: MdevctlContext, parent: string): Promise<void> {
  const filter = readFilter(new Map([['parent', parent]]));
  if (filter === undefined) return;
  for (const {uuid, parent: name, start: mode} of definitionsOf(context, filter))
    if (mode === 'auto')
      try {
        await start(context, {uuid, parent: name}, optionsOf(context));
      } catch (error) {
        if (!(error instanceof MdevctlError)) throw error;
        context.log('warn', error.message.replace(/^Error: /, '').trimEnd());
      }
}

/**
 * The definitions that match, as mdevctl has them: one of them that is broken is an error, and a file with another
 * name is told.
 */
function definitionsOf({host, log}: MdevctlContext, filter: DefinitionFilter): readonly Definition[] {
  const {definitions, broken} = readDefinitions(host, {...filter, asTyped: true});
  for (const {path, uuid} of broken)
    if (uuid === undefined && filter.uuid === undefined)
      log('warn', `Can't determine uuid for file '${path.slice(path.lastIndexOf('/') + 1)}'`);
  const problem = broken.find(({uuid}) => uuid !== undefined);
  if (problem !== undefined) fail(`${problem.path}: ${problem.reason}`);
  return definitions;
}

function readWords(command: string, values: MdevctlValues): MdevWords {
  const [uuid, parent, type, file] = ['uuid', 'parent', 'type', 'jsonfile'].map((name) => values.get(name));
  const config = file === undefined ? undefined : readJsonFile(file);
  try {
    const words = {
      uuid: uuid === undefined ? newUuid() : parseUuid(uuid),
      parent: parent === undefined ? undefined : readParentName(parent),
      type: type === undefined ? undefined : type === '' ? ('' as TypeName) : parseTypeName(type),
    };
    if (file !== undefined && parent === undefined && command !== 'modify')
      fail(
        command === 'define'
          ? `Parent device required to define device via ${JSON.stringify(file)}`
          : 'Parent device required to start device via json file',
      );
    return {...words, config};
  } catch (error) {
    if (error instanceof PearasysError) fail(error.message);
    throw error;
  }
}

/** The name as it is typed: mdevctl knows no other spelling. */
function readParentName(text: string): ParentName {
  return asParentName(text) ?? parseParentName(text);
}

function readJsonFile(path: string): MdevConfig {
  let text: string;
  try {
    text = readNamedFile(path).toString();
  } catch (error) {
    const errno = errnoOf(error);
    // mdevctl reads all other kinds of files, whatever their size.
    const reason = error instanceof FileFault && errno !== 'EISDIR' ? error.message : osError(errno);
    throw new MdevctlError(
      `Error: Unable to read jsonfile ${JSON.stringify(path)}\n\nCaused by:\n    ${reason}\n`,
    );
  }
  try {
    return parseConfig(text);
  } catch (error) {
    if (error instanceof PearasysError) fail(`invalid json: ${error.message}`);
    throw error;
  }
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

async function attempt(
  host: Host,
  about: Parameters<typeof errorText>[1],
  work: () => Promise<unknown>,
): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (error instanceof PearasysError) throw new MdevctlError(errorText(error, about, host));
    throw error;
  }
}

function fail(message: string): never {
  throw new MdevctlError(`Error: ${message}\n`);
}
