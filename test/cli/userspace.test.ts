import assert from 'node:assert/strict';
import type {UserspaceStatusResult} from '../../src/entry/cli/commands/userspace/status.js';
import type {UserspaceResult} from '../../src/entry/cli/userspace.js';
import {noIommuParameter} from '../../src/devices/pci/no-iommu.js';
import type {MachineDeclaration} from '../simulated-host/declaration.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {functionOf, sriovCard} from '../simulated-host/standard-machine.js';
import {withProduct} from '../unit/services.js';
import {run, succeeds, Terminal, typed} from './runs.js';

const system = '0000:03:00.0';
const spare = '0000:04:00.0';
const spareNode = '/dev/nvme1n1';
const idleNet = '0000:05:00.0';
const usedNet = '0000:00:1f.6';

const ext4 = {TYPE: 'ext4', USAGE: 'filesystem'};

describe('pearasys userspace', () => {
  const hosts: SimulatedHost[] = [];
  afterEach(() => {
    for (const host of hosts.splice(0)) host.dispose();
  });

  function made(tweak?: (machine: MachineDeclaration) => void): SimulatedHost {
    const host = SimulatedHost.standard(tweak);
    hosts.push(host);
    return host;
  }

  const driverOf = (host: SimulatedHost, slot: string) => host.machine.device(slot).driver;

  /** Runs a command line with `--json`, and these variables. */
  async function json<T>(host: SimulatedHost, line: string, environment: NodeJS.ProcessEnv = {}): Promise<T> {
    const {exitCode, stdout, stderr} = await typed(host, `--json ${line}`, {environment});
    assert.equal(exitCode, 0, stderr);
    return JSON.parse(stdout) as T;
  }

  const config = (host: SimulatedHost, words = '', environment: NodeJS.ProcessEnv = {}) =>
    json<UserspaceResult>(host, `userspace config${words === '' ? '' : ` ${words}`}`, environment);

  const skips = ({skipped}: UserspaceResult) =>
    skipped.map(({slot, code, reasons}) => [slot, code, ...reasons]);
  const taken = ({devices}: UserspaceResult) => devices.map(({slot, driver}) => [slot, driver]);

  describe('config', () => {
    it('takes a blank disk, and skips the one that is mounted, with its reasons', async () => {
      const host = made();
      const result = await config(host);
      assert.deepEqual(taken(result), [[spare, 'vfio-pci']]);
      assert.deepEqual(skips(result), [
        [
          system,
          'in-use',
          '/dev/nvme0n1p1 is mounted at /boot/efi',
          '/dev/nvme0n1p2 is mounted at /',
          '/dev/nvme0n1p3 is used as swap',
        ],
      ]);
      assert.equal(driverOf(host, spare), 'vfio-pci');
      assert.equal(driverOf(host, system), 'nvme');
      assert.deepEqual(host.machine.harm, []);
      assert.match(result.notes[0] ?? '', /^0000:03:00\.0 \(144d:a808\) is skipped: .*mounted at \/;/s);
    });

    it('needs nothing the second time', async () => {
      const host = made();
      await config(host);
      const result = await config(host);
      assert.equal(result.changed, false);
      assert.deepEqual(taken(result), [[spare, 'vfio-pci']]);
    });

    it('skips a disk that carries data; --take takes it, and no other', async () => {
      const host = made((machine) => {
        machine.signatures = {[spareNode]: ext4};
      });
      const skipped = await config(host);
      assert.deepEqual(skips(skipped).at(-1), [
        spare,
        'carries-data',
        `${spareNode} carries a file system (ext4)`,
      ]);
      assert.equal(skipped.skipped.at(-1)?.hint, `to take it anyway, add: --take ${spare}`);
      assert.equal(driverOf(host, spare), 'nvme');
      const result = await config(host, `--take ${spare}`);
      assert.deepEqual(taken(result), [[spare, 'vfio-pci']]);
      assert.ok(result.steps.includes(`pearasys show ${spare}  # its disks must not be in use`));
    });

    it('--take does not take a disk that is in use', async () => {
      const host = made();
      const result = await config(host, `--take ${system}`);
      assert.equal(skips(result)[0]?.[1], 'in-use');
      assert.equal(driverOf(host, system), 'nvme');
    });

    it('skips a disk that could not be searched', async () => {
      const host = made((machine) => {
        machine.signatures = {[spareNode]: 'unreadable'};
      });
      assert.deepEqual(skips(await config(host)).at(-1), [
        spare,
        'carries-data',
        `${spareNode} could not be searched for data: it cannot be read`,
      ]);
    });

    it('skips a disk without a driver: nothing can search it', async () => {
      const host = made((machine) => {
        delete functionOf(machine, spare).driver;
      });
      assert.match(skips(await config(host)).at(-1)?.[2] ?? '', /^it has no driver/);
      assert.deepEqual(taken(await config(host, `--take ${spare}`)), [[spare, 'vfio-pci']]);
    });

    it('skips a disk on pci-stub: nothing can search it', async () => {
      const host = made((machine) => {
        Object.assign(functionOf(machine, spare), {driver: 'pci-stub', override: 'pci-stub'});
        for (const module of machine.modules) if (module.name === 'pci_stub') module.loaded = true;
      });
      assert.match(skips(await config(host)).at(-1)?.[2] ?? '', /^it is on pci-stub, so its disks cannot/);
      assert.equal(driverOf(host, spare), 'pci-stub');
      assert.deepEqual(taken(await config(host, `--take ${spare}`)), [[spare, 'vfio-pci']]);
    });

    it('skips a disk without a driver that was given back since config took it', async () => {
      const host = made();
      await config(host, spare);
      await succeeds(host, `bind default ${spare}`);
      await succeeds(host, `unbind ${spare}`);
      assert.equal(host.exists(`/run/pearasys/userspace/${spare}`), true);
      assert.match(skips(await config(host)).at(-1)?.[2] ?? '', /^it has no driver/);
    });

    it('searches the disk again under the lock, and undoes what was done for others', async () => {
      const host = made();
      let searched = 0;
      host.beforeEffect((effect) => {
        if (effect.kind !== 'run' || effect.file !== 'blkid' || ++searched < 2) return;
        host.machine.declaration.signatures = {[spareNode]: ext4};
      });
      const {exitCode, stderr} = await typed(host, `userspace config ${idleNet} ${spare}`);
      assert.equal(exitCode, 3);
      assert.match(stderr, /0000:04:00\.0: \/dev\/nvme1n1 carries a file system \(ext4\)/);
      assert.equal(driverOf(host, spare), 'nvme');
      assert.equal(driverOf(host, idleNet), 'e1000e');
    });

    for (const [words, signature] of [
      [`--take ${spare}`, ext4],
      ['', undefined],
    ] as const)
      it(`looks again under the lock whether the disk is in use${words === '' ? '' : ', also with --take'}`, async () => {
        const host = made((machine) => {
          if (signature !== undefined) machine.signatures = {[spareNode]: signature};
        });
        host.beforeEffect((effect) => {
          if (effect.kind !== 'run' || effect.file !== 'modprobe') return;
          const path = '/proc/self/mountinfo';
          const line = `99 1 ${host.info(spareNode)?.deviceNumber ?? ''} / /data rw - ext4 ${spareNode} rw`;
          host.machine.tree.file(path, `${host.readText(path) ?? ''}\n${line}\n`);
        });
        const {exitCode, stderr} = await typed(host, `userspace config ${idleNet} ${spare} ${words}`.trim());
        assert.equal(exitCode, 3);
        assert.match(stderr, /0000:04:00\.0: \/dev\/nvme1n1 is mounted at \/data\n.*try: umount \/data\n/s);
        assert.equal(driverOf(host, spare), 'nvme');
        assert.equal(driverOf(host, idleNet), 'e1000e');
      });

    /** The folder of the spare disk's controller. */
    const controller = '/sys/bus/pci/devices/0000:04:00.0/nvme/nvme1';

    function hideDisk(host: SimulatedHost): {path: string; link: string} {
      for (const number of host.list('/sys/dev/block')) {
        const path = `/sys/dev/block/${number}`;
        const link = host.readLink(path) ?? '';
        if (!link.endsWith('/nvme1n1')) continue;
        host.machine.tree.remove(path);
        return {path, link};
      }
      return assert.fail('there is no such disk');
    }

    it('searches a disk that appears only after its controller is live', async () => {
      const host = made((machine) => {
        machine.signatures = {[spareNode]: ext4};
      });
      const {tree} = host.machine;
      const {path, link} = hideDisk(host);
      host.beforeEffect((effect) => {
        if (effect.kind === 'run' && effect.file === 'modprobe') tree.textLink(path, link);
      });
      const {exitCode, stderr} = await typed(host, `userspace config ${idleNet} ${spare}`);
      assert.equal(exitCode, 3);
      assert.match(stderr, /0000:04:00\.0: \/dev\/nvme1n1 carries a file system \(ext4\)/);
      assert.equal(driverOf(host, spare), 'nvme');
    });

    it('takes a controller without a namespace', async () => {
      const host = made();
      hideDisk(host);
      const {steps, devices} = await config(host, spare);
      assert.deepEqual(
        devices.map(({driver}) => driver),
        ['vfio-pci'],
      );
      assert.ok(steps.includes(`! ls /dev/disk/by-path/pci-${spare}-*`));
    });

    it('skips a namespace that the kernel has no disk for', async () => {
      const host = made();
      host.machine.tree.file(`${controller}/ng1n1/dev`, '240:1\n');
      assert.deepEqual(skips(await config(host, '--dry-run')).slice(1), []);
      host.machine.tree.file(`${controller}/ng1n2/dev`, '240:2\n');
      assert.deepEqual(skips(await config(host)).at(-1), [
        spare,
        'carries-data',
        'ng1n2 cannot be searched for data: the kernel has no disk for it',
      ]);
    });

    it('refuses a namespace without a disk that appears after the search', async () => {
      const host = made();
      host.beforeEffect((effect) => {
        if (effect.kind === 'run' && effect.file === 'blkid')
          for (const [name, text] of [
            ['nvme1n1/hidden', '1\n'],
            ['ng1n1/dev', '240:1\n'],
          ] as const)
            host.machine.tree.file(`${controller}/${name}`, text);
      });
      const {exitCode, stderr} = await typed(host, `userspace config ${spare}`);
      assert.equal(exitCode, 3);
      assert.match(stderr, /ng1n1 cannot be searched/);
      assert.equal(driverOf(host, spare), 'nvme');
    });

    it('skips a device with which a disk goes away that could not be searched', async () => {
      const host = made((machine) => {
        functionOf(machine, idleNet).sriov = {total: 2, virtualId: '144d:a824'};
        machine.functions.push({slot: '0000:06:00.0', id: '144d:a824', class: '010802', group: 30});
      });
      host.machine.tree.link(
        `/sys/devices/pci0000:00/0000:00:1c.4/${idleNet}/virtfn0`,
        host.realPath('/sys/bus/pci/devices/0000:06:00.0') ?? '',
      );
      assert.deepEqual(skips(await config(host, `${idleNet} ${spare}`)), [
        [
          idleNet,
          'carries-data',
          '0000:06:00.0 goes away with it: it has no driver, so its disks cannot be searched for data',
        ],
      ]);
    });

    it('takes devices of a type; those that are in use are skipped', async () => {
      const host = made();
      const result = await config(host, '--type net');
      assert.deepEqual(taken(result), [[idleNet, 'vfio-pci']]);
      assert.deepEqual(skips(result)[0]?.slice(0, 2), [usedNet, 'in-use']);
    });

    it('skips a device with a claim, also for TARGET_USER, unless it is named', async () => {
      const host = made((machine) => {
        machine.files['/etc/passwd'] = 'root:x:0:0::/:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n';
      });
      await succeeds(host, `-s ${spare} service install vfio-pci`);
      const environment = {TARGET_USER: 'alice'};
      assert.deepEqual(skips(await config(host, '', environment)).at(-1), [
        spare,
        'blocked',
        'it is permanently claimed',
      ]);
      assert.equal(driverOf(host, spare), 'nvme');
      await succeeds(host, `bind vfio-pci ${spare}`);
      await config(host, '', environment);
      assert.equal(host.info('/dev/vfio/10')?.uid, 0);
      await config(host, spare, environment);
      assert.equal(host.info('/dev/vfio/10')?.uid, 1000);
    });

    it('is refused if none of the named devices can be taken', async () => {
      const host = made();
      const one = await typed(host, `userspace config ${usedNet}`);
      assert.equal(one.exitCode, 3);
      assert.match(one.stderr, /0000:00:1f\.6 \(8086:15bb\) cannot be taken: eth0 carries the last route/);
      const {exitCode, stderr} = await typed(host, `userspace config ${usedNet} ${system}`);
      assert.equal(exitCode, 3);
      assert.match(stderr, /none of these devices can be switched/);
      assert.match(stderr, /^ *0000:03:00\.0 \(144d:a808\): .*mounted/m);
      assert.equal((await typed(host, `userspace config ${usedNet} ${idleNet}`)).exitCode, 0);
      assert.equal(driverOf(host, idleNet), 'vfio-pci');
    });

    it('takes all or none: if one does not take the driver, all are undone', async () => {
      const host = made();
      host.refuseProbe(spare, 'vfio-pci');
      const before = host.machine.bindings();
      const {exitCode} = await typed(host, `userspace config ${idleNet} ${spare}`);
      assert.equal(exitCode, 1);
      assert.deepEqual(host.machine.bindings(), before);
      assert.equal(host.exists('/run/pearasys/userspace'), false);
    });

    it('--dry-run shows the steps, and changes nothing', async () => {
      const host = made();
      const {stdout} = await typed(host, `userspace config ${spare} --dry-run`);
      assert.equal(
        stdout,
        [
          `cat > /run/pearasys/userspace/${spare} <<'EOF'`,
          '{"id":"144d:a80a","disks":1,"interfaces":0}',
          'EOF',
          'modprobe vfio-pci',
          'test -d /sys/bus/pci/drivers/vfio-pci',
          `! blkid -p -o export ${spareNode}`,
          `echo 'vfio-pci' > /sys/bus/pci/devices/${spare}/driver_override`,
          `echo '${spare}' > /sys/bus/pci/drivers/nvme/unbind`,
          `echo '${spare}' > /sys/bus/pci/drivers_probe`,
          `test -e /sys/bus/pci/drivers/vfio-pci/${spare}`,
          '',
        ].join('\n'),
      );
      assert.equal(driverOf(host, spare), 'nvme');
    });

    describe('chooses the driver', () => {
      const twins = (machine: MachineDeclaration) => {
        machine.functions.push({
          slot: '0000:05:00.1',
          id: '8086:10d3',
          class: '020000',
          driver: 'e1000e',
          behind: '0000:00:1c.4',
          group: 11,
          net: [{name: 'eth3', address: '52:54:00:00:00:13'}],
        });
      };

      it('vfio-pci only if the group allows it', async () => {
        const host = made(twins);
        const {exitCode, stderr} = await typed(host, `userspace config ${idleNet}`);
        assert.equal(exitCode, 3);
        assert.match(
          stderr,
          /IOMMU group 11 would not be viable for VFIO: 0000:05:00\.1 \(8086:10d3\) is on e1000e\n.*try: name the whole group: 0000:05:00\.0 0000:05:00\.1/s,
        );
        assert.deepEqual(taken(await config(host, '05:00.*')), [
          [idleNet, 'vfio-pci'],
          ['0000:05:00.1', 'vfio-pci'],
        ]);
      });

      it('uio_pci_generic for a group that VFIO cannot use, where the IOMMU does not translate', async () => {
        const host = made((machine) => {
          twins(machine);
          machine.files['/sys/kernel/iommu_groups/11/type'] = 'identity\n';
        });
        assert.deepEqual(taken(await config(host, idleNet)), [[idleNet, 'uio_pci_generic']]);
      });

      it('uio_pci_generic without an IOMMU, and vfio-pci in no-IOMMU mode', async () => {
        const withoutIommu = (machine: MachineDeclaration) => {
          machine.iommu = false;
          for (const each of machine.functions) delete each.group;
        };
        assert.deepEqual(taken(await config(made(withoutIommu), idleNet)), [[idleNet, 'uio_pci_generic']]);
        const host = made(withoutIommu);
        host.machine.loadModule('vfio');
        await host.writeAttribute(noIommuParameter, 'Y', 1000);
        const result = await config(host, idleNet);
        assert.deepEqual(taken(result), [[idleNet, 'vfio-pci']]);
        assert.match(result.notes.join('\n'), /no-IOMMU mode, without DMA isolation/);
      });

      it('the variant driver that modalias prefers, unless --variant no', async () => {
        const variant = (machine: MachineDeclaration) => {
          const card = functionOf(machine, idleNet);
          card.id = '15b3:101e';
          delete card.driver;
        };
        assert.deepEqual(taken(await config(made(variant), idleNet)), [[idleNet, 'mlx5_vfio_pci']]);
        const host = made(variant);
        assert.deepEqual(taken(await config(host, `${idleNet} --variant no`)), [[idleNet, 'vfio-pci']]);
        assert.deepEqual(taken(await config(host, idleNet)), [[idleNet, 'vfio-pci']]);
      });

      it('--driver, or DRIVER_OVERRIDE, which may be the path of a module', async () => {
        const host = made();
        assert.deepEqual(taken(await config(host, `${idleNet} --driver uio_pci_generic`)), [
          [idleNet, 'uio_pci_generic'],
        ]);
        const other = made();
        const environment = {DRIVER_OVERRIDE: '/opt/dpdk/kmod/uio_pci_generic.ko'};
        assert.deepEqual(taken(await config(other, idleNet, environment)), [[idleNet, 'uio_pci_generic']]);
        assert.deepEqual(taken(await config(other, `${idleNet} --driver vfio-pci`, environment)), [
          [idleNet, 'vfio-pci'],
        ]);
      });
    });

    describe('reads the environment as SPDK does', () => {
      it('PCI_ALLOWED limits what is selected; none selects nothing', async () => {
        const host = made();
        const result = await config(host, '', {PCI_ALLOWED: system});
        assert.deepEqual(taken(result), []);
        assert.deepEqual(
          skips(result).map(([slot]) => slot),
          [system],
        );
        const none = await typed(host, 'userspace config', {environment: {PCI_ALLOWED: 'none'}});
        assert.deepEqual(none, {exitCode: 0, stdout: '', stderr: 'no such device\n'});
      });

      it('PCI_BLOCKED wins over PCI_ALLOWED and over names', async () => {
        const host = made();
        const environment = {PCI_ALLOWED: ` ${spare} ${system}`, PCI_BLOCKED: `0000:09:00.0 ${spare}`};
        assert.deepEqual(skips(await config(host, '', environment)).at(-1), [
          spare,
          'blocked',
          'PCI_BLOCKED names it',
        ]);
        const named = await typed(host, `userspace config ${spare}`, {environment});
        assert.equal(named.exitCode, 3);
        assert.match(named.stderr, /PCI_BLOCKED names it/);
        assert.equal(driverOf(host, spare), 'nvme');
      });

      it('empty variables are not set; a wrong word is refused, because it would mean another device', async () => {
        const host = made();
        const {exitCode, stderr} = await typed(host, 'userspace config', {
          environment: {PCI_BLOCKED: '04:00'},
        });
        assert.equal(exitCode, 2);
        assert.match(stderr, /PCI_BLOCKED: '04:00' is not a slot/);
        const environment = {PCI_ALLOWED: '', PCI_BLOCKED: '', DRIVER_OVERRIDE: ''};
        assert.deepEqual(taken(await config(host, '', environment)), [[spare, 'vfio-pci']]);
      });

      it('NVME_ALLOWED adds to PCI_ALLOWED; SKIP_PCI selects nothing', async () => {
        const host = made();
        const selected = async (environment: NodeJS.ProcessEnv) => {
          const result = await config(host, '--dry-run', environment);
          return [...result.devices, ...result.skipped].map(({slot}) => slot);
        };
        assert.deepEqual(await selected({NVME_ALLOWED: spare}), [spare]);
        assert.deepEqual(await selected({PCI_ALLOWED: 'none', NVME_ALLOWED: spare}), [spare]);
        assert.deepEqual(await selected({SKIP_PCI: '1'}), []);
        assert.deepEqual(await selected({SKIP_PCI: '1', PCI_ALLOWED: spare}), []);
      });

      for (const [kind, id] of [
        ['DSA', '8086:0b25'],
        ['IAA', '8086:0cfe'],
      ] as const)
        it(`takes ${kind} only if PCI_ALLOWED names it, or by its name or type`, async () => {
          const engine = '0000:06:00.0';
          const host = made((machine) => {
            machine.functions.push({slot: engine, id, class: '088000', group: 30});
          });
          const takes = async (words: string, environment: NodeJS.ProcessEnv = {}) =>
            taken(await config(host, `${words} --dry-run`.trim(), environment)).some(
              ([slot]) => slot === engine,
            );
          assert.equal(await takes(''), false);
          assert.equal(await takes('', {PCI_ALLOWED: engine}), true);
          assert.equal(await takes(engine), true);
          assert.equal(await takes('--type dma'), true);
        });

      it('takes VMD only if PCI_ALLOWED names it', async () => {
        const vmd = (machine: MachineDeclaration) => {
          machine.functions.push({slot: '0000:06:00.0', id: '8086:28c0', class: '010400', group: 30});
        };
        const host = made(vmd);
        assert.deepEqual(taken(await config(host, '--dry-run')), [[spare, 'nvme']]);
        const allowed = await config(host, '', {PCI_ALLOWED: '0000:06:00.0'});
        assert.deepEqual(
          skips(allowed).map(([slot]) => slot),
          ['0000:06:00.0'],
        );
      });
    });

    describe('allocates huge pages in the same plan, as SPDK does', () => {
      const withPages = (machine: MachineDeclaration) => {
        machine.hugePages = [
          {node: 0, size: 2048},
          {node: 1, size: 2048},
        ];
      };
      const pagesOf = (host: SimulatedHost) =>
        [0, 1].map((node) =>
          Number(
            host.readText(`/sys/devices/system/node/node${node}/hugepages/hugepages-2048kB/nr_hugepages`),
          ),
        );

      for (const [environment, expected] of [
        [{HUGEMEM: '63'}, [32, 0]],
        [{HUGEMEM: '64', HUGENODE: '0,1'}, [32, 32]],
        [{HUGEMEM: '64', NRHUGE: '5', HUGENODE: '1'}, [0, 5]],
        [{HUGEMEM: '64', HUGENODE: 'nodes_hp[0]=3,1'}, [3, 32]],
        [{NRHUGE: '4', HUGEPGSZ: '2048', HUGENODE: '0,9'}, [4, 0]],
        [{HUGENODE: '0'}, [0, 0]],
        [{NRHUGE: '4', HUGENODE: 'nodes_hp[0]=3,0,nodes_hp[1]=1,nodes_hp[1]=2'}, [4, 2]],
        [{NRHUGE: '9', HUGE_EVEN_ALLOC: 'yes'}, [5, 4]],
        [{NRHUGE: '9', HUGE_EVEN_ALLOC: 'yes', HUGENODE: '1'}, [5, 4]],
        [{NRHUGE: '9', SKIP_HUGE: 'yes', CLEAR_HUGE: 'yes'}, [0, 0]],
      ] as const)
        it(JSON.stringify(environment), async () => {
          const host = made(withPages);
          const {notes, devices} = await config(host, spare, environment);
          assert.deepEqual(pagesOf(host), expected);
          assert.deepEqual(
            devices.map(({driver}) => driver),
            ['vfio-pci'],
          );
          assert.equal(host.exists('/etc/tmpfiles.d'), false);
          const ignored = 'HUGENODE names node 9, which this machine does not have: it is ignored';
          assert.equal(notes.includes(ignored), 'HUGEPGSZ' in environment);
        });

      it('keeps more pages unless SHRINK_HUGE, frees them with CLEAR_HUGE, and sets them for each boot with PERSIST_HUGE', async () => {
        const host = made(withPages);
        await config(host, spare, {NRHUGE: '8'});
        await config(host, spare, {NRHUGE: '4'});
        assert.deepEqual(pagesOf(host), [8, 0]);
        await config(host, spare, {NRHUGE: '4', SHRINK_HUGE: 'yes'});
        assert.deepEqual(pagesOf(host), [4, 0]);
        await config(host, spare, {CLEAR_HUGE: 'yes'});
        assert.deepEqual(pagesOf(host), [0, 0]);
        await config(host, spare, {NRHUGE: '8'});
        await config(host, spare, {NRHUGE: '4', CLEAR_HUGE: 'yes'});
        assert.deepEqual(pagesOf(host), [4, 0]);
        await config(host, spare, {NRHUGE: '4', HUGE_EVEN_ALLOC: 'yes'});
        assert.deepEqual(pagesOf(host), [2, 2]);
        await config(host, spare, {NRHUGE: '2', PERSIST_HUGE: 'yes'});
        assert.match(
          host.readText('/etc/tmpfiles.d/pearasys-hugepages.conf') ?? '',
          /node0\/.*nr_hugepages - - - - 2$/m,
        );
      });

      it('undoes both if the pages cannot be allocated', async () => {
        const host = made(withPages);
        host.failWrite('*/nr_hugepages', 'EINVAL');
        const {exitCode} = await typed(host, `userspace config ${spare}`, {environment: {NRHUGE: '4'}});
        assert.equal(exitCode, 1);
        assert.equal(driverOf(host, spare), 'nvme');
      });

      it('refuses a word that is not a number or a node', async () => {
        const host = made(withPages);
        for (const [environment, message] of [
          [{HUGEMEM: '2G'}, /HUGEMEM: '2G' is not a number/],
          [{NRHUGE: '4', HUGENODE: 'all'}, /HUGENODE: 'all' is not a node/],
        ] as const) {
          const {exitCode, stderr} = await typed(host, 'userspace config', {environment});
          assert.equal(exitCode, 2);
          assert.match(stderr, message);
        }
      });
    });

    describe('gives the devices to users until the next boot', () => {
      const rules = '/run/udev/rules.d/62-pearasys-access-boot.rules';
      const withUsers = (machine: MachineDeclaration) => {
        machine.files['/etc/passwd'] =
          'root:x:0:0::/:/bin/sh\nalice:x:1000:1000::/:/bin/sh\nbob:x:1001:1001::/:/bin/sh\n';
        machine.files['/etc/group'] = 'root:x:0:\nvfio:x:990:\n';
      };
      const ownerOf = (host: SimulatedHost, path: string) => {
        const info = host.info(path);
        return info === undefined ? undefined : `${info.uid}:${info.gid} ${info.mode.toString(8)}`;
      };

      it('by --user and --user-group, as soon as the nodes appear, and no more after a reset', async () => {
        const host = made(withUsers);
        const {notes} = await config(host, `${spare} ${idleNet} --user alice --user-group vfio`);
        assert.equal(ownerOf(host, '/dev/vfio/10'), '1000:990 660');
        assert.equal(ownerOf(host, '/dev/vfio/11'), '1000:990 660');
        assert.match(notes.join('\n'), /user alice may lock/);
        const {stdout} = await typed(host, '--json userspace status --type storage');
        const {devices} = JSON.parse(stdout) as UserspaceStatusResult;
        assert.deepEqual(devices.find(({slot}) => slot === spare)?.nodes[0], {
          path: '/dev/vfio/10',
          user: 'alice',
          group: 'vfio',
          mode: '0660',
        });
        await succeeds(host, `userspace reset ${spare}`);
        assert.doesNotMatch(host.readText(rules) ?? '', new RegExp(spare));
        assert.match(host.readText(rules) ?? '', new RegExp(idleNet));
        await succeeds(host, 'userspace reset');
        assert.equal(host.exists(rules), false);
        await config(host, spare);
        assert.equal(ownerOf(host, '/dev/vfio/10'), '0:0 600');
      });

      it('by TARGET_USER, unless an option says otherwise; also devices that are on the driver already', async () => {
        const host = made(withUsers);
        await config(host, spare);
        await config(host, spare, {TARGET_USER: 'alice'});
        assert.equal(ownerOf(host, '/dev/vfio/10'), '1000:0 660');
        await config(host, spare);
        assert.equal(ownerOf(host, '/dev/vfio/10'), '1000:0 660');
        await config(host, `${spare} --user bob`, {TARGET_USER: 'alice'});
        assert.equal(ownerOf(host, '/dev/vfio/10'), '1001:0 660');
      });

      describe('with the folders where huge pages are mounted, as SPDK does', () => {
        const folder = '/dev/hugepages';
        const mounted = (options = 'rw,pagesize=2M') => {
          const host = made(withUsers);
          host.machine.mount({source: 'hugetlbfs', target: folder, type: 'hugetlbfs', options});
          return host;
        };

        it('to the owner and the group, without taking rights from others', async () => {
          const host = mounted();
          await config(host, spare, {TARGET_USER: 'alice'});
          assert.equal(ownerOf(host, folder), '1000:0 775');
          await config(host, `${spare} --user alice --user-group vfio`);
          assert.equal(ownerOf(host, folder), '1000:990 775');
          assert.equal((await config(host, `${spare} --user alice --user-group vfio`)).changed, false);
        });

        it('as the only owner if the mode says so', async () => {
          const host = mounted('rw,pagesize=2M,mode=0700');
          await config(host, `${spare} --user alice --mode 0600`);
          assert.equal(ownerOf(host, folder), '1000:0 700');
        });

        it('unless they belong to another user', async () => {
          const host = mounted('rw,pagesize=2M,uid=1001');
          const {notes} = await config(host, spare, {TARGET_USER: 'alice'});
          assert.equal(ownerOf(host, folder), '1001:0 755');
          assert.ok(notes.includes('/dev/hugepages belongs to user bob and is left unchanged'));
          assert.equal(ownerOf(host, '/dev/vfio/10'), '1000:0 660');
        });

        it('and undoes it when a device does not take its driver', async () => {
          const host = mounted();
          host.refuseProbe(spare, 'vfio-pci');
          const {exitCode} = await typed(host, `userspace config ${spare} --user alice`);
          assert.equal(exitCode, 1);
          assert.equal(ownerOf(host, folder), '0:0 755');
        });
      });

      it('says how much memory the user may lock for the huge pages that there will be', async () => {
        const host = made((machine) => {
          withUsers(machine);
          machine.hugePages = [
            {node: 0, size: 2048, pages: 4},
            {node: 1, size: 2048, pages: 3},
            {node: 0, size: 1_048_576, pages: 1},
          ];
        });
        const words = `${spare} --user alice --dry-run`;
        const said = async (environment: NodeJS.ProcessEnv) =>
          /huge pages of DPDK and SPDK(.*)$/m.exec(
            (await config(host, words, environment)).notes.join('\n'),
          )?.[1];
        assert.equal(await said({}), ' (now 1038 MiB)');
        assert.equal(await said({HUGEMEM: '64'}), ' (1094 MiB after this command)');
        assert.equal(await said({HUGEMEM: '64', CLEAR_HUGE: 'yes'}), ' (1088 MiB after this command)');
        assert.equal(await said({NRHUGE: '2', HUGENODE: '0,1'}), ' (now 1038 MiB)');
      });

      it('refuses a user when a record gives another device of the group to another one', async () => {
        const host = made((machine) => {
          withUsers(machine);
          functionOf(machine, idleNet).group = 10;
        });
        await succeeds(host, `-s ${idleNet} service install vfio-pci --user bob`);
        const {exitCode, stderr} = await typed(host, `userspace config ${spare} ${idleNet} --take ${spare}`);
        assert.equal(exitCode, 0, stderr);
        const refused = await typed(host, `userspace config ${spare} --user alice`);
        assert.equal(refused.exitCode, 3);
        assert.match(refused.stderr, /0000:04:00\.0 and 0000:05:00\.0 are in one IOMMU group/);
      });

      it('refuses a user that does not exist, and a driver without nodes', async () => {
        const host = made(withUsers);
        const unknown = await typed(host, `userspace config ${spare} --user mallory`);
        assert.equal(unknown.exitCode, 2);
        assert.match(unknown.stderr, /there is no user 'mallory'/);
        const stub = await typed(host, `userspace config ${spare} --driver pci-stub --user alice`);
        assert.equal(stub.exitCode, 3);
        assert.equal(driverOf(host, spare), 'nvme');
      });
    });

    it('refuses a wrong command line with 2', async () => {
      const host = made();
      for (const [line, message] of [
        [`userspace config ${idleNet} --type net`, /--type cannot be used with device names/],
        ['userspace config --type disk', /Expected --type=disk to be one of|--type/],
        [`userspace config ${idleNet} --take ${spare}`, /--take 0000:04:00\.0: this device is not selected/],
        ['userspace config --driver 04:00.0', /is not a driver's name/],
      ] as const) {
        const {exitCode, stderr} = await typed(host, line);
        assert.equal(exitCode, 2, line);
        assert.match(stderr, message);
      }
    });
  });

  describe('reset', () => {
    const reset = (host: SimulatedHost, words = '') =>
      json<UserspaceResult>(host, `userspace reset${words === '' ? '' : ` ${words}`}`);

    it('returns what config has taken, when its disks and interfaces are there', async () => {
      const host = made();
      const before = host.machine.bindings();
      await config(host, `${spare} ${idleNet}`);
      assert.deepEqual(host.list('/run/pearasys/userspace'), [spare, idleNet]);
      const result = await reset(host);
      assert.deepEqual(taken(result), [
        [spare, 'nvme'],
        [idleNet, 'e1000e'],
      ]);
      assert.deepEqual(host.machine.bindings(), before);
      assert.ok(result.steps.includes(`udevadm settle  # wait for 1 disks and 0 interfaces of ${spare}`));
      assert.ok(result.steps.includes(`udevadm settle  # wait for 0 disks and 1 interfaces of ${idleNet}`));
      assert.deepEqual(result.notes, []);
      assert.equal(host.exists('/run/pearasys/userspace'), false);
    });

    it('says what has not appeared in time, and leaves the device on its driver', async () => {
      const host = made();
      await config(host, spare);
      host.userland.pauseEvents(true);
      const result = await reset(host, spare);
      assert.deepEqual(taken(result), [[spare, 'nvme']]);
      assert.deepEqual(result.notes, [
        `${spare} is on its driver, but after 15 s: udev has not handled all of them`,
      ]);
    });

    it('leaves devices with a claim alone, unless they are named', async () => {
      const host = made();
      await succeeds(host, `-s ${spare} service install vfio-pci`);
      await succeeds(host, `bind vfio-pci ${spare}`);
      await config(host, idleNet);
      assert.deepEqual(taken(await reset(host)), [[idleNet, 'e1000e']]);
      assert.equal(driverOf(host, spare), 'vfio-pci');
      assert.deepEqual(taken(await reset(host, spare)), [[spare, 'nvme']]);
    });

    it('leaves virtual functions with a claim alone', async () => {
      const pf = '0000:06:00.0';
      const host = made((machine) => {
        withProduct(machine);
        machine.functions.push({...sriovCard(pf), driver: 'igb'});
        for (const module of machine.modules) if (module.name === 'igb') module.loaded = true;
      });
      await succeeds(host, `sriov set ${pf} 2 --driver vfio-pci`);
      await config(host, idleNet);
      assert.deepEqual(taken(await reset(host)), [[idleNet, 'e1000e']]);
      assert.deepEqual(
        ['0000:06:10.0', '0000:06:10.2'].map((slot) => driverOf(host, slot)),
        ['vfio-pci', 'vfio-pci'],
      );
    });

    it('skips a device that a program has open', async () => {
      const host = made();
      await config(host, `${spare} ${idleNet}`);
      host.machine.processes.addProcess({pid: 77, comm: 'spdk_tgt', holds: ['/dev/vfio/10']});
      const result = await reset(host);
      assert.deepEqual(taken(result), [[idleNet, 'e1000e']]);
      assert.match(skips(result)[0]?.[2] ?? '', /process 77 \(spdk_tgt\)/);
    });

    it('PCI_BLOCKED wins', async () => {
      const host = made();
      await config(host, spare);
      const {exitCode} = await typed(host, 'userspace reset', {environment: {PCI_BLOCKED: spare}});
      assert.equal(exitCode, 0);
      assert.equal(driverOf(host, spare), 'vfio-pci');
    });
  });

  describe('status', () => {
    const status = (host: SimulatedHost, words = '') =>
      json<UserspaceStatusResult>(host, `userspace status${words === '' ? '' : ` ${words}`}`);

    it('tells what is where, and why it cannot be taken', async () => {
      const host = made((machine) => {
        machine.signatures = {[spareNode]: ext4};
        delete functionOf(machine, idleNet).driver;
      });
      const {devices} = await status(host);
      assert.deepEqual(
        devices.map(({slot, types, state, driver, interfaces, disks, wouldGet, skipped}) => [
          slot,
          types.join(),
          state,
          driver,
          [...interfaces, ...disks].join(),
          wouldGet,
          skipped?.code ?? null,
        ]),
        [
          [usedNet, 'net', 'kernel', 'e1000e', 'eth0', null, 'in-use'],
          [system, 'storage', 'kernel', 'nvme', 'nvme0n1', null, 'in-use'],
          [spare, 'storage', 'kernel', 'nvme', 'nvme1n1', null, 'carries-data'],
          [idleNet, 'net', 'unused', null, '', 'vfio-pci', null],
        ],
      );
      const disk = devices.find(({slot}) => slot === spare);
      assert.equal(disk?.kind, 'nvme');
      assert.equal(disk.numaNode, 0);
      assert.deepEqual(disk.contents, [
        {
          node: spareNode,
          kind: 'data',
          type: 'ext4',
          usage: 'filesystem',
          partitionTable: null,
          reason: null,
        },
      ]);
    });

    it('tells the huge pages of each node', async () => {
      const host = made((machine) => {
        machine.hugePages = [{node: 0, size: 2048}];
      });
      await config(host, spare, {NRHUGE: '3'});
      const {hugePages} = await status(host);
      assert.deepEqual(
        hugePages.map(({node, pages, free}) => [node, pages, free]),
        [[0, 3, 3]],
      );
      const terminal = new Terminal(200);
      await run(host, ['userspace', 'status'], {stdout: terminal, environment: {NO_COLOR: '1'}});
      assert.match(terminal.text, /\n\nHUGE PAGES OF NODE +SIZE +FREE +TOTAL\n0 +2M +3 +3\n$/);
    });

    it('tells which devices programs have', async () => {
      const host = made();
      await config(host, `${spare} ${idleNet}`);
      const {devices} = await status(host, '--type net');
      assert.deepEqual(
        devices.map(({slot, state, driver, wouldGet}) => [slot, state, driver, wouldGet]),
        [
          [usedNet, 'kernel', 'e1000e', null],
          [idleNet, 'userspace', 'vfio-pci', null],
        ],
      );
    });

    it('prints lines for programs in slot order, and a table for people', async () => {
      const host = made();
      const {stdout} = await typed(host, 'userspace status');
      assert.deepEqual(
        stdout.split('\n').map((line) => line.split('\t').slice(0, 7)),
        [
          [usedNet, 'net', '8086:15bb', '-', 'e1000e', 'kernel', 'eth0'],
          [system, 'storage', '144d:a808', '0', 'nvme', 'kernel', 'nvme0n1'],
          [spare, 'storage', '144d:a80a', '0', 'nvme', 'kernel', 'nvme1n1'],
          [idleNet, 'net', '8086:10d3', '-', 'e1000e', 'kernel', 'eth1'],
          [''],
        ],
      );
      const terminal = new Terminal(200);
      assert.equal(
        await run(host, ['userspace', 'status'], {stdout: terminal, environment: {NO_COLOR: '1'}}).then(
          ({exitCode}) => exitCode,
        ),
        0,
      );
      assert.match(
        terminal.text,
        /^SLOT +TYPE +ID +NODE +DRIVER +STATE +PROVIDES +CANNOT BE TAKEN BECAUSE +NODES\n/,
      );
    });
  });
});
