import {string} from '@oclif/core/args';
import {ExitCode, PearasysError} from '../../../../host/errors.js';
import type {Host} from '../../../../host/host.js';
import {shellWord} from '../../../../host/shell.js';
import {domainsFolder, readDomain} from '../../../../state/guests/domain.js';
import {readGuestFile} from '../../../../state/guests/guest-files.js';
import {qemuHook} from '../../../../state/guests/hooks.js';
import {parseGuest} from '../../../../state/guests/guest-name.js';
import {installHooks} from '../../../../operations/guest-hooks.js';
import {BaseCommand, changeFlags} from '../../base-command.js';
import {unknownDomain} from '../../guests.js';
import {changeResult, withChanges, type ChangeResult} from '../../switching.js';

/** What `--json` prints. */
export type GuestHooksResult = ChangeResult & {
  /** The hooks that libvirt runs now. */
  readonly hooks: readonly string[];
};

/** `pearasys guest install-hooks`: libvirt starts and stops the unit of a guest. */
export default class GuestInstallHooks extends BaseCommand {
  static override description =
    'Writes one executable file below /etc/libvirt/hooks/qemu.d. libvirt runs it for all guests; for a guest ' +
    'that is not set up, it only checks whether a file exists. If /etc/libvirt/hooks/qemu runs the hooks ' +
    'of each guest from a separate folder, as the VFIO-Tools script does, the file is written there; a test ' +
    'hook is tried first, as user nobody and without access to services, files and network. With --root, ' +
    'everything is written below that folder, for review.';
  static override examples = [
    '<%= config.bin %> guest install-hooks win11',
    '<%= config.bin %> guest install-hooks win11 --root /tmp/look',
  ];
  static override args = {guest: string({description: 'the guest', required: true, ignoreStdin: true})};
  static override flags = changeFlags;

  async run(): Promise<GuestHooksResult> {
    const {args, flags} = await this.parse(GuestInstallHooks);
    const guest = parseGuest(args.guest);
    const host = await this.openHost();
    const {layout} = this.context;
    const libvirt = await this.#openLibvirt(host);
    // A folder for inspection need not have all files of a machine.
    if (host.root === '/' && readGuestFile(host, layout, guest) === undefined)
      throw new PearasysError({
        code: 'no-guest',
        exitCode: ExitCode.noDevice,
        message: `guest ${guest} is not set up: the hook would do nothing`,
        details: ['nothing was changed'],
        hint: `pearasys guest setup ${shellWord(guest)}`,
      });
    const unknown = unknownDomain(guest, await readDomain(libvirt, guest));
    const notes: string[] = [];
    const outcome = await withChanges(this, flags, notes, (options) =>
      installHooks(host, layout, guest, {libvirt, notes: unknown === undefined ? [] : [unknown]}, options),
    );
    const {hooks} = outcome;
    const result = {...changeResult(host, [outcome], flags, notes, []), hooks};
    if (result.dryRun) for (const line of result.steps) this.log(line);
    else for (const path of hooks) this.log(path);
    // libvirt searches for hooks when it starts, and does not look into folders that are created later.
    if (result.changed && host.root === '/')
      this.note(
        'libvirt looks for new hooks when it starts: systemctl try-restart libvirtd (on some systems virtqemud); running guests are not affected',
      );
    return result;
  }

  /** Where libvirt is: on the machine, if a folder for inspection has nothing of it except our files. */
  async #openLibvirt(host: Host): Promise<Host> {
    const own = host.root === '/' || host.exists(domainsFolder) || host.exists(qemuHook);
    return own ? host : await this.context.openHost(undefined);
  }
}
