import {usageError} from '../../host/errors.js';
import {parseDriver} from '../../devices/pci/driver.js';
import {nearest} from '../../devices/pci/find.js';
import {parseId} from '../../devices/pci/id.js';
import {deviceVerbs, driverVerbs} from '../../plan/switch/verbs.js';
import type {ChainAction} from '../../operations/chain.js';

/** One link of a `pci` chain as written: what to do, and to which devices. */
export interface ChainLink {
  readonly action: ChainAction;
  /** The slots and ids of the link's own `-s` and `-d`, which replace the outer ones; empty without any. */
  readonly words: readonly string[];
}

/** What a link of a chain is about. */
export const nouns = ['rescan', 'driver', 'device'] as const;
/** The verbs of a link about a driver. */
export const verbsOfDriver = [...driverVerbs, 'ls'] as const;

/**
 * Reads the words after `pearasys pci`: `driver DRIVER VERB`, `device [--driver DRIVER] VERB` and `rescan`, one
 * by one, each `driver` and `device` with its own `-s` and `-d`.
 * @throws PearasysError `usage` or `bad-driver`, exit code 2.
 */
export function parseChain(words: readonly string[]): ChainLink[] {
  const rest = [...words];
  const links: ChainLink[] = [];
  while (rest.length > 0) links.push(takeLink(rest));
  if (links.length === 0) throw usageError('pearasys pci: nothing to do', `one of ${nouns.join(', ')}`);
  return links;
}

function takeLink(rest: string[]): ChainLink {
  const noun = rest.shift() ?? '';
  switch (noun) {
    case 'rescan':
      return {action: {noun}, words: []};
    case 'driver':
      return takeDriverLink(rest);
    case 'device':
      return takeDeviceLink(rest);
    default:
      throw usageError(
        `pearasys pci: '${noun}' is not expected here`,
        `one of ${nouns.join(', ')}${nearest(noun, nouns)}`,
      );
  }
}

function takeDriverLink(rest: string[]): ChainLink {
  const before = takeOptions(rest, 'pci driver', false);
  const name = rest.shift();
  if (name === undefined)
    throw usageError('pearasys pci driver: missing: DRIVER', 'pci driver vfio-pci bind');
  const driver = parseDriver(name);
  const after = takeOptions(rest, 'pci driver', false);
  const verb = takeVerb(rest, verbsOfDriver, `pci driver ${name}`);
  return {action: {noun: 'driver', verb, driver}, words: [...before.words, ...after.words]};
}

function takeDeviceLink(rest: string[]): ChainLink {
  const {words, driver} = takeOptions(rest, 'pci device', true);
  const verb = takeVerb(rest, deviceVerbs, 'pci device');
  if (verb === 'driver-override') {
    if (driver === undefined)
      throw usageError(
        'pearasys pci device driver-override: missing: --driver DRIVER',
        "--driver vfio-pci, or --driver '' to clear the override",
      );
    return {action: {noun: 'device', verb, driver: driver === '' ? undefined : parseDriver(driver)}, words};
  }
  return {
    action: {noun: 'device', verb, ...(driver === undefined ? {} : {driver: parseDriver(driver)})},
    words,
  };
}

interface LinkOptions {
  readonly words: string[];
  driver?: string;
}

function takeOptions(rest: string[], where: string, takesDriver: boolean): LinkOptions {
  const options: LinkOptions = {words: []};
  for (let word = rest[0]; word?.startsWith('-') === true; word = rest[0]) {
    rest.shift();
    const [, name = word, attached] = /^(--[a-z-]+)=(.*)$/s.exec(word) ?? /^(-[sd])(.+)$/s.exec(word) ?? [];
    const value = attached ?? rest.shift();
    if (value === undefined) throw usageError(`pearasys ${where}: ${name} needs a value`);
    if (['-s', '--slot'].includes(name)) options.words.push(value);
    else if (['-d', '--id', '--pid'].includes(name)) options.words.push(parseId(value));
    else if (takesDriver && name === '--driver') options.driver = value;
    else
      throw usageError(
        `pearasys ${where} has no option ${name}`,
        `-s SLOT, -d VENDOR:DEVICE${takesDriver ? ', --driver DRIVER' : ''}`,
      );
  }
  return options;
}

function takeVerb<const Verbs extends readonly string[]>(
  rest: string[],
  verbs: Verbs,
  where: string,
): Verbs[number] {
  const word = rest.shift();
  const verb = verbs.find((one) => one === word);
  if (verb !== undefined) return verb;
  const expected = `one of ${verbs.join(', ')}`;
  throw word === undefined
    ? usageError(`pearasys ${where}: missing: what to do`, expected)
    : usageError(`pearasys ${where}: '${word}' is not expected here`, `${expected}${nearest(word, verbs)}`);
}
