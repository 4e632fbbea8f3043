import {ExitCode, PearasysError} from '../host/errors.js';
import type {HostReader} from '../host/host.js';
import {runState} from '../host/paths.js';
import {parseDriver, type Driver} from '../devices/pci/driver.js';
import {asId, type DeviceId} from '../devices/pci/id.js';
import {asSlot, type Slot} from '../devices/pci/slot.js';
import {parseSettingChange, type SettingChange} from './records/device-settings.js';
import {parseAccessWords, printAccessWords, type NodeAccessChange} from './records/node-access.js';
import {parseTaken, plainTaken, type TakenDevice} from './taken-device.js';

/** A claim that `pearasys confirm` makes permanent. */
export interface UnconfirmedClaim {
  readonly driver: Driver;
  readonly folder: string;
  readonly group: boolean;
  /** Whether the confirmation rebuilds the initramfs. */
  readonly rebuild: boolean;
  /** The changes of the devices' settings; default none. */
  readonly changes?: readonly SettingChange[];
  /** A change of who may open the devices' nodes; default none. */
  readonly accessChange?: NodeAccessChange | undefined;
  readonly devices: readonly {readonly slot: Slot; readonly id: DeviceId}[];
}

/** A change of drivers that is undone unless it is confirmed. Lasts until the next boot, as the change itself does. */
export interface Unconfirmed {
  /** The state of the devices before the change. */
  readonly devices: readonly TakenDevice[];
  /** The claim that a confirmation makes permanent; undefined without one. */
  readonly claim: UnconfirmedClaim | undefined;
}

/** The path of the unconfirmed change. At most one exists. */
export const unconfirmedPath = `${runState}/unconfirmed`;

/** The file's text. */
export function printUnconfirmed({devices, claim}: Unconfirmed): string {
  return `${JSON.stringify({devices: devices.map(plainTaken), claim: plainClaim(claim)}, null, 2)}\n`;
}

/** The claim as JSON can have it, which knows no undefined value. */
function plainClaim(claim: UnconfirmedClaim | undefined): object | null {
  if (claim?.accessChange === undefined) return claim ?? null;
  const {accessChange, ...rest} = claim;
  return {...rest, access: printAccessWords(accessChange)};
}

/**
 * The unconfirmed change; undefined without one.
 * @throws PearasysError `file-failed` if {@link printUnconfirmed} cannot have written the file.
 */
export function readUnconfirmed(host: HostReader): Unconfirmed | undefined {
  const text = host.readText(unconfirmedPath);
  if (text === undefined) return undefined;
  const parsed = parse(text);
  if (parsed !== undefined) return parsed;
  throw new PearasysError({
    code: 'file-failed',
    exitCode: ExitCode.failed,
    message: `${unconfirmedPath} is damaged: the previous drivers of the devices are unknown`,
    hint: 'return the devices with `pearasys bind default`, then remove that file',
  });
}

function parse(text: string): Unconfirmed | undefined {
  try {
    const {devices, claim} = JSON.parse(text) as Record<string, unknown>;
    if (!Array.isArray(devices)) return undefined;
    const taken = devices.map(parseTaken);
    if (!taken.every((one) => one !== undefined)) return undefined;
    return {devices: taken, claim: claim === null ? undefined : parseClaim(claim)};
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof PearasysError || error instanceof TypeError)
      return undefined;
    throw error;
  }
}

/** @throws TypeError or PearasysError if it is not a change. */
function parseChange(value: unknown): SettingChange {
  const {name, value: text = ''} = value as Record<string, unknown>;
  if (typeof name !== 'string' || typeof text !== 'string') throw new TypeError('not a change');
  return parseSettingChange(`${name}=${text}`);
}

/** @throws TypeError if it is not a change of access. */
function parseAccess(value: unknown): NodeAccessChange {
  const words = value as Record<string, unknown>;
  for (const word of Object.values(words)) if (typeof word !== 'string') throw new TypeError('not a word');
  const change = parseAccessWords(words);
  if (change === undefined) throw new TypeError('not a change of access');
  return change;
}

/** @throws TypeError or PearasysError if it is not a claim. */
function parseClaim(value: unknown): UnconfirmedClaim {
  const {driver, folder, group, rebuild, changes, access, devices} = value as Record<string, unknown>;
  if (typeof driver !== 'string' || typeof folder !== 'string' || !Array.isArray(devices))
    throw new TypeError('not a claim');
  return {
    driver: parseDriver(driver),
    folder,
    group: group === true,
    rebuild: rebuild !== false,
    changes: Array.isArray(changes) ? changes.map(parseChange) : [],
    ...(access === undefined ? {} : {accessChange: parseAccess(access)}),
    devices: devices.map((each: unknown) => {
      const {slot, id} = each as Record<string, unknown>;
      const own = typeof slot === 'string' ? asSlot(slot) : undefined;
      const card = typeof id === 'string' ? asId(id) : undefined;
      if (own === undefined || card === undefined) throw new TypeError('not a device');
      return {slot: own, id: card};
    }),
  };
}
