import {execFileSync} from 'node:child_process';
import {mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';

const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';

/** dpdk-devbind.py as Debian has it. */
export interface DevbindPackage {
  readonly text: string;
  /** The version of the package `dpdk`. */
  readonly version: string;
}

/** Fetches the newest package of a Debian release by apt, which checks Debian's signature. */
export function fetchDevbind(suite: string): DevbindPackage {
  const scratch = mkdtempSync(join(tmpdir(), 'pearasys-devbind-'));
  try {
    return fetchInto(scratch, suite);
  } finally {
    rmSync(scratch, {recursive: true});
  }
}

/** With lists and settings of apt that are not this machine's. */
function fetchInto(scratch: string, suite: string): DevbindPackage {
  for (const name of ['lists/partial', 'cache/archives/partial'])
    mkdirSync(join(scratch, name), {recursive: true});
  writeFileSync(
    join(scratch, 'sources.list'),
    `deb [signed-by=${keyring}] http://deb.debian.org/debian ${suite} main\n`,
  );
  const settings = [
    ['Dir::State::lists', join(scratch, 'lists')],
    ['Dir::Cache', join(scratch, 'cache')],
    ['Dir::Etc::sourcelist', join(scratch, 'sources.list')],
    ['Dir::Etc::sourceparts', '/dev/null'],
    ['Acquire::Languages', 'none'],
    ['APT::Sandbox::User', ''],
  ].flatMap(([key = '', value = '']) => ['-o', `${key}=${value}`]);
  const apt = (...words: string[]) =>
    execFileSync('apt-get', [...settings, '--quiet', ...words], {
      cwd: scratch,
      stdio: ['ignore', 'ignore', 'inherit'],
    });
  apt('update');
  apt('download', 'dpdk');
  const file = readdirSync(scratch).find((name) => name.endsWith('.deb'));
  if (file === undefined) throw new Error('apt-get has not downloaded the package');
  execFileSync('dpkg-deb', ['--extract', file, 'package'], {cwd: scratch});
  return {
    text: readFileSync(join(scratch, 'package/usr/bin/dpdk-devbind.py'), 'utf8'),
    version: execFileSync('dpkg-deb', ['--field', file, 'Version'], {cwd: scratch, encoding: 'utf8'}).trim(),
  };
}
