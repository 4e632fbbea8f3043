import assert from 'node:assert/strict';
import {PearasysError} from '../../src/host/errors.js';
import {readDevice, readDevices, type Device} from '../../src/devices/pci/device.js';
import {findDriver} from '../../src/devices/pci/modules.js';
import {parseSlot} from '../../src/devices/pci/slot.js';
import {applyPlan} from '../../src/engine/apply.js';
import type {ApplyOptions} from '../../src/engine/apply-options.js';
import {bringDriver} from '../../src/plan/switch/refusals.js';
import {
  loadModule,
  plan,
  removeFile,
  setOverride,
  systemctl,
  udevadm,
  unbind,
  writeAttribute,
  writeFile,
  type Plan,
  type Planned,
  type Step,
} from '../../src/plan/step.js';
import {planSwitch, readSwitch, type Target} from '../../src/plan/switch/switch.js';
import type {MachineDeclaration} from '../simulated-host/declaration.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {functionOf} from '../simulated-host/standard-machine.js';
import {aDriver} from './values.js';

const card = parseSlot('02:00.0');
const sound = parseSlot('02:00.1');
const drivers = '/sys/bus/pci/drivers';
const vfio: Target = {kind: 'claim', driver: aDriver('vfio-pci')};

describe('applyPlan', () => {
  const hosts: SimulatedHost[] = [];
  afterEach(() => {
    for (const host of hosts.splice(0)) host.dispose();
  });

  function made(tweak?: (declaration: MachineDeclaration) => void): SimulatedHost {
    const host = SimulatedHost.standard(tweak);
    hosts.push(host);
    return host;
  }

  function accepted(planned: Planned): Plan {
    assert.equal(planned.kind, 'plan');
    return planned;
  }

  function devicesOf(host: SimulatedHost, ...slots: string[]): Device[] {
    return readDevices(host).filter((device) => slots.includes(device.slot));
  }

  function switching(host: SimulatedHost, target: Target, ...slots: string[]): Plan {
    const rules = {force: false, wholeGroup: true};
    return accepted(planSwitch(readSwitch(host, devicesOf(host, ...slots), target, rules)));
  }

  const apply = (host: SimulatedHost, steps: Plan, options: Partial<ApplyOptions> = {}) =>
    applyPlan(host, steps, {limit: 5000, ...options});

  async function failure(work: Promise<unknown>): Promise<PearasysError> {
    try {
      await work;
    } catch (error) {
      assert.ok(error instanceof PearasysError, String(error));
      return error;
    }
    assert.fail('it did not fail');
  }

  it('does the steps in order, and reports each before it is done', async () => {
    const host = made();
    const told: string[] = [];
    const steps = switching(host, vfio, card, sound);
    await apply(host, steps, {onStep: (line, undoing) => told.push(`${undoing ? 'undo ' : ''}${line}`)});
    assert.deepEqual(told, [
      'modprobe vfio-pci',
      'test -d /sys/bus/pci/drivers/vfio-pci',
      `echo 'vfio-pci' > /sys/bus/pci/devices/${card}/driver_override`,
      `echo '${card}' > ${drivers}/nouveau/unbind`,
      `echo '${card}' > /sys/bus/pci/drivers_probe`,
      `test -e ${drivers}/vfio-pci/${card}`,
      `echo 'vfio-pci' > /sys/bus/pci/devices/${sound}/driver_override`,
      `echo '${sound}' > ${drivers}/snd_hda_intel/unbind`,
      `echo '${sound}' > /sys/bus/pci/drivers_probe`,
      `test -e ${drivers}/vfio-pci/${sound}`,
    ]);
    assert.deepEqual(host.machine.bindings().slice(12, 14), [
      `${card} vfio-pci (vfio-pci)`,
      `${sound} vfio-pci (vfio-pci)`,
    ]);
  });

  it('returns the device to its first driver if the new one rejects it, and unloads the modules it loaded', async () => {
    const host = made();
    host.refuseProbe(card, 'vfio-pci');
    const before = host.machine.bindings();
    const error = await failure(apply(host, switching(host, vfio, card, sound)));
    assert.equal(error.code, 'not-bound');
    assert.equal(error.exitCode, 1);
    assert.equal(error.message, `driver vfio-pci did not take ${card} (10de:1b80): it has no driver`);
    assert.equal(error.hint, `the kernel's reason is in its log: journalctl -k --grep '${card}'`);
    assert.deepEqual(error.details, [
      'undone: 5 earlier steps',
      `state of ${card}: on driver nouveau`,
      `state of ${sound}: on driver snd_hda_intel`,
    ]);
    assert.deepEqual(host.machine.bindings(), before);
    assert.deepEqual(host.effects(), [
      'modprobe -- vfio-pci',
      `echo 'vfio-pci' > /sys/bus/pci/devices/${card}/driver_override`,
      `echo '${card}' > ${drivers}/nouveau/unbind`,
      `echo '${card}' > /sys/bus/pci/drivers_probe`,
      `echo '${card}' > /sys/bus/pci/devices/${card}/driver/unbind # ENOENT`,
      `echo 'nouveau' > /sys/bus/pci/devices/${card}/driver_override`,
      `echo '${card}' > ${drivers}/nouveau/bind`,
      `echo '' > /sys/bus/pci/devices/${card}/driver_override`,
      `echo '' > /sys/bus/pci/devices/${card}/driver_override`,
      'modprobe -r -- vfio-pci',
    ]);
    assert.equal(host.machine.isLoaded('vfio_pci'), false);
  });

  it('a failure of the second function restores the first', async () => {
    const host = made();
    host.refuseProbe(sound, 'vfio-pci');
    const before = host.machine.bindings();
    const error = await failure(apply(host, switching(host, vfio, card, sound)));
    assert.equal(error.exitCode, 1);
    assert.deepEqual(host.machine.bindings(), before);
    assert.deepEqual(host.machine.harm, []);
  });

  it('restores the previous override, even if it names another driver', async () => {
    const host = made((declaration) => {
      functionOf(declaration, card).override = 'vfio-pci';
    });
    host.refuseProbe(card, 'vfio-pci');
    const before = host.machine.bindings();
    assert.equal(before[12], `${card} nouveau (vfio-pci)`);
    await failure(apply(host, switching(host, vfio, card, sound)));
    assert.deepEqual(host.machine.bindings(), before);
  });

  it('a write that the kernel refuses is reported, and the earlier steps are undone in reverse', async () => {
    const host = made();
    host.failWrite(`${drivers}/snd_hda_intel/unbind`, 'EBUSY');
    const before = host.machine.bindings();
    const error = await failure(apply(host, switching(host, vfio, card, sound)));
    assert.equal(error.code, 'write-failed');
    assert.equal(
      error.message,
      `writing '${sound}' to ${drivers}/snd_hda_intel/unbind failed: EBUSY (the device or resource is busy)`,
    );
    assert.deepEqual(host.machine.bindings(), before);
  });

  it('reports what could not be undone, and undoes the rest', async () => {
    const host = made();
    host.refuseProbe(sound, 'vfio-pci');
    host.failWrite(`${drivers}/nouveau/bind`, 'EIO');
    const error = await failure(apply(host, switching(host, vfio, card, sound)));
    assert.ok(
      error.details.includes(
        `could not be undone: echo '${card}' > ${drivers}/nouveau/bind || true: writing '${card}' to ${drivers}/nouveau/bind failed: EIO (input/output error)`,
      ),
      error.details.join('\n'),
    );
    assert.ok(error.details.includes(`state of ${card}: no driver`));
    assert.ok(error.details.includes(`state of ${sound}: on driver snd_hda_intel`));
    assert.equal(host.machine.device(card).override, undefined);
  });

  describe('a write that does not return', () => {
    it('ends with 5; the other devices are undone, the stuck one is not touched and not read', async () => {
      const host = made();
      host.neverReturn(`${drivers}/snd_hda_intel/unbind`);
      const error = await failure(apply(host, switching(host, vfio, card, sound)));
      assert.equal(error.code, 'write-stuck');
      assert.equal(error.exitCode, 5);
      assert.match(error.message, /did not return within 5 s$/);
      assert.ok(error.details.includes(`state of ${card}: on driver nouveau`), error.details.join('\n'));
      assert.match(error.details.join('\n'), new RegExp(`state of ${sound}: unknown until`));
      assert.equal(host.machine.device(card).driver, 'nouveau');
      assert.equal(host.machine.device(card).override, undefined);
      const stuckAt = host.effects().findIndex((line) => line.endsWith('# never returns'));
      assert.ok(
        host
          .effects()
          .slice(stuckAt + 1)
          .every((line) => !line.includes(sound)),
      );
    });

    it('in the undo is reported too; that device is not touched any more, the others are undone', async () => {
      const host = made();
      host.refuseProbe(sound, 'vfio-pci');
      host.neverReturn(`/sys/bus/pci/devices/${card}/driver/unbind`);
      const error = await failure(apply(host, switching(host, vfio, card, sound)));
      assert.equal(error.exitCode, 5);
      assert.match(error.details.join('\n'), new RegExp(`could not be undone: .*${card}/driver/unbind`));
      assert.match(error.details.join('\n'), new RegExp(`state of ${card}: unknown until`));
      assert.ok(error.details.includes(`state of ${sound}: on driver snd_hda_intel`));
      const stuck = host.effects().filter((line) => line.endsWith('# never returns'));
      assert.equal(stuck.length, 1);
    });

    it('to a file that belongs to no device: the device whose lock it holds is not read', async () => {
      const host = made();
      await host.run('modprobe', ['vfio-pci']);
      host.neverReturn('/sys/bus/pci/rescan');
      const held = host.machine.holdLock.bind(host.machine);
      host.beforeEffect((effect) => {
        if (effect.kind === 'write' && effect.path === '/sys/bus/pci/rescan') held(card);
      });
      const steps = plan([
        setOverride(sound, 'none', undefined),
        writeAttribute('/sys/bus/pci/rescan', '1'),
        setOverride(card, 'none', undefined),
      ]);
      const error = await failure(apply(host, steps));
      assert.equal(error.exitCode, 5);
      assert.match(error.details.join('\n'), new RegExp(`state of ${card}: unknown until`));
      assert.ok(error.details.includes(`state of ${sound}: on driver snd_hda_intel`));
    });
  });

  it('an interrupt ends the current step, and all is undone', async () => {
    const host = made();
    const controller = new AbortController();
    host.afterEffect((effect) => {
      if (effect.kind === 'write' && effect.path.endsWith('/nouveau/unbind')) controller.abort();
    });
    const before = host.machine.bindings();
    const error = await failure(apply(host, switching(host, vfio, card, sound), {signal: controller.signal}));
    assert.equal(error.code, 'interrupted');
    assert.equal(error.exitCode, 1);
    assert.equal(error.message, 'interrupted');
    assert.ok(error.details.includes(`state of ${card}: on driver nouveau`));
    assert.deepEqual(host.machine.bindings(), before);
  });

  it('a device that disappears during the switch: 4, and the other function is undone', async () => {
    const host = made();
    host.afterEffect((effect) => {
      if (effect.kind === 'write' && effect.path.endsWith('/snd_hda_intel/unbind'))
        host.machine.hotRemove(sound);
    });
    const error = await failure(apply(host, switching(host, vfio, card, sound)));
    assert.equal(error.code, 'write-failed');
    assert.ok(error.details.includes(`state of ${sound}: the device no longer exists`));
    assert.ok(error.details.includes(`state of ${card}: on driver nouveau`));
    assert.equal(host.machine.device(card).override, undefined);
    const other = made();
    other.afterEffect((effect) => {
      if (effect.kind === 'write' && effect.path === '/sys/bus/pci/drivers_probe')
        if (effect.value === card) other.machine.hotRemove(card);
    });
    const gone = await failure(apply(other, switching(other, vfio, card, sound)));
    assert.equal(gone.exitCode, 4);
    assert.equal(gone.message, `${card} went away while its driver was changed`);
    assert.equal(other.machine.device(sound).driver, 'snd_hda_intel');
  });

  it('an internal error is undone as well', async () => {
    const host = made();
    host.beforeEffect((effect) => {
      if (effect.kind === 'write' && effect.path === '/sys/bus/pci/drivers_probe')
        throw new TypeError('no such thing');
    });
    const before = host.machine.bindings();
    await assert.rejects(apply(host, switching(host, vfio, card, sound)), TypeError);
    assert.deepEqual(host.machine.bindings(), before);
  });

  it('a closed terminal stops neither the steps nor the undo', async () => {
    const host = made();
    host.refuseProbe(sound, 'vfio-pci');
    const before = host.machine.bindings();
    const onStep = () => {
      throw Object.assign(new Error('EIO'), {code: 'EIO'});
    };
    const error = await failure(apply(host, switching(host, vfio, card, sound), {onStep}));
    assert.equal(error.code, 'not-bound');
    assert.deepEqual(host.machine.bindings(), before);
  });

  describe('modules', () => {
    it('that were already loaded are not unloaded by an undo', async () => {
      const host = made();
      await host.run('modprobe', ['uio']);
      const driver = aDriver('uio');
      const bringing = bringDriver(driver, findDriver(host, driver));
      assert.ok(!('kind' in bringing));
      const error = await failure(apply(host, plan(bringing)));
      assert.equal(error.code, 'no-driver');
      assert.equal(error.exitCode, 1);
      assert.equal(error.message, 'the module uio was loaded, but it did not register PCI driver uio');
      assert.equal(host.machine.isLoaded('uio'), true);
    });

    it('that did not provide the driver are unloaded', async () => {
      const host = made();
      const driver = aDriver('uio');
      const bringing = bringDriver(driver, findDriver(host, driver));
      assert.ok(!('kind' in bringing));
      await failure(apply(host, plan(bringing)));
      assert.equal(host.machine.isLoaded('uio'), false);
    });

    it('are not unloaded if another run has bound a device to them since', async () => {
      const host = made();
      host.refuseProbe(card, 'vfio-pci');
      const other = new SimulatedHost(host.machine);
      host.afterEffect(async (effect) => {
        if (effect.kind !== 'write' || effect.path !== '/sys/bus/pci/drivers_probe') return;
        await apply(other, switching(other, vfio, '0000:04:00.0'));
      });
      await failure(apply(host, switching(host, vfio, card, sound)));
      assert.equal(host.machine.device('0000:04:00.0').driver, 'vfio-pci');
    });

    it('a failing modprobe is reported with its message', async () => {
      const host = made();
      host.failCommand('modprobe *', 1, "modprobe: ERROR: could not insert 'vfio_pci': Key was rejected");
      const error = await failure(apply(host, switching(host, vfio, card, sound)));
      assert.equal(error.code, 'command-failed');
      assert.match(error.message, /^modprobe -- vfio-pci failed \(exit code 1\)$/);
      assert.match(error.details[0] ?? '', /Key was rejected/);
    });
  });

  describe('files', () => {
    it('are restored in reverse order, and new ones are removed with their folder', async () => {
      const host = made();
      await host.writeFile('/etc/one', 'before\n');
      await host.writeFile('/etc/two', 'gone\n');
      const steps = [
        writeFile('/etc/one', 'after\n', {content: 'before\n', mode: 0o600}),
        removeFile('/etc/two', {content: 'gone\n', mode: 0o644}),
        writeFile('/etc/new/three', 'x\n', undefined),
      ];
      host.failFile('/etc/four', 'ENOSPC');
      const error = await failure(apply(host, plan([...steps, writeFile('/etc/four', 'y\n', undefined)])));
      assert.equal(error.code, 'file-failed');
      assert.equal(error.message, 'writing /etc/four failed: ENOSPC (no space left)');
      assert.equal(host.readText('/etc/one'), 'before');
      assert.equal(host.info('/etc/one')?.mode, 0o600);
      assert.equal(host.readText('/etc/two'), 'gone');
      assert.equal(host.exists('/etc/new'), false);
      assert.equal(host.exists('/etc/four'), false);
      assert.deepEqual(error.details, ['undone: 3 earlier steps']);
    });
  });

  describe('requests to systemd', () => {
    const undo: Step[] = [systemctl(['stop', 'a.service'])];

    it('a failed one may have had some effect, so it is undone too', async () => {
      const host = made();
      host.failCommand('systemctl start *', 1, 'Job for a.service failed.');
      host.failCommand('systemctl stop *', 0);
      const error = await failure(apply(host, plan([systemctl(['start', 'a.service'], undo)])));
      assert.deepEqual(host.effects(), [
        'systemctl start a.service # exit code 1',
        'systemctl stop a.service',
      ]);
      assert.deepEqual(error.details, ['Job for a.service failed.', 'undone: 1 earlier step']);
    });

    it('steps that must follow an undo follow it, but only if something was undone', async () => {
      const host = made();
      host.failCommand('udevadm trigger', 1);
      const steps = [writeFile('/etc/one', 'x\n', undefined), udevadm(['trigger'])];
      await failure(apply(host, plan(steps, {afterUndo: [systemctl(['daemon-reload'])]})));
      assert.deepEqual(host.effects(), [
        'write /etc/one',
        'udevadm trigger # exit code 1',
        'rm /etc/one',
        'systemctl daemon-reload',
      ]);
      const other = made();
      other.failFile('/etc/one', 'EROFS');
      await failure(apply(other, plan(steps, {afterUndo: [systemctl(['daemon-reload'])]})));
      assert.deepEqual(other.effects(), ['write /etc/one # EROFS']);
    });

    it('name the root that is not the running machine', async () => {
      const host = made();
      host.root = host.machine.folder;
      await apply(host, plan([systemctl(['daemon-reload'])]));
      assert.deepEqual(host.effects(), [`systemctl --root=${host.machine.folder} daemon-reload`]);
    });
  });

  it('an errno that is accepted has changed nothing, and is not undone', async () => {
    const host = made();
    const attribute = writeAttribute(`${drivers}/e1000e/new_id`, '8086 10d3', {
      accept: ['EEXIST'],
      undo: [writeAttribute(`${drivers}/e1000e/remove_id`, '8086 10d3')],
    });
    host.failFile('/etc/one', 'ENOSPC');
    const error = await failure(apply(host, plan([attribute, writeFile('/etc/one', '', undefined)])));
    assert.deepEqual(host.effects(), [
      `echo '8086 10d3' > ${drivers}/e1000e/new_id # EEXIST`,
      'write /etc/one # ENOSPC',
    ]);
    assert.deepEqual(error.details, []);
  });

  it('the undo of a single unbind restores the driver and the override', async () => {
    const host = made();
    host.failFile('/etc/one', 'ENOSPC');
    const device = readDevice(host, card);
    assert.ok(device?.driver !== undefined);
    await failure(apply(host, plan([unbind(device), writeFile('/etc/one', '', undefined)])));
    assert.equal(host.machine.bindings()[12], `${card} nouveau`);
  });

  it('a module without an inverse is left loaded', async () => {
    const host = made();
    host.failFile('/etc/one', 'ENOSPC');
    await failure(
      apply(host, plan([{...loadModule('igb'), undo: []}, writeFile('/etc/one', '', undefined)])),
    );
    assert.equal(host.machine.isLoaded('igb'), true);
  });

  describe('a rebuild of the initramfs', () => {
    const command = ['update-initramfs', '-u', '-k', 'all'] as const;
    const rebuild = plan([{kind: 'rebuild-initramfs', command, undo: []}]);

    function madeWith(): SimulatedHost {
      return made((declaration) => {
        declaration.files['/usr/sbin/update-initramfs'] = '';
      });
    }

    it('is announced, has half an hour, and may print much', async () => {
      const host = madeWith();
      const said: string[] = [];
      const limits: unknown[] = [];
      const run = host.run.bind(host);
      host.run = async (file, args, options) => {
        limits.push(options?.limit, options?.outputLimit);
        return await run(file, args, options);
      };
      await apply(host, rebuild, {
        onLong: (what) => {
          said.push(what);
          return () => said.push('end');
        },
      });
      assert.deepEqual(said, ['rebuilding the initramfs: update-initramfs -u -k all', 'end']);
      assert.deepEqual(limits, [1_800_000, 64 * 1024 * 1024]);
    });

    it('comes after all that was written is on the disk', async () => {
      const host = madeWith();
      const order: string[] = [];
      const sync = host.syncFiles.bind(host);
      host.syncFiles = async () => {
        order.push('sync');
        await sync();
      };
      host.beforeEffect(() => {
        order.push('effect');
      });
      await apply(host, rebuild);
      assert.deepEqual(order.slice(0, 2), ['sync', 'effect']);
    });

    it('that fails is a note with the reason, and the plan goes on', async () => {
      const host = madeWith();
      host.failCommand('update-initramfs *', 1, 'W: something\nE: no space left');
      const notes: string[] = [];
      const ended: string[] = [];
      await apply(host, plan([...rebuild.steps, writeFile('/etc/after', 'x\n', undefined)]), {
        onNote: (note) => notes.push(note),
        onLong: () => () => ended.push('end'),
      });
      assert.equal(host.readText('/etc/after'), 'x');
      assert.equal(notes.length, 1);
      assert.match(
        notes[0] ?? '',
        /not rebuilt: update-initramfs .* failed \(exit code 1\).*E: no space left/,
      );
      assert.match(
        notes[0] ?? '',
        /after the root file system is mounted.*when this is fixed, run: update-initramfs/,
      );
      assert.deepEqual(ended, ['end']);
    });
  });

  describe('steps in lanes', () => {
    const [a, b, c] = ['0000:02:00.0', '0000:04:00.0', '0000:05:00.0'].map(
      (slot) => `/sys/bus/pci/devices/${slot}/driver_override`,
    ) as [string, string, string];

    /** A host on which each write lasts until as many are under way as given. */
    function meeting(width: number): {readonly host: SimulatedHost; readonly most: () => number} {
      const host = made();
      let [current, most] = [0, 0];
      let all: () => void = () => undefined;
      const met = new Promise<void>((resolve) => (all = resolve));
      host.beforeEffect(async ({kind}) => {
        if (kind !== 'write') return;
        current += 1;
        most = Math.max(most, current);
        if (most === width) all();
        await met;
      });
      host.afterEffect(({kind}) => {
        if (kind === 'write') current -= 1;
      });
      return {host, most: () => most};
    }

    const write = (path: string, lane?: string): Step => ({
      ...writeAttribute(path, 'x', {undo: [writeAttribute(path, 'y')]}),
      ...(lane === undefined ? {} : {lane}),
    });

    it('are done at the same time, those of one lane in order', async () => {
      const {host, most} = meeting(2);
      await apply(host, plan([write(a, '1'), write(b, '1'), write(c, '2')]));
      assert.equal(most(), 2);
      const order = host.effects();
      assert.equal(order.length, 3);
      assert.ok(order.findIndex((line) => line.includes(a)) < order.findIndex((line) => line.includes(b)));
    });

    it('wait for the steps before them, and those after them wait', async () => {
      const {host, most} = meeting(1);
      await apply(host, plan([write(a), write(b, '1'), write(c)]));
      assert.equal(most(), 1);
      assert.deepEqual(
        host.effects().map((line) => [a, b, c].find((path) => line.includes(path))),
        [a, b, c],
      );
    });

    it('are undone together when one fails, and no lane goes on', async () => {
      const {host} = meeting(2);
      host.failWrite(a, 'EIO');
      const error = await failure(apply(host, plan([write(a, '1'), write(b, '2'), write(c, '2')])));
      assert.match(error.message, /0000:02:00\.0\/driver_override failed: /);
      assert.equal(host.readText(b), 'y');
      assert.equal(host.readText(c), '(null)');
    });

    it('tell all failures, and none of the stuck devices is touched again', async () => {
      const {host} = meeting(2);
      host.neverReturn(a);
      host.neverReturn(b);
      const stuck = (path: string, slot: string): Step => ({...write(path, slot), slot: parseSlot(slot)});
      const error = await failure(apply(host, plan([stuck(a, '02:00.0'), stuck(b, '04:00.0')]), {limit: 5}));
      assert.equal(error.exitCode, 5);
      assert.match(error.details.join('\n'), /0000:04:00\.0\/driver_override/);
    });
  });
});
