import {readBootStatus, type BootStatus, type ImageStatus} from '../../../../operations/initramfs.js';
import type {Overrule} from '../../../../state/initramfs/overrules.js';
import {BaseCommand} from '../../base-command.js';

/** What `--json` prints of an image. */
export interface ImageResult {
  readonly kernel: string;
  readonly path: string;
  /** Whether it is that of the running kernel. */
  readonly running: boolean;
  /** The lines of its list of claims; null if it could not be read. */
  readonly claims: readonly string[] | null;
  /** Whether they are the wanted ones; null if it could not be read. */
  readonly current: boolean | null;
  readonly problem: string | null;
}

/** What `--json` prints. */
export interface BootStatusResult {
  readonly takesPart: boolean;
  readonly setting: boolean;
  /** The file that sets it; null for the default. */
  readonly settingFrom: string | null;
  /** Settings that are ignored, and why. */
  readonly settingProblems: readonly string[];
  readonly generator: string | null;
  readonly claims: readonly string[];
  readonly listCurrent: boolean;
  readonly images: readonly ImageResult[];
  readonly overrules: readonly Overrule[];
  readonly obstacle: string | null;
  readonly advice: readonly string[];
}

/** `pearasys boot status`: which claims the initramfs has. */
export default class BootStatusCommand extends BaseCommand {
  static override description =
    'Compares the claims in each image of the initramfs with the enabled claims, and lists what overrules them: ids ' +
    'of vfio-pci on the kernel command line and in modprobe.d, and driverctl. If the images cannot be rebuilt, ' +
    'prints what to do on this system. Reading an image takes a few seconds, and needs root on most systems.';

  async run(): Promise<BootStatusResult> {
    await this.parse(BootStatusCommand);
    const host = await this.openHost();
    const status = await readBootStatus(host, this.context.layout);
    for (const line of describe(status)) this.log(line);
    for (const problem of status.settingProblems) this.warn(problem);
    return {
      takesPart: status.takesPart,
      setting: status.setting,
      settingFrom: status.settingFrom ?? null,
      settingProblems: status.settingProblems,
      generator: status.generator ?? null,
      claims: status.claims,
      listCurrent: status.isListCurrent,
      images: status.images.map((image) => ({
        kernel: image.kernel,
        path: image.path,
        running: image.running,
        claims: image.claims ?? null,
        current: image.current ?? null,
        problem: image.problem ?? null,
      })),
      overrules: status.overrules,
      obstacle: status.obstacle ?? null,
      advice: status.advice,
    };
  }
}

function describe(status: BootStatus): string[] {
  const {
    takesPart,
    setting,
    settingFrom,
    generator,
    claims,
    isListCurrent,
    images,
    overrules,
    obstacle,
    advice,
  } = status;
  const why = setting
    ? 'this machine has no initramfs-tools, dracut or mkinitcpio'
    : `Initramfs=no in ${settingFrom ?? ''}`;
  const slots = claims.map((line) => line.split(' ', 1).join(''));
  const isBehind = !isListCurrent || images.some(({current}) => current === false);
  return [
    takesPart
      ? `claims take effect in the initramfs (${generator ?? ''}): ${slots.join(', ') || 'no claim is enabled'}`
      : `claims take effect only after the root file system is mounted: ${why}`,
    ...images.map(describeImage),
    ...(isBehind && obstacle === undefined
      ? [`to rebuild: pearasys boot ${setting ? 'enable' : 'disable'}`]
      : []),
    ...(obstacle === undefined ? [] : [`${obstacle}:`, ...advice.map((line) => `  ${line}`)]),
    ...overrules.map(({where, text, effect}) => `overruled by ${where}: ${text}: ${effect}`),
  ];
}

function describeImage({kernel, path, running, claims, current, problem}: ImageStatus): string {
  const name = `${kernel}${running ? ' (running)' : ''}: ${path}`;
  if (claims === undefined) return `${name} could not be read: ${problem ?? ''}`;
  const slots = claims.map((line) => line.split(' ', 1).join('')).join(', ') || 'no claims';
  return `${name} ${current === true ? 'is up to date' : `is outdated: it has ${slots}`}`;
}
