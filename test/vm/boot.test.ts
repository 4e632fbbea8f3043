/** Many claims at boot, on a real kernel: which driver is first, the number of processes, and claims that fail. */
import assert from 'node:assert/strict';
import {DEVICES} from './devices.js';
import {installProduct} from './install.js';
import {BOOT_LIMIT, explainFailures, Machine, skipUnlessAvailable} from './machine.js';
import {closeShared, Product} from './shared.js';

const unitOf = (slot: string): string => `pearasys-${slot}@vfio-pci.service`;
const claimOf = (slot: string): string => `pearasys-claim-${slot}@vfio-pci.service`;

/** All functions of the cards at these device numbers of the root bus. */
const functions = (cards: readonly string[]): string[] =>
  cards.flatMap((card) => [0, 1, 2, 3, 4, 5, 6, 7].map((number) => `0000:00:${card}.${number}`));

/** Sound cards, whose driver udev loads. */
const sound = functions(['0b', '0c', '0d', '0e']);
/** Their twins that are not claimed: one before them, one after them. */
const twins = ['0000:00:0a.1', '0000:00:0f.0'];
/** Network cards, whose driver the initramfs loads. */
const network = functions(['16']);
const claimed = [...sound, ...network];
const inUse = network[3] ?? '';
const untrusted = sound[20] ?? '';
const missing = '0000:00:1d.0';
/** Claimed without records. */
const onCommandLine = DEVICES.edu0.slot;
const inCredential = DEVICES.edu1.slot;

const device = (kind: string, slot: string): string =>
  `${kind},addr=${slot.slice(8)}${slot.endsWith('.0') ? ',multifunction=on' : ''}`;

