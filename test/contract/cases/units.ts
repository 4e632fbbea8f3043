import assert from 'node:assert/strict';
import type {ContractArea, ContractMachine} from '../machine.js';
import {attribute, nic, succeeds, write} from './pci.js';

const folder = '/etc/systemd/system';
/** The folder in which the programs of units create files. */
const traces = '/run/contract';

/** A oneshot unit that stays active. */
const unit = (more = '', install = '') =>
  `[Unit]\nDescription=Contract %j %i\n${more}\n[Service]\nType=oneshot\nRemainAfterExit=yes\n${install}`;

async function load(on: ContractMachine, files: Readonly<Record<string, string>>): Promise<void> {
  await on.put(`${traces}/.made`, '');
  for (const [name, text] of Object.entries(files)) await on.put(`${folder}/${name}`, text);
  await succeeds(on, 'systemctl', 'daemon-reload');
}

const systemctl = (on: ContractMachine, ...args: string[]) => on.run('systemctl', ...args);
/** The output of `is-active`. */
const state = async (on: ContractMachine, name: string) => (await systemctl(on, 'is-active', name)).stdout;
/** The files that the programs of units have created. */
const ran = async (on: ContractMachine) => (await on.list(traces)).filter((name) => !name.startsWith('.'));
const touch = (name: string) => `/usr/bin/touch ${traces}/${name}`;

