import assert from 'node:assert/strict';
import {defaultLayout} from '../../src/config/layout.js';
import {parseDriver} from '../../src/devices/pci/driver.js';
import {parseId} from '../../src/devices/pci/id.js';
import {parseSlot} from '../../src/devices/pci/slot.js';
import {
  enabledClaims,
  planClaimList,
  planRebuild,
  wantedList,
  type RebuildState,
} from '../../src/plan/service/claim-list.js';
import {shellLine} from '../../src/plan/step.js';
import {claimLines, claimListPath, printClaimList} from '../../src/state/initramfs/claim-list.js';
import {readInitramfs, type Generator} from '../../src/state/initramfs/generator.js';
import type {DeviceRecord} from '../../src/state/records/record.js';
import {enabledLink} from '../../src/systemd/unit.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';

const path = claimListPath(defaultLayout);

function record(slot: string, rest: Partial<DeviceRecord> = {}): DeviceRecord {
  const parsed = parseSlot(slot);
  return {
    kind: 'record',
    path: `/etc/pearasys/pci/${slot}`,
    slot: parsed,
    id: parseId('10de:1b80'),
    driver: parseDriver('vfio-pci'),
    together: [parsed],
    identity: {},
    source: 'record',
    unknown: [],
    ...rest,
  };
}

const first = record('0000:02:00.0');
const second = record('0000:03:00.0', {
  identity: {
    subsystem: parseId('1043:8599'),
    path: '0000:00/01.0/00.0',
    serial: 'pcie:00-11-22-33-44-55-66-77',
  },
});
const file = (content: string) => ({content, mode: 0o644});

