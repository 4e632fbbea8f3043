/** VFIO without an IOMMU: the vfio module's enable_unsafe_noiommu_mode, now and at each boot. */
import {posix} from 'node:path';
import {isBridge, readDevices, type Device} from '../../devices/pci/device.js';
import {isVfio} from '../../devices/pci/driver.js';
import {hasModule} from '../../devices/pci/modules.js';
import {
  isBuiltInVfio,
  isWithoutIommu,
  noIommuParameter,
  readConfigured,
  readNoIommuMode,
  type Configured,
  type NoIommuMode,
} from '../../devices/pci/no-iommu.js';
import {ExitCode} from '../../host/errors.js';
import type {HostReader} from '../../host/host.js';
import {
  loadModule,
  plan,
  readFileState,
  refuse,
  removeFile,
  writeAttribute,
  writeFile,
  type FileState,
  type Planned,
  type Step,
} from '../step.js';

/** The file by which `driver no-iommu` turns the mode on at each boot. */
export const noIommuFile = '/etc/modprobe.d/pearasys-no-iommu.conf';

const fileText = [
  '# Written by pearasys: lets VFIO take devices without an IOMMU group (no-IOMMU mode).',
  '# This mode has no DMA isolation: such a device, and every program that drives it, can write to all memory. The kernel',
  '# is tainted when such a device is used.',
  '# To undo: pearasys driver no-iommu off',
  'options vfio enable_unsafe_noiommu_mode=1',
  '',
].join('\n');

/** What is wanted of the mode. */
export interface NoIommuRequest {
  readonly on: boolean;
  /** Whether it is also on at each boot; turning it off always includes that. */
  readonly permanent: boolean;
  /** Whether the devices without an IOMMU group may be affected. */
  readonly accepted: boolean;
}

/** The mode, and what it affects. */
export interface NoIommuState {
  readonly mode: NoIommuMode;
  /** Whether the vfio module is loaded or built in. */
  readonly loaded: boolean;
  readonly hasModule: boolean;
  /** Built-in modules get no options from modprobe.d. */
  readonly builtIn: boolean;
  /** What will set it at the next boot, the last one counts. */
  readonly configured: readonly Configured[];
  /** The devices without an IOMMU group. Bridges are left out. */
  readonly devices: readonly Device[];
  readonly file: FileState | undefined;
  /** Whether the kernel runs for this host; false for an image. */
  readonly running: boolean;
}

/** Reads {@link NoIommuState}. */
export function readNoIommu(host: HostReader): NoIommuState {
  const running = host.root === '/';
  const devices = running ? readDevices(host) : [];
  return {
    mode: readNoIommuMode(host),
    loaded: host.exists('/sys/module/vfio'),
    hasModule: hasModule(host, 'vfio'),
    builtIn: running && isBuiltInVfio(host),
    configured: readConfigured(host),
    devices: devices.filter((device) => !isBridge(device) && isWithoutIommu(host, device)),
    file: readFileState(host, noIommuFile, false),
    running,
  };
}

/** What becomes of the devices, in sentences. */
export function noIommuEffects(on: boolean, {devices}: Pick<NoIommuState, 'devices'>): string[] {
  if (on)
    return devices.map(
      ({slot, id}) =>
        `${slot} (${id}) has no IOMMU group: VFIO can then give it to a program, without DMA isolation`,
    );
  return devices
    .filter(({driver}) => isVfio(driver))
    .map(
      ({slot, id, driver = ''}) =>
        `${slot} (${id}) is on ${driver} in no-IOMMU mode: it stays there until it is unbound, and ${driver} does not take it again`,
    );
}

/** The plan that turns the mode on or off. */
export function planNoIommu({on, permanent, accepted}: NoIommuRequest, state: NoIommuState): Planned {
  const effects = noIommuEffects(on, state);
  if (on && state.running && (state.mode === 'unsupported' || (!state.loaded && !state.hasModule)))
    return refuse({
      code: 'no-iommu',
      exitCode: ExitCode.refused,
      message: state.loaded
        ? 'this kernel has no no-IOMMU mode (CONFIG_VFIO_NOIOMMU is not set)'
        : 'this kernel has no module vfio',
      details: ['nothing was changed'],
      hint: 'use uio_pci_generic, or enable the IOMMU in the firmware',
    });
  const steps = [...(state.running ? planNow(on, state) : []), ...planFile(on, permanent, state)];
  if (steps.length > 0 && !accepted && effects.length > 0)
    return refuse({
      code: 'other-devices',
      exitCode: ExitCode.refused,
      message: `no-IOMMU mode affects ${effects.length === 1 ? 'a device' : `${effects.length} devices`}`,
      details: [...effects, 'nothing was changed'],
      hint: 'if that is intended, continue with --force',
    });
  return plan(steps, {notes: [...(steps.length === 0 ? [] : effects), ...configNotes(on, permanent, state)]});
}

function planNow(on: boolean, {mode, loaded}: NoIommuState): Step[] {
  const write = (value: string, before: string): Step =>
    writeAttribute(noIommuParameter, value, {undo: [writeAttribute(noIommuParameter, before)]});
  if (!loaded) return on ? [loadModule('vfio'), write('Y', 'N')] : [];
  if (on === (mode === 'on') || mode === 'unsupported') return [];
  return on ? [write('Y', 'N')] : [write('N', 'Y')];
}

function planFile(on: boolean, permanent: boolean, {file}: NoIommuState): Step[] {
  if (!on) return file === undefined ? [] : [removeFile(noIommuFile, file, {prune: 0})];
  if (!permanent || file?.content === fileText) return [];
  return [writeFile(noIommuFile, fileText, file, {prune: 0})];
}

/** What will be at the next boot, where it is not what was asked for. */
function configNotes(on: boolean, permanent: boolean, {configured, builtIn}: NoIommuState): string[] {
  const others = configured.filter(({from}) => from !== noIommuFile);
  if (!on) {
    const last = others.at(-1);
    return last?.on === true ? [`${last.from} turns it on again when vfio is loaded the next time`] : [];
  }
  if (!permanent) return [];
  if (builtIn)
    return [
      'vfio is built into this kernel, which then ignores modprobe.d: add vfio.enable_unsafe_noiommu_mode=1 to the kernel command line',
    ];
  // Files are read in the order of their names, then the kernel command line.
  const after = others
    .filter(({from}) => !from.startsWith('/') || posix.basename(from) > posix.basename(noIommuFile))
    .at(-1);
  return after?.on === false
    ? [`${after.from} comes after ${noIommuFile}, and turns it off at each boot`]
    : [];
}
