import assert from 'node:assert/strict';
import {claim} from '../../src/entry/handlers/claim.js';
import {record} from '../../src/entry/handlers/record.js';
import {release} from '../../src/entry/handlers/release.js';
import {ticketsFolder} from '../../src/operations/turns.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {typed} from '../cli/runs.js';
import {runOn, withProduct} from './services.js';

const card = '0000:02:00.0';
const sound = '0000:02:00.1';
const disk = '0000:04:00.0';
const network = '0000:05:00.0';

describe('one Node process for all waiting units', () => {
  const hosts: SimulatedHost[] = [];
  afterEach(() => {
    for (const host of hosts.splice(0)) host.dispose();
  });

  async function made(...lines: readonly string[]): Promise<SimulatedHost> {
    const host = SimulatedHost.standard(withProduct);
    hosts.push(host);
    for (const line of lines) {
      const {exitCode, stderr} = await typed(host, line);
      assert.equal(exitCode, 0, stderr);
    }
    await host.userland.idle();
    host.journal.length = 0;
    return host;
  }

  /** Adds a waiting unit: its process and its ticket. */
  function waits(host: SimulatedHost, what: 'claim' | 'release' | 'record', name: string, pid = 4000): void {
    if (!host.exists(`/proc/${pid}`)) host.machine.addProcess({pid, comm: what});
    const started = (host.readText(`/proc/${pid}/stat`) ?? '').split(') ')[1]?.split(' ')[19] ?? '';
    host.machine.tree.file(`${ticketsFolder(what)}/${name}`, `${pid} ${started}\n`, 0o644);
  }

  const resultOf = (host: SimulatedHost, what: 'claim' | 'release' | 'record', name: string) =>
    host.readText(`${ticketsFolder(what)}/${name}.result`);
  const driverOf = (host: SimulatedHost, slot: string) => host.machine.device(slot).driver;

  const all = [
    `-s ${card} -s ${sound} service install vfio-pci`,
    `-s ${disk} service install vfio-pci`,
    `-s ${network} service install vfio-pci`,
  ];

  it('claims the device of each ticket, and writes a result for each', async () => {
    const host = await made(...all);
    waits(host, 'claim', `${disk}@vfio-pci`, 4001);
    waits(host, 'claim', `${network}@vfio-pci`, 4002);
    waits(host, 'claim', `${sound}@vfio-pci`, 4003);
    const {exitCode, journal} = await runOn(host, claim, card, 'vfio-pci');
    assert.equal(exitCode, 0);
    for (const slot of [card, sound, disk, network]) assert.equal(driverOf(host, slot), 'vfio-pci');
    assert.match(
      resultOf(host, 'claim', `${disk}@vfio-pci`) ?? '',
      /^4001 \d+ 0\n[^]*<6>0000:04:00\.0 on driver vfio-pci$/,
    );
    assert.match(resultOf(host, 'claim', `${network}@vfio-pci`) ?? '', /^4002 \d+ 0\n/);
    // A function of the same card: it was claimed together with this unit's device.
    assert.match(
      resultOf(host, 'claim', `${sound}@vfio-pci`) ?? '',
      /^4003 \d+ 0\n[^]*0000:02:00\.0, 0000:02:00\.1 on/,
    );
    assert.equal(journal.at(-1), `<6>${card}, ${sound} on driver vfio-pci`);
    assert.ok(journal.every((line) => !line.includes(disk)));
  });

  it('the failure of one unit does not affect the others, in any order', async () => {
    for (const own of [disk, network]) {
      const host = await made(...all);
      host.machine.mount({source: '/dev/nvme1n1', target: '/mnt/data', type: 'ext4'});
      const other = own === disk ? network : disk;
      waits(host, 'claim', `${other}@vfio-pci`, 4001);
      waits(host, 'claim', `${card}@vfio-pci`, 4002);
      const {exitCode} = await runOn(host, claim, own, 'vfio-pci');
      assert.equal(exitCode, own === disk ? 3 : 0);
      assert.equal(driverOf(host, disk), 'nvme');
      for (const slot of [network, card, sound]) assert.equal(driverOf(host, slot), 'vfio-pci', slot);
      const result = resultOf(host, 'claim', `${other}@vfio-pci`) ?? '';
      assert.match(
        result,
        other === disk ? /^4001 \d+ 3\n<3>.* is in use\n<3> .*\/mnt\/data/ : /^4001 \d+ 0\n/,
      );
    }
  });

  it('a write that does not return ends its own unit with 5, and the others are claimed', async () => {
    const host = await made(...all);
    host.neverReturn('/sys/bus/pci/drivers/nvme/unbind');
    waits(host, 'claim', `${disk}@vfio-pci`, 4001);
    waits(host, 'claim', `${network}@vfio-pci`, 4002);
    assert.equal((await runOn(host, claim, card, 'vfio-pci')).exitCode, 0);
    assert.match(resultOf(host, 'claim', `${disk}@vfio-pci`) ?? '', /^4001 \d+ 5\n/);
    assert.equal(driverOf(host, network), 'vfio-pci');
  });

  it('an untrusted record, a removed card and an invalid ticket are reported to their units', async () => {
    const host = await made(...all);
    const file = `/etc/pearasys/pci/${disk}-0x144d-0xa80a`;
    host.machine.tree.file(file, host.machine.tree.read(file) ?? '', 0o666);
    host.machine.hotRemove(network);
    waits(host, 'claim', `${disk}@vfio-pci`, 4001);
    waits(host, 'claim', `${network}@vfio-pci`, 4002);
    waits(host, 'claim', 'nonsense', 4003);
    assert.equal((await runOn(host, claim, card, 'vfio-pci')).exitCode, 0);
    assert.match(resultOf(host, 'claim', `${disk}@vfio-pci`) ?? '', /^4001 \d+ 1\n[^]*writable by others/);
    assert.match(resultOf(host, 'claim', `${network}@vfio-pci`) ?? '', /^4002 \d+ 4\n/);
    assert.match(resultOf(host, 'claim', 'nonsense') ?? '', /^4003 \d+ 2\n/);
  });

  it('does nothing for a unit that has stopped waiting, or is only enabled', async () => {
    const host = await made(...all);
    host.machine.tree.file(`${ticketsFolder('claim')}/${disk}@vfio-pci`, '4999 1\n', 0o644);
    assert.equal((await runOn(host, claim, card, 'vfio-pci')).exitCode, 0);
    assert.equal(driverOf(host, disk), 'nvme');
    assert.equal(driverOf(host, network), 'e1000e');
    assert.equal(resultOf(host, 'claim', `${disk}@vfio-pci`), undefined);
  });

  it('while the machine boots all enabled claims are due, with or without a ticket', async () => {
    const host = await made(...all, '-s 0000:01:00.0 service install vfio-pci');
    host.userland.systemState = 'starting';
    host.machine.mount({source: '/dev/nvme1n1', target: '/mnt/data', type: 'ext4'});
    await host.run('systemctl', ['disable', 'pearasys-0000:01:00.0@vfio-pci.service']);
    assert.equal((await runOn(host, claim, card, 'vfio-pci')).exitCode, 0);
    assert.equal(driverOf(host, network), 'vfio-pci');
    assert.equal(driverOf(host, disk), 'nvme');
    assert.equal(driverOf(host, '0000:01:00.0'), 'nouveau');
    // For the unit that will wait later.
    assert.match(resultOf(host, 'claim', `${disk}@vfio-pci`) ?? '', /^boot \d+ 3\n<3>.* is in use/);
    assert.equal(resultOf(host, 'claim', `${network}@vfio-pci`), undefined);
  });

  it('releases the device of each ticket', async () => {
    const host = await made(...all);
    for (const slot of [card, disk, network]) {
      await host.run('systemctl', ['start', `pearasys-${slot}@vfio-pci.service`]);
      await runOn(host, claim, slot, 'vfio-pci');
    }
    waits(host, 'release', `${disk}@vfio-pci`, 4001);
    waits(host, 'release', `${network}@vfio-pci`, 4002);
    host.journal.length = 0;
    assert.equal((await runOn(host, release, card, 'vfio-pci')).exitCode, 0);
    for (const slot of [card, disk, network]) assert.equal(driverOf(host, slot), undefined, slot);
    assert.match(resultOf(host, 'release', `${disk}@vfio-pci`) ?? '', /^4001 \d+ 0\n/);
    assert.equal(host.effects().filter((line) => line.startsWith('systemctl show')).length, 1);
  });

  it('records all cards of an id in one plan', async () => {
    const host = await made('-d 8086:10d3 service install vfio-pci --any-slot');
    host.machine.hotAdd({slot: '0000:06:00.0', id: '8086:10d3', class: '020000'});
    waits(host, 'record', '0000:06:00.0', 4001);
    host.journal.length = 0;
    assert.equal((await runOn(host, record, network)).exitCode, 0);
    for (const slot of [network, '0000:06:00.0'])
      assert.ok(host.exists(`/etc/pearasys/pci/${slot}-0x8086-0x10d3`), slot);
    const asked = host.effects().filter((line) => line.startsWith('systemctl'));
    assert.deepEqual(asked, [
      'systemctl daemon-reload',
      `systemctl start --no-block pearasys-${network}@vfio-pci.service pearasys-0000:06:00.0@vfio-pci.service`,
    ]);
  });
});
