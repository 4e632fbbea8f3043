/** Mediated devices of real parents: events, units and records, with a real udev and systemd. */
import assert from 'node:assert/strict';
import type {Machine} from './machine.js';
import {mdevRecipe} from './recipes.js';
import {rebootWhileHeld, withOwnMachine, type Product} from './shared.js';

const A = '11111111-1111-4111-8111-111111111111';
const B = '22222222-2222-4222-8222-222222222222';
const many = Array.from({length: 24}, (_, index) => `000000${10 + index}-0000-4000-8000-000000000000`);

const types = '/sys/class/mdev_bus/mtty/mdev_supported_types';
const unitOf = (uuid: string): string => `mdev@${uuid}.service`;
const definitionOf = (uuid: string): string => `/etc/mdevctl.d/mtty/${uuid}`;
const pathOf = (uuid: string): string => `/sys/bus/mdev/devices/${uuid}`;
const asRecorded = (start = 'manual', type = 'mtty-1'): string =>
  `{\n  "mdev_type": "${type}",\n  "start": "${start}",\n  "attrs": []\n}`;

describe('mediated devices on a real kernel', function () {
  this.timeout(400_000);
  let machine: Machine;
  let product: Product;

  withOwnMachine(this, mdevRecipe(), async (booted) => {
    product = booted;
    ({machine} = product);
    // Debian's rule would start the same definitions.
    await machine.sh(`ln -s /dev/null /etc/udev/rules.d/60-mdevctl.rules && udevadm control --reload &&
  echo mtty >/etc/modules-load.d/mtty.conf && modprobe mtty && udevadm settle`);
  });

  const create = (uuid: string, type = 'mtty-1') => machine.sh(`echo ${uuid} >${types}/${type}/create`);
  const remove = (uuid: string) => machine.sh(`echo 1 >${pathOf(uuid)}/remove`);
  const isThere = async (uuid: string) => (await machine.run(`test -e ${pathOf(uuid)}`)).code === 0;
  const untilActive = (count: number) =>
    machine.waitUntil(
      `test "$(systemctl list-units --plain --no-legend --state=active 'mdev@*' | wc -l)" = ${count}
test -z "$(systemctl list-jobs --no-legend)"`,
    );
  /** Removes all devices and definitions. */
  const clear = async () => {
    await machine.sh(`for device in /sys/bus/mdev/devices/*/remove; do [ ! -e "$device" ] || echo 1 >"$device"; done
udevadm settle`);
    await untilActive(0);
    await machine.sh('rm -rf /etc/mdevctl.d/mtty; systemctl reset-failed');
  };

  it('has units that pass systemd-analyze verify', async () => {
    const names = `mdev@${A}.service mdev_create@${A}.service mdev_record@${A}.service mdev_parent@mtty.service mdev_there@${A}.target mdev_gone@${A}.target`;
    const {stdout, stderr} = await machine.run(`systemd-analyze verify ${names}`);
    // systemd-analyze calls man to check the documentation, which the machine does not have.
    assert.equal((stdout + stderr).replaceAll(/^.*Command 'man .*\n/gm, ''), '');
  });

  describe('a device that was created by a bare write', () => {
    after(clear);

    it('has an active unit, and is recorded in the format of mdevctl', async () => {
      await create(A);
      await product.untilState(unitOf(A), 'active');
      await machine.waitUntil(`test -e ${definitionOf(A)}`);
      assert.equal((await machine.readFile(definitionOf(A))).toString(), asRecorded());
      assert.equal(await machine.sh(`stat -c '%a %U' ${definitionOf(A)}`), '644 root');
    });

    it('survives daemon-reload, triggers and a restart of udev', async () => {
      const since = `systemctl show --value --property=ActiveEnterTimestampMonotonic ${unitOf(A)}`;
      const before = await machine.sh(since);
      await machine.sh('systemctl daemon-reload && systemctl daemon-reexec');
      for (const action of ['add', 'change', 'bind'])
        await machine.sh(
          `udevadm trigger --action=${action} --settle ${pathOf(A)} && systemctl daemon-reload`,
        );
      await machine.sh('systemctl restart systemd-udevd && udevadm settle && systemctl daemon-reload');
      assert.equal(await product.stateOf(unitOf(A)), 'active');
      assert.equal(await machine.sh(since), before);
    });

    it('is removed by the stop of the unit, and created by its start', async () => {
      await machine.sh(`systemctl stop ${unitOf(A)}`);
      assert.equal(await isThere(A), false);
      await machine.sh(`systemctl start ${unitOf(A)}`);
      assert.equal(await isThere(A), true);
      assert.equal(await product.stateOf(unitOf(A)), 'active');
    });

    it('is a new one after a restart of the unit', async () => {
      await machine.sh(`udevadm settle; systemctl restart ${unitOf(A)}`);
      await machine.sh('udevadm settle');
      await untilActive(1);
      assert.equal(await isThere(A), true);
      assert.equal(await product.stateOf(`mdev_there@${A}.target`), 'active');
      // systemd logs each process that outlives its service.
      assert.doesNotMatch(await product.journalOf(unitOf(A)), /remains running/);
      assert.doesNotMatch(await product.journalOf(`mdev_create@${A}.service`), /remains running/);
    });

    it('stops its unit when it is removed, and keeps its definition', async () => {
      await remove(A);
      await product.untilState(unitOf(A), 'inactive');
      await machine.sh(`test -e ${definitionOf(A)}`);
      await machine.sh('udevadm settle');
      await untilActive(0);
      assert.equal(await isThere(A), false);
    });

    it('ends in the last requested state after many starts and stops', async () => {
      const mdevctl = `/usr/bin/mdevctl`;
      const flap = `for round in 1 2 3 4 5; do ${mdevctl} start -u ${A}; ${mdevctl} stop -u ${A}; done`;
      await machine.sh(`${flap}; udevadm settle`);
      await untilActive(0);
      assert.equal(await isThere(A), false);
      await machine.sh(`${flap}; ${mdevctl} start -u ${A}; udevadm settle`);
      await untilActive(1);
      assert.equal(await isThere(A), true);
      await machine.sh(`${mdevctl} stop -u ${A}; ${mdevctl} start -u ${A}; udevadm settle`);
      await untilActive(1);
      assert.equal(await isThere(A), true);
    });
  });

  describe('AutoRecord=no', () => {
    const settings = '/etc/pearasys/pearasys.conf.d/50-manual.conf';
    after(async () => {
      await machine.sh(`rm -r /etc/pearasys/pearasys.conf.d`);
      await clear();
    });

    it('does not record a device, but starts its unit', async () => {
      await machine.writeFile(settings, 'AutoRecord=no\n');
      await create(A);
      await product.untilState(unitOf(A), 'active');
      await machine.sh('udevadm settle');
      await untilActive(1);
      assert.equal((await machine.run(`test -e ${definitionOf(A)}`)).code, 1);
    });
  });

  describe('a device that cannot be started', () => {
    after(clear);

    it('has an inactive unit, nothing in sysfs, and the reason in the journal', async () => {
      await machine.writeFile(
        definitionOf(A),
        '{"mdev_type": "mtty-1", "start": "manual", "attrs": [{"power/control": "nonsense"}]}',
      );
      for (const round of [1, 2]) {
        assert.notEqual((await machine.run(`systemctl start ${unitOf(A)}`)).code, 0, String(round));
        await machine.sh('udevadm settle');
        await untilActive(0);
        assert.equal(await isThere(A), false);
      }
      assert.match(
        await product.journalOf(`mdev_create@${A}.service`),
        /writing 'nonsense' to \S+power\/control failed: EINVAL/,
      );
      assert.notEqual((await machine.run(`systemctl start ${unitOf(B)}`)).code, 0);
      assert.match(await product.journalOf(`mdev_create@${B}.service`), /is not defined/);
    });
  });

  describe('a device in use', () => {
    after(clear);

    it('is not removed by the stop of its unit, which names the process using it and does not hang', async () => {
      await create(A);
      await product.untilState(unitOf(A), 'active');
      const guest = await machine.start(`exec perl /mnt/checkout/test/vm/stuck.pl ${A}`);
      await guest.printed(/held/);
      await machine.run(`systemctl stop ${unitOf(A)}`, {timeout: 60_000});
      assert.match(
        await product.journalOf(unitOf(A)),
        new RegExp(`${A} on mtty is in use[^]*${guest.pid} \\(`),
      );
      assert.equal(await isThere(A), true);
      guest.kill();
      await guest.exited;
      await machine.sh(`systemctl start ${unitOf(A)} && systemctl stop ${unitOf(A)}`);
      assert.equal(await isThere(A), false);
    });
  });

  describe('a parent', () => {
    after(clear);

    it('starts its auto definitions once when it registers, and no others', async () => {
      await machine.sh('rmmod mtty && udevadm settle');
      await machine.writeFile(definitionOf(A), asRecorded('auto'));
      await machine.writeFile(definitionOf(B), asRecorded('manual', 'mtty-2'));
      await machine.sh('modprobe mtty && udevadm settle');
      await untilActive(1);
      assert.equal(await isThere(A), true);
      assert.equal(await isThere(B), false);
    });

    it('starts its definitions in any valid form', async () => {
      await machine.sh('rmmod mtty && udevadm settle');
      await untilActive(0);
      await machine.writeFile(definitionOf(A), '{"start":"auto","mdev_type":"mtty-2"}');
      await machine.writeFile(
        definitionOf(B),
        '{"mdev_type": "mtty-1", "start": "auto", "attrs": [{"power/control": "auto"}], "later": 1}',
      );
      await machine.writeFile(definitionOf(many[0]!), '{"mdev_type": ');
      await machine.sh('modprobe mtty && udevadm settle');
      await untilActive(2);
      assert.equal(await machine.sh(`cat ${pathOf(B)}/power/control`), 'auto');
      assert.match(await product.journalOf('mdev_parent@mtty.service'), /the definition \S+ is ignored: /);
      assert.equal((await machine.readFile(definitionOf(many[0]!))).toString(), '{"mdev_type": ');
    });

    it('removes its devices and stops their units when it unregisters', async () => {
      await machine.sh('rmmod mtty && udevadm settle');
      await untilActive(0);
      await machine.sh('modprobe mtty && udevadm settle');
      await untilActive(2);
    });

    it('has each device once if mdevctl’s own rule starts them too', async () => {
      const mask = '/etc/udev/rules.d/60-mdevctl.rules';
      await machine.sh(`rm ${mask} && udevadm control --reload`);
      try {
        for (let round = 0; round < 5; round++) {
          await machine.sh('rmmod mtty && udevadm settle');
          await untilActive(0);
          // With attributes it is not for the fast path: both programs create the device and write its attribute.
          await machine.writeFile(
            definitionOf(A),
            '{"mdev_type": "mtty-1", "start": "auto", "attrs": [{"power/control": "auto"}]}',
          );
          await machine.writeFile(definitionOf(B), asRecorded('auto', 'mtty-2'));
          const registered = await machine.sh("date '+%F %T.%6N'");
          await machine.sh('modprobe mtty && udevadm settle');
          await untilActive(2);
          assert.equal(await machine.sh('ls /sys/bus/mdev/devices'), `${A}\n${B}`, String(round));
          assert.equal(await machine.sh(`cat ${pathOf(A)}/power/control`), 'auto');
          for (const uuid of [A, B]) assert.equal(await product.stateOf(unitOf(uuid)), 'active');
          const ended = await machine.sh(
            `journalctl --sync; journalctl --no-pager -o cat --since '${registered}' -u 'mdev_create@*' -u 'mdev@*' -u 'mdev_parent@*'`,
          );
          assert.doesNotMatch(ended, /Failed|failed with result/);
        }
      } finally {
        await machine.sh(`ln -s /dev/null ${mask} && udevadm control --reload`);
      }
    });

    it('starts no process without definitions, nor do other devices', async () => {
      await clear();
      for (const path of [
        '/sys/devices/virtual/mtty/mtty',
        '/sys/class/net/lo',
        '/sys/bus/pci/devices/0000:00:08.0',
      ]) {
        const log = await machine.sh(`udevadm test --action=add ${path} 2>&1`);
        assert.doesNotMatch(log, /SYSTEMD_WANTS=.*mdev|mdev[^\n]*(?:PROGRAM|Running)/, path);
      }
    });
  });

  describe('24 devices of one parent', function () {
    this.timeout(1_200_000);

    it('exist after a boot with their units, but not a manual one', async () => {
      for (const uuid of many.slice(1)) await machine.writeFile(definitionOf(uuid), asRecorded('auto'));
      await machine.writeFile(definitionOf(many[0]!), asRecorded('auto'));
      await machine.writeFile(`/etc/mdevctl.d/mtty/${B}`, asRecorded('manual'));
      await machine.reboot();
      await untilActive(24);
      assert.equal(await machine.sh('ls /sys/bus/mdev/devices'), many.join('\n'));
    });

    it('remain after a daemon-reload', async () => {
      await machine.sh('systemctl daemon-reload && udevadm settle');
      await untilActive(24);
      assert.equal(await machine.sh('ls /sys/bus/mdev/devices | wc -l'), '24');
    });

    it('do not delay a shutdown if one is in use', async () => {
      const shutdown = await rebootWhileHeld(machine, many[0]!);
      assert.doesNotMatch(shutdown, /(?:Stopping|Stopped).*mdev@|is removed/);
      await untilActive(24);
    });

    it('are the maximum, and the unit of another device reports it', async () => {
      await machine.writeFile(definitionOf(A), asRecorded('manual'));
      assert.notEqual((await machine.run(`systemctl start ${unitOf(A)}`)).code, 0);
      assert.match(
        await product.journalOf(`mdev_create@${A}.service`),
        /no(?:ne| more)? .*(?:left|available|instances)/i,
      );
      await clear();
    });
  });

  describe('scripts that make the requested action possible', () => {
    const scripts = '/etc/mdevctl.d/scripts.d';
    const start = `pearasys mdev start -u ${A} -p mtty -t mtty-1`;
    /** Installs a callout with this body, and a notifier; both log their arguments. */
    const install = async (body: string) => {
      const note = `echo "\${0##*/} $4 $6 $8" >>/run/mdev-calls`;
      await machine.writeFile(
        `${scripts}/callouts/a`,
        `#!/bin/sh\n[ "$4" = get ] && exit 1\n${note}\ncase "$4 $6" in\n${body}\nesac\n`,
      );
      await machine.writeFile(`${scripts}/notifiers/n`, `#!/bin/sh\n${note}\n`);
      await machine.sh(`chmod 755 ${scripts}/callouts/a ${scripts}/notifiers/n; rm -f /run/mdev-calls`);
    };
    const calls = async () => (await machine.sh('cat /run/mdev-calls; rm /run/mdev-calls')).split('\n');
    const told = (action: string, outcome: string) => [
      `a pre ${action} none`,
      `a post ${action} ${outcome}`,
      `n notify ${action} ${outcome}`,
    ];
    const unload = () => machine.sh('rmmod mtty && udevadm settle');

    afterEach(async () => {
      await machine.sh('modprobe mtty && udevadm settle');
      await clear();
    });
    after(() => machine.sh(`rm -rf ${scripts}`));

    it('start: pre loads the driver of the parent', async () => {
      await install("'pre start') modprobe mtty ;;");
      await unload();
      await machine.sh(start);
      assert.equal(await isThere(A), true);
      assert.deepEqual(await calls(), told('start', 'success'));
    });

    it('start of the unit: pre loads the driver of the parent', async () => {
      await install("'pre start') modprobe mtty ;;");
      await machine.writeFile(definitionOf(A), asRecorded('manual'));
      await unload();
      await machine.sh(`systemctl start ${unitOf(A)}`);
      assert.equal(await isThere(A), true);
      assert.deepEqual(await calls(), told('start', 'success'));
    });

    it('start: they are notified if the parent is still missing', async () => {
      await install('');
      await unload();
      const {code, stderr} = await machine.run(start);
      assert.equal(code, 4);
      assert.match(stderr, /there is no parent mtty/);
      assert.deepEqual(await calls(), told('start', 'failure'));
    });

    it('start: pre frees the last instance', async () => {
      const instances = many.slice(0, Number(await machine.sh(`cat ${types}/mtty-2/available_instances`)));
      for (const uuid of instances) await create(uuid, 'mtty-2');
      assert.equal(await machine.sh(`cat ${types}/mtty-2/available_instances`), '0');
      await install(`'pre start') echo 1 >${pathOf(instances[0]!)}/remove ;;`);
      await machine.sh(`pearasys mdev start -u ${A} -p mtty -t mtty-2`);
      assert.equal(await isThere(A), true);
      assert.equal(await isThere(instances[0]!), false);
      assert.deepEqual(await calls(), told('start', 'success'));
    });

    it('stop: pre ends the process that uses the device', async () => {
      await create(A);
      await product.untilState(unitOf(A), 'active');
      const guest = await machine.start(`exec perl /mnt/checkout/test/vm/stuck.pl ${A}`);
      await guest.printed(/held/);
      await install(`'pre stop') kill ${guest.pid}; while [ -e /proc/${guest.pid} ]; do :; done ;;`);
      await machine.sh(`pearasys mdev stop -u ${A}`);
      assert.equal(await isThere(A), false);
      assert.deepEqual(await calls(), told('stop', 'success'));
    });
  });

  // In a suite of its own and last: tests of a suite run before those of its nested suites.
  describe('make uninstall', () => {
    it('keeps devices and definitions', async () => {
      await create(A);
      await product.untilState(unitOf(A), 'active');
      await machine.waitUntil(`test -e ${definitionOf(A)}`);
      await machine.sh('make -C /opt/pearasys-checkout uninstall');
      assert.equal(await isThere(A), true);
      await machine.sh(`test -e ${definitionOf(A)}`);
      assert.equal(
        await machine.sh(
          'find / -xdev -name "*pearasys*" -not -path "/opt/*" -not -path "/proc/*" -not -path "/var/*" -not -name "*pearasys-agent*"',
        ),
        '/etc/pearasys',
      );
    });
  });
});
