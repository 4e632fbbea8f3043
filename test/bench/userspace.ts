/**
 * What it costs to give eight network cards to programs, in a test machine: one `userspace config`, beside eight calls of
 * driverctl and one of dpdk-devbind.py. All use vfio-pci, whose module is loaded.
 */
import {available, type Recipe} from '../vm/image.js';
import {installProduct} from '../vm/install.js';
import {Machine} from '../vm/machine.js';
import {median, printResult, ratio} from './measure.js';

const ROUNDS = 5;
/** The most that one `config` may take, as ratios to the others. */
const TARGETS = {driverctl: 1 / 3, 'dpdk-devbind.py': 1} as const;
/** With Python, for dpdk-devbind.py. */
const recipe: Recipe = {suite: 'bookworm', packages: ['dpdk']};

const slots = [0, 1, 2, 3, 4, 5, 6, 7].map((number) => `0000:00:0b.${number}`);
const all = slots.join(' ');

const tools = {
  pearasys: {
    take: `pearasys userspace config ${all}`,
    give: `pearasys userspace reset ${all}`,
  },
  driverctl: {
    take: `for slot in ${all}; do driverctl --nosave set-override $slot vfio-pci || exit; done`,
    give: `for slot in ${all}; do driverctl --nosave unset-override $slot || exit; done`,
  },
  'dpdk-devbind.py': {
    take: `dpdk-devbind.py -b vfio-pci ${all}`,
    give: `dpdk-devbind.py -b e1000e ${all}`,
  },
} as const;
type Tool = keyof typeof tools;
const names = Object.keys(tools) as Tool[];

const why = await available(recipe);
if (why === undefined) await benchConfig();
else process.stdout.write(`skipped: ${why}\n`);

async function benchConfig(): Promise<void> {
  const machine = await Machine.boot({
    ...recipe,
    extraDevices: slots.map(
      (slot) => `e1000e,addr=${slot.slice(8)},romfile=${slot.endsWith('.0') ? ',multifunction=on' : ''}`,
    ),
  });
  try {
    await installProduct(machine);
    await machine.sh('modprobe vfio-pci && udevadm settle');
    const started = async () => Number(await machine.sh("sed -n 's/^processes //p' /proc/stat"));
    const times: Record<Tool, number[]> = {pearasys: [], driverctl: [], 'dpdk-devbind.py': []};
    const processes: Record<Tool, number[]> = {pearasys: [], driverctl: [], 'dpdk-devbind.py': []};
    for (let round = 0; round < ROUNDS; round++)
      for (const tool of names) {
        const before = await started();
        const began = performance.now();
        await machine.sh(tools[tool].take, {timeout: 300_000});
        times[tool].push(performance.now() - began);
        processes[tool].push((await started()) - before);
        const taken = await machine.sh(`ls /sys/bus/pci/drivers/vfio-pci | grep -c '^0000:00:0b'`);
        if (taken !== '8') throw new Error(`${tool} has bound ${taken} of 8 devices`);
        await machine.sh(`${tools[tool].give} && udevadm settle`, {timeout: 300_000});
      }
    process.stdout.write('Eight network cards for programs\n');
    for (const [tool, target] of Object.entries(TARGETS) as [keyof typeof TARGETS, number][])
      printResult(`time of userspace config to ${tool}`, ratio(times.pearasys, times[tool]), target);
    for (const tool of names)
      printResult(`processes that ${tool} starts`, median(processes[tool]), undefined);
  } finally {
    await machine.close();
  }
}
