import assert from 'node:assert/strict';
import type {SimulatedHost} from '../simulated-host/simulated-host.js';
import {machines, runUnits} from '../unit/services.js';
import {typed} from './runs.js';

const card = '0000:02:00.0';
const sound = '0000:02:00.1';
const file = '/run/pearasys/unconfirmed';
const timer = 'pearasys-unconfirmed.timer';
const record = `/etc/pearasys/pci/${card}-0x10de-0x1b80`;

describe('a change that waits for its confirmation', () => {
  const made = machines();

  async function ends(host: SimulatedHost, line: string, code = 0) {
    const run = await typed(host, line);
    assert.equal(run.exitCode, code, run.stderr);
    await host.userland.idle();
    return run;
  }

  const drivers = (host: SimulatedHost) => [card, sound].map((slot) => host.machine.device(slot).driver);
  const bind = 'bind vfio-pci 02:00.* --confirm 60';
  const install = `-s ${card} service install vfio-pci --siblings --now --confirm 60`;

  it('is undone before it is changed: the timer comes first', async () => {
    const host = made();
    const {stderr} = await ends(host, bind);
    assert.match(stderr, /this change is undone in 60 s, or at a reboot, unless you run: pearasys confirm/);
    assert.deepEqual(drivers(host), ['vfio-pci', 'vfio-pci']);
    assert.equal(host.userland.state(timer), 'active');
    const [first, second] = host.effects();
    assert.equal(first, `write ${file} (600)`);
    assert.equal(
      second,
      'systemd-run --unit=pearasys-unconfirmed --collect --on-active=60 --timer-property=AccuracySec=1s -- /usr/local/sbin/pearasys confirm --undo',
    );
    assert.equal(host.info(file)?.mode, 0o600);
  });

  it('is undone by what the timer runs, to the drivers and overrides that were before', async () => {
    const host = made();
    await ends(host, `-s ${sound} pci device --driver snd_hda_intel driver-override`);
    const before = host.machine.bindings();
    await ends(host, bind);
    assert.notDeepEqual(host.machine.bindings(), before);
    await ends(host, 'confirm --undo');
    assert.deepEqual(host.machine.bindings(), before);
    assert.equal(host.exists(file), false);
    await ends(host, 'confirm --undo', 4);
  });

  it('stays when it is confirmed', async () => {
    const host = made();
    await ends(host, bind);
    const {stdout} = await ends(host, 'confirm');
    assert.match(stdout, /0000:02:00\.0 \(10de:1b80\) is on vfio-pci\n/);
    assert.notEqual(host.userland.state(timer), 'active');
    assert.equal(host.exists(file), false);
    await ends(host, 'confirm', 4);
    assert.deepEqual(drivers(host), ['vfio-pci', 'vfio-pci']);
  });

  it('is arranged for nothing when the devices are there already, or when it fails', async () => {
    const host = made();
    await ends(host, 'bind vfio-pci 02:00.*');
    await ends(host, bind);
    assert.equal(host.exists(file), false);
    await ends(host, 'bind default 02:00.*');
    host.machine.refuseProbe(sound, 'vfio-pci');
    await ends(host, bind, 1);
    assert.equal(host.exists(file), false);
    assert.notEqual(host.userland.state(timer), 'active');
  });

  it('is one at a time', async () => {
    const host = made();
    await ends(host, bind);
    const {stderr} = await ends(host, 'bind vfio-pci 05:00.0 --confirm 60', 3);
    assert.match(stderr, /an earlier change, of 0000:02:00\.0, 0000:02:00\.1, still waits for confirmation/);
    assert.match(stderr, /pearasys confirm --undo/);
  });

  it('leaves another card alone that is in the slot by now', async () => {
    const host = made();
    await ends(host, bind);
    host.machine.hotRemove(sound);
    await host.userland.idle();
    const {stderr} = await ends(host, 'confirm --undo');
    assert.match(stderr, /0000:02:00\.1 is left alone: the card 10de:10f0 is no longer in this slot/);
    assert.equal(host.machine.device(card).driver, 'nouveau');
  });

  it('is not undone while a guest uses the device: the write would not return', async () => {
    const host = made();
    await ends(host, bind);
    host.machine.addProcess({pid: 4000, comm: 'qemu-system-x86', holds: ['/dev/vfio/2']});
    const {stderr} = await ends(host, 'confirm --undo', 3);
    assert.match(stderr, /qemu-system-x86/);
    assert.ok(host.exists(file));
  });

  it('of a claim that lasts writes nothing that outlasts a reboot before it is confirmed', async () => {
    const host = made();
    runUnits(host);
    await ends(host, install);
    assert.deepEqual(drivers(host), ['vfio-pci', 'vfio-pci']);
    assert.equal(host.exists(record), false);
    assert.deepEqual(
      host.list('/etc/systemd/system').filter((name) => name.startsWith('pearasys')),
      [],
    );
    await ends(host, 'confirm');
    assert.ok(host.exists(record));
    for (const slot of [card, sound])
      assert.equal(host.userland.state(`pearasys-${slot}@vfio-pci.service`), 'active');
    assert.deepEqual(drivers(host), ['vfio-pci', 'vfio-pci']);
  });

  it('of a claim that could not be started afterwards is refused before it is changed', async () => {
    const host = made((declaration) => (declaration.cmdline += ' pearasys=off'));
    const {stderr} = await ends(host, install, 3);
    assert.match(stderr, /pearasys=off on the kernel command line switches this off for this boot/);
    await ends(host, `-s 0000:03:00.0 service install vfio-pci --now --confirm 60`, 3);
    assert.deepEqual(host.effects(), []);
  });

  it('a damaged file is reported, and nothing is done', async () => {
    const host = made();
    await ends(host, bind);
    for (const text of ['', '{', '{"devices": 1}', '{"devices": [], "claim": 5}', '[]', 'null']) {
      host.machine.tree.file(file, text);
      const {stderr} = await ends(host, 'confirm', 1);
      assert.match(stderr, /unconfirmed is damaged/, text);
    }
    assert.deepEqual(drivers(host), ['vfio-pci', 'vfio-pci']);
  });

  it('takes seconds, and needs --now for a claim that lasts', async () => {
    const host = made();
    for (const line of [
      'bind vfio-pci 02:00.0 --confirm 0',
      'bind vfio-pci 02:00.0 --confirm soon',
      `-s ${card} service install vfio-pci --confirm 60`,
    ])
      await ends(host, line, 2);
    assert.deepEqual(host.effects(), []);
  });
});
