import type {Layout} from '../config/layout.js';
import {fileToChange, readSettings, settingKeys, withSetting} from '../config/pearasys-conf.js';
import {carryOut, type CarryOutOptions, type Outcome} from '../engine/carry-out.js';
import {CommandError, ExitCode} from '../host/errors.js';
import type {Host, HostQuery} from '../host/host.js';
import {
  enabledClaims,
  planClaimList,
  planRebuild,
  readClaimList,
  readRebuild,
  wantedList,
} from '../plan/service/claim-list.js';
import {servicesLock} from '../plan/service/service.js';
import {plan, readFileState, refuse, shellLine, writeFile, type Step} from '../plan/step.js';
import {claimLines, claimListPath} from '../state/initramfs/claim-list.js';
import {
  nixosLines,
  readInitramfs,
  runningKernel,
  type GeneratorName,
  type InitramfsImage,
} from '../state/initramfs/generator.js';
import {readOverrules, type Overrule} from '../state/initramfs/overrules.js';
import {readRecords} from '../state/records/record.js';

/** The lock for rebuilding. Not that of the services: a rebuild takes minutes, and claims must not wait for it. */
const initramfsLock = 'initramfs';

/** Milliseconds to wait for the rebuild of another run: then this one has nothing left to do. */
const lockLimit = 30 * 60_000;

/**
 * Rebuilds the images of the initramfs if the list of claims was written by this outcome's plan, or is newer than the
 * image of the running kernel.
 * @param wanted whether the user wants it.
 * @returns the outcome with the rebuild.
 * @throws PearasysError what failed; not for a failed rebuild, which is a note.
 */
export async function withRebuild(
  host: Host,
  layout: Layout,
  outcome: Outcome,
  wanted: boolean,
  options: CarryOutOptions,
): Promise<Outcome> {
  const changes = outcome.plan.steps.some(
    (step) => step.kind === 'write-file' && step.path === claimListPath(layout),
  );
  const read = () => {
    const system = readInitramfs(host);
    return readRebuild(host, layout, system, {changes, dryRun: options.dryRun});
  };
  if (!wanted) {
    for (const step of planRebuild(read()).steps)
      options.onNote?.(
        `the initramfs is not rebuilt: changed claims take effect after the root file system is mounted; to rebuild it: ${shellLine(step)}`,
      );
    return outcome;
  }
  const rebuilt = await carryOut(host, [initramfsLock], () => planRebuild(read()), {...options, lockLimit});
  return {
    plan: {
      ...outcome.plan,
      steps: [...outcome.plan.steps, ...rebuilt.plan.steps],
      notes: [...outcome.plan.notes, ...rebuilt.plan.notes],
    },
    lines: [...outcome.lines, ...rebuilt.lines],
    changed: outcome.changed || rebuilt.changed,
  };
}

/**
 * Sets whether claims take effect in the initramfs, and rebuilds its images if that changes them.
 * @throws PearasysError `no-generator` if no generator is installed that pearasys supports; what failed.
 */
export async function setParticipation(
  host: Host,
  layout: Layout,
  enabled: boolean,
  options: CarryOutOptions,
): Promise<Outcome> {
  const outcome = await carryOut(
    host,
    [servicesLock],
    () => {
      const system = readInitramfs(host);
      if (enabled && system.generator === undefined)
        return refuse({
          code: 'no-generator',
          exitCode: ExitCode.refused,
          message:
            'claims cannot take effect in the initramfs: this machine has no initramfs-tools, dracut or mkinitcpio',
          details: [
            ...(system.obstacle === undefined ? [] : [system.obstacle.reason]),
            'nothing was changed: claims take effect after the root file system is mounted',
          ],
          hint: '`pearasys boot status` prints what to configure instead on systems that pearasys knows',
        });
      const steps: Step[] = [];
      const read = readSettings(host, layout);
      if (read.settings.initramfs !== enabled) {
        const {path, obstacle} = fileToChange(host, layout, read, 'initramfs');
        if (obstacle !== undefined)
          return refuse({
            code: 'bad-settings',
            exitCode: ExitCode.refused,
            message: `${settingKeys.initramfs}= cannot be changed in ${path}: ${obstacle}`,
            details: ['nothing was changed'],
          });
        const previous = readFileState(host, path);
        const text = withSetting(previous?.content ?? '', settingKeys.initramfs, enabled);
        steps.push(writeFile(path, text, previous));
      }
      const state = readClaimList(host, layout, system);
      const takesPart = enabled && system.generator !== undefined;
      const claims = readEnabledClaims(host, layout);
      return plan([...steps, ...planClaimList(claims, layout, {...state, takesPart})]);
    },
    options,
  );
  return await withRebuild(host, layout, outcome, true, options);
}

