/** Shared by the cases about PCI devices. */
import assert from 'node:assert/strict';
import {DEVICES} from '../../vm/devices.js';
import type {ContractMachine} from '../machine.js';

export const drivers = '/sys/bus/pci/drivers';
export const probe = '/sys/bus/pci/drivers_probe';
/** A slot without a device. */
export const nowhere = '0000:77:00.0';
export const nic = DEVICES.spareNetwork.slot;
/** The bridge above {@link nic}. */
export const port = '0000:00:10.0';
/** Twins without a driver. */
export const edu = DEVICES.edu0.slot;
export const twin = DEVICES.edu1.slot;
export const sriov = DEVICES.sriov.slot;
export const virtual = (index: number) => sriov.replace(/0$/, String(index));

export const attribute = (slot: string, name: string) => `/sys/bus/pci/devices/${slot}/${name}`;

/** Writes that succeed. */
export async function write(
  on: ContractMachine,
  ...writes: readonly (readonly [string, string])[]
): Promise<void> {
  for (const [path, text] of writes) assert.equal(await on.write(path, text), 'ok', `${text} > ${path}`);
}

/** Writes that the kernel refuses. */
export async function refused(on: ContractMachine, errno: string, path: string, text: string): Promise<void> {
  assert.equal(await on.write(path, text), errno, `${text} > ${path}`);
}

export const driverOf = (on: ContractMachine, slot: string) => on.link(attribute(slot, 'driver'));
export const overrideOf = (on: ContractMachine, slot: string) => on.read(attribute(slot, 'driver_override'));

/** Runs a program that must succeed. @returns its output. */
export async function succeeds(on: ContractMachine, program: string, ...args: string[]): Promise<string> {
  const {code, stdout, stderr} = await on.run(program, ...args);
  assert.equal(code, 0, `${program} ${args.join(' ')}: ${stderr}`);
  return stdout;
}

/** The safe sequence: override, unbind, probe. */
export async function give(on: ContractMachine, slot: string, driver: string): Promise<void> {
  await succeeds(on, 'modprobe', driver);
  await write(on, [attribute(slot, 'driver_override'), driver]);
  if ((await driverOf(on, slot)) !== undefined) await write(on, [attribute(slot, 'driver/unbind'), slot]);
  await write(on, [probe, slot]);
  assert.equal(await driverOf(on, slot), driver);
}
