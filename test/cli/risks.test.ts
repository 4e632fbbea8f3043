import assert from 'node:assert/strict';
import type {SimulatedHost} from '../simulated-host/simulated-host.js';
import {machines} from '../unit/services.js';
import {answer, typed} from './runs.js';

const display = '0000:01:00.0';
const card = '0000:02:00.0';
const network = '0000:00:1f.6';
const disk = '0000:03:00.0';

describe('what a person needs to use or reach the machine', () => {
  const made = machines();

  /** A machine whose only display is the boot display, with nothing that has it open. */
  const oneDisplay = () =>
    made((declaration) => {
      declaration.processes = declaration.processes.filter(({holds}) => holds === undefined);
      for (const each of declaration.functions) if (each.slot === card) delete each.driver;
    });

  /** A machine whose only keyboard is on the USB controller in this slot. */
  function withKeyboard(host: SimulatedHost, slot: string): void {
    const folder = `${host.machine.device(slot).path}/usb1/1-1/input/input0`;
    const keys = '1000000000007 ff9f207ac14057ff febeffdfffefffff fffffffffffffffe\n';
    host.machine.tree.file(`${folder}/capabilities/key`, keys);
    host.machine.tree.file(`${folder}/name`, 'Keyboard \u001b[31m\n');
    host.machine.tree.textLink('/sys/class/input/input0', folder.replace('/sys', '../..'));
  }

  const install = (slot: string) => `-s ${slot} service install vfio-pci`;

  describe('is not claimed for good without a terminal', () => {
    for (const [what, make, slot, reason] of [
      [
        'the only display',
        oneDisplay,
        display,
        /0000:01:00\.0 \(10de:1b80\) is the only display of this machine/,
      ],
      ['the last route', made, network, /0000:00:1f\.6: eth0 carries the last route to this machine/],
      [
        'the only keyboard',
        () => {
          const host = made();
          withKeyboard(host, card);
          return host;
        },
        card,
        /all keyboards of this machine would be lost: Keyboard \\x1b\[31m/,
      ],
    ] as const)
      it(`${what}: 3, with the way back`, async () => {
        const host = make();
        const {exitCode, stderr} = await typed(host, install(slot));
        assert.equal(exitCode, 3, stderr);
        assert.match(stderr, /^pearasys: this would take what is needed to use or reach this machine\n/);
        assert.match(stderr, reason);
        assert.match(stderr, /nothing was changed\n/);
        assert.match(
          stderr,
          new RegExp(`--force.*add pearasys\\.skip=${slot} or pearasys=off to the kernel command line`),
        );
        assert.deepEqual(host.effects(), []);
      });
  });

  it('with --force it is, and the way back is printed', async () => {
    const host = oneDisplay();
    const {exitCode, stderr} = await typed(host, `${install(display)} --force`);
    assert.equal(exitCode, 0, stderr);
    assert.match(stderr, /is the only display of this machine\n/);
    assert.match(
      stderr,
      /add pearasys\.skip=0000:01:00\.0 or pearasys=off to the kernel command line in the boot menu\n/,
    );
    assert.ok(host.exists(`/etc/pearasys/pci/${display}-0x10de-0x1b80`));
  });

  it('on a terminal a person decides', async () => {
    const yes = oneDisplay();
    const agreed = await answer(yes, install(display).split(' '), [/Continue\?/, 'y\r']);
    assert.equal(agreed.exitCode, 0, agreed.stderr);
    assert.match(agreed.stderr, /is the only display of this machine/);
    assert.ok(yes.exists(`/etc/pearasys/pci/${display}-0x10de-0x1b80`));
    // An empty line is no.
    const no = oneDisplay();
    const refused = await answer(no, install(display).split(' '), [/Continue\?/, '\r']);
    assert.equal(refused.exitCode, 1);
    assert.match(refused.stderr, /^pearasys: stopped: the answer was no\n {2}nothing was changed$/m);
    assert.deepEqual(no.effects(), []);
  });

  it('the disk that the system runs from is never claimed, with or without --force', async () => {
    const host = made();
    for (const more of ['', ' --force', ' --now --force']) {
      const {exitCode, stderr} = await typed(host, `${install(disk)}${more}`);
      assert.equal(exitCode, 3);
      assert.match(stderr, /0000:03:00\.0 \(144d:a808\) is in use\n/);
      assert.match(stderr, /the system runs from it/);
    }
    assert.deepEqual(host.effects(), []);
  });

  it('one of two displays is claimed without a question', async () => {
    const host = made();
    const {exitCode, stderr} = await typed(host, install(card));
    assert.deepEqual([exitCode, stderr], [0, '']);
  });

  it('bind names what is lost beside the holders of the device, with the way back', async () => {
    const host = made();
    const {exitCode, stderr} = await typed(host, 'unbind eth0');
    assert.equal(exitCode, 3);
    assert.match(stderr, /^pearasys: 0000:00:1f\.6 \(8086:15bb\) is in use\n/);
    assert.equal(stderr.match(/carries the last route to this machine/g)?.length, 1);
    assert.match(
      stderr,
      /or override with --force; to get it back: pearasys bind default 0000:00:1f\.6, or a reboot/,
    );
    const tried = await typed(host, 'unbind eth0 --confirm 60');
    assert.equal(tried.exitCode, 0, tried.stderr);
    assert.equal((await typed(host, 'confirm --undo')).exitCode, 0);
    assert.equal(host.machine.device('0000:00:1f.6').driver, 'e1000e');
  });

  it('bind asks the same, and says how to get it back', async () => {
    const host = made();
    withKeyboard(host, '0000:05:00.0');
    const {exitCode, stderr} = await typed(host, 'bind vfio-pci 05:00.0');
    assert.equal(exitCode, 3, stderr);
    assert.match(stderr, /all keyboards of this machine/);
    assert.match(stderr, /to get it back: pearasys bind default 0000:05:00\.0, or a reboot/);
    assert.deepEqual(host.effects(), []);
    const agreed = await answer(host, 'bind vfio-pci 05:00.0'.split(' '), [/Continue\?/, 'y\r']);
    assert.equal(agreed.exitCode, 0, agreed.stderr);
    assert.equal(host.machine.device('0000:05:00.0').driver, 'vfio-pci');
    // To the host's own driver nothing is lost.
    assert.equal((await typed(host, 'bind default 05:00.0')).exitCode, 0);
  });
});
