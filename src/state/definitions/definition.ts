import {parse, stringify} from 'lossless-json';
import {ExitCode, PearasysError, usageError} from '../../host/errors.js';
import type {HostReader} from '../../host/host.js';
import {distrustPath} from '../../config/trust.js';
import {ignoredNote, isIgnored, readDesired, type IgnoredFile, type WantedFile} from '../desired.js';
import {compare} from '../../devices/mdev/mdev.js';
import {
  asParentName,
  asTypeName,
  inKernelCase,
  scriptsFolderName,
  type ParentName,
  type TypeName,
} from '../../devices/mdev/mdev-name.js';
import {asUuid, type Uuid} from '../../devices/mdev/uuid.js';

/** A value that is written to an attribute of the device when it is started. */
export interface Attribute {
  /** The path of the attribute below the device's folder. */
  readonly name: string;
  readonly value: string;
}

/** Whether a defined device is started when its parent registers. */
export type StartMode = 'auto' | 'manual';

/** The configuration of a mediated device, as in mdevctl's JSON. */
export interface MdevConfig {
  readonly type: TypeName;
  readonly start: StartMode;
  /** Written in this order. A name may occur several times. */
  readonly attributes: readonly Attribute[];
}

/**
 * A permanent definition: a file `/etc/mdevctl.d/<parent>/<uuid>`, shared with mdevctl, which names folder and file as
 * its user types them.
 */
export interface Definition extends MdevConfig, WantedFile {
  readonly kind: 'definition';
  readonly uuid: Uuid;
  /** In the kernel's upper and lower case, which may differ from the folder's. */
  readonly parent: ParentName;
  /**
   * All other members of the file, preserved exactly because a newer mdevctl may use them. Numbers are of the class
   * `LosslessNumber`, which keeps their digits.
   */
  readonly others: Readonly<Record<string, unknown>>;
}

/** An invalid file among the definitions; it is ignored and not changed. */
interface BrokenDefinition extends IgnoredFile {
  readonly kind: 'definition';
  readonly parent: ParentName;
  /** Undefined if the file's name is not a UUID. */
  readonly uuid: Uuid | undefined;
}

/** The content of the folder of definitions. */
export interface Definitions {
  /** Sorted by parent, then by UUID. */
  readonly definitions: readonly Definition[];
  readonly broken: readonly BrokenDefinition[];
}

/** Selects definitions; selects all if no property is set. */
export interface DefinitionFilter {
  readonly uuid?: Uuid | undefined;
  readonly parent?: ParentName | undefined;
  /** Whether a parent's name must match the name of its folder exactly, as in mdevctl. */
  readonly asTyped?: boolean | undefined;
}

/** The folder of mdevctl's definitions: a folder for each parent, a file for each UUID. */
export const definitionsFolder = '/etc/mdevctl.d';

/** The path of a new definition. */
export function definitionPath({parent, uuid}: Pick<Definition, 'parent' | 'uuid'>): string {
  return `${definitionsFolder}/${parent}/${uuid}`;
}

/**
 * Reads the definitions. The same UUID may be defined on several parents. If several files define one device, the file
 * with the kernel's spelling of parent and UUID is used.
 */
export function readDefinitions(host: HostReader, filter: DefinitionFilter = {}): Definitions {
  const found = new Map<string, Definition | BrokenDefinition>();
  const broken: BrokenDefinition[] = [];
  for (const folder of listFolders(host, filter)) {
    const parent = filter.asTyped === true ? folder : inKernelCase(folder);
    const files = listFiles(host, folder, filter.uuid);
    for (const file of files) {
      const read = readFile(host, {folder, parent, file}, filter.asTyped);
      if (read === undefined) continue;
      const key = `${parent}/${read.uuid ?? ''}`;
      const first = read.uuid === undefined ? undefined : found.get(key);
      if (first !== undefined)
        broken.push({
          kind: 'definition',
          path: read.path,
          parent,
          uuid: read.uuid,
          reason: `${first.path} defines the same device`,
        });
      else if (read.uuid === undefined && isIgnored(read)) broken.push(read);
      else found.set(key, read);
    }
  }
  const definitions: Definition[] = [];
  for (const read of found.values())
    if (isIgnored(read)) broken.push(read);
    else definitions.push(read);
  // Folders are listed in the order of their bytes, and `compare` uses the same order.
  definitions.sort((a, b) => compare(a.parent, b.parent) || compare(a.uuid, b.uuid));
  broken.sort((a, b) => compare(a.path, b.path));
  return {definitions, broken};
}

