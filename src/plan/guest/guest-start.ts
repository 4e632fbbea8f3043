import type {TakenDevice} from '../../state/taken-device.js';
import {ExitCode} from '../../host/errors.js';
import {shellWord} from '../../host/shell.js';
import type {HostReader, ProcessIdentity} from '../../host/host.js';
import type {Layout} from '../../config/layout.js';
import {startOf} from '../../host/process.js';
import {isIgnored} from '../../state/desired.js';
import {isDisplay, readGuestFile} from '../../state/guests/guest-files.js';
import {awakeUnit, guestUnit, type Guest} from '../../state/guests/guest-name.js';
import {
  hasAuto,
  isNeeded,
  namedIn,
  readSettings,
  unknownSettingNotes,
  settingsPath,
  type GuestSettings,
} from '../../state/guests/guest-settings.js';
import {
  printState,
  readKept,
  readStates,
  statePath,
  withUserServices,
  type GuestState,
} from '../../state/guests/guest-state.js';
import {readDevice, servesVfio, type Device} from '../../devices/pci/device.js';
import {driversFolder, isVfio, parseDriver} from '../../devices/pci/driver.js';
import {readHolders} from '../../usage/holders.js';
import type {Holder, ProcessHolder} from '../../usage/holder.js';
import {readModuleUsers} from '../../usage/module-users.js';
import {adviseOnHolder} from '../../usage/words.js';
import {
  belongsToDisplayManager,
  opensForOthers,
  outlives,
  readDisplaySessions,
  type DisplaySessions,
} from '../../usage/sessions.js';
import {displayManagerAlias, ownUnitName} from '../../systemd/unit-files.js';
import {readRescue, switchedOffBy, switchedOffError, type Rescue} from '../../state/rescue.js';
import {keyboardsLostWith} from '../../usage/keyboards.js';
import {hasOtherDisplay} from '../../usage/risks.js';
import {asSlot, type Slot} from '../../devices/pci/slot.js';
import {readConsoleDrivers, releaseConsoles, type ConsoleDriver} from './consoles.js';
import {refuseHeld} from '../switch/refusals.js';
import type {ServiceStates} from '../../systemd/unit.js';
import {
  plan,
  refuse,
  systemctl,
  writeAttribute,
  writeFile,
  type FileState,
  type Planned,
  type Refusal,
  type Step,
} from '../step.js';
import {planSwitch, readSwitch, type SwitchInput} from '../switch/switch.js';

/** The lock for taking and returning devices: two guests may want the same card. */
export const guestsLock = 'guests';

/** Milliseconds to wait for {@link guestsLock}: another guest's start may have to wait for services and sessions. */
export const guestsPatience = 200_000;

/** The driver for a guest's devices. A device that is already on another vfio driver stays there. */
const vfio = parseDriver('vfio-pci');

/** NVIDIA's modules in the order in which they can be unloaded. */
const nvidiaModules = ['nvidia_drm', 'nvidia_modeset', 'nvidia_uvm', 'nvidia'];

/** Seconds for the last processes of a session to end: logind gives users 10 (UserStopDelaySec=, logind.conf(5)). */
const sessionLimit = 20;

