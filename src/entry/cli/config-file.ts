import {errnoOf, ExitCode, FileError, PearasysError} from '../../host/errors.js';
import {readNamedFile} from '../../host/root-folder.js';
import {parseConfig, type MdevConfig} from '../../state/definitions/definition.js';

/**
 * Reads a file in mdevctl's JSON; `-` and `/dev/stdin` are standard input.
 * @throws FileError, or PearasysError `bad-definition` with exit code 2.
 */
export function readConfigFile(path: string | undefined): MdevConfig | undefined {
  if (path === undefined) return undefined;
  let text: string;
  try {
    text = readNamedFile(path).toString();
  } catch (error) {
    throw new FileError('reading', path, errnoOf(error), error);
  }
  try {
    return parseConfig(text);
  } catch (error) {
    if (!(error instanceof PearasysError)) throw error;
    throw new PearasysError({
      code: error.code,
      exitCode: ExitCode.usage,
      message: `${path} is not used: ${error.message}`,
      hint: '{"mdev_type": "TYPE", "start": "manual", "attrs": [{"NAME": "VALUE"}]}',
      cause: error,
    });
  }
}
