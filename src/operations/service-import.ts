import {systemdUnits, type Layout} from '../config/layout.js';
import {findDriver} from '../devices/pci/modules.js';
import {readNames} from '../devices/pci/names.js';
import {carryOut, type CarryOutOptions, type Outcome} from '../engine/carry-out.js';
import type {Host, HostReader} from '../host/host.js';
import {claimsOf, readServices} from '../plan/service/service-state.js';
import {planImport, servicesLock} from '../plan/service/service.js';
import type {Planned} from '../plan/step.js';
import {bringDriver, refuseBridges} from '../plan/switch/refusals.js';
import type {DriverctlRecord} from '../state/records/driverctl.js';
import {reread} from './devices.js';
import {withRebuild} from './initramfs.js';

/**
 * Turns the drivers saved by driverctl into claims, and removes its files, so that only pearasys acts. One plan for all
 * claims, so that systemd reads its files once.
 * @throws PearasysError the refusal, or what failed.
 */
export async function importDriverctl(
  host: Host,
  layout: Layout,
  {saved, rebuild}: {readonly saved: readonly DriverctlRecord[]; readonly rebuild: boolean},
  options: CarryOutOptions,
): Promise<Outcome> {
  const outcome = await carryOut(host, [servicesLock], () => planAll(host, layout, saved), options);
  return await withRebuild(host, layout, outcome, rebuild, options);
}

function planAll(host: HostReader, layout: Layout, saved: readonly DriverctlRecord[]): Planned {
  const devices = reread(host, saved);
  for (const {driver} of saved) {
    const bringing = bringDriver(driver, findDriver(host, driver));
    if ('kind' in bringing) return bringing;
  }
  const names = readNames(host, devices);
  const slots = devices.map(({slot}) => slot);
  const claims = [...new Set(saved.map(({driver}) => driver))].flatMap((driver) =>
    claimsOf(
      host,
      devices.filter(({slot}) => saved.some((one) => one.slot === slot && one.driver === driver)),
      driver,
    ),
  );
  return (
    refuseBridges(devices) ??
    planImport(
      saved,
      {claims, folder: systemdUnits, start: 'later'},
      readServices(host, layout, slots, {names}),
    )
  );
}