/** The input of {@link planGuestStart}. */
interface GuestStart {
  readonly guest: Guest;
  /** The path of the guest's settings, for hints. */
  readonly settingsPath: string;
  readonly settings: GuestSettings;
  /** The slots of the guest's file. */
  readonly slots: readonly Slot[];
  /** The slots of the existing devices. */
  readonly devices: readonly Device[];
  /** For the devices that are not on a vfio driver yet. */
  readonly change: SwitchInput;
  /** The display manager's unit; undefined without one. */
  readonly displayManager: string | undefined;
  /** The services that may have to be stopped, by the names of their units. */
  readonly services: readonly string[];
  /** Those that are stopped only if they use the devices. */
  readonly automatic: readonly string[];
  /** The active ones, and the unit that keeps the host awake if it is active. */
  readonly active: ReadonlySet<string>;
  /** Services that could not be started again after a stop, and why. */
  readonly unstartable: ReadonlyMap<string, string>;
  readonly sessions: DisplaySessions;
  /** When each process that holds a device was started, by PID. */
  readonly started: ReadonlyMap<number, string>;
  /** Whether the host has another working display. */
  readonly otherDisplay: boolean;
  readonly consoles: readonly ConsoleDriver[];
  /** The loaded ones of the modules that may have to be unloaded. */
  readonly modules: ReadonlyMap<string, ModuleDevices>;
  /** The modules to be unloaded that a process keeps loaded through a node shared by all cards, by PID. */
  readonly keeping: ReadonlyMap<number, readonly string[]>;
  /** What this guest and other guests have. */
  readonly states: readonly GuestState[];
  /** Messages about damaged states of other guests. */
  readonly damaged: readonly string[];
  /** The state's present file. */
  readonly stateFile: FileState | undefined;
  /** The state of devices before a guest left them on VFIO. */
  readonly kept: ReadonlyMap<Slot, TakenDevice>;
  /** The machine's keyboards, if all of them disappear with the devices. */
  readonly lostKeyboards: readonly string[];
  /** What the kernel command line switches off for this boot. */
  readonly rescue: Rescue;
}

/** The devices that need a module. */
interface ModuleDevices {
  /** Those of its own drivers. */
  readonly own: readonly Slot[];
  /** Without drivers: those of the modules that it uses, as nvidia_uvm uses nvidia. */
  readonly through: readonly Slot[];
}

/**
 * Reads the input of {@link planGuestStart}.
 * @param active which of {@link servicesToAsk} are active.
 * @param unstartable which of them cannot be started again, and why.
 * @throws PearasysError `bad-settings`; `file-failed` when the guest's own state is damaged.
 */
export function readGuestStart(
  host: HostReader,
  layout: Layout,
  guest: Guest,
  active: ReadonlySet<string>,
  unstartable: ServiceStates['unstartable'] = new Map(),
): GuestStart | Refusal {
  const file = readGuestFile(host, layout, guest);
  if (file === undefined || isIgnored(file)) return refuseFile(guest, file);
  const settings = readSettings(host, layout, guest);
  const {states, damaged} = readStates(host);
  const own = damaged.get(guest);
  if (own !== undefined) throw own;
  const {slots} = file;
  const devices = slots.map((slot) => readDevice(host, slot)).filter((device) => device !== undefined);
  const changing = devices.filter((device) => !servesVfio(device));
  const change = readSwitch(
    host,
    changing,
    {kind: 'claim', driver: vfio},
    {force: false, wholeGroup: true, allStay: true},
  );
  const modules = readModules(host, settings);
  const keepers = readModuleHolders(host, {modules, settings, change});
  const holders = [...change.holders, ...keepers.map(({holder}) => holder)];
  const pids = holders.flatMap((holder) => (holder.kind === 'process' ? [holder.pid] : []));
  const path = statePath(guest);
  const text = host.readText(path);
  return {
    guest,
    settingsPath: settingsPath(layout, guest),
    settings,
    slots,
    devices,
    change: {...change, holders},
    displayManager: displayManagerUnit(host),
    services: resolveServices(host, settings),
    automatic: automaticServices(host, settings),
    active,
    unstartable,
    sessions: readDisplaySessions(host),
    started: new Map(pids.map((pid) => [pid, startOf(host, pid) ?? ''])),
    otherDisplay: hasOtherDisplay(host, slots),
    consoles: readConsoleDrivers(host),
    modules,
    keeping: new Map(keepers.map(({holder, kept}) => [holder.pid, kept])),
    states,
    damaged: [...damaged.values()].map(({message}) => message),
    stateFile: text === undefined ? undefined : {content: `${text}\n`, mode: host.info(path)?.mode ?? 0o644},
    kept: new Map(
      slots
        .map((slot) => readKept(host, slot))
        .flatMap((taken) => (taken === undefined ? [] : [[taken.slot, taken]])),
    ),
    lostKeyboards: keyboardsLostWith(
      host,
      changing.map(({slot}) => slot),
    ),
    rescue: readRescue(host),
  };
}

