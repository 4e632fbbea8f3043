/** The udev rules that give the nodes of devices to their users. They are derived: what they say is recorded elsewhere. */
import {udevRules, udevRulesForBoot} from '../config/layout.js';
import {asId, sysfsIds, type DeviceId} from '../devices/pci/id.js';
import {asSlot, type Slot} from '../devices/pci/slot.js';
import {runState} from '../host/paths.js';
import {recordLine, virtualCopy} from './sriov/sriov-record.js';
import {parseAccount, parseMode, printMode, type NodeAccess} from './records/node-access.js';

/**
 * What the rules are derived from. Each source has a file of its own, so that none has to read the others: the records of
 * claims, the counts of virtual functions, and what lasts until the next boot. For one slot, the last one applies.
 */
export type AccessSource = 'records' | 'sriov' | 'boot';

/** Who may open the nodes of the device in a slot. */
export interface Grant {
  readonly slot: Slot;
  /** The card that must be in the slot; undefined for any. */
  readonly id?: DeviceId | undefined;
  readonly access: NodeAccess;
  /** What tells that a virtual function in the slot is one of the recorded card; undefined for other devices. */
  readonly virtual?: VirtualGrant;
}

/** The physical function of a virtual one. */
interface VirtualGrant {
  /** The name of its record. */
  readonly record: string;
  /** The bridge above it. */
  readonly bridge: Slot | undefined;
}

/**
 * The file that exists while the recorded card has its virtual function in the slot of a grant, and the line that is in
 * it. libexec/early writes it again at each boot.
 */
export function proofOf({
  slot,
  id,
  virtual,
}: Grant): {readonly path: string; readonly line: string} | undefined {
  return id === undefined || virtual === undefined
    ? undefined
    : {path: virtualCopy(slot, id, virtual.bridge), line: recordLine(virtual.record)};
}

const files = {
  records: `${udevRules}/61-pearasys-access.rules`,
  sriov: `${udevRules}/61-pearasys-access-sriov.rules`,
  boot: `${udevRulesForBoot}/62-pearasys-access-boot.rules`,
} as const satisfies Readonly<Record<AccessSource, string>>;

const origins = {
  records: ['the records of claims', 'pearasys service set SLOT --user USER --user-group GROUP'],
  sriov: ['the records of virtual functions', 'pearasys sriov set'],
  boot: ['commands since the last boot', 'pearasys userspace config'],
} as const satisfies Readonly<Record<AccessSource, readonly [from: string, command: string]>>;

/** All sources. */
export const accessSources = ['records', 'sriov', 'boot'] as const satisfies readonly AccessSource[];

/** The path of the rules. */
export function accessPath(source: AccessSource): string {
  return files[source];
}

/** The text of the rules. For nodes of several devices of a group, the last one of them applies. */
export function printAccessRules(source: AccessSource, grants: readonly Grant[]): string {
  const [from, command] = origins[source];
  const label = `pearasys_access_${source}_end`;
  return [
    `# Written by pearasys: who may open the nodes of devices. Generated from ${from}.`,
    `# Edits are lost at the next change. To change who may open a device: ${command}`,
    `ACTION=="remove", GOTO="${label}"`,
    `SUBSYSTEM!="vfio|vfio-dev|uio", GOTO="${label}"`,
    ...grants.flatMap((grant) => ['', ...printGrant(grant)]),
    '',
    `LABEL="${label}"`,
    '',
  ].join('\n');
}

/**
 * The lines for a device. The number of an IOMMU group changes from boot to boot: the group is found by its member.
 * Owner, group and mode have a line each, because udev ignores a line with a user or group that it does not know.
 */
function printGrant(grant: Grant): string[] {
  const {slot, id, access} = grant;
  const {user, group, mode} = access;
  const is = `ENV{PEARASYS_ACCESS}="${slot}"`;
  const ids = id === undefined ? [] : sysfsIds(id);
  const when = [
    `ENV{PEARASYS_ACCESS}=="${slot}"`,
    // The card of another record is in the slot: it has not got its own slot yet.
    `TEST!="${runState}/moved/${slot}"`,
    ...ids.map((number, index) => `ATTR{[pci/${slot}]${index === 0 ? 'vendor' : 'device'}}=="${number}"`),
  ].join(', ');
  return [
    `# ${printGrantLine(grant)}`,
    `SUBSYSTEM=="vfio", TEST=="/sys/kernel/iommu_groups/$kernel/devices/${slot}", ${is}`,
    `SUBSYSTEM=="vfio", KERNEL=="noiommu-*", TEST=="/sys/kernel/iommu_groups/$number/devices/${slot}", ${is}`,
    `SUBSYSTEM=="vfio-dev", TEST=="/sys/bus/pci/devices/${slot}/vfio-dev/$kernel", ${is}`,
    `SUBSYSTEM=="uio", TEST=="/sys/bus/pci/devices/${slot}/uio/$kernel", ${is}`,
    ...printProof(grant),
    `${when}, OWNER="${user ?? 'root'}"`,
    `${when}, GROUP="${group ?? 'root'}"`,
    `${when}, MODE="${printMode(mode)}"`,
  ];
}

/**
 * The lines that drop a virtual function of another card: after buses were renumbered, it may have this slot. They are
 * separate, because in one line udev compares before it imports, and sets after it imports.
 */
function printProof(grant: Grant): string[] {
  const proof = proofOf(grant);
  if (proof === undefined) return [];
  const [key = '', value = ''] = proof.line.split('=');
  const when = `ENV{PEARASYS_ACCESS}=="${grant.slot}"`;
  return [
    `${when}, ENV{${key}}=""`,
    `${when}, IMPORT{file}="${proof.path}"`,
    `${when}, ENV{${key}}!="${value}", ENV{PEARASYS_ACCESS}=""`,
  ];
}

/** What a grant consists of in one line, with `-` for what is not given. */
function printGrantLine({slot, id, access: {user, group, mode}, virtual}: Grant): string {
  return [
    ...[slot, id ?? '-', user ?? '-', group ?? '-', printMode(mode)],
    ...(virtual === undefined ? [] : [virtual.record, virtual.bridge ?? '-']),
  ].join(' ');
}

/** What rules written by {@link printAccessRules} grant. Lines that are not of this form are left out. */
export function parseAccessRules(text: string): Grant[] {
  return text.split('\n').flatMap((line) => {
    const [, slotWord = '', idWord = '', userWord = '', groupWord = '', modeWord = '', record, bridge = ''] =
      /^# (\S+) (\S+) (\S+) (\S+) (\S+)(?: (\S+) (\S+))?$/.exec(line) ?? [];
    const slot = asSlot(slotWord);
    const mode = parseMode(modeWord);
    if (slot === undefined || mode === undefined) return [];
    const user = parseAccount(userWord);
    const group = parseAccount(groupWord);
    const access = {...(user === undefined ? {} : {user}), ...(group === undefined ? {} : {group}), mode};
    const virtual = record === undefined ? {} : {virtual: {record, bridge: asSlot(bridge)}};
    return [{slot, id: asId(idWord), access, ...virtual}];
  });
}
