import {string} from '@oclif/core/args';
import {boolean} from '@oclif/core/flags';
import {ExitCode, FileError, PearasysError} from '../../../host/errors.js';
import type {Host, HostReader} from '../../../host/host.js';
import {asParentName, inKernelCase} from '../../../devices/mdev/mdev-name.js';
import {readParentNames} from '../../../devices/mdev/parent.js';
import {asUuid} from '../../../devices/mdev/uuid.js';
import {
  devicePath,
  devicesFolder,
  isBridge,
  readDevice,
  readDevices,
  readGroupMembers,
  siblingsOf,
  type Device,
  type OverrideState,
} from '../../../devices/pci/device.js';
import {findDevices} from '../../../devices/pci/find.js';
import {asSlot, cardOf} from '../../../devices/pci/slot.js';
import {moduleOfDriver, modulesFor} from '../../../devices/pci/modules.js';
import {readVgpus} from '../../../devices/pci/vgpu.js';
import {leavesGroupViable} from '../../../plan/switch/switch.js';
import {wayOut} from '../../../state/quarantine.js';
import {desiredNotes} from '../../../state/desired.js';
import {isNamedFor} from '../../../state/records/record.js';
import type {IdentityReport} from '../../../state/records/locate.js';
import {BaseCommand} from '../base-command.js';
import {
  blindSpot,
  nameInReport,
  readSurroundings,
  recordFor,
  reportDevice,
  type DeviceReport,
  type Surroundings,
} from '../device-report.js';
import {accessInWords, reportNodes, type NodeReport} from '../access-report.js';
import type {MdevInventory} from '../mdev-inventory.js';
import type {MdevReport, ParentReport} from '../mdev-report.js';

/** Another device of the same card or group. */
export interface Companion {
  readonly slot: string;
  readonly id: string;
  readonly name: string;
  readonly driver: string | null;
  /** Whether it is a bridge, which is never bound. */
  readonly bridge: boolean;
}

/** All that is known of one device. */
export interface ShownDevice extends DeviceReport {
  /** The name in one line. */
  readonly name: string;
  /** Whether a write to it, or its driver's probe, does not return: then override and driver are not known. */
  readonly locked: boolean;
  /**
   * How reading the override went: `known`; `missing` if the kernel has none (before 3.16) or the tree was captured
   * without it; `unreadable`; `blocked` for a device that is locked.
   */
  readonly overrideState: OverrideState;
  /** Attributes that exist but could not be read. */
  readonly unreadable: readonly string[];
  /** The module of its driver; null without a driver, and for a built-in one. */
  readonly module: string | null;
  /** The modules whose aliases match the device. */
  readonly modules: readonly string[];
  /** The vGPU types that can be set on the device now, see {@link DeviceReport.vgpu}. */
  readonly vgpuTypes: readonly {readonly type: number; readonly name: string}[];
  /** The other functions of the same card. */
  readonly siblings: readonly Companion[];
  /** The other members of its IOMMU group. */
  readonly members: readonly Companion[];
  /** Whether VFIO could use the group in its present state; null without an IOMMU. */
  readonly viable: boolean | null;
  /** Members, including this device, whose drivers make the group not viable. */
  readonly inTheWay: readonly string[];
  /** The nodes through which programs can drive it while it is on a userspace driver. */
  readonly nodes: readonly NodeReport[];
  /** Its reset methods, in the order in which the kernel tries them. */
  readonly resetMethods: readonly string[];
  readonly power: {
    /** `D0`, `D3hot`, `D3cold`, …; null if the kernel does not say. */
    readonly state: string | null;
    /** Whether the kernel may suspend it while it is idle: `auto`, or `on` for never. */
    readonly control: string | null;
    readonly d3coldAllowed: boolean | null;
  };
}

