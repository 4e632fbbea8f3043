/**
 * Guests with Debian's libvirtd and QEMU, on a separate machine whose image contains them. A guest without a disk needs
 * no operating system: its firmware searches for one forever, and keeps the card.
 */
import assert from 'node:assert/strict';
import {DEVICES} from './devices.js';
import {domain} from './domain.js';
import {installProduct} from './install.js';
import {BOOT_LIMIT, explainFailures, Machine, skipUnlessAvailable} from './machine.js';
import {libvirtRecipe} from './recipes.js';
import {closeShared, Product} from './shared.js';

const unit = 'pearasys-guest@g.service';
const {display, displayAudio} = DEVICES;
const slots = [display.slot, displayAudio.slot];

describe('guests of libvirt', function () {
  this.timeout(600_000);
  let product: Product;
  let machine: Machine | undefined;

  const drivers = () => Promise.all(slots.map((slot) => product.driverOf(slot)));
  const assertHost = async () => assert.deepEqual(await drivers(), [display.driver, displayAudio.driver]);
  const assertGuest = async () => assert.deepEqual(await drivers(), ['vfio-pci', 'vfio-pci']);
  const sh = (command: string) => product.machine.sh(command, {timeout: 200_000});
  const define = async (managed: 'yes' | 'no') => {
    await product.machine.writeFile('/tmp/g.xml', domain('g', slots, managed));
    // The domain has no UUID, so libvirt would treat a second definition as another guest with the same name.
    await product.machine.run('virsh --quiet undefine g');
    await sh('virsh --quiet define /tmp/g.xml');
  };
  const start = () => sh('virsh --quiet start g');
  const destroy = () => sh('virsh --quiet destroy g');
  const stateOfGuest = () => sh('virsh domstate g');
  const pidOfGuest = () => sh('cat /run/libvirt/qemu/g.pid');

  before(async function () {
    this.timeout(BOOT_LIMIT);
    await skipUnlessAvailable(this, libvirtRecipe());
    // The host may not have the resources for two machines.
    await closeShared();
    machine = await Machine.boot({...libvirtRecipe(), memory: 4096});
    product = new Product(machine);
    await installProduct(machine);
    // The guest has no system that responds to a shutdown request.
    await machine.sh("printf 'ON_SHUTDOWN=shutdown\\nSHUTDOWN_TIMEOUT=10\\n' >/etc/default/libvirt-guests");
    await define('no');
    const {stderr} = await product.run('guest', 'setup', 'g', '--yes');
    assert.equal(stderr.includes('error'), false, stderr);
    await product.sh('guest', 'install-hooks', 'g');
    await machine.sh('systemctl restart libvirtd && virsh --quiet list');
  });
  after(() => machine?.close());
  explainFailures(() => machine);

  it('are set up with the devices of their domains, and must exist in libvirt', async () => {
    assert.equal(await sh('cat /etc/pearasys/guests/g.conf'), slots.join('\n'));
    const {code, stderr} = await product.run('guest', 'setup', 'nobody', '--yes');
    assert.equal(code, 4);
    assert.match(stderr, /libvirt has no guest called nobody/);
    // With named devices, libvirt need not have a file of the guest.
    const named = await product.run('guest', 'setup', 'nobody', '--device', display.slot, '--dry-run');
    assert.equal(named.code, 0, named.stderr);
    assert.match(named.stderr, /libvirt has no file of guest nobody/);
  });

  it('use the card through VFIO while they run, and return it to the host at their end', async () => {
    await start();
    await assertGuest();
    const pid = await pidOfGuest();
    assert.match(
      await sh(`ls -l /proc/${pid}/fd`),
      /\/dev\/vfio\/\d+[^]*vfio-device|vfio-device[^]*\/dev\/vfio\/\d+/,
    );
    assert.equal(await product.stateOf(unit), 'active');
    await destroy();
    await assertHost();
    assert.equal(await product.stateOf(unit), 'inactive');
  });

  it('do not start if the card is in use, and virsh prints the reason', async () => {
    const card = await sh(`ls /sys/bus/pci/devices/${display.slot}/drm | grep card`);
    const holder = await product.machine.start(`exec sleep infinity <"/dev/dri/${card}"`);
    const {code, stderr} = await product.machine.run('virsh start g', {timeout: 200_000});
    assert.notEqual(code, 0);
    assert.match(stderr, new RegExp(`${display.slot} \\(${display.id}\\) is in use`));
    assert.match(stderr, new RegExp(`process ${holder.pid} \\(sleep\\)`));
    await assertHost();
    holder.kill();
    await holder.exited;
    await start();
    await assertGuest();
    await destroy();
    await assertHost();
  });

  it('return the card if they are killed', async () => {
    await start();
    await sh(`kill -KILL ${await pidOfGuest()}`);
    for (const [index, slot] of slots.entries())
      await product.untilDriver(slot, [display.driver, displayAudio.driver][index] ?? '');
    await product.untilState(unit, 'inactive');
    assert.equal(await stateOfGuest(), 'shut off');
  });

  it('keep the card during a restart of libvirtd', async () => {
    await start();
    await sh('systemctl restart libvirtd');
    assert.equal(await stateOfGuest(), 'running');
    await assertGuest();
    await destroy();
    await assertHost();
  });

  it('behave the same if libvirt manages the devices itself', async () => {
    await define('yes');
    await start();
    await assertGuest();
    await destroy();
    await assertHost();
    await define('no');
  });

  it('take the card at boot with autostart, and do not block a shutdown', async () => {
    await sh('virsh --quiet autostart g');
    await product.machine.reboot();
    await product.machine.waitUntil('test "$(virsh domstate g)" = running', {timeout: 120_000});
    await assertGuest();
    await sh('virsh --quiet autostart g --disable');
    // At shutdown, libvirt-guests asks the guest to shut down. The guest does not respond, and systemd kills it.
    await product.machine.reboot();
    await assertHost();
    assert.equal(await sh('ls /run/pearasys/guest 2>/dev/null || true'), '');
    const before = await sh('journalctl --no-pager -b -1 -o cat');
    assert.match(before, /guest g has 0000:00:0a.0, 0000:00:0a.1/);
    assert.doesNotMatch(before, /State '[a-z-]+' timed out/);
  });
});