/**
 * The services that may have to be stopped, by the names of their units, and the unit that keeps the host awake, for a
 * question to systemd. With `Processes=end` this includes those that have one of the devices open, or keep a module loaded that is to be
 * unloaded.
 */
export function servicesToAsk(host: HostReader, layout: Layout, guest: Guest): string[] {
  const settings = readSettings(host, layout, guest);
  const services = [...resolveServices(host, settings), awakeUnit(guest)];
  if (settings.processes !== 'end') return services;
  const devices = (readGuestFile(host, layout, guest)?.slots ?? [])
    .map((slot) => readDevice(host, slot))
    .filter((device) => device !== undefined)
    .filter((device) => !servesVfio(device));
  const change = {devices, holders: readHolders(host, devices)};
  const modules = readModules(host, settings);
  const keepers = readModuleHolders(host, {modules, settings, change});
  const units = [...change.holders, ...keepers.map(({holder}) => holder)].flatMap((holder) =>
    holder.kind === 'process' && holder.unitUser === undefined && holder.unit?.endsWith('.service') === true
      ? [holder.unit]
      : [],
  );
  return [...new Set([...services, ...units])];
}

/** The display manager's unit; undefined without one. */
export function displayManagerUnit(host: HostReader): string | undefined {
  return ownUnitName(host, displayManagerAlias);
}

/**
 * The plan for the start of a guest's unit: first the users that the settings allow to stop are stopped, then all
 * devices go to vfio-pci. The state's file lists what was stopped, released and unloaded; it is written first.
 */
export function planGuestStart(input: GuestStart | Refusal): Planned {
  if ('kind' in input) return input;
  const {guest, devices, change, settings} = input;
  const refusal =
    refuseSwitchedOff(input) ?? refuseShared(input) ?? refuseMissing(input) ?? refuseOtherCards(input);
  if (refusal !== undefined) return refusal;
  const previous = input.states.find((state) => state.guest === guest);
  const makingWay = makeWay(input);
  const left = refuseHeld(change.devices, makingWay.left, false);
  if (left !== undefined)
    return refuse({
      ...left.error,
      details: [
        ...makingWay.reasons,
        ...reasonsOfModules(makingWay.left, input),
        ...(left.error.details ?? []),
      ],
      hint: hintFor(makingWay.left, input),
    });
  const switching = planSwitch({...change, holders: makingWay.harmless});
  if (switching.kind === 'refusal') return switching;
  const {displayManager} = input;
  // A killed start may have stopped it without starting it again.
  const stopsDisplayManager =
    displayManager !== undefined &&
    (makingWay.services.includes(displayManager) ||
      (previous?.services.includes(displayManager) === true && !input.active.has(displayManager)));
  const displayManagerAtOnce =
    stopsDisplayManager &&
    (settings.displayManager === 'at-once' || (settings.displayManager === 'auto' && input.otherDisplay));
  const {before, after, notes} = unloading(input);
  const state: GuestState = {
    guest,
    devices: [
      ...devices.map((device) => previousOf(previous, device) ?? keptOf(input, device) ?? taken(device)),
      // Its set-up had these when it took them: they must be returned nevertheless.
      ...(previous?.devices ?? []).filter(({slot}) => !input.slots.includes(slot)),
    ],
    services: union(
      previous?.services,
      makingWay.services.filter((unit) => !input.unstartable.has(unit)),
    ),
    ...withUserServices(union(previous?.userServices, makingWay.userServices)),
    modules: union(previous?.modules, [...before, ...after]),
    consoles: union(previous?.consoles, makingWay.consoles),
    framebuffers: union(previous?.framebuffers, makingWay.framebuffers),
  };
  const changing = change.devices.map(({slot}) => slot);
  const content = printState(state);
  // Once it has been started, it must not be started when the guest ends.
  const finalState = printState({
    ...state,
    services: state.services.filter((unit) => unit !== displayManager),
  });
  const file: FileState = {...input.stateFile, content, mode: input.stateFile?.mode ?? 0o644};
  const steps: Step[] = [
    ...(content === input.stateFile?.content
      ? []
      : [{...writeFile(statePath(guest), content, input.stateFile), recalls: true}]),
    ...stayAwake(input),
    ...makingWay.services.map((unit) =>
      systemctl(['stop', unit], input.unstartable.has(unit) ? [] : [systemctl(['start', unit])]),
    ),
    ...makingWay.userServices.map(stopUserService),
    ...makingWay.ending,
    ...(makingWay.waits
      ? [
          {
            kind: 'expect-free',
            slots: changing,
            modules: [...before, ...after],
            limit: sessionLimit,
            hint: settings.processes === 'refuse' ? adviceToEnd(input) : undefined,
            undo: [],
          } satisfies Step,
        ]
      : []),
    ...makingWay.consoles.map((name) => releaseConsoles(name, input.consoles)),
    ...makingWay.framebuffers.map(releaseFramebuffer),
    ...before.map(unload),
    ...switching.steps,
    ...after.map(unload),
    ...(displayManagerAtOnce
      ? [systemctl(['start', displayManager]), writeFile(statePath(guest), finalState, file)]
      : []),
  ];
  const words = [
    ...input.damaged,
    ...unknownSettingNotes(input.settings),
    ...notes,
    ...makingWay.services.flatMap((unit) => {
      const reason = input.unstartable.get(unit);
      return reason === undefined ? [] : [`${unit} is stopped and will not be started again: ${reason}`];
    }),
    ...(input.lostKeyboards.length === 0
      ? []
      : [`the host has no keyboard while guest ${guest} runs: ${input.lostKeyboards.join(', ')}`]),
  ];
  return plan(steps, {notes: [...words, ...switching.notes]});
}

