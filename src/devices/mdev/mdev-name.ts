import {usageError} from '../../host/errors.js';
import {asSlot} from '../pci/slot.js';

/** The kernel's name of a parent: `0000:00:02.0`, `mtty`, `matrix`. Made only by {@link parseParentName} and by reading sysfs. */
export type ParentName = string & {readonly __brand: 'ParentName'};

/** The name of a type of mediated devices: `i915-GVTg_V5_4`. Made only by {@link parseTypeName} and by reading sysfs. */
export type TypeName = string & {readonly __brand: 'TypeName'};

/** Where mdevctl keeps scripts, next to the folders of parents. */
export const scriptsFolderName = 'scripts.d';

/** Whether the word can be one part of a path below a folder, and stays in that folder. */
function isPathPart(text: string): boolean {
  return text !== '' && text !== '.' && text !== '..' && !/[/\0\n]/.test(text) && text.length <= 255;
}

/** The parent's name in a text; undefined if no device can have this name. */
export function asParentName(text: string): ParentName | undefined {
  return isPathPart(text) && text !== scriptsFolderName ? (text as ParentName) : undefined;
}

/**
 * The name in the kernel's case. Hexadecimal numbers of a PCI slot or of a device of a channel subsystem are lower case:
 * `0000:2B:00.0` becomes `0000:2b:00.0`. Any other name is unchanged.
 */
export function inKernelCase(name: ParentName): ParentName {
  return /^[0-9a-f]+[:.][0-9a-f:.]*$/i.test(name) ? (name.toLowerCase() as ParentName) : name;
}

/**
 * The parent's name, in the kernel's case. A slot without its domain is in domain 0000, as everywhere.
 * @throws PearasysError `bad-parent`, exit code 2.
 */
export function parseParentName(text: string): ParentName {
  const typed = asParentName(asSlot(text) ?? text);
  const name = typed === undefined ? undefined : inKernelCase(typed);
  if (name === undefined)
    throw usageError(
      `'${text}' is not the name of a parent`,
      'use the name of the parent in sysfs, as in 0000:00:02.0 or mtty; `pearasys mdev types` shows them',
      'bad-parent',
    );
  return name;
}

/** The type's name in a text; undefined if no type can have this name. */
export function asTypeName(text: string): TypeName | undefined {
  return isPathPart(text) ? (text as TypeName) : undefined;
}

/** @throws PearasysError `bad-type`, exit code 2. */
export function parseTypeName(text: string): TypeName {
  const name = asTypeName(text);
  if (name === undefined)
    throw usageError(
      `'${text}' is not the name of a type`,
      'use the name of a type, as in i915-GVTg_V5_4; `pearasys mdev types` shows them',
      'bad-type',
    );
  return name;
}
