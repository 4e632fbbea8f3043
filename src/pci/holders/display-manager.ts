import type {HostReader} from '../../host/host.js';

/** Where systemd looks for units of the system, the first one that has it wins: systemd.unit(5). */
const folders = [
  '/etc/systemd/system',
  '/run/systemd/system',
  '/usr/local/lib/systemd/system',
  '/usr/lib/systemd/system',
  '/lib/systemd/system',
];

/**
 * The file of display-manager.service, most often a link to the display manager's own unit, see systemd.special(7);
 * undefined where there is none.
 */
export function displayManagerFile(host: HostReader): string | undefined {
  return folders
    .map((folder) => `${folder}/display-manager.service`)
    .find((path) => host.info(path, false) !== undefined);
}
