import {posix} from 'node:path';
import {boolean, string} from '@oclif/core/flags';
import {ExitCode, PearasysError, usageError} from '../../../host/errors.js';
import {arrangeDevices, type ArrangedDevice} from '../../../devices/pci/dependents.js';
import {classWords, type Device} from '../../../devices/pci/device.js';
import {parseDriver} from '../../../devices/pci/driver.js';
import {asId} from '../../../devices/pci/id.js';
import type {Holder} from '../../../usage/holder.js';
import {printableLine} from '../../../host/printable.js';
import {printName} from '../../../devices/pci/names.js';
import {ignoredNote} from '../../../state/desired.js';
import {quarantineNote} from '../../../state/quarantine.js';
import type {UnitState} from '../../../systemd/unit.js';
import {BaseCommand} from '../base-command.js';
import {hasColors} from '../context.js';
import {
  blindSpot,
  nameInReport,
  quarantineOf,
  printClass,
  reportDevice,
  reportRecord,
  type DeviceReport,
  type HolderReport,
  type RecordReport,
  type Surroundings,
} from '../device-report.js';
import {listResult, readList, type ListResult} from '../list-report.js';
import {suggest} from '../report-error.js';
import type {MdevInventory} from '../mdev-inventory.js';

/** Characters per write: the capacity of a pipe, see pipe(7). */
const chunk = 65_536;

/** Whether a device is wanted. */
type Filter = (device: Device) => boolean;

/** `pearasys list`: the PCI functions of this machine. */
export default class List extends BaseCommand {
  static override description =
    'On a terminal, prints a table; * marks the display that the firmware used at boot. Otherwise prints one ' +
    'line per device, tab-separated: slot, id, class code, driver, override, IOMMU group, `boot-display`, ' +
    'recorded driver (followed by `!` if the card is another one), units, holders, class, name; - stands for ' +
    'none. A device must match all filters; the same filter given twice matches either value. Names come from ' +
    "the system's pci.ids. If there are parents of mediated devices, they and their devices follow. " +
    'In a table, virtual functions are below their physical function; with --tree, all devices are below their ' +
    'bridges, too, and lines begin with two blanks for each level.';
  static override examples = [
    '<%= config.bin %> list --class display',
    '<%= config.bin %> list --driver none --id 10de',
    '<%= config.bin %> list --group 14 --json',
    '<%= config.bin %> list --tree',
  ];
  static override flags = {
    class: string({
      summary: `Only devices of this class: ${Object.keys(classWords).join(', ')}, all, or hexadecimal as in 0300`,
      helpValue: 'WORD',
      multiple: true,
      multipleNonGreedy: true,
    }),
    driver: string({
      summary: 'Only devices on this driver; `none` for those without one',
      helpValue: 'NAME',
      multiple: true,
      multipleNonGreedy: true,
    }),
    group: string({
      summary: 'Only members of this IOMMU group',
      helpValue: 'NUMBER',
      multiple: true,
      multipleNonGreedy: true,
    }),
    id: string({
      summary: 'Only devices of this vendor, or of this vendor and device',
      helpValue: 'VENDOR[:DEVICE]',
      multiple: true,
      multipleNonGreedy: true,
    }),
    tree: boolean({summary: 'Print devices below their bridges and physical functions'}),
  };

