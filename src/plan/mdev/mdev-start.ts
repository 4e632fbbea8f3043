import {ExitCode, PearasysError, usageError} from '../../host/errors.js';
import type {HostReader} from '../../host/host.js';
import {
  checkAttributeName,
  readDefinitions,
  type Definition,
  type DefinitionFilter,
  type Definitions,
  type MdevConfig,
} from '../../state/definitions/definition.js';
import {mdevPath, readMdev, type Mdev} from '../../devices/mdev/mdev.js';
import type {ParentName, TypeName} from '../../devices/mdev/mdev-name.js';
import {readParent, readParentNames, typePath, type Parent} from '../../devices/mdev/parent.js';
import type {Uuid} from '../../devices/mdev/uuid.js';
import {nearest} from '../../devices/pci/find.js';
import {isScripted, withCallouts, type CalloutRules} from './mdev-callouts.js';
import {plan, refuse, writeAttribute, type Planned, type Refusal, type Step} from '../step.js';
import {readUnfinished} from '../unfinished.js';

/** A mediated device to create. */
export interface MdevRequest extends MdevConfig {
  readonly uuid: Uuid;
  readonly parent: ParentName;
}

/** How a user or a unit names the device to start. */
export interface MdevWords {
  readonly uuid: Uuid;
  readonly parent?: ParentName | undefined;
  readonly type?: TypeName | undefined;
  /** The contents of a file in mdevctl's JSON, instead of a definition or a type. */
  readonly config?: MdevConfig | undefined;
}

/** The input of {@link planMdevStart}. */
export interface MdevStartInput extends CalloutRules {
  readonly request: MdevRequest;
  /** The existing device with this UUID. */
  readonly existing: Mdev | undefined;
  /** Whether a killed run created it: it may not have its attributes. */
  readonly unfinished?: boolean;
  readonly parent: Parent | undefined;
  /** The names of all parents. */
  readonly parents: readonly ParentName[];
  /** Whether an existing device on this parent and of this type is accepted, as for a unit. */
  readonly mayExist: boolean;
  /** Milliseconds that a parent may take to register after the `pre` scripts. */
  readonly patience: number;
}

/**
 * What the words mean: the definition that they name, or a new device that is not defined.
 * @throws PearasysError `ambiguous-definition`, `type-mismatch`, `bad-definition` or `usage`.
 */
export function specifyMdev(words: MdevWords, {definitions, broken}: Definitions): MdevRequest {
  const {uuid, parent, type, config} = words;
  if (config !== undefined) {
    if (parent === undefined)
      throw usageError('no parent was named', '--parent NAME together with --jsonfile');
    if (type !== undefined)
      throw usageError('--type and --jsonfile exclude each other', 'the file contains the type');
    return {uuid, parent, type: config.type, start: config.start, attributes: config.attributes};
  }
  const [definition, ...others] = definitions.filter(
    (one) => one.uuid === uuid && (parent === undefined || one.parent === parent),
  );
  if (definition !== undefined && others.length > 0) throw ambiguous(uuid, [definition, ...others]);
  if (definition !== undefined) {
    if (type !== undefined && type !== definition.type)
      throw new PearasysError({
        code: 'type-mismatch',
        exitCode: ExitCode.refused,
        message: `${uuid} is defined on ${definition.parent} as ${definition.type}, not as ${type}`,
        details: ['nothing was changed'],
        hint: `pearasys mdev start -u ${uuid} -p ${definition.parent} starts it as it is defined`,
      });
    return definition;
  }
  const problem = broken.find((one) => one.uuid === uuid && (parent === undefined || one.parent === parent));
  if (problem !== undefined && (type === undefined || parent === undefined))
    throw new PearasysError({
      code: 'bad-definition',
      exitCode: ExitCode.refused,
      message: `the definition ${problem.path} is broken`,
      details: [problem.reason, 'nothing was changed'],
      hint: 'correct the file, or remove it and define the device again',
    });
  if (parent === undefined || type === undefined)
    throw usageError(
      parent === undefined && type === undefined
        ? `${uuid} is not defined, and neither its parent nor its type was named`
        : `${uuid} is not defined${parent === undefined ? '' : ` on ${parent}`}, and its ${parent === undefined ? 'parent' : 'type'} was not named`,
      '--parent NAME --type TYPE; `pearasys mdev types` lists them',
      'not-defined',
    );
  return {uuid, parent, type, start: 'manual', attributes: []};
}

