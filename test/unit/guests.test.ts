import assert from 'node:assert/strict';
import {guestStart} from '../../src/entry/handlers/guest-start.js';
import {guestStop} from '../../src/entry/handlers/guest-stop.js';
import type {PearasysError} from '../../src/host/errors.js';
import {defaultLayout} from '../../src/config/layout.js';
import {parseGuest} from '../../src/state/guests/guest-name.js';
import {planGuestStart, readGuestStart} from '../../src/plan/guest/guest-start.js';
import {render} from '../../src/systemd/templates.js';
import type {MachineDeclaration} from '../simulated-host/declaration.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {addNvidia, functionOf} from '../simulated-host/standard-machine.js';
import {guestsLock} from '../../src/plan/guest/guest-start.js';
import {runOn, runUnits, withProduct, type HandlerRun} from './services.js';
import {linesOf} from './values.js';

const [boot, bootSound] = ['0000:01:00.0', '0000:01:00.1'];
const [card, sound] = ['0000:02:00.0', '0000:02:00.1'];
const folder = '/etc/pearasys/guests';
const state = '/run/pearasys/guest/g';

/** The start and stop of a guest's unit, on the simulated machine. */
describe('the unit of a guest', () => {
  const hosts: SimulatedHost[] = [];
  afterEach(() => {
    for (const host of hosts.splice(0)) host.dispose();
  });

  /** A machine with guest `g`, which takes these devices. */
  function made(slots: readonly string[], tweak?: (declaration: MachineDeclaration) => void): SimulatedHost {
    const host = SimulatedHost.standard((declaration) => {
      withProduct(declaration);
      declaration.files[`${folder}/g.conf`] = slots.map((slot) => `${slot}\n`).join('');
      // Most tests compare all jobs of systemd; those about sleep remove this.
      declaration.files['/etc/pearasys/guest.settings'] = 'Sleep=allow\n';
      tweak?.(declaration);
    });
    hosts.push(host);
    return host;
  }

  const settings = (declaration: MachineDeclaration, ...lines: readonly string[]) => {
    declaration.files[`${folder}/g.settings`] = lines.map((line) => `${line}\n`).join('');
  };
  const driverOf = (host: SimulatedHost, slot: string) => host.machine.device(slot).driver;
  const start = (host: SimulatedHost, guest = 'g'): Promise<HandlerRun> => runOn(host, guestStart, guest);
  const stop = (host: SimulatedHost, guest = 'g'): Promise<HandlerRun> => runOn(host, guestStop, guest);
  const console1 = (host: SimulatedHost) => host.readText('/sys/class/vtconsole/vtcon1/bind');

  /** All that a start may change, to be compared whole. */
  const whole = (host: SimulatedHost) => ({
    bindings: host.machine.bindings(),
    modules: ['nouveau', 'nvidia', 'nvidia_drm', 'vfio_pci'].filter((module) =>
      host.machine.isLoaded(module),
    ),
    console: console1(host),
    framebuffer: host.list('/sys/class/graphics').filter((name) => name.startsWith('fb')),
    displayManager: host.userland.state('gdm.service'),
    processes: host.list('/proc').filter((name) => /^\d+$/.test(name)),
    state: host.exists(state),
    harm: host.machine.harm,
  });

  /** One graphics card, which has the display and is the guest's. */
  const single = (declaration: MachineDeclaration) => {
    declaration.functions = declaration.functions.filter(({slot}) => !slot.startsWith('0000:02:00'));
  };

  /** One graphics card without a driver: the firmware's framebuffer shows the console on it, and nobody is logged in. */
  function madeWithFirmwareDisplay(): SimulatedHost {
    const host = made([boot, bootSound], (declaration) => {
      single(declaration);
      declaration.firmwareFramebuffer = 'efi-framebuffer';
      declaration.processes = declaration.processes.filter(({pid}) => pid === 1);
      delete functionOf(declaration, boot).driver;
      declaration.modules.find(({name}) => name === 'nouveau')!.loaded = false;
    });
    host.userland.setState('gdm.service', 'inactive');
    return host;
  }

  it('takes an idle card, stops nothing for it, and returns it', async () => {
    const host = made([card, sound]);
    const before = whole(host);
    assert.equal((await start(host)).exitCode, 0);
    assert.equal(driverOf(host, card), 'vfio-pci');
    assert.equal(driverOf(host, sound), 'vfio-pci');
    assert.equal(host.userland.jobs.length, 0);
    assert.equal((await stop(host)).exitCode, 0);
    assert.deepEqual({...whole(host), modules: before.modules}, before);
  });

  it('locks the devices that its file names after the wait, not those that it named before', async () => {
    const host = made([card, sound]);
    const other = new SimulatedHost(host.machine);
    const [guests] = [await other.lock(guestsLock, 1000), await other.lock(bootSound, 1000)];
    const before = whole(host);
    host.lockPatience = 50;
    const own = start(host);
    await new Promise(setImmediate);
    host.machine.tree.file(`${folder}/g.conf`, `${bootSound}\n`, 0o644);
    await guests.release();
    const {exitCode, journal} = await own;
    assert.equal(exitCode, 3);
    assert.match(journal.join(), new RegExp(`could not lock ${bootSound}`));
    assert.deepEqual(whole(host), before);
  });

  it('does nothing the second time, in either direction', async () => {
    const host = made([card, sound]);
    await start(host);
    host.journal.length = 0;
    assert.match((await start(host)).journal.join(), /guest g already has .*/);
    assert.deepEqual(
      host.effects().filter((line) => !line.startsWith('systemctl show')),
      [],
    );
    await stop(host);
    host.journal.length = 0;
    assert.match((await stop(host)).journal.join(), /it had no devices of the host/);
    assert.deepEqual(host.effects(), []);
  });

  it('restores the previous state: a driver that is not the first match, an override, no driver', async () => {
    const host = made([card, sound], (declaration) => {
      addNvidia(declaration);
      declaration.modules.find(({name}) => name === 'nvidia')!.loaded = true;
      functionOf(declaration, card).driver = 'nvidia';
      functionOf(declaration, card).override = 'nvidia';
      delete functionOf(declaration, sound).driver;
      functionOf(declaration, sound).override = 'none';
      settings(declaration, 'UnloadModules=');
    });
    const before = host.machine.bindings();
    await start(host);
    assert.equal(driverOf(host, card), 'vfio-pci');
    await stop(host);
    assert.deepEqual(host.machine.bindings(), before);
  });

  it('leaves devices on VFIO that were there before', async () => {
    const host = made([card, sound], (declaration) => {
      declaration.modules.find(({name}) => name === 'vfio_pci')!.loaded = true;
      for (const slot of [card, sound]) functionOf(declaration, slot).driver = 'vfio-pci';
    });
    const before = host.machine.bindings();
    assert.equal((await start(host)).exitCode, 0);
    assert.ok(host.exists(state));
    assert.equal((await stop(host)).exitCode, 0);
    assert.deepEqual(host.machine.bindings(), before);
    assert.ok(!host.exists(state));
  });

  describe('with the display in use', () => {
    it('stops the unit of the display manager, waits for its sessions, and starts it again immediately on the other card', async () => {
      const host = made([boot, bootSound]);
      assert.equal((await start(host)).exitCode, 0);
      assert.deepEqual(host.userland.jobs, ['stop gdm.service', 'start gdm.service']);
      assert.equal(driverOf(host, boot), 'vfio-pci');
      // pipewire, which has the sound card open, went with its user's session.
      assert.ok(host.machine.elapsed >= 10_000 && host.machine.elapsed < 20_000);
      assert.deepEqual(host.machine.harm, []);
      await stop(host);
      assert.equal(driverOf(host, boot), 'nouveau');
      assert.equal(host.userland.jobs.length, 2);
    });

    it('without another card starts it again when the guest has ended, and restores the console', async () => {
      const host = made([boot, bootSound], single);
      assert.equal((await start(host)).exitCode, 0);
      assert.deepEqual(host.userland.jobs, ['stop gdm.service']);
      assert.equal(console1(host), '0');
      await stop(host);
      assert.deepEqual(host.userland.jobs, ['stop gdm.service', 'start gdm.service']);
      assert.equal(console1(host), '1');
      assert.equal(driverOf(host, boot), 'nouveau');
    });

    it('with the setting starts the display manager only at the end', async () => {
      const host = made([boot, bootSound], (declaration) => settings(declaration, 'DisplayManager=at-end'));
      await start(host);
      assert.deepEqual(host.userland.jobs, ['stop gdm.service']);
      await stop(host);
      assert.deepEqual(host.userland.jobs, ['stop gdm.service', 'start gdm.service']);
    });

    it('does not start it while the machine shuts down', async () => {
      const host = made([boot, bootSound], single);
      await start(host);
      host.userland.systemState = 'stopping';
      assert.equal((await stop(host)).exitCode, 0);
      assert.deepEqual(host.userland.jobs, ['stop gdm.service']);
      assert.equal(driverOf(host, boot), 'nouveau');
      assert.ok(!host.exists(state));
    });

    for (const [what, link] of Object.entries({
      'by way of another link': (host) => {
        host.machine.tree.textLink('/usr/lib/systemd/system/gdm3.service', 'gdm.service');
        host.machine.tree.textLink(
          '/etc/systemd/system/display-manager.service',
          '/usr/lib/systemd/system/gdm3.service',
        );
      },
      'in the folder of packages': (host) =>
        host.machine.tree.textLink('/usr/lib/systemd/system/display-manager.service', 'gdm.service'),
    } satisfies Record<string, (host: SimulatedHost) => void>))
      it(`finds it ${what}`, async () => {
        const host = made([boot, bootSound], single);
        host.machine.tree.remove('/etc/systemd/system/display-manager.service');
        link(host);
        const started = await start(host);
        assert.equal(started.exitCode, 0, started.journal.join('\n'));
        assert.deepEqual(host.userland.jobs, ['stop gdm.service']);
        await stop(host);
        assert.deepEqual(host.userland.jobs, ['stop gdm.service', 'start gdm.service']);
      });

    it('stops a service that the settings name by an alias', async () => {
      const host = made([boot, bootSound], (declaration) => {
        single(declaration);
        settings(declaration, 'StopServices=gdm3.service');
      });
      host.machine.tree.textLink('/usr/lib/systemd/system/gdm3.service', 'gdm.service');
      const started = await start(host);
      assert.equal(started.exitCode, 0, started.journal.join('\n'));
      assert.deepEqual(host.userland.jobs, ['stop gdm.service']);
    });

    it('finds one without an alias', async () => {
      const own = '/etc/systemd/system/display-manager.service';
      const host = made([boot, bootSound], (declaration) => {
        single(declaration);
        declaration.displayManager = 'display-manager.service';
        for (const process of declaration.processes)
          if (process.pid === 812) process.cgroup = '/system.slice/display-manager.service';
      });
      host.machine.tree.remove(own);
      host.machine.tree.file(own, '[Service]\nExecStart=/usr/bin/dm\n', 0o644);
      const started = await start(host);
      assert.equal(started.exitCode, 0, started.journal.join('\n'));
      assert.deepEqual(host.userland.jobs, ['stop display-manager.service']);
    });

    it('stops one whose start waits for others', async () => {
      const host = made([boot, bootSound], (declaration) => {
        single(declaration);
        declaration.processes = declaration.processes.filter(({pid}) => pid === 1);
      });
      host.userland.setState('gdm.service', 'inactive');
      host.userland.waiting.add('gdm.service');
      assert.equal((await start(host)).exitCode, 0);
      await stop(host);
      assert.deepEqual(host.userland.jobs, ['stop gdm.service', 'start gdm.service']);
    });

    it('tells of settings that it does not know, and starts', async () => {
      const host = made([boot, bootSound], (declaration) => settings(declaration, 'Color=red'));
      const {exitCode, journal} = await start(host);
      assert.equal(exitCode, 0);
      assert.ok(
        journal.includes(
          `<4>${folder}/g.settings: Color is not known to this version: it is kept, and has no effect`,
        ),
        journal.join('\n'),
      );
    });

    it('does nothing if it is not active, and refuses if it must not be stopped', async () => {
      const idle = made([boot, bootSound], (declaration) => {
        declaration.processes = declaration.processes.filter(({pid}) => pid === 1);
      });
      idle.userland.setState('gdm.service', 'inactive');
      assert.equal((await start(idle)).exitCode, 0);
      await stop(idle);
      assert.deepEqual(idle.userland.jobs, []);
      const host = made([boot, bootSound], (declaration) => settings(declaration, 'StopServices='));
      const before = whole(host);
      const {exitCode, journal} = await start(host);
      assert.equal(exitCode, 3);
      assert.match(journal.join('\n'), /process 901 \(Xorg\).*has \/dev\/dri\/card0 open/);
      assert.match(journal.join('\n'), /Processes=end in \/etc\/pearasys\/guests\/g.settings/);
      assert.deepEqual(whole(host), before);
      assert.deepEqual(host.effects().slice(1), []);
    });

    it("unbinds the firmware's framebuffer and binds it again", async () => {
      const host = madeWithFirmwareDisplay();
      const before = whole(host);
      assert.equal((await start(host)).exitCode, 0);
      assert.ok(!host.exists('/sys/bus/platform/drivers/efi-framebuffer/efi-framebuffer.0'));
      assert.equal(console1(host), '0');
      await stop(host);
      assert.deepEqual({...whole(host), modules: before.modules}, before);
    });

    it('restores the console also if a driver has replaced VGA text, and there is no system driver', async () => {
      for (const fails of [false, true]) {
        const host = made([boot, bootSound]);
        host.machine.tree.file('/sys/devices/virtual/vtconsole/vtcon0/name', '(M) dummy device\n');
        const before = console1(host);
        assert.equal(before, '1');
        if (fails) host.failWrite('*/drivers_probe', 'EIO', 1);
        assert.equal((await start(host)).exitCode, fails ? 1 : 0);
        if (!fails) {
          assert.equal(console1(host), '0');
          await stop(host);
        }
        assert.equal(console1(host), before);
      }
    });

    it('refuses consoles that must not be released', async () => {
      const host = made([boot, bootSound], (declaration) => settings(declaration, 'ReleaseConsoles=no'));
      const {exitCode, journal} = await start(host);
      assert.equal(exitCode, 3);
      assert.match(journal.join('\n'), /console vtcon1/);
    });
  });

  describe('with processes that use the devices', () => {
    const holder = (declaration: MachineDeclaration, more: object = {}) => {
      declaration.processes.push({
        pid: 2000,
        comm: 'blender',
        cgroup: '/user.slice/user-1001.slice/session-7.scope',
        uid: 1001,
        holds: ['/dev/dri/renderD129'],
        ...more,
      });
    };

    it('refuses, names them, and changes nothing', async () => {
      const host = made([card, sound], holder);
      const before = whole(host);
      const {exitCode, journal} = await start(host);
      assert.equal(exitCode, 3);
      assert.match(journal.join('\n'), /2000 \(blender\) of session-7.scope has \/dev\/dri\/renderD129 open/);
      assert.deepEqual(whole(host), before);
    });

    it('with the setting asks them to end', async () => {
      const host = made([card, sound], (declaration) => {
        holder(declaration, {takes: 2000});
        settings(declaration, 'Processes=end', 'StopServices=');
      });
      assert.equal((await start(host)).exitCode, 0);
      assert.deepEqual(
        host.effects().filter((line) => line.startsWith('kill')),
        ['kill -SIGTERM 2000'],
      );
      assert.deepEqual(host.machine.harm, []);
    });

    it('does not stop a display manager that does not use the card', async () => {
      for (const more of [
        {},
        // logind has it open for a session that is not the display manager's.
        {pid: 2001, comm: 'systemd-logind', cgroup: '/system.slice/systemd-logind.service', uid: 0},
      ]) {
        const host = made([card, sound], (declaration) => {
          holder(declaration, more);
          settings(declaration, 'Processes=end');
        });
        await start(host);
        assert.deepEqual(host.userland.jobs, []);
        assert.ok(host.exists('/proc/901'));
      }
    });

    it('stops the display manager for a program of its session, and not for its persistence daemon', async () => {
      const host = made([card, sound], (declaration) =>
        holder(declaration, {cgroup: '/user.slice/user-1000.slice/session-2.scope', uid: 1000}),
      );
      host.userland.setState('nvidia-persistenced.service', 'active');
      assert.equal((await start(host)).exitCode, 0);
      assert.deepEqual(host.userland.jobs, ['stop gdm.service', 'start gdm.service']);
    });

    it("stops only NVIDIA's persistence daemon when that has the card open", async () => {
      const host = made([card, sound], (declaration) => {
        holder(declaration, {
          comm: 'nvidia-persiste',
          cgroup: '/system.slice/nvidia-persistenced.service',
          uid: 0,
        });
        declaration.files['/etc/systemd/system/nvidia-persistenced.service'] =
          '[Service]\nExecStart=/bin/x\n';
      });
      host.userland.setState('nvidia-persistenced.service', 'active');
      assert.equal((await start(host)).exitCode, 0);
      await stop(host);
      assert.deepEqual(host.userland.jobs, [
        'stop nvidia-persistenced.service',
        'start nvidia-persistenced.service',
      ]);
    });

    it('kills those that do not end, after the limit', async () => {
      const host = made([card, sound], (declaration) => {
        holder(declaration, {ignores: ['SIGTERM']});
        settings(declaration, 'Processes=end', 'ProcessLimit=3', 'StopServices=');
      });
      assert.equal((await start(host)).exitCode, 0);
      assert.deepEqual(
        host.effects().filter((line) => line.startsWith('kill')),
        ['kill -SIGTERM 2000', 'kill -SIGKILL 2000'],
      );
      assert.ok(host.machine.elapsed >= 3000 && host.machine.elapsed < 5000);
    });

    const many = (declaration: MachineDeclaration) => {
      for (let pid = 2000; pid < 2008; pid++) holder(declaration, {pid, ignores: ['SIGTERM']});
      settings(declaration, 'Processes=end', 'ProcessLimit=10', 'StopServices=');
    };

    it('waits for many no longer than for one', async () => {
      const host = made([card, sound], many);
      const {exitCode, journal} = await start(host);
      assert.equal(exitCode, 0, journal.join('\n'));
      assert.ok(host.machine.elapsed >= 10_000 && host.machine.elapsed < 13_000);
      assert.equal(host.effects().filter((line) => line.startsWith('kill -SIGKILL')).length, 8);
    });

    it('stops waiting when systemd ends it, and reports the processes that were ended', async () => {
      const host = made([card, sound], (declaration) => {
        many(declaration);
        holder(declaration, {pid: 3000});
      });
      const controller = new AbortController();
      host.machine.after(2000, () => controller.abort());
      await assert.rejects(
        guestStart({host, layout: defaultLayout, log: () => undefined, signal: controller.signal}, ['g']),
        (error: PearasysError) =>
          error.code === 'interrupted' && error.details.some((line) => /^process 3000 was ended/.test(line)),
      );
      assert.ok(host.machine.elapsed < 3000);
      assert.ok(!host.exists(state));
      assert.ok(host.exists('/proc/2000'));
    });

    it('gives up on one that cannot be killed, and restores everything', async () => {
      const host = made([card, sound], (declaration) => {
        holder(declaration, {ignores: ['SIGTERM', 'SIGKILL']});
        settings(declaration, 'Processes=end', 'StopServices=gdm.service');
      });
      const {exitCode, journal} = await start(host);
      assert.equal(exitCode, 3);
      assert.match(journal.join('\n'), /process 2000 did not end within 10 s, and could not be killed/);
      assert.equal(driverOf(host, card), 'nouveau');
      assert.deepEqual(host.userland.jobs, ['stop gdm.service', 'start gdm.service']);
      assert.ok(!host.exists(state));
    });

    it('does not signal another process that has reused the PID', async () => {
      const host = made([card, sound], (declaration) => {
        holder(declaration);
        settings(declaration, 'Processes=end', 'StopServices=');
      });
      host.beforeEffect((effect) => {
        if (effect.kind !== 'file' || !host.exists('/proc/2000')) return;
        host.machine.endProcess(2000);
        host.machine.addProcess({pid: 2000, comm: 'innocent'});
      });
      assert.equal((await start(host)).exitCode, 0);
      assert.equal(host.readText('/proc/2000/comm'), 'innocent');
      assert.ok(!host.effects().some((line) => line.startsWith('kill')));
    });

    it('stops services by their units, and starts them after the guest', async () => {
      const host = made([card, sound], (declaration) => {
        holder(declaration, {cgroup: '/system.slice/miner.service', uid: 0});
        declaration.files['/etc/systemd/system/miner.service'] = '[Service]\nExecStart=/bin/miner\n';
        settings(declaration, 'Processes=end', 'StopServices=');
      });
      host.userland.setState('miner.service', 'active');
      assert.equal((await start(host)).exitCode, 0);
      await stop(host);
      assert.deepEqual(host.userland.jobs, ['stop miner.service', 'start miner.service']);
    });

    for (const more of [
      {pid: 1, comm: 'systemd', cgroup: '/init.scope'},
      {cgroup: '/system.slice/systemd-logind.service', comm: 'systemd-logind', uid: 0},
      {cgroup: '/machine.slice/machine-qemu\\x2d1\\x2dother.scope', comm: 'qemu-system-x86', uid: 0},
      // A guest of a user's, of a libvirt without machined, and one in libvirtd's own unit.
      {comm: 'qemu-system-x86'},
      {cgroup: '/machine/qemu-1-x.libvirt-qemu/emulator', comm: 'kvm'},
      {cgroup: '/system.slice/libvirtd.service', comm: 'qemu-system-x86', uid: 0},
      ...['libvirtd', 'virtlogd', 'dbus', 'systemd-udevd'].map((unit) => ({
        cgroup: `/system.slice/${unit}.service`,
        comm: unit,
        uid: 0,
      })),
    ])
      it(`never ends ${more.comm} of ${'cgroup' in more ? more.cgroup : 'a session'}`, async () => {
        const host = made([card, sound], (declaration) => {
          if (more.pid === 1) declaration.processes = declaration.processes.filter(({pid}) => pid !== 1);
          holder(declaration, more);
          settings(declaration, 'Processes=end');
        });
        const before = whole(host);
        for (const unit of ['libvirtd', 'virtlogd', 'dbus', 'systemd-udevd'])
          host.userland.setState(`${unit}.service`, 'active');
        assert.equal((await start(host)).exitCode, 3, more.comm);
        assert.deepEqual(whole(host), before);
        assert.deepEqual(host.userland.jobs, []);
      });
  });

  describe('with processes that outlive the display manager', () => {
    /** Who keeps the service manager of the user whose session the display manager has opened. */
    const stays: Readonly<Record<string, (declaration: MachineDeclaration) => void>> = {
      'a lingering user': (declaration) => {
        declaration.files['/etc/passwd'] = 'root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n';
        declaration.files['/var/lib/systemd/linger/ann'] = '';
      },
      'an ssh session of the same user': (declaration) => {
        declaration.processes.push({
          pid: 3100,
          comm: 'sshd',
          cgroup: '/user.slice/user-1000.slice/session-9.scope',
          uid: 1000,
        });
      },
    };
    const compositor = {
      pid: 3000,
      comm: 'gnome-shell',
      cgroup: '/user.slice/user-1000.slice/user@1000.service/session.slice/org.gnome.Shell@wayland.service',
      uid: 1000,
      holds: ['/dev/dri/card0', '/dev/dri/renderD128'],
    };

    for (const [what, keep] of Object.entries(stays)) {
      it(`refuses for ${what} before anything is stopped, and names them and the setting`, async () => {
        const host = made([boot, bootSound], (declaration) => {
          single(declaration);
          keep(declaration);
          declaration.processes.push(compositor);
        });
        const before = whole(host);
        const {exitCode, journal} = await start(host);
        assert.equal(exitCode, 3);
        const said = journal.join('\n');
        assert.match(
          said,
          /user 1000 (?:lingers|has another session \(session-9.scope\)).* keep running after gdm.service has stopped/,
        );
        assert.match(said, /process 3000 \(gnome-shell\) of org.gnome.Shell@wayland.service \(user 1000\)/);
        assert.match(said, /process 940 \(pipewire\)/);
        assert.match(said, /Processes=end in \/etc\/pearasys\/guests\/g.settings/);
        assert.deepEqual(whole(host), before);
        assert.deepEqual(host.userland.jobs, []);
        assert.equal(host.machine.elapsed, 0);
      });

      it(`with the setting ends them for ${what}, and starts their units again`, async () => {
        const host = made([boot, bootSound], (declaration) => {
          single(declaration);
          keep(declaration);
          declaration.files['/run/user/1000/bus'] = '';
          declaration.processes.push(compositor);
          settings(declaration, 'Processes=end');
        });
        const {exitCode, journal} = await start(host);
        assert.equal(exitCode, 0, journal.join('\n'));
        assert.ok(!host.exists('/proc/3000') && !host.exists('/proc/940'));
        assert.equal(
          host.exists('/proc/3100'),
          what.startsWith('an ssh'),
          'nothing else of the user is ended',
        );
        assert.deepEqual(host.machine.harm, []);
        const stopped = await stop(host);
        assert.equal(stopped.exitCode, 0, stopped.journal.join('\n'));
        assert.deepEqual([...host.userland.jobs].sort(), [
          'start gdm.service',
          'start org.gnome.Shell@wayland.service of 1000',
          'start pipewire.service of 1000',
          'stop gdm.service',
          'stop org.gnome.Shell@wayland.service of 1000',
          'stop pipewire.service of 1000',
        ]);
        assert.ok(!host.exists(state));
      });
    }

    it('ends the remaining processes even if the user’s service manager cannot be reached', async () => {
      const host = made([boot, bootSound], (declaration) => {
        single(declaration);
        stays['a lingering user']?.(declaration);
        settings(declaration, 'Processes=end');
      });
      const {exitCode, journal} = await start(host);
      assert.equal(exitCode, 0, journal.join('\n'));
      assert.ok(!host.exists('/proc/940'));
      const stopped = await stop(host);
      assert.equal(stopped.exitCode, 0);
      assert.match(stopped.journal.join('\n'), /pipewire.service of user 1000 is not started again/);
    });

    it('ignores a lingering user without open devices', async () => {
      const host = made([boot, bootSound], (declaration) => {
        single(declaration);
        stays['a lingering user']?.(declaration);
        declaration.processes = declaration.processes.filter(({pid}) => pid !== 940);
      });
      assert.equal((await start(host)).exitCode, 0);
      assert.deepEqual(host.userland.jobs, ['stop gdm.service']);
    });

    for (const broker of ['systemd-logind', 'seatd'])
      it(`does not require the end of ${broker}, which has the card open for a session that ends`, async () => {
        const own = {
          pid: 700,
          comm: broker,
          cgroup: `/system.slice/${broker}.service`,
          holds: ['/dev/dri/card1'],
        };
        const client = {
          pid: 3000,
          comm: 'sway',
          cgroup: '/user.slice/user-1001.slice/session-4.scope',
          uid: 1001,
          holds: ['/dev/dri/card1'],
        };
        const host = made([card, sound], (declaration) => {
          declaration.processes.push({...own}, {...client});
          settings(declaration, 'Processes=end');
        });
        // It closes the card when its client is gone.
        host.machine.after(1000, () => {
          assert.ok(!host.exists('/proc/3000'));
          host.machine.endProcess(700);
          host.machine.addProcess({...own, holds: []});
        });
        const {exitCode, journal} = await start(host);
        assert.equal(exitCode, 0, journal.join('\n'));
        assert.ok(host.exists('/proc/700') && !host.exists('/proc/3000'));
        assert.deepEqual(host.userland.jobs, []);
      });
  });

  describe('with harmless holders', () => {
    const usb = '0000:00:14.0';
    const logind = {
      pid: 700,
      comm: 'systemd-logind',
      cgroup: '/system.slice/systemd-logind.service',
      holds: ['/dev/input/event0'],
    };

    it('takes a sound function whose control node a sound server has open, and ends no process', async () => {
      const host = made([card, sound], (declaration) => {
        for (const comm of ['pipewire', 'wireplumber', 'pulseaudio'])
          declaration.processes.push({
            pid: 3000 + comm.length,
            comm,
            cgroup: `/user.slice/user-1000.slice/user@1000.service/session.slice/${comm}.service`,
            uid: 1000,
            holds: ['/dev/snd/controlC1'],
          });
      });
      const {exitCode, journal} = await start(host);
      assert.equal(exitCode, 0, journal.join('\n'));
      assert.match(journal.join('\n'), /process 3008 \(pipewire\).*\/dev\/snd\/controlC1 open/);
      assert.deepEqual(host.userland.jobs, []);
      assert.ok(host.exists('/proc/3008'));
      assert.equal((await stop(host)).exitCode, 0);
    });

    it('ends no process for them with Processes=end either', async () => {
      const host = made([card, sound], (declaration) => {
        declaration.processes.push({
          pid: 3000,
          comm: 'wireplumber',
          cgroup: '/user.slice/user-1000.slice/user@1000.service/session.slice/wireplumber.service',
          uid: 1000,
          holds: ['/dev/snd/controlC1'],
        });
        settings(declaration, 'Processes=end');
      });
      assert.equal((await start(host)).exitCode, 0);
      assert.deepEqual(host.userland.jobs, []);
      assert.ok(host.exists('/proc/3000'));
    });

    /** A keyboard of which the kernel has an input node, below a device of this path. */
    const keyboard = (host: SimulatedHost, index: number, below: string) => {
      const folder = `${below}/input/input${index}`;
      host.machine.tree.file(
        `${folder}/capabilities/key`,
        '1000000000007 ff9f207ac14057ff febeffdfffefffff fffffffffffffffe\n',
      );
      host.machine.tree.file(`${folder}/name`, `Keyboard ${index}\n`);
      host.machine.tree.textLink(`/sys/class/input/input${index}`, folder.replace('/sys', '../..'));
    };

    for (const [what, others, lost] of [
      ['the last keyboard', [], true],
      ['one of two keyboards', ['/sys/devices/platform/i8042/serio0'], false],
      ['the last one beside one that a program makes', ['/sys/devices/virtual'], true],
    ] as const)
      it(`takes a USB controller with ${what}, which logind and Xorg have open`, async () => {
        const host = made([usb], (declaration) => {
          declaration.processes.push(logind);
          declaration.processes.find(({comm}) => comm === 'Xorg')?.holds?.push('/dev/input/event0');
          settings(declaration, 'Processes=end');
        });
        const folder = host.realPath(`/sys/bus/pci/devices/${usb}`) ?? '';
        keyboard(host, 0, `${folder}/usb1/1-1`);
        for (const [index, other] of others.entries()) keyboard(host, index + 1, other);
        host.machine.tree.file(
          `${folder}/usb1/1-1/input/input0/event0/uevent`,
          'MAJOR=13\nMINOR=64\nDEVNAME=input/event0\n',
        );
        host.machine.tree.textLink(
          '/sys/dev/char/13:64',
          `../../${folder.slice(5)}/usb1/1-1/input/input0/event0`,
        );
        const {exitCode, journal} = await start(host);
        assert.equal(exitCode, 0, journal.join('\n'));
        assert.equal(driverOf(host, usb), 'vfio-pci');
        assert.ok(host.exists('/proc/901') && host.exists('/proc/700'));
        assert.deepEqual(host.userland.jobs, []);
        assert.equal(
          /the host has no keyboard while guest g runs: Keyboard 0/.test(journal.join('\n')),
          lost,
        );
      });
  });

  describe('a service that only runs at boot', () => {
    const splash = {
      'plymouth-start.service': '[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/bin/x\n',
      'once.service': '[Unit]\nRefuseManualStart=yes\n[Service]\nExecStart=/bin/x\n',
      'early.service': '[Service]\nExecStart=/bin/x\n[Install]\nWantedBy=sysinit.target\n',
    };
    for (const [unit, text] of Object.entries(splash))
      for (const fails of [false, true])
        it(`such as ${unit} is stopped, and not started again${fails ? ' when the start fails' : ''}`, async () => {
          const host = made([card, sound], (declaration) => {
            declaration.files[`/etc/systemd/system/${unit}`] = text;
            declaration.processes.push({
              pid: 3000,
              comm: 'splash',
              cgroup: `/system.slice/${unit}`,
              holds: ['/dev/dri/card1'],
            });
            settings(declaration, 'Processes=end');
          });
          if (unit === 'early.service')
            host.machine.tree.textLink(`/etc/systemd/system/sysinit.target.wants/${unit}`, `../${unit}`);
          host.userland.setState(unit, 'active');
          if (fails) host.refuseProbe(card, 'vfio-pci');
          const {exitCode, journal} = await start(host);
          assert.equal(exitCode, fails ? 1 : 0, journal.join('\n'));
          assert.match(
            journal.join('\n'),
            new RegExp(`${unit} is stopped and will not be started again: it `),
          );
          assert.equal((await stop(host)).exitCode, 0);
          assert.deepEqual(host.userland.jobs, [`stop ${unit}`]);
        });
  });

  it('stops further services in addition to those that auto finds', async () => {
    for (const [value, jobs] of [
      ['auto miner.service', ['stop miner.service']],
      ['miner.service auto gdm.service', ['stop miner.service', 'stop gdm.service']],
    ] as const) {
      const host = made([card, sound], (declaration) => {
        declaration.files['/etc/systemd/system/miner.service'] = '[Service]\nExecStart=/bin/miner\n';
        settings(declaration, `StopServices=${value}`);
      });
      host.userland.setState('miner.service', 'active');
      assert.equal((await start(host)).exitCode, 0);
      assert.deepEqual(
        host.userland.jobs.filter((job) => job.startsWith('stop')),
        jobs,
      );
    }
  });

  describe('a failure', () => {
    /** Every step that a start has, failing in turn. */
    for (const [what, fail] of Object.entries({
      'the state cannot be written': (host) => host.failFile('/run/pearasys/guest/g', 'ENOSPC'),
      'the display manager does not stop': (host) =>
        host.failCommand('systemctl stop gdm.service', 1, 'Job failed'),
      'the console is not released': (host) => host.failWrite('*/vtcon1/bind', 'EBUSY', 1),
      'a module is not loaded': (host) => host.failCommand('modprobe -- vfio-pci', 1, 'no'),
      'an override is refused': (host) => host.failWrite(`*/${boot}/driver_override`, 'EINVAL', 1),
      'an unbind is refused': (host) => host.failWrite('*/nouveau/unbind', 'EBUSY', 1),
      'the sound does not go': (host) => host.failWrite('*/snd_hda_intel/unbind', 'EBUSY', 1),
      'vfio-pci does not take the sound': (host) => host.refuseProbe(bootSound, 'vfio-pci'),
      'the display manager does not come back': (host) =>
        host.failCommand('systemctl start gdm.service', 1, 'Job failed', 1),
    } satisfies Record<string, (host: SimulatedHost) => void>))
      it(`restores everything when ${what}`, async () => {
        const host = made([boot, bootSound]);
        const before = whole(host);
        fail(host);
        const {exitCode, journal} = await start(host);
        assert.equal(exitCode, 1, journal.join('\n'));
        assert.deepEqual(whole(host), before);
      });

    it('of the wait for a new user of the device restores everything', async () => {
      const host = made([boot, bootSound]);
      const before = whole(host);
      host.afterEffect((effect) => {
        if (effect.kind === 'run' && effect.args.join(' ') === 'stop gdm.service')
          host.machine.addProcess({pid: 3000, comm: 'cat', holds: ['/dev/dri/card0']});
      });
      const {exitCode, journal} = await start(host);
      assert.equal(exitCode, 3);
      assert.match(journal.join('\n'), /0000:01:00.0 still in use after 20 s\n.*process 3000 \(cat\)/);
      assert.deepEqual(whole(host), {...before, processes: [...before.processes, '3000'].sort()});
    });

    it('by systemd’s signal at its time limit restores everything', async () => {
      const host = made([boot, bootSound]);
      const before = whole(host);
      const controller = new AbortController();
      host.afterEffect((effect) => {
        if (effect.kind === 'write' && effect.path.endsWith('nouveau/unbind')) controller.abort();
      });
      await assert.rejects(
        guestStart({host, layout: defaultLayout, log: () => undefined, signal: controller.signal}, ['g']),
        /interrupted/,
      );
      assert.deepEqual({...whole(host), modules: before.modules}, before);
    });

    it('by a write that does not return ends with exit code 5, and names the device', async () => {
      const host = made([card, sound]);
      const returns = host.neverReturn('*/snd_hda_intel/unbind');
      const {exitCode, journal} = await start(host);
      assert.equal(exitCode, 5);
      assert.match(journal.join('\n'), /state of 0000:02:00.1: unknown until that write returns/);
      assert.equal(driverOf(host, card), 'nouveau');
      returns();
    });

    it('whose undo waits for such a write keeps the state, and the next stop returns the rest', async () => {
      const host = made([card, sound]);
      const returns = host.neverReturn('*/snd_hda_intel/unbind');
      const {journal} = await start(host);
      assert.match(
        journal.join('\n'),
        /keeping \/run\/pearasys\/guest\/g: it lists what still has to be restored/,
      );
      returns();
      const later = new SimulatedHost(host.machine);
      assert.equal((await stop(later)).exitCode, 0);
      assert.equal(driverOf(host, sound), 'snd_hda_intel');
      assert.equal(later.readText(`/sys/bus/pci/devices/${sound}/driver_override`), '(null)');
      assert.ok(!later.exists(state));
    });

    it('whose undo fails keeps the state, and the next stop starts the remaining services', async () => {
      const host = made([boot, bootSound], single);
      host.refuseProbe(bootSound, 'vfio-pci');
      host.failCommand('systemctl start gdm.service', 1, 'Job failed', 1);
      const {runs} = runUnits(host);
      const own = 'pearasys-guest@g.service';
      const {execute} = host.userland;
      let failed: readonly string[] = [];
      host.userland.execute = async (unit, argv) => {
        if (unit !== own || argv[0]?.endsWith('/guest-start') !== true) return await execute(unit, argv);
        const run = await start(host);
        failed = run.journal;
        return run.exitCode;
      };
      await assert.rejects(host.run('systemctl', ['start', own]));
      assert.match(failed.join('\n'), /could not be undone: systemctl start gdm.service/);
      // What systemd runs after a start that failed.
      assert.equal(runs.get(own)?.exitCode, 0);
      assert.equal(host.userland.state('gdm.service'), 'active');
      assert.equal(driverOf(host, boot), 'nouveau');
      assert.ok(!host.exists(state));
    });
  });

  describe('modules', () => {
    const withNvidia = (declaration: MachineDeclaration) => {
      addNvidia(declaration);
      declaration.modules.push({name: 'nvidia_drm', loaded: true, depends: ['nvidia']});
      declaration.modules.find(({name}) => name === 'nvidia')!.loaded = true;
      declaration.modules.find(({name}) => name === 'nouveau')!.loaded = false;
      declaration.functions = declaration.functions.filter(({slot}) => !slot.startsWith('0000:01:00'));
      declaration.processes = declaration.processes.filter(({pid}) => pid === 1);
      functionOf(declaration, card).driver = 'nvidia';
    };

    it('of NVIDIA are unloaded in their order around the switch, and loaded again', async () => {
      const host = made([card, sound], withNvidia);
      const before = whole(host);
      const started = await start(host);
      assert.equal(started.exitCode, 0, started.journal.join('\n'));
      const lines = host.effects();
      const at = (line: string) => lines.findIndex((one) => one.startsWith(line));
      assert.ok(at('rmmod nvidia_drm') >= 0);
      assert.ok(at('rmmod nvidia_drm') < at(`echo '${card}' > /sys/bus/pci/drivers/nvidia/unbind`));
      assert.ok(at(`echo '${card}' > /sys/bus/pci/drivers_probe`) < lines.lastIndexOf('rmmod nvidia'));
      assert.ok(!host.machine.isLoaded('nvidia'));
      assert.equal((await stop(host)).exitCode, 0);
      assert.deepEqual(whole(host).bindings, before.bindings);
      assert.ok(host.machine.isLoaded('nvidia_drm'));
    });

    it('stay when another card of the host needs them', async () => {
      const host = made([card, sound], (declaration) => {
        settings(declaration, 'UnloadModules=nouveau drm');
      });
      const {exitCode, journal} = await start(host);
      assert.match(journal.join('\n'), /module nouveau stays loaded: 0000:01:00.0 stays on the host/);
      // drm is in use by nouveau: that it cannot go undoes all.
      assert.equal(exitCode, 1);
      assert.equal(driverOf(host, card), 'nouveau');
    });
  });

  describe('modules that a process holds through a node of all cards', () => {
    /** The second card is NVIDIA's driver's; the first one, with the display and its session, is not. */
    const nvidia = (declaration: MachineDeclaration) => {
      addNvidia(declaration);
      declaration.modules.find(({name}) => name === 'nvidia')!.loaded = true;
      declaration.modules.push(
        {name: 'nvidia_modeset', loaded: true, depends: ['nvidia'], nodes: ['/dev/nvidia-modeset']},
        {name: 'nvidia_uvm', loaded: true, depends: ['nvidia'], nodes: ['/dev/nvidia-uvm']},
        {name: 'nvidia_drm', loaded: true, depends: ['nvidia_modeset']},
      );
      functionOf(declaration, card).driver = 'nvidia';
    };
    const amdgpu = (declaration: MachineDeclaration) => {
      declaration.drivers.push({
        name: 'amdgpu',
        module: 'amdgpu',
        aliases: ['pci:v000010DEd00001B80sv*sd*bc03sc00i00*'],
        gives: ['drm'],
      });
      declaration.modules.push({name: 'amdgpu', loaded: true, nodes: ['/dev/kfd']});
      functionOf(declaration, card).driver = 'amdgpu';
    };
    const ollama = {
      pid: 777,
      comm: 'ollama',
      cgroup: '/user.slice/user-1001.slice/session-7.scope',
      uid: 1001,
    };
    const kills = (host: SimulatedHost) => host.effects().filter((line) => line.startsWith('kill'));
    const loaded = (host: SimulatedHost) =>
      ['amdgpu', 'nvidia', 'nvidia_modeset', 'nvidia_uvm', 'nvidia_drm'].filter((module) =>
        host.machine.isLoaded(module),
      );

    const members = [
      {node: '/dev/nvidiactl', machine: nvidia, module: 'nvidia', unload: 'auto'},
      {node: '/dev/nvidia-uvm', machine: nvidia, module: 'nvidia_uvm', unload: 'auto'},
      {node: '/dev/nvidia-modeset', machine: nvidia, module: 'nvidia_modeset', unload: 'auto'},
      {node: '/dev/nvidia-caps/nvidia-cap1', machine: nvidia, module: 'nvidia', unload: 'auto'},
      {node: '/dev/kfd', machine: amdgpu, module: 'amdgpu', unload: 'amdgpu'},
    ];
    for (const {node, machine, module, unload} of members) {
      const withOne = (...lines: readonly string[]) =>
        made([card, sound], (declaration) => {
          machine(declaration);
          declaration.processes.push({...ollama, holds: [node]});
          settings(declaration, ...lines);
        });

      it(`such as ${node} refuse the start before any effect; the process, the node and the setting are named`, async () => {
        const host = withOne(`UnloadModules=${unload}`);
        const before = whole(host);
        const {exitCode, journal} = await start(host);
        const said = journal.join('\n');
        assert.equal(exitCode, 3, said);
        assert.ok(said.includes(`process 777 (ollama) of session-7.scope has ${node} open`), said);
        assert.match(said, new RegExp(`process 777 keeps modules? .*${module}.* loaded.*UnloadModules=`));
        assert.match(said, /Processes=end in \/etc\/pearasys\/guests\/g.settings/);
        assert.deepEqual(whole(host), before);
        assert.deepEqual(host.userland.jobs, []);
        assert.ok(host.effects().every((line) => line.startsWith('systemctl show')));
      });

      it(`such as ${node} are unloaded when it has ended, if it may be ended`, async () => {
        const host = withOne(`UnloadModules=${unload}`, 'Processes=end');
        const {exitCode, journal} = await start(host);
        assert.equal(exitCode, 0, journal.join('\n'));
        assert.deepEqual(kills(host), ['kill -SIGTERM 777']);
        const lines = host.effects();
        assert.ok(lines.indexOf('kill -SIGTERM 777') < lines.indexOf(`rmmod ${module}`));
        assert.deepEqual(loaded(host), []);
        const stopped = await stop(host);
        assert.equal(stopped.exitCode, 0, stopped.journal.join('\n'));
        assert.ok(host.machine.isLoaded(module));
      });

      it(`such as ${node} do not affect it if they are not unloaded`, async () => {
        for (const processes of ['refuse', 'end']) {
          const host = withOne('UnloadModules=', `Processes=${processes}`);
          const {exitCode, journal} = await start(host);
          assert.equal(exitCode, 0, journal.join('\n'));
          assert.ok(host.exists('/proc/777'));
          assert.deepEqual(kills(host), []);
          assert.equal(driverOf(host, card), 'vfio-pci');
        }
      });
    }

    it('are unloaded when it and another one, which has the card open, have ended', async () => {
      const machine = (declaration: MachineDeclaration) => {
        nvidia(declaration);
        declaration.processes.push(
          {...ollama, holds: ['/dev/nvidiactl', '/dev/nvidia-uvm']},
          {...ollama, pid: 778, comm: 'blender', holds: ['/dev/nvidiactl', '/dev/dri/renderD129']},
        );
      };
      const refused = await start(made([card, sound], machine));
      assert.equal(refused.exitCode, 3);
      assert.match(
        refused.journal.join('\n'),
        /process 777 \(ollama\) .* has \/dev\/nvidia-uvm, \/dev\/nvidiactl open/,
      );
      assert.match(refused.journal.join('\n'), /process 778 \(blender\) .* has \/dev\/dri\/renderD129 open/);
      assert.doesNotMatch(refused.journal.join('\n'), /process 778 keeps/);
      const host = made([card, sound], (declaration) => {
        machine(declaration);
        settings(declaration, 'Processes=end');
      });
      const {exitCode, journal} = await start(host);
      assert.equal(exitCode, 0, journal.join('\n'));
      assert.deepEqual(kills(host).sort(), ['kill -SIGTERM 777', 'kill -SIGTERM 778']);
      assert.deepEqual(loaded(host), []);
      assert.deepEqual(host.machine.harm, []);
    });

    it('matter if the process has a node of the card open that it need not close', async () => {
      const machine = (declaration: MachineDeclaration) => {
        nvidia(declaration);
        declaration.processes.push({
          ...ollama,
          comm: 'pipewire',
          holds: ['/dev/snd/controlC1', '/dev/nvidiactl'],
        });
      };
      const refused = await start(made([card, sound], machine));
      assert.equal(refused.exitCode, 3);
      assert.match(refused.journal.join('\n'), /process 777 \(pipewire\) .* has \/dev\/nvidiactl open/);
      const host = made([card, sound], (declaration) => {
        machine(declaration);
        settings(declaration, 'Processes=end');
      });
      const {exitCode, journal} = await start(host);
      assert.equal(exitCode, 0, journal.join('\n'));
      assert.deepEqual(kills(host), ['kill -SIGTERM 777']);
      assert.doesNotMatch(journal.join('\n'), /it closes the device when the device goes away/);
    });

    for (const unload of ['auto', 'nvidia_drm nvidia_modeset nvidia_uvm nvidia', 'nvidia-drm nvidia-uvm'])
      it(`stay for another card of the host, and so does the process, with UnloadModules=${unload}`, async () => {
        const host = made([card, sound], (declaration) => {
          nvidia(declaration);
          functionOf(declaration, boot).driver = 'nvidia';
          declaration.processes.push({...ollama, holds: ['/dev/nvidiactl', '/dev/nvidia-uvm']});
          settings(declaration, `UnloadModules=${unload}`, 'Processes=end');
        });
        const {exitCode, journal} = await start(host);
        assert.equal(exitCode, 0, journal.join('\n'));
        assert.ok(host.exists('/proc/777'));
        assert.deepEqual(kills(host), []);
        assert.deepEqual(loaded(host), ['nvidia', 'nvidia_modeset', 'nvidia_uvm', 'nvidia_drm']);
        assert.equal(driverOf(host, card), 'vfio-pci');
        if (unload !== 'auto')
          assert.match(
            journal.join('\n'),
            /module nvidia_uvm stays loaded: 0000:01:00.0 stays on the host and needs it/,
          );
      });

    const service = (declaration: MachineDeclaration, text: string) => {
      nvidia(declaration);
      for (const [pid, node] of [
        [777, '/dev/nvidia-uvm'],
        [778, '/dev/nvidiactl'],
      ] as const)
        declaration.processes.push({
          pid,
          comm: 'ollama',
          cgroup: '/system.slice/ollama.service',
          holds: [node],
        });
      declaration.files['/etc/systemd/system/ollama.service'] = text;
      settings(declaration, 'Processes=end');
    };

    it('end its service by the unit, once, and the unit comes back', async () => {
      const host = made([card, sound], (declaration) =>
        service(declaration, '[Service]\nExecStart=/bin/ollama\n'),
      );
      host.userland.setState('ollama.service', 'active');
      const {exitCode, journal} = await start(host);
      assert.equal(exitCode, 0, journal.join('\n'));
      assert.deepEqual(kills(host), []);
      assert.deepEqual(loaded(host), []);
      assert.equal((await stop(host)).exitCode, 0);
      assert.deepEqual(host.userland.jobs, ['stop ollama.service', 'start ollama.service']);
    });

    it('end a service that cannot be started again, and a note says so', async () => {
      const host = made([card, sound], (declaration) =>
        service(declaration, '[Unit]\nRefuseManualStart=yes\n[Service]\nExecStart=/bin/ollama\n'),
      );
      host.userland.setState('ollama.service', 'active');
      const {exitCode, journal} = await start(host);
      assert.equal(exitCode, 0, journal.join('\n'));
      assert.match(journal.join('\n'), /ollama.service is stopped and will not be started again: it /);
      assert.equal((await stop(host)).exitCode, 0);
      assert.deepEqual(host.userland.jobs, ['stop ollama.service']);
    });

    it("stop NVIDIA's persistence daemon without any setting", async () => {
      const host = made([card, sound], (declaration) => {
        nvidia(declaration);
        declaration.processes.push({
          pid: 777,
          comm: 'nvidia-persiste',
          cgroup: '/system.slice/nvidia-persistenced.service',
          holds: ['/dev/nvidiactl'],
        });
        declaration.files['/etc/systemd/system/nvidia-persistenced.service'] =
          '[Service]\nExecStart=/bin/x\n';
      });
      host.userland.setState('nvidia-persistenced.service', 'active');
      const {exitCode, journal} = await start(host);
      assert.equal(exitCode, 0, journal.join('\n'));
      assert.deepEqual(host.userland.jobs, ['stop nvidia-persistenced.service']);
      assert.deepEqual(loaded(host), []);
    });

    /** What the user's service manager runs whose session the display manager has opened. */
    const ofSession = (declaration: MachineDeclaration) => {
      nvidia(declaration);
      declaration.processes.push({
        ...ollama,
        cgroup: '/user.slice/user-1000.slice/user@1000.service/app.slice/ollama.service',
        uid: 1000,
        holds: ['/dev/nvidia-uvm'],
      });
    };
    const lingering = (declaration: MachineDeclaration) => {
      ofSession(declaration);
      declaration.files['/etc/passwd'] = 'ann:x:1000:1000::/home/ann:/bin/sh\n';
      declaration.files['/var/lib/systemd/linger/ann'] = '';
      declaration.files['/run/user/1000/bus'] = '';
    };

    it('are unloaded after the wait for its session, which ends with the display manager', async () => {
      const host = made([card, sound], ofSession);
      const {exitCode, journal} = await start(host);
      assert.equal(exitCode, 0, journal.join('\n'));
      assert.ok(host.machine.elapsed > 0, 'it ends some time after the display manager');
      assert.deepEqual(kills(host), []);
      assert.deepEqual(host.userland.jobs, ['stop gdm.service', 'start gdm.service']);
      assert.deepEqual(loaded(host), []);
    });

    it('refuse the start before any effect when it outlives the display manager', async () => {
      const host = made([card, sound], lingering);
      const before = whole(host);
      const {exitCode, journal} = await start(host);
      assert.equal(exitCode, 3);
      assert.match(journal.join('\n'), /user 1000 lingers .* keep running after gdm.service has stopped/);
      assert.match(
        journal.join('\n'),
        /process 777 \(ollama\) of ollama.service \(user 1000\) has \/dev\/nvidia-uvm open/,
      );
      assert.deepEqual(whole(host), before);
      assert.deepEqual(host.userland.jobs, []);
    });

    it('end processes that outlive the display manager, if they may be ended', async () => {
      const host = made([card, sound], (declaration) => {
        lingering(declaration);
        settings(declaration, 'Processes=end');
      });
      const {exitCode, journal} = await start(host);
      assert.equal(exitCode, 0, journal.join('\n'));
      assert.ok(!host.exists('/proc/777'));
      assert.deepEqual(loaded(host), []);
      assert.ok(host.userland.jobs.includes('stop ollama.service of 1000'));
    });

    it('are reported with the process that still has them after the wait', async () => {
      const host = made([card, sound], (declaration) => {
        nvidia(declaration);
        declaration.processes.push(
          {...ollama, holds: ['/dev/nvidiactl'], takes: 1000},
          {...ollama, pid: 779, holds: []},
        );
        settings(declaration, 'Processes=end');
      });
      // While the other one is ending.
      host.machine.after(500, () => host.machine.openFile(779, '/dev/nvidia-uvm'));
      const before = host.machine.bindings();
      const {exitCode, journal} = await start(host);
      assert.equal(exitCode, 3, journal.join('\n'));
      assert.match(journal.join('\n'), /<3>module nvidia_uvm, module nvidia still in use after 20 s/);
      assert.match(journal.join('\n'), /process 779 \(ollama\) .* has \/dev\/nvidia-uvm open/);
      assert.deepEqual(host.machine.bindings(), before);
    });

    for (const never of [
      {comm: 'qemu-system-x86'},
      {comm: 'dbus', cgroup: '/system.slice/dbus.service', uid: 0},
      {comm: 'other', cgroup: '/machine.slice/machine-qemu\\x2d1\\x2dother.scope', uid: 0},
    ])
      it(`never end ${never.comm}`, async () => {
        const host = made([card, sound], (declaration) => {
          nvidia(declaration);
          declaration.processes.push({...ollama, ...never, holds: ['/dev/nvidiactl']});
          settings(declaration, 'Processes=end');
        });
        const before = whole(host);
        assert.equal((await start(host)).exitCode, 3);
        assert.deepEqual(whole(host), before);
      });
  });

  describe('refuses before any change', () => {
    const refused = async (host: SimulatedHost, exitCode: number, message: RegExp) => {
      const before = whole(host);
      const run = await start(host);
      assert.equal(run.exitCode, exitCode, run.journal.join('\n'));
      assert.match(run.journal.join('\n'), message);
      assert.deepEqual(whole(host), before);
      assert.ok(host.effects().every((line) => line.startsWith('systemctl show')));
    };

    it('a guest that is not set up, or whose file is ignored', async () => {
      await refused(
        made([], (declaration) => {
          declaration.files = {};
        }),
        4,
        /guest g is not set up/,
      );
      await refused(made(['nonsense']), 3, /line 1 is 'nonsense'/);
      const others = made([card]);
      others.machine.owners.set(`${folder}/g.conf`, 1000);
      await refused(others, 3, /is owned by user 1000/);
    });

    it('settings that are wrong', async () => {
      await refused(
        made([card], (declaration) => settings(declaration, 'Processes=maybe')),
        3,
        /line 1 is 'Processes=maybe'/,
      );
    });

    it('a missing device, and another card in its slot', async () => {
      await refused(
        made([card, '0000:0a:00.0']),
        4,
        /guest g needs 0000:0a:00.0, but there is no such device/,
      );
      await refused(
        made([card, sound], (declaration) => settings(declaration, `Card=${card} 1002:73bf`)),
        3,
        /is not taken: the card in the slot is 10de:1b80, guest g expects 1002:73bf/,
      );
    });

    it('a group that would not be viable', async () => {
      await refused(made([card]), 3, /IOMMU group 2 would not be viable/);
    });

    it('a mounted disk, with any settings', async () => {
      await refused(
        made(['0000:03:00.0'], (declaration) => settings(declaration, 'Processes=end')),
        3,
        /is mounted at \//,
      );
    });
  });

  describe('two guests that share a card', () => {
    it('cannot have it at the same time; the end of the refused one does not affect the other', async () => {
      const host = made([card, sound], (declaration) => {
        declaration.files[`${folder}/other.conf`] = `${sound}\n0000:05:00.0\n`;
      });
      assert.equal((await start(host)).exitCode, 0);
      const {exitCode, journal} = await start(host, 'other');
      assert.equal(exitCode, 3);
      assert.match(journal.join('\n'), /0000:02:00.1 \(10de:10f0\) is in use by guest g$/m);
      assert.match(journal.join('\n'), /virsh shutdown g/);
      assert.equal((await stop(host, 'other')).exitCode, 0);
      assert.equal(driverOf(host, card), 'vfio-pci');
      assert.equal(driverOf(host, sound), 'vfio-pci');
      assert.equal(driverOf(host, '0000:05:00.0'), 'e1000e');
    });

    it('can have it one after another', async () => {
      const host = made([card, sound], (declaration) => {
        declaration.files[`${folder}/other.conf`] = `${card}\n${sound}\n`;
      });
      for (const guest of ['g', 'other', 'g']) {
        assert.equal((await start(host, guest)).exitCode, 0);
        assert.equal((await stop(host, guest)).exitCode, 0);
        assert.equal(driverOf(host, card), 'nouveau');
      }
    });
  });

  describe('a stop', () => {
    const qemu = {pid: 4000, comm: 'qemu-system-x86', holds: ['/dev/vfio/2', 'anon_inode:[vfio-device]']};

    it('while the guest runs is refused, and the next one returns everything', async () => {
      const host = made([card, sound]);
      await start(host);
      host.machine.addProcess(qemu);
      const {exitCode, journal} = await stop(host);
      assert.equal(exitCode, 1);
      assert.match(journal.join('\n'), /process 4000 \(qemu-system-x86\)/);
      assert.match(
        journal.join('\n'),
        /did not get everything back\n.*not returned: 0000:02:00.0, 0000:02:00.1/,
      );
      assert.ok(host.machine.elapsed >= 30_000 && host.machine.elapsed < 40_000);
      assert.ok(host.exists(state));
      host.machine.endProcess(4000);
      assert.equal((await stop(host)).exitCode, 0);
      assert.equal(driverOf(host, card), 'nouveau');
      assert.equal(driverOf(host, sound), 'snd_hda_intel');
    });

    it('waits for a guest that is still exiting', async () => {
      const host = made([card, sound]);
      await start(host);
      host.machine.addProcess(qemu);
      host.machine.after(7000, () => host.machine.endProcess(4000));
      const {exitCode, journal} = await stop(host);
      assert.equal(exitCode, 0, journal.join('\n'));
      assert.equal(driverOf(host, card), 'nouveau');
      assert.deepEqual(host.machine.harm, []);
    });

    it('starts services and restores the console when the display is back, and keeps the sound function in the state', async () => {
      const host = made([boot, bootSound], single);
      await start(host);
      host.refuseProbe(bootSound, 'snd_hda_intel', 'ENODEV', 1);
      const {exitCode, journal} = await stop(host);
      assert.equal(exitCode, 1);
      assert.match(journal.join('\n'), /not returned: 0000:01:00.1\n.*try: systemctl start/);
      assert.equal(driverOf(host, boot), 'nouveau');
      assert.equal(driverOf(host, bootSound), 'vfio-pci');
      assert.equal(console1(host), '1');
      assert.deepEqual(host.userland.jobs, ['stop gdm.service', 'start gdm.service']);
      assert.equal((await stop(host)).exitCode, 0);
      assert.equal(driverOf(host, bootSound), 'snd_hda_intel');
      assert.deepEqual(host.userland.jobs, ['stop gdm.service', 'start gdm.service']);
      assert.ok(!host.exists(state));
    });

    it('starts nothing until the display is back', async () => {
      const host = made([boot, bootSound], single);
      await start(host);
      host.refuseProbe(boot, 'nouveau', 'ENODEV', 1);
      const {exitCode, journal} = await stop(host);
      assert.equal(exitCode, 1);
      assert.match(journal.join('\n'), /not returned: 0000:01:00.0\n[^]*gdm.service was not started/);
      assert.equal(driverOf(host, bootSound), 'snd_hda_intel');
      assert.deepEqual(host.userland.jobs, ['stop gdm.service']);
      assert.equal((await stop(host)).exitCode, 0);
      assert.equal(driverOf(host, boot), 'nouveau');
      assert.equal(console1(host), '1');
      assert.deepEqual(host.userland.jobs, ['stop gdm.service', 'start gdm.service']);
    });

    it('keeps a framebuffer in the state that could not be restored', async () => {
      const host = madeWithFirmwareDisplay();
      await start(host);
      host.failWrite('*/efi-framebuffer/bind', 'ENODEV', 1);
      const {exitCode, journal} = await stop(host);
      assert.equal(exitCode, 1);
      assert.match(journal.join('\n'), /framebuffer efi-framebuffer.0 has no driver/);
      assert.equal((await stop(host)).exitCode, 0);
      assert.ok(host.exists('/sys/bus/platform/drivers/efi-framebuffer/efi-framebuffer.0'));
      assert.equal(console1(host), '1');
      assert.ok(!host.exists(state));
    });

    describe('reports what can no longer exist, and removes it from the state:', () => {
      it("the firmware's framebuffer, which vfio-pci has removed", async () => {
        const host = madeWithFirmwareDisplay();
        host.afterEffect((effect) => {
          if (effect.kind === 'write' && effect.path.endsWith('efi-framebuffer/unbind'))
            host.machine.tree.remove('/sys/bus/platform/devices/efi-framebuffer.0');
        });
        assert.equal((await start(host)).exitCode, 0);
        const {exitCode, journal} = await stop(host);
        assert.equal(exitCode, 0, journal.join('\n'));
        assert.match(
          journal.join('\n'),
          /framebuffer efi-framebuffer.0 cannot be restored: the kernel has removed it/,
        );
        assert.ok(!host.exists(state));
      });

      it('a console, which disappeared with the last framebuffer', async () => {
        const host = made([boot, bootSound], single);
        await start(host);
        host.machine.tree.remove('/sys/class/vtconsole/vtcon1');
        const {exitCode, journal} = await stop(host);
        assert.equal(exitCode, 0, journal.join('\n'));
        assert.match(journal.join('\n'), /console vtcon1 cannot be restored: the kernel has removed it/);
        assert.ok(!host.exists(state));
      });

      it('the display manager, which was removed', async () => {
        const host = made([boot, bootSound], single);
        await start(host);
        for (const path of [
          '/etc/systemd/system/display-manager.service',
          '/usr/lib/systemd/system/gdm.service',
        ])
          host.machine.tree.remove(path);
        const {exitCode, journal} = await stop(host);
        assert.equal(exitCode, 0, journal.join('\n'));
        assert.match(journal.join('\n'), /gdm.service is not started again: the unit no longer exists/);
        assert.ok(!host.exists(state));
      });

      it('a module, and a driver with it', async () => {
        const host = made([card, sound], (declaration) => {
          addNvidia(declaration);
          declaration.modules.push({name: 'nvidia_drm', loaded: true, depends: ['nvidia']});
          declaration.modules.find(({name}) => name === 'nvidia')!.loaded = true;
          functionOf(declaration, card).driver = 'nvidia';
        });
        await start(host);
        assert.ok(!host.machine.isLoaded('nvidia'));
        const list = `/lib/modules/${host.readText('/proc/sys/kernel/osrelease') ?? ''}/modules.dep`;
        const left = (host.readText(list) ?? '').split('\n').filter((line) => !line.includes('nvidia'));
        host.machine.tree.file(list, `${left.join('\n')}\n`);
        const {exitCode, journal} = await stop(host);
        assert.equal(exitCode, 0, journal.join('\n'));
        assert.match(journal.join('\n'), /module nvidia_drm is not loaded again/);
        assert.match(journal.join('\n'), /0000:02:00.0 goes to any driver that takes it: driver nvidia/);
        assert.equal(driverOf(host, card), 'nouveau');
        assert.ok(!host.exists(state));
      });
    });

    it('keeps services and modules in the state that could not be restored', async () => {
      const host = made([boot, bootSound], (declaration) => {
        single(declaration);
        addNvidia(declaration);
        declaration.modules.push({name: 'nvidia_drm', loaded: true, depends: ['nvidia']});
        declaration.modules.find(({name}) => name === 'nvidia')!.loaded = true;
        functionOf(declaration, boot).driver = 'nvidia';
      });
      const started = await start(host);
      assert.equal(started.exitCode, 0, started.journal.join('\n'));
      host.failCommand('systemctl start gdm.service', 1, 'Job failed', 1);
      host.failCommand('modprobe -- nvidia_drm', 1, 'no', 1);
      const {exitCode, journal} = await stop(host);
      assert.equal(exitCode, 1);
      assert.match(
        journal.join('\n'),
        /everything back\n.*module nvidia_drm is not loaded\n.*gdm.service was not started/,
      );
      assert.ok(!host.machine.isLoaded('nvidia_drm'));
      assert.equal((await stop(host)).exitCode, 0);
      assert.ok(host.machine.isLoaded('nvidia_drm'));
      assert.equal(console1(host), '1');
      assert.equal(host.userland.state('gdm.service'), 'active');
      assert.ok(!host.exists(state));
    });

    it('that failed may be followed by a start, which keeps the state', async () => {
      const host = made([boot, bootSound], single);
      await start(host);
      host.refuseProbe(bootSound, 'snd_hda_intel', 'ENODEV', 1);
      await stop(host);
      assert.equal((await start(host)).exitCode, 0);
      assert.equal((await stop(host)).exitCode, 0);
      assert.equal(driverOf(host, bootSound), 'snd_hda_intel');
      assert.equal(host.userland.jobs.at(-1), 'start gdm.service');
    });

    it('returns devices that are no longer in the file', async () => {
      const host = made([card, sound]);
      await start(host);
      await host.writeFile(`${folder}/g.conf`, '0000:05:00.0\n');
      assert.equal((await start(host)).exitCode, 0);
      assert.equal((await stop(host)).exitCode, 0);
      assert.deepEqual(
        [card, sound, '0000:05:00.0'].map((slot) => driverOf(host, slot)),
        ['nouveau', 'snd_hda_intel', 'e1000e'],
      );
      assert.ok(!host.exists(state));
    });

    it('does not change devices that were switched since, and ignores missing ones', async () => {
      const host = made([card, sound]);
      await start(host);
      host.machine.drivers.setOverride(card, 'nouveau');
      host.machine.drivers.unbind('vfio-pci', card);
      host.machine.drivers.probe(card);
      host.machine.hotRemove(sound);
      const {exitCode, journal} = await stop(host);
      assert.equal(exitCode, 0, journal.join('\n'));
      assert.match(journal.join('\n'), /0000:02:00.1 is not returned: it no longer exists/);
      assert.ok(!host.exists(state));
    });

    it('with the setting leaves the devices on VFIO', async () => {
      const host = made([boot, bootSound], (declaration) => {
        single(declaration);
        settings(declaration, 'ReturnDevices=no');
      });
      await start(host);
      const {exitCode, journal} = await stop(host);
      assert.equal(exitCode, 0);
      assert.equal(driverOf(host, boot), 'vfio-pci');
      assert.match(journal.join('\n'), /gdm.service was not started: there is no display for it/);
      assert.ok(!host.exists(state));
    });

    for (const [what, next] of [
      ['the same guest', 'g'],
      ['another guest', 'other'],
    ] as const)
      it(`that leaves them there twice keeps the first driver, which ${what} restores`, async () => {
        const host = made([card, sound], (declaration) => {
          settings(declaration, 'ReturnDevices=no');
          declaration.files[`${folder}/other.conf`] = `${card}\n${sound}\n`;
        });
        for (let time = 0; time < 2; time++) {
          assert.equal((await start(host)).exitCode, 0);
          assert.equal((await stop(host)).exitCode, 0);
          assert.equal(driverOf(host, card), 'vfio-pci');
          assert.ok(!host.exists(state));
        }
        await host.writeFile(`${folder}/g.settings`, 'ReturnDevices=yes\n');
        assert.equal((await start(host, next)).exitCode, 0);
        const {exitCode, journal} = await stop(host, next);
        assert.equal(exitCode, 0, journal.join('\n'));
        assert.deepEqual([driverOf(host, card), driverOf(host, sound)], ['nouveau', 'snd_hda_intel']);
        assert.deepEqual(host.list('/run/pearasys/kept'), []);
      });

    it('returns devices even if the settings have become wrong', async () => {
      const host = made([card, sound]);
      await start(host);
      await host.writeFile(`${folder}/g.settings`, 'nonsense\n');
      assert.equal((await stop(host)).exitCode, 0);
      assert.equal(driverOf(host, card), 'nouveau');
    });
  });

  it('is one unit to systemd: start, reload, stop', async () => {
    const host = made([card, sound]);
    const {runs} = runUnits(host);
    const unit = 'pearasys-guest@g.service';
    await host.run('systemctl', ['reload-or-restart', unit]);
    await host.run('systemctl', ['reload-or-restart', unit]);
    assert.deepEqual(host.userland.jobs, [`start ${unit}`, `reload ${unit}`]);
    assert.match(runs.get(unit)?.journal.join('\n') ?? '', /already/);
    await host.run('systemctl', ['stop', unit]);
    assert.equal(driverOf(host, card), 'nouveau');
  });

  describe('keeps the host awake', () => {
    const unit = 'pearasys-guest@g.service';
    const awake = 'pearasys-awake@g.service';
    const blocking = (slots: readonly string[], tweak?: (declaration: MachineDeclaration) => void) =>
      made(slots, (declaration) => {
        delete declaration.files['/etc/pearasys/guest.settings'];
        tweak?.(declaration);
      });
    const warnings = (run: HandlerRun | undefined) =>
      run?.journal.filter((line) => line.startsWith('<4>')) ?? [];

    it('from the start of its unit to the end of its stop', async () => {
      const host = blocking([card, sound]);
      const {runs} = runUnits(host);
      await host.run('systemctl', ['start', unit]);
      assert.equal(host.userland.state(awake), 'active');
      assert.deepEqual(warnings(runs.get(unit)), []);
      await host.run('systemctl', ['reload-or-restart', unit]);
      await host.run('systemctl', ['stop', unit]);
      await host.userland.idle();
      assert.equal(host.userland.state(awake), 'inactive');
      assert.deepEqual(host.userland.jobs, [
        `start ${unit}`,
        `start ${awake}`,
        `reload ${unit}`,
        `stop ${unit}`,
        `stop ${awake}`,
      ]);
    });

    it('before it changes a device, and no longer if it cannot take them', async () => {
      const host = blocking([card, sound]);
      host.refuseProbe(sound, 'vfio-pci');
      const {exitCode, journal} = await start(host);
      assert.equal(exitCode, 1);
      const lines = journal.filter((line) => /systemctl|unbind/.test(line));
      assert.deepEqual(lines.slice(0, 2), [
        `<7>systemctl start ${awake}`,
        `<7>echo '${card}' > /sys/bus/pci/drivers/nouveau/unbind`,
      ]);
      assert.equal(lines.at(-1), `<4>undoing: systemctl stop ${awake}`);
      assert.equal(host.userland.state(awake), 'inactive');
      assert.equal(driverOf(host, card), 'nouveau');
    });

    it('unless logind is missing, which a note says and does not stop the guest', async () => {
      const host = blocking([card, sound]);
      host.failCommand(`systemctl start ${awake}`, 1, `Job for ${awake} failed.`);
      const {exitCode, journal} = await start(host);
      assert.equal(exitCode, 0, journal.join('\n'));
      assert.equal(driverOf(host, card), 'vfio-pci');
      assert.match(
        journal.filter((line) => line.startsWith('<4>')).join('\n'),
        /^<4>the host may sleep while guest g has its devices, which then lose their state: .*systemctl start pearasys-awake@g\.service.*Job for pearasys-awake@g\.service failed\.$/,
      );
    });

    it('unless the settings allow it to sleep, also if they are changed while it runs', async () => {
      const host = blocking([card, sound]);
      runUnits(host);
      const reload = () => host.run('systemctl', ['reload-or-restart', unit]);
      for (const [text, expected] of [
        ['Sleep=allow\n', 'inactive'],
        ['Sleep=block\n', 'active'],
        ['Sleep=allow\n', 'inactive'],
      ] as const) {
        await host.writeFile(`${folder}/g.settings`, text);
        await reload();
        assert.equal(host.userland.state(awake), expected);
        assert.equal(driverOf(host, card), 'vfio-pci');
      }
    });

    it('by a lock that gives the reason', () => {
      const text = render('pearasys-awake@.service', defaultLayout);
      assert.match(
        text,
        /^ExecStart=systemd-inhibit --what=sleep:handle-lid-switch --mode=block --who=pearasys "--why=guest %i has devices of the host, which would lose their state" sh -c "systemd-notify --ready && exec sleep infinity"$/m,
      );
    });
  });

  it('has the same plan for every reader', () => {
    const host = made([card, sound]);
    const planned = () => planGuestStart(readGuestStart(host, defaultLayout, parseGuest('g'), new Set()));
    const lines = linesOf(planned());
    assert.deepEqual(linesOf(planned()), lines);
    assert.deepEqual(lines.slice(1), [
      'modprobe vfio-pci',
      'test -d /sys/bus/pci/drivers/vfio-pci',
      ...[card, sound].flatMap((slot) => [
        `echo 'vfio-pci' > /sys/bus/pci/devices/${slot}/driver_override`,
        `echo '${slot}' > /sys/bus/pci/drivers/${slot === card ? 'nouveau' : 'snd_hda_intel'}/unbind`,
        `echo '${slot}' > /sys/bus/pci/drivers_probe`,
        `test -e /sys/bus/pci/drivers/vfio-pci/${slot}`,
      ]),
    ]);
  });
});