  async run(): Promise<ListResult> {
    const {flags} = await this.parse(List);
    const filters = [
      (flags.class ?? []).map(byClass),
      (flags.driver ?? []).map(byDriver),
      (flags.group ?? []).map(byGroup),
      (flags.id ?? []).map(byId),
    ].filter((alternatives) => alternatives.length > 0);
    const host = await this.openHost();
    const list = await readList(
      host,
      this.context.layout,
      filters.length === 0
        ? undefined
        : (device) => filters.every((alternatives) => alternatives.some((matches) => matches(device))),
    );
    const {devices, surroundings, inventory, unreadable} = list;
    if (!this.jsonEnabled()) {
      const arranged =
        flags.tree || this.context.stdout.isTerminal
          ? arrangeDevices(host, devices, flags.tree)
          : devices.map((device) => ({device, depth: 0}));
      await this.#print(arranged, surroundings, inventory);
    }
    for (const problem of surroundings.namesProblems) this.warn(problem);
    for (const file of surroundings.problems) this.warn(ignoredNote(file));
    for (const {path, message} of unreadable)
      this.warn(`the device ${posix.basename(posix.dirname(path))} is not listed: ${message}`);
    for (const device of devices) {
      const quarantine = quarantineOf(device, surroundings);
      if (quarantine !== undefined) this.warn(quarantineNote(quarantine));
    }
    const {missing} = list;
    for (const {slot, id, elsewhere} of missing)
      this.warn(
        `the recorded card ${id} is not in slot ${slot}${elsewhere.length === 0 ? '' : `; one is in ${elsewhere.join(', ')}`}: not touched`,
      );
    const blind = blindSpot(host);
    if (blind !== undefined) this.note(blind);
    return listResult(list);
  }

  async #print(
    devices: readonly ArrangedDevice[],
    surroundings: Surroundings,
    inventory: MdevInventory | undefined,
  ): Promise<void> {
    const {stdout, environment} = this.context;
    if (!stdout.isTerminal) {
      let text = '';
      for (const {device, depth} of devices) {
        text += indent(depth) + line(device, surroundings);
        if (text.length < chunk) continue;
        stdout.write(text);
        text = '';
      }
      stdout.write(text);
      if (inventory !== undefined) {
        const {inventoryLines} = await import('../mdev-inventory.js');
        stdout.write(inventoryLines(inventory));
      }
      return;
    }
    if (devices.length === 0) {
      this.log('No such device.');
      return;
    }
    const {printTable} = await import('../table.js');
    const columns = [
      {head: 'SLOT'},
      {head: 'ID'},
      {head: 'CLASS'},
      {head: 'DRIVER', shrinks: true},
      {head: 'GROUP'},
      {head: 'RECORD', shrinks: true},
      {head: 'HELD BY', shrinks: true},
      {head: 'NAME', shrinks: true},
    ];
    this.logTable(
      await printTable(
        stdout,
        hasColors(stdout, environment),
        columns,
        devices.map(({device, depth}) => {
          const [slot = '', ...cells] = row(reportDevice(device, surroundings));
          return [indent(depth) + slot, ...cells];
        }),
      ),
    );
    if (inventory === undefined) return;
    const {inventoryTables} = await import('../mdev-inventory.js');
    for (const {columns: heads, rows} of inventoryTables(inventory))
      this.logTable(`\n${await printTable(stdout, hasColors(stdout, environment), heads, rows)}`);
  }
}

/** How a device below others is shown. */
function indent(depth: number): string {
  return '  '.repeat(depth);
}

/** The stable line for programs. It has the content of the report without creating one, because there may be thousands. */
function line(device: Device, surroundings: Surroundings): string {
  const {slot, id, classCode, driver, override, group, bootDisplay} = device;
  const names = surroundings.names.get(slot);
  const units = surroundings.units.get(slot)?.map(unitWord);
  const holders = surroundings.holders.get(slot)?.map(holderWord);
  return `${slot}\t${id}\t${printClass(classCode)}\t${driver ?? '-'}\t${override ?? '-'}\t${group ?? '-'}\t${
    bootDisplay ? 'boot-display' : '-'
  }\t${recordWord(reportRecord(device, surroundings))}\t${joined(units)}\t${joined(holders)}\t${
    names?.class ?? '-'
  }\t${printName(id, names)}${vgpuWord(device.vgpuType)}\n`;
}

/** The cells of the table for people. */
function row(report: DeviceReport): string[] {
  const driver = report.driver ?? '-';
  const unit = report.units.find(({enabled}) => enabled);
  const state = unit === undefined || unit.active === 'active' ? '' : ` ${unit.active ?? ''}`;
  return [
    report.slot,
    report.id,
    `${classWordOf(report.class)}${report.bootDisplay ? '*' : ''}`,
    `${report.override === null || report.override === report.driver ? driver : `${driver} (${report.override})`}${
      report.quarantined !== null ? ' (quarantined)' : report.responds === false ? ' (does not respond)' : ''
    }`,
    String(report.group ?? '-'),
    `${recordWord(report.record)}${state}`,
    [...new Set(report.holders.map(holderName))].join(' '),
    nameInReport(report) + vgpuWord(report.vgpu === null ? undefined : (report.vgpu.type ?? 0)),
  ];
}

