import {FileError} from '../host/errors.js';
import type {HostReader} from '../host/host.js';
import type {Layout} from './layout.js';
import {distrust} from './trust.js';

/** The administrator's settings in `pearasys.conf`. */
export interface Settings {
  /** `AutoRecord=`: whether a mediated device that appears is recorded as a definition. */
  readonly autoRecord: boolean;
  /** `Initramfs=`: whether claims also take effect in the initramfs, where a supported generator builds it. */
  readonly initramfs: boolean;
}

/** The settings, and the lines of the file that are ignored. */
interface ReadSettings {
  readonly settings: Settings;
  readonly problems: readonly string[];
}

/** The defaults. */
export const defaultSettings: Settings = {autoRecord: true, initramfs: true};

/** The path of the settings file. */
export function settingsPath(layout: Layout): string {
  return `${layout.config}/pearasys.conf`;
}

/**
 * Reads `pearasys.conf`: lines `Key=value`, with comments as in systemd.syntax(7). An invalid line is a problem and
 * changes nothing. Without the file, {@link defaultSettings} apply.
 */
export function readSettings(host: HostReader, layout: Layout): ReadSettings {
  const path = settingsPath(layout);
  const untrusted = distrust(host, layout.config, 'directory') ?? distrust(host, path, 'file');
  if (untrusted !== undefined)
    return {settings: defaultSettings, problems: [`${path} is ignored: ${untrusted}`]};
  let text: string | undefined;
  try {
    text = host.readText(path);
  } catch (error) {
    if (!(error instanceof FileError)) throw error;
    return {settings: defaultSettings, problems: [`${path} is ignored: ${error.message}`]};
  }
  let {autoRecord, initramfs} = defaultSettings;
  const problems: string[] = [];
  for (const {number, text: line, key, value} of settingLines(text ?? '')) {
    const truth = asTruth(value);
    if (key === 'AutoRecord' && truth !== undefined) autoRecord = truth;
    else if (key === 'Initramfs' && truth !== undefined) initramfs = truth;
    else
      problems.push(
        `${path}, line ${number}: '${line}' is ignored: expected AutoRecord= or Initramfs=, and yes or no`,
      );
  }
  return {settings: {autoRecord, initramfs}, problems};
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
