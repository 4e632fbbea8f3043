import {readFileSync} from 'node:fs';
import {join, posix} from 'node:path';
import {CommandHelp} from '@oclif/core/help';
import {commands} from '../src/entry/cli/command-table.js';
import {CliConfig} from '../src/entry/cli/config.js';
import type {Context} from '../src/entry/cli/context.js';
import {describedCommand, stripColors} from '../src/entry/cli/help.js';
import {name, version} from '../src/entry/cli/version.js';
import {exitCodeMeanings} from '../src/host/errors.js';
import {overview, pages, type Page, type Source} from './man-pages.js';
import {anchor, body, example, heading, item, parts, text, type Part} from './man-text.js';

const root = join(import.meta.dirname, '..');

/** A manual page as it is installed. */
export interface ManualPage {
  /** `pearasys-bind.8` */
  readonly file: string;
  readonly section: Page['section'];
  readonly text: string;
}

/**
 * All manual pages: of commands what their help says, of everything else what the documents say.
 * @param config the folder of settings and records, which the documents call /etc/pearasys.
 */
export async function manualPages(config: string): Promise<ManualPage[]> {
  const help = await readHelp();
  for (const id of help.keys())
    if (![overview, ...pages].some(({commands: words}) => words?.some((word) => isBelow(id, word))))
      throw new Error(`no manual page has the command ${id}: build/man-pages.ts`);
  return [overview, ...pages].map((page) => ({
    file: `${page.name}.${page.section}`,
    section: page.section,
    text: print(page, help).replaceAll('/etc/pearasys', config),
  }));
}

function print(page: Page, help: ReadonlyMap<string, Help>): string {
  const shown = (page.commands ?? []).flatMap((word) =>
    [...help].filter(([id]) => isBelow(id, word)).map(([, one]) => one),
  );
  const examples = shown.flatMap((one) => one.examples);
  const lines = [
    `.TH "${page.name.toUpperCase()}" ${page.section} ${date()} "${name} ${version}"`,
    heading('Name'),
    text(`${page.name} - ${page.title}`),
    ...(shown.length === 0 ? [] : [heading('Synopsis')]),
    ...(page === overview ? [text(`\`${name}\` [OPTION...] COMMAND [ARGUMENT...]`), '.br'] : []),
    ...usages(shown),
    ...(page === overview ? introduction(help) : []),
    ...(shown.length === 0 ? [] : [heading('Commands'), ...shown.flatMap((one) => one.description)]),
    ...(shown.length === 0 || page === overview
      ? []
      : [heading('Common options'), text('All commands have these options.'), ...(shown[0]?.common ?? [])]),
    ...(examples.length === 0 ? [] : [heading('Examples'), ...example(examples.join('\n'))]),
    ...page.sources.flatMap((source) => document(page, source)),
    ...(page.file === undefined
      ? []
      : [heading('The file'), ...example(readFileSync(join(root, page.file), 'utf8').trimEnd())]),
    ...(page === overview ? conclusion() : []),
  ];
  return [...lines, heading('See also'), text(references(page, lines)), ''].join('\n');
}

/** Whether this is the command with this id, or belongs to the topic of this name. */
function isBelow(id: string, word: string): boolean {
  return id === word || id.startsWith(`${word}:`);
}

/** The day of the build, or that of SOURCE_DATE_EPOCH, see https://reproducible-builds.org/specs/source-date-epoch. */
function date(): string {
  const {SOURCE_DATE_EPOCH: given} = process.env;
  return (given === undefined ? new Date() : new Date(Number(given) * 1000)).toISOString().slice(0, 10);
}

/** The help on a command, in the form of a manual page. */
interface Help {
  readonly id: string;
  readonly summary: string;
  /** `pearasys bind DRIVER [DEVICE...] [--json] ...` */
  readonly usage: string;
  /** The command with its arguments and options. */
  readonly description: readonly string[];
  /** The options of all commands. */
  readonly common: readonly string[];
  readonly examples: readonly string[];
}

