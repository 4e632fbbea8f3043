import {parse, stringify} from 'lossless-json';
import {ExitCode, FileError, PearasysError, usageError} from '../host/errors.js';
import type {HostReader} from '../host/host.js';
import {distrustPath} from '../host/trust.js';
import {compare} from './mdev.js';
import {asParentName, asTypeName, scriptsFolderName, type ParentName, type TypeName} from './name.js';
import {asUuid, type Uuid} from './uuid.js';

/** A value that is written to an attribute of the device when it is started. */
export interface Attribute {
  /** The path of the attribute below the device's folder. */
  readonly name: string;
  readonly value: string;
}

/** Whether a defined device is started as its parent registers. */
export type StartMode = 'auto' | 'manual';

/** What a mediated device is to be made of: what mdevctl's JSON says. */
export interface MdevConfig {
  readonly type: TypeName;
  readonly start: StartMode;
  /** Written in this order. One name may occur several times. */
  readonly attributes: readonly Attribute[];
}

/** A lasting wish: a file `/etc/mdevctl.d/<parent>/<uuid>`, shared with mdevctl. */
export interface Definition extends MdevConfig {
  readonly uuid: Uuid;
  readonly parent: ParentName;
  /**
   * What else is in the file, kept as it is, to the digits of its numbers, which are of the class `LosslessNumber`: a
   * newer mdevctl may know more than we do.
   */
  readonly others: Readonly<Record<string, unknown>>;
}

/** A file among the definitions that is none, and is left alone. */
export interface BrokenDefinition {
  readonly path: string;
  readonly parent: ParentName;
  /** Undefined when the file's name is no UUID as the kernel prints it. */
  readonly uuid: Uuid | undefined;
  readonly reason: string;
}

/** All that is in the folder of definitions. */
export interface Definitions {
  /** In the order of their parents and UUIDs. */
  readonly definitions: readonly Definition[];
  readonly broken: readonly BrokenDefinition[];
}

/** Which definitions are wanted; all where nothing is said. */
export interface DefinitionFilter {
  readonly uuid?: Uuid | undefined;
  readonly parent?: ParentName | undefined;
}

/** Where mdevctl keeps definitions: a folder for each parent, a file for each UUID. */
export const definitionsFolder = '/etc/mdevctl.d';

/** The file of a definition. */
export function definitionPath({parent, uuid}: Pick<Definition, 'parent' | 'uuid'>): string {
  return `${definitionsFolder}/${parent}/${uuid}`;
}

/** Reads the definitions. The same UUID may be defined under several parents. */
export function readDefinitions(host: HostReader, filter: DefinitionFilter = {}): Definitions {
  const definitions: Definition[] = [];
  const broken: BrokenDefinition[] = [];
  for (const name of filter.parent === undefined ? host.list(definitionsFolder) : [filter.parent]) {
    const parent = asParentName(name);
    if (parent === undefined || name === scriptsFolderName) continue;
    const folder = `${definitionsFolder}/${parent}`;
    if (filter.uuid === undefined && host.info(folder)?.kind !== 'directory') continue;
    for (const file of filter.uuid === undefined ? host.list(folder) : [filter.uuid]) {
      const read = readFile(host, parent, file);
      if (read === undefined) continue;
      if ('reason' in read) broken.push(read);
      else definitions.push(read);
    }
  }
  // The folders are sorted as files are listed: by their bytes.
  definitions.sort((a, b) => compare(a.parent, b.parent) || compare(a.uuid, b.uuid));
  return {definitions, broken};
}

/**
 * Why a definition may not be obeyed by a unit, which root runs without having read it; undefined when it may: neither
 * the file nor a folder above it is another user's, or writable by others.
 */
export function distrustDefinition(
  host: HostReader,
  definition: Pick<Definition, 'parent' | 'uuid'>,
): string | undefined {
  return distrustPath(host, definitionPath(definition), 'file');
}

/** The notes on definitions that no unit obeys. */
export function distrustNotes(host: HostReader, definitions: readonly Definition[]): string[] {
  return definitions.flatMap((definition) => {
    const reason = distrustDefinition(host, definition);
    return reason === undefined
      ? []
      : [`the definition ${definitionPath(definition)} is obeyed by no unit: ${reason}`];
  });
}

/** Whether there is a definition of this UUID under any parent, broken or not. */
export function isDefined(host: HostReader, uuid: Uuid): boolean {
  const {definitions, broken} = readDefinitions(host, {uuid});
  return definitions.length + broken.length > 0;
}

function readFile(
  host: HostReader,
  parent: ParentName,
  file: string,
): Definition | BrokenDefinition | undefined {
  const path = `${definitionsFolder}/${parent}/${file}`;
  const info = host.info(path);
  if (info === undefined || info.kind === 'directory') return undefined;
  const uuid = asUuid(file);
  const named = uuid === file ? uuid : undefined;
  const problem = (reason: string) => ({path, parent, uuid: named, reason});
  if (named === undefined) return problem('its name is not a UUID as the kernel prints it');
  let text: string | undefined;
  try {
    text = host.readText(path);
  } catch (error) {
    if (!(error instanceof FileError)) throw error;
    return problem(error.message);
  }
  if (text === undefined) return undefined;
  try {
    return {uuid: named, parent, ...parseConfig(text)};
  } catch (error) {
    if (!(error instanceof PearasysError)) throw error;
    return problem(error.message);
  }
}

/**
 * Reads mdevctl's JSON: `{"mdev_type": "TYPE", "start": "auto|manual", "attrs": [{"NAME": "VALUE"}, ...]}`. A start
 * other than `auto` is manual, as mdevctl has it.
 * @throws PearasysError `bad-definition` what is wrong with it.
 */
export function parseConfig(text: string): MdevConfig & Pick<Definition, 'others'> {
  let value: unknown;
  try {
    // Of two entries with one name mdevctl takes the last.
    value = parse(text, null, {onDuplicateKey: ({newValue}) => newValue});
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw badDefinition(`it is not JSON: ${why.replaceAll(/\p{Cc}/gu, '?')}`);
  }
  if (!isRecord(value)) throw badDefinition('it is not a JSON object');
  const {mdev_type: type, start, attrs, ...others} = value;
  if (type === undefined || type === null) throw badDefinition('it has no mdev_type');
  const typeName = typeof type === 'string' ? asTypeName(type) : undefined;
  if (typeName === undefined)
    throw badDefinition(`its mdev_type ${String(stringify(type))} is not a type's name`);
  if (start === undefined || start === null)
    throw badDefinition('it does not say how it starts: auto or manual');
  return {
    type: typeName,
    start: start === 'auto' ? 'auto' : 'manual',
    attributes: parseAttributes(attrs),
    others,
  };
}

/**
 * Reads a list of attributes, as it stands in a definition and as a callout's `get` prints it.
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

/** The file's text, byte for byte as mdevctl 1.2 writes it: two blanks, no newline at the end. */
export function printConfig(config: MdevConfig & Partial<Pick<Definition, 'others'>>): string {
  return String(stringify({...configObject(config), ...config.others}, null, 2));
}

/** The configuration as a callout gets it on standard input. */
export function printCompactConfig(config: MdevConfig): string {
  return JSON.stringify(configObject(config));
}

/** The configuration as mdevctl prints it in JSON, in its order: what mdevctl knows of it. */
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
