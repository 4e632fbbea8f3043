/** `make try`, at a terminal of script(1). */
import assert from 'node:assert/strict';
import {spawn, type ChildProcess} from 'node:child_process';
import {once} from 'node:events';
import {mkdtemp, readdir, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {DEVICES} from './devices.js';
import {BOOT_LIMIT, skipUnlessAvailable} from './machine.js';
import {libvirtRecipe} from './recipes.js';
import {closeShared} from './shared.js';

const checkout = path.join(import.meta.dirname, '../..');
const prompt = 'root@pearasys-vm:~# ';

describe('make try', function () {
  this.timeout(400_000);
  let folder: string | undefined;
  let terminal: ChildProcess | undefined;
  let exited: Promise<unknown[]>;
  let printed = '';

  before(async function () {
    this.timeout(BOOT_LIMIT);
    await skipUnlessAvailable(this, libvirtRecipe());
    // The host may not have the resources for two machines.
    await closeShared();
    folder = await mkdtemp(path.join(tmpdir(), 'pearasys-try-test-'));
    terminal = spawn(
      'script',
      // A terminal of script has no size if script has none.
      [
        '--quiet',
        '--return',
        '--command',
        `stty rows 33 columns 111; exec make try scratch=${folder}`,
        '/dev/null',
      ],
      {cwd: checkout, stdio: ['pipe', 'pipe', 'inherit']},
    );
    exited = once(terminal, 'exit');
    terminal.stdout?.setEncoding('utf8').on('data', (text: string) => (printed += text.replaceAll('\r', '')));
  });
  after(async () => {
    terminal?.kill();
    if (folder !== undefined) await rm(folder, {recursive: true});
  });

  /** Waits for a text after all that was waited for before. @returns what was printed until then */
  async function until(text: string): Promise<string> {
    while (!printed.includes(text)) {
      assert.ok(terminal?.stdout);
      assert.equal(terminal.exitCode, null, `${text} was not printed:\n${printed}`);
      await Promise.race([once(terminal.stdout, 'data'), exited]);
    }
    const end = printed.indexOf(text) + text.length;
    const before = printed.slice(0, end);
    printed = printed.slice(end);
    return before;
  }
  /** Types a command line. @returns what it printed */
  async function type(line: string): Promise<string> {
    terminal?.stdin?.write(`${line}\r`);
    return until(prompt);
  }

  it('welcomes with the devices, three commands, and how to leave', async function () {
    this.timeout(BOOT_LIMIT);
    const text = await until(prompt);
    assert.match(text, /00:0a\.0, 00:0a\.1 +a graphics card/);
    assert.match(text, /\n {2}pearasys list\n {2}pearasys bind .*\n {2}pearasys .* service install/);
    assert.match(text, /To leave: poweroff/);
  });

  it('gives a root shell with the size of the terminal, and the installed packages', async () => {
    assert.match(await type('id -un; stty size; tty'), /root\n33 111\n\/dev\/hvc0\n/);
    assert.match(await type('pearasys list'), new RegExp(`${DEVICES.disk1.slot} .*\\bnvme\\b`));
    assert.match(await type('mdevctl types'), /mtty-1/);
    assert.match(
      await type('pearasys guest setup guest --yes'),
      /guest guest takes 0000:00:0a\.0, 0000:00:0a\.1/,
    );
  });

  it('is there again after a reboot, with the claims at boot', async () => {
    await type(`pearasys -s ${DEVICES.disk1.slot} service install vfio-pci --now`);
    terminal?.stdin?.write('reboot\r');
    assert.match(await until('The machine reboots.'), /reboot/);
    await until(prompt);
    assert.match(await type(`pearasys list`), new RegExp(`${DEVICES.disk1.slot} .*\\bvfio-pci\\b`));
  });

  it('ends with 0 after poweroff, and leaves nothing', async () => {
    terminal?.stdin?.write('poweroff\r');
    const [code] = await exited;
    assert.equal(code, 0, printed);
    // tsx has its own files there.
    assert.deepEqual(
      (await readdir(folder!)).filter((name) => name.startsWith('pearasys')),
      [],
    );
  });
});
