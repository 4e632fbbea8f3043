import {ExitCode, PearasysError, usageError} from '../../host/errors.js';
import type {HostReader} from '../../host/host.js';
import {desiredNotes} from '../../state/desired.js';
import {isSupported, skippedNotes, type Callouts} from '../../state/definitions/callout.js';
import {
  checkAttributeName,
  definitionPath,
  isDefined,
  printCompactConfig,
  printConfig,
  readDefinitions,
  type Attribute,
  type Definition,
  type Definitions,
  type MdevConfig,
  type StartMode,
} from '../../state/definitions/definition.js';
import type {Mdev} from '../../devices/mdev/mdev.js';
import type {ParentName, TypeName} from '../../devices/mdev/mdev-name.js';
import type {Uuid} from '../../devices/mdev/uuid.js';
import {together, withCallouts, type CalloutRules} from './mdev-callouts.js';
import {ambiguous, type MdevRequest} from './mdev-start.js';
import {
  plan,
  refuse,
  removeFile,
  writeFile,
  type CalloutStep,
  readFileState,
  type FileState,
  type Planned,
  type Refusal,
} from '../step.js';

/** What the planners in this file know about the definitions of one UUID. */
export interface DefinitionState extends CalloutRules {
  readonly definitions: Definitions;
  /** Their existing files, by path. */
  readonly files: ReadonlyMap<string, FileState>;
  /** Of the definitions' own types, by the paths of their files; {@link callouts} for those that are not in it. */
  readonly calloutsOf?: ReadonlyMap<string, Callouts>;
  /** As in {@link DefinitionFilter}; then attributes may have any names too, because mdevctl checks them at the start. */
  readonly asTyped?: boolean | undefined;
}

/** Reads the input of the planners in this file. */
export function readDefinitionState(
  host: HostReader,
  uuid: Uuid,
  rules: CalloutRules & Pick<DefinitionState, 'asTyped' | 'calloutsOf'>,
): DefinitionState {
  const definitions = readDefinitions(host, {uuid, asTyped: rules.asTyped});
  const files = new Map<string, FileState>();
  for (const path of definitions.definitions.map(({path}) => path)) {
    // A file that could not be restored is not overwritten.
    const state = readFileState(host, path);
    if (state !== undefined) files.set(path, state);
  }
  return {...rules, definitions, files};
}

/**
 * The plan that defines a device. Neither the device nor its parent need exist.
 * @param isActive whether this device exists: then its script is asked for the attributes.
 */
export function planMdevDefine(request: MdevRequest, state: DefinitionState, isActive = false): Planned {
  const {definitions, broken} = state.definitions;
  const path = definitionPath(request);
  const problem = broken.find((one) => one.uuid === request.uuid && one.parent === request.parent);
  if (problem !== undefined) return refuseBroken(problem.path, problem.reason);
  if (definitions.some((one) => one.uuid === request.uuid && one.parent === request.parent))
    return refuse({
      code: 'already-defined',
      exitCode: ExitCode.refused,
      message: `${request.uuid} is already defined on ${request.parent}`,
      details: ['nothing was changed'],
      hint: `pearasys mdev modify -u ${request.uuid} -p ${request.parent} changes it, undefine removes it`,
    });
  const wrong = state.asTyped === true ? undefined : refuseAttributes(request.attributes);
  if (wrong !== undefined) return wrong;
  const {uuid} = request;
  const {callouts} = state;
  const write = writeFile(path, printConfig(request), undefined);
  const asks = isActive && callouts.scripts.length > 0 && isSupported(callouts, 'get', 'attributes');
  return withCallouts({subject: request, action: 'define', config: request}, state, [
    asks
      ? {kind: 'define-active', uuid, subject: request, path, config: request, callouts, undo: write.undo}
      : {...write, uuid},
  ]);
}

/** The plan that removes definitions: of one parent, or of all. An existing device stays. */
export function planMdevUndefine(
  uuid: Uuid,
  parent: ParentName | undefined,
  state: DefinitionState,
): Planned {
  const {definitions, broken} = matching(uuid, parent, state.definitions);
  const problems = desiredNotes(broken);
  if (definitions.length === 0) {
    const [problem] = broken;
    return problem === undefined
      ? refuse(notDefined(uuid, parent))
      : refuseBroken(problem.path, problem.reason);
  }
  const plans = definitions.map((definition) => {
    const {path} = definition;
    const previous = state.files.get(path);
    if (previous === undefined) return refuseForeign(path);
    const rules = {...state, callouts: state.calloutsOf?.get(path) ?? state.callouts};
    return withCallouts({subject: definition, action: 'undefine', config: definition}, rules, [
      // mdevctl leaves the parent's folder as well.
      {...removeFile(path, previous, {prune: 0}), uuid},
    ]);
  });
  const planned = together(plans);
  return planned.kind === 'refusal' ? planned : {...planned, notes: [...problems, ...planned.notes]};
}

