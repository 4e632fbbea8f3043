import type {HostReader} from '../../host/host.js';
import {systemdUnits} from '../../config/layout.js';
import {poolFolder} from '../../devices/memory/huge-pages.js';
import {parseSize, printSize} from '../../devices/memory/size.js';
import {render} from '../../systemd/templates.js';
import {mountUnitName} from '../../systemd/unit.js';

/** A folder where huge pages are mounted at boot. */
export interface PageMount {
  readonly where: string;
  /** Bytes of one page. */
  readonly pageSize: number;
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
export function printMountUnit({where, pageSize}: PageMount): string {
  return render('hugepages.mount', {
    where: where.replaceAll('%', '%%'),
    size: printSize(pageSize),
    pool: poolFolder('machine', pageSize),
  });
}

/** What a unit's text says; undefined for a unit that pearasys did not write. */
export function parseMountUnit(text: string): PageMount | undefined {
  if (!text.startsWith('# Written by `pearasys hugepages set`')) return undefined;
  const where = /^Where=(\/.*)$/m.exec(text)?.[1]?.replaceAll('%%', '%');
  const size = /^Options=.*\bpagesize=(\d+[KMGT])$/m.exec(text)?.[1];
  return where === undefined || size === undefined ? undefined : {where, pageSize: parseSize(size)};
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