/**
 * Applies `Sleep=`. The kernel cannot save what a guest has set up in a device. A host without logind runs the guest
 * anyway: it has no locks that prevent sleep.
 */
function stayAwake({guest, settings, active}: GuestStart): Step[] {
  const unit = awakeUnit(guest);
  const start: Step = {
    ...systemctl(['start', unit], [systemctl(['stop', unit])]),
    otherwise: `the host may sleep while guest ${guest} has its devices, which then lose their state`,
  };
  const blocks = settings.sleep === 'block';
  if (blocks === active.has(unit)) return [];
  return blocks ? [start] : [systemctl(['stop', unit], [start])];
}

/** Names a unit of a user's service manager in the state. */
function userServiceName(user: number, unit: string): string {
  return `${user}:${unit}`;
}

/** The call of systemctl(1) for a unit of a user's service manager, by its name in the state. */
export function userSystemctl(verb: 'start' | 'stop', name: string): string[] {
  const at = name.indexOf(':');
  return ['--user', `--machine=${name.slice(0, at)}@.host`, verb, name.slice(at + 1)];
}

/** If the user's manager cannot be reached, that is not a failure: the processes are ended afterwards. */
function stopUserService(name: string): Step {
  return {
    kind: 'systemctl',
    args: userSystemctl('stop', name),
    accept: [0, 1, 5],
    undo: [{kind: 'systemctl', args: userSystemctl('start', name), accept: [0, 1, 5], undo: []}],
  };
}

/** The users that must release the devices, how, and those that cannot. */
interface MakingWay {
  /** Units to stop. */
  readonly services: readonly string[];
  /** Units of users' service managers to stop, named as in the state. */
  readonly userServices: readonly string[];
  readonly ending: readonly Step[];
  readonly consoles: readonly string[];
  readonly framebuffers: readonly string[];
  /** Whether to wait for the end of processes. */
  readonly waits: boolean;
  /** Holders that must not be ended. */
  readonly left: readonly Holder[];
  /** Why some of them still run after the display manager has stopped, in sentences. */
  readonly reasons: readonly string[];
  /** Holders that need not be ended. */
  readonly harmless: readonly Holder[];
}