describe('many claims at boot', function () {
  this.timeout(1_200_000);
  let product: Product;
  let machine: Machine;

  before(async function () {
    this.timeout(BOOT_LIMIT);
    await skipUnlessAvailable(this);
    await closeShared();
    machine = await Machine.boot({
      early: ['e1000e'],
      kernelParameters: `pearasys.claim=${onCommandLine},1234:11e8,vfio-pci`,
      extraArguments: [
        '-smbios',
        // QEMU reads two commas as one.
        `type=11,value=io.systemd.credential:pearasys.claim.edu=${inCredential},,1234:11e8,,vfio-pci`,
      ],
      extraDevices: [
        ...sound.map((slot) => device('ich9-intel-hda', slot)),
        device('ich9-intel-hda', '0000:00:0f.0'),
        ...network.map((slot) => `${device('e1000e', slot)},romfile=`),
      ],
    });
    await installProduct(machine);
    product = new Product(machine);
    // Log each start of Node. Units can write only to this folder.
    await machine.sh(
      'mv /usr/local/bin/node /usr/local/bin/node.real 2>/dev/null || mv /usr/bin/node /usr/bin/node.real',
    );
    await machine.sh(`for bin in /usr/local/bin /usr/bin; do
  if [ -e $bin/node.real ]; then
    printf '#!/bin/sh\\nif [ -d /run/pearasys ]; then echo "$*" >>/run/pearasys/node.log; fi\\nexec %s/node.real "$@"\\n' $bin >$bin/node
    chmod 755 $bin/node
  fi
done`);
  });
  after(() => (machine as Machine | undefined)?.close());
  explainFailures(() => machine);

  /** The arguments of each start of Node in this boot. */
  const starts = async (): Promise<string[]> =>
    (await machine.sh('cat /run/pearasys/node.log 2>/dev/null || true'))
      .split('\n')
      .filter((line) => line !== '');

  /** The drivers of devices, by slot. */
  const drivers = async (): Promise<ReadonlyMap<string, string>> => {
    const lines = await machine.sh(
      'for d in /sys/bus/pci/devices/*; do l=$(readlink $d/driver || true); echo "${d##*/} ${l##*/}"; done',
    );
    return new Map(lines.split('\n').map((line) => line.split(' ') as [string, string]));
  };

  /** The states of these units of all claimed devices, by slot. */
  const states = async (of = unitOf): Promise<ReadonlyMap<string, string>> => {
    const units = claimed.map(of);
    const text = await machine.sh(`systemctl show --property=Id,ActiveState ${units.join(' ')}`);
    return new Map(
      text.split('\n\n').map((block) => {
        const id = /^Id=(.*)$/m.exec(block)?.[1] ?? '';
        const slot = /[0-9a-f]{4}:[^@]*/.exec(id)?.[0] ?? '';
        return [slot, /^ActiveState=(.*)$/m.exec(block)?.[1] ?? ''];
      }),
    );
  };

  it('installs 40 devices in one command, and does not change their drivers', async () => {
    const before = await drivers();
    const slots = claimed.map((slot) => `-s ${slot}`).join(' ');
    await machine.sh(`pearasys ${slots} service install vfio-pci`, {timeout: 300_000});
    assert.deepEqual(await drivers(), before);
    assert.deepEqual(new Set((await states()).values()), new Set(['inactive']));
    const enabled = await machine.sh(`systemctl is-enabled ${claimed.map(unitOf).join(' ')}`);
    assert.deepEqual(new Set(enabled.split('\n')), new Set(['enabled']));
  });

  it('host drivers probe no claimed device, and one Node process claims those bound in the initramfs', async () => {
    await machine.reboot();
    const now = await drivers();
    for (const slot of claimed) assert.equal(now.get(slot), 'vfio-pci', slot);
    for (const slot of twins) assert.equal(now.get(slot), 'snd_hda_intel', slot);
    const log = await machine.kernelLog();
    for (const slot of sound) assert.doesNotMatch(log, new RegExp(`snd_hda_intel ${slot}`));
    // The driver logs a message for the one without a codec, and none for the other.
    assert.match(log, new RegExp(`snd_hda_intel ${twins[1] ?? ''}`));
    assert.deepEqual(new Set((await states()).values()), new Set(['active']));
    assert.equal(await machine.sh('systemctl list-units --failed --no-legend --plain "pearasys*"'), '');
    assert.equal((await starts()).length, 1, (await starts()).join('\n'));
    // Each unit's journal contains the steps for its device.
    assert.match(await product.journalOf(claimOf(network[7] ?? '')), /drivers\/e1000e\/unbind/);
    // A claim on the kernel command line and one in a credential are like the others.
    for (const slot of [onCommandLine, inCredential]) {
      assert.equal(now.get(slot), 'vfio-pci', slot);
      assert.equal(await product.stateOf(unitOf(slot)), 'active');
    }
    const {services} = await product.json<{services: {slot: string; source: string}[]}>('service', 'list');
    assert.deepEqual(
      services.filter(({source}) => source !== 'record').map(({slot, source}) => [slot, source]),
      [
        [onCommandLine, 'kernel-command-line'],
        [inCredential, 'credential'],
      ],
    );
    // For a device that is already on the driver, the unit starts no process.
    for (const slot of [...sound, onCommandLine, inCredential])
      assert.equal(await product.wasSkipped(claimOf(slot)), true, slot);
  });

  it('failures do not delay other claims: a device in use, an untrusted record, a missing card', async () => {
    await machine.writeFile(
      '/etc/systemd/system/holder.service',
      `[Unit]
DefaultDependencies=no
Before=systemd-udev-trigger.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'name=$(ls /sys/bus/pci/devices/${inUse}/net); ip addr add 192.0.2.1/24 dev $name; ip link set $name up'
[Install]
WantedBy=sysinit.target
`,
    );
    await machine.sh(`systemctl enable holder.service
chmod 666 /etc/pearasys/pci/${untrusted}-*
cd /etc/systemd/system
for file in pearasys-${sound[0]}*; do cp -r $file "$(echo $file | sed 's/${sound[0]}/${missing}/')"; done
cp -r sys-bus-pci-devices-${sound[0]}.device.wants sys-bus-pci-devices-${missing}.device.wants
cd sys-bus-pci-devices-${missing}.device.wants && mv pearasys-* ${unitOf(missing)}
cd /etc/pearasys/pci && sed 's/${sound[0]}/${missing}/' ${sound[0]}-0x8086-0x293e >${missing}-0x8086-0x293e`);
    await machine.reboot();
    const now = await drivers();
    // A card is claimed as a whole or not at all.
    const failing = new Set([...network, untrusted]);
    for (const slot of claimed) if (!failing.has(slot)) assert.equal(now.get(slot), 'vfio-pci', slot);
    assert.equal(now.get(inUse), 'e1000e');
    assert.equal(now.get(untrusted), 'snd_hda_intel');
    for (const [slot, state] of await states())
      assert.equal(state, failing.has(slot) ? 'inactive' : 'active', slot);
    for (const [slot, state] of await states(claimOf))
      assert.equal(state, failing.has(slot) ? 'failed' : 'inactive', slot);
    for (const slot of [inUse, network[0] ?? ''])
      assert.match(await product.journalOf(claimOf(slot)), /in use[^]*192\.0\.2\.1/);
    assert.match(await product.journalOf(claimOf(untrusted)), /writable by others/);
    assert.equal(await product.stateOf(unitOf(missing)), 'inactive');
    assert.equal((await starts()).length, 1, (await starts()).join('\n'));
    const {services} = await product.json<{services: {slot: string; active: string}[]}>('service', 'list');
    for (const {slot, active} of services)
      if (slot !== missing) assert.equal(active, failing.has(slot) ? 'failed' : 'active', slot);
    // A later start does not use the result of the boot.
    await machine.sh(`ip addr flush dev "$(ls /sys/bus/pci/devices/${inUse}/net)"
systemctl start ${unitOf(inUse)}`);
    assert.equal(await product.driverOf(inUse), 'vfio-pci');
  });

  describe('with claims switched off on the kernel command line', () => {
    before(async () => {
      // QEMU uses the same command line for each boot, so another one is mounted over it.
      await machine.writeFile(
        '/etc/systemd/system/command-line.service',
        `[Unit]
DefaultDependencies=no
ConditionPathExists=/etc/command-line
Before=pearasys-early.service systemd-udevd.service systemd-udev-trigger.service
[Service]
Type=oneshot
ExecStart=/bin/mount --bind /etc/command-line /proc/cmdline
[Install]
WantedBy=sysinit.target
`,
      );
      await machine.sh(`systemctl disable holder.service
chmod 644 /etc/pearasys/pci/${untrusted}-*
systemctl enable command-line.service`);
    });

    const rebootWith = async (words: string): Promise<void> => {
      await machine.sh(`while umount /proc/cmdline 2>/dev/null; do :; done
sed 's/$/ ${words}/' /proc/cmdline >/etc/command-line`);
      await machine.reboot();
    };

    it('pearasys=off leaves all devices to their host drivers, and no unit starts or fails', async () => {
      await rebootWith('pearasys=off');
      const now = await drivers();
      for (const slot of claimed) assert.notEqual(now.get(slot), 'vfio-pci', slot);
      for (const slot of network) assert.equal(now.get(slot), 'e1000e', slot);
      assert.equal(now.get(sound[0] ?? ''), 'snd_hda_intel');
      assert.deepEqual(new Set((await states()).values()), new Set(['inactive']));
      assert.deepEqual(new Set((await states(claimOf)).values()), new Set(['inactive']));
      assert.deepEqual(await starts(), []);
      assert.match(
        (await machine.run('pearasys service list')).stderr,
        /all claims are switched off for this boot by pearasys=off/,
      );
      // Commands of users still work.
      await machine.sh(`pearasys bind vfio-pci ${sound[0]} --force`);
      assert.equal(await product.driverOf(sound[0] ?? ''), 'vfio-pci');
    });

    it('pearasys.skip= does it for single devices', async () => {
      const skipped = [sound[0] ?? '', sound[1] ?? ''];
      // A sandboxed unit sees the kernel's own command line, not the one in its place: no claim may need Node.
      await machine.sh(`systemctl disable ${network.map((slot) => unitOf(slot)).join(' ')}`);
      await rebootWith(`pearasys.skip=${skipped[0]?.slice(5)},${skipped[1]}`);
      const now = await drivers();
      assert.deepEqual(
        skipped.map((slot) => now.get(slot)),
        ['snd_hda_intel', 'snd_hda_intel'],
      );
      for (const slot of sound) if (!skipped.includes(slot)) assert.equal(now.get(slot), 'vfio-pci', slot);
      for (const [slot, state] of await states())
        assert.equal(state, skipped.includes(slot) || network.includes(slot) ? 'inactive' : 'active', slot);
      assert.deepEqual(await starts(), []);
      assert.equal(await machine.sh('systemctl list-units --failed --no-legend --plain "pearasys*"'), '');
      const {services} = await product.json<{services: {slot: string; switchedOff: boolean}[]}>(
        'service',
        'list',
      );
      assert.deepEqual(
        services.filter(({switchedOff}) => switchedOff).map(({slot}) => slot),
        skipped,
      );
    });

    it('an unconfirmed change is undone by the timer, and an unconfirmed claim by a reset', async () => {
      const slot = network[0] ?? '';
      const twin = twins[1] ?? '';
      assert.equal(await product.driverOf(slot), 'e1000e');
      await machine.sh(`pearasys bind vfio-pci ${slot} --force --confirm 60`);
      assert.equal(await product.driverOf(slot), 'vfio-pci');
      // A timer is active until its service has ended.
      await machine.waitUntil('! systemctl is-active pearasys-unconfirmed.timer', {timeout: 300_000});
      assert.equal(await product.driverOf(slot), 'e1000e');
      assert.equal(await machine.sh('ls /run/pearasys/unconfirmed 2>/dev/null || true'), '');

      await machine.sh(`pearasys -s ${twin} service install vfio-pci --now --confirm 3600`);
      assert.equal(await product.driverOf(twin), 'vfio-pci');
      await machine.powerCycle();
      assert.equal(await product.driverOf(twin), 'snd_hda_intel');
      assert.equal(await machine.sh(`ls /etc/pearasys/pci | grep ^${twin} || true`), '');
      await machine.sh(`pearasys -s ${twin} service install vfio-pci --now --confirm 3600
pearasys confirm`);
      assert.equal(await product.stateOf(unitOf(twin)), 'active');
      assert.equal(await product.stateOf('pearasys-unconfirmed.timer'), 'inactive');
      assert.equal(await product.driverOf(twin), 'vfio-pci');
    });
  });
});
