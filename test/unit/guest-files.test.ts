import assert from 'node:assert/strict';
import {PearasysError} from '../../src/host/errors.js';
import {parseDomain} from '../../src/guest/domain.js';
import {editList, editSlots, readGuestFiles} from '../../src/guest/files.js';
import {defaultLayout} from '../../src/host/layout.js';
import {guestOfInstance, guestUnit, parseGuest} from '../../src/guest/name.js';
import {editCards, parseSettings} from '../../src/guest/settings.js';
import {printState, readState, statePath, type GuestState} from '../../src/guest/state.js';
import {parseId} from '../../src/pci/id.js';
import {parseSlot, virshName} from '../../src/pci/slot.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';

const card = parseSlot('0000:02:00.0');
const sound = parseSlot('0000:02:00.1');
const win11 = parseGuest('win11');

function coded(code: string) {
  return (error: unknown) => error instanceof PearasysError && error.code === code;
}

describe('guests', () => {
  describe('names', () => {
    it('are those that libvirt takes, and nothing that leaves the folder', () => {
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

    it('are in the unit as they are, or escaped as systemd-escape does, and come back', () => {
      assert.equal(guestUnit(parseGuest('win-11')), 'pearasys-guest@win-11.service');
      assert.equal(guestUnit(parseGuest('win 11-a')), 'pearasys-guest@win\\x2011\\x2da.service');
      assert.equal(guestUnit(parseGuest('größe')), 'pearasys-guest@gr\\xc3\\xb6\\xc3\\x9fe.service');
      for (const name of ['win-11', 'win 11-a', 'größe', 'a@b', '\\x20']) {
        const instance = /@(.*)\.service$/.exec(guestUnit(parseGuest(name)))?.[1] ?? '';
        assert.equal(guestOfInstance(instance), name);
      }
      assert.throws(() => guestOfInstance('a\\x2fb'), coded('bad-guest'));
    });
  });

  describe('files', () => {
    it('that others can write are not obeyed, the lists neither', () => {
      const host = SimulatedHost.standard((declaration) => {
        declaration.files['/etc/pearasys/guests/gpu-passthrough-guests.conf'] = 'win11\n';
        declaration.files['/etc/pearasys/guests/single-gpu-passthrough-guests.conf'] = 'win10\n';
      });
      try {
        host.machine.owners.set('/etc/pearasys/guests/gpu-passthrough-guests.conf', 1000);
        const {lists, problems} = readGuestFiles(host, defaultLayout);
        assert.deepEqual(lists, {primary: ['win10'], gpu: []});
        assert.match(problems.join(), /gpu-passthrough-guests.conf is owned by user 1000/);
      } finally {
        host.dispose();
      }
    });

    it('have one slot a line; comments and the lines of slots that stay are kept', () => {
      assert.equal(editSlots(undefined, [card, sound]), '0000:02:00.0\n0000:02:00.1\n');
      assert.equal(
        editSlots('# mine\n02:00.1 # sound\n\n0000:01:00.0\n0000:02:00.1', [card, sound]),
        '# mine\n02:00.1 # sound\n\n0000:02:00.0\n',
      );
      assert.equal(editSlots('0000:02:00.0\r\n', [card]), '0000:02:00.0\n');
    });

    it('have a guest in a list once or not at all, and nobody else changed', () => {
      assert.equal(editList(undefined, win11, true), 'win11\n');
      assert.equal(editList('a\nwin11\n# c\nwin11\nwin110', win11, true), 'a\nwin11\n# c\nwin110\n');
      assert.equal(editList('a\nwin11\n# c\nwin11\nwin110\n', win11, false), 'a\n# c\nwin110\n');
      assert.equal(editList('', win11, false), '');
    });
  });

  describe('settings', () => {
    it('are Key=value lines, and what is not set stays out', () => {
      assert.deepEqual(
        parseSettings(
          'x',
          '# c\nStopServices=gdm.service a@b.service\nProcesses = end\nProcessLimit=3\nUnloadModules=\nReturnDevices=no\nCard=02:00.0 10DE:1B80\n',
          true,
        ),
        {
          stopServices: ['gdm.service', 'a@b.service'],
          processes: 'end',
          processLimit: 3,
          unloadModules: [],
          returnDevices: false,
          cards: new Map([[card, parseId('10de:1b80')]]),
        },
      );
      assert.deepEqual(parseSettings('x', '; c\nReleaseConsoles=off\nReturnDevices=TRUE\n', false), {
        releaseConsoles: false,
        returnDevices: true,
      });
      assert.deepEqual(parseSettings('x', 'StopServices=auto\nUnloadModules=auto\n', false), {
        stopServices: 'auto',
        unloadModules: 'auto',
      });
    });

    it('that are wrong are told with their line and what was expected', () => {
      for (const [line, expected] of [
        ['Stop=gdm.service', /line 1 is 'Stop=gdm.service', expected one of StopServices/],
        ['toString=x', /expected one of/],
        ['Processes', /expected one of/],
        ['Processes=kill', /expected Processes= and refuse or end/],
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
        ].map((unit) => [`StopServices=${unit}`, /none of them libvirt's/] as const),
        ['StopServices=gdm.service systemd-logind.service', /none of them libvirt's/],
        ['StopServices=init.scope', /units/],
        ['UnloadModules=-r', /modules/],
        ['UnloadModules=a/b', /modules/],
        ['ReturnDevices=perhaps', /yes or no/],
        ['Card=02:00.0', /Card=SLOT VENDOR:DEVICE/],
      ] as const)
        assert.throws(
          () => parseSettings('x', `${line}\n`, true),
          (error: unknown) => error instanceof PearasysError && expected.test(error.details.join()),
          line,
        );
      assert.throws(() => parseSettings('x', 'Card=02:00.0 10de:1b80', false), coded('bad-settings'));
    });

    it('keep what was set by hand when the cards change', () => {
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

    it('that is damaged is not obeyed', async () => {
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

    it('tell which PCI devices a guest has, by hostdev and by interface', async () => {
      const text = domain(`<devices>
        <hostdev mode='subsystem' type='pci' managed='yes'><driver name='vfio'/>${address}
          <address type='pci' domain='0x0000' bus='0x06' slot='0x00' function='0x0'/></hostdev>
        <hostdev mode='subsystem' type='usb'><source><address bus='1' device='2'/></source></hostdev>
        <interface type='hostdev' managed='no'>
          <source><address type='pci' domain='1' bus='10' slot='31' function='7'/></source></interface>
        <interface type='network'/></devices>`);
      assert.deepEqual(await parseDomain('x', text), [
        {slot: '0000:02:00.0', managed: true},
        {slot: '0001:0a:1f.7', managed: false},
      ]);
    });

    it('without devices, or with addresses that are none, have none', async () => {
      assert.deepEqual(await parseDomain('x', domain('<devices/>')), []);
      assert.deepEqual(await parseDomain('x', domain('')), []);
      const bad = address.replace("'0x02'", "'0x102'");
      assert.deepEqual(
        await parseDomain('x', domain(`<devices><hostdev type='pci'>${bad}</hostdev></devices>`)),
        [],
      );
    });

    it('that end early, or are none, are an error and not a guest without devices', async () => {
      const text = domain(`<devices><hostdev type='pci'>${address}</hostdev></devices>`);
      for (const one of ['', '<network/>', text.slice(0, -20)])
        await assert.rejects(parseDomain('/x.xml', one), coded('bad-guest'));
    });
  });

  it('name slots as virsh does', () => assert.equal(virshName(card), 'pci_0000_02_00_0'));
});