/** The error for a UUID that is defined on several parents. */
export function ambiguous(uuid: Uuid, definitions: readonly Definition[]): PearasysError {
  return usageError(
    `${uuid} is defined on several parents: ${definitions.map(({parent}) => parent).join(', ')}`,
    definitions.map(({parent}) => `--parent ${parent}`).join(', or '),
    'ambiguous-definition',
  );
}

/** Reads the input of {@link planMdevStart}. @throws what {@link specifyMdev} throws. */
export function readMdevStart(
  host: HostReader,
  words: MdevWords,
  rules: CalloutRules & Pick<MdevStartInput, 'mayExist' | 'patience'> & Pick<DefinitionFilter, 'asTyped'>,
): MdevStartInput {
  const request = specifyMdev(words, readDefinitions(host, {uuid: words.uuid, asTyped: rules.asTyped}));
  return {
    ...rules,
    request,
    existing: readMdev(host, request.uuid),
    unfinished: readUnfinished(host, request.uuid)?.made.includes(request.uuid) === true,
    parent: readParent(host, request.parent),
    parents: readParentNames(host),
  };
}

/**
 * The plan that creates a mediated device: it writes the UUID to `create` of the type, then the attributes in order,
 * before anything uses the device. If one is not accepted, the device is removed again
 * (Documentation/driver-api/vfio-mediated-device.rst).
 */
export function planMdevStart(input: MdevStartInput): Planned {
  const {request, existing, patience} = input;
  const {uuid, parent, type} = request;
  const same = existing?.parent === parent && (existing.type ?? type) === type;
  if (same && input.unfinished === true) return completeStart(input);
  if (same && input.mayExist) return plan([]);
  const scripted = isScripted(input);
  // A script may load the driver, make the type or free an instance, so the check comes after the script.
  const refusal = refuseAttributes(request) ?? (scripted ? undefined : refuseCreation(input));
  if (refusal !== undefined) return refusal;
  const look: Step[] = scripted ? [{kind: 'expect-creatable', uuid, parent, type, patience, undo: []}] : [];
  return withCallouts({subject: request, action: 'start', config: request}, input, [
    ...look,
    ...startSteps(request),
  ]);
}

/** The run that created the device was killed before it wrote all attributes. They are written again, from the first. */
function completeStart(input: MdevStartInput): Planned {
  const {request} = input;
  const wrong = refuseAttributes(request);
  if (wrong !== undefined) return wrong;
  const [, present, ...attributes] = startSteps(request);
  if (present === undefined) return plan([]);
  return withCallouts({subject: request, action: 'start', config: request}, input, [
    {...present, undo: [removeMdev(request.uuid)]},
    ...attributes,
  ]);
}

/** Checks whether a device can be created now. @throws PearasysError why it cannot. */
export function checkCreatable(
  host: HostReader,
  subject: Pick<MdevRequest, 'uuid' | 'parent' | 'type'>,
): void {
  const refusal = refuseCreation({
    request: subject,
    existing: readMdev(host, subject.uuid),
    parent: readParent(host, subject.parent),
    parents: readParentNames(host),
  });
  if (refusal !== undefined) throw afterScripts(refusal);
}

/** The error for a refusal after scripts: what they have changed is not known. */
export function afterScripts({error}: Refusal): PearasysError {
  const details = (error.details ?? []).filter((line) => line !== 'nothing was changed');
  return new PearasysError({...error, details});
}

/** What decides whether a device can be created. */
type Creation = Pick<MdevStartInput, 'existing' | 'parent' | 'parents'> & {
  readonly request: Pick<MdevRequest, 'parent' | 'type'>;
};

function refuseCreation(creation: Creation): Refusal | undefined {
  const {existing} = creation;
  if (existing !== undefined) return refuseExisting(existing);
  return refuseParent(creation) ?? refuseType(creation);
}

