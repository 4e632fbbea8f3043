import {ExitCode, PearasysError} from '../host/errors.js';
import type {HostReader} from '../host/host.js';
import {isBridge, readDevices} from '../pci/device.js';
import {readNames} from '../pci/names.js';
import type {Context} from './context.js';

/**
 * Lets the person at the terminal pick devices when the command line names none.
 * @returns the slots.
 * @throws PearasysError `usage` without a terminal, or when none is picked.
 */
export async function chooseDevices(context: Context, host: HostReader): Promise<string[]> {
  if (!context.interactive)
    throw new PearasysError({
      code: 'usage',
      exitCode: ExitCode.usage,
      message: 'no device was named',
      hint: 'name it by slot (-s 04:00.0) or id (-d 10de:1b80); `pearasys list` shows what there is',
    });
  const devices = readDevices(host).filter((device) => !isBridge(device));
  const names = readNames(host, devices);
  const {checkbox} = await import('@inquirer/prompts');
  const answer = checkbox(
    {
      message: 'Which devices?',
      required: true,
      choices: devices.map((device) => ({
        value: device.slot,
        name: `${device.slot}  ${device.id}  ${names.get(device.slot) ?? ''}  [${device.driver ?? 'no driver'}]`,
      })),
    },
    {output: process.stderr},
  );
  return answer.catch((error: unknown) => {
    // Told by its name: its class is in a package of its own.
    if (!(error instanceof Error && error.name === 'ExitPromptError')) throw error;
    throw new PearasysError({
      code: 'interrupted',
      exitCode: ExitCode.failed,
      message: 'interrupted',
      details: ['nothing was changed'],
    });
  });
}
