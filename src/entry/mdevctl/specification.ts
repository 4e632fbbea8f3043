/** The version of mdevctl with this command line. */
export const mdevctlVersion = '1.2.0';

/** What an option's value must be. */
type ValueKind = 'text' | 'uuid' | 'index';

/** An option of mdevctl. */
export interface OptionSpecification {
  readonly name: string;
  readonly char?: string;
  /** The name of the value in the help; without one the option takes no value. */
  readonly value?: string;
  readonly kind?: ValueKind;
  readonly help: string;
  readonly conflicts?: readonly string[];
  readonly requires?: readonly string[];
}

/** A command of mdevctl. */
export interface CommandSpecification {
  readonly name: string;
  /** One line; empty for a command that is not shown. */
  readonly about: string;
  /** The text of --help instead, with mdevctl's line breaks. */
  readonly long?: string;
  readonly options: readonly OptionSpecification[];
  /** Required options. */
  readonly required?: readonly string[];
  /** Options of which at least one is required. */
  readonly oneOf?: readonly string[];
  /** The name of the one required argument in the help; without one the command takes no argument. */
  readonly argument?: string;
  /** Whether it has the option --version. */
  readonly versioned?: boolean;
  /** Whether it is a program itself, not a command of mdevctl. */
  readonly isProgram?: boolean;
}

const uuid = (help: string): OptionSpecification => ({
  name: 'uuid',
  char: 'u',
  value: 'UUID',
  kind: 'uuid',
  help,
});
const parent = (help: string): OptionSpecification => ({name: 'parent', char: 'p', value: 'PARENT', help});
const type = (help: string): OptionSpecification => ({name: 'type', char: 't', value: 'type', help});

/** Of mdevctl 1.3 and later. */
const force: OptionSpecification = {
  name: 'force',
  char: 'f',
  help: 'Force command execution even if device-specific callout script fails',
};

const list: CommandSpecification = {
  name: 'list',
  about: 'List mediated devices',
  long: `List mediated devices

With no options, information about the currently running mediated devices is provided. Specifying
'defined' lists the configuration of defined devices, regardless of their running state. This may be
further reduced by specifying specific 'uuid' or 'parent' devices to list. The 'dumpjson' option
provides output listing in machine readable JSON format. When a 'uuid' option is provided and the
result is a single device, the output contains only the JSON fields necessary to recreate a config
file for the device (minus attributes for listings of running devices). When the verbose option is
provided, the human readable listing will include attributes for the device(s).`,
  versioned: true,
  options: [
    {name: 'defined', char: 'd', help: 'Show defined devices'},
    {name: 'dumpjson', help: 'Output device list in json format'},
    {name: 'verbose', char: 'v', help: 'Print additional information about the devices'},
    uuid('List devices matching the specified UUID'),
    parent('List devices associated with the specified Parent device'),
  ],
};

/** The program itself, without a command. */
export const program: CommandSpecification = {
  name: 'mdevctl',
  about: 'A mediated device management utility for Linux',
  options: [],
  argument: 'SUBCOMMAND',
  versioned: true,
  isProgram: true,
};

/**
 * The commands of mdevctl 1.2, with the text of its own help, because scripts read it from standard output. In addition
 * the options of mdevctl 1.3 and later, which libvirt looks for.
 */
