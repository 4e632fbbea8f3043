import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import type {GuestListResult} from '../../src/entry/cli/commands/guest/list.js';
import type {GuestQueryResult} from '../../src/entry/cli/commands/guest/query.js';
import type {GuestSetupResult} from '../../src/entry/cli/commands/guest/setup.js';
import type {GuestShowResult} from '../../src/entry/cli/commands/guest/show.js';
import {searchChoices} from '../../src/entry/cli/choose.js';
import {MachineHost} from '../../src/host/machine-host.js';
import type {MachineDeclaration} from '../simulated-host/declaration.js';
import type {SimulatedHost} from '../simulated-host/simulated-host.js';
import {machines, runUnits} from '../unit/services.js';
import {answer, run, typed} from './runs.js';

const folder = '/etc/pearasys/guests';
const hooks = '/etc/libvirt/hooks';

function domain(...slots: readonly string[]): string {
  const devices = slots.map((slot) => {
    const [, bus = '', device = '', fn = ''] = /:(..):(..)\.(.)/.exec(slot) ?? [];
    return `<hostdev mode='subsystem' type='pci' managed='no'><source><address domain='0x0000' bus='0x${bus}' slot='0x${device}' function='0x${fn}'/></source></hostdev>`;
  });
  return `<domain type='kvm'><name>x</name><devices>${devices.join('')}</devices></domain>\n`;
}