/** What `pearasys show --json` prints. */
export interface ShowResult {
  /** One, unless a disk has several paths, or with `--all`; none for a parent that is not a PCI function. */
  readonly devices: readonly ShownDevice[];
  /** The device, if it is a parent of mediated devices. */
  readonly parents: readonly ParentReport[];
  /** The mediated devices of these parents; or the named one, once for each parent on which it is defined. */
  readonly mdevs: readonly MdevReport[];
}

/** `pearasys show`: one device, its card and its group. */
export default class Show extends BaseCommand {
  static override description =
    'DEVICE is a slot (0000:04:00.0, 04:00.0), a card (04:00.*: all its functions), an id (10de:1b80), the ' +
    'name of what its driver provides (eth0, nvme0n1, card1), a path in /dev or /sys, the UUID of a mediated ' +
    'device, or the name of a parent (mtty).';
  static override examples = ['<%= config.bin %> show 04:00.0', '<%= config.bin %> show eth0 --json'];
  static override args = {
    device: string({description: 'the device', required: true, ignoreStdin: true}),
  };
  static override flags = {
    all: boolean({summary: 'Select all devices with a given id'}),
  };

  async run(): Promise<ShowResult> {
    const {args, flags} = await this.parse(Show);
    const host = await this.openHost();
    const mediated = await this.#showMediated(host, args.device);
    if (mediated !== undefined) return mediated;
    const all = readCard(host, args.device) ?? readDevices(host);
    const chosen = findDevices(host, all, [args.device], {all: flags.all});
    const companions = chosen.flatMap((device) => [
      ...siblingsOf(host, device, all),
      ...readGroupMembers(host, device),
    ]);
    const surroundings = await readSurroundings(host, this.context.layout, chosen, {others: companions});
    const devices = chosen.map((device) => showDevice(host, device, all, surroundings));
    const {parents, mdevs} = await readMdevsOf(
      host,
      chosen.map(({slot}) => slot),
    );
    if (!this.jsonEnabled()) {
      const {printParent} = await import('../mdev-inventory.js');
      this.log(
        [
          ...devices.map((device) => print(host, device)),
          ...parents.map((parent) => printParent(parent, mdevs)),
        ].join('\n\n'),
      );
    }
    for (const problem of surroundings.namesProblems) this.warn(problem);
    const files = [
      ...surroundings.problems.filter(({path}) => chosen.some(({slot}) => isNamedFor(slot, path))),
      ...chosen.flatMap((device) => recordFor(device, surroundings) ?? []),
    ];
    for (const note of desiredNotes(files)) this.warn(note);
    this.#noteBlindSpot(host);
    return {devices, parents, mdevs};
  }

  /** A mediated device by its UUID, or a parent that is not a PCI function; undefined for any other word. */
  async #showMediated(host: Host, word: string): Promise<ShowResult | undefined> {
    const uuid = asUuid(word);
    const name = uuid === undefined && asSlot(word) === undefined ? asParentName(word) : undefined;
    const parent = name === undefined ? undefined : inKernelCase(name);
    if (uuid === undefined && (parent === undefined || !readParentNames(host).includes(parent)))
      return undefined;
    const {printMdev, printParent} = await import('../mdev-inventory.js');
    if (uuid !== undefined) {
      const {readMdevReports} = await import('../mdev-report.js');
      const {readDefinitions} = await import('../../../state/definitions/definition.js');
      const {mdevs} = await readMdevReports(host, {uuid});
      const files = readDefinitions(host, {uuid});
      for (const note of desiredNotes([...files.broken, ...files.definitions])) this.warn(note);
      if (mdevs.length === 0)
        throw new PearasysError({
          code: 'no-device',
          exitCode: ExitCode.noDevice,
          message: `there is no mediated device ${uuid}, and no definition`,
          hint: '`pearasys mdev list` and `pearasys mdev list --defined` list them',
        });
      this.log(mdevs.map(printMdev).join('\n\n'));
      this.#noteBlindSpot(host);
      return {devices: [], parents: [], mdevs};
    }
    const {parents, mdevs} = await readMdevsOf(host, parent === undefined ? [] : [parent]);
    this.log(parents.map((one) => printParent(one, mdevs)).join('\n\n'));
    this.#noteBlindSpot(host);
    return {devices: [], parents, mdevs};
  }

  #noteBlindSpot(host: HostReader): void {
    const blind = blindSpot(host);
    if (blind !== undefined) this.note(blind);
  }
}

