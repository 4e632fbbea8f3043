import {string as stringArg} from '@oclif/core/args';
import {boolean, string} from '@oclif/core/flags';
import {ExitCode, PearasysError, usageError} from '../../../../host/errors.js';
import type {Host} from '../../../../host/host.js';
import {readDevices} from '../../../../devices/pci/device.js';
import {parseDriver, type Driver} from '../../../../devices/pci/driver.js';
import {findDevices} from '../../../../devices/pci/find.js';
import {parseId} from '../../../../devices/pci/id.js';
import {parseSlot} from '../../../../devices/pci/slot.js';
import {setSriov} from '../../../../operations/sriov-set.js';
import {readDependents} from '../../../../devices/pci/dependents.js';
import type {PhysicalFunction} from '../../../../plan/sriov/sriov-state.js';
import {parseCount, type VirtualFunctions} from '../../../../state/sriov/sriov-record.js';
import {BaseCommand, writeFlags} from '../../base-command.js';
import {accessWords, nodeAccessFlags, readAccessChange} from '../../node-access-flags.js';
import {changeResult, showChange, withChanges, type ChangeResult} from '../../switching.js';

/** `pearasys sriov set`: how many virtual functions a device has, from now on and at each boot. */
export default class SriovSet extends BaseCommand {
  static override description =
    'Records how many virtual functions (VFs) a physical function (PF) has and which drivers get them, and creates ' +
    'them. udev does the same at each boot and whenever the PF gets its driver. If any VF has a driver, the kernel ' +
    'offers the VFs to no other driver, so that a claimed VF never appears as an interface or disk of the host. ' +
    'The number can be changed only by removing all VFs first, which is refused while one is in use. With --user and ' +
    '--user-group, programs without root can open the VFs.';
  static override examples = [
    '<%= config.bin %> sriov set 04:00.0 4 --driver vfio-pci',
    '<%= config.bin %> sriov set eth2 7 --driver iavf --vf 0:driver=vfio-pci',
    '<%= config.bin %> sriov set 04:00.0 4 --autoprobe no',
  ];
  static override args = {
    pf: stringArg({description: 'the device, by its slot or name', required: true, ignoreStdin: true}),
    count: stringArg({description: 'how many virtual functions', required: true, ignoreStdin: true}),
  };
  static override flags = {
    ...writeFlags,
    ...nodeAccessFlags,
    driver: string({summary: 'The driver of all virtual functions', helpValue: 'NAME'}),
    vf: string({
      summary: 'The driver of one virtual function; N counts from 0',
      helpValue: 'N:driver=NAME',
      multiple: true,
      multipleNonGreedy: true,
    }),
    autoprobe: string({
      summary: 'Whether the kernel offers them to drivers; default: no with a driver',
      options: ['yes', 'no'],
    }),
    later: boolean({summary: 'Leave the virtual functions as they are until the next boot'}),
    id: string({char: 'd', summary: 'The id of the device, for an image', helpValue: 'VENDOR:DEVICE'}),
  };

  async run(): Promise<ChangeResult> {
    const {args, flags} = await this.parse(SriovSet);
    const wanted = parseWanted(args.count, flags);
    const host = await this.openHost();
    const device = findPf(host, args.pf, flags.id);
    const notes: string[] = [];
    const access = await readAccessChange(this, host, accessWords(flags), notes);
    const outcome = await withChanges(this, flags, notes, (options) =>
      setSriov(host, this.layout, device, {wanted, access, when: flags.later ? 'later' : 'now'}, options),
    );
    const {virtual} = readDependents(host, device.slot);
    const result = changeResult(host, [outcome], flags, notes, [device, ...virtual]);
    showChange(this, result);
    if (result.devices.length === 0 && !result.dryRun)
      this.log(
        `${device.slot} (${device.id}): ${wanted.count} virtual function${wanted.count === 1 ? ' is' : 's are'} recorded`,
      );
    return result;
  }
}

/** What the arguments ask for. @throws PearasysError `usage` */
function parseWanted(
  countText: string,
  {
    driver,
    vf = [],
    autoprobe,
  }: {
    readonly driver?: string | undefined;
    readonly vf?: readonly string[] | undefined;
    readonly autoprobe?: string | undefined;
  },
): VirtualFunctions {
  const count = parseCount(countText);
  if (count === undefined)
    throw usageError(
      `'${countText}' is not a number of virtual functions: expected 1 to 65535`,
      countText === '0' ? '`pearasys sriov unset` removes all of them' : undefined,
    );
  const drivers = new Map<number, Driver>();
  for (const word of vf) {
    const [, number, name = ''] = /^(\d{1,5}):driver=(.*)$/s.exec(word) ?? [];
    if (number === undefined)
      throw usageError(`--vf ${word} is invalid`, 'expected N:driver=NAME, as in --vf 0:driver=vfio-pci');
    const index = Number(number);
    if (index >= count)
      throw usageError(
        `--vf ${word}: there is no virtual function ${index}`,
        `with ${count}, they are numbered from 0 to ${count - 1}`,
      );
    if (drivers.has(index)) throw usageError(`--vf names virtual function ${index} twice`);
    drivers.set(index, parseDriver(name));
  }
  const claims = driver !== undefined || drivers.size > 0;
  if (claims && autoprobe === 'yes')
    throw usageError(
      '--autoprobe yes conflicts with --driver and --vf: the kernel would offer the functions to other drivers',
      'omit --autoprobe; --driver NAME sets the driver of all functions, --vf N:driver=NAME that of one',
    );
  return {
    count,
    autoprobe: !claims && autoprobe !== 'no',
    ...(driver === undefined ? {} : {driver: parseDriver(driver)}),
    drivers,
  };
}

/** The device that a word names; in an image, the slot with the given id. */
function findPf(host: Host, word: string, id: string | undefined): PhysicalFunction {
  if (!host.exists('/sys/bus/pci/devices')) {
    const slot = parseSlot(word);
    if (id === undefined)
      throw usageError('an image has no devices: the id of the device is needed', `--id VENDOR:DEVICE`);
    return {slot, id: parseId(id)};
  }
  if (id !== undefined) throw usageError('--id is only for an image, which has no devices');
  const [device, ...more] = findDevices(host, readDevices(host), [word]);
  if (device !== undefined && more.length === 0) return device;
  throw new PearasysError({
    code: 'ambiguous-device',
    exitCode: ExitCode.usage,
    message: `'${word}' matches ${more.length + 1} devices, but only one is allowed here`,
    hint: `name one of them: ${[device, ...more].map((one) => one?.slot).join(', ')}`,
  });
}
