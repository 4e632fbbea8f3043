import {string} from '@oclif/core/args';
import {boolean} from '@oclif/core/flags';
import type {NoIommuMode} from '../../../../devices/pci/no-iommu.js';
import {usageError} from '../../../../host/errors.js';
import {setNoIommu} from '../../../../operations/no-iommu.js';
import {
  noIommuEffects,
  noIommuFile,
  readNoIommu,
  type NoIommuState,
} from '../../../../plan/switch/no-iommu.js';
import {BaseCommand, forceFlags} from '../../base-command.js';
import {changeResult, withChanges, type ChangeResult} from '../../switching.js';

/** What `--json` prints. */
export interface NoIommuResult extends ChangeResult {
  /** The mode now. */
  readonly mode: NoIommuMode;
  /** What turns it on or off when vfio is loaded, in order: the last one counts. */
  readonly configured: readonly {readonly from: string; readonly on: boolean}[];
  /** The devices without an IOMMU group. */
  readonly withoutGroup: readonly {
    readonly slot: string;
    readonly id: string;
    readonly driver: string | null;
  }[];
}

const modeWords = {
  on: 'no-IOMMU mode is on',
  off: 'no-IOMMU mode is off',
  'not-loaded': 'no-IOMMU mode is off, and vfio is not loaded',
  unsupported: 'this kernel has no no-IOMMU mode',
} as const satisfies Readonly<Record<NoIommuMode, string>>;

/** `pearasys driver no-iommu`: VFIO for devices without an IOMMU group. */
export default class DriverNoIommu extends BaseCommand {
  static override description =
    'With `on`, VFIO also takes devices without an IOMMU group. This mode has no DMA isolation: such a device, and ' +
    'every program that drives it, can write to all memory. The kernel is tainted when such a device is used, and a ' +
    'program needs CAP_SYS_RAWIO to open it. Lists the affected devices first, and asks on a terminal; otherwise it ' +
    `needs --force. The mode is on until the next boot, or at each boot with --permanent (${noIommuFile}). \`off\` ` +
    'undoes both. Without an argument, shows the mode.';
  static override examples = [
    '<%= config.bin %> driver no-iommu',
    '<%= config.bin %> driver no-iommu on --dry-run',
    '<%= config.bin %> driver no-iommu on --permanent',
  ];
  static override args = {
    state: string({description: '`on` or `off`', options: ['on', 'off'], ignoreStdin: true}),
  };
  static override flags = {
    ...forceFlags,
    permanent: boolean({summary: 'Also at each boot'}),
  };

  async run(): Promise<NoIommuResult> {
    const {args, flags} = await this.parse(DriverNoIommu);
    const host = await this.openHost();
    const notes: string[] = [];
    if (args.state === undefined) {
      if (flags.permanent) throw usageError('--permanent needs `on`', 'driver no-iommu on --permanent');
      const state = readNoIommu(host);
      this.#print(state);
      return {...changeResult(host, [], flags, notes, []), ...report(state)};
    }
    const on = args.state === 'on';
    if (!on && flags.permanent)
      throw usageError('--permanent cannot be used with `off`', '`off` always includes the next boots');
    if (on && !flags.permanent && host.root !== '/')
      throw usageError(
        'an image has no running kernel',
        'add --permanent: it is then on when the image is booted',
      );
    const effects = noIommuEffects(on, readNoIommu(host));
    const free = flags.force || flags['dry-run'];
    const accepted = free || (effects.length > 0 && (await this.accepts(effects)));
    const outcome = await withChanges(this, flags, notes, (options) =>
      setNoIommu(host, {on, permanent: flags.permanent, accepted}, options),
    );
    const state = readNoIommu(host);
    const result = {...changeResult(host, [outcome], flags, notes, []), ...report(state)};
    if (!result.dryRun) this.#print(state);
    else for (const line of result.steps) this.log(line);
    if (result.dryRun && result.steps.length === 0) this.note('nothing to do');
    return result;
  }

  #print({mode, configured, devices, running}: NoIommuState): void {
    if (running) this.log(modeWords[mode]);
    const last = configured.at(-1);
    this.log(
      last === undefined
        ? 'nothing turns it on at boot'
        : `${last.from} turns it ${last.on ? 'on' : 'off'} at each boot`,
    );
    if (running)
      this.log(
        devices.length === 0
          ? 'all devices have an IOMMU group: the mode affects none'
          : `without an IOMMU group: ${devices.map(({slot}) => slot).join(' ')}`,
      );
  }
}

function report({
  mode,
  configured,
  devices,
}: NoIommuState): Pick<NoIommuResult, 'mode' | 'configured' | 'withoutGroup'> {
  return {
    mode,
    configured,
    withoutGroup: devices.map(({slot, id, driver = null}) => ({slot, id, driver})),
  };
}