/** The parents among these names, with their mediated devices. */
async function readMdevsOf(host: Host, names: readonly string[]): Promise<MdevInventory> {
  const {noMdevs, readInventory} = await import('../mdev-inventory.js');
  return readParentNames(host).some((name) => names.includes(name))
    ? await readInventory(host, (name) => names.includes(name))
    : noMdevs;
}

/** The functions of the card that a slot names, which avoids reading all devices; undefined for any other word. */
function readCard(host: HostReader, word: string): Device[] | undefined {
  const slot = asSlot(word);
  if (slot === undefined) return undefined;
  const functions = host
    .list(devicesFolder)
    .map(asSlot)
    .filter((one) => one !== undefined)
    .filter((one) => cardOf(one) === cardOf(slot))
    .map((one) => readDevice(host, one))
    .filter((one) => one !== undefined);
  return functions.some((one) => one.slot === slot) ? functions : undefined;
}

function showDevice(
  host: HostReader,
  device: Device,
  all: readonly Device[],
  surroundings: Surroundings,
): ShownDevice {
  const report = reportDevice(device, surroundings);
  const companion = (other: Device): Companion => {
    const {slot, id, driver} = reportDevice(other, surroundings);
    return {slot, id, driver, name: nameInReport(reportDevice(other, surroundings)), bridge: isBridge(other)};
  };
  const group = device.group === undefined ? [] : readGroupMembers(host, device);
  const inTheWay = group.filter((member) => !leavesGroupViable(member)).map(({slot}) => slot);
  const unreadable = device.overrideState === 'unreadable' ? ['driver_override'] : [];
  const attribute = (name: string) => {
    try {
      return host.readText(devicePath(device.slot, name)) ?? null;
    } catch (error) {
      if (!(error instanceof FileError)) throw error;
      unreadable.push(name);
      return null;
    }
  };
  const d3cold = attribute('d3cold_allowed');
  return {
    ...report,
    name: nameInReport(report),
    locked: device.locked,
    overrideState: device.overrideState,
    module: (device.driver === undefined ? undefined : moduleOfDriver(host, device.driver)) ?? null,
    modules: modulesFor(host, device),
    vgpuTypes: readVgpus(host, [device]).flatMap(({creatable}) =>
      creatable.map(({id, name}) => ({type: id, name})),
    ),
    siblings: siblingsOf(host, device, all).map(companion),
    members: group.filter(({slot}) => slot !== device.slot).map(companion),
    viable: device.group === undefined ? null : inTheWay.length === 0,
    inTheWay,
    nodes: reportNodes(host, device.slot),
    resetMethods: (attribute('reset_method') ?? '').split(' ').filter((method) => method !== ''),
    power: {
      state: attribute('power_state'),
      control: attribute('power/control'),
      d3coldAllowed: d3cold === null ? null : d3cold === '1',
    },
    unreadable,
  };
}

