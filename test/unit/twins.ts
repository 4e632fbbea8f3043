/** Machines with four cards of one model, for tests of what identifies a card. */
import type {FunctionDeclaration, MachineDeclaration} from '../simulated-host/declaration.js';
import {standardMachine} from '../simulated-host/standard-machine.js';

/** How the four cards are connected. */
export type Topology = 'own root ports' | 'one switch';

/** A machine at one of its boots. */
export interface Boot {
  readonly topology: Topology;
  /** Which card is in each of the four places; undefined for an empty one. */
  readonly places: readonly (number | undefined)[];
  /** Whether the cards have serial numbers. */
  readonly numbered: boolean;
  /** How many buses there are before the cards' that were not there at the first boot. */
  readonly shift: number;
}

/** The serial number of a card. */
export function numberOf(card: number): string {
  return `00-11-22-33-44-55-66-0${card}`;
}

/** All orders of four cards. */
export const orders: readonly (readonly number[])[] = permutations([0, 1, 2, 3]);

function permutations(list: readonly number[]): number[][] {
  if (list.length === 0) return [[]];
  return list.flatMap((first) =>
    permutations(list.filter((one) => one !== first)).map((rest) => [first, ...rest]),
  );
}

/** The buses of the four places. */
function busesOf({topology, shift}: Pick<Boot, 'topology' | 'shift'>): number[] {
  // The switch has two buses of its own.
  const first = (topology === 'one switch' ? 4 : 2) + shift;
  return [0, 1, 2, 3].map((place) => first + place);
}

const hex = (number: number) => number.toString(16).padStart(2, '0');

/** The slot of a function of the card in a place. */
export function slotIn(boot: Pick<Boot, 'topology' | 'shift'>, place: number, fn = 0): string {
  return `0000:${hex(busesOf(boot)[place] ?? 0)}:00.${fn}`;
}

/** The path of a function of the card in a place, which is the same at each boot. */
export function pathIn(topology: Topology, place: number, fn = 0): string {
  return topology === 'one switch'
    ? `0000:00/1c.0/00.0/0${place}.0/00.${fn}`
    : `0000:00/1c.${place}/00.${fn}`;
}

/** The machine at a boot: a display and an audio function on each card, and the serial number on the display's. */
export function machineAt(boot: Boot): MachineDeclaration {
  const bridge = (slot: string, behind?: string): FunctionDeclaration => ({
    slot,
    id: '8086:a338',
    class: '060400',
    driver: 'pcieport',
    ...(behind === undefined ? {} : {behind}),
  });
  const functions: FunctionDeclaration[] = [];
  // Bridges in slots before those of the cards take the buses from 02 on.
  for (let one = 0; one < boot.shift; one++) functions.push(bridge(`0000:00:10.${one}`));
  const upstream = 2 + boot.shift;
  if (boot.topology === 'one switch')
    functions.push(bridge('0000:00:1c.0'), bridge(`0000:${hex(upstream)}:00.0`, '0000:00:1c.0'));
  boot.places.forEach((card, place) => {
    const port =
      boot.topology === 'one switch' ? `0000:${hex(upstream + 1)}:0${place}.0` : `0000:00:1c.${place}`;
    functions.push(
      boot.topology === 'one switch' ? bridge(port, `0000:${hex(upstream)}:00.0`) : bridge(port),
    );
    if (card === undefined) return;
    const shared = {subsystem: '1043:8599', behind: port, group: 10 + place, resetMethods: ['bus']};
    functions.push(
      {
        ...shared,
        slot: slotIn(boot, place),
        id: '10de:1b80',
        class: '030000',
        dsn: boot.numbered ? numberOf(card) : '',
        drm: {},
      },
      {...shared, slot: slotIn(boot, place, 1), id: '10de:10f0', class: '040300', sound: true},
    );
  });
  return {
    ...standardMachine(),
    processes: [],
    mounts: [],
    swaps: [],
    routes: [],
    stacks: [],
    functions,
    virtualInterfaces: [],
    claimed: [],
  };
}
