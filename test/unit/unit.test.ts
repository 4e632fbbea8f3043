import assert from 'node:assert/strict';
import {dirname} from 'node:path';
import {defaultLayout} from '../../src/config/layout.js';
import {parseSlot} from '../../src/devices/pci/slot.js';
import {accessPath} from '../../src/state/access-rules.js';
import {claimTemplate, slotTemplate, unitSettings} from '../../src/systemd/unit-texts.js';
import {render} from '../../src/systemd/templates.js';
import {
  deviceUnit,
  dropInFolder,
  enabledLink,
  claimTemplateName,
  claimUnitName,
  isEnabled,
  parseUnitName,
  readUnits,
  readUnitStates,
  templateName,
  unitName,
  type UnitIdentity,
} from '../../src/systemd/unit.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {aDriver} from './values.js';

const slot = parseSlot('02:00.0');
const sound = parseSlot('02:00.1');
const unit = (driver: string, of = slot): UnitIdentity => ({slot: of, driver: aDriver(driver)});
const vfio = unit('vfio-pci');

describe('names of units', () => {
  it('need no escaping', () => {
    assert.equal(unitName(vfio), 'pearasys-0000:02:00.0@vfio-pci.service');
    assert.equal(templateName(slot), 'pearasys-0000:02:00.0@.service');
    assert.equal(claimUnitName(vfio), 'pearasys-claim-0000:02:00.0@vfio-pci.service');
    assert.equal(claimTemplateName(slot), 'pearasys-claim-0000:02:00.0@.service');
    assert.equal(deviceUnit(slot), 'sys-bus-pci-devices-0000:02:00.0.device');
    assert.equal(
      enabledLink(vfio),
      '/etc/systemd/system/sys-bus-pci-devices-0000:02:00.0.device.wants/pearasys-0000:02:00.0@vfio-pci.service',
    );
    assert.equal(dropInFolder(vfio), '/etc/systemd/system/pearasys-0000:02:00.0@vfio-pci.service.d');
  });

  it('are parsed', () => {
    for (const one of [vfio, unit('none'), unit('mlx5_vfio_pci'), unit('8139too')])
      assert.deepEqual(parseUnitName(unitName(one)), one);
  });

  for (const name of [
    'pearasys-0000:02:00.0@.service',
    'pearasys-claim-0000:02:00.0@vfio-pci.service',
    'pearasys-record@0000:02:00.0.service',
    'pearasys-guest@win10.service',
    'pearasys-0000:02:00.0@../x.service',
    'pearasys-0000:02:00.0@vfio-pci.socket',
    'xpearasys-0000:02:00.0@vfio-pci.service',
    'gdm.service',
    '',
  ])
    it(`'${name}' is not one of them`, () => assert.equal(parseUnitName(name), undefined));
});

describe('the template of a slot', () => {
  it('is exactly this text', () => {
    assert.equal(
      slotTemplate(slot, [slot], defaultLayout),
      `# Written by pearasys for the device in slot 0000:02:00.0: each instance gives it to one driver,
# pearasys-0000:02:00.0@vfio-pci.service to vfio-pci. In this file %j is the slot, %i the driver.
# Enabled, it claims the device at boot and at each hot-add; disabled, pearasys does not touch it.
# To undo: pearasys -s 0000:02:00.0 service uninstall
[Unit]
Description=PCI device %j on driver %i
Documentation=man:pearasys-service(8) man:pearasys-events(7)
# Ahead of display managers, libvirtd and the network, which would take the device first.
DefaultDependencies=no
# For recovery, see pearasys(8): pearasys=off or pearasys.skip= on the kernel command line.
ConditionKernelCommandLine=!pearasys=off
ConditionPathExists=!/run/pearasys/skipped/%j
Before=basic.target
After=systemd-modules-load.service local-fs-pre.target
# Stops when the device goes away, and starts when it returns.
BindsTo=sys-bus-pci-devices-%j.device
After=sys-bus-pci-devices-%j.device
# A separate unit claims the device: if the device is already on the driver, this unit becomes active without a
# process.
Requires=pearasys-claim-%j@%i.service
After=pearasys-claim-%j@%i.service

[Service]
Type=oneshot
RemainAfterExit=yes
# The template's own slice conflicts with shutdown.target: stopping it would unbind at power-off a device that a
# guest still uses, and that write never returns. At shutdown this unit is left alone.
Slice=system.slice
ExecStop=/usr/local/libexec/pearasys/release %j %i
TimeoutSec=120
# A write that is stuck in the kernel cannot be killed; do not wait for it.
KillMode=process
RuntimeDirectory=pearasys
RuntimeDirectoryPreserve=yes
CapabilityBoundingSet=CAP_SYS_MODULE CAP_SYS_PTRACE CAP_DAC_READ_SEARCH CAP_SYS_ADMIN
ProtectSystem=strict
ProtectHostname=yes
ProtectKernelLogs=yes
NoNewPrivileges=yes
ProtectHome=read-only
ProtectControlGroups=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_NETLINK
IPAddressDeny=any
LockPersonality=yes
SystemCallArchitectures=native
UMask=0022

[Install]
WantedBy=sys-bus-pci-devices-%j.device
`,
    );
  });

  it('its claim unit starts no process if the device is on the driver, unless it was released manually or settings are pending', () => {
    const lines = claimTemplate(slot, {...defaultLayout, config: '/opt/c', libexec: '/opt/x'}).split('\n');
    assert.deepEqual(
      lines.filter((line) => /^(?:Condition.*|ExecStart|RequiresMountsFor)=/.test(line)),
      [
        'ConditionKernelCommandLine=!pearasys=off',
        'ConditionPathExists=!/run/pearasys/skipped/%j',
        'ConditionPathExists=|!/sys/bus/pci/drivers/%i/%j',
        'ConditionPathExists=|/run/pearasys/released/%j',
        'ConditionPathExists=|/run/pearasys/pending/%j',
        'RequiresMountsFor=/opt/c /opt/x',
        'ExecStart=/opt/x/claim %j %i',
      ],
    );
    assert.ok(!lines.includes('RemainAfterExit=yes'));
  });

  it('is wanted by the units of the siblings installed with it, and not by itself', () => {
    const lines = slotTemplate(slot, [slot, sound], {...defaultLayout, libexec: '/opt/x'}).split('\n');
    assert.deepEqual(lines.slice(lines.indexOf('[Install]') + 1), [
      'WantedBy=sys-bus-pci-devices-%j.device',
      "# Installed together with this one: starting the sibling's unit starts this one too.",
      'WantedBy=pearasys-0000:02:00.1@%i.service',
      '',
    ]);
    assert.ok(lines.includes('ExecStop=/opt/x/release %j %i'));
  });

  it('a missing value is an error, not an empty text', () => {
    assert.throws(() => render('pearasys-record@.service', {config: '/etc/pearasys'}), /libexec/);
  });
});