function makeWay(input: GuestStart): MakingWay {
  const {settings, displayManager, sessions} = input;
  const holders = input.change.holders.filter(({harm}) => harm !== 'none');
  const processes = holders.filter((holder) => holder.kind === 'process');
  const fromAuto = new Set(input.automatic);
  const services = new Set(
    input.services.filter(
      (unit) => input.active.has(unit) && (!fromAuto.has(unit) || isInTheWay(unit, input)),
    ),
  );
  const mayEnd = settings.processes === 'end';
  if (mayEnd && displayManager !== undefined && processes.some((one) => one.displayManager))
    services.add(displayManager);
  const stops = displayManager !== undefined && services.has(displayManager);
  const left: Holder[] = [];
  const reasons = new Set<string>();
  const userServices = new Set<string>();
  const ending = new Map<number, ProcessIdentity>();
  const end = ({pid}: ProcessHolder) => ending.set(pid, {pid, started: input.started.get(pid) ?? ''});
  for (const holder of processes) {
    const {unit, unitUser} = holder;
    const ofSystem = unitUser === undefined;
    if (isUntouchable(holder)) left.push(holder);
    else if (ofSystem && unit !== undefined && services.has(unit)) continue;
    else if (opensForOthers(holder)) {
      if (!isOpenForOthers(holder, processes) && !stops) left.push(holder);
    } else if (stops && belongsToDisplayManager(holder, sessions)) {
      const reason = outlives(holder, sessions);
      // Not all processes of a session end with the display: those that may be ended are ended.
      if (reason === undefined) {
        if (mayEnd && !holder.displayManager && unit?.endsWith('.scope') === true && ofSystem) end(holder);
      } else if (mayEnd && !isSystems(holder)) endOfUser(holder);
      else {
        left.push(holder);
        reasons.add(
          `${reason}: services of its service manager keep running after ${displayManager} has stopped`,
        );
      }
    } else if (!mayEnd || isSystems(holder)) left.push(holder);
    else if (ofSystem && unit?.endsWith('.service') === true) services.add(unit);
    else endOfUser(holder);
  }
  // Its service manager might restart it.
  function endOfUser(holder: ProcessHolder): void {
    if (holder.unitUser !== undefined && holder.unit?.endsWith('.service') === true)
      userServices.add(userServiceName(holder.unitUser, holder.unit));
    end(holder);
  }
  const consoles: string[] = [];
  const framebuffers: string[] = [];
  for (const holder of holders)
    if (holder.kind === 'process') continue;
    else if (!settings.releaseConsoles) left.push(holder);
    else if (holder.kind === 'console') consoles.push(holder.name);
    else if (holder.kind !== 'framebuffer') left.push(holder);
    else if (isFirmware(holder.description)) framebuffers.push(holder.description);
  return {
    services: [...services],
    userServices: [...userServices],
    ending:
      ending.size === 0
        ? []
        : [
            {
              kind: 'end-processes',
              processes: [...ending.values()],
              limit: settings.processLimit,
              undo: [],
            },
          ],
    consoles: [...new Set(consoles)],
    framebuffers: [...new Set(framebuffers)],
    waits: processes.length > 0 || services.size > 0,
    left,
    reasons: [...reasons],
    harmless: input.change.holders.filter(
      (holder) => holder.harm === 'none' && !(holder.kind === 'process' && input.keeping.has(holder.pid)),
    ),
  };
}

/** Whether a process that opens devices for others has done so for one of these, which is handled separately. */
function isOpenForOthers(holder: ProcessHolder, processes: readonly ProcessHolder[]): boolean {
  return processes.some(
    (other) =>
      other.pid !== holder.pid &&
      !opensForOthers(other) &&
      other.nodes.some((node) => holder.nodes.includes(node)),
  );
}

/**
 * Whether a service uses what is to be taken, so it is stopped without being named in the settings: the display
 * manager if a display is in use or is open in one of its sessions; any other if it has a device open itself.
 */
