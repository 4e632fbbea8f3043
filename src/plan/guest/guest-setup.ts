import {ExitCode} from '../../host/errors.js';
import {shellWord} from '../../host/shell.js';
import type {HostReader} from '../../host/host.js';
import type {Layout} from '../../config/layout.js';
import {
  editList,
  editSlots,
  guestPath,
  guestsOfSlot,
  listsFor,
  listPath,
  readGuestFiles,
  type GuestFiles,
  type GuestList,
} from '../../state/guests/guest-files.js';
import {guestUnit, type Guest} from '../../state/guests/guest-name.js';
import {editCards, settingsPath} from '../../state/guests/guest-settings.js';
import {statePath} from '../../state/guests/guest-state.js';
import {dependentsOf, readDependents} from '../../devices/pci/dependents.js';
import {isBridge, readGroupMembers, servesVfio, type Device} from '../../devices/pci/device.js';
import {refuseBridges} from '../switch/refusals.js';
import {
  plan,
  refuse,
  removeFile,
  writeFile,
  readFileState,
  type FileState,
  type Planned,
  type Refusal,
  type Step,
} from '../step.js';
import {leavesGroupViable} from '../switch/switch.js';

/** A guest and all devices that it will take. */
interface GuestRequest {
  readonly guest: Guest;
  readonly devices: readonly Device[];
  /** The members of the devices' groups. */
  readonly members: readonly Device[];
  /** Notes for the user about the guest's domain, in sentences. */
  readonly notes: readonly string[];
}

/** The input of the planners in this file. */
interface GuestFilesState {
  readonly layout: Layout;
  readonly files: GuestFiles;
  /** Each existing file that a plan may change, by path. */
  readonly texts: ReadonlyMap<string, FileState>;
  /** Files at these paths that must not be changed. */
  readonly foreign: readonly string[];
  /** Whether the guest has devices now. */
  readonly running: boolean;
}

/** Reads the input of the planners in this file for this guest. */
export function readGuestFilesState(host: HostReader, layout: Layout, guest: Guest): GuestFilesState {
  const texts = new Map<string, FileState>();
  const foreign: string[] = [];
  for (const path of pathsOf(layout, guest)) {
    if (host.info(path, false) === undefined) continue;
    const state = readFileState(host, path);
    if (state === undefined) foreign.push(path);
    else texts.set(path, state);
  }
  return {
    layout,
    files: readGuestFiles(host, layout),
    texts,
    foreign,
    running: host.exists(statePath(guest)),
  };
}

/** The members of these devices' groups. Without bridges, and without devices that disappear when these are taken. */
export function readMembers(host: HostReader, devices: readonly Device[]): Device[] {
  const found = new Map(
    devices.flatMap((device) => readGroupMembers(host, device)).map((member) => [member.slot, member]),
  );
  const going = new Set(
    devices
      .filter((device) => !isBridge(device) && !servesVfio(device))
      .flatMap(({slot}) => dependentsOf(readDependents(host, slot)))
      .map(({slot}) => slot),
  );
  return [...found.values()].filter((member) => !isBridge(member) && !going.has(member.slot));
}

/**
 * The plan that sets a guest up with these devices, replacing the previous ones: its file, its entries in the two lists,
 * and in its settings the ids of the cards. Nothing else in these files changes.
 */
export function planSetup({guest, devices, members, notes}: GuestRequest, state: GuestFilesState): Planned {
  const {layout, files} = state;
  const refusal = refuseBridges(devices) ?? refuseBroken(guest, state);
  if (refusal !== undefined) return refusal;
  const slots = devices.map(({slot}) => slot);
  const settings = settingsPath(layout, guest);
  const steps = [
    ...put(guestPath(layout, guest), (text) => editSlots(text, slots), state),
    ...put(
      settings,
      (text) => editCards(text, guest, new Map(devices.map(({slot, id}) => [slot, id]))),
      state,
    ),
    ...putLists(guest, listsFor(devices), state),
  ];
  const left = members.filter((member) => !slots.includes(member.slot));
  return plan(steps, {
    notes: [
      ...notes,
      ...left.map(
        (member) =>
          `${member.slot} (${member.id}) is also in group ${member.group ?? '?'}, but is not a device of guest ${guest}` +
          (leavesGroupViable(member)
            ? ''
            : `: the guest cannot start while it is on ${member.driver ?? 'no driver'}`),
      ),
      ...slots.flatMap((slot) =>
        guestsOfSlot(files, slot)
          .filter((other) => other !== guest)
          .map(
            (other) => `${slot} is also a device of guest ${other}: only one of the guests can run at a time`,
          ),
      ),
      ...devices.flatMap(vgpuNotes),
      ...(state.running
        ? [`guest ${guest} has its devices now: the change takes effect at its next start`]
        : []),
    ],
  });
}

