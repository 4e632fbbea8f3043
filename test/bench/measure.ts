import {spawnSync} from 'node:child_process';

/** A program to be timed. */
export interface Contender {
  readonly name: string;
  readonly command: readonly [file: string, ...args: string[]];
}

/** The environment of everything that is timed: certificates alone make Node start three times slower. */
export function bareEnvironment(): NodeJS.ProcessEnv {
  const environment = {...process.env};
  for (const name of ['NODE_EXTRA_CA_CERTS', 'NODE_OPTIONS', 'NODE_PATH'])
    Reflect.deleteProperty(environment, name);
  return environment;
}

/** Milliseconds that whole processes take, by name: of each run, and they take turns. */
export function timeAll(
  contenders: readonly Contender[],
  runs: number,
): ReadonlyMap<string, readonly number[]> {
  const env = bareEnvironment();
  const times = new Map(contenders.map(({name}) => [name, [] as number[]]));
  for (let run = 0; run < runs; run++)
    for (const {name, command} of contenders) {
      const [file, ...args] = command;
      const began = performance.now();
      const {status, error, stderr} = spawnSync(file, args, {
        env,
        stdio: ['ignore', 'pipe', 'pipe'],
        maxBuffer: 1 << 28,
      });
      times.get(name)?.push(performance.now() - began);
      if (error !== undefined) throw error;
      if (status !== 0)
        throw new Error(`${command.join(' ')} ended with ${String(status)}: ${stderr.toString()}`);
    }
  return times;
}

/**
 * How long something takes, as a ratio to what took turns with it: the middle one of the ratios of each turn. The
 * machine may be faster at one time than at another, but hardly between two neighbours.
 */
export function ratio(times: readonly number[], base: readonly number[]): number {
  return median(times.map((time, turn) => time / (base[turn] ?? Number.NaN)));
}

/** The most memory a program has at once, in MB: getrusage(2) of the only child of a Perl, on x86-64. */
export function peakMemory(command: Contender['command']): number {
  const script = `open(STDOUT, ">/dev/null"); system(@ARGV) == 0 or exit 1;
    my $usage = "\\0" x 144; syscall(98, -1, $usage); print STDERR "peak ", unpack("x32 q", $usage), "\\n"`;
  const {stderr} = spawnSync('perl', ['-e', script, ...command], {
    env: bareEnvironment(),
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const kilobytes = /^peak (\d+)$/m.exec(stderr.toString())?.[1];
  if (kilobytes === undefined) throw new Error(`no peak in: ${stderr.toString()}`);
  return Number(kilobytes) / 1024;
}

/** A line of the report: what was measured, as a ratio or in its own unit, and what it should be at most. */
export function printResult(name: string, value: number, target: number | undefined, unit = ''): void {
  const verdict =
    target === undefined ? '' : value <= target ? `  at most ${target}: yes` : `  at most ${target}: NO`;
  process.stdout.write(`  ${name.padEnd(52)} ${value.toFixed(2).padStart(8)}${unit.padEnd(3)}${verdict}\n`);
}

/** The middle one, or the mean of both that are. */
export function median(list: readonly number[]): number {
  const sorted = [...list].sort((a, b) => a - b);
  const half = sorted.length >>> 1;
  const upper = sorted[half] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[half - 1] ?? Number.NaN)) / 2;
}