function isInTheWay(unit: string, {change, displayManager, sessions}: GuestStart): boolean {
  if (unit !== displayManager)
    return change.holders.some(
      (holder) =>
        holder.harm !== 'none' &&
        holder.kind === 'process' &&
        holder.unitUser === undefined &&
        holder.unit === unit,
    );
  const displays = new Set(change.devices.filter(isDisplay).map(({slot}) => slot));
  return change.holders.some(
    (holder) =>
      displays.has(holder.slot) &&
      holder.harm !== 'none' &&
      (holder.kind === 'process'
        ? // logind has a device open for whichever session it is.
          !isSystems(holder) && belongsToDisplayManager(holder, sessions)
        : holder.kind === 'console' || holder.kind === 'framebuffer'),
  );
}

/** Never ended, whatever the settings say: a guest that uses the device would lose data. */
function isUntouchable({pid, command, nodes, unit}: ProcessHolder): boolean {
  return (
    pid === 1 ||
    unit === 'init.scope' ||
    nodes.some((node) => node.startsWith('/dev/vfio/')) ||
    unit?.startsWith('machine-') === true ||
    /^(?:qemu-|kvm$)/.test(command)
  );
}

/** System services: their use ends with the use of another process. */
function isSystems({unit = ''}: ProcessHolder): boolean {
  return /^user@\d+\.service$/.test(unit) || isNeeded(unit);
}

/** The services of `StopServices=auto`, by the names of their units; none without that word. */
function automaticServices(host: HostReader, {stopServices}: GuestSettings): string[] {
  if (!hasAuto(stopServices)) return [];
  const named = ownNames(host, namedIn(stopServices));
  return ownNames(host, [displayManagerAlias, 'nvidia-persistenced.service']).filter(
    (unit) => !named.includes(unit),
  );
}

/** The services to stop if they are active, by the names of their units. */
function resolveServices(host: HostReader, settings: GuestSettings): string[] {
  const named = ownNames(host, namedIn(settings.stopServices));
  return [...new Set([...automaticServices(host, settings), ...named])];
}

function ownNames(host: HostReader, units: readonly string[]): string[] {
  return units.map((unit) => ownUnitName(host, unit) ?? unit);
}

/** The input for the choice of modules to unload. */
interface ModuleUse extends Pick<GuestStart, 'modules' | 'settings'> {
  readonly change: Pick<SwitchInput, 'devices' | 'holders'>;
}

/** Splits the modules to unload: that of a driver can be unloaded only after the devices have left it. */
function unloading(input: ModuleUse): {
  before: string[];
  after: string[];
  notes: string[];
} {
  const {modules, settings, change} = input;
  const changing = new Set(change.devices.map(({slot}) => slot));
  const before: string[] = [];
  const after: string[] = [];
  const notes: string[] = [];
  const keeps = (slots: readonly Slot[]) => slots.filter((slot) => !changing.has(slot));
  if (changing.size === 0) return {before, after, notes};
  const nvidia = modules.get('nvidia')?.own ?? [];
  const keepsNvidia = nvidia.length === 0 || keeps(nvidia).length > 0;
  const named = namedIn(settings.unloadModules).map((module) => module.replaceAll('-', '_'));
  for (const [module, {own, through}] of modules) {
    if (keepsNvidia && !named.includes(module)) continue;
    const others = keeps([...own, ...through]);
    if (others.length > 0)
      notes.push(`module ${module} stays loaded: ${others.join(', ')} stays on the host and needs it`);
    else (own.length > 0 ? after : before).push(module);
  }
  return {before, after, notes};
}

/** A process with a node that all cards of a driver share open, and the modules that it thereby keeps loaded. */
interface Keeper {
  readonly holder: ProcessHolder;
  readonly kept: readonly string[];
}

/**
 * Processes that only block the unloading of a module: nodes of the devices themselves that they may have open need
 * not be closed.
 */
