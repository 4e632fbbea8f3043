import assert from 'node:assert/strict';
import {PearasysError} from '../../src/host/errors.js';
import {parseDomain, readDomain} from '../../src/state/guests/domain.js';
import {editList, editSlots, readGuestFiles} from '../../src/state/guests/guest-files.js';
import {defaultLayout} from '../../src/config/layout.js';
import {awakeUnit, guestOfInstance, guestUnit, parseGuest} from '../../src/state/guests/guest-name.js';
import {ignoredNote} from '../../src/state/desired.js';
import {editCards, parseSettings, unknownSettingNotes} from '../../src/state/guests/guest-settings.js';
import {printState, readState, statePath, type GuestState} from '../../src/state/guests/guest-state.js';
import {parseId} from '../../src/devices/pci/id.js';
import {parseSlot, virshName} from '../../src/devices/pci/slot.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';

const card = parseSlot('0000:02:00.0');
const sound = parseSlot('0000:02:00.1');
const win11 = parseGuest('win11');

function coded(code: string) {
  return (error: unknown) => error instanceof PearasysError && error.code === code;
}

describe('guests', () => {
  describe('names', () => {
    it('are those that libvirt accepts, and none that leave the folder', () => {
      for (const name of [
        'win11',
        'Windows 11',
        "lin'ux",
        'größe',
        'a.b',
        'x'.repeat(120),
        '$(reboot)',
        'a@b',
        'ü'.repeat(29),
      ])
        assert.equal(parseGuest(name), name);
      for (const name of [
        ...['', '.', '..', '../etc', 'a/b', 'a\nb', 'a\u001b[2J', '-v', ' win', 'win ', 'x'.repeat(121)],
        // systemd takes no longer name of a unit.
        'ü'.repeat(30),
        ...['single-gpu-passthrough-guests', 'gpu-passthrough-guests', '\ud800'],
      ])
        assert.throws(() => parseGuest(name), coded('bad-guest'), name);
    });

    it('that are refused are reported with the rule that they break', () => {
      for (const [name, rule] of [
        ['', /it is empty/],
        ['.win', /begins with a dot/],
        ['-win', /begins with a dash/],
        [' win', /begins with a blank/],
        ['win ', /ends with a blank/],
        ['win\t', /contains a control character/],
        ['a/b', /contains a \//],
        ['x'.repeat(121), /has 121 bytes; at most 120 are allowed/],
        ['ü'.repeat(30), /name of its unit/],
        ['gpu-passthrough-guests', /list of guests/],
      ] as const)
        assert.throws(() => parseGuest(name), rule, name);
    });

    it('are in the unit unchanged or escaped like systemd-escape, and are read back', () => {
      assert.equal(guestUnit(parseGuest('win-11')), 'pearasys-guest@win-11.service');
      assert.equal(guestUnit(parseGuest('win 11-a')), 'pearasys-guest@win\\x2011\\x2da.service');
      assert.equal(guestUnit(parseGuest('größe')), 'pearasys-guest@gr\\xc3\\xb6\\xc3\\x9fe.service');
      assert.equal(awakeUnit(parseGuest('win 11-a')), 'pearasys-awake@win\\x2011\\x2da.service');
      for (const name of ['win-11', 'win 11-a', 'größe', 'a@b', '\\x20']) {
        const instance = /@(.*)\.service$/.exec(guestUnit(parseGuest(name)))?.[1] ?? '';
        assert.equal(guestOfInstance(instance), name);
      }
      assert.throws(() => guestOfInstance('a\\x2fb'), coded('bad-guest'));
    });
  });

  describe('files', () => {
    it('that others can write are ignored, including the lists', () => {
      const host = SimulatedHost.standard((declaration) => {
        declaration.files['/etc/pearasys/guests/gpu-passthrough-guests.conf'] = 'win11\n';
        declaration.files['/etc/pearasys/guests/single-gpu-passthrough-guests.conf'] = 'win10\n';
      });
      try {
        host.machine.owners.set('/etc/pearasys/guests/gpu-passthrough-guests.conf', 1000);
        const {lists, problems} = readGuestFiles(host, defaultLayout);
        assert.deepEqual(lists, {primary: ['win10'], gpu: []});
        assert.match(
          problems.map((problem) => ignoredNote(problem)).join(),
          /^the list of guests \S+\/gpu-passthrough-guests.conf is ignored: \S+ is owned by user 1000/,
        );
      } finally {
        host.dispose();
      }
    });

    it('have one slot per line; comments and lines of remaining slots are kept', () => {
      assert.equal(editSlots(undefined, [card, sound]), '0000:02:00.0\n0000:02:00.1\n');
      assert.equal(
        editSlots('# mine\n02:00.1 # sound\n\n0000:01:00.0\n0000:02:00.1', [card, sound]),
        '# mine\n02:00.1 # sound\n\n0000:02:00.0\n',
      );
      assert.equal(editSlots('0000:02:00.0\r\n', [card]), '0000:02:00.0\n');
    });

    it('list a guest once or not at all, and other guests do not change', () => {
      assert.equal(editList(undefined, win11, true), 'win11\n');
      assert.equal(editList('a\nwin11\n# c\nwin11\nwin110', win11, true), 'a\nwin11\n# c\nwin110\n');
      assert.equal(editList('a\nwin11\n# c\nwin11\nwin110\n', win11, false), 'a\n# c\nwin110\n');
      assert.equal(editList('', win11, false), '');
    });
  });

  describe('settings', () => {
    it('are Key=value lines, without settings that are not set', () => {
      assert.deepEqual(
        parseSettings(
          'x',
          '# c\nStopServices=gdm.service a@b.service\nProcesses = end\nProcessLimit=3\nUnloadModules=\nReturnDevices=no\nSleep=allow\nCard=02:00.0 10DE:1B80\n',
          true,
        ),
        {
          stopServices: ['gdm.service', 'a@b.service'],
          processes: 'end',
          processLimit: 3,
          unloadModules: [],
          returnDevices: false,
          sleep: 'allow',
          cards: new Map([[card, parseId('10de:1b80')]]),
        },
      );
      assert.deepEqual(
        parseSettings('x', '; c\nReleaseConsoles=off\nReturnDevices=TRUE\nSleep=block\n', false),
        {
          releaseConsoles: false,
          returnDevices: true,
          sleep: 'block',
        },
      );
      assert.deepEqual(parseSettings('x', 'StopServices=auto\nUnloadModules=auto\n', false), {
        stopServices: 'auto',
        unloadModules: 'auto',
      });
      assert.deepEqual(
        parseSettings('x', 'StopServices=auto a.service\nUnloadModules=auto amdgpu\n', false),
        {
          stopServices: ['auto', 'a.service'],
          unloadModules: ['auto', 'amdgpu'],
        },
      );
    });

    it('that are wrong are reported with their line and what is expected', () => {
      for (const [line, expected] of [
        [
          'stop=gdm.service',
          /line 1 is 'stop=gdm.service', expected KEY=VALUE with one of the keys StopServices/,
        ],
        ['Stop services=gdm.service', /expected KEY=VALUE with one of the keys/],
        ['Stop', /expected KEY=VALUE with one of the keys/],
        ['toString=x', /expected KEY=VALUE with one of the keys/],
        ['Processes', /expected KEY=VALUE with one of the keys/],
        ['Processes=kill', /expected Processes= with refuse or end/],
        ['ProcessLimit=0', /1 to 120/],
        ['ProcessLimit=121', /1 to 120/],
        ['ProcessLimit=1e2', /1 to 120/],
        ['StopServices=--now', /units/],
        ['StopServices=gdm', /units/],
        ...[
          'libvirtd.service',
          'virtlogd.socket',
          'virtproxyd.service',
          'dbus.service',
          'dbus-broker.service',
        ].map((unit) => [`StopServices=${unit}`, /except those of libvirt, pearasys/] as const),
        ['StopServices=gdm.service systemd-logind.service', /except those of libvirt, pearasys/],
        ['StopServices=init.scope', /units/],
        ['UnloadModules=-r', /modules/],
        ['UnloadModules=a/b', /modules/],
        ['ReturnDevices=perhaps', /yes or no/],
        ['Sleep=yes', /expected Sleep= with block or allow/],
        ['Card=02:00.0', /Card=SLOT VENDOR:DEVICE/],
      ] as const)
        assert.throws(
          () => parseSettings('x', `${line}\n`, true),
          (error: unknown) => error instanceof PearasysError && expected.test(error.details.join()),
          line,
        );
      assert.throws(() => parseSettings('x', 'Card=02:00.0 10de:1b80', false), coded('bad-settings'));
    });

    it('of a newer version are kept and told, and the others count', () => {
      const text = 'Processes=end\nColor = red\nCard=02:00.0 10de:1b80\nGPUReset2=\n';
      const unknown = [
        {path: 'x', key: 'Color', value: 'red'},
        {path: 'x', key: 'GPUReset2', value: ''},
      ];
      const cards = new Map([[card, parseId('10de:1b80')]]);
      assert.deepEqual(parseSettings('x', text, true), {processes: 'end', cards, unknown});
      const edited = editCards(text, win11, cards);
      assert.deepEqual(parseSettings('x', edited, true), {processes: 'end', cards, unknown});
      assert.deepEqual(unknownSettingNotes({unknown: unknown.slice(0, 1)}), [
        'x: Color is not known to this version: it is kept, and has no effect',
      ]);
    });

    it('keep manual changes when the cards change', () => {
      const first = editCards(undefined, win11, new Map([[card, parseId('10de:1b80')]]));
      assert.match(first, /^# Written by pearasys/);
      assert.deepEqual(parseSettings('x', first, true), {cards: new Map([[card, '10de:1b80']])});
      const edited = first.replace('#Processes=refuse', 'Processes=end');
      const second = editCards(edited, win11, new Map([[sound, parseId('10de:10f0')]]));
      assert.deepEqual(parseSettings('x', second, true), {
        processes: 'end',
        cards: new Map([[sound, '10de:10f0']]),
      });
      assert.equal(editCards(second, win11, new Map([[sound, parseId('10de:10f0')]])), second);
    });
  });

  describe('state', () => {
    const state: GuestState = {
      guest: win11,
      devices: [
        {slot: card, id: '10de:1b80', driver: 'nouveau', override: undefined},
        {slot: sound, id: '10de:10f0', driver: undefined, override: 'none'},
      ],
      services: ['gdm.service'],
      modules: ['nvidia_drm'],
      consoles: ['vtcon1'],
      framebuffers: ['efi-framebuffer.0'],
    };

    it('is read as it was written', async () => {
      const host = SimulatedHost.standard();
      try {
        assert.equal(readState(host, win11), undefined);
        await host.writeFile(statePath(win11), printState(state));
        assert.deepEqual(readState(host, win11), state);
      } finally {
        host.dispose();
      }
    });

    it('that is damaged is ignored', async () => {
      const host = SimulatedHost.standard();
      const text = printState(state);
      try {
        for (const damaged of [
          text.slice(0, 40),
          '[]',
          'null',
          text.replace('"win11"', '"other"'),
          text.replace('"nouveau"', '"../nouveau"'),
          text.replace('"vtcon1"', '"../vtcon1"'),
          text.replace('"gdm.service"', '"--now"'),
          text.replace('"0000:02:00.0"', '"02"'),
        ]) {
          await host.writeFile(statePath(win11), damaged);
          assert.throws(() => readState(host, win11), coded('file-failed'), damaged);
        }
      } finally {
        host.dispose();
      }
    });
  });

  describe('libvirt domains', () => {
    const domain = (devices: string) =>
      `<!--\nWARNING: virsh edit\n-->\n<domain type='kvm'>\n${devices}\n</domain>\n`;
    const address = "<source><address domain='0x0000' bus='0x02' slot='0x00' function='0x0'/></source>";

    it('name the PCI devices of a guest, by hostdev and by interface', async () => {
      const text = domain(`<devices>
        <hostdev mode='subsystem' type='pci' managed='yes'><driver name='vfio'/>${address}
          <address type='pci' domain='0x0000' bus='0x06' slot='0x00' function='0x0'/></hostdev>
        <hostdev mode='subsystem' type='usb'><source><address bus='1' device='2'/></source></hostdev>
        <interface type='hostdev' managed='no'>
          <source><address type='pci' domain='1' bus='10' slot='31' function='7'/></source></interface>
        <interface type='network'/></devices>`);
      assert.deepEqual((await parseDomain('x', text)).devices, [
        {slot: '0000:02:00.0', managed: true},
        {slot: '0001:0a:1f.7', managed: false},
      ]);
    });

    it('without devices have none, and an invalid address is named', async () => {
      for (const one of ['<devices/>', '', '<devices><hostdev/></devices>'])
        assert.deepEqual(await parseDomain('x', domain(one)), {devices: [], notes: [], networks: []});
      for (const bad of ["'0x102'", "'08'", "'-1'", "'2x'", "''"]) {
        const text = domain(
          `<devices><hostdev type='pci'>${address.replace("'0x02'", bad)}</hostdev></devices>`,
        );
        const {devices, notes} = await parseDomain('x', text);
        assert.deepEqual(devices, [], bad);
        assert.match(notes.join(), /a <hostdev> of the domain has no valid PCI address/);
      }
    });

    const slotsIn = async (devices: string) =>
      (await parseDomain('x', domain(`<devices>${devices}</devices>`))).devices.map(({slot}) => slot);
    const at = (bus: string, more = '') => `<source ${more}><address bus='${bus}' slot='0'/></source>`;

    it('have numbers as libvirt reads them: decimal, hexadecimal, octal', async () => {
      for (const [bus, expected] of [
        ['10', '0a'],
        ['0x10', '10'],
        ['0X1a', '1a'],
        ['010', '08'],
        ['0377', 'ff'],
        [' 7', '07'],
      ] as const)
        assert.deepEqual(
          await slotsIn(`<hostdev type='pci'>${at(bus)}</hostdev>`),
          [`0000:${expected}:00.0`],
          bus,
        );
    });

    it('have NVMe disks, including those below others, and name namespaces', async () => {
      const text = domain(`<devices>
        <disk type='nvme' device='disk'><source type='pci' managed='yes' namespace='2'>
          <address domain='0x0000' bus='0x03' slot='0x00' function='0x0'/></source><target dev='vda'/></disk>
        <disk type='file'><source file='/x'/><backingStore type='file'><backingStore type='nvme'>
          ${at('4', "namespace='1'")}</backingStore></backingStore></disk>
        <disk type='block'><source dev='/dev/sda'/></disk></devices>`);
      const {devices, notes} = await parseDomain('x', text);
      assert.deepEqual(devices, [
        {slot: '0000:03:00.0', managed: true},
        {slot: '0000:04:00.0', managed: false},
      ]);
      assert.match(
        notes.join('\n'),
        /namespace 2 of the NVMe disk 0000:03:00.0: .*whole disk\n.*namespace 1/,
      );
    });

    it('have devices that are passed to QEMU itself, with any prefix', async () => {
      const uri = 'http://libvirt.org/schemas/domain/qemu/1.0';
      const args = (prefix: string, ...values: readonly string[]) =>
        values.map((value) => `<${prefix}arg value='${value}'/>`).join('');
      const values = [
        '-device',
        'vfio-pci,host=02:00.0,multifunction=on',
        '-device',
        'driver=vfio-pci,sysfsdev=/sys/bus/pci/devices/0000:02:00.1',
        '-device',
        '{&quot;driver&quot;:&quot;vfio-pci&quot;,&quot;host&quot;:&quot;0000:05:00.0&quot;}',
        '-device',
        'vfio-pci,sysfsdev=/sys/bus/mdev/devices/aa618089-8b16-4d01-a136-25a0f3c73123',
        '-device',
        'ivshmem-plain,host=06:00.0',
        '-drive',
        'file=nvme://0000:03:00.0/1,if=none',
        '-set',
        'vfio-pci,host=07:00.0',
      ];
      for (const text of [
        `<domain xmlns:qemu='${uri}'><qemu:commandline>${args('qemu:', ...values)}</qemu:commandline></domain>`,
        `<domain><q:commandline xmlns:q='${uri}'>${args('q:', ...values)}</q:commandline></domain>`,
        `<domain><commandline xmlns='${uri}'>${args('', ...values)}</commandline></domain>`,
      ]) {
        const {devices, notes} = await parseDomain('x', text);
        assert.deepEqual(
          devices.map(({slot}) => slot),
          ['0000:02:00.0', '0000:02:00.1', '0000:05:00.0', '0000:03:00.0'],
        );
        assert.match(notes.join('\n'), /aa618089-8b16-4d01-a136-25a0f3c73123 is not a PCI function/);
      }
      const other = `<domain xmlns:qemu='urn:x'><qemu:commandline>${args('qemu:', ...values)}</qemu:commandline></domain>`;
      assert.deepEqual((await parseDomain('x', other)).devices, []);
    });

    it('name host devices other than PCI functions, except USB and SCSI', async () => {
      const {devices, notes, networks} = await parseDomain(
        'x',
        domain(`<devices>
          <hostdev mode='subsystem' type='mdev' model='vfio-pci'><source><address uuid='aa618089-8b16-4d01-a136-25a0f3c73123'/></source></hostdev>
          <hostdev mode='subsystem' type='usb'><source><vendor id='0x1234'/></source></hostdev>
          <hostdev mode='subsystem' type='scsi'><source><adapter name='scsi_host0'/></source></hostdev>
          <hostdev mode='subsystem' type='scsi_host'><source protocol='vhost' wwpn='naa.5'/></hostdev>
          <hostdev mode='capabilities' type='storage'><source><block>/dev/sda</block></source></hostdev>
          <hostdev type='pci'><driver name='xen'/>${at('2')}</hostdev>
          <hostdev type='pci'><driver name='vfio' model='mlx5_vfio_pci'/>${at('3')}</hostdev>
          <interface type='network'><source network='pool'/><teaming type='transient' persistent='ua-x'/></interface>
          <interface type='direct'><source dev='eth0'/></interface></devices>`),
      );
      assert.deepEqual(
        devices.map(({slot}) => slot),
        ['0000:02:00.0', '0000:03:00.0'],
      );
      assert.equal(notes.length, 3, notes.join('\n'));
      assert.match(
        notes.join('\n'),
        /mediated device aa618089[^\n]*\n.*02:00.0 by xen.*\n.*03:00.0 on mlx5_vfio_pci/,
      );
      assert.deepEqual(networks, ['pool']);
    });

    it('have networks whose functions libvirt picks', async () => {
      const host = SimulatedHost.standard((declaration) => {
        declaration.files['/etc/libvirt/qemu/win11.xml'] = domain(`<devices>
          <interface type='network'><source network='pool'/></interface>
          <interface type='network'><source network='by name'/></interface>
          <interface type='network'><source network='default'/></interface>
          <interface type='network'><source network='gone'/></interface></devices>`);
        declaration.files['/etc/libvirt/qemu/networks/pool.xml'] =
          `<network><forward mode='hostdev' managed='yes'><address type='pci' domain='0' bus='7' slot='0x10' function='1'/></forward></network>`;
        declaration.files['/etc/libvirt/qemu/networks/by name.xml'] =
          `<network><forward mode='hostdev'><pf dev='eth3'/></forward></network>`;
        declaration.files['/etc/libvirt/qemu/networks/default.xml'] =
          `<network><forward mode='nat'/></network>`;
      });
      try {
        const found = await readDomain(host, win11);
        assert.ok(found.kind === 'known');
        assert.deepEqual(found.devices, []);
        assert.match(
          found.notes.join('\n'),
          /network pool .*\(0000:07:10.1\).*\n.*network by name .*\(virtual functions of eth3\)/,
        );
        assert.equal(found.notes.length, 2);
      } finally {
        host.dispose();
      }
    });

    it('that are not the XML of a domain are an error with the reason', async () => {
      const deep = (count: number) => `${'<a>'.repeat(count)}${'</a>'.repeat(count)}`;
      const entities = 'b c d e f g h i j'.split(' ').map((name, index) => {
        const before = String.fromCharCode(name.charCodeAt(0) - 1);
        return `<!ENTITY ${name} "${`&${before};`.repeat(index + 2)}">`;
      });
      for (const [text, reason] of [
        [domain(deep(50_000)), /more than 256 nested elements/],
        [
          `<!DOCTYPE d [<!ENTITY a "lol">${entities.join('')}]><domain><name>&j;</name></domain>`,
          /document type/,
        ],
        [domain('\0'), /control characters/],
        [Buffer.from(domain(''), 'utf16le').toString(), /control characters/],
        [domain(' '.repeat(5_000_000)), /longer than 4 MiB/],
        [domain('<devices><a></devices>'), /<\/devices> does not end an element/],
        [domain('<a '), /a < that does not begin a tag/],
        ['<domain/><domain/>', /root is not one <domain>/],
        ['hello', /root is not one <domain>/],
        ['', /root is not one <domain>/],
      ] as const)
        await assert.rejects(
          parseDomain('/x.xml', text),
          (error: PearasysError) => error.code === 'bad-guest' && reason.test(error.message),
          text.slice(0, 80),
        );
      const fine = domain(
        `<metadata><constructor a="&lt;/x> -->"/>${deep(200)}</metadata><!-- </a> --><![CDATA[</b>]]>`,
      );
      assert.deepEqual((await parseDomain('x', `\ufeff${fine}<!-- end -->`)).devices, []);
    });

    it('that are cut off or empty are an error, not a guest without devices', async () => {
      const text = domain(`<devices><hostdev type='pci'>${address}</hostdev></devices>`);
      for (const one of ['', '<network/>', text.slice(0, -20)])
        await assert.rejects(parseDomain('/x.xml', one), coded('bad-guest'));
    });
  });

  it('name slots like virsh', () => assert.equal(virshName(card), 'pci_0000_02_00_0'));
});
