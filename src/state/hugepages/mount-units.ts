import type {HostReader} from '../../host/host.js';
import {systemdUnits} from '../../config/layout.js';
import {poolFolder} from '../../devices/memory/huge-pages.js';
import {parseSize, printSize} from '../../devices/memory/size.js';
import {render} from '../../systemd/templates.js';
import {mountUnitName} from '../../systemd/unit.js';
import {folderMode, parseAccount, printMode, type NodeAccess} from '../records/node-access.js';

/** A folder where huge pages are mounted at boot. */
export interface PageMount {
  readonly where: string;
  /** Bytes of one page. */
  readonly pageSize: number;
  /**
   * Who may create files in it, by number: that is what the file system takes. The mode is that of a file; undefined for
   * root only.
   */
  readonly access?: NodeAccess;
}

/** The file of a mount's unit. */
export function mountUnitPath({where}: Pick<PageMount, 'where'>): string {
  return `${systemdUnits}/${mountUnitName(where)}`;
}

/** The link that enables it. */
export function mountUnitLink({where}: Pick<PageMount, 'where'>): string {
  return `${systemdUnits}/local-fs.target.wants/${mountUnitName(where)}`;
}

/** The text of a mount's unit. */
export function printMountUnit({where, pageSize, access}: PageMount): string {
  return render('hugepages.mount', {
    where: where.replaceAll('%', '%%'),
    size: printSize(pageSize),
    owner: access === undefined ? '' : printOwner(access),
    pool: poolFolder('machine', pageSize),
  });
}

function printOwner({user, group, mode}: NodeAccess): string {
  return [
    ...(user === undefined ? [] : [`,uid=${user}`]),
    ...(group === undefined ? [] : [`,gid=${group}`]),
    `,mode=${printMode(folderMode(mode))}`,
  ].join('');
}

/** What a unit's text says; undefined for a unit that pearasys did not write. */
export function parseMountUnit(text: string): PageMount | undefined {
  if (!text.startsWith('# Written by `pearasys hugepages set`')) return undefined;
  const where = /^Where=(\/.*)$/m.exec(text)?.[1]?.replaceAll('%%', '%');
  const [, size, user, group, mode] =
    /^Options=.*\bpagesize=(\d+[KMGT])(?:,uid=(\d+))?(?:,gid=(\d+))?(?:,mode=(0\d{3}))?$/m.exec(text) ?? [];
  if (where === undefined || size === undefined) return undefined;
  const mount = {where, pageSize: parseSize(size)};
  if (mode === undefined) return mount;
  const [own, shared] = [user, group].map((number) =>
    number === undefined ? undefined : parseAccount(number),
  );
  return {
    ...mount,
    access: {
      ...(own === undefined ? {} : {user: own}),
      ...(shared === undefined ? {} : {group: shared}),
      mode: parseInt(mode, 8) & 0o666,
    },
  };
}

/** The mounts that have a unit of pearasys. */
export function readPageMounts(host: HostReader): PageMount[] {
  return host
    .list(systemdUnits)
    .filter((name) => name.endsWith('.mount'))
    .flatMap((name) => {
      const path = `${systemdUnits}/${name}`;
      const text = host.info(path)?.kind === 'file' ? host.readText(path) : undefined;
      const mount = text === undefined ? undefined : parseMountUnit(text);
      return mount !== undefined && mountUnitName(mount.where) === name ? [mount] : [];
    });
}