/** The vGPU type of a virtual function of NVIDIA's driver, after its name. */
function vgpuWord(type: number | undefined): string {
  if (type === undefined) return '';
  return type === 0 ? ' (vGPU, no type set)' : ` (vGPU type ${type})`;
}

/** The word for it that `--class` accepts, or its digits. */
function classWordOf(code: string): string {
  const base = Number.parseInt(code.slice(0, 2), 16);
  return Object.entries(classWords).find(([, number]) => number === base)?.[0] ?? code.slice(0, 4);
}

function recordWord(record: RecordReport | null): string {
  if (record === null) return '-';
  return record.matches ? record.driver : `${record.driver}!`;
}

function enabledWord(enabled: boolean): string {
  return enabled ? 'enabled' : 'disabled';
}

/** A holder as one word: `Xorg[812]`, `/home`, `eth0`. */
function holderName(holder: Holder | HolderReport): string {
  switch (holder.kind) {
    case 'process':
      return `${holder.command.replaceAll(/[\s,]/g, '_')}[${holder.pid}]`;
    case 'mount':
      return holder.target;
    case 'swap':
      return holder.source;
    case 'stack':
      return holder.by?.replace(/^(?:NVMe|SCSI) /, '').split(' ')[0] ?? holder.source;
    case 'virtual-function':
      return holder.virtualFunction;
    case 'dependent':
      return holder.dependent;
    case 'network-namespace':
      return 'netns';
    case 'interface':
    case 'framebuffer':
    case 'console':
      return holder.name;
  }
}

function joined(words: readonly string[] | undefined): string {
  return words === undefined ? '-' : words.join(',');
}

function unitWord({driver, enabled, active}: UnitState): string {
  return `${driver}:${enabledWord(enabled)}:${active ?? '-'}`;
}

function holderWord(holder: Holder): string {
  // A mount point may contain newlines and tabs, which would start new lines and fields.
  return `${holder.kind}:${printableLine(holderName(holder))}`;
}

function byClass(text: string): Filter {
  const word = text.toLowerCase();
  if (word === 'all') return () => true;
  const base = Object.hasOwn(classWords, word) ? classWords[word] : undefined;
  if (base !== undefined) return ({classCode}) => classCode >>> 16 === base;
  const digits = /^(?:0x)?([0-9a-f]{2}(?:[0-9a-f]{2}){0,2})$/.exec(word)?.[1];
  if (digits !== undefined)
    return ({classCode}) => classCode.toString(16).padStart(6, '0').startsWith(digits);
  const words = [...Object.keys(classWords), 'all'];
  const nearest = suggest(word, words);
  throw usageError(
    `'${text}' is not a class`,
    nearest === undefined ? `one of ${words.join(', ')}, or hexadecimal as in 0300` : `--class ${nearest}`,
  );
}

function byDriver(text: string): Filter {
  const name = parseDriver(text);
  return ({driver}) => (driver ?? 'none') === name;
}

function byGroup(text: string): Filter {
  if (!/^\d{1,9}$/.test(text))
    throw usageError(`'${text}' is not an IOMMU group`, 'a group is a number, as in --group 14');
  return ({group}) => group === Number(text);
}

function byId(text: string): Filter {
  const vendor = /^(?:0x)?([0-9a-f]{4}):?$/.exec(text.toLowerCase())?.[1];
  if (vendor !== undefined) return ({id}) => id.startsWith(vendor);
  const wanted = asId(text);
  if (wanted === undefined)
    throw new PearasysError({
      code: 'bad-id',
      exitCode: ExitCode.usage,
      message: `'${text}' is neither a vendor nor an id`,
      hint: 'a vendor is four hexadecimal digits, as in 10de, an id vendor:device, as in 10de:1b80',
    });
  return ({id}) => id === wanted;
}