export const mdevctlCommands: readonly CommandSpecification[] = [
  {
    name: 'define',
    about: 'Define a persistent mediated device',
    long: `Define a persistent mediated device

If the device specified by the UUID currently exists, 'parent' and 'type' may be omitted to use the
existing values. The 'auto' option marks the device to start on parent availability.  If defined via
'jsonfile', then 'type', 'startup', and any attributes are provided via the file.

Running devices are unaffected by this command.`,
    oneOf: ['uuid', 'parent'],
    options: [
      uuid('Assign UUID to the device'),
      {name: 'auto', char: 'a', help: 'Automatically start device on parent availability'},
      parent('Specify the parent of the device'),
      type('Specify the mdev type of the device'),
      {
        name: 'jsonfile',
        value: 'JSONFILE',
        conflicts: ['type', 'auto'],
        help: 'Specify device details in JSON format',
      },
      force,
    ],
  },
  list,
  {
    name: 'modify',
    about: 'Modify the definition of a mediated device',
    long: `Modify the definition of a mediated device

The 'parent' option further identifies a UUID if it is not unique. The parent for a device cannot be
modified via this command; undefine and re-define should be used instead. An attribute can be added
or removed, which correlates to a sysfs attribute under the created device. Unless an 'index' value
is provided, operations are performed at the end of the attribute list. 'value' is to be specified
in the format that is accepted by the attribute. Upon device start, mdevctl will go through each
attribute in order, writing the value into the corresponding sysfs attribute for the device. The
startup mode of the device can also be selected, auto or manual. Alternatively, the 'jsonfile' option
may be used to replace the startup mode and any attributes with the contents of the specified file.

Running devices are unaffected by this command unless the 'live' option is given.`,
    required: ['uuid'],
    options: [
      uuid('UUID of the mdev to modify'),
      parent('Parent of the mdev to modify'),
      type('Modify the mdev type for this device'),
      {name: 'addattr', value: 'attr_name', requires: ['value'], help: 'add a new attribute'},
      {name: 'delattr', conflicts: ['addattr'], help: 'Delete an attribute'},
      {name: 'index', char: 'i', value: 'INDEX', kind: 'index', help: 'Index of the attribute to modify'},
      {name: 'value', value: 'attr_value', help: 'Value for the attribute specified by --addattr'},
      {name: 'auto', char: 'a', help: 'Device will be started automatically'},
      {name: 'manual', char: 'm', conflicts: ['auto'], help: 'Device must be started manually'},
      {
        name: 'live',
        char: 'l',
        conflicts: ['type', 'addattr', 'delattr', 'index', 'value', 'auto', 'manual'],
        requires: ['jsonfile'],
        help: 'Modify the running device definition only unless used together with defined option',
      },
      {name: 'defined', char: 'd', help: 'Modify the stored device definition'},
      {
        name: 'jsonfile',
        value: 'JSONFILE',
        conflicts: ['type', 'addattr', 'delattr', 'index', 'value', 'auto', 'manual'],
        help: 'Specify device details in JSON format',
      },
      force,
    ],
  },
  {
    name: 'start',
    about: 'Start a mediated device',
    long: `Start a mediated device

If the UUID is previously defined and unique, the UUID is sufficient to start the device (UUIDs may
not collide between running devices). If a UUID is used in multiple defined configurations, the
'parent' is necessary to identify the device to be started.  When specified with 'parent' and
'type', the device is fully specified and will be started based only on these parameters.  The UUID
is optional in this case. If not provided, a UUID is generated and returned as output. A 'jsonfile'
may replace the 'type' specification and also include additional attributes to be applied to the
started device.`,
    oneOf: ['uuid', 'parent'],
    options: [
      uuid('UUID of the device to start'),
      parent('Parent of the device to start'),
      type('Mdev type of the device to start'),
      {
        name: 'jsonfile',
        value: 'JSONFILE',
        conflicts: ['type'],
        help: 'Details of the device to be started, in JSON format',
      },
      force,
    ],
  },
  {
    name: 'stop',
    about: 'Stop a mediated device',
    required: ['uuid'],
    options: [uuid('UUID of the device to stop'), force],
  },
  {
    name: 'types',
    about: 'List available mediated device types',
    long: `List available mediated device types

Specifying a 'parent' lists only the types provided by the given parent device. The 'dumpjson'
option provides output in machine readable JSON format.`,
    options: [
      parent('Show supported types for the specified parent'),
      {name: 'dumpjson', help: 'Output mdev types list in JSON format'},
    ],
  },
  {
    name: 'undefine',
    about: 'Undefine a persistent mediated device',
    long: `Undefine, or remove a config for an mdev device

If a UUID exists for multiple parents, all will be removed unless a parent is
                specified.

Running devices are unaffected by this command.`,
    required: ['uuid'],
    options: [
      uuid('UUID of the device to be undefined'),
      parent('Parent of the device to be undefined'),
      force,
    ],
  },
  // Not in its help: mdevctl's udev rule calls it.
  {name: 'start-parent-mdevs', about: '', options: [], argument: 'PARENT'},
];

/** The program lsmdev: `mdevctl list` under another name. */
export const lsmdev: CommandSpecification = {
  name: 'lsmdev',
  about: list.about,
  versioned: true,
  isProgram: true,
  options: list.options,
};

/** How an option is written in help and errors: `--uuid <UUID>`. */
export function optionWord({name, value}: OptionSpecification): string {
  return value === undefined ? `--${name}` : `--${name} <${value}>`;
}