export const units: ContractArea = {
  title: 'units',
  cases: [
    {
      title: 'enable creates the link of [Install], with %j and %i; disable removes it and its folder',
      check: async (on) => {
        await load(on, {
          'contract-a:b@.service': unit('', '[Install]\nWantedBy=contract-%j-%i.target\n'),
          'contract-a:b-x.target': '[Unit]\nDescription=Contract\n',
        });
        const wants = `${folder}/contract-a:b-x.target.wants`;
        const one = 'contract-a:b@x.service';
        assert.equal((await systemctl(on, 'is-enabled', one)).stdout, 'disabled');
        const {stderr} = await systemctl(on, 'enable', one);
        assert.match(
          stderr,
          new RegExp(`^Created symlink ${wants}/${one} → ${folder}/contract-a:b@\\.service\\.$`),
        );
        assert.equal(await on.link(`${wants}/${one}`), 'contract-a:b@.service');
        assert.deepEqual(await systemctl(on, 'is-enabled', one), {code: 0, stdout: 'enabled', stderr: ''});
        assert.match(
          (await systemctl(on, 'disable', one)).stderr,
          new RegExp(`^Removed "${wants}/${one}"\\.$`),
        );
        assert.equal(await on.exists(wants), false);
        assert.deepEqual(await systemctl(on, 'is-enabled', one), {code: 1, stdout: 'disabled', stderr: ''});
      },
    },
    {
      title: 'start and stop run the lines of a unit once, with specifiers and drop-ins',
      check: async (on) => {
        await load(on, {
          'contract-a:b@.service': `${unit()}ExecStart=${touch('start-%j-%i')}\nExecStop=${touch('stop')}\n`,
          'contract-@.service.d/all.conf': `[Service]\nExecStart=${touch('all')}\n`,
          'contract-a:b@x.service.d/one.conf': `[Service]\nExecStart=${touch('one')}\n`,
        });
        const one = 'contract-a:b@x.service';
        assert.equal(await state(on, one), 'inactive');
        await succeeds(on, 'systemctl', 'start', one);
        assert.equal(await state(on, one), 'active');
        assert.deepEqual(await ran(on), ['all', 'one', 'start-a:b-x']);
        await on.remove(`${traces}/one`);
        await succeeds(on, 'systemctl', 'start', one);
        assert.deepEqual(await ran(on), ['all', 'start-a:b-x']);
        await succeeds(on, 'systemctl', 'stop', one);
        assert.equal(await state(on, one), 'inactive');
        assert.deepEqual(await ran(on), ['all', 'start-a:b-x', 'stop']);
      },
    },
    {
      title: 'an empty assignment clears the previous ones',
      check: async (on) => {
        await load(on, {
          'contract.service': `${unit()}ExecStart=${touch('first')}\n`,
          'contract.service.d/other.conf': `[Service]\nExecStart=\nExecStart=${touch('other')}\n`,
        });
        await succeeds(on, 'systemctl', 'start', 'contract.service');
        assert.deepEqual(await ran(on), ['other']);
      },
    },
    {
      title: 'a failed start runs ExecStopPost= but not ExecStop=; reset-failed resets the state',
      check: async (on) => {
        await load(on, {
          'contract.service': `${unit()}ExecStart=/bin/false\nExecStart=${touch('second')}\nExecStop=${touch('stop')}\nExecStopPost=${touch('post')}\n`,
        });
        const {code, stderr} = await systemctl(on, 'start', 'contract.service');
        assert.equal(code, 1);
        assert.match(
          stderr,
          /^Job for contract\.service failed because the control process exited with error code\./,
        );
        assert.equal(await state(on, 'contract.service'), 'failed');
        assert.deepEqual(await ran(on), ['post']);
        await succeeds(on, 'systemctl', 'reset-failed', 'contract.service');
        assert.equal(await state(on, 'contract.service'), 'inactive');
      },
    },
    {
      title:
        'a failing ExecStop= leaves the unit failed, but the stop succeeds; a dash ignores a failing line',
      check: async (on) => {
        await load(on, {
          'contract.service': `${unit()}ExecStart=-/bin/false\nExecStart=${touch('second')}\nExecStop=/bin/false\n`,
        });
        await succeeds(on, 'systemctl', 'start', 'contract.service');
        assert.deepEqual(await ran(on), ['second']);
        await succeeds(on, 'systemctl', 'stop', 'contract.service');
        assert.equal(await state(on, 'contract.service'), 'failed');
      },
    },
    {
      title: 'failing conditions skip a unit, but the start succeeds; one condition with | is enough',
      check: async (on) => {
        await load(on, {
          'contract-no.service': `${unit(`ConditionPathExists=${traces}/nothing`)}ExecStart=${touch('no')}\n`,
          'contract-not.service': `${unit(`ConditionPathExists=!${traces}/.made`)}ExecStart=${touch('not')}\n`,
          'contract-or.service': `${unit(`ConditionPathExists=|${traces}/nothing\nConditionPathExists=|!${traces}/nothing`)}ExecStart=${touch('or')}\n`,
        });
        for (const name of ['no', 'not', 'or'])
          await succeeds(on, 'systemctl', 'start', `contract-${name}.service`);
        assert.deepEqual(await ran(on), ['or']);
        assert.deepEqual(
          [await state(on, 'contract-no.service'), await state(on, 'contract-or.service')],
          ['inactive', 'active'],
        );
      },
    },
    {
      title: 'a conflict stops the other unit, regardless of which one declares it',
      check: async (on) => {
        await load(on, {
          'contract-a.service': `${unit('Conflicts=contract-b.service')}ExecStart=/bin/true\n`,
          'contract-b.service': `${unit()}ExecStart=/bin/true\nExecStop=${touch('b-stop')}\n`,
        });
        await succeeds(on, 'systemctl', 'start', 'contract-b.service');
        await succeeds(on, 'systemctl', 'start', 'contract-a.service');
        assert.deepEqual(
          [await state(on, 'contract-a.service'), await state(on, 'contract-b.service'), await ran(on)],
          ['active', 'inactive', ['b-stop']],
        );
        await succeeds(on, 'systemctl', 'start', 'contract-b.service');
        assert.equal(await state(on, 'contract-a.service'), 'inactive');
      },
    },
    {
      title: 'units that want each other start together, each once',
      check: async (on) => {
        await load(on, {
          'contract-a.service': `${unit('Wants=contract-b.service')}ExecStart=${touch('a')}\n`,
          'contract-b.service': `${unit('Wants=contract-a.service')}ExecStart=${touch('b')}\n`,
        });
        await succeeds(on, 'systemctl', 'start', 'contract-a.service');
        await on.settle();
        assert.deepEqual(await ran(on), ['a', 'b']);
        assert.equal(await state(on, 'contract-b.service'), 'active');
      },
    },
    {
      title: 'a unit is not started if a required unit that it is ordered after has failed',
      check: async (on) => {
        await load(on, {
          'contract-a.service': `${unit('Requires=contract-b.service\nAfter=contract-b.service')}ExecStart=${touch('a')}\n`,
          'contract-b.service': `${unit()}ExecStart=/bin/false\n`,
        });
        const {code, stderr} = await systemctl(on, 'start', 'contract-a.service');
        assert.equal(code, 1);
        assert.match(stderr, /^A dependency job for contract-a\.service failed\./);
        assert.deepEqual(await ran(on), []);
        assert.equal(await state(on, 'contract-a.service'), 'inactive');
      },
    },
    {
      title: 'unknown and masked units cannot be started',
      check: async (on) => {
        const unknown = await systemctl(on, 'start', 'contract-nothing.service');
        assert.deepEqual(
          [unknown.code, unknown.stderr],
          [5, 'Failed to start contract-nothing.service: Unit contract-nothing.service not found.'],
        );
        await load(on, {});
        await succeeds(on, 'systemctl', 'mask', 'contract-masked.service');
        const masked = await systemctl(on, 'start', 'contract-masked.service');
        await succeeds(on, 'systemctl', 'unmask', 'contract-masked.service');
        assert.deepEqual(
          [masked.code, masked.stderr],
          [1, 'Failed to start contract-masked.service: Unit contract-masked.service is masked.'],
        );
      },
    },
    {
      title: 'list-units and show print the states of units',
      check: async (on) => {
        await load(on, {
          'contract-a@.service': `${unit()}ExecStart=/bin/true\n`,
          'contract-a@bad.service.d/x.conf': '[Service]\nExecStart=/bin/false\n',
        });
        await systemctl(on, 'start', 'contract-a@good.service');
        await systemctl(on, 'start', 'contract-a@bad.service');
        const listed = await succeeds(
          on,
          'systemctl',
          'list-units',
          '--all',
          '--plain',
          '--no-legend',
          'contract-a@*',
        );
        assert.deepEqual(
          listed.split('\n').map((line) => line.trim().replace(/ +/g, ' ')),
          [
            'contract-a@bad.service loaded failed failed Contract a bad',
            'contract-a@good.service loaded active exited Contract a good',
          ],
        );
        const shown = await succeeds(
          on,
          ...([
            'systemctl',
            'show',
            '-p',
            'ActiveState,LoadState,UnitFileState',
            'contract-a@good.service',
          ] as const),
        );
        assert.deepEqual(shown.split('\n').sort(), [
          'ActiveState=active',
          'LoadState=loaded',
          'UnitFileState=static',
        ]);
      },
    },
    {
      title: 'a start while the unit stops waits for the stop, and starts it again',
      check: async (on) => {
        const gate = await on.gate();
        await load(on, {
          'contract.service': `${unit()}ExecStart=${touch('start')}\nExecStop=${gate.command}\n`,
        });
        await succeeds(on, 'systemctl', 'start', 'contract.service');
        await on.remove(`${traces}/start`);
        await succeeds(on, 'systemctl', 'stop', '--no-block', 'contract.service');
        // The job does not start immediately after it is queued.
        while ((await state(on, 'contract.service')) !== 'deactivating') continue;
        await succeeds(on, 'systemctl', 'start', '--no-block', 'contract.service');
        await gate.open();
        await on.settle();
        assert.equal(await state(on, 'contract.service'), 'active');
        assert.deepEqual(await ran(on), ['start']);
        // Without ExecStop=, the stop after the case does not wait for the gate.
        await on.put(`${folder}/contract.service`, `${unit()}ExecStart=/bin/true\n`);
        await succeeds(on, 'systemctl', 'daemon-reload');
      },
    },
  ],
};