/** The folders of the selected parents; those with the kernel's spelling come first. */
function listFolders(host: HostReader, {parent, asTyped}: DefinitionFilter): ParentName[] {
  if (parent !== undefined && (asTyped === true || parent.toUpperCase() === parent))
    return isFolder(host, parent) ? [parent] : [];
  const names = host
    .list(definitionsFolder)
    .map(asParentName)
    .filter((name) => name !== undefined)
    .filter((name) => parent === undefined || name === parent || inKernelCase(name) === parent)
    .filter((name) => isFolder(host, name));
  return kernelFirst(names, inKernelCase);
}

function isFolder(host: HostReader, name: ParentName): boolean {
  return name !== scriptsFolderName && host.info(`${definitionsFolder}/${name}`)?.kind === 'directory';
}

/** The files of a parent's folder, or only those of one UUID; those with the kernel's spelling come first. */
function listFiles(host: HostReader, folder: ParentName, uuid: Uuid | undefined): readonly string[] {
  // If the file with the kernel's spelling exists, the folder need not be read.
  if (uuid !== undefined && host.info(`${definitionsFolder}/${folder}/${uuid}`) !== undefined) return [uuid];
  const files = host.list(`${definitionsFolder}/${folder}`);
  if (uuid !== undefined) return files.filter((file) => asUuid(file) === uuid);
  return kernelFirst(files, (file) => asUuid(file) ?? file);
}

function kernelFirst<Name extends string>(names: readonly Name[], kernels: (name: Name) => string): Name[] {
  const isKernels = (name: Name) => kernels(name) === name;
  return [...names.filter(isKernels), ...names.filter((name) => !isKernels(name))];
}

/**
 * Why a unit must ignore a definition, because it runs as root and no administrator has checked the file. Undefined if
 * neither the file nor a folder above it belongs to another user or is writable by others.
 */
export function distrustDefinition(host: HostReader, {path}: Pick<Definition, 'path'>): string | undefined {
  return distrustPath(host, path, 'file');
}

/** The notes on definitions that units ignore. */
export function distrustNotes(host: HostReader, definitions: readonly Definition[]): string[] {
  return definitions.flatMap((definition) => {
    const {kind, path} = definition;
    const reason = distrustDefinition(host, definition);
    return reason === undefined ? [] : [ignoredNote({kind, path, reason}, ' by units')];
  });
}

/** Whether any parent has a definition of this UUID, valid or not. */
export function isDefined(host: HostReader, uuid: Uuid): boolean {
  const {definitions, broken} = readDefinitions(host, {uuid});
  return definitions.length + broken.length > 0;
}

/** A file in a parent's folder. */
interface DefinitionFile {
  readonly folder: ParentName;
  readonly parent: ParentName;
  readonly file: string;
}

function readFile(
  host: HostReader,
  {folder, parent, file}: DefinitionFile,
  asTyped: boolean | undefined,
): Definition | BrokenDefinition | undefined {
  const path = `${definitionsFolder}/${folder}/${file}`;
  const info = host.info(path);
  if (info === undefined) return undefined;
  const uuid = asUuid(file);
  // mdevctl does not report folders.
  if (info.kind === 'directory' && (asTyped === true || uuid === undefined)) return undefined;
  const own = {kind: 'definition', path, parent} as const;
  if (uuid === undefined) return {...own, uuid, reason: 'its name is not a UUID'};
  // Only units check for trust: a user who runs a command may have written the file.
  const read = readDesired(own, undefined, () => {
    const text = host.readText(path);
    return text === undefined ? undefined : parseConfig(text);
  });
  if (read === undefined) return undefined;
  if ('reason' in read) return {...own, uuid, reason: read.reason};
  const unknown = Object.entries(read.others).map(([key, value]) => ({key, value: String(stringify(value))}));
  return {...own, uuid, ...read, unknown};
}

