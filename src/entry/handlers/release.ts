import type {Host} from '../../host/host.js';
import {readDevice, readInitialized} from '../../devices/pci/device.js';
import {parseDriver} from '../../devices/pci/driver.js';
import {parseSlot} from '../../devices/pci/slot.js';
import {carryOut} from '../../engine/carry-out.js';
import {planRelease, planRestart} from '../../plan/switch/claim.js';
import {plan} from '../../plan/step.js';
import {readRecordOf} from '../../state/records/record.js';
import {isEnabled, unitName, type UnitIdentity} from '../../systemd/unit.js';
import {
  handlerOptions,
  logOutcome,
  takeArguments,
  unitPatience,
  type Handler,
  type HandlerContext,
} from './handler.js';
import {jobName, parseJobName, takeTurns} from './turn.js';

/**
 * The stop of `pearasys-<slot>@<driver>.service`, and of all such units that wait: the device is released, for binding
 * by hand.
 */
export const release: Handler = async (context, args) => {
  const [slotText, driverText] = takeArguments(args, ['SLOT', 'DRIVER']);
  const starts = new Map<string, number>();
  await takeTurns(context, {
    what: 'release',
    own: jobName({slot: parseSlot(slotText), driver: parseDriver(driverText)}),
    together: (name) => [name],
    work: async (told, name, {waiting}) => {
      if (!starts.has(name)) await readStarts(told.host, waiting, starts);
      await releaseOne(told, parseJobName(name), starts.get(name) ?? 0);
    },
  });
};

async function releaseOne(context: HandlerContext, unit: UnitIdentity, started: number): Promise<void> {
  const {host, layout} = context;
  const freed: string[] = [];
  const outcome = await carryOut(
    host,
    [unit.slot],
    () => {
      const device = readDevice(host, unit.slot);
      if (device === undefined) return plan([]);
      // Another card by now: it was never claimed by this unit.
      if (readRecordOf(host, layout, device) === undefined)
        return plan([], {notes: [`${unit.slot} (${device.id}) is left alone: it is not the recorded card`]});
      // The device went, which is why this unit stops, and is back already: it is not what this unit had claimed.
      const initialized = readInitialized(host, unit.slot);
      if (initialized === undefined || initialized > started) return planRestart(unit, isEnabled(host, unit));
      freed.push(unit.slot);
      return planRelease(host, device, unit.driver);
    },
    {...handlerOptions(context), lockLimit: unitPatience},
  );
  if (freed.length > 0)
    logOutcome(
      context,
      outcome,
      `${unit.slot} is released from ${unit.driver}`,
      `${unit.slot} had nothing to be released from`,
    );
}

/** When each unit was started, in microseconds since the boot. One question for all of them. */
async function readStarts(host: Host, names: readonly string[], starts: Map<string, number>): Promise<void> {
  const property = 'InactiveExitTimestampMonotonic';
  const units = names.map((name) => unitName(parseJobName(name)));
  const {stdout} = await host.run('systemctl', ['show', '--value', `--property=${property}`, ...units]);
  const values = stdout.split('\n').filter((line) => line !== '');
  for (const [index, name] of names.entries()) starts.set(name, Number(values[index]));
}
