import assert from 'node:assert/strict';
import {execFileSync, spawnSync} from 'node:child_process';
import fs from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {MachineHost} from '../../src/host/machine-host.js';

const devices = '/sys/bus/pci/devices';

/** A process as /proc tells of it. */
interface Waiting {
  readonly state: string;
  /** Functions, the innermost first. Undefined where only root may look. */
  readonly stack?: readonly string[];
  readonly wchan?: string;
  readonly parent?: number;
}

/** This machine with other processes, as root sees them, and one device, whose attributes are in another folder. */
class FakeProcesses extends MachineHost {
  override readonly userId = 0;
  /** Whether it was asked for the devices, as it is before a child reads them. */
  looked = false;

  readonly processes: readonly Waiting[];
  readonly slot: string;

  constructor(processes: readonly Waiting[], slot: string) {
    super();
    this.processes = processes;
    this.slot = slot;
  }

  override list(path: string): string[] {
    if (path === '/proc') return ['self', 'uptime', ...this.processes.map((_, index) => String(100 + index))];
    assert.equal(path, devices);
    this.looked = true;
    return [this.slot];
  }

  override readText(path: string): string | undefined {
    const [, pid, name] = /^\/proc\/(\d+)\/(\w+)$/.exec(path) ?? [];
    const process = this.processes[Number(pid) - 100];
    if (process === undefined) return super.readText(path);
    const {state, stack, wchan = '0', parent = 1} = process;
    if (name === 'stat') return `${pid} (a) D) R 2) ${state} ${parent} 1 1 0`;
    if (name === 'wchan') return wchan;
    assert.equal(name, 'stack');
    return stack?.map((frame) => `[<0>] ${frame}+0x1e/0x40`).join('\n');
  }
}