describe('pearasys guest', () => {
  const made = machines();

  const read = (host: SimulatedHost, path: string) => host.machine.tree.read(path);

  async function ok(host: SimulatedHost, ...argv: readonly string[]): Promise<string> {
    const {exitCode, stdout, stderr} = await run(host, argv);
    assert.equal(exitCode, 0, stderr);
    return stdout;
  }

  async function json<T>(host: SimulatedHost, ...argv: readonly string[]): Promise<T> {
    return JSON.parse(await ok(host, ...argv, '--json')) as T;
  }

  describe('setup', () => {
    it('writes the slots, the list and the ids of the cards; the devices do not change', async () => {
      const host = made();
      const before = host.machine.bindings();
      assert.equal(
        await ok(host, 'guest', 'setup', 'win11', '--device', '01:00.0', '--siblings'),
        'guest win11 takes 0000:01:00.0, 0000:01:00.1, with the boot display\n',
      );
      assert.equal(read(host, `${folder}/win11.conf`), '0000:01:00.0\n0000:01:00.1\n');
      assert.equal(read(host, `${folder}/single-gpu-passthrough-guests.conf`), 'win11\n');
      assert.match(
        read(host, `${folder}/win11.settings`) ?? '',
        /\nCard=0000:01:00.0 10de:1b80\nCard=0000:01:00.1 10de:10f0\n$/,
      );
      assert.deepEqual(host.machine.bindings(), before);
      assert.equal(
        (await json<GuestSetupResult>(host, 'guest', 'setup', 'win11', '-s', '01:00.0', '--siblings'))
          .changed,
        false,
      );
    });

    it('replaces an earlier set-up, keeps manual changes, and lists the guest once', async () => {
      const host = made((declaration) => {
        declaration.files[`${folder}/win11.conf`] = '# the card\n0000:01:00.0\n0000:01:00.1 # its sound\n';
        declaration.files[`${folder}/single-gpu-passthrough-guests.conf`] = 'other\nwin11\nwin11\nwin110\n';
        declaration.files[`${folder}/win11.settings`] = 'Processes=end\nCard=0000:01:00.0 10de:1b80\n';
      });
      const {display} = await json<GuestSetupResult>(
        host,
        'guest',
        'setup',
        'win11',
        '-s',
        '02:00.0',
        '--siblings',
        '--yes',
      );
      assert.equal(display, 'gpu');
      assert.equal(read(host, `${folder}/win11.conf`), '# the card\n0000:02:00.0\n0000:02:00.1\n');
      assert.equal(read(host, `${folder}/single-gpu-passthrough-guests.conf`), 'other\nwin110\n');
      assert.equal(read(host, `${folder}/gpu-passthrough-guests.conf`), 'win11\n');
      assert.equal(
        read(host, `${folder}/win11.settings`),
        'Processes=end\nCard=0000:02:00.0 10de:1b80\nCard=0000:02:00.1 10de:10f0\n',
      );
      await ok(host, 'guest', 'setup', 'win11', '--device', 'eth1');
      assert.equal(read(host, `${folder}/gpu-passthrough-guests.conf`), '');
    });

    it('names omitted members of the group, and other guests that take the card', async () => {
      const host = made();
      await ok(host, 'guest', 'setup', 'a', '--device', '02:00.0', '--group');
      const {stderr, exitCode} = await typed(host, 'guest setup b --device 02:00.0');
      assert.equal(exitCode, 0);
      assert.match(
        stderr,
        /0000:02:00.1 \(10de:10f0\) is also in group 2.*cannot start while it is on snd_hda_intel/,
      );
      assert.match(
        stderr,
        /0000:02:00.0 is also a device of guest a: only one of the guests can run at a time/,
      );
    });

    it('uses the devices of the domain if none is named, and never asks without a terminal', async () => {
      const host = made((declaration) => {
        declaration.files['/etc/libvirt/qemu/win11.xml'] = domain('0000:02:00.0', '0000:02:00.1');
        declaration.files['/etc/libvirt/qemu/plain.xml'] = domain();
      });
      await ok(host, 'guest', 'setup', 'win11');
      assert.equal(read(host, `${folder}/win11.conf`), '0000:02:00.0\n0000:02:00.1\n');
      const plain = await typed(host, 'guest setup plain');
      assert.equal(plain.exitCode, 2);
      assert.match(plain.stderr, /no device was named for guest plain, and its domain has no PCI device/);
      const wrong = await typed(host, 'guest setup win12');
      assert.equal(wrong.exitCode, 4);
      assert.match(wrong.stderr, /libvirt has no guest called win12\n[^]*did you mean win11\?/);
      assert.equal(read(host, `${folder}/win12.conf`), undefined);
    });

    it('accepts a guest without a file of libvirt if devices are named, and says so', async () => {
      const host = made((declaration) => {
        declaration.files['/etc/libvirt/qemu/win11.xml'] = domain();
      });
      for (const argv of [
        ['win12', '--device', '02:00.0', '--siblings'],
        ['kubevirt-vm', '-s', '02:00.0', '-s', '02:00.1', '--yes'],
      ]) {
        const {exitCode, stderr} = await run(host, ['guest', 'setup', ...argv]);
        assert.equal(exitCode, 0, stderr);
        assert.match(stderr, new RegExp(`libvirt has no file of guest ${argv[0] ?? ''}`));
        assert.equal(read(host, `${folder}/${argv[0] ?? ''}.conf`), '0000:02:00.0\n0000:02:00.1\n');
        assert.equal((await run(host, ['guest', 'install-hooks', argv[0] ?? ''])).exitCode, 0);
      }
      assert.match((await typed(host, 'guest setup win12 -s 02:00.0')).stderr, /did you mean win11\?/);
    });

    it('writes into a folder for inspection, with the devices of the machine', async () => {
      const host = made((declaration) => {
        declaration.files['/etc/libvirt/qemu/win11.xml'] = domain('0000:02:00.0', '0000:02:00.1');
      });
      const root = `${host.machine.folder}/look`;
      for (const argv of [['win11'], ['other', '--device', 'eth1']]) {
        const {exitCode, stderr} = await run(host, ['guest', 'setup', ...argv, '--yes', '--root', root]);
        assert.equal(exitCode, 0, stderr);
      }
      const look = new MachineHost(root);
      assert.equal(look.readText(`${folder}/win11.conf`), '0000:02:00.0\n0000:02:00.1');
      assert.equal(look.readText(`${folder}/gpu-passthrough-guests.conf`), 'win11');
      assert.match(look.readText(`${folder}/win11.settings`) ?? '', /Card=0000:02:00.0 10de:1b80/);
      assert.deepEqual(look.list('/'), ['etc']);
      assert.deepEqual(host.effects(), []);
    });

    it('puts a guest with the primary display and another card in both lists', async () => {
      const host = made();
      const both = ['-s', '01:00.0', '-s', '02:00.0', '--siblings'];
      assert.equal((await json<GuestSetupResult>(host, 'guest', 'setup', 'g', ...both)).display, 'both');
      for (const list of ['single-gpu-passthrough-guests', 'gpu-passthrough-guests'])
        assert.equal(read(host, `${folder}/${list}.conf`), 'g\n');
      const query = await json<GuestQueryResult>(host, 'guest', 'query', 'g');
      assert.deepEqual(query.is_gpu_passthrough_guest, ['g']);
      assert.deepEqual(query.is_primary_gpu_passthrough_guest, ['g']);
      const {guests} = await json<GuestListResult>(host, 'guest', 'list');
      assert.equal(guests[0]?.display, 'both');
      await ok(host, 'guest', 'setup', 'g', '-s', '01:00.0', '--siblings');
      assert.equal(read(host, `${folder}/gpu-passthrough-guests.conf`), '');
      await ok(host, 'guest', 'remove', 'g');
      assert.equal(read(host, `${folder}/single-gpu-passthrough-guests.conf`), '');
    });

    it('refuses bad names, bridges, missing devices, and files it did not write, before any change', async () => {
      const host = made((declaration) => {
        declaration.files[`${folder}/broken.conf`] = 'VENDOR=10de\n';
      });
      for (const [argv, exitCode, message] of [
        [['guest', 'setup', '../x', '--device', '02:00.0'], 2, /cannot be the name of a guest/],
        [['guest', 'setup', 'gpu-passthrough-guests', '--device', '02:00.0'], 2, /cannot be the name/],
        [['guest', 'setup', 'g', '--device', '00:01.0'], 3, /is a bridge/],
        [['guest', 'setup', 'g', '--device', '09:00.0'], 4, /no device in slot 0000:09:00.0/],
        [['guest', 'setup', 'g', '--device', '10de:1b80'], 2, /id 10de:1b80 matches 2 devices/],
        [['guest', 'setup', 'g'], 2, /no device was named/],
        [
          ['guest', 'setup', 'broken', '--device', '02:00.0'],
          3,
          /refusing to overwrite \S+broken.conf\n.*line 1 is 'VENDOR=10de'/,
        ],
      ] as const) {
        const {exitCode: found, stderr} = await run(host, argv);
        assert.equal(found, exitCode, stderr);
        assert.match(stderr, message);
      }
      assert.deepEqual(host.effects(), []);
    });

    it('shows with --dry-run what it would write, as shell lines', async () => {
      const host = made();
      const script = await ok(
        host,
        'guest',
        'setup',
        "it's $(me)",
        '--device',
        '02:00.0',
        '--siblings',
        '--dry-run',
      );
      assert.match(
        script,
        /^cat > '\/etc\/pearasys\/guests\/it'\\''s \$\(me\)\.conf' <<'EOF'\n0000:02:00.0\n/,
      );
      assert.equal(spawnSync('sh', ['-n'], {input: script}).status, 0);
      assert.deepEqual(host.effects(), []);
    });

    it('changes nothing if a file cannot be written', async () => {
      const host = made();
      host.failFile(`${folder}/gpu-passthrough-guests.conf`, 'ENOSPC');
      const {exitCode, stderr} = await typed(host, 'guest setup win11 --device 02:00.0 --siblings');
      assert.equal(exitCode, 1);
      assert.match(stderr, /ENOSPC/);
      assert.deepEqual(host.list(folder), []);
    });
  });

  describe('setup on a terminal', () => {
    it('searches while the user types, offers siblings, and asks before it writes', async () => {
      const host = made();
      const {exitCode, stderr} = await answer(
        host,
        ['guest', 'setup', 'win11'],
        [/❯ 1\)/, '02:00.0'],
        [/02:00\.0 ❯ 8\) 0000:02:00\.0/, '\r'],
        [/❯ Done: 0000:02:00\.0/, '\r'],
        [/0000:02:00\.1 .*is also in group 2\. Include it\?/, 'y\r'],
        [/Set up guest \S+ with 0000:02:00\.0, 0000:02:00\.1\?/, 'y\r'],
      );
      assert.equal(exitCode, 0, stderr);
      assert.equal(read(host, `${folder}/win11.conf`), '0000:02:00.0\n0000:02:00.1\n');
    });

    it("proposes the domain's devices, and writes nothing when the answer is no", async () => {
      const host = made((declaration) => {
        declaration.files['/etc/libvirt/qemu/win11.xml'] = domain('0000:02:00.0', '0000:02:00.1');
      });
      const {exitCode, stderr} = await answer(
        host,
        ['guest', 'setup', 'win11'],
        [/❯ Done: 0000:02:00\.0, 0000:02:00\.1/, '\r'],
        [/Set up guest \S+ with /, 'n\r'],
      );
      assert.equal(exitCode, 1);
      assert.match(stderr, /stopped: the answer was no\n {2}nothing was changed/);
      assert.deepEqual(host.effects(), []);
    });

    it('finds by words and by number', () => {
      const choices = [
        {slot: 'a', text: '1) 01:00.0  NVIDIA GP104 [nouveau, group 1]'},
        {slot: 'b', text: '2) 02:00.0  Intel Ethernet [e1000e, group 2]'},
      ];
      const found = (term: string) => searchChoices(choices, term).map(({slot}) => slot);
      assert.deepEqual(found(''), ['a', 'b']);
      assert.deepEqual(found('nvidia'), ['a']);
      assert.deepEqual(found('group INTEL'), ['b']);
      assert.deepEqual(found('2'), ['b']);
      assert.deepEqual(found('9'), []);
      assert.deepEqual(found('none'), []);
    });
  });

  describe('list, show, of, remove', () => {
    it('show what is set up, in any state', async () => {
      const host = made((declaration) => {
        declaration.files[`${folder}/broken.conf`] = 'nonsense\n';
        declaration.files[`${folder}/gpu-passthrough-guests.conf`] = 'gone\n';
        declaration.files['/etc/libvirt/qemu/win11.xml'] = domain('0000:01:00.0', '0000:01:00.1');
      });
      runUnits(host);
      await ok(host, 'guest', 'setup', 'win11', '--device', '02:00.0', '--siblings');
      const {stdout, stderr} = await typed(host, 'guest list');
      assert.equal(stdout, 'broken\t-\t-\tinactive\t-\nwin11\t0000:02:00.0,0000:02:00.1\tgpu\tinactive\t-\n');
      assert.match(stderr, /the guest's file \S+\/broken.conf is ignored: line 1 is 'nonsense'/);
      assert.match(stderr, /gone is in a list of guests, but is not set up/);
      await host.run('systemctl', ['start', 'pearasys-guest@win11.service']);
      const {guests} = await json<GuestListResult>(host, 'guest', 'list');
      assert.deepEqual(guests[1], {
        guest: 'win11',
        slots: ['0000:02:00.0', '0000:02:00.1'],
        display: 'gpu',
        unit: 'pearasys-guest@win11.service',
        active: 'active',
        taken: ['0000:02:00.0', '0000:02:00.1'],
        problem: null,
      });
      const shown = await json<GuestShowResult>(host, 'guest', 'show', 'win11');
      assert.deepEqual(
        shown.devices.map(({slot, driver, taken, hostDriver, expected}) => [
          slot,
          driver,
          taken,
          hostDriver,
          expected,
        ]),
        [
          ['0000:02:00.0', 'vfio-pci', true, 'nouveau', '10de:1b80'],
          ['0000:02:00.1', 'vfio-pci', true, 'snd_hda_intel', '10de:10f0'],
        ],
      );
      assert.deepEqual(shown.domain, {
        missing: ['0000:01:00.0', '0000:01:00.1'],
        further: ['0000:02:00.0', '0000:02:00.1'],
        notes: [],
      });
      assert.equal((await typed(host, 'guest show nobody')).exitCode, 4);
      assert.match(await ok(host, 'guest', 'show', 'win11'), /taken from nouveau, group 2/);
      assert.equal(await ok(host, 'guest', 'of', '02:00.1'), 'win11\n');
      assert.equal((await typed(host, 'guest of 05:00.0')).exitCode, 4);
      assert.equal(await ok(host, 'guest', 'virsh-name', '02:00.1'), 'pci_0000_02_00_1\n');
      const busy = await typed(host, 'guest remove win11');
      assert.equal(busy.exitCode, 3);
      assert.match(busy.stderr, /guest win11 has its devices now/);
      await host.run('systemctl', ['stop', 'pearasys-guest@win11.service']);
      await ok(host, 'guest', 'remove', 'win11');
      assert.deepEqual(host.list(folder), ['broken.conf', 'gpu-passthrough-guests.conf']);
      assert.equal((await typed(host, 'guest remove win11')).exitCode, 4);
    });
  });

  describe('one guest with a mistake', () => {
    it('does not affect the others', async () => {
      const host = made((declaration) => {
        declaration.files['/run/pearasys/guest/broken'] = 'nonsense\n';
        declaration.files['/run/pearasys/guest/gone'] = 'nonsense\n';
        declaration.files[`${folder}/broken.conf`] = '0000:05:00.0\n';
      });
      runUnits(host);
      await ok(host, 'guest', 'setup', 'win11', '--device', '02:00.0', '--siblings');
      await host.run('systemctl', ['start', 'pearasys-guest@win11.service']);
      assert.equal(host.machine.device('0000:02:00.0').driver, 'vfio-pci');
      await assert.rejects(host.run('systemctl', ['start', 'pearasys-guest@broken.service']));
      const {exitCode, stdout, stderr} = await typed(host, 'guest list');
      assert.equal(exitCode, 0);
      assert.match(stdout, /^win11\t.*\tactive\t0000:02:00.0,0000:02:00.1$/m);
      assert.match(stderr, /guest broken is ignored: \/run\/pearasys\/guest\/broken is damaged/);
      assert.match(stderr, /\/run\/pearasys\/guest\/gone is damaged/);
      assert.match(
        await ok(host, 'guest', 'show', 'broken'),
        /problem +\/run\/pearasys\/guest\/broken is damaged/,
      );
    });

    it('settings of a newer version are shown, of the guest and of all guests', async () => {
      const host = made((declaration) => {
        declaration.files[`${folder}/g.conf`] = '0000:02:00.0\n';
        declaration.files[`${folder}/g.settings`] = 'Color=red\nProcesses=end\n';
        declaration.files['/etc/pearasys/guest.settings'] = 'Size=1\n';
      });
      const shown = await json<GuestShowResult>(host, 'guest', 'show', 'g');
      assert.equal(shown.problem, null);
      assert.equal(shown.settings?.processes, 'end');
      assert.deepEqual(shown.unknown, [
        {path: '/etc/pearasys/guest.settings', key: 'Size', value: '1'},
        {path: `${folder}/g.settings`, key: 'Color', value: 'red'},
      ]);
      const {stderr} = await typed(host, 'guest show g');
      assert.match(stderr, /g\.settings: Color is not known to this version: it is kept, and has no effect/);
    });

    it('is shown with it', async () => {
      const host = made((declaration) => {
        declaration.files[`${folder}/g.conf`] = '0000:02:00.0\n';
        declaration.files[`${folder}/g.settings`] = 'Processes=maybe\n';
      });
      const shown = await json<GuestShowResult>(host, 'guest', 'show', 'g');
      assert.match(shown.problem ?? '', /g.settings cannot be used: line 1 is 'Processes=maybe'/);
      assert.equal(shown.settings, null);
      assert.match(await ok(host, 'guest', 'show', 'g'), /0000:02:00.0 10de:1b80/);
    });
  });

  describe('query', () => {
    it('is safe to eval with any name of a guest', async () => {
      const host = made();
      const name = `it's "$(touch never)\`id\`\\ x`;
      await ok(host, 'guest', 'setup', name, '--device', '01:00.0', '--siblings');
      await ok(host, 'guest', 'setup', 'b', '--device', '02:00.0', '--siblings');
      const script = await ok(host, 'guest', 'query', name, '02:00.0');
      const printed = spawnSync(
        'sh',
        [
          '-c',
          'eval "$1"; printf "%s\\0" "$devices" "$devices_with_virsh_format" "$primary_gpu_passthrough_guests" "$gpu_passthrough_guests" "$guest_gpu_device" "$is_gpu_passthrough_guest" "$is_primary_gpu_passthrough_guest" "$device_pci_id" "$device_virsh_name" "$device_guests"',
          'sh',
          script,
        ],
        {encoding: 'utf8'},
      );
      assert.equal(printed.stderr, '');
      assert.deepEqual(printed.stdout.split('\0').slice(0, -1), [
        '0000:01:00.0\n0000:01:00.1',
        'pci_0000_01_00_0\npci_0000_01_00_1',
        name,
        'b',
        '0000:01:00.0',
        '',
        name,
        '0000:02:00.0',
        'pci_0000_02_00_0',
        'b',
      ]);
      const all = await json<GuestQueryResult>(host, 'guest', 'query');
      assert.deepEqual(all.devices, []);
      assert.deepEqual(all.primary_gpu_passthrough_guests, [name]);
      assert.deepEqual((await json<GuestQueryResult>(host, 'guest', 'query', '01:00.1')).device_guests, [
        name,
      ]);
    });
  });

  describe('hooks', () => {
    const byFolder = (base: string) =>
      `#!/bin/bash\nfor hook in ${base}/qemu.d/"$1/$2/$3"/*; do [ -x "$hook" ] && eval \\"$hook\\" "$@"; done\n`;
    const dispatcher = byFolder('"$(dirname "$0")"');

    async function withGuest(tweak?: (declaration: MachineDeclaration) => void): Promise<SimulatedHost> {
      const host = made(tweak);
      await ok(host, 'guest', 'setup', 'win11', '--device', '02:00.0', '--siblings');
      host.journal.length = 0;
      return host;
    }

    it('are one executable file, written once, and removed again', async () => {
      const host = await withGuest();
      assert.equal(await ok(host, 'guest', 'install-hooks', 'win11'), `${hooks}/qemu.d/50-pearasys\n`);
      assert.deepEqual(host.effects(), [`write ${hooks}/qemu.d/50-pearasys (755)`]);
      const text = read(host, `${hooks}/qemu.d/50-pearasys`) ?? '';
      assert.equal(spawnSync('sh', ['-n'], {input: text}).status, 0);
      assert.doesNotMatch(text, /^[^#]*\bvirsh\b/m);
      await ok(host, 'guest', 'install-hooks', 'win11');
      assert.equal(host.effects().length, 1);
      await ok(host, 'guest', 'remove-hooks', 'win11');
      assert.deepEqual(host.list(`${hooks}/qemu.d`), []);
      assert.equal(await ok(host, 'guest', 'remove-hooks'), 'there are no hooks to remove\n');
    });

    it('work with a dispatcher, and do not touch other files', async () => {
      const others = `${hooks}/qemu.d/win11/prepare/begin/10-hugepages.sh`;
      const host = await withGuest((declaration) => {
        declaration.files[others] = '#!/bin/sh\n';
      });
      host.machine.tree.file(`${hooks}/qemu`, dispatcher, 0o755);
      assert.equal(
        await ok(host, 'guest', 'install-hooks', 'win11'),
        `${hooks}/qemu.d/win11/prepare/begin/50-pearasys\n${hooks}/qemu.d/win11/release/end/50-pearasys\n`,
      );
      await ok(host, 'guest', 'remove-hooks', 'win11');
      assert.deepEqual(host.list(`${hooks}/qemu.d/win11`), ['prepare']);
      assert.deepEqual(host.list(`${hooks}/qemu.d/win11/prepare/begin`), ['10-hugepages.sh']);
    });

    it('do not replace files of others, and need free space', async () => {
      const host = await withGuest((declaration) => {
        declaration.files[`${hooks}/qemu.d/50-pearasys`] = '#!/bin/sh\n# mine\n';
      });
      const taken = await typed(host, 'guest install-hooks win11');
      assert.equal(taken.exitCode, 3);
      assert.match(taken.stderr, /refusing to overwrite \S+50-pearasys: it was not created by pearasys/);
      await ok(host, 'guest', 'remove-hooks');
      assert.equal(read(host, `${hooks}/qemu.d/50-pearasys`), '#!/bin/sh\n# mine\n');
      const narrow = await withGuest((declaration) => {
        declaration.files[`${hooks}/qemu.d/win11/prepare/begin`] = '#!/bin/sh\n';
      });
      narrow.machine.tree.file(`${hooks}/qemu`, dispatcher, 0o755);
      const blocked = await typed(narrow, 'guest install-hooks win11');
      assert.equal(blocked.exitCode, 3);
      assert.match(blocked.stderr, /prepare\/begin is not a folder/);
      assert.deepEqual(
        [host, narrow].flatMap((each) => each.effects()).filter((line) => !line.startsWith('unshare ')),
        [],
      );
    });

    for (const [what, text] of Object.entries({
      'finds its folder by its own path': dispatcher,
      'has the folder written in it': byFolder('/etc/libvirt/hooks'),
      'never says qemu.d': dispatcher.replace('qemu.d', '${x:-qemu}.d'),
    }))
      it(`are put where a hook runs them that ${what}`, async () => {
        const host = await withGuest();
        host.machine.tree.file(`${hooks}/qemu`, text, 0o755);
        const {exitCode, stdout, stderr} = await typed(host, 'guest install-hooks win11');
        assert.equal(exitCode, 0, stderr);
        assert.match(stdout, /qemu\.d\/win11\/prepare\/begin\/50-pearasys\n/);
        assert.match(stderr, /hooks\/qemu runs hooks from .*qemu\.d\/win11\/prepare\/begin/);
      });

    for (const [what, text, mode, note] of [
      ['is not executable', dispatcher, 0o644, /^$/],
      [
        'has qemu.d in a comment',
        '#!/bin/sh\n# what is in qemu.d/\nexit 0 # qemu.d/\n',
        0o755,
        /did not run/,
      ],
      ['has qemu.d in a text', '#!/bin/sh\necho "see qemu.d/$1/$2/$3"\n', 0o755, /did not run/],
      [
        'is for another guest',
        dispatcher.replace('for', '[ "$1" = other ] || exit 0; for'),
        0o755,
        /did not run/,
      ],
      ['fails', '#!/bin/sh\nexit 1 # qemu.d\n', 0o755, /did not run/],
      ['waits for ever', '#!/bin/sh\n: qemu.d; exec sleep 100\n', 0o755, /did not run/],
      ['writes without end', '#!/bin/sh\n: qemu.d; exec yes\n', 0o755, /did not run/],
    ] as const)
      it(`are libvirt's own where hooks/qemu ${what}`, async () => {
        const host = await withGuest();
        host.machine.tree.file(`${hooks}/qemu`, text, mode);
        const {stdout, stderr} = await typed(host, 'guest install-hooks win11');
        assert.equal(stdout, `${hooks}/qemu.d/50-pearasys\n`);
        const [first = ''] = stderr.split('\n').filter((line) => line.includes('hooks/qemu '));
        assert.match(first, note);
      });

    it("are libvirt's own where the other hook cannot be tried", async () => {
      const host = await withGuest();
      host.machine.tree.file(`${hooks}/qemu`, dispatcher, 0o755);
      host.failCommand('unshare *', 1, 'unshare: unshare failed: Operation not permitted');
      const {stdout, stderr} = await typed(host, 'guest install-hooks win11');
      assert.equal(stdout, `${hooks}/qemu.d/50-pearasys\n`);
      assert.match(stderr, /could not be tried \(.*Operation not permitted.*\): libvirt 6.5/);
    });

    it("are libvirt's own for a name that a dispatcher would take apart", async () => {
      const host = made();
      await ok(host, 'guest', 'setup', 'win 11', '--device', '02:00.0', '--siblings');
      host.machine.tree.file(`${hooks}/qemu`, dispatcher, 0o755);
      host.journal.length = 0;
      const {stdout, stderr} = await run(host, ['guest', 'install-hooks', 'win 11']);
      assert.equal(stdout, `${hooks}/qemu.d/50-pearasys\n`);
      assert.match(stderr, /was not tried with the name of guest win 11/);
      assert.ok(!host.effects().some((line) => line.startsWith('unshare')));
    });

    it('of other passthrough programs are reported for their guests', async () => {
      const host = made((declaration) => {
        declaration.files['/etc/libvirt/qemu/win11.xml'] = domain('0000:02:00.0', '0000:02:00.1');
        declaration.files['/etc/libvirt/qemu/win10.xml'] = domain();
      });
      const file = (path: string, text: string, mode = 0o755) =>
        host.machine.tree.file(`${hooks}/${path}`, `#!/bin/bash\n${text}\n`, mode);
      file('qemu', 'if [[ $1 == "win10" ]]; then vfio-startup; fi');
      file('qemu.d/10-all', 'virsh -c qemu:///system nodedev-detach $GPU');
      file('qemu.d/20-huge', 'echo 4 >/proc/sys/vm/nr_hugepages # driver_override');
      file('qemu.d/win11/prepare/begin/start.sh', 'systemctl restart pitcrew');
      file('qemu.d/win11/release/end/stop.sh', 'echo 0000:02:00.0 >/sys/bus/pci/drivers/vfio-pci/unbind');
      file('qemu.d/win11/release/end/old.sh', 'virsh nodedev-reattach x', 0o644);
      file('qemu.d/win10/prepare/begin/start.sh', 'virsh nodedev-detach x');
      const {stderr} = await typed(host, 'guest setup win11');
      assert.deepEqual(
        [...stderr.matchAll(/hooks\/(\S+) also changes devices/g)].map(([, path]) => path),
        ['qemu.d/10-all', 'qemu.d/win11/prepare/begin/start.sh', 'qemu.d/win11/release/end/stop.sh'],
      );
      const other = await typed(host, 'guest install-hooks win11');
      assert.match(other.stderr, /start\.sh also changes devices .*\(pitcrew\)/);
    });

    it('are not removed for one guest while others share them', async () => {
      const host = await withGuest();
      await ok(host, 'guest', 'setup', 'other', '--device', 'eth1');
      await ok(host, 'guest', 'install-hooks', 'win11');
      const {exitCode, stderr} = await typed(host, 'guest remove-hooks win11');
      assert.equal(exitCode, 3);
      assert.match(stderr, /not removing \S+50-pearasys: it also serves guest other\n/);
      assert.match(stderr, /pearasys guest remove win11/);
      assert.deepEqual(host.list(`${hooks}/qemu.d`), ['50-pearasys']);
      assert.equal(await ok(host, 'guest', 'remove-hooks'), 'the hooks were removed\n');
    });

    it('are for guests that are set up, and that libvirt has', async () => {
      const host = await withGuest((declaration) => {
        declaration.files['/etc/libvirt/qemu/win11.xml'] = domain();
      });
      assert.equal((await typed(host, 'guest install-hooks win10')).exitCode, 4);
      const bare = made();
      const {exitCode, stderr} = await typed(bare, 'guest install-hooks win11');
      assert.equal(exitCode, 4);
      assert.match(stderr, /pearasys guest setup win11/);
    });

    it('are shown whole in a folder with --root', async () => {
      const host = made();
      const root = `${host.machine.folder}/look`;
      const result = await run(host, ['guest', 'install-hooks', 'win11', '--root', root]);
      assert.equal(result.exitCode, 0, result.stderr);
      const look = new MachineHost(root);
      assert.equal(look.info(`${hooks}/qemu.d/50-pearasys`)?.mode, 0o755);
      assert.deepEqual(look.list('/'), ['etc']);
      assert.deepEqual(host.effects(), []);
    });

    it("are in a folder as they would be on the machine, with its libvirt's guests", async () => {
      const host = made((declaration) => {
        declaration.files['/etc/libvirt/qemu/win11.xml'] = domain();
      });
      host.machine.tree.file(`${hooks}/qemu`, dispatcher, 0o755);
      const root = `${host.machine.folder}/look`;
      const {exitCode, stdout} = await run(host, ['guest', 'install-hooks', 'win11', '--root', root]);
      assert.equal(exitCode, 0);
      assert.match(stdout, /qemu\.d\/win11\/prepare\/begin\/50-pearasys/);
      const unknown = await run(host, ['guest', 'install-hooks', 'nobody', '--root', root]);
      assert.equal(unknown.exitCode, 0);
      assert.match(unknown.stderr, /libvirt has no file of guest nobody/);
      await run(host, ['guest', 'remove-hooks', '--root', root]);
      assert.deepEqual(new MachineHost(root).list('/'), ['etc']);
    });
  });
});