function readModuleHolders(host: HostReader, input: ModuleUse): Keeper[] {
  const {before, after} = unloading(input);
  const {devices, holders} = input.change;
  const known = new Set(
    holders.flatMap((holder) => (holder.kind === 'process' && holder.harm !== 'none' ? [holder.pid] : [])),
  );
  return readModuleUsers(host, [...before, ...after])
    .filter(({pid}) => !known.has(pid))
    .flatMap(({modules: kept, ...user}) => {
      const needing = kept.flatMap((module) => {
        const {own = [], through = []} = input.modules.get(module) ?? {};
        return [...own, ...through];
      });
      const slot = (devices.find((device) => needing.includes(device.slot)) ?? devices[0])?.slot;
      return slot === undefined
        ? []
        : [{holder: {kind: 'process', slot, class: 'yields', harm: 'overridable', ...user}, kept}];
    });
}

/** Why processes without an open node of the devices block the start, in sentences. */
function reasonsOfModules(left: readonly Holder[], {keeping, settingsPath}: GuestStart): string[] {
  return left.flatMap((holder) => {
    const kept = holder.kind === 'process' ? keeping.get(holder.pid) : undefined;
    return holder.kind !== 'process' || kept === undefined
      ? []
      : [
          `process ${holder.pid} keeps ${kept.length === 1 ? 'module' : 'modules'} ${kept.join(', ')} loaded, which UnloadModules= in ${settingsPath} has to unload`,
        ];
  });
}

/** The loaded ones of the modules to be unloaded by the settings, in the order of unloading. */
function readModules(host: HostReader, {unloadModules}: GuestSettings): Map<string, ModuleDevices> {
  const candidates = [...(hasAuto(unloadModules) ? nvidiaModules : []), ...namedIn(unloadModules)];
  return new Map(
    candidates
      .map((module) => module.replaceAll('-', '_'))
      .filter((module) => host.exists(`/sys/module/${module}`))
      .map((module) => {
        const own = slotsOfModule(host, module);
        return [module, {own, through: own.length > 0 ? [] : slotsBelow(host, module)}];
      }),
  );
}

/** The slots of the modules that a module uses, directly or through others: it is among their `holders` in sysfs. */
function slotsBelow(host: HostReader, module: string): Slot[] {
  const loaded = host.list('/sys/module');
  const used = new Set([module]);
  // Modules added meanwhile are visited too: nvidia_drm uses nvidia_modeset, which uses nvidia.
  for (const user of used)
    for (const other of loaded) if (host.exists(`/sys/module/${other}/holders/${user}`)) used.add(other);
  used.delete(module);
  return [...new Set([...used].flatMap((other) => slotsOfModule(host, other)))];
}

function slotsOfModule(host: HostReader, module: string): Slot[] {
  return host
    .list(`/sys/module/${module}/drivers`)
    .map((name) => name.replace(/^pci:/, ''))
    .flatMap((driver) => host.list(`${driversFolder}/${driver}`))
    .map(asSlot)
    .filter((slot) => slot !== undefined);
}

function unload(module: string): Step {
  return {kind: 'unload-module', module, alone: true, undo: [{kind: 'load-module', module, undo: []}]};
}

function releaseFramebuffer(device: string): Step {
  const folder = framebufferDriver(device);
  return writeAttribute(`${folder}/unbind`, device, {
    // vfio-pci on the boot display removes the framebuffer's device for good.
    undo: [writeAttribute(`${folder}/bind`, device, {accept: ['EBUSY', 'ENODEV']})],
  });
}

/** The platform driver of the firmware's framebuffer. */
export function framebufferDriver(device: string): string {
  return `/sys/bus/platform/drivers/${device.replace(/\.\d+$/, '')}`;
}

function isFirmware(description: string): boolean {
  return /^(?:efi|simple|vesa)-framebuffer\.\d+$/.test(description);
}

function taken({slot, id, driver, override}: Device): TakenDevice {
  return {slot, id, driver, override};
}

/** The state of a device before an earlier guest left it on VFIO. */
function keptOf({kept}: GuestStart, device: Device): TakenDevice | undefined {
  const taken = isVfio(device.driver) ? kept.get(device.slot) : undefined;
  return taken?.id === device.id ? taken : undefined;
}