/** An image, and what is in it. */
export interface ImageStatus extends InitramfsImage {
  /** Whether it is that of the running kernel. */
  readonly running: boolean;
  /** The lines of its list; undefined if it could not be read. */
  readonly claims: readonly string[] | undefined;
  /** Whether its claims are the wanted ones; undefined if it could not be read. */
  readonly current: boolean | undefined;
  /** Why it could not be read. */
  readonly problem: string | undefined;
}

/** The result of {@link readBootStatus}. */
export interface BootStatus {
  /** Whether claims take effect in the initramfs. */
  readonly takesPart: boolean;
  /** The setting `Initramfs=`. */
  readonly setting: boolean;
  /** The file that sets it; undefined for the default. */
  readonly settingFrom: string | undefined;
  /** Settings that are ignored, and why. */
  readonly settingProblems: readonly string[];
  readonly generator: GeneratorName | undefined;
  /** The lines of the list that is wanted. */
  readonly claims: readonly string[];
  /** Whether the list has them: a unit may have been enabled or disabled, or a record changed, since it was written. */
  readonly isListCurrent: boolean;
  readonly images: readonly ImageStatus[];
  readonly overrules: readonly Overrule[];
  /** Why the images cannot be rebuilt here, or why that is not enough; undefined if they can. */
  readonly obstacle: string | undefined;
  /** The commands or configuration lines for this system. */
  readonly advice: readonly string[];
}

/** Compares what is in the images of the initramfs with what is wanted. */
export async function readBootStatus(host: HostQuery, layout: Layout): Promise<BootStatus> {
  const system = readInitramfs(host);
  const state = readClaimList(host, layout, system);
  const {settings, sources, problems} = readSettings(host, layout);
  const enabled = readEnabledClaims(host, layout);
  const wanted = wantedList(enabled, state);
  const claims = claimLines(wanted ?? '');
  const images: ImageStatus[] = [];
  const {generator, obstacle} = system;
  if (generator !== undefined)
    for (const image of generator.images)
      images.push(await readImage(host, layout, generator.name, image, claims));
  return {
    takesPart: state.takesPart,
    setting: settings.initramfs,
    settingFrom: sources.initramfs,
    settingProblems: problems,
    generator: generator?.name,
    claims,
    isListCurrent: wanted === state.file?.content,
    images,
    overrules: readOverrules(host),
    obstacle: obstacle?.reason,
    advice: [...(obstacle?.kind === 'nixos' ? nixosLines(enabled) : []), ...(obstacle?.advice ?? [])],
  };
}

function readEnabledClaims(host: HostQuery, layout: Layout) {
  return enabledClaims(readRecords(host, layout).records, (link) => host.info(link, false) !== undefined);
}

/** Milliseconds that the tools of a generator may take to unpack an image. */
const unpackLimit = 5 * 60_000;

async function readImage(
  host: HostQuery,
  layout: Layout,
  generator: GeneratorName,
  image: InitramfsImage,
  wanted: readonly string[],
): Promise<ImageStatus> {
  const running = image.kernel === runningKernel(host);
  try {
    const {stdout} = await host.ask(`${layout.libexec}/initramfs-claims`, [generator, image.path], {
      limit: unpackLimit,
    });
    const claims = claimLines(stdout);
    const current = claims.join('\n') === wanted.join('\n');
    return {...image, running, claims, current, problem: undefined};
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    const problem = [error.message, ...error.details.slice(-1)].join(': ');
    return {...image, running, claims: undefined, current: undefined, problem};
  }
}
