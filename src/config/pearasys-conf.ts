import {posix} from 'node:path';
import {FileError} from '../host/errors.js';
import type {HostReader} from '../host/host.js';
import {runState} from '../host/paths.js';
import type {Layout} from './layout.js';
import {distrust} from './trust.js';

/** The administrator's settings in `pearasys.conf`. */
export interface Settings {
  /** `AutoRecord=`: whether a mediated device that appears is recorded as a definition. */
  readonly autoRecord: boolean;
  /** `Initramfs=`: whether claims also take effect in the initramfs, where a supported generator builds it. */
  readonly initramfs: boolean;
}

/** The defaults. */
export const defaultSettings: Settings = {autoRecord: true, initramfs: true};

/** The keys of the settings in the files. */
export const settingKeys = {
  autoRecord: 'AutoRecord',
  initramfs: 'Initramfs',
} as const satisfies Readonly<Record<keyof Settings, string>>;

/** The settings, where each comes from, and what is ignored. */
export interface ReadSettings {
  readonly settings: Settings;
  /** The file that sets it; absent for a default. */
  readonly sources: Readonly<Partial<Record<keyof Settings, string>>>;
  /** The main file that is used; undefined if there is none. */
  readonly main: string | undefined;
  /** Files and lines that are ignored, and why. */
  readonly problems: readonly string[];
}

/** A file of settings that is used. */
interface SettingsFile {
  readonly path: string;
  readonly text: string;
}

const mainName = 'pearasys.conf';

/** The folder of drop-ins, beside the main file. */
const dropIns = `${mainName}.d`;

/**
 * The folders of settings, the first of which comes first: those of the administrator, of this boot, of what was
 * installed locally, and of the package. As systemd's own, see systemd-system.conf(5), CONFIGURATION DIRECTORIES AND
 * PRECEDENCE.
 */
export function settingsFolders(layout: Layout): string[] {
  return [layout.config, runState, '/usr/local/lib/pearasys', '/usr/lib/pearasys'];
}

/** The path of the administrator's settings file. */
export function settingsPath(layout: Layout): string {
  return `${layout.config}/${mainName}`;
}

/**
 * Reads the first main file that there is, then the drop-ins of all folders, sorted by name: a later line overrides an
 * earlier one. The lines are `Key=value`, with comments as in systemd.syntax(7). What is invalid or cannot be trusted
 * is a problem, and counts as missing. Without files, {@link defaultSettings} apply.
 */
export function readSettings(host: HostReader, layout: Layout): ReadSettings {
  const problems: string[] = [];
  const folders = settingsFolders(layout);
  const main = readMain(host, folders, problems);
  const settings: {-readonly [Key in keyof Settings]: Settings[Key]} = {...defaultSettings};
  const sources: Partial<Record<keyof Settings, string>> = {};
  const files = [...(main === undefined ? [] : [main]), ...readDropIns(host, folders, problems)];
  for (const {path, text} of files)
    for (const {number, text: line, key, value} of settingLines(text)) {
      const name = (Object.keys(settingKeys) as (keyof Settings)[]).find((one) => settingKeys[one] === key);
      const truth = asTruth(value);
      if (name === undefined || truth === undefined)
        problems.push(
          `${path}, line ${number}: '${line}' is ignored: expected AutoRecord= or Initramfs=, and yes or no`,
        );
      else {
        settings[name] = truth;
        sources[name] = path;
      }
    }
  return {settings, sources, main: main?.path, problems};
}

/** The first main file that may be used. */
function readMain(
  host: HostReader,
  folders: readonly string[],
  problems: string[],
): SettingsFile | undefined {
  for (const folder of folders) {
    const file = readFile(host, [folder], mainName, problems);
    if (file !== undefined) return file;
  }
  return undefined;
}

/** The drop-ins in their order. Of several with one name, only the one in the first folder is used. */
function readDropIns(host: HostReader, folders: readonly string[], problems: string[]): SettingsFile[] {
  const found = new Map<string, SettingsFile>();
  for (const folder of folders)
    for (const name of host.list(`${folder}/${dropIns}`)) {
      if (!name.endsWith('.conf') || name.startsWith('.') || found.has(name)) continue;
      const file = readFile(host, [folder, `${folder}/${dropIns}`], name, problems);
      if (file !== undefined) found.set(name, file);
    }
  return [...found].sort(([one], [other]) => (one < other ? -1 : 1)).map(([, file]) => file);
}