describe('the units that move records and create virtual functions', () => {
  for (const name of ['pearasys-record@.service', 'pearasys-vfs@.service'])
    it(`${name} may write the rules for nodes, and set the owners of nodes`, () => {
      const text = render(name, defaultLayout);
      const folder = dirname(accessPath('records'));
      assert.match(text, new RegExp(`^ReadWritePaths=(?:.* )?-${folder}(?: .*)?$`, 'm'));
      assert.match(text, /^CapabilityBoundingSet=.*CAP_CHOWN CAP_FOWNER/m);
    });
});

describe('the settings of a unit', () => {
  const alone = {name: 'GP104', rivals: [], together: [slot]};

  it('only describe a single unit', () => {
    assert.equal(
      unitSettings(vfio, alone),
      `# Written by pearasys: how pearasys-0000:02:00.0@vfio-pci.service depends on the other units of its card.
# To undo: pearasys -s 0000:02:00.0 service uninstall
[Unit]
Description=GP104 (PCI device 0000:02:00.0) on driver vfio-pci
`,
    );
  });

  it('exclude the other units of the slot, and order each pair in only one direction', () => {
    const rivals = [unit('nouveau'), vfio, unit('xyz')];
    const lines = (own: UnitIdentity) =>
      unitSettings(own, {...alone, rivals})
        .split('\n')
        .filter((line) => /^(?:Conflicts|After|Before)=/.test(line));
    assert.deepEqual(lines(vfio), [
      'Conflicts=pearasys-0000:02:00.0@nouveau.service',
      'Conflicts=pearasys-0000:02:00.0@xyz.service',
      'After=pearasys-claim-0000:02:00.0@nouveau.service',
      'After=pearasys-0000:02:00.0@nouveau.service',
      'Before=pearasys-claim-0000:02:00.0@xyz.service',
    ]);
    assert.deepEqual(lines(unit('nouveau')), [
      'Conflicts=pearasys-0000:02:00.0@vfio-pci.service',
      'Conflicts=pearasys-0000:02:00.0@xyz.service',
      'Before=pearasys-claim-0000:02:00.0@vfio-pci.service',
      'Before=pearasys-claim-0000:02:00.0@xyz.service',
    ]);
  });

  it('stop the unit with the siblings of the same driver', () => {
    assert.match(
      unitSettings(vfio, {...alone, together: [slot, sound]}),
      /^PartOf=pearasys-0000:02:00\.1@vfio-pci\.service\n$/m,
    );
  });

  it('escape a percent sign in a name', () => {
    assert.match(unitSettings(vfio, {...alone, name: '100% %n'}), /^Description=100%% %%n \(PCI device/m);
  });
});

describe('the units of a host', () => {
  let host: SimulatedHost;
  beforeEach(() => {
    host = SimulatedHost.standard();
  });
  afterEach(() => host.dispose());

  it('are those with settings and those enabled, and no other units', async () => {
    const {tree} = host.machine;
    tree.directory(dropInFolder(vfio));
    tree.textLink(enabledLink(unit('nouveau', sound)), '/etc/systemd/system/x');
    tree.directory('/etc/systemd/system/pearasys-nonsense@x.service.d');
    tree.directory('/etc/systemd/system/sshd.service.d');
    assert.deepEqual(readUnits(host), [vfio, unit('nouveau', sound)]);
    assert.equal(isEnabled(host, vfio), false);
    // Only the link counts, even if its target is missing: the rule checks nothing else.
    assert.equal(isEnabled(host, unit('nouveau', sound)), true);
    host.userland.setState(claimUnitName(vfio), 'failed');
    assert.deepEqual(await readUnitStates(host), [
      {...vfio, unit: unitName(vfio), enabled: false, active: 'failed'},
      {...unit('nouveau', sound), unit: unitName(unit('nouveau', sound)), enabled: true, active: 'inactive'},
    ]);
    assert.equal(host.effects().length, 1);
  });

  it('are not queried if there are none, or without systemd', async () => {
    assert.deepEqual(await readUnitStates(host), []);
    host.machine.tree.directory(dropInFolder(vfio));
    host.machine.tree.remove('/run/systemd');
    assert.deepEqual(await readUnitStates(host), [
      {...vfio, unit: unitName(vfio), enabled: false, active: undefined},
    ]);
    assert.deepEqual(host.effects(), []);
  });
});
