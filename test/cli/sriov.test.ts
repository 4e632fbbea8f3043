import assert from 'node:assert/strict';
import fs from 'node:fs';
import {mkdtempSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import type {SriovListResult} from '../../src/entry/cli/commands/sriov/list.js';
import type {ChangeResult} from '../../src/entry/cli/switching.js';
import {MachineHost} from '../../src/host/machine-host.js';
import type {FunctionDeclaration, MachineDeclaration} from '../simulated-host/declaration.js';
import type {SimulatedHost} from '../simulated-host/simulated-host.js';
import {sriovCard} from '../simulated-host/standard-machine.js';
import type {UdevResult} from '../simulated-host/udev/worker.js';
import {machines, runUnits, type UnitRuns} from '../unit/services.js';
import {run, succeeds, Terminal, typed} from './runs.js';

const pf = '0000:06:00.0';
const port = '0000:00:1b.0';
/** Another slot for such a card, and the port above it. */
const otherPf = '0000:07:00.0';
const otherPort = '0000:00:1b.4';
const record = `/etc/pearasys/sriov/${pf}-0x8086-0x10c9`;
const copy = `/run/pearasys/sriov/${pf}-0x8086-0x10c9@${port}`;
const copyOf = (slot: string) => `/run/pearasys/vfs/${slot}-0x8086-0x10ca@${port}`;
const attributes = `/sys/bus/pci/devices/${pf}`;
const real = `/sys/devices/pci0000:00/${port}/${pf}`;
/** The first of its virtual functions: offset 128, stride 2. */
const vfs = ['0000:06:10.0', '0000:06:10.2', '0000:06:10.4', '0000:06:10.6', '0000:06:11.0'] as const;
const target = `pearasys-sriov@${pf}.target`;
const service = `pearasys-vfs@${pf}.service`;

describe('pearasys sriov', () => {
  const made = machines();

  interface Made {
    readonly host: SimulatedHost;
    readonly units: UnitRuns;
  }

  /** A machine with a network card that has SR-IOV, on its driver. */
  function machine(
    tweak: (card: FunctionDeclaration, declaration: MachineDeclaration) => void = () => undefined,
    driver = true,
  ): Made {
    const host = made((declaration) => {
      declaration.functions.push({
        slot: port,
        id: '8086:a32c',
        class: '060400',
        driver: 'pcieport',
        group: 19,
      });
      const card: FunctionDeclaration = {...sriovCard(pf), behind: port};
      if (driver) {
        card.driver = 'igb';
        for (const module of declaration.modules) if (module.name === 'igb') module.loaded = true;
      }
      declaration.functions.push(card);
      tweak(card, declaration);
    });
    const units = runUnits(host);
    return {host, units};
  }

  const driversOf = (host: SimulatedHost, ...slots: readonly string[]) =>
    slots.map((slot) => host.machine.functions.get(slot)?.driver);
  const countOf = (host: SimulatedHost) => host.machine.device(pf).virtualFunctions;

  async function list(host: SimulatedHost): Promise<SriovListResult> {
    return JSON.parse((await typed(host, 'sriov list --json')).stdout) as SriovListResult;
  }

  function eventsOf(host: SimulatedHost, slot: string): UdevResult[] {
    return host.userland.results.filter(({event}) => event.devpath.endsWith(`/${slot}`));
  }

  /** What the host made of virtual functions: network interfaces. */
  const interfaces = (host: SimulatedHost) =>
    host.userland.results
      .filter(({event}) => event.subsystem === 'net' && event.devpath.includes('/0000:06:1'))
      .map(({event}) => event.devpath);

  /** The card is pulled out and put in again. */
  async function replug(host: SimulatedHost): Promise<void> {
    host.machine.hotRemove(pf);
    await host.userland.idle();
    host.userland.results.length = 0;
    host.userland.jobs.length = 0;
    host.machine.hotAdd(pf);
    await host.userland.idle();
  }

  describe('set', () => {
    it('records the number, creates the functions, and the rule gives them to their driver', async () => {
      const {host, units} = machine();
      const {stdout} = await succeeds(host, `sriov set ${pf} 4 --driver vfio-pci`);
      assert.deepEqual(driversOf(host, ...vfs), ['vfio-pci', 'vfio-pci', 'vfio-pci', 'vfio-pci', undefined]);
      assert.match(stdout, new RegExp(`${vfs[3]} \\(8086:10ca\\) is on vfio-pci`));
      assert.equal(
        host.readText(record),
        [
          `# Written by pearasys: the card with id 8086:10c9 in slot ${pf} gets this number of virtual functions.`,
          '# udev (60-pearasys-sriov.rules) writes it when the driver of the card has bound.',
          `# To undo: pearasys sriov unset ${pf}`,
          `PEARASYS_SLOT=${pf}`,
          'PEARASYS_ID=8086:10c9',
          'PEARASYS_SUBSYSTEM=8086:a03c',
          'PEARASYS_PATH=0000:00/1b.0/00.0',
          'PEARASYS_SERIAL=mac:52:54:00:00:00:20',
          'PEARASYS_VFS=4',
          'PEARASYS_VF_AUTOPROBE=no',
          'PEARASYS_VF_DRIVER=vfio-pci',
        ].join('\n'),
      );
      assert.deepEqual(
        host.effects().filter((line) => !line.startsWith('systemctl show')),
        [
          `write ${record}`,
          `write ${copy}`,
          ...vfs.slice(0, 4).map((slot) => `write ${copyOf(slot)}`),
          'modprobe -- vfio-pci',
          `echo '0' > ${attributes}/sriov_drivers_autoprobe`,
          `echo '4' > ${attributes}/sriov_numvfs`,
        ],
      );
      assert.deepEqual(interfaces(host), []);
      assert.deepEqual(host.userland.processes, []);
      assert.equal(host.userland.state(target), 'active');
      assert.equal(units.runs.size, 0);
      assert.deepEqual(host.machine.harm, []);
    });

    it('writes nothing again when all is so', async () => {
      const {host} = machine();
      await succeeds(host, `sriov set ${pf} 4 --driver vfio-pci`);
      const result = JSON.parse(
        (await typed(host, `sriov set ${pf} 4 --driver vfio-pci --json`)).stdout,
      ) as ChangeResult;
      assert.equal(result.changed, false);
      assert.deepEqual(
        result.devices.map(({slot}) => slot),
        [pf, ...vfs.slice(0, 4)],
      );
    });

    it('leaves the functions to the kernel without a driver', async () => {
      const {host} = machine((_card, {modules}) => {
        for (const module of modules) if (module.name === 'igbvf') module.loaded = true;
      });
      await succeeds(host, `sriov set ${pf} 2`);
      assert.deepEqual(driversOf(host, ...vfs.slice(0, 2)), ['igbvf', 'igbvf']);
      assert.equal(interfaces(host).length, 2);
      assert.match(host.readText(record) ?? '', /\nPEARASYS_VFS=2\nPEARASYS_VF_AUTOPROBE=yes$/);
    });

    it('keeps host drivers off with --autoprobe no', async () => {
      const {host} = machine((_card, {modules}) => {
        for (const module of modules) if (module.name === 'igbvf') module.loaded = true;
      });
      await succeeds(host, `sriov set ${pf} 2 --autoprobe no`);
      assert.deepEqual(driversOf(host, ...vfs.slice(0, 2)), [undefined, undefined]);
      assert.deepEqual(interfaces(host), []);
    });

    it('gives single functions to other drivers', async () => {
      const {host} = machine();
      await succeeds(host, `sriov set ${pf} 3 --driver igbvf --vf 0:driver=vfio-pci --vf 2:driver=none`);
      assert.deepEqual(driversOf(host, ...vfs.slice(0, 3)), ['vfio-pci', 'igbvf', undefined]);
      assert.equal(host.machine.device(vfs[2]).override, 'none');
    });

    it('changes the drivers of functions that exist, and takes back what the record gave', async () => {
      const {host} = machine();
      await succeeds(host, `sriov set ${pf} 3 --driver vfio-pci`);
      await succeeds(host, `sriov set ${pf} 3 --vf 1:driver=igbvf`);
      assert.deepEqual(driversOf(host, ...vfs.slice(0, 3)), [undefined, 'igbvf', undefined]);
      assert.equal(host.machine.device(vfs[0]).override, undefined);
      assert.equal(host.exists(copyOf(vfs[0])), false);
      assert.equal(countOf(host), 3);
    });

    it('changes the number through 0 when no function is in use', async () => {
      const {host} = machine();
      await succeeds(host, `sriov set ${pf} 4 --driver vfio-pci`);
      await succeeds(host, `sriov set ${pf} 2 --driver vfio-pci`);
      assert.equal(countOf(host), 2);
      assert.deepEqual(
        host
          .effects()
          .filter((line) => line.includes('sriov_numvfs'))
          .slice(-2),
        [`echo '0' > ${attributes}/sriov_numvfs`, `echo '2' > ${attributes}/sriov_numvfs`],
      );
      assert.deepEqual(driversOf(host, ...vfs), ['vfio-pci', 'vfio-pci', undefined, undefined, undefined]);
      assert.deepEqual(host.list('/run/pearasys/vfs').length, 2);
    });

    it('refuses to change the number while a function is in use, and says which', async () => {
      const {host} = machine();
      await succeeds(host, `sriov set ${pf} 4 --driver vfio-pci`);
      host.machine.addProcess({
        pid: 4711,
        comm: 'qemu-system-x86',
        holds: [`/dev/vfio/${host.machine.device(vfs[2]).group}`],
      });
      const before = host.readText(record);
      const {exitCode, stderr} = await typed(host, `sriov set ${pf} 2 --driver vfio-pci`);
      assert.equal(exitCode, 3);
      assert.match(
        stderr,
        /cannot change the number .* must first remove all 4, but 0000:06:10\.4 .* is in use/,
      );
      assert.match(stderr, /4711 \(qemu-system-x86\)/);
      assert.match(stderr, /--later/);
      assert.equal(host.readText(record), before);
      assert.equal(countOf(host), 4);

      const unset = await typed(host, `sriov unset ${pf}`);
      assert.equal(unset.exitCode, 3);
      assert.equal(countOf(host), 4);

      await succeeds(host, `sriov set ${pf} 2 --driver vfio-pci --later`);
      assert.equal(countOf(host), 4);
      assert.match(host.readText(record) ?? '', /PEARASYS_VFS=2/);
    });

    const refusals: readonly [
      what: string,
      words: string,
      exitCode: number,
      message: RegExp,
      tweak?: (card: FunctionDeclaration, declaration: MachineDeclaration) => void,
    ][] = [
      [
        'more than the device can have',
        `${pf} 8`,
        3,
        /at most 7 virtual functions, not 8[^]*sriov set \S+ 7/,
      ],
      ['a device without SR-IOV', '0000:04:00.0 4', 3, /0000:04:00\.0 \(144d:a80a\) has no SR-IOV/],
      [
        'a device without a driver',
        `${pf} 4`,
        3,
        /has no driver: the driver of a device creates[^]*pearasys bind default/,
        (card) => {
          delete card.driver;
        },
      ],
      [
        'more than there are bus numbers for',
        `${pf} 4`,
        3,
        /not enough bus numbers for 4 .* has enough for 2[^]*pci=assign-busses/,
        (card) => {
          if (card.sriov !== undefined) Object.assign(card.sriov, {offset: 252, stride: 2});
        },
      ],
      [
        'functions without memory space',
        `${pf} 4`,
        3,
        /no memory space for the BARs[^]*pci=realloc/,
        (card) => {
          if (card.sriov !== undefined) card.sriov.noSpace = true;
        },
      ],
      [
        'vfio-pci without an IOMMU',
        `${pf} 4 --driver vfio-pci`,
        3,
        /has no IOMMU group, and vfio-pci needs one/,
        (_card, declaration) => {
          declaration.iommu = false;
        },
      ],
      ['the driver that does not exist', `${pf} 4 --driver nosuch`, 2, /no PCI driver nosuch/],
      ['the number 0', `${pf} 0`, 2, /'0' is not a number[^]*sriov unset/],
      ['a word as the number', `${pf} many`, 2, /'many' is not a number/],
      ['a function that will not exist', `${pf} 2 --vf 2:driver=igbvf`, 2, /there is no virtual function 2/],
      ['a function twice', `${pf} 2 --vf 0:driver=a --vf 0:driver=b`, 2, /names virtual function 0 twice/],
      ['an invalid --vf', `${pf} 2 --vf 0=igbvf`, 2, /--vf 0=igbvf is invalid/],
      [
        'a driver with autoprobe',
        `${pf} 2 --driver igbvf --autoprobe yes`,
        2,
        /--autoprobe yes conflicts with --driver/,
      ],
      ['--id on a machine', `${pf} 2 --id 8086:10c9`, 2, /--id is only for an image/],
    ];
    for (const [what, words, code, message, tweak] of refusals)
      it(`refuses ${what}, and changes nothing`, async () => {
        const {host} = machine(tweak);
        const {exitCode, stderr} = await typed(host, `sriov set ${words}`);
        assert.match(stderr, message);
        assert.equal(exitCode, code);
        assert.equal(host.exists('/etc/pearasys/sriov'), false);
        assert.deepEqual(host.list('/run/pearasys/vfs'), []);
      });

    it('explains what the kernel answers, and undoes all', async () => {
      const {host} = machine((_card, {drivers}) => {
        for (const driver of drivers) if (driver.name === 'igb') delete driver.configuresSriov;
      });
      const {exitCode, stderr} = await typed(host, `sriov set ${pf} 4 --driver vfio-pci`);
      assert.equal(exitCode, 1);
      assert.match(stderr, /igb cannot create virtual functions through sriov_numvfs.*max_vfs=/);
      assert.equal(host.exists(record), false);
      assert.equal(host.readText(`${attributes}/sriov_drivers_autoprobe`), '1');
      assert.deepEqual(host.list('/run/pearasys/sriov'), []);
    });

    it('waits longer for a write that creates many functions', async () => {
      for (const [count, seconds] of [
        [1, 17],
        [7, 29],
      ] as const) {
        const {host} = machine();
        host.neverReturn(`${attributes}/sriov_numvfs`);
        const {exitCode, stderr} = await typed(host, `sriov set ${pf} ${count}`);
        assert.equal(exitCode, 5);
        assert.match(
          stderr,
          new RegExp(`writing '${count}' to ${attributes}/sriov_numvfs did not return within ${seconds} s`),
        );
      }
    });

    it('undoes all when a function is not taken by its driver', async () => {
      const {host} = machine();
      host.refuseProbe(vfs[1], 'vfio-pci', 'EINVAL');
      const {exitCode, stderr} = await typed(host, `sriov set ${pf} 2 --driver vfio-pci --timeout 1`);
      assert.equal(exitCode, 1);
      assert.match(stderr, new RegExp(`${vfs[1]} should be on vfio-pci, but has no driver`));
      assert.equal(countOf(host), 0);
      assert.equal(host.exists(record), false);
    });

    it('shows the steps with --dry-run, and changes nothing', async () => {
      const {host} = machine();
      const {stdout} = await succeeds(host, `sriov set ${pf} 2 --driver vfio-pci --dry-run`);
      assert.match(stdout, new RegExp(`echo '2' > ${attributes}/sriov_numvfs`));
      assert.match(stdout, new RegExp(`ls -d .*/vfio-pci/${vfs[0]} .*/vfio-pci/${vfs[1]}`));
      assert.equal(host.exists(record), false);
      assert.equal(countOf(host), 0);
    });

    it('claims the functions of a device that tells only then where they are', async () => {
      const {host} = machine((card) => {
        if (card.sriov !== undefined) card.sriov.hidesPlaces = true;
      });
      await succeeds(host, `sriov set ${pf} 2 --driver vfio-pci`);
      assert.deepEqual(driversOf(host, ...vfs.slice(0, 2)), ['vfio-pci', 'vfio-pci']);
      assert.deepEqual(interfaces(host), []);
      await replug(host);
      assert.deepEqual(driversOf(host, ...vfs.slice(0, 2)), ['vfio-pci', 'vfio-pci']);
    });

    describe('with users', () => {
      const rules = '/etc/udev/rules.d/61-pearasys-access-sriov.rules';
      const users = (_card: FunctionDeclaration, {files}: MachineDeclaration): void => {
        files['/etc/passwd'] = 'root:x:0:0::/:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n';
        files['/etc/group'] = 'root:x:0:\nvfio:x:990:\n';
      };
      const nodeOf = (host: SimulatedHost, slot: string) => {
        const info = host.info(`/dev/vfio/${host.machine.device(slot).group ?? ''}`);
        return info === undefined ? undefined : `${info.uid}:${info.gid} ${info.mode.toString(8)}`;
      };

      it('gives them the nodes of functions on drivers for user space, also when the card comes back', async () => {
        const {host} = machine(users);
        await succeeds(
          host,
          `sriov set ${pf} 3 --driver vfio-pci --vf 1:driver=igbvf --user alice --user-group vfio`,
        );
        assert.deepEqual([nodeOf(host, vfs[0]), nodeOf(host, vfs[2])], ['1000:990 660', '1000:990 660']);
        assert.doesNotMatch(host.readText(rules) ?? '', new RegExp(vfs[1]));
        assert.match(
          host.readText(record) ?? '',
          /PEARASYS_USER=alice\nPEARASYS_GROUP=vfio\nPEARASYS_MODE=0660/,
        );
        await replug(host);
        assert.deepEqual([nodeOf(host, vfs[0]), nodeOf(host, vfs[2])], ['1000:990 660', '1000:990 660']);
        assert.deepEqual((await list(host)).physical[0]?.record?.access, {
          user: 'alice',
          group: 'vfio',
          mode: '0660',
        });
      });

      it('keeps them with another number, takes nodes back, and leaves nothing', async () => {
        const {host} = machine(users);
        await succeeds(host, `sriov set ${pf} 2 --driver vfio-pci --user alice`);
        await succeeds(host, `sriov set ${pf} 3 --driver vfio-pci`);
        assert.equal(nodeOf(host, vfs[2]), '1000:0 660');
        await succeeds(host, `sriov set ${pf} 3 --driver vfio-pci --user=`);
        assert.equal(nodeOf(host, vfs[2]), '0:0 600');
        assert.equal(host.exists(rules), false);
        await succeeds(host, `sriov set ${pf} 3 --driver vfio-pci --user alice`);
        assert.equal(nodeOf(host, vfs[2]), '1000:0 660');
        await succeeds(host, `sriov unset ${pf}`);
        assert.equal(host.exists(rules), false);
      });

      it('get nodes from the unit if the device tells only then where its functions are', async () => {
        const {host, units} = machine((card, declaration) => {
          users(card, declaration);
          if (card.sriov !== undefined) card.sriov.hidesPlaces = true;
        });
        await succeeds(host, `sriov set ${pf} 2 --driver vfio-pci --user alice --later`);
        assert.equal(host.exists(rules), false);
        for (let again = 0; again < 2; again++) {
          await replug(host);
          assert.equal(units.runs.get(service)?.exitCode, 0);
          assert.deepEqual([nodeOf(host, vfs[0]), nodeOf(host, vfs[1])], ['1000:0 660', '1000:0 660']);
        }
      });

      it('are refused where no function has nodes for them', async () => {
        const {host} = machine(users);
        const {exitCode, stderr} = await typed(host, `sriov set ${pf} 2 --driver igbvf --user alice`);
        assert.equal(exitCode, 3);
        assert.match(stderr, /igbvf is not a userspace driver/);
        assert.equal(host.exists(record), false);
      });
    });

    it('accepts the name of an interface', async () => {
      const {host} = machine();
      await succeeds(host, 'sriov set eth2 1 --driver vfio-pci');
      assert.deepEqual(driversOf(host, vfs[0]), ['vfio-pci']);
    });

    it('only records the number while the kernel command line switches it off', async () => {
      const {host} = machine((_card, declaration) => {
        declaration.cmdline += ` pearasys.skip=${pf}`;
      });
      const {stderr} = await succeeds(host, `sriov set ${pf} 2 --driver vfio-pci`);
      assert.match(stderr, /recorded for later boots: pearasys\.skip=\S+ on the kernel command line/);
      assert.equal(countOf(host), 0);
      assert.equal(host.exists(record), true);
    });

    it('records the number in an image, for a slot and an id', async () => {
      const folder = mkdtempSync(join(tmpdir(), 'pearasys-image-'));
      try {
        const {host} = machine();
        const without = await run(host, ['--root', folder, 'sriov', 'set', pf, '4']);
        assert.equal(without.exitCode, 2);
        const words = [
          '--root',
          folder,
          'sriov',
          'set',
          pf,
          '4',
          '--id',
          '8086:10c9',
          '--driver',
          'vfio-pci',
        ];
        const image = await run(host, words, {host: new MachineHost(folder)});
        assert.equal(image.exitCode, 0, image.stderr);
        assert.match(fs.readFileSync(join(folder, record), 'utf8'), /^PEARASYS_VFS=4$/m);
        assert.equal(fs.existsSync(join(folder, 'run/pearasys/vfs')), false);
      } finally {
        fs.rmSync(folder, {recursive: true});
      }
    });
  });

  describe('the udev rules', () => {
    it('create the functions when the card comes back, without a process', async () => {
      const {host, units} = machine();
      await succeeds(host, `sriov set ${pf} 4 --driver vfio-pci`);
      await replug(host);
      assert.deepEqual(driversOf(host, ...vfs.slice(0, 4)), ['vfio-pci', 'vfio-pci', 'vfio-pci', 'vfio-pci']);
      const [add, bind] = eventsOf(host, pf).filter(({event}) => ['add', 'bind'].includes(event.action));
      assert.deepEqual(add?.writes, [`${real}/sriov_drivers_autoprobe=0`]);
      assert.deepEqual(bind?.writes, [`${real}/sriov_drivers_autoprobe=0`, `${real}/sriov_numvfs=4`]);
      for (const slot of vfs.slice(0, 4)) {
        const own = eventsOf(host, slot);
        assert.equal(own[0]?.writes[0], `/sys/devices/pci0000:00/${port}/${slot}/driver_override=vfio-pci`);
        assert.ok(own.every(({tags}) => !tags.has('systemd')));
      }
      assert.deepEqual(host.userland.processes, []);
      assert.deepEqual(interfaces(host), []);
      assert.equal(units.runs.size, 0);
      assert.equal(host.userland.state(target), 'active');
      assert.deepEqual(
        host.userland.jobs.filter((job) => job.includes('pearasys')),
        [`start ${target}`],
      );
    });

    it('create them at boot, also if the driver of the card was loaded before udev ran', async () => {
      for (const early of [true, false]) {
        const {host, units} = machine();
        await succeeds(host, `sriov set ${pf} 3 --driver vfio-pci`);
        host.machine.write(`${real}/sriov_numvfs`, '0');
        if (!early) host.machine.drivers.unbind('igb', pf);
        await host.userland.idle();
        host.userland.results.length = 0;
        await host.run('modprobe', ['-r', 'vfio-pci']);
        host.userland.coldplug();
        await host.userland.idle();
        if (!early) {
          host.machine.drivers.probe(pf);
          await host.userland.idle();
        }
        assert.equal(countOf(host), 3);
        assert.deepEqual(driversOf(host, ...vfs.slice(0, 3)), ['vfio-pci', 'vfio-pci', 'vfio-pci']);
        assert.equal(units.runs.size, 0);
        assert.deepEqual(host.userland.processes, []);
      }
    });

    it('start no unit for a function that udev sees before the kernel lets drivers probe it', async () => {
      const {host, units} = machine();
      await succeeds(host, `sriov set ${pf} 2 --driver vfio-pci`);
      host.machine.write(`${real}/sriov_numvfs`, '0');
      await host.userland.idle();
      const early: string[] = [];
      host.machine.subscribe(({action, devpath}) => {
        if (action !== 'add' || !vfs.some((slot) => devpath.endsWith(`/${slot}`))) return;
        host.userland.handleEvents();
        early.push(...driversOf(host, devpath.slice(-12)).map((driver) => driver ?? 'none'));
      });
      host.machine.write(`${real}/sriov_numvfs`, '2');
      await host.userland.idle();
      assert.deepEqual(early, ['none', 'none']);
      assert.deepEqual(driversOf(host, ...vfs.slice(0, 2)), ['vfio-pci', 'vfio-pci']);
      assert.deepEqual([...units.runs.keys()], []);
    });

    it('leave functions to the kernel that appear before the driver of a card with a serial number has bound', async () => {
      const {host, units} = machine((_card, {modules}) => {
        for (const module of modules) if (module.name === 'igbvf') module.loaded = true;
      });
      await succeeds(host, `sriov set ${pf} 4`);
      host.machine.tree.file(copy, `${host.readText(copy) ?? ''}\nPEARASYS_SRIOV_SERIAL=pcie:1\n`);
      host.machine.hotRemove(pf);
      await host.userland.idle();
      await host.run('modprobe', ['-r', 'igb']);
      host.userland.results.length = 0;
      // As the driver does with max_vfs=.
      host.machine.subscribe(({action, devpath}) => {
        if (action === 'bind' && devpath === real.replace('/sys', ''))
          host.machine.write(`${real}/sriov_numvfs`, '4');
      });
      host.machine.hotAdd(pf);
      // early has found the card.
      host.machine.write(`${real}/sriov_drivers_autoprobe`, '0');
      await host.userland.idle();
      assert.deepEqual(driversOf(host, ...vfs), ['igbvf', 'igbvf', 'igbvf', 'igbvf', undefined]);
      const [add, bind] = eventsOf(host, pf).filter(({event}) => ['add', 'bind'].includes(event.action));
      assert.deepEqual([add?.writes, bind?.writes], [[`${real}/sriov_drivers_autoprobe=1`], []]);
      assert.equal(host.userland.state(target), 'active');
      assert.equal(units.runs.size, 0);
    });

    it('have the unit bind functions that a module has created before udev ran, with the mark of early', async () => {
      for (const [words, expected, runs] of [
        ['2', 'igbvf', true],
        ['2 --autoprobe no', undefined, false],
        ['2 --driver vfio-pci', 'vfio-pci', false],
      ] as const) {
        const {host, units} = machine((_card, {modules}) => {
          for (const module of modules) if (module.name === 'igbvf') module.loaded = true;
        });
        await succeeds(host, `sriov set ${pf} ${words}`);
        host.machine.tree.file(copy, `${host.readText(copy) ?? ''}\nPEARASYS_SRIOV_SERIAL=pcie:1\n`);
        host.machine.hotRemove(pf);
        await host.userland.idle();
        await host.run('modprobe', ['-r', 'igb']);
        // No rule does anything before udev runs.
        const cmdline = host.readText('/proc/cmdline') ?? '';
        host.machine.tree.file('/proc/cmdline', `${cmdline} pearasys=off\n`);
        host.machine.hotAdd(pf);
        // early has found the card; modules-load.d loads its driver, which creates the functions itself.
        host.machine.write(`${real}/sriov_drivers_autoprobe`, '0');
        await host.run('modprobe', ['igb']);
        host.machine.write(`${real}/sriov_numvfs`, '2');
        await host.userland.idle();
        host.machine.tree.file('/proc/cmdline', `${cmdline}\n`);
        assert.deepEqual(driversOf(host, ...vfs.slice(0, 2)), [undefined, undefined], words);
        host.userland.coldplug();
        await host.userland.idle();
        assert.deepEqual(driversOf(host, ...vfs.slice(0, 2)), [expected, expected], words);
        assert.deepEqual(
          [...units.runs].map(([unit, {exitCode}]) => [unit, exitCode]),
          runs ? [[`pearasys-vfs@${pf}-driver.service`, 0]] : [],
          words,
        );
        assert.equal(host.userland.state(target), 'active', words);
      }
    });

    it('create them for a card with a serial number if it was found, otherwise its unit does', async () => {
      const {host} = machine();
      await succeeds(host, `sriov set ${pf} 2 --driver vfio-pci`);
      const withNumber = `${host.readText(copy) ?? ''}\nPEARASYS_SRIOV_SERIAL=pcie:1\n`;
      const autoprobe = `${real}/sriov_drivers_autoprobe`;
      // Nothing that was known of the first card holds for the second.
      for (const [found, expected] of [
        [true, [`${autoprobe}=0`, `${autoprobe}=0`, `${real}/sriov_numvfs=2`]],
        [false, []],
      ] as const) {
        host.machine.hotRemove(pf);
        await host.userland.idle();
        await host.run('modprobe', ['-r', 'igb']);
        host.userland.results.length = 0;
        host.machine.tree.file(copy, withNumber);
        host.machine.hotAdd(pf);
        // As early does.
        if (found) host.machine.write(autoprobe, '0');
        await host.userland.idle();
        assert.deepEqual(
          eventsOf(host, pf).flatMap(({writes}) => writes),
          expected,
        );
        assert.equal(countOf(host), 2);
      }
    });

    it('leave a number to the unit whose write may take longer than udev lets a worker live', async () => {
      const cases: readonly [words: string, count: number, byRule: boolean][] = [
        ['64 --driver vfio-pci', 64, true],
        ['65 --driver vfio-pci', 65, false],
        ['2 --autoprobe no', 2, true],
        // The kernel binds each VF to its default driver within the write.
        ['8', 8, true],
        ['9', 9, false],
      ];
      for (const [words, count, byRule] of cases) {
        const {host, units} = machine((card) => {
          card.sriov = {total: 100, virtualId: '8086:10ca', offset: 8, stride: 1, group: 21};
        });
        await succeeds(host, `sriov set ${pf} ${words}`);
        await replug(host);
        assert.equal(countOf(host), count, words);
        const writes = eventsOf(host, pf).flatMap((event) => event.writes);
        assert.equal(writes.includes(`${real}/sriov_numvfs=${count}`), byRule, words);
        assert.equal(units.runs.get(service)?.exitCode, byRule ? undefined : 0, words);
        assert.equal(host.userland.state(target), 'active', words);
      }
    });

    it('create them when the card returns from a guest', async () => {
      const {host} = machine();
      await succeeds(host, `sriov set ${pf} 2 --driver vfio-pci`);
      await succeeds(host, `bind vfio-pci ${pf} --force`);
      assert.equal(countOf(host), 0);
      await succeeds(host, `bind default ${pf}`);
      assert.equal(countOf(host), 2);
      assert.deepEqual(driversOf(host, ...vfs.slice(0, 2)), ['vfio-pci', 'vfio-pci']);
    });

    const off: readonly [what: string, prepare: (host: SimulatedHost) => void][] = [
      ['pearasys=off', (host) => host.machine.tree.file('/proc/cmdline', 'quiet pearasys=off\n')],
      ['pearasys.skip=', (host) => host.machine.tree.file(`/run/pearasys/skipped/${pf}`, '')],
      ['a quarantine', (host) => host.machine.tree.file(`/run/pearasys/quarantined/${pf}`, '{}\n')],
      ['a removed record', (host) => host.machine.tree.remove(record)],
    ];
    for (const [what, prepare] of off)
      it(`create none with ${what}`, async () => {
        const {host, units} = machine();
        await succeeds(host, `sriov set ${pf} 2 --driver vfio-pci`);
        prepare(host);
        await replug(host);
        assert.equal(countOf(host), 0);
        assert.equal(units.runs.size, 0);
      });

    it('do not claim a function that is skipped or quarantined', async () => {
      const {host} = machine();
      await succeeds(host, `sriov set ${pf} 3 --driver vfio-pci`);
      host.machine.tree.file(`/run/pearasys/skipped/${vfs[0]}`, '');
      host.machine.tree.file(`/run/pearasys/quarantined/${vfs[2]}`, '{}\n');
      await replug(host);
      assert.deepEqual(driversOf(host, ...vfs.slice(0, 3)), [undefined, 'vfio-pci', undefined]);
    });

    it('leave a function that was released manually alone on a synthetic event', async () => {
      const {host} = machine();
      await succeeds(host, `sriov set ${pf} 2 --driver vfio-pci`);
      await succeeds(host, `unbind ${vfs[0]}`);
      await host.run('udevadm', ['trigger', '--action=add', `/sys/bus/pci/devices/${vfs[0]}`]);
      await host.userland.idle();
      assert.deepEqual(driversOf(host, ...vfs.slice(0, 2)), [undefined, 'vfio-pci']);
    });

    it('leave a function with a record of its own to that', async () => {
      const {host} = machine();
      await succeeds(host, `sriov set ${pf} 2 --driver igbvf`);
      await succeeds(host, `-s ${vfs[0]} service install vfio-pci`);
      await replug(host);
      assert.deepEqual(driversOf(host, ...vfs.slice(0, 2)), ['vfio-pci', 'igbvf']);
      await succeeds(host, `sriov set ${pf} 2 --driver igbvf`);
      assert.deepEqual(driversOf(host, ...vfs.slice(0, 2)), ['vfio-pci', 'igbvf']);
      await succeeds(host, `sriov set ${pf} 3 --driver igbvf`);
      assert.deepEqual(driversOf(host, ...vfs.slice(0, 3)), ['vfio-pci', 'igbvf', 'igbvf']);
    });

    for (const [what, path, mode] of [
      ['record', record, 0o666],
      ['folder', '/etc/pearasys/sriov', 0o777],
    ] as const)
      it(`leave a ${what} that is writable by others to the unit, which fails with the reason`, async () => {
        const {host, units} = machine();
        await succeeds(host, `sriov set ${pf} 2 --driver vfio-pci`);
        fs.chmodSync(host.machine.tree.onDisk(path), mode);
        await replug(host);
        assert.equal(countOf(host), 0);
        assert.equal(host.userland.state(service), 'failed');
        assert.equal(host.userland.state(target), 'inactive');
        assert.match(units.runs.get(service)?.journal.join('\n') ?? '', /is writable by others: chmod go-w/);
      });
  });

  describe('the unit', () => {
    it('creates the functions for a record that was not checked', async () => {
      const {host, units} = machine();
      await succeeds(host, `sriov set ${pf} 2 --driver vfio-pci`);
      for (const name of host.list('/run/pearasys/sriov'))
        host.machine.tree.remove(`/run/pearasys/sriov/${name}`);
      await replug(host);
      assert.deepEqual(driversOf(host, ...vfs.slice(0, 2)), ['vfio-pci', 'vfio-pci']);
      assert.deepEqual(interfaces(host), []);
      assert.equal(units.runs.get(service)?.exitCode, 0);
      assert.equal(host.userland.state(target), 'active');
      await replug(host);
      assert.equal(eventsOf(host, pf).flatMap(({writes}) => writes).length, 3);
    });

    it('fails with the reason for a device that cannot create so many', async () => {
      const {host, units} = machine();
      await succeeds(host, `sriov set ${pf} 7`);
      host.machine.hotRemove(pf);
      await host.userland.idle();
      host.machine.hotAdd({...sriovCard(pf), behind: port, sriov: {total: 2, virtualId: '8086:10ca'}});
      await host.userland.idle();
      assert.equal(units.runs.get(service)?.exitCode, 3);
      assert.match(units.runs.get(service)?.journal[0] ?? '', /at most 2 virtual functions, not 7/);
      assert.equal(host.userland.state(target), 'inactive');
    });

    it('is not needed for a card without a serial number that cannot be told from the recorded one', async () => {
      const {host, units} = machine((card) => {
        card.net = [];
      });
      await succeeds(host, `sriov set ${pf} 2 --driver vfio-pci`);
      host.machine.hotRemove(pf);
      await host.userland.idle();
      host.machine.hotAdd({...sriovCard(pf), behind: port, net: []});
      await host.userland.idle();
      assert.deepEqual(driversOf(host, ...vfs.slice(0, 2)), ['vfio-pci', 'vfio-pci']);
      assert.equal(units.runs.size, 0);
      assert.equal((await list(host)).physical[0]?.state, 'right');
      host.machine.hotRemove(pf);
      await host.userland.idle();
      host.machine.hotAdd({
        ...sriovCard(pf),
        behind: port,
        net: [{name: 'eth2', address: '52:54:00:00:00:99'}],
      });
      await host.userland.idle();
      assert.equal(countOf(host), 2);
    });

    it('leaves another card of the same kind in the slot alone', async () => {
      const {host, units} = machine((card) => {
        card.dsn = '00-11-22-33-44-55-66-77';
      });
      await succeeds(host, `sriov set ${pf} 2 --driver vfio-pci`);
      host.machine.hotRemove(pf);
      await host.userland.idle();
      host.machine.hotAdd({...sriovCard(pf), behind: port, dsn: '00-11-22-33-44-55-66-88'});
      await host.userland.idle();
      assert.equal(countOf(host), 0);
      assert.equal(units.runs.get(service)?.exitCode, 3);
      assert.match(units.runs.get(service)?.journal.join('\n') ?? '', /is not the recorded one/);
      assert.equal(host.userland.state(target), 'inactive');
    });

    it('leaves the card that has the slot since the buses were renumbered alone', async () => {
      const {host, units} = machine((card, {functions}) => {
        card.net = [];
        functions.push({slot: otherPort, id: '8086:a32d', class: '060400', driver: 'pcieport', group: 29});
      });
      await succeeds(host, `sriov set ${pf} 2 --driver vfio-pci`);
      host.machine.hotRemove(pf);
      await host.userland.idle();
      const card = {...sriovCard(pf), net: []};
      host.machine.hotAdd({...card, slot: otherPf, behind: port});
      host.machine.hotAdd({...card, behind: otherPort});
      await host.userland.idle();
      assert.equal(countOf(host), 0);
      assert.equal(units.runs.get(service)?.exitCode, 3);
      assert.match(
        units.runs.get(service)?.journal.join('\n') ?? '',
        new RegExp(`the recorded card is in ${otherPf}`),
      );
    });

    it('reports a function that its driver does not take', async () => {
      const {host, units} = machine();
      await succeeds(host, `sriov set ${pf} 2 --driver vfio-pci`);
      host.refuseProbe(vfs[1], 'vfio-pci', 'EINVAL');
      await replug(host);
      const unit = `pearasys-vfs@${pf}-driver.service`;
      assert.equal(host.userland.state(unit), 'failed');
      assert.match(
        units.runs.get(unit)?.journal.join('\n') ?? '',
        new RegExp(`driver vfio-pci did not take ${vfs[1]}`),
      );
      assert.deepEqual(driversOf(host, ...vfs.slice(0, 2)), ['vfio-pci', undefined]);
    });

    it('and set leave a function alone that is skipped, quarantined, or has a record of its own', async () => {
      const {host, units} = machine((_card, declaration) => {
        declaration.cmdline += ` pearasys.skip=${vfs[0]}`;
      });
      host.machine.tree.file(`/run/pearasys/skipped/${vfs[0]}`, '');
      const wanted = [undefined, 'igbvf', 'vfio-pci'];
      await succeeds(host, `sriov set ${pf} 3 --driver vfio-pci --vf 1:driver=igbvf`);
      assert.deepEqual(driversOf(host, ...vfs.slice(0, 3)), wanted);
      await succeeds(host, `-s ${vfs[1]} service install igbvf`);
      await succeeds(host, `unbind ${vfs[2]}`);
      host.machine.tree.file(`/run/pearasys/quarantined/${vfs[2]}`, '{}\n');
      for (let again = 0; again < 2; again++) {
        await succeeds(host, `sriov set ${pf} 3 --driver vfio-pci`);
        assert.deepEqual(driversOf(host, ...vfs.slice(0, 3)), [undefined, 'igbvf', undefined]);
      }
      for (const name of host.list('/run/pearasys/sriov'))
        host.machine.tree.remove(`/run/pearasys/sriov/${name}`);
      await replug(host);
      assert.equal(units.runs.get(service)?.exitCode, 0);
      assert.deepEqual(driversOf(host, ...vfs.slice(0, 3)), [undefined, 'igbvf', undefined]);
    });

    it('leaves a function alone that was released manually, which set claims again', async () => {
      const {host, units} = machine();
      await succeeds(host, `sriov set ${pf} 2 --driver vfio-pci`);
      await succeeds(host, `unbind ${vfs[0]}`);
      const unit = `pearasys-vfs@${pf}-count.service`;
      await host.run('systemctl', ['start', unit]);
      assert.equal(units.runs.get(unit)?.exitCode, 0);
      assert.deepEqual(driversOf(host, ...vfs.slice(0, 2)), [undefined, 'vfio-pci']);
      await succeeds(host, `sriov set ${pf} 2 --driver vfio-pci`);
      assert.deepEqual(driversOf(host, ...vfs.slice(0, 2)), ['vfio-pci', 'vfio-pci']);
      assert.equal(host.exists(`/run/pearasys/released/${vfs[0]}`), false);
      await succeeds(host, `unbind ${vfs[0]}`);
      await succeeds(host, `sriov set ${pf} 3 --driver vfio-pci`);
      assert.deepEqual(driversOf(host, ...vfs.slice(0, 2)), ['vfio-pci', 'vfio-pci']);
      assert.equal(host.exists(`/run/pearasys/released/${vfs[0]}`), false);
    });

    it('does not mistake a function of a card that came back for the one that was released manually', async () => {
      const {host, units} = machine();
      await succeeds(host, `sriov set ${pf} 2 --driver vfio-pci`);
      await succeeds(host, `unbind ${vfs[0]}`);
      host.machine.hotRemove(pf);
      await host.userland.idle();
      const unit = `pearasys-vfs@${pf}-driver.service`;
      host.refuseProbe(vfs[0], 'vfio-pci', 'EINVAL');
      host.machine.hotAdd(pf);
      await host.userland.idle();
      assert.equal(units.runs.get(unit)?.exitCode, 1);
      assert.match(
        units.runs.get(unit)?.journal.join('\n') ?? '',
        new RegExp(`driver vfio-pci did not take ${vfs[0]}`),
      );
    });

    it('claims it on a synthetic event, and removes the mark', async () => {
      const {host} = machine();
      await succeeds(host, `sriov set ${pf} 2 --driver vfio-pci`);
      await succeeds(host, `unbind ${vfs[0]}`);
      const mark = `/run/pearasys/released/${vfs[0]}`;
      await replug(host);
      assert.equal(host.exists(mark), true);
      await host.run('modprobe', ['-r', 'vfio-pci']);
      assert.deepEqual(driversOf(host, vfs[0]), [undefined]);
      await host.run('udevadm', ['trigger', '--action=add', `/sys/bus/pci/devices/${vfs[0]}`]);
      await host.userland.idle();
      assert.deepEqual(driversOf(host, vfs[0]), ['vfio-pci']);
      await host.run('systemctl', ['start', `pearasys-vfs@${pf}-driver.service`]);
      assert.equal(host.exists(mark), false);
    });

    it('runs once for all functions that their driver does not take', async () => {
      const {host} = machine();
      await succeeds(host, `sriov set ${pf} 7 --driver vfio-pci`);
      for (let index = 0; index < 7; index++)
        host.refuseProbe(`0000:06:1${index >> 2}.${(index & 3) * 2}`, 'vfio-pci', 'EINVAL');
      await replug(host);
      assert.equal(countOf(host), 7);
      assert.deepEqual(
        host.userland.jobs.filter((job) => job.startsWith('start pearasys-vfs@')),
        [`start pearasys-vfs@${pf}-driver.service`],
      );
    });

    it('changes the number that the driver has created by itself', async () => {
      const {host, units} = machine();
      await succeeds(host, `sriov set ${pf} 3 --driver vfio-pci`);
      host.machine.write(`${real}/sriov_numvfs`, '0');
      host.machine.write(`${real}/sriov_numvfs`, '2');
      await host.userland.idle();
      assert.equal(countOf(host), 2);
      await host.run('udevadm', ['trigger', '--action=add', attributes]);
      await host.userland.idle();
      assert.equal(countOf(host), 3);
      assert.equal(units.runs.get(`pearasys-vfs@${pf}-count.service`)?.exitCode, 0);
    });
  });

  describe('with two cards of one kind', () => {
    const otherRecord = record.replace(pf, otherPf);
    const one = {...sriovCard(pf), net: [], behind: port, dsn: '00-11-22-33-44-55-66-77'};
    const other: FunctionDeclaration = {
      ...one,
      slot: otherPf,
      behind: otherPort,
      group: 30,
      sriov: {total: 7, virtualId: '8086:10ca', offset: 128, stride: 2, group: 41},
      dsn: '00-11-22-33-44-55-66-88',
    };

    /** The first card has VFs for a user. */
    async function both(): Promise<SimulatedHost> {
      const {host} = machine((card, {files, functions}) => {
        files['/etc/passwd'] = 'root:x:0:0::/:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n';
        Object.assign(card, one);
        functions.push(
          {slot: otherPort, id: '8086:a32d', class: '060400', driver: 'pcieport', group: 29},
          {...other, driver: 'igb'},
        );
      });
      await succeeds(host, `sriov set ${pf} 2 --driver vfio-pci --user alice`);
      return host;
    }

    async function exchange(host: SimulatedHost): Promise<void> {
      host.machine.hotRemove(pf);
      host.machine.hotRemove(otherPf);
      await host.userland.idle();
      host.machine.hotAdd({...other, slot: pf, behind: port});
      host.machine.hotAdd({...one, slot: otherPf, behind: otherPort});
      await host.userland.idle();
    }

    it('keeps the record of the first one when they were exchanged', async () => {
      const host = await both();
      await succeeds(host, `sriov set ${otherPf} 3`);
      const before = host.readText(record);
      await exchange(host);
      const refused = await typed(host, `sriov set ${pf} 1`);
      assert.equal(refused.exitCode, 3);
      assert.match(refused.stderr, new RegExp(`its card is in ${otherPf} now`));
      assert.match(
        refused.stderr,
        new RegExp(`sriov unset ${pf} --later; pearasys sriov set ${otherPf} COUNT`),
      );
      assert.equal(host.readText(record), before);
      assert.equal(host.exists(otherRecord), true);

      await succeeds(host, `sriov unset ${pf} --later`);
      assert.equal(host.readText(record), before);
      assert.equal(host.exists(otherRecord), false);
      const last = await typed(host, `sriov set ${pf} 1`);
      assert.match(last.stderr, new RegExp(`try: .*: pearasys sriov set ${otherPf} COUNT`));
      await succeeds(host, `sriov set ${otherPf} 2 --driver vfio-pci`);
      assert.equal(host.exists(record), false);
      assert.match(host.readText(otherRecord) ?? '', /PEARASYS_SERIAL=pcie:\S+77\n[^]*PEARASYS_USER=alice/);
      await succeeds(host, `sriov set ${pf} 1`);
      assert.match(host.readText(record) ?? '', /PEARASYS_SERIAL=pcie:\S+88\n/);
    });

    /** The owner of the node of the first virtual function in a slot, which is put on vfio-pci. */
    async function ownerOf(host: SimulatedHost, slot: string): Promise<number | undefined> {
      host.machine.write(`/sys/bus/pci/devices/${slot}/sriov_numvfs`, '1');
      await host.userland.idle();
      const [vf = ''] = host.machine.tree
        .list(`/sys/bus/pci/devices/${slot}`)
        .filter((name) => name === 'virtfn0');
      const virtual = host.machine.tree.resolve(`/sys/bus/pci/devices/${slot}/${vf}`)?.slice(-12) ?? '';
      await succeeds(host, `bind vfio-pci ${virtual}`);
      return host.info(`/dev/vfio/${host.machine.device(virtual).group ?? ''}`)?.uid;
    }

    it('gives its users no functions of another card that has its slot since the buses were renumbered', async () => {
      for (const otherIsRecorded of [false, true]) {
        const host = await both();
        const copies = host.list('/run/pearasys/vfs').map((name) => {
          const path = `/run/pearasys/vfs/${name}`;
          return {path, text: host.readText(path) ?? ''};
        });
        assert.equal(copies.length, 2);
        await exchange(host);
        // As early does at boot.
        for (const {path, text} of copies)
          if (otherIsRecorded)
            host.machine.tree.file(
              path,
              `${text.replace(/RECORD=.*/, `RECORD=${otherRecord.slice(-27)}`)}\n`,
            );
          else host.machine.tree.remove(path);
        assert.equal(await ownerOf(host, pf), 0);
      }
    });

    it('gives its users its functions in the slot that it has since the buses were renumbered', async () => {
      const host = await both();
      const units = runUnits(host);
      const text = (host.readText(copy) ?? '').replace(/^PEARASYS_VF_READY=.*$/m, '');
      await exchange(host);
      for (const folder of ['sriov', 'vfs'])
        for (const name of host.list(`/run/pearasys/${folder}`))
          host.machine.tree.remove(`/run/pearasys/${folder}/${name}`);
      // As early does at boot for a card in another slot.
      host.machine.tree.file(copy.replace(pf, otherPf).replace(port, otherPort), `${text}\n`);
      host.machine.drivers.unbind('igb', otherPf);
      host.machine.drivers.probe(otherPf);
      await host.userland.idle();
      assert.equal(units.runs.get(`pearasys-vfs@${otherPf}.service`)?.exitCode, 0);
      const virtual = '0000:07:10.0';
      assert.equal(host.info(`/dev/vfio/${host.machine.device(virtual).group ?? ''}`)?.uid, 1000);
      assert.equal(await ownerOf(host, pf), 0);
    });

    it('neither claims the functions of a card that is plugged in instead nor gives them to users', async () => {
      const host = await both();
      const units = runUnits(host);
      host.machine.hotRemove(otherPf);
      host.machine.hotRemove(pf);
      await host.userland.idle();
      host.machine.hotAdd({...other, slot: pf, behind: port});
      await host.userland.idle();
      assert.equal(units.runs.get(service)?.exitCode, 3);
      host.machine.write(`${real}/sriov_numvfs`, '1');
      await host.userland.idle();
      assert.deepEqual(driversOf(host, vfs[0]), ['igbvf']);
      assert.equal(host.machine.device(vfs[0]).override, undefined);
      host.machine.write(`${real}/sriov_numvfs`, '0');
      assert.equal(await ownerOf(host, pf), 0);
      host.machine.hotRemove(pf);
      await host.userland.idle();
      // The unit of the recorded card writes again what the rules need.
      host.machine.hotAdd({...one, slot: pf, behind: port});
      await host.userland.idle();
      assert.equal(units.runs.get(service)?.exitCode, 0);
      assert.deepEqual(driversOf(host, ...vfs.slice(0, 2)), ['vfio-pci', 'vfio-pci']);
      assert.equal(host.info(`/dev/vfio/${host.machine.device(vfs[0]).group ?? ''}`)?.uid, 1000);
      assert.equal(host.list('/run/pearasys/vfs').length, 2);
    });

    it('does not forget the record of a card that is in another slot', async () => {
      const host = await both();
      const before = host.readText(record);
      await exchange(host);
      const {exitCode} = await typed(host, `sriov unset ${pf}`);
      assert.equal(exitCode, 4);
      assert.equal(host.readText(record), before);
    });

    it('replaces the record of a card that is gone, without its users', async () => {
      const host = await both();
      host.machine.hotRemove(pf);
      host.machine.hotRemove(otherPf);
      await host.userland.idle();
      host.machine.hotAdd({...other, slot: pf, behind: port});
      await host.userland.idle();
      const {stderr} = await succeeds(host, `sriov set ${pf} 2 --driver vfio-pci`);
      assert.match(stderr, new RegExp(`replacing the record of another card for ${pf}`));
      assert.match(host.readText(record) ?? '', /PEARASYS_SERIAL=pcie:\S+88\n/);
      assert.doesNotMatch(host.readText(record) ?? '', /PEARASYS_USER/);
    });
  });

  describe('unset', () => {
    it('removes the functions and the record, and nothing comes back', async () => {
      const {host} = machine();
      await succeeds(host, `sriov set ${pf} 2 --driver vfio-pci`);
      await succeeds(host, `sriov unset ${pf}`);
      assert.equal(countOf(host), 0);
      assert.equal(host.exists('/etc/pearasys/sriov'), false);
      assert.equal(host.exists('/run/pearasys/vfs'), false);
      assert.equal(host.readText(`${attributes}/sriov_drivers_autoprobe`), '1');
      assert.equal(host.userland.state(target), 'inactive');
      await replug(host);
      assert.equal(countOf(host), 0);
    });

    it('of what is not recorded fails, and says how to remove functions', async () => {
      const {host} = machine();
      host.machine.write(`${real}/sriov_numvfs`, '2');
      const {exitCode, stderr} = await typed(host, `sriov unset ${pf}`);
      assert.equal(exitCode, 4);
      assert.match(stderr, /to remove the 2 that exist: echo 0 >/);
    });

    it('of a card that is absent removes its record', async () => {
      const {host} = machine();
      await succeeds(host, `sriov set ${pf} 2`);
      host.machine.hotRemove(pf);
      await host.userland.idle();
      await succeeds(host, `sriov unset ${pf}`);
      assert.equal(host.exists(record), false);
    });

    it('with --later leaves the functions', async () => {
      const {host} = machine();
      await succeeds(host, `sriov set ${pf} 2 --driver vfio-pci`);
      await succeeds(host, `sriov unset ${pf} --later`);
      assert.equal(countOf(host), 2);
      assert.equal(host.exists(record), false);
    });
  });

  describe('list', () => {
    it('shows devices with their functions, what is recorded, and the state', async () => {
      const {host} = machine();
      const [before] = (await list(host)).physical;
      assert.equal(before?.state, 'unrecorded');
      assert.equal(before.record, null);
      await succeeds(host, `sriov set ${pf} 2 --driver vfio-pci --vf 1:driver=igbvf`);
      const [one, ...others] = (await list(host)).physical;
      assert.deepEqual(others, []);
      assert.deepEqual(one?.record, {
        slot: pf,
        count: 2,
        autoprobe: false,
        driver: 'vfio-pci',
        access: null,
        drivers: {1: 'igbvf'},
      });
      assert.equal(one.state, 'right');
      assert.deepEqual([one.unit, one.active, one.count, one.total], [target, 'active', 2, 7]);
      assert.deepEqual(
        one.virtual.map(({index, slot, driver, wanted}) => [index, slot, driver, wanted]),
        [
          [0, vfs[0], 'vfio-pci', 'vfio-pci'],
          [1, vfs[1], 'igbvf', 'igbvf'],
        ],
      );
      const {stdout} = await typed(host, 'sriov list');
      const lines = stdout.trimEnd().split('\n');
      assert.deepEqual(
        lines.map((line) => line.split('\t').slice(0, 8).join(' ')),
        [
          `${pf} 8086:10c9 pf 2 7 2 igb right`,
          `${vfs[0]} 8086:10ca vf 0 ${pf} vfio-pci vfio-pci 21`,
          `${vfs[1]} 8086:10ca vf 1 ${pf} igbvf igbvf 22`,
        ],
      );
      await succeeds(host, `bind vfio-pci ${vfs[1]}`);
      assert.equal((await list(host)).physical[0]?.state, 'other-driver');
      host.machine.write(`${real}/sriov_numvfs`, '0');
      assert.equal((await list(host)).physical[0]?.state, 'other-number');
      host.machine.hotRemove(pf);
      await host.userland.idle();
      const [absent] = (await list(host)).physical;
      assert.deepEqual([absent?.slot, absent?.state, absent?.count], [pf, 'absent', null]);
    });

    it('expects nothing of functions that are not for the record of their device', async () => {
      const {host} = machine((_card, declaration) => {
        declaration.cmdline += ` pearasys.skip=${vfs[0]}`;
      });
      host.machine.tree.file(`/run/pearasys/skipped/${vfs[0]}`, '');
      await succeeds(host, `sriov set ${pf} 4 --driver vfio-pci`);
      await succeeds(host, `-s ${vfs[1]} service install igbvf --now`);
      await succeeds(host, `unbind ${vfs[2]}`);
      host.machine.tree.file(`/run/pearasys/quarantined/${vfs[2]}`, '{}\n');
      const [one] = (await list(host)).physical;
      assert.deepEqual(
        one?.virtual.map(({driver, wanted}) => [driver, wanted]),
        [
          [null, null],
          ['igbvf', null],
          [null, null],
          ['vfio-pci', 'vfio-pci'],
        ],
      );
      assert.equal(one.state, 'right');
    });

    it('prints a table on a terminal', async () => {
      const {host} = machine();
      const empty = new Terminal(120);
      await typed(made(), 'sriov list', {stdout: empty});
      assert.equal(empty.text, 'No device can have virtual functions.\n');
      await succeeds(host, `sriov set ${pf} 1 --driver vfio-pci`);
      const terminal = new Terminal(140);
      await typed(host, 'sriov list', {stdout: terminal});
      assert.match(terminal.text, new RegExp(`${pf} +8086:10c9 +1/7 +1 vfio-pci +igb +right`));
      assert.match(terminal.text, new RegExp(` {2}${vfs[0]} +8086:10ca +0 +vfio-pci +vfio-pci`));
    });

    it('reports records that are ignored', async () => {
      const {host} = machine();
      await succeeds(host, `sriov set ${pf} 2`);
      fs.chmodSync(host.machine.tree.onDisk(record), 0o666);
      const {stderr} = await typed(host, 'sriov list');
      assert.match(stderr, /the SR-IOV record \S+ is ignored: .* writable by others/);
      assert.equal((await list(host)).problems.length, 1);
    });
  });
});
