import type {HostReader} from '../../host/host.js';
import type {Layout} from '../../config/layout.js';
import {readSettings} from '../../config/pearasys-conf.js';
import {claimListPath, printClaimList} from '../../state/initramfs/claim-list.js';
import {currentImage, type InitramfsSystem} from '../../state/initramfs/generator.js';
import type {DeviceRecord, RecordContent} from '../../state/records/record.js';
import {enabledLink} from '../../systemd/unit.js';
import {plan, readFileState, writeFile, type FileState, type Plan, type Step} from '../step.js';

/** What decides about the list of claims for the initramfs. */
export interface ClaimListState {
  /** Whether claims take effect in the initramfs: a supported generator builds it, and no setting forbids it. */
  readonly takesPart: boolean;
  /** The list; undefined if there is none. */
  readonly file: FileState | undefined;
}

/** Reads {@link ClaimListState}. */
export function readClaimList(host: HostReader, layout: Layout, system: InitramfsSystem): ClaimListState {
  return {
    takesPart: system.generator !== undefined && readSettings(host, layout).settings.initramfs,
    file: readFileState(host, claimListPath(layout), false),
  };
}

/** The records whose units are enabled. A record by id alone has no unit, and no slot to reserve. */
export function enabledClaims(
  records: readonly DeviceRecord[],
  isEnabled: (link: string) => boolean,
): DeviceRecord[] {
  return records.filter(({slot, driver}) => slot !== 'any' && isEnabled(enabledLink({slot, driver})));
}

/** The text that the list must have; undefined if there is none and nothing to list. */
export function wantedList(
  claims: readonly RecordContent[],
  {takesPart, file}: ClaimListState,
): string | undefined {
  const listed = takesPart ? claims : [];
  // An empty list stays: its age tells whether an image may still have the claims that were removed.
  return listed.length === 0 && file === undefined ? undefined : printClaimList(listed);
}

/** The step that brings the list to these claims; none if it is right. */
export function planClaimList(
  claims: readonly RecordContent[],
  layout: Layout,
  state: ClaimListState,
): Step[] {
  const text = wantedList(claims, state);
  if (text === undefined || text === state.file?.content) return [];
  return [writeFile(claimListPath(layout), text, state.file)];
}

/** What {@link planRebuild} needs to know. */
export interface RebuildState {
  readonly system: InitramfsSystem;
  /** Whether the list changes, or differs from the current image by its age. */
  readonly due: boolean;
  /** Whether this is an image of a system, in which nothing can be run. */
  readonly isImage: boolean;
}

/**
 * Reads {@link RebuildState}.
 * @param changes whether the list changes, or has just changed.
 */
export function readRebuild(
  host: HostReader,
  layout: Layout,
  system: InitramfsSystem,
  {changes, dryRun}: {readonly changes: boolean; readonly dryRun: boolean},
): RebuildState {
  const list = host.info(claimListPath(layout));
  const image = currentImage(host, system.generator?.images ?? []);
  const isImage = host.root !== '/';
  const behind = list !== undefined && image !== undefined && image.modified < list.modified;
  // Another run may have rebuilt the images since the list was written.
  const due = behind || (changes && (dryRun || isImage || image === undefined));
  return {system, due, isImage};
}

/** The plan that rebuilds the images, or says what to do where they cannot be rebuilt. */
export function planRebuild({system, due, isImage}: RebuildState): Plan {
  const {generator, obstacle} = system;
  if (!due || generator === undefined) return plan([]);
  const command = generator.command.join(' ');
  if (isImage)
    return plan([], {
      notes: [`the initramfs of this image of a system is not rebuilt; in it, run: ${command}`],
    });
  const rebuild: Step = {kind: 'rebuild-initramfs', command: generator.command, undo: []};
  if (obstacle === undefined) return plan([rebuild]);
  const first = obstacle.rebuild ? 'after the rebuild' : 'the initramfs is not rebuilt';
  return plan(obstacle.rebuild ? [rebuild] : [], {
    notes: [`${first}: ${obstacle.reason}; run: ${obstacle.advice.join('; ')}`],
  });
}