/** What a guest has taken before and not returned. */
function previousOf(state: GuestState | undefined, device: Device): TakenDevice | undefined {
  const before = state?.devices.find(({slot, id}) => slot === device.slot && id === device.id);
  // A killed start, or its undo, may have only set the override, or only unbound the driver.
  const begun =
    before?.driver !== undefined &&
    (device.override === vfio || device.override === before.driver) &&
    (device.driver === undefined || device.driver === before.driver);
  return isVfio(device.driver) || begun ? before : undefined;
}

function union(first: readonly string[] | undefined, second: readonly string[]): string[] {
  return [...new Set([...(first ?? []), ...second])];
}

function refuseFile(guest: Guest, file: ReturnType<typeof readGuestFile>): Refusal {
  return refuse({
    code: file === undefined ? 'no-guest' : 'bad-guest',
    exitCode: file === undefined ? ExitCode.noDevice : ExitCode.refused,
    message:
      file === undefined
        ? `guest ${guest} is not set up`
        : `guest ${guest} is not started: ${file.path} is ignored`,
    details: [...(file?.reason === undefined ? [] : [file.reason]), 'nothing was changed'],
    hint:
      file === undefined
        ? `pearasys guest setup ${shellWord(guest)}`
        : 'correct that file (one slot per line), then try again',
  });
}

/** Otherwise a guest that libvirt starts at boot would take the display from the user who needs to recover the machine. */
function refuseSwitchedOff({guest, slots, rescue}: GuestStart): Refusal | undefined {
  const word = slots.map((slot) => switchedOffBy(rescue, slot)).find((one) => one !== undefined);
  return word === undefined ? undefined : refuse(switchedOffError(`guest ${guest} is not started`, word));
}

function refuseShared({guest, slots, devices, states}: GuestStart): Refusal | undefined {
  for (const state of states) {
    const shared = state.devices.find(({slot}) => slots.includes(slot));
    if (state.guest === guest || shared === undefined) continue;
    const id = devices.find(({slot}) => slot === shared.slot)?.id ?? shared.id;
    return refuse({
      code: 'in-use',
      exitCode: ExitCode.refused,
      message: `${shared.slot} (${id}) is in use by guest ${state.guest}`,
      details: ['nothing was changed'],
      hint: `virsh shutdown ${shellWord(state.guest)}, or, if that guest is not running: systemctl stop ${shellWord(guestUnit(state.guest))}`,
    });
  }
  return undefined;
}

function refuseMissing({guest, slots, devices}: GuestStart): Refusal | undefined {
  const missing = slots.filter((slot) => !devices.some((device) => device.slot === slot));
  if (missing.length === 0) return undefined;
  return refuse({
    code: 'no-device',
    exitCode: ExitCode.noDevice,
    message: `guest ${guest} needs ${missing.join(', ')}, but there is no such device`,
    details: ['nothing was changed'],
    hint: `\`pearasys list\` lists the devices; pearasys guest setup ${shellWord(guest)} sets it up again`,
  });
}

function refuseOtherCards({guest, devices, settings}: GuestStart): Refusal | undefined {
  const other = devices.find(({slot, id}) => (settings.cards.get(slot) ?? id) !== id);
  if (other === undefined) return undefined;
  return refuse({
    code: 'identity-mismatch',
    exitCode: ExitCode.refused,
    message: `${other.slot} is not taken: the card in the slot is ${other.id}, guest ${guest} expects ${settings.cards.get(other.slot) ?? ''}`,
    details: ['nothing was changed'],
    hint: `to use this card: pearasys guest setup ${shellWord(guest)}`,
  });
}

/** What ends the use of the devices, and the setting that would do it. */
function hintFor(left: readonly Holder[], {settings, settingsPath}: GuestStart): string {
  const advice = [...new Set(left.map(adviseOnHolder))];
  const couldEnd =
    settings.processes === 'refuse' &&
    left.every((holder) => holder.kind === 'process' && !isUntouchable(holder) && !isSystems(holder));
  return [...advice, ...(couldEnd ? [adviceToEnd({settingsPath})] : [])].join('; ');
}

function adviceToEnd({settingsPath}: Pick<GuestStart, 'settingsPath'>): string {
  return `or let each start do it: Processes=end in ${settingsPath}`;
}