/** NVIDIA's vGPUs stay on their driver: the guest uses them there. */
function vgpuNotes({slot, driver = 'nvidia', vgpuType}: Device): string[] {
  if (vgpuType === undefined) return [];
  const stays = `${slot} stays on ${driver}: a guest uses its vGPU there`;
  return [
    vgpuType === 0
      ? `${stays}, and it has no type yet: pearasys vgpu set ${slot} TYPE (\`pearasys vgpu types ${slot}\` lists the types)`
      : `${stays} (type ${vgpuType})`,
  ];
}

/** The plan that removes the set-up of a guest, including its settings. */
export function planRemove(guest: Guest, state: GuestFilesState): Planned {
  const {layout} = state;
  if (state.running)
    return refuse({
      code: 'in-use',
      exitCode: ExitCode.refused,
      message: `guest ${guest} has its devices now`,
      details: ['nothing was changed'],
      hint: `virsh shutdown ${shellWord(guest)}, or, if it is not running: systemctl stop ${shellWord(guestUnit(guest))}`,
    });
  const refusal = refuseForeign(guest, state);
  if (refusal !== undefined) return refusal;
  const steps = [
    ...[guestPath(layout, guest), settingsPath(layout, guest)].flatMap((path): Step[] => {
      const previous = state.texts.get(path);
      return previous === undefined ? [] : [removeFile(path, previous, {prune: 0})];
    }),
    ...putLists(guest, new Set(), state),
  ];
  if (steps.length > 0) return plan(steps);
  const known = state.files.guests.map((file) => file.guest);
  return refuse({
    code: 'no-guest',
    exitCode: ExitCode.noDevice,
    message: `guest ${guest} is not set up`,
    hint: known.length === 0 ? 'no guest is set up' : `these guests are set up: ${known.join(', ')}`,
  });
}

function pathsOf(layout: Layout, guest: Guest): string[] {
  return [
    guestPath(layout, guest),
    settingsPath(layout, guest),
    listPath(layout, 'primary'),
    listPath(layout, 'gpu'),
  ];
}

function putLists(guest: Guest, lists: ReadonlySet<GuestList>, state: GuestFilesState): Step[] {
  return (['primary', 'gpu'] as const).flatMap((each) =>
    put(listPath(state.layout, each), (text) => editList(text, guest, lists.has(each)), state),
  );
}

function put(path: string, edit: (text: string | undefined) => string, {texts}: GuestFilesState): Step[] {
  const previous = texts.get(path);
  const content = edit(previous?.content);
  if (content === (previous?.content ?? '')) return [];
  return [writeFile(path, content, previous, {mode: previous?.mode ?? 0o644, prune: 0})];
}

/** Text in a guest's file that is not a slot may be a mistake, or the file may belong to another program. */
function refuseBroken(guest: Guest, state: GuestFilesState): Refusal | undefined {
  const foreign = refuseForeign(guest, state);
  if (foreign !== undefined) return foreign;
  const file = state.files.guests.find((one) => one.guest === guest);
  const empty = state.texts.get(guestPath(state.layout, guest))?.content.trim() === '';
  if (file?.reason === undefined || empty) return undefined;
  return refuse({
    code: 'bad-guest',
    exitCode: ExitCode.refused,
    message: `refusing to overwrite ${file.path}`,
    details: [file.reason, 'nothing was changed'],
    hint: `correct it, or remove it: pearasys guest remove ${shellWord(guest)}`,
  });
}

function refuseForeign(guest: Guest, {foreign}: GuestFilesState): Refusal | undefined {
  const [path] = foreign;
  if (path === undefined) return undefined;
  return refuse({
    code: 'bad-guest',
    exitCode: ExitCode.refused,
    message: `could not change the setup of guest ${guest}: ${path} is not a file owned by root`,
    details: ['nothing was changed'],
    hint: `ls -l '${path}'`,
  });
}
