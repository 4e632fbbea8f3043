import {ExitCode} from '../host/errors.js';
import type {Host, HostReader} from '../host/host.js';
import {runState} from '../host/paths.js';
import {startOf} from '../host/process.js';
import {applyPlan} from '../engine/apply.js';
import {plan, writeFile} from '../plan/step.js';
import {parseDriver} from '../devices/pci/driver.js';
import {parseSlot} from '../devices/pci/slot.js';
import type {UnitIdentity} from '../systemd/unit.js';

/** The suffix of the file with the result of a ticket. */
const resultEnding = '.result';

/**
 * Milliseconds after which no further job of another unit is begun, because this run's unit fails when its time limit
 * (TimeoutSec=) passes, regardless of the state of its device.
 */
const patience = 60_000;

/** One line for the journal, at a priority of syslog(3): 3 error, 4 warning, 5 notice, 6 information, 7 debugging. */
export type JournalLog = (priority: 3 | 4 | 5 | 6 | 7, line: string) => void;

/** The context of a run that works for several units. */
interface TurnContext {
  readonly host: Host;
  readonly log: JournalLog;
  /** systemd has ended this run: no further job is begun. */
  readonly signal?: AbortSignal;
  /** Logs an error to a journal. @returns its exit code. */
  readonly report: (error: unknown, log: JournalLog) => ExitCode;
}

/** Jobs of one kind that units wait for, see libexec/turn.sh. A job has the name of its ticket. */
interface Jobs {
  /** The program of libexec. */
  readonly what: 'claim' | 'release' | 'record';
  /** The job of the unit that started this run. */
  readonly own: string;
  /**
   * The jobs that are done together with this one, including itself.
   * @param waiting all jobs that units wait for now.
   */
  readonly together: (name: string, waiting: readonly string[]) => readonly string[];
  /**
   * Does a job, and those together with it. Its log and errors are written to the journals of the waiting units.
   * @param all the names of these jobs, and of all jobs that units wait for now.
   */
  readonly work: (
    log: JournalLog,
    name: string,
    all: {readonly names: readonly string[]; readonly waiting: readonly string[]},
  ) => Promise<void>;
  /** Jobs whose units will wait for them, but do not wait yet. */
  readonly due?: () => Promise<readonly string[]>;
}

/**
 * Does this unit's job, then those of all waiting units until none is left, so that one process does the work of
 * many. A job that fails stops none of the others.
 * @throws the error of this unit's job, after the others are done.
 */
export async function takeTurns(context: TurnContext, jobs: Jobs): Promise<void> {
  const {host, signal} = context;
  const began = Date.now();
  /** The process of each ticket with a result. */
  const answered = new Map<string, string>();
  const done = new Set<string>();
  const waiting = () => {
    const tickets = readTickets(host, jobs.what);
    return [...tickets.keys()].filter(
      (name) => name !== jobs.own && answered.get(name) !== tickets.get(name),
    );
  };

  const due = new Set(await jobs.due?.());

  const run = async (name: string): Promise<Error | undefined> => {
    const asking = waiting();
    const all = [...new Set([name, jobs.own, ...asking])];
    let names: readonly string[] = [name];
    const lines: string[] = [];
    const keep: JournalLog = (priority, text) =>
      lines.push(...text.split('\n').map((line) => `<${priority}>${line}`));
    // A job that no unit waits for is logged in the journal of this one.
    const told = name === jobs.own || !asking.includes(name);
    const log: JournalLog = (priority, text) => {
      keep(priority, text);
      if (told) context.log(priority, text);
    };
    let exitCode: ExitCode = ExitCode.done;
    let failure: Error | undefined;
    try {
      names = jobs.together(name, all);
      await jobs.work(log, name, {names, waiting: all});
    } catch (error) {
      failure = error instanceof Error ? error : new Error(String(error));
      exitCode = context.report(error, keep);
    }
    const tickets = readTickets(host, jobs.what);
    for (const each of names) {
      done.add(each);
      if (each === jobs.own) continue;
      const process = tickets.get(each);
      if (process !== undefined) answered.set(each, process);
      // A unit that starts later finds its device in the right state, unless the job has failed.
      const later = exitCode !== ExitCode.done && due.has(each) ? `boot ${uptime(host)}` : undefined;
      const owner = process ?? later;
      if (owner === undefined) continue;
      const text = [`${owner} ${exitCode}`, ...lines, ''].join('\n');
      const path = `${ticketsFolder(jobs.what)}/${each}${resultEnding}`;
      // Not by carryOut(): it would look for locked devices before and after each of them.
      await applyPlan(host, plan([writeFile(path, text, undefined)]), {limit: patience});
    }
    return failure;
  };

  const failure = await run(jobs.own);
  while (signal?.aborted !== true && Date.now() - began < patience) {
    const next = waiting()[0] ?? [...due].find((name) => !done.has(name));
    if (next === undefined) break;
    await run(next);
  }
  if (failure !== undefined) throw failure;
}

/** The job of a device's unit: `0000:04:00.0@vfio-pci`. */
export function jobName({slot, driver}: UnitIdentity): string {
  return `${slot}@${driver}`;
}

/** @throws PearasysError `bad-slot` or `bad-driver` for a ticket that no unit of a device has written. */
export function parseJobName(name: string): UnitIdentity {
  const [slot = '', driver = ''] = name.split(/@(.*)/s);
  return {slot: parseSlot(slot), driver: parseDriver(driver)};
}

/** The folder of a program's tickets. */
export function ticketsFolder(what: Jobs['what']): string {
  return `${runState}/${what}`;
}

/** The process that waits for each job, as the shell has written it; without units that have stopped waiting. */
function readTickets(host: HostReader, what: Jobs['what']): ReadonlyMap<string, string> {
  const folder = ticketsFolder(what);
  const tickets = new Map<string, string>();
  for (const name of host.list(folder)) {
    if (name.endsWith(resultEnding)) continue;
    const text = host.readText(`${folder}/${name}`) ?? '';
    const [pid = '', started] = text.split(' ');
    if (started !== undefined && startOf(host, Number(pid)) === started) tickets.set(name, text);
  }
  return tickets;
}

/** Seconds since the boot. */
function uptime(host: HostReader): number {
  return Math.floor(Number.parseFloat(host.readText('/proc/uptime') ?? '0'));
}
