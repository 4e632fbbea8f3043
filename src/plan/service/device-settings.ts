import {ExitCode} from '../../host/errors.js';
import type {HostReader} from '../../host/host.js';
import {readAttribute, readBarSizes, readResetMethods} from '../../devices/pci/attributes.js';
import {devicePath, type Device} from '../../devices/pci/device.js';
import {vfioPci, type Driver} from '../../devices/pci/driver.js';
import {readApplied} from '../../state/applied-settings.js';
import {
  barOf,
  changeSettings,
  sizeOf,
  valueWords,
  type DeviceSetting,
  type SettingChange,
} from '../../state/records/device-settings.js';
import {changeNodeAccess, type NodeAccessChange} from '../../state/records/node-access.js';
import {checkedPath, printChecked, printRecord, type DeviceRecord} from '../../state/records/record.js';
import {plan, refuse, writeFile, type Planned, type Refusal} from '../step.js';
import {accessNotes, grantsOf, planAccess, refuseAccess, refuseWithoutNodes} from './access.js';
import type {ServiceState} from './service-state.js';

/**
 * Refuses settings that cannot work on this device.
 * @param device as it was read; undefined if it is absent: then only what does not depend on it is checked.
 */
export function refuseSettings(
  host: HostReader,
  device: Device | undefined,
  driver: Driver,
  changes: readonly SettingChange[],
): Refusal | undefined {
  for (const {name, value} of changes) {
    if (value === undefined) continue;
    const why = whyNot(host, device, driver, {name, value});
    if (why !== undefined)
      return refuse({
        code: 'bad-settings',
        exitCode: ExitCode.refused,
        message: `${device === undefined ? '' : `${device.slot} (${device.id}): `}cannot set ${name}=${valueWords({name, value})}: ${why.reason}`,
        details: ['nothing was changed'],
        ...(why.hint === undefined ? {} : {hint: why.hint}),
      });
  }
  return undefined;
}

interface WhyNot {
  readonly reason: string;
  readonly hint?: string;
}

function whyNot(
  host: HostReader,
  device: Device | undefined,
  driver: Driver,
  {name, value}: DeviceSetting,
): WhyNot | undefined {
  if (name === 'variant')
    return value === 'yes' && driver !== vfioPci
      ? {reason: `the record's driver is ${driver}, and only vfio-pci has variants`}
      : undefined;
  if (device === undefined) return undefined;
  const {slot} = device;
  const bar = barOf(name);
  if (bar !== undefined) {
    const sizes = readBarSizes(host, slot, bar);
    if (sizes === undefined) return {reason: `BAR ${bar} is not resizable`};
    return sizes.possible.includes(Number(value))
      ? undefined
      : {
          reason: 'the device does not support this size',
          hint: `one of these sizes: ${sizes.possible.map(sizeOf).join(', ')}`,
        };
  }
  if (name === 'reset' && value === 'none') return undefined;
  if (name === 'reset_method' || name === 'reset') return whyNoReset(host, device, value);
  return readAttribute(host, slot, name) === undefined
    ? {reason: `the device has no ${devicePath(slot, name)}`}
    : undefined;
}

function whyNoReset(host: HostReader, device: Device, value: string): WhyNot | undefined {
  const {slot} = device;
  const now = readResetMethods(host, slot);
  if (now === undefined)
    return {
      reason: 'the kernel has no reset method for the device, or is older than 5.15 and cannot select one',
    };
  if (['default', 'none'].includes(value)) return undefined;
  const before = readApplied(host, device)?.before.get('reset_method')?.split(' ') ?? [];
  const offered = [...new Set([...now, ...before])].filter((name) => name !== '');
  const missing = value.split(' ').find((name) => !offered.includes(name));
  return missing === undefined
    ? undefined
    : {
        reason: `the kernel does not offer the reset method ${missing} for the device`,
        hint: `use ${offered.join(', ') || 'none'}; if other methods were switched off: echo default > ${devicePath(slot, 'reset_method')}`,
      };
}

/** What is changed in a record besides its driver. */
export interface RecordChange {
  readonly settings: readonly SettingChange[];
  /** Who may open the device's nodes; undefined for no change. */
  readonly access?: NodeAccessChange | undefined;
}

/** The plan that changes a record. Settings are applied at the next claim, access at once. */
export function planSettings(
  host: HostReader,
  record: DeviceRecord,
  device: Device | undefined,
  change: RecordChange,
  state: ServiceState,
): Planned {
  const refusal = refuseSettings(host, device, record.driver, change.settings);
  if (refusal !== undefined) return refusal;
  if (change.access !== undefined && record.source !== 'record') return refuseForBoot(record);
  const {access: before, ...rest} = record;
  const access = changeNodeAccess(before, change.access ?? {});
  const changed: DeviceRecord = {
    ...rest,
    settings: changeSettings(record.settings ?? [], change.settings),
    ...(access === undefined ? {} : {access}),
  };
  const nodeless = refuseWithoutNodes(record.driver, access, change.access);
  if (nodeless !== undefined) return nodeless;
  const grants = grantsOf(state.records.records.map((one) => (one.path === record.path ? changed : one)));
  const own = record.slot === 'any' ? [] : [record.slot];
  const conflict = refuseAccess(grants, change.access === undefined ? [] : own, state.access);
  if (conflict !== undefined) return conflict;
  const put = (path: string, content: string) => {
    const previous = state.files.get(path);
    return previous?.content === content ? [] : [writeFile(path, content, previous)];
  };
  const steps = put(record.path, printRecord(changed));
  const copy =
    state.running && record.slot !== 'any' ? checkedPath(record, state.bridges.get(record.slot)) : undefined;
  const copies = copy === undefined ? [] : put(copy, printChecked(changed, state.records.records));
  return plan([...steps, ...copies, ...planAccess(grants, state.access)], {
    notes: accessNotes(grants, change.access === undefined ? [] : own, state.access),
  });
}

function refuseForBoot({slot}: DeviceRecord): Refusal {
  return refuse({
    code: 'boot-claim',
    exitCode: ExitCode.refused,
    message: `who may open ${slot} cannot be recorded: its claim is not from a record`,
    details: [
      'it is claimed for this boot only, by the kernel command line or a credential',
      'nothing was changed',
    ],
    hint: `pearasys -s ${slot} service install DRIVER --user USER writes a record`,
  });
}
