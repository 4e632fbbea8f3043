import {ExitCode} from '../../host/errors.js';
import {devicePath, isBridge, type Device} from '../../devices/pci/device.js';
import type {Driver} from '../../devices/pci/driver.js';
import {nearest} from '../../devices/pci/find.js';
import {isSystemDisk, type Holder} from '../../usage/holder.js';
import type {Slot} from '../../devices/pci/slot.js';
import {wayOut, type Quarantine} from '../../state/quarantine.js';
import {isRisk} from '../../usage/risks.js';
import {adviseOnHolder, describeHolder} from '../../usage/words.js';
import type {DriverSource} from '../../devices/pci/modules.js';
import {loadModule, refuse, type Refusal, type Step} from '../step.js';

/** Refuses bridges, because everything behind one would lose its bus. */
export function refuseBridges(devices: readonly Device[]): Refusal | undefined {
  const bridge = devices.find(isBridge);
  if (bridge === undefined) return undefined;
  return refuse({
    code: 'not-switchable',
    exitCode: ExitCode.refused,
    message: `${bridge.slot} (${bridge.id}) is a bridge: all devices behind it would lose their bus`,
    details: ['nothing was changed'],
    hint: 'name the devices behind it; a bridge need not be bound for its group to be viable',
  });
}

/** Refuses devices that the kernel keeps locked, because a write to them would block as well. */
export function refuseLocked(devices: readonly Device[]): Refusal | undefined {
  const locked = devices.find((device) => device.locked);
  if (locked === undefined) return undefined;
  return refuse({
    code: 'write-stuck',
    exitCode: ExitCode.stuck,
    message: `${locked.slot} (${locked.id}) is locked by the kernel: an earlier write to it, or its driver's probe, has not returned`,
    details: ['nothing was changed'],
    hint: 'end the processes using the device (`ps -eo pid,wchan:32,args` shows which process waits where in the kernel), then try again',
  });
}

/** Refuses to take NVIDIA's vGPUs from their driver, which ends them: a guest uses them as they are. */
export function refuseVgpus(devices: readonly Device[], force: boolean): Refusal | undefined {
  const vgpu = force ? undefined : devices.find(({vgpuType}) => vgpuType !== undefined);
  if (vgpu === undefined) return undefined;
  const {slot, id, driver = 'nvidia', vgpuType = 0} = vgpu;
  const set = `set a type: pearasys vgpu set ${slot} TYPE (\`pearasys vgpu types ${slot}\` lists the types); `;
  return refuse({
    code: 'not-switchable',
    exitCode: ExitCode.refused,
    message: `${slot} (${id}) is a virtual function for NVIDIA vGPUs, which a guest uses while it stays on ${driver}`,
    details: [
      vgpuType === 0 ? 'it has no vGPU type yet' : `its vGPU type is ${vgpuType}`,
      'nothing was changed',
    ],
    hint: `${vgpuType === 0 ? set : ''}assign it to the guest as a hostdev with managed='no'; or unbind it from its driver with --force`,
  });
}

/**
 * Refuses to claim devices that cannot be reserved for one driver: without `driver_override`, the kernel offers only
 * new_id, which matches every device with the same id. Refuses any change if the present override cannot be read.
 */
export function refuseOverride(devices: readonly Device[], claims: boolean): Refusal | undefined {
  const unreadable = devices.find((device) => device.overrideState === 'unreadable');
  if (unreadable !== undefined)
    return refuse({
      code: 'no-override',
      exitCode: ExitCode.refused,
      message: `the driver_override of ${unreadable.slot} (${unreadable.id}) could not be read: its state is unknown`,
      details: ['nothing was changed'],
      hint: `check it: cat ${devicePath(unreadable.slot, 'driver_override')}`,
    });
  const missing = claims ? devices.find((device) => device.overrideState === 'missing') : undefined;
  if (missing === undefined) return undefined;
  const {slot, id} = missing;
  return refuse({
    code: 'no-override',
    exitCode: ExitCode.refused,
    message: `${slot} (${id}) has no driver_override: kernels before 3.16 cannot reserve a device for a driver`,
    details: ['nothing was changed'],
    hint: `on such a kernel, use: pearasys -s ${slot} pci device unbind driver DRIVER new-id (DRIVER then takes every unbound device with id ${id})`,
  });
}

/** Refuses quarantined devices, unless forced. */
export function refuseQuarantined(quarantined: readonly Quarantine[], force: boolean): Refusal | undefined {
  const [one] = force ? [] : quarantined;
  if (one === undefined) return undefined;
  return refuse({
    code: 'quarantined',
    exitCode: ExitCode.refused,
    message: `${one.slot} (${one.id}) is quarantined: ${one.reason}`,
    details: ['nothing was changed'],
    hint: wayOut(one.slot),
  });
}