function startSteps({uuid, parent, type, attributes}: MdevRequest): Step[] {
  return [
    writeAttribute(typePath(parent, type, 'create'), uuid, {
      uuid,
      undo: [removeMdev(uuid)],
      hint: "the reason is in the kernel's log: journalctl -k",
    }),
    {kind: 'expect-mdev', uuid, present: true, undo: []},
    ...attributes.map(({name, value}, index) =>
      writeAttribute(mdevPath(uuid, name), value, {
        uuid,
        within: mdevPath(uuid),
        hint: `check which attributes and values the driver of ${parent} accepts; in a definition it is attribute ${index}, as \`pearasys mdev list -dv -u ${uuid}\` shows`,
      }),
    ),
  ];
}

/**
 * Removes a mediated device. EAGAIN means that it is not complete yet, or that another process is removing it: then it
 * is gone a moment later.
 */
export function removeMdev(uuid: Uuid): Step {
  return writeAttribute(mdevPath(uuid, 'remove'), '1', {
    uuid,
    accept: ['ENOENT', 'ENODEV'],
    again: ['EAGAIN'],
    hint: `\`pearasys show ${uuid}\` shows what is using it; the reason is in the kernel's log: journalctl -k`,
  });
}

function refuseExisting({uuid, parent, type}: Mdev): Refusal {
  return refuse({
    code: 'uuid-in-use',
    exitCode: ExitCode.refused,
    message: `device ${uuid} already exists, of type ${type ?? '?'} on ${parent}`,
    details: ['nothing was changed'],
    hint: `use the existing device, or first run pearasys mdev stop -u ${uuid}; a UUID can be used only once per machine`,
  });
}

function refuseParent({request, parent, parents}: Creation): Refusal | undefined {
  if (parent === undefined)
    return refuse({
      code: 'no-parent',
      exitCode: ExitCode.noDevice,
      message: `there is no parent ${request.parent}`,
      details: ['nothing was changed'],
      hint:
        parents.length === 0
          ? "no device offers mediated devices now: load a driver that does, as in `modprobe kvmgt`, or the vendor's driver"
          : `\`pearasys mdev types\` shows the parents${nearest(request.parent, parents)}`,
    });
  if (parent.registered) return undefined;
  return refuse({
    code: 'not-registered',
    exitCode: ExitCode.refused,
    message: `the parent ${request.parent} does not offer its types: it is still registering, or is being removed`,
    details: ['nothing was changed'],
    hint: 'try again; the kernel log has the messages of its driver: journalctl -k',
  });
}

function refuseType({request, parent}: Creation): Refusal | undefined {
  const types = parent?.types ?? [];
  const type = types.find(({name}) => name === request.type);
  if (type === undefined)
    return refuse({
      code: 'no-type',
      exitCode: ExitCode.noDevice,
      message: `the parent ${request.parent} has no type ${request.type}`,
      details: ['nothing was changed'],
      hint: `it has ${types.map(({name}) => name).join(', ')}${nearest(
        request.type,
        types.map(({name}) => name),
      )}`,
    });
  if (type.available !== 0) return undefined;
  const left = types.filter(({available}) => available !== 0).map(({name}) => name);
  return refuse({
    code: 'no-instances',
    exitCode: ExitCode.refused,
    message: `the parent ${request.parent} has no instances of ${request.type} left`,
    details: [
      left.length === 0
        ? 'no instances of any other type either'
        : `other types with instances left: ${left.join(', ')}`,
      'nothing was changed',
    ],
    hint: 'stop a device that is not needed: `pearasys mdev list` lists them',
  });
}

function refuseAttributes({uuid, attributes}: MdevRequest): Refusal | undefined {
  for (const {name} of attributes)
    try {
      checkAttributeName(name);
    } catch (error) {
      if (!(error instanceof PearasysError)) throw error;
      const {code, message} = error;
      return refuse({
        code,
        exitCode: ExitCode.refused,
        message: `${uuid} was not started: ${message}`,
        details: ['nothing was changed'],
        hint: `an attribute is a file in the device's own folder; pearasys mdev modify -u ${uuid} --delattr --index ${attributes.findIndex((one) => one.name === name)} removes it from a definition`,
      });
    }
  return undefined;
}