/** What oclif's help would print, before it is wrapped for a terminal. */
class Unwrapped extends CommandHelp {
  help(): Omit<Help, 'id'> {
    const {summary = '', description = '', args, flags, examples} = this.command;
    const all = Object.values(flags).filter(({hidden}) => hidden !== true);
    const {mainFlags, flagGroups} = this.groupFlags(all);
    const rows = (entries: [string, string | undefined][] | undefined) =>
      (entries ?? []).flatMap(([term, says]) => item(plain(term), `${capital(plain(says ?? ''))}.`));
    return {
      summary,
      usage: plain(this.usage()),
      description: [
        heading(`${name} ${this.command.id}`, 2),
        text(`${summary}.`),
        ...(description === '' ? [] : ['.PP', text(description)]),
        ...rows(this.args(Object.values(args))),
        ...rows(this.flags(mainFlags)),
      ],
      common: Object.values(flagGroups).flatMap((group) => rows(this.flags(group))),
      examples: plain(this.examples(examples) ?? '')
        .split('\n')
        .filter((line) => line !== ''),
    };
  }
}

function plain(words: string): string {
  return stripColors(words).replace(/^\$ /, '').replaceAll('\n$ ', '\n').trim();
}

async function readHelp(): Promise<Map<string, Help>> {
  // Only a command that runs needs the context.
  const config = await CliConfig.open({} as Context);
  const help = new Map<string, Help>();
  for (const [id, {hidden}] of Object.entries(commands)) {
    if (hidden === true) continue;
    const described = new Unwrapped(await describedCommand(config, id), config, {maxWidth: 10_000});
    help.set(id, {id, ...described.help()});
  }
  return help;
}

function usages(shown: readonly Help[]): string[] {
  return shown.flatMap(({id, usage}, index) => {
    const command = `${name} ${id.replaceAll(':', ' ')}`;
    return [...(index === 0 ? [] : ['.br']), text(`\`${command}\`${usage.slice(command.length)}`)];
  });
}

function introduction(help: ReadonlyMap<string, Help>): string[] {
  return [
    heading('Description'),
    text(
      'A device is named by its slot (0000:04:00.0, or 04:00.0 in domain 0000), by its id (10de:1b80, vendor and ' +
        'device), by the name of what its driver provides (eth0, nvme0n1, card1), or by a path in /dev or /sys. ' +
        '04:00.* names all functions of a card. A mediated device is named by its UUID. Options may be placed ' +
        'before or after the command.',
    ),
    '.PP',
    text('These pages describe the commands:'),
    ...pages
      .filter(({commands: words}) => words !== undefined)
      .flatMap((page) => item(reference(page), `${capital(page.title)}.`)),
    '.PP',
    text('These pages describe files and units:'),
    ...pages
      .filter(({commands: words}) => words === undefined)
      .flatMap((page) => item(reference(page), `${capital(page.title)}.`)),
    heading('Options'),
    ...(help.get('list')?.common ?? []),
    ...item('-h, --help', 'Print help on the command, or on everything.'),
    ...item('--version', 'Print the version.'),
  ];
}

function conclusion(): string[] {
  return [
    heading('Exit status'),
    ...Object.entries(exitCodeMeanings).flatMap(([code, means]) => item(code, `${capital(means)}.`)),
    heading('Files'),
    ...files.flatMap(([file, is]) => item(file, is)),
  ];
}

const files = [
  ['/etc/pearasys/pci/', 'Records: which driver gets which device. One file per device.'],
  [
    '/etc/pearasys/sriov/',
    'How many virtual functions a device has, and which drivers get them. One file per device.',
  ],
  ['/etc/pearasys/vgpu/', 'Records: which virtual function gets which vGPU type. One file per function.'],
  [
    '/etc/pearasys/initramfs-claims',
    'The enabled claims, for the initramfs, which reserves these devices before udev starts.',
  ],
  [
    '/etc/pearasys/pearasys.conf, pearasys.conf.d/*.conf',
    'Settings. Further ones are in /run/pearasys, /usr/local/lib/pearasys and /usr/lib/pearasys.',
  ],
  ['/etc/pearasys/guests/', 'Which devices guests take, and how.'],
  ['/etc/pearasys/guest.settings', 'How all guests take devices.'],
  [
    '/etc/systemd/system/pearasys-SLOT@.service',
    'The unit of a device. Enabled, it claims the device at boot and at each hot-add.',
  ],
  [
    '/etc/udev/rules.d/61-pearasys-access.rules, 61-pearasys-access-sriov.rules',
    'Who may open the nodes of claimed devices and of virtual functions, generated from the records.',
  ],
  [
    '/etc/modprobe.d/pearasys-no-iommu.conf',
    'Turns the no-IOMMU mode of VFIO on at each boot. Written by `driver no-iommu on --permanent`.',
  ],
  [
    '/etc/tmpfiles.d/pearasys-hugepages.conf',
    'How many huge pages to allocate at boot. Written by `hugepages set`.',
  ],
  ['/etc/mdevctl.d/PARENT/UUID', 'Definitions of mediated devices, shared with mdevctl.'],
  ['/etc/libvirt/hooks/qemu.d/50-pearasys', 'Starts and stops the units of guests, when libvirt runs it.'],
  ['/usr/share/misc/pci.ids, /usr/share/hwdata/pci.ids', 'Names of devices, classes and vendors.'],
] as const;

