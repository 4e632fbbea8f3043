import type {Device} from '../../src/devices/pci/device.js';
import {parseDriver, type Driver} from '../../src/devices/pci/driver.js';
import {parseId} from '../../src/devices/pci/id.js';
import {parseSlot} from '../../src/devices/pci/slot.js';
import type {AccessState} from '../../src/plan/service/access.js';
import {shellLine, type Planned, type Step} from '../../src/plan/step.js';
import type {SwitchInput} from '../../src/plan/switch/switch.js';

/** A device with what a test says of it, and nothing special otherwise. */
export function aDevice(
  slot: string,
  rest: Partial<Omit<Device, 'slot' | 'id'>> & {id?: string} = {},
): Device {
  const {id = '10de:1b80', ...said} = rest;
  return {
    slot: parseSlot(slot),
    id: parseId(id),
    subsystem: '1043:8591',
    classCode: 0x030000,
    driver: undefined,
    override: undefined,
    group: 1,
    bootDisplay: false,
    overrideState: 'known',
    locked: false,
    ...said,
  };
}

/** A driver's name. */
export function aDriver(name: string): Driver {
  return parseDriver(name);
}

/** A switch of these devices to a driver that is loaded, which nothing stops, with what a test says of it. */
export function aSwitch(
  driver: Driver,
  devices: readonly Device[],
  rest: Partial<SwitchInput> = {},
): SwitchInput {
  return {
    devices,
    target: {kind: 'claim', driver},
    rules: {force: false, wholeGroup: false},
    holders: [],
    members: devices,
    source: {kind: 'present'},
    defaults: new Map(),
    dependents: new Map(),
    carriers: new Map(),
    ...rest,
  };
}

/** The plan as shell lines; a refusal as `refused: CODE`. */
export function linesOf(planned: Planned): string[] {
  return planned.kind === 'refusal' ? [`refused: ${planned.error.code}`] : planned.steps.map(shellLine);
}

/** What undoes these steps, in the order in which apply would do it. */
export function undoLines(steps: readonly Step[]): string[] {
  return [...steps]
    .reverse()
    .flatMap((step) => step.undo)
    .map(shellLine);
}

/** No rules that give nodes to users, and no nodes. */
export const noAccess: AccessState = {
  source: 'records',
  file: undefined,
  devices: new Map(),
  nodes: new Map(),
  users: new Map(),
  groups: new Map(),
  running: true,
};
