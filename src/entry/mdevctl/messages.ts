import {errnoNumber, errnoWords} from '../../host/errno.js';
import {FileError, WriteError, type PearasysError} from '../../host/errors.js';
import {mdevPath, readMdev} from '../../devices/mdev/mdev.js';
import {readParentNames} from '../../devices/mdev/parent.js';
import type {HostReader} from '../../host/host.js';
import type {MdevWords} from '../../plan/mdev/mdev-start.js';

/** What a failed command was about. */
export interface FailedCommand {
  readonly command: string;
  readonly words: MdevWords;
  /** The device that would have been started, once it is known. */
  readonly type?: string | undefined;
}

/** What mdevctl prints when it fails: `Error: …`, and below it what the system said. */
export function errorText(error: PearasysError, failed: FailedCommand, host: HostReader): string {
  const {message, cause} = inMdevctlWords(error, failed, host);
  return `Error: ${message}\n${cause === undefined ? '' : `\nCaused by:\n    ${cause}\n`}`;
}

/** `No such file or directory (os error 2)`, as Rust prints an errno. */
export function osError(errno: string): string {
  const number = errnoNumber(errno);
  return `${errnoWords(errno)}${number === undefined ? '' : ` (os error ${number})`}`;
}

interface Words {
  readonly message: string;
  readonly cause?: string;
}

function inMdevctlWords(error: PearasysError, failed: FailedCommand, host: HostReader): Words {
  const {words} = failed;
  const {uuid} = words;
  const parent = words.parent ?? '';
  const type = failed.type ?? words.type ?? '';
  switch (error.code) {
    case 'uuid-in-use': {
      const existing = readMdev(host, uuid);
      if (existing?.parent !== words.parent) return {message: 'Device exists under different parent'};
      return {
        message: existing?.type === type ? 'Device already exists' : 'Device exists with different type',
      };
    }
    case 'no-parent': {
      const like = readParentNames(host).find((name) => name.toLowerCase() === parent.toLowerCase());
      const meant = like === undefined ? '' : `. Did you mean '${like}'?`;
      return {message: `Unable to find parent device '${parent}'${meant}`};
    }
    case 'not-registered':
      return {message: `Parent ${parent} is not currently registered for mdev support`};
    case 'no-type':
      return {message: `Parent ${parent} does not support mdev type ${type}`};
    case 'no-instances':
      return {message: `No available instances of ${type} on ${parent}`};
    case 'bad-attribute': {
      const name = /'(.*)' is not the name of an attribute/s.exec(error.message)?.[1];
      return {message: name === undefined ? error.message : `Invalid attribute '${name}'`};
    }
    case 'already-defined':
      return {
        message:
          words.config === undefined
            ? `Device ${uuid} on ${parent} already defined`
            : `Cowardly refusing to overwrite existing config for ${parent}/${uuid}`,
      };
    case 'no-device':
    case 'in-use':
    case 'write-stuck':
      if (failed.command !== 'stop') break;
      return {
        message: `Error removing device ${uuid}`,
        cause:
          error.code === 'no-device'
            ? osError('ENOENT')
            : [error.message, ...error.details.filter((line) => line !== 'nothing was changed')].join('; '),
      };
    case 'not-root':
      return systemRefused(failed, 'EACCES');
    case 'write-failed':
    case 'file-failed': {
      const reason = error instanceof WriteError || error instanceof FileError ? error : error.cause;
      if (reason instanceof WriteError) return writeRefused(failed, reason);
      if (reason instanceof FileError) return systemRefused(failed, reason.errno);
      break;
    }
    default:
  }
  return {
    message: error.message,
    ...(error.details[0] === undefined ? {} : {cause: error.details[0]}),
  };
}

function writeRefused(failed: FailedCommand, {path, value, errno}: WriteError): Words {
  const folder = mdevPath(failed.words.uuid);
  if (failed.command !== 'start' || !path.startsWith(`${folder}/`)) return systemRefused(failed, errno);
  const attribute = path.slice(folder.length + 1);
  return errno === 'ENOENT'
    ? {message: `Invalid attribute '${attribute}'`}
    : {message: `Failed to write ${value} to attribute ${attribute}`, cause: osError(errno)};
}

function systemRefused({command, words, type}: FailedCommand, errno: string): Words {
  const {uuid} = words;
  const cause = osError(errno);
  switch (command) {
    case 'start':
      return {
        message: `Failed to create mdev ${uuid}, type ${type ?? words.type ?? ''} on ${words.parent ?? ''}`,
        cause,
      };
    case 'stop':
      return {message: `Error removing device ${uuid}`, cause};
    case 'undefine':
      return {message: 'Undefine failed', cause};
    default:
      return {message: `Failed to write config for device ${uuid}`, cause};
  }
}