/**
 * A file of settings; undefined if it is missing or ignored. A link to /dev/null counts as an empty file, which hides
 * the files of its name in later folders.
 * @param folders those that must be trusted, too; the last one contains it.
 */
function readFile(
  host: HostReader,
  folders: readonly string[],
  name: string,
  problems: string[],
): SettingsFile | undefined {
  const path = `${folders.at(-1) ?? ''}/${name}`;
  if (host.info(path, false) === undefined) return undefined;
  const isHidden = host.readLink(path) === '/dev/null';
  const reason = distrustAll(host, folders) ?? (isHidden ? undefined : distrust(host, path, 'file'));
  if (reason === undefined && isHidden) return {path, text: ''};
  if (reason !== undefined) {
    problems.push(`${path} is ignored: ${reason}`);
    return undefined;
  }
  try {
    const text = host.readText(path);
    return text === undefined ? undefined : {path, text};
  } catch (error) {
    if (!(error instanceof FileError)) throw error;
    problems.push(`${path} is ignored: ${error.message}`);
    return undefined;
  }
}

function distrustAll(host: HostReader, folders: readonly string[]): string | undefined {
  return folders.map((folder) => distrust(host, folder, 'directory')).find((reason) => reason !== undefined);
}

/** The drop-in that is written if the main file of another folder must stay in effect. */
const ownDropIn = 'zz-pearasys.conf';

/**
 * The administrator's file in which a setting is to be changed, so that the change has an effect: the one that sets it
 * now; otherwise the main file, unless that would hide one of another folder; otherwise a drop-in.
 * @returns also why a change there would have no effect.
 */
export function fileToChange(
  host: HostReader,
  layout: Layout,
  {sources, main}: ReadSettings,
  name: keyof Settings,
): {readonly path: string; readonly obstacle: string | undefined} {
  const own = settingsPath(layout);
  const source = sources[name];
  const isOwn = source?.startsWith(`${layout.config}/`) === true;
  const isDropIn = source !== undefined && posix.basename(posix.dirname(source)) === dropIns;
  const path = isOwn
    ? source
    : isDropIn || (main !== undefined && main !== own)
      ? `${layout.config}/${dropIns}/${ownDropIn}`
      : own;
  if (!isOwn && isDropIn && posix.basename(source) >= ownDropIn)
    return {path, obstacle: `${source} sets it, and is read after ${path}`};
  const folders = [layout.config, ...(path === own ? [] : [posix.dirname(path)])];
  const isHidden = host.readLink(path) === '/dev/null';
  return {
    path,
    obstacle: distrustAll(host, folders) ?? (isHidden ? undefined : distrust(host, path, 'file')),
  };
}

/** The text of a settings file with this setting: its last line with the key is replaced, or one is added. */
export function withSetting(text: string, key: string, value: boolean): string {
  const line = `${key}=${value ? 'yes' : 'no'}`;
  const last = settingLines(text)
    .filter((one) => one.key === key)
    .at(-1);
  const lines = text.split('\n');
  if (last !== undefined) lines[last.number - 1] = line;
  else lines.splice(lines.at(-1) === '' ? -1 : lines.length, 0, line);
  const changed = lines.join('\n');
  return changed.endsWith('\n') ? changed : `${changed}\n`;
}

/** A line of a settings file that is not empty or a comment. */
interface SettingLine {
  /** Counted from 1. */
  readonly number: number;
  /** The whole line, without surrounding white space. */
  readonly text: string;
  /** The text before the first `=`; the whole line if it has no `=`. */
  readonly key: string;
  /** The text after the first `=`, trimmed; empty if the line has no `=`. */
  readonly value: string;
}

/** The lines `Key=value` of a settings file, without empty lines and comments, see systemd.syntax(7). */
export function settingLines(text: string): SettingLine[] {
  return text.split('\n').flatMap((raw, index) => {
    const line = raw.trim();
    if (line === '' || /^[#;]/.test(line)) return [];
    const cut = line.indexOf('=');
    return [
      {
        number: index + 1,
        text: line,
        key: cut < 0 ? line : line.slice(0, cut).trimEnd(),
        value: cut < 0 ? '' : line.slice(cut + 1).trim(),
      },
    ];
  });
}

/** The value of a boolean as systemd.syntax(7) spells it; undefined for any other text. */
export function asTruth(text: string): boolean | undefined {
  if (/^(?:1|yes|y|true|t|on)$/i.test(text)) return true;
  return /^(?:0|no|n|false|f|off)$/i.test(text) ? false : undefined;
}