/**
 * Reads mdevctl's JSON: `{"mdev_type": "TYPE", "start": "auto|manual", "attrs": [{"NAME": "VALUE"}, ...]}`. Any start
 * other than `auto` is manual, as in mdevctl.
 * @throws PearasysError `bad-definition`: what is invalid.
 */
export function parseConfig(text: string): MdevConfig & Pick<Definition, 'others'> {
  let value: unknown;
  try {
    // If a member occurs twice, mdevctl uses the last one.
    value = parse(text, null, {onDuplicateKey: ({newValue}) => newValue});
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw badDefinition(`it is not JSON: ${why.replaceAll(/\p{Cc}/gu, '?')}`);
  }
  if (!isRecord(value)) throw badDefinition('it is not a JSON object');
  const {mdev_type: type, start, attrs, ...others} = value;
  if (type === undefined || type === null) throw badDefinition('it has no mdev_type');
  // As in mdevctl, an empty type is accepted here. No parent has it.
  const typeName = typeof type !== 'string' ? undefined : type === '' ? ('' as TypeName) : asTypeName(type);
  if (typeName === undefined)
    throw badDefinition(`its mdev_type ${String(stringify(type))} is not a type's name`);
  if (start === undefined || start === null) throw badDefinition('it has no start: expected auto or manual');
  return {
    type: typeName,
    start: start === 'auto' ? 'auto' : 'manual',
    attributes: parseAttributes(attrs),
    others,
  };
}

/**
 * Reads a list of attributes, as in a definition and in the output of a callout's `get`.
 * @throws PearasysError `bad-definition`.
 */
export function parseAttributes(value: unknown): Attribute[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw badDefinition('its attrs are not a list');
  return value.map((one: unknown, index) => {
    const entries = isRecord(one) ? Object.entries(one) : [];
    const [entry] = entries;
    if (entry === undefined || entries.length > 1 || typeof entry[1] !== 'string')
      throw badDefinition(`attribute ${index} is not an object with one name and one text`);
    return {name: entry[0], value: entry[1]};
  });
}

/** The file's text, byte for byte as mdevctl 1.2 writes it: indented by two spaces, without a newline at the end. */
export function printConfig(config: MdevConfig & Partial<Pick<Definition, 'others'>>): string {
  return String(stringify({...configObject(config), ...config.others}, null, 2));
}

/** The configuration as a callout reads it from standard input. */
export function printCompactConfig(config: MdevConfig): string {
  return JSON.stringify(configObject(config));
}

/** The configuration as mdevctl prints it in JSON: only the members that mdevctl knows, in its order. */
export function configObject(config: MdevConfig): object {
  return {
    mdev_type: config.type,
    start: config.start,
    attrs: config.attributes.map(({name, value}) => ({[name]: value})),
  };
}

/**
 * Checks an attribute's name: a path that stays below the device's folder.
 * @throws PearasysError `bad-attribute`, exit code 2.
 */
export function checkAttributeName(name: string): void {
  const parts = name.split('/');
  if (parts.some((part) => part === '' || part === '.' || part === '..') || /[\0\n]/.test(name))
    throw usageError(
      `'${name}' is not the name of an attribute`,
      "an attribute is a file in the device's own folder, as in assign_adapter",
      'bad-attribute',
    );
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function badDefinition(reason: string): PearasysError {
  return new PearasysError({code: 'bad-definition', exitCode: ExitCode.failed, message: reason});
}
