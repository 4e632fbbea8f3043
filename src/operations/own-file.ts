import {carryOut, type CarryOutOptions, type Outcome} from '../engine/carry-out.js';
import {ExitCode, PearasysError} from '../host/errors.js';
import type {Host, HostReader} from '../host/host.js';
import {plan, writeFile, type FileState} from '../plan/step.js';

/**
 * Writes a file that belongs to the user who runs this: a completion script, a report. Any user may.
 * @param mode permission bits of a new file.
 * @throws PearasysError `bad-path` if an existing file must not be replaced.
 */
export async function writeOwnFile(
  host: Host,
  path: string,
  text: string,
  options: CarryOutOptions,
  mode = 0o644,
): Promise<Outcome> {
  return await carryOut(
    host,
    [],
    () => {
      const before = readOwnFile(host, path);
      return plan(
        before?.content === text ? [] : [writeFile(path, text, before, before === undefined ? {mode} : {})],
      );
    },
    {...options, anyUser: true},
  );
}

/**
 * The user's file, or the target of the user's own link; undefined if it does not exist.
 * @throws PearasysError `bad-path` if an existing file must not be replaced.
 */
function readOwnFile(host: HostReader, path: string): FileState | undefined {
  const link = host.readLink(path);
  const info = host.info(path);
  if (link === undefined && info === undefined) return undefined;
  const real = host.realPath(path);
  const content = info?.kind === 'file' ? host.readBytes(path) : undefined;
  // Root must not follow a link of one user to a file of another.
  if (
    real === undefined ||
    info === undefined ||
    content === undefined ||
    (link !== undefined && info.uid !== host.userId)
  )
    throw new PearasysError({
      code: 'bad-path',
      exitCode: ExitCode.refused,
      message: `refusing to overwrite ${path}: it is not a file of user ${host.userId}`,
      details: ['nothing was changed'],
      hint: 'remove it, then run the same command again',
    });
  const {mode, uid, gid} = info;
  return {
    content: content.toString(),
    mode,
    // Only root can change the owner of a file.
    ...(uid === host.userId || host.userId === 0 ? {owner: {uid, gid}} : {}),
    ...(link === undefined ? {} : {behind: {path: real, link}}),
  };
}