/** The changes of a definition. */
export interface DefinitionChange {
  readonly type?: TypeName | undefined;
  readonly start?: StartMode | undefined;
  /** An attribute that is inserted at this index, or without one at the end. */
  readonly add?: (Attribute & {readonly index?: number | undefined}) | undefined;
  /** The attribute at this index is removed, or without one the last. */
  readonly remove?: {readonly index?: number | undefined} | undefined;
  /** Type, start and attributes from a file, instead of all above. */
  readonly config?: MdevConfig | undefined;
}

/** The plan that changes a definition. An existing device does not change until it is restarted. */
export function planMdevModify(
  uuid: Uuid,
  parent: ParentName | undefined,
  change: DefinitionChange,
  state: DefinitionState,
): Planned {
  const found = findDefinition(uuid, parent, state.definitions);
  const changed = changeDefinition(found, change);
  const wrong =
    state.asTyped === true ? undefined : refuseAttributes(change.config?.attributes ?? [change.add]);
  if (wrong !== undefined) return wrong;
  const {path} = found;
  const previous = state.files.get(path);
  if (previous === undefined) return refuseForeign(path);
  const content = printConfig(changed);
  return withCallouts(
    {subject: changed, action: 'modify', config: changed},
    state,
    content === previous.content ? [] : [{...writeFile(path, content, previous), uuid}],
  );
}

/**
 * The plan that changes an existing device through the script for its type, which is the only way. With `defined` its
 * definition gets the same change.
 */
export function planMdevModifyLive(
  mdev: Mdev | undefined,
  uuid: Uuid,
  config: MdevConfig,
  state: DefinitionState & {readonly defined: boolean; readonly parent?: ParentName | undefined},
): Planned {
  const {callouts, force, parent = mdev?.parent} = state;
  if (mdev?.type === undefined || mdev.parent !== parent)
    return refuse({
      code: 'no-device',
      exitCode: ExitCode.noDevice,
      message: `there is no mediated device ${uuid}${mdev === undefined || mdev.parent === parent ? '' : ` on ${parent ?? ''}`}`,
      details: [
        ...(mdev === undefined || mdev.parent === parent ? [] : [`it is on ${mdev.parent}`]),
        'nothing was changed',
      ],
      hint: 'omit --live to change its definition',
    });
  if (config.type !== mdev.type)
    return refuse({
      code: 'type-mismatch',
      exitCode: ExitCode.refused,
      message: `${uuid} is of type ${mdev.type}, which cannot become ${config.type} while the device exists`,
      details: ['nothing was changed'],
      hint: `pearasys mdev stop -u ${uuid} first`,
    });
  const wrong = refuseAttributes(config.attributes);
  if (wrong !== undefined) return wrong;
  const {supports} = callouts;
  if (supports === undefined || !supports.events.includes('live') || !supports.actions.includes('modify'))
    return refuse({
      code: 'callout-failed',
      exitCode: ExitCode.refused,
      message: `no script can change a device of type ${mdev.type} while the device exists`,
      details: [...skippedNotes(callouts), 'nothing was changed'],
      hint: 'change the definition, and restart the device',
    });
  const subject = {uuid, parent: mdev.parent, type: mdev.type};
  const live: CalloutStep = {
    kind: 'callout',
    uuid,
    call: {subject, event: 'live', action: 'modify', state: 'none', input: printCompactConfig(config)},
    scripts: callouts.scripts,
    claimed: true,
    force: false,
    undo: [],
  };
  const notify: CalloutStep[] =
    callouts.notifiers.length === 0
      ? []
      : [
          {
            ...live,
            call: {...live.call, event: 'notify'},
            scripts: callouts.notifiers,
            claimed: false,
          },
        ];
  const now = plan([{...live, onRefusal: notify}, ...notify], {notes: skippedNotes(callouts)});
  if (!state.defined) return now;
  const definition = findDefinition(uuid, mdev.parent, state.definitions);
  if (definition.type !== mdev.type)
    return refuse({
      code: 'type-mismatch',
      exitCode: ExitCode.refused,
      message: `${uuid} is defined as ${definition.type}, but exists as ${mdev.type}`,
      details: ['nothing was changed'],
      hint: 'omit --defined to change only the device',
    });
  return together([now, planMdevModify(uuid, mdev.parent, {config}, {...state, force})]);
}