const device = `sys-bus-pci-devices-${nic}.device`;
const rules = `SUBSYSTEM=="pci", KERNEL=="${nic}", TAG+="systemd", ENV{SYSTEMD_ALIAS}+="/sys/bus/pci/devices/$kernel"\n`;
const bound = unit(`BindsTo=${device}\nAfter=${device}`, `[Install]\nWantedBy=${device}\n[Service]\n`);

async function loadRules(on: ContractMachine, text: string): Promise<void> {
  await on.put('/etc/udev/rules.d/60-contract.rules', text);
  await succeeds(on, 'udevadm', 'control', '--reload');
}

export const deviceUnits: ContractArea = {
  title: 'units of devices',
  cases: [
    {
      title: 'an enabled unit stops when its device is removed, and starts when it is added again',
      check: async (on) => {
        await loadRules(on, rules);
        await load(on, {
          'contract.service': `${bound}ExecStart=${touch('start')}\nExecStop=${touch('stop')}\n`,
        });
        await succeeds(on, 'systemctl', 'enable', 'contract.service');
        await write(on, [attribute(nic, 'remove'), '1'], ['/sys/bus/pci/rescan', '1']);
        await on.settle();
        assert.equal(await state(on, device), 'active');
        assert.deepEqual(await ran(on), ['start']);
        await write(on, [attribute(nic, 'remove'), '1']);
        await on.settle();
        assert.equal(await state(on, 'contract.service'), 'inactive');
        assert.equal(await state(on, device), 'inactive');
        assert.deepEqual(await ran(on), ['start', 'stop']);
        await write(on, ['/sys/bus/pci/rescan', '1']);
        await on.settle();
        assert.equal(await state(on, 'contract.service'), 'active');
      },
    },
    {
      title: 'remain active after a bind if the tag is on every event, and after a daemon-reload',
      check: async (on) => {
        await loadRules(on, rules);
        await load(on, {'contract.service': `${bound}ExecStart=/bin/true\n`});
        await write(on, [attribute(nic, 'remove'), '1'], ['/sys/bus/pci/rescan', '1']);
        await on.settle();
        await succeeds(on, 'systemctl', 'start', 'contract.service');
        await write(
          on,
          ['/sys/bus/pci/drivers/e1000e/unbind', nic],
          ['/sys/bus/pci/drivers/e1000e/bind', nic],
        );
        await on.settle();
        await succeeds(on, 'systemctl', 'daemon-reload');
        await on.settle();
        assert.equal(await state(on, 'contract.service'), 'active');
      },
    },
    {
      title: 'are lost at the daemon-reload after an event without the tag',
      check: async (on) => {
        await loadRules(on, `ACTION=="add", ${rules}`);
        await load(on, {'contract.service': `${bound}ExecStart=/bin/true\n`});
        await write(on, [attribute(nic, 'driver_override'), 'none'], [attribute(nic, 'remove'), '1']);
        await write(on, ['/sys/bus/pci/rescan', '1']);
        await on.settle();
        await succeeds(on, 'udevadm', 'trigger', '--action=add', `/sys/bus/pci/devices/${nic}`);
        await on.settle();
        await succeeds(on, 'systemctl', 'start', 'contract.service');
        await succeeds(on, 'udevadm', 'trigger', '--action=change', `/sys/bus/pci/devices/${nic}`);
        await on.settle();
        await succeeds(on, 'systemctl', 'daemon-reload');
        await on.settle();
        assert.equal(await state(on, 'contract.service'), 'inactive');
      },
    },
    {
      title: 'SYSTEMD_WANTS starts units when the device appears',
      check: async (on) => {
        await loadRules(
          on,
          `${rules.trimEnd()}, ENV{SYSTEMD_WANTS}+="contract-a@$kernel.service contract-b.service"\n`,
        );
        await load(on, {
          'contract-a@.service': `${unit()}ExecStart=${touch('a-%i')}\n`,
          'contract-b.service': `${unit()}ExecStart=${touch('b')}\n`,
        });
        await write(on, [attribute(nic, 'remove'), '1'], ['/sys/bus/pci/rescan', '1']);
        await on.settle();
        assert.deepEqual(await ran(on), [`a-${nic}`, 'b']);
      },
    },
  ],
};