/** The parts of a document that a page has. */
function document(page: Page, source: Source): string[] {
  const all = readParts(source.file);
  return chosen(source, all).flatMap((index) => {
    const part = all[index];
    if (part === undefined) return [];
    const lines = [heading(part.heading), ...body(part.tokens, resolver(page, source.file))];
    // What is below a subheading belongs to the part.
    for (const below of all.slice(index + 1)) {
      if (below.depth < 3 || part.depth !== 2) break;
      lines.push(heading(below.heading, 2), ...body(below.tokens, resolver(page, source.file)));
    }
    return lines;
  });
}

/** The indexes of the parts that a source names. */
function chosen({file, only, without}: Source, all: readonly Part[]): number[] {
  for (const named of [...(only ?? []), ...(without ?? [])])
    if (!all.some((part) => part.heading === named)) throw new Error(`${file} has no heading '${named}'`);
  return all.flatMap((part, index) => {
    const wanted =
      only === undefined
        ? part.depth < 3 && without?.includes(part.heading) !== true
        : only.includes(part.heading);
    return wanted && part.tokens.length > 0 ? [index] : [];
  });
}

const read = new Map<string, Part[]>();

function readParts(file: string): Part[] {
  const known = read.get(file) ?? parts(readFileSync(join(root, file), 'utf8'));
  read.set(file, known);
  return known;
}

/** In a page a link names the page that has what it leads to, or the section of this page. */
function resolver(page: Page, file: string): (target: string, words: string) => string {
  return (target, words) => {
    if (/^https?:/.test(target)) return words;
    const [path = '', fragment] = target.split('#');
    const linked = path === '' ? file : posix.join(posix.dirname(file), path);
    const bare = /^\S+\.(?:md|ts|sh)$/.test(words);
    if (linked === page.file) return words;
    if (has(page, linked, fragment)) return bare ? sectionOf(linked, fragment) : words;
    const other = pageOf(linked, fragment);
    const where = other === undefined ? linked : reference(other);
    return bare ? where : `${words} (${where})`;
  };
}

function sectionOf(file: string, fragment: string | undefined): string {
  const all = readParts(file);
  const part = all.find((one) => anchor(one.heading) === fragment) ?? all[0];
  return `section "${part?.heading.toUpperCase() ?? ''}"`;
}

/** The page that has this part of a document: that with its title, if no other part is asked for. */
function pageOf(file: string, fragment: string | undefined): Page | undefined {
  const all = [overview, ...pages];
  const title = readParts(file)[0]?.heading ?? '';
  return (
    all.find((page) => has(page, file, fragment ?? anchor(title))) ??
    all.find((page) => has(page, file, undefined))
  );
}

/** Whether the page has this part of a document; with undefined, any of it. */
function has(page: Page, file: string, fragment: string | undefined): boolean {
  return page.sources.some((source) => {
    if (source.file !== file) return false;
    const all = readParts(file);
    return chosen(source, all).some(
      (index) => fragment === undefined || anchor(all[index]?.heading ?? '') === fragment,
    );
  });
}

/** The pages that a page names in its text, those on files and events, and those of others. */
function references(page: Page, lines: readonly string[]): string {
  const named = (other: Page) => lines.some((line) => line.includes(text(reference(other))));
  const ours = [overview, ...pages].filter(
    (other) => other !== page && (other === overview || other.section !== 8 || named(other)),
  );
  return [...ours.map(reference), ...page.seeAlso].join(', ');
}

function reference({name: page, section}: Page): string {
  return `${page}(${section})`;
}

function capital(words: string): string {
  return words.charAt(0).toUpperCase() + words.slice(1);
}