/** Refuses devices that do not respond, unless forced: a driver's probe would fail, or never return. */
export function refuseSilent(
  devices: readonly Device[],
  silent: ReadonlySet<Slot>,
  force: boolean,
): Refusal | undefined {
  const dead = force ? undefined : devices.find(({slot}) => silent.has(slot));
  if (dead === undefined) return undefined;
  return refuse({
    code: 'no-answer',
    exitCode: ExitCode.refused,
    message: `${dead.slot} (${dead.id}) does not respond: its configuration space reads all ones, like that of a device that is dead or has no power`,
    details: ['nothing was changed'],
    hint: `remove it and rescan: pearasys -s ${dead.slot} pci device remove rescan; or power-cycle the machine; or override with --force`,
  });
}

/**
 * Refuses devices in use and names each holder; with `force` only if harm is certain. Harmless holders are only
 * reported: {@link harmlessNotes}.
 * @param accepted whether the user has agreed to the {@link isRisk | risks}.
 */
export function refuseHeld(
  devices: readonly Device[],
  holders: readonly Holder[],
  force: boolean,
  accepted = false,
): Refusal | undefined {
  const stopping = holders.filter(
    (holder) =>
      holder.harm === 'certain' || (holder.harm === 'overridable' && !force && !(accepted && isRisk(holder))),
  );
  if (stopping.length === 0) return undefined;
  const slots = [...new Set(stopping.map((holder) => holder.slot))];
  const named = slots.map((slot) => `${slot} (${devices.find((device) => device.slot === slot)?.id ?? '?'})`);
  const overridable = stopping.every((holder) => holder.harm === 'overridable');
  // If the machine itself would be lost, nothing can be done first.
  const vital = stopping.filter(isVital);
  const advice = [...new Set((vital.length > 0 ? vital : stopping).map(adviseOnHolder))];
  return refuse({
    code: 'in-use',
    exitCode: ExitCode.refused,
    message: `${named.join(', ')} ${slots.length === 1 ? 'is' : 'are'} in use`,
    details: [
      ...stopping.map((holder) => `${holder.slot}: ${describeHolder(holder)}`),
      'nothing was changed',
    ],
    hint: `${advice.join('; ')}${overridable ? '; or override with --force' : ''}`,
  });
}

/**
 * Refuses to take what the user needs to use or reach the machine.
 * @param way what brings it back when the machine cannot be used any more.
 */
export function refuseRisks(risks: readonly string[], way: string): Refusal | undefined {
  if (risks.length === 0) return undefined;
  return refuse({
    code: 'in-use',
    exitCode: ExitCode.refused,
    message: 'this would take what is needed to use or reach this machine',
    details: [...risks, 'nothing was changed'],
    hint: `if it is not needed, continue with --force; ${way}`,
  });
}

/** A refusal because of holders, with what else would be lost and the way back, for those who then use --force. */
export function addRisks(refusal: Refusal, risks: readonly string[], way: string): Refusal {
  const {error} = refusal;
  if (risks.length === 0 || error.code !== 'in-use') return refusal;
  const {details = [], hint = ''} = error;
  const lost = risks.filter((text) => !details.includes(text));
  return refuse({...error, details: [...lost, ...details], hint: `${hint}; ${way}`});
}

/** The notes about holders that need not be ended before the devices are taken. */
export function harmlessNotes(holders: readonly Holder[]): string[] {
  return holders
    .filter(({harm}) => harm === 'none')
    .map(
      (holder) => `${holder.slot}: ${describeHolder(holder)}; it closes the device when the device goes away`,
    );
}

/** Whether the machine runs from the device, or is reachable only through it. */
function isVital(holder: Holder): boolean {
  return isSystemDisk(holder) || (holder.kind === 'interface' && holder.last);
}

/** The steps that load a driver: none if it is registered; a refusal if nothing has that name. */
export function bringDriver(driver: Driver, source: DriverSource): Step[] | Refusal {
  switch (source.kind) {
    case 'present':
      return [];
    case 'module':
      return [
        // A module that was loaded before is not unloaded.
        {...loadModule(source.module), ...(source.loaded === true ? {undo: []} : {})},
        {kind: 'expect-registered', driver, module: source.module, undo: []},
      ];
    case 'unknown':
      if (source.isModule)
        return refuse({
          code: 'no-driver',
          exitCode: ExitCode.usage,
          message: `${driver} is a module, not a driver`,
          details: ['nothing was changed'],
          hint: `its PCI driver is called ${source.known.join(' or ')}`,
        });
      return refuse({
        code: 'no-driver',
        exitCode: ExitCode.usage,
        message: `no PCI driver ${driver}, and no module of the running kernel provides one`,
        details: ['nothing was changed'],
        hint: `\`pearasys show DEVICE\` lists the modules that support a device${nearestDriver(driver, source)}`,
      });
  }
}

/** The nearest driver; if the nearest is a module, the text says so, because its driver may have another name. */
function nearestDriver(
  driver: Driver,
  {known, modules}: Extract<DriverSource, {readonly kind: 'unknown'}>,
): string {
  const near = nearest(driver, [...known, ...modules]);
  const isModule = !known.some((name) => near === nearest(driver, [name]));
  return isModule ? near.replace('the nearest is', 'the nearest is the module') : near;
}
