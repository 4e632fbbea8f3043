/**
 * 64 virtual functions of one NVMe device in a test machine, beside driverctl: from the write of their number until each
 * is on its driver, and until udev and systemd are done.
 */
import {available} from '../vm/image.js';
import {installProduct} from '../vm/install.js';
import {Machine} from '../vm/machine.js';
import {median, printResult} from './measure.js';

const ROUNDS = 3;
const names = ['pearasys', 'driverctl'] as const;
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

/** The most that the claims may take, as a ratio to driverctl. */
const VIRTUAL_TARGET = 0.3;

/** Seconds until all are claimed, and until nothing is under way any more; processes started until then. */
interface Creation {
  readonly claimed: number;
  readonly quiet: number;
  readonly processes: number;
}

const why = await available();
if (why === undefined) await benchVirtual();
else process.stdout.write(`Virtual functions: skipped: ${why}\n`);

async function benchVirtual(): Promise<void> {
  const machine = await Machine.boot({extraArguments: many});
  const count = `/sys/bus/pci/devices/${physical}/sriov_numvfs`;
  try {
    await installProduct(machine);
    await machine.sh('modprobe vfio-pci');
    await machine.sh(`echo ${VIRTUAL} >${count}`, {timeout: 300_000});
    const slots = await machine.sh(
      `cd /sys/bus/pci/devices/${physical}; for vf in virtfn*; do basename "$(readlink $vf)"; done`,
    );
    await machine.sh(`udevadm settle; echo 0 >${count}`, {timeout: 300_000});
    const preparations: Readonly<Record<Tool, readonly [before: string, after: string]>> = {
      pearasys: [
        `pearasys sriov set ${physical} ${VIRTUAL} --driver vfio-pci --later`,
        `pearasys sriov unset ${physical} --later`,
      ],
      driverctl: [
        `mkdir -p /etc/driverctl.d; for slot in ${slots.split('\n').join(' ')}; do echo vfio-pci >/etc/driverctl.d/pci-$slot; done`,
        'rm -f /etc/driverctl.d/*',
      ],
    };
    const found: Record<Tool, Creation[]> = {pearasys: [], driverctl: []};
    for (let round = 0; round < ROUNDS; round++)
      for (const tool of names) {
        const [before, after] = preparations[tool];
        await machine.sh(before);
        const autoprobe = tool === 'pearasys' ? '0' : '1';
        await machine.sh(`echo ${autoprobe} >/sys/bus/pci/devices/${physical}/sriov_drivers_autoprobe`);
        found[tool].push(await create(machine, count));
        await machine.sh(`${after}; echo 0 >${count}; udevadm settle`, {timeout: 300_000});
      }
    const middle = (tool: Tool, key: keyof Creation) => median(found[tool].map((one) => one[key]));
    process.stdout.write(`${VIRTUAL} virtual functions of one device, claimed as they appear\n`);
    printResult(
      `seconds until all are claimed (driverctl: ${middle('driverctl', 'claimed').toFixed(1)})`,
      middle('pearasys', 'claimed'),
      VIRTUAL_TARGET * middle('driverctl', 'claimed'),
    );
    printResult(
      `seconds until nothing is under way (driverctl: ${middle('driverctl', 'quiet').toFixed(1)})`,
      middle('pearasys', 'quiet'),
      middle('pearasys', 'claimed') + 2,
    );
    printResult(
      `processes (driverctl: ${middle('driverctl', 'processes')})`,
      middle('pearasys', 'processes'),
      undefined,
    );
  } finally {
    await machine.close();
  }
}

/** Writes the number and waits. The shell starts one process for each turn of its loops, which are not counted. */
async function create(machine: Machine, count: string): Promise<Creation> {
  const text = await machine.sh(
    `processes() { while read -r key value _; do if [ "$key" = processes ]; then started=$value; fi; done </proc/stat; }
seconds() { read -r now _ </proc/uptime; }
turns=0
processes; before=$started
seconds; echo "began $now"
echo ${VIRTUAL} >${count}
until set -- /sys/bus/pci/drivers/vfio-pci/*:*:*; [ "$#" -ge ${VIRTUAL} ]; do sleep 0.2; turns=$((turns + 1)); done
seconds; echo "claimed $now"
udevadm settle
until [ -z "$(systemctl list-jobs --no-legend)" ]; do turns=$((turns + 2)); sleep 0.2; done
seconds; echo "quiet $now"
processes; echo "processes $((started - before - turns - 3))"`,
    {timeout: 300_000},
  );
  const valueOf = (key: string) => Number(new RegExp(`^${key} ([\\d.]+)$`, 'm').exec(text)?.[1]);
  const began = valueOf('began');
  return {
    claimed: valueOf('claimed') - began,
    quiet: valueOf('quiet') - began,
    processes: valueOf('processes'),
  };
}
