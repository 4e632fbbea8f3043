import fs from 'node:fs';
import {posix} from 'node:path';
import type {SimulatedMachine} from '../kernel/machine.js';

/** A unit file with its drop-ins, specifiers replaced. */
export interface UnitFile {
  readonly name: string;
  /** Where it is: for an instance the template's path. */
  readonly path: string;
  /** Values by `Section.Key`, in order; an empty one has cleared those before it. */
  readonly values: ReadonlyMap<string, readonly string[]>;
}

const unitFolders = [
  '/etc/systemd/system',
  '/run/systemd/system',
  '/run/systemd/transient',
  '/run/systemd/generator',
  '/usr/lib/systemd/system',
  '/lib/systemd/system',
];

/** The unit files of a machine, with their drop-ins and links. */
export class UnitFiles {
  readonly #machine: SimulatedMachine;
  /** The unit files as they were when systemd read them. */
  #loaded: string;

  constructor(machine: SimulatedMachine) {
    this.#machine = machine;
    this.#loaded = this.#readAll();
  }

  /** The unit's file with its drop-ins; undefined when there is none. */
  unitFile(name: string): UnitFile | undefined {
    const path = this.#findUnit(name);
    if (path === undefined) return undefined;
    const values = new Map<string, string[]>();
    const texts = [this.#machine.tree.read(path) ?? ''];
    const dropIns = new Map<string, string>();
    for (const folder of unitFolders)
      for (const dropIn of dropInFolders(name))
        for (const file of this.#machine.tree.list(`${folder}/${dropIn}`))
          if (file.endsWith('.conf') && !dropIns.has(file)) dropIns.set(file, `${folder}/${dropIn}/${file}`);
    for (const file of [...dropIns.keys()].sort())
      texts.push(this.#machine.tree.read(dropIns.get(file) ?? '') ?? '');
    for (const text of texts) readUnit(text, name, values);
    return {name, path, values};
  }

  #findUnit(name: string): string | undefined {
    for (const each of [name, templateOf(name)])
      for (const folder of unitFolders)
        if (each !== undefined && this.#machine.tree.has(`${folder}/${each}`)) return `${folder}/${each}`;
    return undefined;
  }

  /** A unit's own name: a link in a folder of units is another name of the unit it leads to. */
  nameOf(unit: string): string {
    const path = this.#findUnit(unit);
    const real = path === undefined ? undefined : this.#machine.tree.resolve(path);
    if (real === undefined || real === '/dev/null' || templateOf(unit) !== undefined) return unit;
    return posix.basename(real);
  }

  /** Other names of a unit. */
  aliasesOf(unit: string): string[] {
    const names = unitFolders.flatMap((folder) => this.#machine.tree.list(folder));
    return [...new Set(names)].filter((name) => name !== unit && this.nameOf(name) === unit);
  }

  /** What a unit pulls in by links in its folders. */
  wantedBy(name: string): string[] {
    return unitFolders.flatMap((folder) =>
      ['wants', 'requires'].flatMap((kind) => this.#machine.tree.list(`${folder}/${name}.${kind}`)),
    );
  }

  /** Whether a link to /dev/null stands for the unit. */
  isMasked(unit: string): boolean {
    return unitFolders.some((folder) => {
      const stat = this.#machine.tree.stat(`${folder}/${unit}`);
      return (
        stat?.isSymbolicLink() === true && this.#machine.tree.resolve(`${folder}/${unit}`) === '/dev/null'
      );
    });
  }

  /** `enabled`, `disabled`, `static`, `masked`; undefined when there is no such file. */
  enablement(unit: string): string | undefined {
    if (this.isMasked(unit)) return 'masked';
    const file = this.unitFile(unit);
    if (file === undefined) return undefined;
    const links = this.linksOf(unit);
    if (links.some((link) => link.startsWith('/etc/'))) return 'enabled';
    if (links.length > 0) return 'enabled-runtime';
    const sections = ['WantedBy', 'RequiredBy', 'Alias', 'Also'];
    return sections.some((key) => (file.values.get(`Install.${key}`) ?? []).length > 0)
      ? 'disabled'
      : 'static';
  }

  /** The links that `systemctl enable` has made for a unit. */
  linksOf(unit: string): string[] {
    return ['/etc/systemd/system', '/run/systemd/system'].flatMap((folder) =>
      this.#machine.tree
        .list(folder)
        .filter((name) => /\.(?:wants|requires)$/.test(name))
        .map((name) => `${folder}/${name}/${unit}`)
        .filter((link) => this.#machine.tree.stat(link)?.isSymbolicLink() === true),
    );
  }

  /** Whether unit files, drop-ins or links are not as systemd has last read them. */
  get needsReload(): boolean {
    return this.#readAll() !== this.#loaded;
  }

  /** systemd reads all again. */
  reload(): void {
    this.#loaded = this.#readAll();
  }

  #readAll(): string {
    const {tree} = this.#machine;
    const read = (path: string): string[] => {
      const stat = tree.stat(path);
      if (stat?.isDirectory() === true)
        return tree
          .list(path)
          .filter((name) => !name.startsWith('.'))
          .flatMap((name) => read(`${path}/${name}`));
      const text = stat?.isSymbolicLink() === true ? fs.readlinkSync(tree.onDisk(path)) : tree.read(path);
      return stat === undefined ? [] : [`${path}\n${text ?? ''}`];
    };
    return unitFolders.slice(0, 2).flatMap(read).join('\n');
  }
}

/** The device unit's name of a path, escaped as systemd-escape(1) does. */
export function deviceUnit(path: string): string {
  const text = path.replace(/^\/+|\/+$/g, '');
  let name = '';
  Buffer.from(text).forEach((byte, index) => {
    const character = String.fromCharCode(byte);
    if (character === '/') name += '-';
    else if (/[A-Za-z0-9:_.]/.test(character) && !(index === 0 && character === '.')) name += character;
    else name += `\\x${byte.toString(16).padStart(2, '0')}`;
  });
  return `${name}.device`;
}

/** `pearasys-0000:01:00.0@.service` of an instance; undefined for a unit without one. */
export function templateOf(name: string): string | undefined {
  const match = /^([^@]+@)[^@]+(\.[a-z]+)$/.exec(name);
  return match === null ? undefined : `${match[1] ?? ''}${match[2] ?? ''}`;
}

/** The folders of drop-ins for a unit, from the general to its own: `pearasys-@.service.d`, …, `<name>.d`. */
function dropInFolders(name: string): string[] {
  const suffix = posix.extname(name);
  const template = templateOf(name);
  const at = template === undefined ? '' : '@';
  const prefix =
    template === undefined ? name.slice(0, -suffix.length) : template.slice(0, -suffix.length - 1);
  const folders: string[] = [`${suffix.slice(1)}.d`];
  for (let dash = prefix.indexOf('-'); dash !== -1; dash = prefix.indexOf('-', dash + 1))
    if (dash < prefix.length - 1) folders.push(`${prefix.slice(0, dash + 1)}${at}${suffix}.d`);
  if (template !== undefined) folders.push(`${template}.d`);
  return [...folders, `${name}.d`];
}

/**
 * The words of an Exec line, see systemd.service(5).
 * @throws Error for what this subset does not know.
 */
export function commandOf(line: string): {readonly argv: readonly string[]; readonly mayFail: boolean} {
  const mayFail = line.startsWith('-');
  const argv = (line.slice(mayFail ? 1 : 0).match(/"[^"]*"|'[^']*'|[^\s"']+/g) ?? []).map((word) =>
    word.replace(/^(["'])(.*)\1$/, '$2'),
  );
  if (!/^[\w/.-]+$/.test(argv[0] ?? '') || /[$\\;]/.test(line))
    throw new Error(`systemd: the command ${line} is not in this subset`);
  return {argv, mayFail};
}

/** Keys whose value is a list of words; an empty value clears it. */
const lists = new Set([
  'Conflicts',
  'BindsTo',
  'Wants',
  'Requires',
  'After',
  'Before',
  'WantedBy',
  'RequiredBy',
  'Alias',
  'Also',
]);

function readUnit(text: string, name: string, values: Map<string, string[]>): void {
  let section = '';
  for (const raw of text.replaceAll(/\\\n/g, ' ').split('\n')) {
    const line = raw.trim();
    if (line === '' || line.startsWith('#') || line.startsWith(';')) continue;
    const header = /^\[(.+)\]$/.exec(line)?.[1];
    if (header !== undefined) {
      section = header;
      continue;
    }
    const at = line.indexOf('=');
    if (at === -1 || section === '') throw new Error(`systemd: ${name}: cannot read the line: ${line}`);
    const key = line.slice(0, at).trim();
    const value = line.slice(at + 1).trim();
    const full = `${section}.${key}`;
    if (value === '') {
      values.set(full, []);
      continue;
    }
    // ExecStart= and its like know more specifiers than are needed here; only names are replaced in them too.
    const replaced = specify(value, name);
    values.set(full, [...(values.get(full) ?? []), ...(lists.has(key) ? replaced.split(/\s+/) : [replaced])]);
  }
}

/** Replaces specifiers, see systemd.unit(5). */
function specify(value: string, unit: string): string {
  const suffix = posix.extname(unit);
  const whole = unit.slice(0, -suffix.length);
  const at = whole.indexOf('@');
  const prefix = at === -1 ? whole : whole.slice(0, at);
  const instance = at === -1 ? '' : whole.slice(at + 1);
  const last = prefix.slice(prefix.lastIndexOf('-') + 1);
  const unescape = (text: string) =>
    text
      .replaceAll('-', '/')
      .replace(/\\x([0-9a-f]{2})/g, (_, code: string) => String.fromCharCode(parseInt(code, 16)));
  const known: Readonly<Record<string, string>> = {
    '%': '%',
    n: unit,
    N: whole,
    p: prefix,
    P: unescape(prefix),
    i: instance,
    I: unescape(instance),
    j: last,
    J: unescape(last),
    t: '/run',
    S: '/var/lib',
  };
  return value.replace(/%(.)/g, (whole, letter: string) => {
    const found = known[letter];
    if (found === undefined) throw new Error(`systemd: the specifier ${whole} is not in this subset`);
    return found;
  });
}
