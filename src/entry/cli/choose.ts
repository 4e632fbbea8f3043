import {ExitCode, interrupted, PearasysError} from '../../host/errors.js';
import type {HostReader} from '../../host/host.js';
import {printable, printableLine} from '../../host/printable.js';
import {isBridge, readDevices, siblingsOf} from '../../devices/pci/device.js';
import {readNames} from '../../devices/pci/names.js';
import type {Context} from './context.js';

/**
 * Asks the user at the terminal for devices if the command line names none.
 * @returns the slots.
 * @throws PearasysError `usage` without a terminal, or when none is selected.
 */
export async function chooseDevices(context: Context, host: HostReader): Promise<string[]> {
  if (!context.interactive)
    throw new PearasysError({
      code: 'usage',
      exitCode: ExitCode.usage,
      message: 'no device was named',
      hint: 'name it by slot (-s 04:00.0) or id (-d 10de:1b80); `pearasys list` lists the devices',
    });
  const devices = readDevices(host).filter((device) => !isBridge(device));
  const names = readNames(host, devices);
  const {checkbox} = await import('@inquirer/prompts');
  return answered(
    checkbox(
      {
        message: 'Which devices?',
        required: true,
        choices: devices.map((device) => ({
          value: device.slot,
          name: `${device.slot}  ${device.id}  ${names.get(device.slot) ?? ''}  [${device.driver ?? 'no driver'}]`,
        })),
      },
      terminal(context),
    ),
  );
}

/** A device to choose. */
interface Choice {
  readonly slot: string;
  /** A line that begins with its number, which can be searched for too. */
  readonly text: string;
}

/** The devices as a numbered list, without bridges, which no guest can have. */
function listChoices(host: HostReader): Choice[] {
  const all = readDevices(host);
  const devices = all.filter((device) => !isBridge(device));
  const names = readNames(host, devices);
  const width = String(devices.length).length;
  return devices.map((device, index) => {
    const {slot, id, driver, group} = device;
    const siblings = siblingsOf(host, device, all).map((one) => one.slot.slice(-1));
    const facts = [
      driver ?? 'no driver',
      ...(group === undefined ? [] : [`group ${group}`]),
      ...(siblings.length === 0 ? [] : [`functions ${[slot.slice(-1), ...siblings].sort().join(' ')}`]),
    ];
    return {
      slot,
      text: printableLine(
        `${String(index + 1).padStart(width)}) ${slot}  ${id}  ${names.get(slot) ?? ''}  [${facts.join(', ')}]`,
      ),
    };
  });
}

/** The choices that contain all the words, in any order and case. A number alone is that choice. */
export function searchChoices(choices: readonly Choice[], term: string): Choice[] {
  const words = term.toLowerCase().split(/\s+/).filter(Boolean);
  const numbered = /^\d{1,4}$/.test(term.trim()) ? choices[Number(term) - 1] : undefined;
  const found = choices.filter(({text}) => words.every((word) => text.toLowerCase().includes(word)));
  return numbered === undefined ? found : [numbered, ...found.filter((choice) => choice !== numbered)];
}

/**
 * Lets the user at the terminal select devices one by one, with a search while typing. Selecting a device again
 * removes it, and the first line ends the selection.
 * @param proposed slots that are selected at the beginning.
 * @returns the slots.
 */
export async function chooseOneByOne(
  context: Context,
  host: HostReader,
  proposed: readonly string[],
): Promise<string[]> {
  const choices = listChoices(host);
  const picked = new Set(proposed.filter((slot) => choices.some((choice) => choice.slot === slot)));
  const {search} = await import('@inquirer/prompts');
  for (;;) {
    const answer = await answered(
      search<string>(
        {
          message: 'Which devices? (type to search)',
          pageSize: 12,
          source: (term = '') => [
            ...(term === '' && picked.size > 0
              ? [{value: '', name: `Done: ${[...picked].sort().join(', ')}`}]
              : []),
            ...searchChoices(choices, term).map(({slot, text}) => ({
              value: slot,
              name: `${picked.has(slot) ? '*' : ' '} ${text}`,
              short: slot,
            })),
          ],
        },
        terminal(context),
      ),
    );
    if (answer === '') return [...picked].sort();
    if (!picked.delete(answer)) picked.add(answer);
  }
}

/**
 * Asks the user at the terminal. Without a terminal the answer is yes.
 * @param options.mayBeNo whether the run continues after a no; otherwise it ends.
 * @param options.default the answer of an empty line; yes if it is not set.
 * @throws PearasysError `interrupted`: nothing was changed.
 */
export async function confirm(
  context: Context,
  message: string,
  {mayBeNo = false, ...options}: {readonly mayBeNo?: boolean; readonly default?: boolean} = {},
): Promise<boolean> {
  if (!context.interactive) return true;
  const {confirm: ask} = await import('@inquirer/prompts');
  const answer = await answered(
    ask({message: printable(message), default: true, ...options}, terminal(context)),
  );
  if (!answer && !mayBeNo) throw interrupted(['nothing was changed'], 'stopped: the answer was no');
  return answer;
}

function terminal({terminal: own}: Context): {
  input?: NodeJS.ReadableStream;
  output: NodeJS.WritableStream;
} {
  return own ?? {output: process.stderr};
}

/** The answer. @throws PearasysError `interrupted` when the user pressed Ctrl+C. */
function answered<T>(answer: Promise<T>): Promise<T> {
  return answer.catch((error: unknown) => {
    // By its name, because its class is in a separate package.
    if (!(error instanceof Error && error.name === 'ExitPromptError')) throw error;
    throw interrupted(['nothing was changed']);
  });
}
