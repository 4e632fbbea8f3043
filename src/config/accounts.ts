import type {HostReader} from '../host/host.js';

/** Users, or groups, each with its number, by name. */
export type Accounts = ReadonlyMap<string, number>;

/** The users in /etc/passwd, see passwd(5). Those of a directory service are not among them. */
export function readUsers(host: HostReader): Accounts {
  return readAccounts(host, '/etc/passwd');
}

/** The groups in /etc/group, see group(5). */
export function readGroups(host: HostReader): Accounts {
  return readAccounts(host, '/etc/group');
}

/** The names of the groups in /etc/group that a user is in, without the one in /etc/passwd. */
export function readGroupsOf(host: HostReader, user: string): string[] {
  return (host.readText('/etc/group') ?? '').split('\n').flatMap((line) => {
    const [name = '', , , members = ''] = line.split(':');
    return name !== '' && members.split(',').includes(user) ? [name] : [];
  });
}

/** Both files have the name first and the number third. The first of two lines with one name counts. */
function readAccounts(host: HostReader, path: string): Accounts {
  const accounts = new Map<string, number>();
  for (const line of (host.readText(path) ?? '').split('\n')) {
    const account = parseAccountLine(line);
    if (account !== undefined && !accounts.has(account.name)) accounts.set(account.name, account.number);
  }
  return accounts;
}

/** The name and the number in a line of passwd(5) or group(5), also as getent(1) prints it. */
export function parseAccountLine(line: string): {readonly name: string; readonly number: number} | undefined {
  const [, name, number] = /^([^:#+-][^:]*):[^:]*:(\d+):/.exec(line) ?? [];
  return name === undefined ? undefined : {name, number: Number(number)};
}
