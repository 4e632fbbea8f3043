import type {HostReader} from '../../host/host.js';
import {
  definitionsFolder,
  readDefinitions,
  type Attribute,
  type DefinitionFilter,
  type StartMode,
} from './definition.js';
import {readMdev, readMdevs, type Mdev} from '../../devices/mdev/mdev.js';
import {asParentName, inKernelCase, type TypeName} from '../../devices/mdev/mdev-name.js';

/** An existing mediated device, with data of its definition. */
interface ActiveMdev extends Mdev {
  readonly type: TypeName;
  /** Whether it is defined on its parent; the definition may be invalid. */
  readonly defined: boolean;
  /** `manual` without a definition. */
  readonly start: StartMode;
  /** The attributes of its definition; undefined without a readable definition. */
  readonly attributes: readonly Attribute[] | undefined;
}

/**
 * The existing mediated devices that show their type, sorted by parent, then by UUID. No other definitions are read.
 */
export function readActiveMdevs(host: HostReader, filter: DefinitionFilter = {}): ActiveMdev[] {
  const {uuid, parent, asTyped} = filter;
  const one = uuid === undefined ? undefined : readMdev(host, uuid);
  const mdevs = uuid === undefined ? readMdevs(host) : one === undefined ? [] : [one];
  const names = new Set(
    host.list(definitionsFolder).map((name) => (asTyped === true ? name : kernelName(name))),
  );
  return mdevs.flatMap((mdev) => {
    if (mdev.type === undefined || (parent !== undefined && mdev.parent !== parent)) return [];
    const all = names.has(mdev.parent) ? readDefinitions(host, {...mdev, asTyped}) : undefined;
    const [definition] = all?.definitions ?? [];
    const defined = definition !== undefined || (all?.broken.length ?? 0) > 0;
    const {start = 'manual', attributes} = definition ?? {};
    return [{...mdev, type: mdev.type, defined, start, attributes}];
  });
}

function kernelName(name: string): string {
  const parent = asParentName(name);
  return parent === undefined ? name : inKernelCase(parent);
}
