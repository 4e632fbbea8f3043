/**
 * Guests on a real kernel. The tests call the hook as libvirt does, with arguments and the domain's XML on standard
 * input. A process that has the devices open through VFIO replaces QEMU, and a program that has all displays open
 * replaces a display manager.
 */
import assert from 'node:assert/strict';
import {DEVICES} from './devices.js';
import {quote, type GuestProcess, type Result} from './machine.js';
import {plugKeyboard} from './keyboard.js';
import {withProduct} from './shared.js';

const hook = '/etc/libvirt/hooks/qemu.d/50-pearasys';
const standIn = '/usr/local/sbin/stand-in-display-manager';
const unit = (guest: string) => `pearasys-guest@${guest}.service`;

describe('guests on a real kernel', function () {
  const product = withProduct(this);
  const {display, displayAudio, bootDisplay, spareNetwork} = DEVICES;
  const slots = [display.slot, displayAudio.slot];

  /** Calls the hook. */
  const call = (guest: string, ...operation: readonly string[]): Promise<Result> =>
    product().machine.run([hook, guest, ...operation, '-'].map(quote).join(' '), {
      input: `<domain type='kvm'><name>${guest}</name></domain>\n`,
      timeout: 120_000,
    });
  const begin = (guest = 'g') => call(guest, 'prepare', 'begin');
  /** Calls the hook as libvirt does at the end of a guest, and after the hook has refused a guest. */
  const end = async (guest = 'g') => {
    const first = await call(guest, 'stopped', 'end');
    assert.equal(first.code, 0, first.stderr);
    const second = await call(guest, 'release', 'end');
    assert.equal(second.code, 0, second.stderr);
  };

  const drivers = () => Promise.all(slots.map((slot) => product().driverOf(slot)));
  const assertHost = async () => {
    assert.deepEqual(await drivers(), [display.driver, displayAudio.driver]);
    for (const slot of slots) assert.equal(await product().overrideOf(slot), '(null)');
  };
  const assertGuest = async () => assert.deepEqual(await drivers(), ['vfio-pci', 'vfio-pci']);
  const consoles = () =>
    product().machine.sh('for each in /sys/class/vtconsole/*; do cat "$each/name" "$each/bind"; done');
  const settings = async (...lines: readonly string[]) => {
    await product().machine.sh(
      `sed -i '/^[A-BD-Z]/d' /etc/pearasys/guests/g.settings; cat >>/etc/pearasys/guests/g.settings`,
      {input: lines.map((line) => `${line}\n`).join('')},
    );
  };
  const startedAt = (name: string) =>
    product().machine.sh(`systemctl show --value --property=ActiveEnterTimestampMonotonic ${name}`);
  /** A program outside of all services that has the display open. */
  const holdDisplay = async (command: string): Promise<GuestProcess> => {
    const card = await product().machine.sh(`ls /sys/bus/pci/devices/${display.slot}/drm | grep card`);
    const holder = await product().machine.start(
      `exec systemd-run --quiet --scope sh -c ${quote(`exec <"/dev/dri/${card}"; echo held; ${command}`)}`,
    );
    await holder.printed(/held/);
    return holder;
  };

  before(async () => {
    const {machine} = product();
    await product().sh('guest', 'setup', 'g', '--device', display.slot, '--siblings', '--yes');
    await product().sh('guest', 'install-hooks', 'g');
    await machine.writeFile(
      standIn,
      `#!/usr/bin/perl
my @open = map { open(my $file, '<', $_) or die "$_: $!"; $file } glob '/dev/dri/card*';
die "there is no display\\n" unless @open;
sleep while 1;
`,
      0o755,
    );
    await machine.writeFile('/etc/systemd/system/stand-in.service', `[Service]\nExecStart=${standIn}\n`);
    await machine.sh(
      'ln -s /etc/systemd/system/stand-in.service /etc/systemd/system/display-manager.service && systemctl daemon-reload',
    );
  });

  after(async () => {
    const {machine} = product();
    await machine.run('systemctl stop stand-in; systemctl reset-failed');
    await product().sh('guest', 'remove-hooks');
    await product().sh('guest', 'remove', 'g', '--yes');
    await machine.sh(
      // The list of guests remains, without a guest. The next suite must not find it.
      `rm -r ${standIn} /etc/libvirt /etc/pearasys/guests/gpu-passthrough-guests.conf /etc/systemd/system/stand-in.service /etc/systemd/system/display-manager.service && systemctl daemon-reload`,
    );
  });

  it('have a unit that passes systemd-analyze verify', async () => {
    const {stdout, stderr} = await product().machine.run(`systemd-analyze verify ${unit('g')}`);
    assert.equal((stdout + stderr).replace(/^.*Command 'man .*\n/m, ''), '');
  });

  it('have both functions of their card from before the start until after the end', async () => {
    assert.equal((await begin()).code, 0);
    await assertGuest();
    assert.equal(await product().stateOf(unit('g')), 'active');
    for (const operation of [
      ['start', 'begin'],
      ['started', 'begin'],
      ['reconnect', 'begin'],
    ])
      assert.equal((await call('g', ...operation)).code, 0);
    assert.equal((await begin()).code, 0, 'called twice');
    await assertGuest();
    await end();
    await assertHost();
    await end();
    await assertHost();
    assert.equal(await product().stateOf(unit('g')), 'inactive');
  });

  it('start no process if they have no devices, and leave no file of the caller open', async () => {
    const {machine} = product();
    const traced = await machine.run(
      `strace -f -qq -e trace=execve,clone,fork,vfork ${hook} nobody prepare begin - </dev/null`,
    );
    assert.equal(traced.code, 0);
    assert.equal(traced.stderr.trim().split('\n').length, 1, traced.stderr);
    await machine.sh(`: >/run/libvirts-own; ${hook} g prepare begin - 9</run/libvirts-own </dev/null`);
    assert.equal((await machine.run('fuser /run/libvirts-own')).stdout, '');
    await end();
  });

  it('have a name that needs escaping', async () => {
    const name = "it's a-guest $(reboot) ü";
    await product().sh('guest', 'setup', name, '--device', spareNetwork.slot, '--yes');
    assert.equal((await begin(name)).code, 0);
    assert.equal(await product().driverOf(spareNetwork.slot), 'vfio-pci');
    await end(name);
    assert.equal(await product().driverOf(spareNetwork.slot), spareNetwork.driver);
    await product().sh('guest', 'remove', name, '--yes');
  });

  it('do not start while a process uses the card, and the following calls of libvirt are harmless', async () => {
    const holder = await holdDisplay('exec sleep infinity');
    const {code, stderr} = await begin();
    assert.equal(code, 1);
    assert.match(
      stderr,
      /^pearasys: guest g is not started: could not take its devices\n0000:00:0a.0 \(1234:1111\) is in use/,
    );
    assert.match(stderr, /process \d+ \(sleep\) of run-.*\.scope has \/dev\/dri\/card\d+ open/);
    assert.match(stderr, /nothing was changed/);
    await assertHost();
    await end();
    await assertHost();
    holder.kill();
    await holder.exited;
  });

  it('end processes that ignore SIGTERM, with Processes=end', async () => {
    const holder = await holdDisplay("trap '' TERM; while :; do sleep 1; done");
    await settings('Processes=end', 'ProcessLimit=2');
    assert.equal((await begin()).code, 0);
    await assertGuest();
    await holder.exited;
    await settings();
    await end();
    await assertHost();
  });

  describe('with a display manager', () => {
    beforeEach(() => product().machine.sh('systemctl start stand-in'));

    it('start it again at once if the host has another display', async () => {
      const before = await startedAt('stand-in');
      assert.equal((await begin()).code, 0);
      await assertGuest();
      assert.equal(await product().stateOf('stand-in'), 'active');
      const again = await startedAt('stand-in');
      assert.notEqual(again, before);
      await end();
      await assertHost();
      assert.equal(await startedAt('stand-in'), again);
    });

    it('return it and the console at their end if the host has only this display', async () => {
      await product().sh('bind', 'none', bootDisplay.slot, '--force');
      // Without a framebuffer, the console moves to the first one that appears.
      await product().sh('bind', 'none', display.slot, '--force');
      await product().sh('bind', 'default', display.slot);
      await product().machine.sh('systemctl restart stand-in');
      const before = await consoles();
      assert.match(before, /frame buffer device\n1/);
      assert.match(await product().sh('show', display.slot), /console vtcon\d+ .*is shown on it/);
      assert.equal((await begin()).code, 0);
      await assertGuest();
      // The kernel removes the console driver with the last framebuffer.
      assert.doesNotMatch(await consoles(), /frame buffer device\n1/);
      assert.equal(await product().stateOf('stand-in'), 'inactive');
      await end();
      await assertHost();
      assert.equal(await consoles(), before);
      assert.equal(await product().stateOf('stand-in'), 'active');
    });

    it('restore the previous state if a step fails', async () => {
      const before = await consoles();
      // The other sound function uses the codec's driver as long as it is on its own driver.
      await settings('UnloadModules=snd_hda_intel snd_pcm');
      const {code, stderr} = await begin();
      assert.equal(code, 1);
      assert.match(stderr, /rmmod snd_pcm failed/);
      assert.match(stderr, /undone: \d+ earlier steps/);
      await assertHost();
      assert.equal(await consoles(), before);
      assert.equal(await product().stateOf('stand-in'), 'active');
      await settings();
      await end();
      await assertHost();
      await product().sh('bind', 'default', bootDisplay.slot);
      await product().machine.sh('systemctl stop stand-in');
    });
  });

  describe('with holders that close the device themselves', () => {
    it('take a sound function whose control node is watched by a sound server', async () => {
      const control = await product().machine.sh(
        `ls /sys/bus/pci/devices/${displayAudio.slot}/sound/card*/ | grep controlC`,
      );
      const server = await product().machine.start(
        `exec perl /mnt/checkout/test/vm/epoll.pl /dev/snd/${control}`,
      );
      await server.printed(/open/);
      await settings('Processes=end');
      assert.equal((await begin()).code, 0);
      await assertGuest();
      await server.printed(/closed/);
      assert.match(
        await product().journalOf(unit('g')),
        new RegExp(`process ${server.pid} \\(perl\\).*${control} open; it closes the device`),
      );
      await settings();
      await end();
      await assertHost();
      server.kill();
      await server.exited;
    });

    it('take a USB controller whose keyboard is open in logind and other processes, and report it', async () => {
      const {machine} = product();
      const {slot, node} = await plugKeyboard(product());
      const reader = await machine.start(`exec sleep infinity <${node}`);
      await product().sh('guest', 'setup', 'usb', '--device', slot, '--yes');
      const {code, stderr} = await begin('usb');
      assert.equal(code, 0, stderr);
      assert.equal(await product().driverOf(slot), 'vfio-pci');
      const told = await product().journalOf(unit('usb'));
      assert.match(told, new RegExp(`process ${reader.pid} \\(sleep\\).*${node} open; it closes the device`));
      assert.equal(await machine.sh(`kill -0 ${reader.pid} && echo there`), 'there');
      await end('usb');
      await product().untilDriver(slot, 'xhci_hcd');
      reader.kill();
      await reader.exited;
      await product().sh('guest', 'remove', 'usb', '--yes');
    });
  });

  describe('with a user whose service manager outlives the display manager', () => {
    const group = '/sys/fs/cgroup/user.slice/user-4242.slice/user@4242.service';
    const manager = 'user@4242.service';
    const compositor = '/usr/local/sbin/stand-in-compositor';

    before(async () => {
      const {machine} = product();
      const card = await machine.sh(`ls /sys/bus/pci/devices/${display.slot}/drm | grep card`);
      await machine.sh(
        "echo 'ann:x:4242:4242::/:/bin/sh' >>/etc/passwd; mkdir -p /var/lib/systemd/linger; : >/var/lib/systemd/linger/ann",
      );
      // A display manager that opens a session: a scope of the user, with a child process of the display manager.
      await machine.writeFile(
        standIn,
        `#!/bin/sh
systemd-run --quiet --scope --slice=user-4242.slice --unit=session-c9.scope sh -c 'exec </dev/dri/${card}; while [ -d /proc/$PPID ]; do sleep 1; done' &
while :; do sleep 1; done
`,
        0o755,
      );
      await machine.writeFile(
        compositor,
        `#!/bin/sh
mkdir ${group}/compositor.service
echo $$ >${group}/compositor.service/cgroup.procs
exec sleep infinity </dev/dri/${card}
`,
        0o755,
      );
      await machine.writeFile(
        `/etc/systemd/system/${manager}`,
        `[Service]\nSlice=user-4242.slice\nDelegate=yes\nExecStart=${compositor}\n`,
      );
      await machine.sh(`systemctl daemon-reload && systemctl start ${manager}`);
      await machine.waitUntil(`grep -q . ${group}/compositor.service/cgroup.procs`);
      await machine.sh('systemctl start stand-in');
      await machine.waitUntil('systemctl is-active --quiet session-c9.scope');
    });
    after(async () => {
      await product().machine.run(
        `systemctl stop stand-in session-c9.scope ${manager}; sed -i /^ann:/d /etc/passwd; rm /var/lib/systemd/linger/ann ${compositor} /etc/systemd/system/${manager}; systemctl daemon-reload`,
      );
    });

    it('do not start, and stop nothing', async () => {
      const before = await startedAt('stand-in');
      const {code, stderr} = await begin();
      assert.equal(code, 1);
      assert.match(
        stderr,
        /user 4242 lingers .*services of its service manager keep running after stand-in.service has stopped/,
      );
      assert.match(
        stderr,
        /process \d+ \(sleep\) of compositor.service \(user 4242\) has \/dev\/dri\/card\d+ open/,
      );
      assert.match(stderr, /Processes=end in \/etc\/pearasys\/guests\/g.settings/);
      assert.equal(await startedAt('stand-in'), before);
      await assertHost();
      await end();
    });

    it('start if its processes may be ended', async () => {
      await settings('Processes=end');
      const {code, stderr} = await begin();
      assert.equal(code, 0, stderr);
      await assertGuest();
      assert.equal(
        await product().machine.sh(`cat ${group}/compositor.service/cgroup.procs 2>/dev/null || true`),
        '',
      );
      await settings();
      await end();
      await assertHost();
    });
  });

  describe('that share a card', () => {
    it('do not take devices from each other', async () => {
      await product().sh('guest', 'setup', 'other', '--device', display.slot, '--siblings', '--yes');
      assert.equal((await begin()).code, 0);
      const {code, stderr} = await begin('other');
      assert.equal(code, 1);
      assert.match(stderr, /0000:00:0a.0 \(1234:1111\) is in use by guest g$/m);
      await end('other');
      await assertGuest();
      await end();
      await assertHost();
      assert.equal((await begin('other')).code, 0);
      await end('other');
      await assertHost();
      await product().sh('guest', 'remove', 'other', '--yes');
    });
  });

  describe('that run', () => {
    const run = async () => {
      assert.equal((await begin()).code, 0);
      const qemu = await product().machine.start(`exec perl /mnt/checkout/test/vm/stuck.pl ${display.slot}`);
      await qemu.printed(/held/);
      return qemu;
    };

    it('keep their devices when their unit is stopped manually, and return all at their end', async () => {
      const qemu = await run();
      await product().machine.run(`systemctl stop ${unit('g')}`);
      assert.match(await product().journalOf(unit('g')), new RegExp(`process ${qemu.pid} \\(`));
      assert.equal(await product().driverOf(display.slot), 'vfio-pci');
      qemu.kill();
      await qemu.exited;
      await end();
      await assertHost();
    });

    it('do not block a shutdown, and have no devices after the next boot', async () => {
      await run();
      await product().machine.reboot();
      await assertHost();
      assert.equal(await product().stateOf(unit('g')), 'inactive');
    });
  });
});
