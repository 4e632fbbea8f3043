/**
 * 64 virtual functions of one NVMe device in a test machine, beside driverctl, and beside a shell that only writes to
 * sysfs: from the write of their number until each is on its driver, and until udev and systemd are done. The guest's
 * clock counts instructions, so that the load of the host does not matter.
 */
import {available} from '../vm/image.js';
import {installProduct} from '../vm/install.js';
import {Machine} from '../vm/machine.js';
import {printResult} from './measure.js';

/** Each has one turn: with this clock, turns are alike. The kernel and udev alone also take the time of "writes". */
const names = ['pearasys', 'writes', 'driverctl'] as const;
type Tool = (typeof names)[number];

/** An NVMe controller with many virtual functions. */
const physical = '0000:05:00.0';
const VIRTUAL = 64;
const many = [
  ...['-device', 'nvme-subsys,id=many'],
  '-device',
  `nvme,bus=hotplug0,serial=many,subsys=many,sriov_max_vfs=${VIRTUAL},sriov_vq_flexible=${2 * VIRTUAL},` +
    `sriov_vi_flexible=${VIRTUAL},max_ioqpairs=${2 * VIRTUAL + 2},msix_qsize=${VIRTUAL + 2}`,
];

/** The most that the claims may take, as ratios. */
const TARGETS = {driverctl: 0.3, writes: 1.1} as const;
/** How often the machine looks whether all are claimed. */
const PATIENCE = 600;
/** The most that one step in the machine may take, in milliseconds of the host: its clock is slow. */
const LIMIT = 1_200_000;

/** Seconds until all are claimed, and from then until nothing is under way; processes started until then. */
interface Creation {
  readonly claimed: number;
  readonly quiet: number;
  readonly processes: number;
}

const why = await available();
if (why === undefined) await benchVirtual();
else process.stdout.write(`Virtual functions: skipped: ${why}\n`);

async function benchVirtual(): Promise<void> {
  const machine = await Machine.boot({extraArguments: many, countInstructions: true});
  const device = `/sys/bus/pci/devices/${physical}`;
  const count = `${device}/sriov_numvfs`;
  const run = (command: string) => machine.sh(command, {timeout: LIMIT});
  try {
    await installProduct(machine);
    await run('modprobe vfio-pci');
    await run(`echo ${VIRTUAL} >${count}`);
    const slots = await run(`cd ${device}; for vf in virtfn*; do basename "$(readlink $vf)"; done`);
    const all = slots.split('\n').join(' ');
    await run(`udevadm settle; echo 0 >${count}; udevadm settle`);
    /** What is done before, the writes themselves, and what is done after, by tool. */
    const sequences: Readonly<Record<Tool, readonly [before: string, writes: string, after: string]>> = {
      pearasys: [
        `pearasys sriov set ${physical} ${VIRTUAL} --driver vfio-pci --later; echo 0 >${device}/sriov_drivers_autoprobe`,
        `echo ${VIRTUAL} >${count}`,
        `pearasys sriov unset ${physical} --later`,
      ],
      driverctl: [
        `mkdir -p /etc/driverctl.d; for slot in ${all}; do echo vfio-pci >/etc/driverctl.d/pci-$slot; done; echo 1 >${device}/sriov_drivers_autoprobe`,
        `echo ${VIRTUAL} >${count}`,
        'rm -f /etc/driverctl.d/*',
      ],
      writes: [
        `echo 0 >${device}/sriov_drivers_autoprobe`,
        `echo ${VIRTUAL} >${count}
for slot in ${all}; do
  echo vfio-pci >/sys/bus/pci/devices/$slot/driver_override
  echo $slot >/sys/bus/pci/drivers/vfio-pci/bind
done`,
        'true',
      ],
    };
    const found = new Map<Tool, Creation>();
    const of = (tool: Tool): Creation => {
      const one = found.get(tool);
      if (one === undefined) throw new Error(`${tool} has had no turn`);
      return one;
    };
    for (const tool of names) {
      const [before, writes, after] = sequences[tool];
      // driverctl has a rule that starts three processes for each device of vfio-pci.
      const others = tool === 'driverctl' ? 'rm -f' : 'ln -sf /dev/null';
      await run(`${others} /etc/udev/rules.d/89-vfio-uio.rules; udevadm control --reload; ${before}`);
      found.set(tool, readCreation(tool, await run(creation(writes))));
      await run(`${after}; echo 0 >${count}; udevadm settle`);
    }
    process.stdout.write(`${VIRTUAL} virtual functions of one device, claimed as they appear\n`);
    for (const tool of ['driverctl', 'writes'] as const)
      printResult(
        `until all are claimed (${tool}: 1, ${of(tool).claimed.toFixed(1)} s)`,
        of('pearasys').claimed / of(tool).claimed,
        TARGETS[tool],
      );
    printResult('seconds from then until nothing is under way', of('pearasys').quiet, 2);
    for (const tool of names) printResult(`processes: ${tool}`, of(tool).processes, undefined);
  } finally {
    await machine.close();
  }
}

/** The shell program that does the writes and waits. Its loops start processes, which it does not count. */
function creation(writes: string): string {
  return `processes() { while read -r key value _; do if [ "$key" = processes ]; then started=$value; fi; done </proc/stat; }
seconds() { read -r now _ </proc/uptime; }
turns=0
processes; before=$started
seconds; echo "began $now"
${writes}
until set -- /sys/bus/pci/drivers/vfio-pci/*:*:*; [ "$#" -ge ${VIRTUAL} ] || [ $turns = ${PATIENCE} ]; do sleep 0.1; turns=$((turns + 1)); done
echo "bound $#"
seconds; echo "claimed $now"
udevadm settle
until [ -z "$(systemctl list-jobs --no-legend)" ]; do turns=$((turns + 2)); sleep 0.1; done
seconds; echo "quiet $now"
processes; echo "processes $((started - before - turns - 3))"`;
}

function readCreation(tool: Tool, text: string): Creation {
  const valueOf = (key: string) => Number(new RegExp(`^${key} ([\\d.]+)$`, 'm').exec(text)?.[1]);
  if (valueOf('bound') < VIRTUAL) throw new Error(`${tool} has not claimed all: ${text}`);
  const claimed = valueOf('claimed');
  return {
    claimed: claimed - valueOf('began'),
    quiet: valueOf('quiet') - claimed,
    processes: valueOf('processes'),
  };
}