describe('the check for locked devices', () => {
  let folder: string | undefined;
  before(function () {
    // The child reads below it.
    if (!fs.existsSync(devices)) this.skip();
    folder = fs.mkdtempSync(join(tmpdir(), 'pearasys-locked-'));
    execFileSync('mkfifo', [join(folder, 'driver_override')]);
  });
  after(() => {
    if (folder !== undefined) fs.rmSync(folder, {recursive: true});
  });

  /** Whether a child has read the attribute of the device, which does not answer: a FIFO that nobody writes to. */
  async function asks(...processes: readonly Waiting[]): Promise<boolean> {
    assert.ok(folder !== undefined);
    const slot = `../../../..${folder}`;
    const host = new FakeProcesses(processes, slot);
    await host.findLocked(50);
    const locked = host.isLocked(`${devices}/${slot}/driver_override`);
    assert.equal(locked, host.looked);
    // Lets the child that was left behind end.
    if (locked) spawnSync('sh', ['-c', ': <>"$1"', 'sh', join(folder, 'driver_override')]);
    return locked;
  }

  const syscall = ['__x64_sys_read', 'do_syscall_64', 'entry_SYSCALL_64_after_hwframe'];
  const sysfsWrite = ['kernfs_fop_write_iter', 'vfs_write', 'ksys_write', ...syscall.slice(1)];

  for (const [what, stack] of [
    ['NFS', ['rpc_wait_bit_killable', '__rpc_execute', 'nfs4_proc_getattr', '__nfs_revalidate_inode']],
    ['a FUSE mount', ['request_wait_answer', '__fuse_simple_request', 'fuse_do_getattr', 'vfs_statx']],
    ['CIFS', ['wait_for_response', 'compound_send_recv', 'smb2_query_path_info', 'cifs_lookup']],
    ['a disk', ['folio_wait_bit_common', 'filemap_read', 'blkdev_read_iter', 'vfs_read']],
    ['an NVMe disk', ['blk_execute_rq', 'nvme_submit_sync_cmd', 'nvme_user_cmd64', 'nvme_dev_ioctl']],
    ['a journal', ['jbd2_log_wait_commit', 'ext4_sync_file', 'do_fsync']],
    ['a disk that is added', ['blk_mq_freeze_queue_wait', 'device_add_disk', 'sd_revalidate_disk']],
    ['a device mapper', ['dm_wait_for_bios_completion', 'dm_suspend', 'dev_suspend', 'ctl_ioctl']],
    ['a runtime resume', ['rpm_resume', '__pm_runtime_resume', 'pci_pm_runtime_resume', 'snd_open']],
    ['a driver’s ioctl', ['i915_gem_wait_ioctl', 'drm_ioctl', 'vfs_ioctl']],
    ['another lock', ['pci_lock_rescan_remove', 'usb_hub_event', 'bus_for_each_dev_of_mine']],
  ] as const)
    it(`is not done for a process in state D that waits for ${what}`, async () => {
      assert.equal(await asks({state: 'D', stack: [...stack, ...syscall]}), false);
    });

  for (const [what, stack] of [
    ['an unbind', ['device_release_driver_internal', 'unbind_store', ...sysfsWrite]],
    ['a driver that does not let go', ['nv_pci_remove', 'pci_device_remove', 'device_remove', ...syscall]],
    ['an attribute’s unknown function', ['some_vendor_thing', 'another_thing', ...sysfsWrite]],
    ['an older kernel’s attribute', ['some_vendor_thing', 'kernfs_fop_write', 'vfs_write']],
    ['a read of an attribute', ['driver_override_show', 'dev_attr_show', 'kernfs_fop_read_iter']],
    ['a module that is loaded', ['msleep', 'nvme_probe', 'really_probe.part.0', 'do_init_module']],
    ['a module that is removed', ['driver_detach', 'bus_remove_driver', 'pci_unregister_driver']],
    ['a card that is pulled', ['device_release_driver', 'pci_stop_bus_device', 'pciehp_ist']],
    ['virtual functions', ['sriov_disable', 'pci_disable_sriov', 'ixgbe_disable_sriov']],
    ['a reset', ['pci_dev_lock', 'pci_reset_function', 'vfio_pci_ioctl_reset']],
    ['a probe in the background', ['__driver_attach_async_helper', 'async_run_entry_fn', 'kthread']],
    ['users of VFIO', ['vfio_unregister_group_dev', 'vfio_pci_core_unregister_device', 'vfio_pci_remove']],
  ] as const)
    it(`is done for a process in state D in ${what}`, async () => {
      assert.equal(await asks({state: 'D', stack, parent: 2}), true);
    });

  it('uses wchan if the stack is not visible', async () => {
    for (const wchan of [
      'nfs_wait_bit_killable',
      'request_wait_answer',
      'fuse_get_req',
      'io_schedule',
      'blk_mq_get_tag',
    ])
      assert.equal(await asks({state: 'D', wchan}), false, wchan);
    for (const wchan of ['unbind_store', '__device_driver_lock', 'some_vendor_thing', '0'])
      assert.equal(await asks({state: 'D', wchan}), true, wchan);
  });

  it('is done for processes that wait interruptibly only in VFIO or the driver core', async () => {
    for (const wchan of [
      'vfio_unregister_group_dev',
      'vfio_del_group_dev',
      'device_del',
      'uevent_show',
      'bind_store',
    ])
      assert.equal(await asks({state: 'S', wchan}), true, wchan);
    for (const wchan of [
      'do_sys_poll',
      'device_add_disk',
      'bus_of_mine',
      'nvme_wait',
      'futex_wait_queue',
      '0',
    ])
      assert.equal(await asks({state: 'S', wchan}), false, wchan);
    // Threads of the kernel sleep where they work.
    assert.equal(await asks({state: 'S', wchan: 'bus_probe_device', parent: 2}), false);
  });

  it('is done once if one of many processes waits for a device', async () => {
    const others = Array.from({length: 30}, () => ({
      state: 'D',
      stack: ['request_wait_answer', 'fuse_lookup'],
    }));
    assert.equal(await asks(...others), false);
    assert.equal(
      await asks(...others, {state: 'D', stack: ['unbind_store', ...sysfsWrite]}, ...others),
      true,
    );
    assert.equal(await asks(), false);
  });
});