describe('the list of claims for the initramfs', () => {
  it('has a line for each claim, in the order of slots, and comments', () => {
    const text = printClaimList([second, first]);
    assert.deepEqual(claimLines(text), [
      '0000:02:00.0 0x10de-0x1b80 vfio-pci - - -',
      '0000:03:00.0 0x10de-0x1b80 vfio-pci 0x1043-0x8599 0000:00/01.0/00.0 pcie:00-11-22-33-44-55-66-77',
    ]);
    for (const line of text.split('\n').slice(0, 3)) assert.match(line, /^# /);
    assert.match(text, /To undo: pearasys boot disable/);
  });

  it('has the records whose units are enabled, and none by id alone', () => {
    const any = record('0000:04:00.0', {slot: 'any', together: []});
    const link = enabledLink({slot: parseSlot('0000:03:00.0'), driver: second.driver});
    assert.deepEqual(
      enabledClaims([first, second, any], (one) => one === link),
      [second],
    );
  });

  it('is written if it differs, and not otherwise', () => {
    const text = printClaimList([first]);
    const planned = planClaimList([first], defaultLayout, {takesPart: true, file: undefined});
    assert.deepEqual(planned, [
      {
        kind: 'write-file',
        path,
        content: text,
        mode: 0o644,
        owner: undefined,
        undo: [{kind: 'remove-file', path, prune: 1, undo: []}],
      },
    ]);
    assert.deepEqual(planClaimList([first], defaultLayout, {takesPart: true, file: file(text)}), []);
    const [step] = planClaimList([second], defaultLayout, {takesPart: true, file: file(text)});
    assert.deepEqual(
      step?.undo.map((undo) => undo.kind === 'write-file' && undo.content),
      [text],
    );
  });

  it('is not made for nothing, and stays without claims, so that its age can be compared', () => {
    assert.equal(wantedList([], {takesPart: true, file: undefined}), undefined);
    assert.equal(wantedList([first], {takesPart: false, file: undefined}), undefined);
    const old = file(printClaimList([first]));
    assert.equal(wantedList([], {takesPart: true, file: old}), printClaimList([]));
    assert.equal(wantedList([first], {takesPart: false, file: old}), printClaimList([]));
  });
});

describe('the rebuild of the initramfs', () => {
  const generator: Generator = {
    name: 'dracut',
    command: ['dracut', '--regenerate-all', '--force'],
    images: [],
  };
  const state = (rest: Partial<RebuildState> = {}): RebuildState => ({
    system: {generator, obstacle: undefined},
    due: true,
    isImage: false,
    ...rest,
  });
  const lines = (rest: Partial<RebuildState>) => planRebuild(state(rest)).steps.map(shellLine);

  it('is one step that is not undone', () => {
    const {steps, notes} = planRebuild(state());
    assert.deepEqual(steps.map(shellLine), ['dracut --regenerate-all --force']);
    assert.deepEqual(steps[0]?.undo, []);
    assert.deepEqual(notes, []);
  });

  it('is not planned if it is not due, or nothing can do it', () => {
    assert.deepEqual(lines({due: false}), []);
    assert.deepEqual(lines({system: {generator: undefined, obstacle: undefined}}), []);
  });

  it('is a note in an image of a system, and where it is not possible', () => {
    const obstacle = {kind: 'ostree', reason: 'REASON', advice: ['ONE', 'TWO'], rebuild: false} as const;
    assert.deepEqual(lines({isImage: true}), []);
    assert.match(planRebuild(state({isImage: true})).notes.join(), /in it, run: dracut/);
    const planned = planRebuild(state({system: {generator, obstacle}}));
    assert.deepEqual(planned.steps, []);
    assert.deepEqual(planned.notes, ['the initramfs is not rebuilt: REASON; run: ONE; TWO']);
    const both = planRebuild(state({system: {generator, obstacle: {...obstacle, rebuild: true}}}));
    assert.deepEqual(both.steps.map(shellLine), ['dracut --regenerate-all --force']);
    assert.match(both.notes.join(), /^after the rebuild: REASON/);
  });
});

describe('the generator of the initramfs', () => {
  const hosts: SimulatedHost[] = [];
  afterEach(() => {
    for (const host of hosts.splice(0)) host.dispose();
  });

  const release = '6.1.0-18-amd64';
  function generatorOf(...paths: (string | readonly string[])[]): Generator | undefined {
    const host = SimulatedHost.standard((declaration) => {
      for (const one of paths) {
        const [name = '', text = ''] = typeof one === 'string' ? [one] : one;
        declaration.files[name] = text;
      }
    });
    hosts.push(host);
    return readInitramfs(host).generator;
  }
  const found = (...paths: (string | readonly string[])[]) => {
    const generator = generatorOf(...paths);
    return [generator?.name, ...(generator?.images ?? []).map(({path: image}) => image)];
  };
  const tools = ['/usr/sbin/update-initramfs', '/usr/share/initramfs-tools/hook-functions'];
  const preset = '/etc/mkinitcpio.d/linux.preset';
  const pkgbase = [`/usr/lib/modules/${release}/pkgbase`, 'linux\n'] as const;

  it('is initramfs-tools, dracut or mkinitcpio, with the images of installed kernels', () => {
    assert.deepEqual(found(), [undefined]);
    assert.deepEqual(found(...tools, `/boot/initrd.img-${release}`, '/boot/initrd.img-5.0'), [
      'initramfs-tools',
      `/boot/initrd.img-${release}`,
    ]);
    // tiny-initramfs has the command, and no hooks.
    assert.deepEqual(found('/usr/sbin/update-initramfs'), [undefined]);
    assert.deepEqual(found('/usr/bin/mkinitcpio', '/usr/bin/dracut', `/boot/initramfs-${release}.img`), [
      'dracut',
      `/boot/initramfs-${release}.img`,
    ]);
    assert.deepEqual(
      found(
        '/usr/bin/mkinitcpio',
        '/usr/bin/dracut',
        [preset, 'default_image="/boot/initramfs-linux.img"\nfallback_image="/boot/fallback.img"\n'],
        pkgbase,
        '/boot/initramfs-linux.img',
        '/boot/fallback.img',
      ),
      ['mkinitcpio', '/boot/initramfs-linux.img'],
    );
  });

  it('knows unified kernel images', () => {
    assert.deepEqual(
      found(
        '/usr/bin/mkinitcpio',
        [preset, '#default_image="/boot/initramfs-linux.img"\ndefault_uki="/efi/EFI/Linux/arch.efi"\n'],
        pkgbase,
        '/efi/EFI/Linux/arch.efi',
      ),
      ['mkinitcpio', '/efi/EFI/Linux/arch.efi'],
    );
    assert.deepEqual(found('/usr/bin/dracut', `/efi/EFI/Linux/linux-${release}-abc.efi`), [
      'dracut',
      `/efi/EFI/Linux/linux-${release}-abc.efi`,
    ]);
  });
});