/**
 * The plan that records a new device as `manual`, so that it is known after it has stopped. A UUID that is defined on
 * any parent is not recorded, because a second definition would make the first one ambiguous.
 */
export function planMdevRecord(host: HostReader, mdev: Mdev, attributes: readonly Attribute[] = []): Planned {
  const {uuid, parent, type} = mdev;
  if (type === undefined || isDefined(host, uuid)) return plan([]);
  const config: MdevConfig = {type, start: 'manual', attributes};
  return plan([{...writeFile(definitionPath({uuid, parent}), printConfig(config), undefined), uuid}]);
}

/**
 * The one matching definition.
 * @throws PearasysError `not-defined`, `ambiguous-definition` or `bad-definition`.
 */
export function findDefinition(uuid: Uuid, parent: ParentName | undefined, all: Definitions): Definition {
  const {definitions, broken} = matching(uuid, parent, all);
  const [definition, ...others] = definitions;
  const [problem] = broken;
  if (definition === undefined && problem !== undefined)
    throw new PearasysError(refuseBroken(problem.path, problem.reason).error);
  if (definition === undefined) throw new PearasysError(notDefined(uuid, parent));
  if (others.length > 0) throw ambiguous(uuid, definitions);
  return definition;
}

function matching(
  uuid: Uuid,
  parent: ParentName | undefined,
  {definitions, broken}: Definitions,
): Definitions {
  const wanted = (one: {readonly uuid: Uuid | undefined; readonly parent: ParentName}) =>
    one.uuid === uuid && (parent === undefined || one.parent === parent);
  return {definitions: definitions.filter(wanted), broken: broken.filter(wanted)};
}

/** @throws PearasysError `usage`. */
function changeDefinition(definition: Definition, change: DefinitionChange): Definition {
  const {config} = change;
  if (config !== undefined) {
    return {...definition, type: config.type, start: config.start, attributes: config.attributes};
  }
  const attributes = [...definition.attributes];
  const {add, remove} = change;
  if (add !== undefined) {
    checkIndex(add.index, attributes, attributes.length);
    attributes.splice(add.index ?? attributes.length, 0, {name: add.name, value: add.value});
  } else if (remove !== undefined) {
    checkIndex(remove.index, attributes, attributes.length - 1);
    attributes.splice(remove.index ?? -1, 1);
  }
  return {
    ...definition,
    type: change.type ?? definition.type,
    start: change.start ?? definition.start,
    attributes,
  };
}

function checkIndex(index: number | undefined, attributes: readonly Attribute[], most: number): void {
  if (index === undefined || index <= most) return;
  throw usageError(
    `there is no attribute ${index}`,
    attributes.length === 0
      ? 'the definition has no attributes'
      : attributes.map(({name, value}, at) => `${at}: ${name}=${value}`).join(', '),
  );
}

function refuseAttributes(attributes: readonly (Attribute | undefined)[]): Refusal | undefined {
  try {
    for (const one of attributes) if (one !== undefined) checkAttributeName(one.name);
  } catch (error) {
    if (!(error instanceof PearasysError)) throw error;
    const {code, exitCode, message, hint = ''} = error;
    return refuse({code, exitCode, message, details: ['nothing was changed'], hint});
  }
  return undefined;
}

function notDefined(uuid: Uuid, parent: ParentName | undefined) {
  return {
    code: 'not-defined' as const,
    exitCode: ExitCode.noDevice,
    message: `${uuid} is not defined${parent === undefined ? '' : ` on ${parent}`}`,
    details: ['nothing was changed'],
    hint: '`pearasys mdev list --defined` lists the definitions',
  };
}

function refuseBroken(path: string, reason: string): Refusal {
  return refuse({
    code: 'bad-definition',
    exitCode: ExitCode.refused,
    message: `the definition ${path} is broken`,
    details: [reason, 'nothing was changed'],
    hint: 'correct the file, or remove it and define the device again',
  });
}

function refuseForeign(path: string): Refusal {
  return refuse({
    code: 'bad-definition',
    exitCode: ExitCode.refused,
    message: `could not change the definition ${path}: it is owned by another user, or is a link to a file that is not trusted`,
    details: ['nothing was changed'],
    hint: `make it a file owned by root; \`ls -lL ${path}\` shows what it is now`,
  });
}