/** The device for people: one fact per line. */
function print(host: HostReader, device: ShownDevice): string {
  const lines: string[] = [`${device.slot} ${device.name}`];
  const fact = (name: string, ...values: (string | null | undefined)[]) => {
    for (const [index, value] of values.filter((one) => one !== null && one !== undefined).entries())
      lines.push(`  ${(index === 0 ? name : '').padEnd(10)} ${value}`);
  };
  const {record, power} = device;
  fact('id', device.subsystem === '0000:0000' ? device.id : `${device.id}, subsystem ${device.subsystem}`);
  fact('class', `${device.class}${device.className === null ? '' : ` ${device.className}`}`);
  fact('display', device.bootDisplay ? 'the firmware used it at boot' : undefined);
  fact(
    'driver',
    device.locked ? 'unknown: an earlier write to it, or a probe, has not returned' : driverWords(device),
  );
  fact('override', overrideWords(device));
  fact(
    'vGPU',
    device.vgpu === null ? undefined : device.vgpu.type === null ? 'no type set' : `type ${device.vgpu.type}`,
    ...device.vgpuTypes.map(({type, name}) => `can be ${type}: ${name}`),
  );
  fact('modules', device.modules.join(' ') || 'none known');
  fact(
    'state',
    device.responds === false
      ? 'does not respond: its configuration space reads all ones (dead, or without power)'
      : undefined,
    device.quarantined === null ? undefined : `quarantined: ${device.quarantined}`,
    device.quarantined === null ? undefined : wayOut(device.slot),
  );
  fact('unreadable', device.unreadable.join(' ') || undefined);
  fact('record', record === null ? 'none' : recordWords(record, device));
  fact('identity', record === null || record.identity === null ? undefined : identityWords(record.identity));
  const access = record?.access ?? null;
  fact('access', access === null ? undefined : accessInWords(host, access));
  fact('nodes', ...device.nodes.map(({path, user, group, mode}) => `${path} ${user}:${group} ${mode}`));
  fact(
    'units',
    ...device.units.map(
      ({unit, enabled, active}) => `${unit} (${enabled ? 'enabled' : 'disabled'}, ${active ?? 'no systemd'})`,
    ),
  );
  fact('siblings', ...device.siblings.map(companionWords));
  fact('group', groupWords(device));
  fact('members', ...device.members.map(companionWords));
  fact('NUMA node', device.numaNode === null ? undefined : String(device.numaNode));
  fact('reset', device.resetMethods.join(' ') || 'no reset method');
  fact(
    'power',
    [
      power.state,
      power.control === null ? null : `runtime suspend ${power.control}`,
      power.d3coldAllowed === null ? null : `D3cold ${power.d3coldAllowed ? 'allowed' : 'not allowed'}`,
    ]
      .filter((word) => word !== null)
      .join(', ') || undefined,
  );
  fact('held by', ...device.holders.flatMap(({text, advice}) => [text, `  to end it: ${advice}`]));
  return lines.join('\n');
}

/** Undefined without an override, if one could be set. */
function overrideWords({override, overrideState, locked}: ShownDevice): string | undefined {
  if (locked || overrideState === 'known') return override ?? undefined;
  return overrideState === 'missing'
    ? 'there is no driver_override: the kernel is older than 3.16'
    : 'driver_override could not be read';
}

function driverWords({driver, module}: ShownDevice): string {
  if (driver === null) return 'none';
  return module === null || module === driver ? driver : `${driver} (module ${module})`;
}

function recordWords(record: NonNullable<DeviceReport['record']>, {slot}: ShownDevice): string {
  if (!record.matches) return `${record.driver}, for another card (${record.id}): this one is not touched`;
  if (record.slot === 'any') return `${record.driver}, for each card with this id`;
  return record.slot === slot ? record.driver : `${record.driver}, recorded for slot ${record.slot}`;
}

/** `as recorded: id, subsystem, path; other than recorded: slot`. */
function identityWords({holds, differs}: IdentityReport): string {
  const words = (parts: readonly string[]) => parts.join(', ');
  return [
    ...(holds.length === 0 ? [] : [`as recorded: ${words(holds)}`]),
    ...(differs.length === 0 ? [] : [`other than recorded: ${words(differs)}`]),
  ].join('; ');
}

function groupWords({group, viable, inTheWay}: ShownDevice): string {
  if (group === null) return 'none: no IOMMU, or it is off';
  return viable === true
    ? `${group}, viable for VFIO`
    : `${group}, not viable for VFIO: ${inTheWay.join(' ')} on a host driver`;
}

function companionWords({slot, id, name, driver, bridge}: Companion): string {
  return `${slot} ${id} ${name} (${bridge ? 'bridge' : (driver ?? 'no driver')})`;
}
