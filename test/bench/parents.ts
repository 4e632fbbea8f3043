/**
 * What it takes until all devices of a parent that registers are there, which is when udev is done with the last one,
 * and with pearasys's rule until their units are active too. In a test machine, as mdevctl's rule would start devices
 * on this one.
 */
import {available} from '../vm/image.js';
import {installProduct} from '../vm/install.js';
import {Machine} from '../vm/machine.js';
import {mdevRecipe} from '../vm/recipes.js';
import {median, printResult} from './measure.js';

/** As many as the parent `mtty` has instances. */
const COUNT = 24;
const ROUNDS = 7;

const RULES = {pearasys: '60-pearasys-mdev.rules', mdevctl: '60-mdevctl.rules'} as const;
type Tool = keyof typeof RULES;

const recipe = mdevRecipe();
const why = await available(recipe);
if (why === undefined) await bench();
else process.stdout.write(`Registering a parent with ${COUNT} definitions: skipped: ${why}\n`);

async function bench(): Promise<void> {
  const machine = await Machine.boot(recipe);
  try {
    await installProduct(machine);
    // Where Debian's rule looks for it, and Debian's package does not put it.
    await machine.sh('[ -e /usr/sbin/mdevctl ] || ln -s ../bin/mdevctl /usr/sbin');
    // driverctl's rule starts a shell script for each device of VFIO, which takes more time than both contenders.
    await machine.sh('ln -s /dev/null /etc/udev/rules.d/89-vfio-uio.rules');
    for (let index = 0; index < COUNT; index++)
      await machine.writeFile(
        `/etc/mdevctl.d/mtty/000000${10 + index}-0000-4000-8000-000000000000`,
        '{\n  "mdev_type": "mtty-1",\n  "start": "auto",\n  "attrs": []\n}',
      );
    const times: Record<Tool | 'units', number[]> = {pearasys: [], units: [], mdevctl: []};
    for (let round = 0; round < ROUNDS; round++)
      for (const tool of ['pearasys', 'mdevctl'] as const) {
        const {there, active} = await register(machine, tool);
        // The first round fills the caches.
        if (round === 0) continue;
        times[tool].push(there);
        if (active !== undefined) times.units.push(active);
      }
    const base = median(times.mdevctl);
    process.stdout.write(
      `Registering a parent with ${COUNT} definitions (mdevctl's own rule takes ${base.toFixed(0)} ms and is 1)\n`,
    );
    printResult("pearasys's rule, until all are there", median(times.pearasys) / base, 1);
    // What counts is that the devices are there; mdevctl has no units to compare with.
    printResult("pearasys's rule, until all units are active", median(times.units) / base, undefined);
  } finally {
    await machine.close();
  }
}

/** Milliseconds from the load of the parent's driver. All stamps are of the machine's monotonic clock. */
async function register(machine: Machine, tool: Tool): Promise<{there: number; active: number | undefined}> {
  const other = tool === 'pearasys' ? 'mdevctl' : 'pearasys';
  await machine.sh(`rmmod mtty 2>/dev/null || true
rm -f /etc/udev/rules.d/${RULES[tool]}
ln -sfn /dev/null /etc/udev/rules.d/${RULES[other]}
udevadm control --reload
udevadm settle`);
  await machine.waitUntil('test -z "$(systemctl list-jobs --no-legend)"');
  const log = '/run/bench.events';
  const journal = '/run/bench.journal';
  const listeners = await Promise.all([
    machine.start(`exec stdbuf -oL udevadm monitor --udev --subsystem-match=mdev >${log}`),
    machine.start(`exec journalctl --follow --lines=1 --output=cat _PID=1 >${journal}`),
  ]);
  await machine.waitUntil(`grep -q '^UDEV' ${log} && test -s ${journal}`);
  const began = Number(await machine.sh("cut -d ' ' -f 1 /proc/uptime; modprobe mtty"));
  await machine.waitUntil(`test "$(grep -c '^UDEV *\\[.*\\] add ' ${log})" = ${COUNT}`);
  const there = await machine.sh(`sed -n 's/^UDEV *\\[\\([0-9.]*\\)\\] add .*/\\1/p' ${log}`);
  // systemd is asked only when it has said so: it would be busy with answers.
  if (tool === 'pearasys')
    await machine.waitUntil(`test "$(grep -c '^Finished mdev@' ${journal})" -ge ${COUNT}`);
  const active = tool === 'pearasys' ? await whenActive(machine) : undefined;
  for (const listener of listeners) {
    listener.kill();
    await listener.exited;
  }
  const since = (stamps: string) => (Math.max(...stamps.split('\n').map(Number)) - began) * 1000;
  return {there: since(there), active: active === undefined ? undefined : since(active)};
}

/** When each unit of a mediated device became active, in seconds. */
async function whenActive(machine: Machine): Promise<string> {
  return await machine.sh(
    "systemctl show --value --property=ActiveEnterTimestampMonotonic 'mdev@*' | awk 'NF { print $1 / 1e6 }'",
  );
}
