/** What pearasys writes for a device, and what dpdk-devbind.py writes for the same: both lead to the same driver. */
import assert from 'node:assert/strict';
import type {UserspaceResult} from '../../src/entry/cli/userspace.js';
import {changesOf, columnsOf, writesFor, writeTo, type Row} from '../sequence.js';
import {devbindWrites} from './devbind.js';
import {DEVICES} from './devices.js';
import {withProduct} from './shared.js';

const {slot, driver: hostDriver} = DEVICES.spareNetwork;

const {setsOverride, clearsOverride, unbinds, binds, probes} = writesFor(slot);

/** From the driver `from` to `to`, under an override that pearasys keeps. */
const claims = (from: string, to: string): Row[] => [
  {ours: setsOverride(to), why: 'before the unbind, so that no probe in between gives it to another driver'},
  unbinds(from),
  ...(to === 'vfio-pci'
    ? [{theirs: setsOverride(to), why: 'only after the unbind; pearasys has set it before'}]
    : []),
  {
    theirs: binds(to),
    ours: probes,
    why: 'under the override, a probe reaches only that driver, and is no error if udev was faster',
  },
  {theirs: clearsOverride, why: 'pearasys keeps it, so that no later probe gives it to another driver'},
];

const noted = `/run/pearasys/userspace/${slot}`;

/** Each state in which the device is on a driver without an override, and what both do then. */
const cases: readonly {
  readonly words: readonly [string, ...string[]];
  readonly same: string;
  readonly from: string;
  readonly to: string;
  readonly rows: readonly Row[];
}[] = [
  {
    words: ['-b', 'vfio-pci', slot],
    same: `bind vfio-pci ${slot}`,
    from: hostDriver,
    to: 'vfio-pci',
    rows: claims(hostDriver, 'vfio-pci'),
  },
  {
    words: ['-b', 'vfio-pci', slot],
    same: `userspace config ${slot}`,
    from: hostDriver,
    to: 'vfio-pci',
    rows: [
      {ours: `cat > ${noted}`, why: 'notes the interfaces that `userspace reset` waits for'},
      ...claims(hostDriver, 'vfio-pci'),
    ],
  },
  {
    words: ['-u', slot],
    same: `unbind ${slot}`,
    from: 'vfio-pci',
    to: '',
    rows: [unbinds('vfio-pci')],
  },
  {
    words: ['-b', hostDriver, slot],
    same: `bind ${hostDriver} ${slot}`,
    from: 'vfio-pci',
    to: hostDriver,
    rows: claims('vfio-pci', hostDriver),
  },
  {
    words: ['-b', hostDriver, slot],
    same: `userspace reset ${slot}`,
    from: 'vfio-pci',
    to: hostDriver,
    rows: [
      unbinds('vfio-pci'),
      {
        ours: 'modprobe pci:v00008086d000010D3sv00008086sd00000000bc02sc00i00',
        why: 'dpdk-devbind.py refuses a driver that is not loaded; no change if it is',
      },
      binds(hostDriver),
      {ours: probes, why: 'for a device that this driver has not taken; no change for one that has a driver'},
      {theirs: clearsOverride, why: 'there is none; pearasys clears its own before the unbind'},
    ],
  },
];

describe('sequences of writes on a real kernel', function () {
  const product = withProduct(this);

  /** Puts the device on a driver, without an override. */
  const put = async (driver: string) => {
    const {machine} = product();
    await machine.sh(`modprobe -a vfio-pci ${hostDriver}
cd /sys/bus/pci/devices/${slot}
echo ${driver} >driver_override
[ ! -e driver ] || echo ${slot} >driver/unbind
echo ${slot} >/sys/bus/pci/drivers_probe
echo >driver_override
udevadm settle`);
    assert.deepEqual([await product().driverOf(slot), await product().overrideOf(slot)], [driver, '(null)']);
  };

  afterEach(() => product().run('userspace', 'reset', slot));

  for (const {words, same, from, to, rows} of cases)
    it(`of dpdk-devbind.py ${words.join(' ')} and of ${same} differ only as listed`, async () => {
      const {machine} = product();
      await put(from);
      const lspci = await machine.sh('lspci -Dvmmnnk');
      const routes = await machine.sh('ip -o route');
      const writes = devbindWrites({lspci, routes}, words, [hostDriver]);
      for (const {path, data} of writes) {
        const bytes = [...Buffer.from(data)].map((byte) => `\\${byte.toString(8).padStart(3, '0')}`);
        await machine.sh(`printf '${bytes.join('')}' >${path}`);
      }
      assert.equal(await product().driverOf(slot), to);
      await put(from);
      const {steps} = await product().json<UserspaceResult>(...same.split(' '));
      assert.equal(await product().driverOf(slot), to);
      const {theirs, ours} = columnsOf(rows);
      assert.deepEqual(
        writes.map(({path, data}) => writeTo(path, data)),
        theirs,
      );
      assert.deepEqual(changesOf(steps), ours);
    });
});
