import {configObject, type Attribute, type MdevConfig} from '../../state/definitions/definition.js';
import type {Parent} from '../../devices/mdev/parent.js';
import type {ParentName} from '../../devices/mdev/mdev-name.js';
import type {Uuid} from '../../devices/mdev/uuid.js';

/** A device or a definition as mdevctl lists it. */
export interface ListedMdev extends MdevConfig {
  readonly uuid: Uuid;
  readonly parent: ParentName;
  /** The remark in parentheses after it: `active` for a definition, `defined` for a device. */
  readonly remark: 'active' | 'defined' | undefined;
}

/** The lines of `mdevctl list` for one device, each with its newline. */
export function mdevLines(mdev: ListedMdev, verbose: boolean): string {
  const {uuid, parent, type, start, remark, attributes} = mdev;
  const line = `${uuid} ${parent} ${type} ${start}${remark === undefined ? '' : ` (${remark})`}\n`;
  return verbose ? line + attributeLines(attributes) : line;
}

/** The attributes as mdevctl lists them, by their index; an empty text without any. */
function attributeLines(attributes: readonly Attribute[]): string {
  if (attributes.length === 0) return '';
  const lines = attributes.map(({name, value}, index) => `    @{${index}}: {"${name}":"${value}"}\n`);
  return `  Attrs:\n${lines.join('')}`;
}

/**
 * The JSON of `mdevctl list --dumpjson`: by parent and UUID, or for one device the content of its definition.
 * @param alone whether one UUID was asked for.
 */
export function mdevsJson(mdevs: readonly ListedMdev[], alone: boolean): unknown {
  const [first] = mdevs;
  if (first === undefined) return [];
  if (alone && mdevs.length === 1) return configObject(first);
  return byParent(mdevs, (mdev) => ({[mdev.uuid]: configObject(mdev)}));
}

/** The lines of `mdevctl types`. */
export function typesLines(parents: readonly Parent[]): string {
  return parents
    .map(({name, types}) => {
      const lines = types.map(
        (type) =>
          `  ${type.name}\n` +
          `    Available instances: ${type.available ?? '?'}\n` +
          `    Device API: ${type.deviceApi ?? ''}\n` +
          (type.title === undefined || type.title === '' ? '' : `    Name: ${type.title}\n`) +
          (oneLine(type.description) === '' ? '' : `    Description: ${oneLine(type.description)}\n`),
      );
      return `${name}\n${lines.join('')}`;
    })
    .join('');
}

/** The JSON of `mdevctl types --dumpjson`. */
export function typesJson(parents: readonly Parent[]): unknown {
  if (parents.length === 0) return [];
  return [
    new Map(
      parents.map(({name, types}) => [
        name as string,
        types.map((type) => ({
          [type.name]: {
            available_instances: type.available ?? null,
            device_api: type.deviceApi ?? null,
            ...(type.title === undefined || type.title === '' ? {} : {name: type.title}),
            ...(oneLine(type.description) === '' ? {} : {description: oneLine(type.description)}),
          },
        })),
      ]),
    ),
  ];
}

/** The lines of `list-all` and `list-available` of the first mdevctl, a shell script. */
export function firstTypesLines(parents: readonly Parent[], available: boolean): string {
  return parents
    .map(({name, types}) => {
      const lines = types
        .filter((type) => !available || type.available !== 0)
        .map(
          (type) =>
            `  ${type.name}\n` +
            `    Available instances: ${type.available ?? ''}\n` +
            `    Device API: ${type.deviceApi ?? ''}\n` +
            // Its newlines became spaces, including the last one.
            (type.description === undefined
              ? ''
              : `    Description: ${type.description.replaceAll('\n', ' ')}\n`),
        );
      return `${name}\n${lines.join('')}`;
    })
    .join('');
}

function byParent(mdevs: readonly ListedMdev[], show: (mdev: ListedMdev) => object): unknown {
  const parents = new Map<string, object[]>();
  for (const mdev of mdevs) parents.set(mdev.parent, [...(parents.get(mdev.parent) ?? []), show(mdev)]);
  return [parents];
}

/**
 * The text of JSON as mdevctl prints it: indented by two spaces, and with the keys of a Map in its order. A JavaScript
 * object would have numeric keys first.
 */
export function jsonText(value: unknown, indent = ''): string {
  const deeper = `${indent}  `;
  const isMap = value instanceof Map;
  if (!isMap && (typeof value !== 'object' || value === null)) return JSON.stringify(value);
  const [open, close] = Array.isArray(value) ? '[]' : '{}';
  const lines = Array.isArray(value)
    ? value.map((one) => jsonText(one, deeper))
    : [...(isMap ? value : Object.entries(value))].map(
        ([name, one]) => `${JSON.stringify(name)}: ${jsonText(one, deeper)}`,
      );
  if (lines.length === 0) return `${open ?? ''}${close ?? ''}`;
  return `${open ?? ''}\n${lines.map((line) => deeper + line).join(',\n')}\n${indent}${close ?? ''}`;
}

function oneLine(description: string | undefined): string {
  return description?.trim().replaceAll('\n', ', ') ?? '';
}
