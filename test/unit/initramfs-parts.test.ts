import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import fs from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {shipped} from './services.js';

const libexec = '/usr/local/libexec/pearasys';
const claims = '/etc/pearasys/initramfs-claims';
const line = (serial: string) => `0000:02:00.0 0x10de-0x1b80 vfio-pci - 0000:00/01.0/00.0 ${serial}\n`;

/** The parts of pearasys for the generators of the initramfs, with the functions of these replaced. */
describe('the parts for the initramfs', () => {
  let folder: string;
  beforeEach(() => {
    folder = fs.mkdtempSync(join(tmpdir(), 'pearasys-initramfs-'));
  });
  afterEach(() => fs.rmSync(folder, {recursive: true}));

  /** Writes a shipped file into the folder; all that it names in /etc and /usr is there, too. */
  function put(path: string): string {
    const text = shipped(path)
      .replaceAll('/etc/pearasys', `${folder}/etc/pearasys`)
      .replaceAll(libexec, `${folder}${libexec}`)
      .replaceAll('/usr/share/initramfs-tools', `${folder}/usr/share/initramfs-tools`);
    const file = join(folder, path);
    write(path, text);
    fs.chmodSync(file, 0o755);
    return file;
  }

  function write(path: string, text: string): void {
    const file = join(folder, path);
    fs.mkdirSync(join(file, '..'), {recursive: true});
    fs.writeFileSync(file, text);
  }

  /** Runs a script and returns its lines, without the folder. */
  function run(shell: string, script: string, env: Record<string, string> = {}): string[] {
    const {status, stdout, stderr} = spawnSync(shell, ['-c', script], {
      encoding: 'utf8',
      // With a socket as standard input, bash reads its user's settings.
      stdio: ['ignore', 'pipe', 'pipe'],
      env: {PATH: process.env['PATH'], ...env},
    });
    assert.deepEqual({status, stderr}, {status: 0, stderr: ''});
    return stdout
      .replaceAll(folder, '')
      .split('\n')
      .filter((one) => one !== '');
  }

  const lists = {
    'no list': undefined,
    'an empty list': '# Written by pearasys.\n',
    'a list': `# pcie:\n${line('-')}`,
    'a list with a serial number': line('pcie:00-11-22-33-44-55-66-77'),
  };
  const files = [claims, `${libexec}/reserve.sh`, `${libexec}/rescue.sh`];

  for (const [what, list] of Object.entries(lists)) {
    const withClaims = list !== undefined && list.includes('vfio-pci');
    const withSerial = /^[^#].* pcie:/m.test(list ?? '');

    describe(`with ${what}`, () => {
      beforeEach(() => {
        if (list !== undefined) write(claims, list);
      });

      it('initramfs-tools adds the list and the scripts, and keeps its script that runs before udev', () => {
        write(
          '/usr/share/initramfs-tools/hook-functions',
          'copy_file() { echo "file $2"; }\ncopy_exec() { echo "program ${1##*/}"; }\n',
        );
        // It has copied all boot scripts already.
        const script = '/image/scripts/init-top/pearasys';
        write(script, '#!/bin/sh\n');
        const hook = put('initramfs/initramfs-tools/pearasys');
        assert.deepEqual(run('sh', `${hook} prereqs`), []);
        const added = run('sh', hook, {DESTDIR: join(folder, 'image')});
        const expected = [...files.map((path) => `file ${path}`), ...(withSerial ? ['program od'] : [])];
        assert.deepEqual(added, withClaims ? expected : []);
        assert.equal(fs.existsSync(join(folder, script)), withClaims);
      });

      for (const included of [true, false])
        it(`dracut adds the same, as a hook before any driver is loaded, ${included ? 'with' : 'without'} systemd`, () => {
          const functions =
            'inst_simple() { echo "file $1"; }; inst_hook() { echo "$1 $3"; }; ' +
            'inst_multiple() { echo "program $1"; }; ' +
            `dracut_module_included() { [ "$1" = systemd ] && ${included}; }`;
          const module = put('initramfs/dracut/module-setup.sh');
          const added = run(
            'bash',
            `${functions}; moddir=/moddir; initdir=${folder}/image; . ${module}; if check; then depends; install; fi`,
          );
          const expected = [
            ...files.map((path) => `file ${path}`),
            'cmdline /moddir/pearasys.sh',
            ...(withSerial ? ['program od'] : []),
          ];
          assert.deepEqual(added, withClaims ? expected : []);
          const settings = join(
            folder,
            'image/etc/systemd/system/systemd-modules-load.service.d/pearasys.conf',
          );
          assert.equal(fs.existsSync(settings), withClaims && included);
          if (withClaims && included)
            assert.equal(fs.readFileSync(settings, 'utf8'), '[Unit]\nAfter=dracut-cmdline.service\n');
        });

      for (const [hooks, rest] of [
        ['base udev pearasys', ['runscript']],
        [
          'base systemd pearasys',
          [
            `file ${libexec}/pearasys-initramfs.service /usr/lib/systemd/system/pearasys-initramfs.service`,
            'link /usr/lib/systemd/system/sysinit.target.wants/pearasys-initramfs.service ../pearasys-initramfs.service',
          ],
        ],
        [
          'systemd pearasys',
          [
            `file ${libexec}/pearasys-initramfs.service /usr/lib/systemd/system/pearasys-initramfs.service`,
            'link /usr/lib/systemd/system/sysinit.target.wants/pearasys-initramfs.service ../pearasys-initramfs.service',
            'program bash',
            'link /usr/bin/sh bash',
          ],
        ],
      ] as const)
        it(`mkinitcpio adds the same, with the hooks ${hooks}`, () => {
          const functions =
            'add_file() { echo "file $*"; }; add_binary() { echo "program $1"; }; add_runscript() { echo runscript; }; add_symlink() { echo "link $*"; }';
          const hook = put('initramfs/mkinitcpio/install/pearasys');
          const added = run('bash', `${functions}; HOOKS=(${hooks}); . ${hook}; build`);
          const expected = [
            ...[...files, `${libexec}/initramfs-reserve`].map((path) => `file ${path}`),
            ...(withSerial ? ['program od'] : []),
            ...rest,
          ];
          assert.deepEqual(added, withClaims ? expected : []);
        });
    });
  }

  it('mkinitcpio has the hook in front of the others, once', () => {
    const settings = put('initramfs/mkinitcpio/pearasys.conf');
    const hooks = (words: string) =>
      run('bash', `HOOKS=(${words}); . ${settings}; echo "\${HOOKS[*]}"`).join('');
    assert.equal(hooks('base udev block'), 'pearasys base udev block');
    assert.equal(hooks('base pearasys udev'), 'base pearasys udev');
  });

  describe('in the initramfs', () => {
    for (const shell of ['dash', 'bash'])
      for (const [what, text, expected] of [
        ['reserves what is in the list', 'reserve_claims() { echo "$1"; }\n', claims],
        ['ends well if the script fails', 'reserve_claims() { exit 3; }\n', ''],
        ['ends well if the script is broken', 'reserve_claims() { if\n', ''],
        ['ends well if there is no script', undefined, ''],
      ] as const)
        it(`${what}, run by ${shell}, or sourced`, () => {
          if (text !== undefined) write(`${libexec}/reserve.sh`, text);
          const program = put('initramfs/reserve');
          // The kernel's log takes the place of standard error.
          fs.writeFileSync(
            program,
            fs.readFileSync(program, 'utf8').replaceAll('/dev/kmsg', join(folder, 'kmsg')),
          );
          fs.writeFileSync(join(folder, 'kmsg'), '');
          const lines = expected === '' ? [] : [expected];
          assert.deepEqual(run(shell, `${shell} ${program}`), lines);
          assert.deepEqual(run(shell, `${shell} ${program} prereqs`), []);
          assert.deepEqual(run(shell, `. ${program}; echo goes on`), [...lines, 'goes on']);
        });

    it('is called by the early hook of mkinitcpio', () => {
      write(`${libexec}/initramfs-reserve`, 'echo reserved\n');
      const hook = put('initramfs/mkinitcpio/hooks/pearasys');
      assert.deepEqual(run('sh', `. ${hook}; run_earlyhook`), ['reserved']);
    });
  });

  describe('initramfs-claims', () => {
    /** Runs it with the tools of the generators replaced. */
    function claimsIn(generator: string, tools: Record<string, string>) {
      for (const [name, text] of Object.entries(tools)) {
        write(`bin/${name}`, `#!/bin/sh\nset -eu\n${text}\n`);
        fs.chmodSync(join(folder, `bin/${name}`), 0o755);
      }
      write('image', 'image');
      const program = join(folder, 'initramfs-claims');
      const text = shipped('libexec/initramfs-claims').replaceAll('/var/tmp', `${folder}/tmp`);
      fs.writeFileSync(program, text, {mode: 0o755});
      fs.mkdirSync(join(folder, 'tmp'));
      const {status, stdout} = spawnSync(program, [generator, join(folder, 'image')], {
        encoding: 'utf8',
        env: {PATH: `${folder}/bin:${process.env['PATH'] ?? ''}`},
      });
      assert.deepEqual(fs.readdirSync(join(folder, 'tmp')), []);
      return {status, stdout};
    }
    const unpack = (into: string) => `mkdir -p "${into}/etc/pearasys"; echo claims >"${into}${claims}"`;

    for (const [what, generator, tools, expected] of [
      ['initramfs-tools', 'initramfs-tools', {unmkinitramfs: unpack('$2')}, 'claims\n'],
      ['initramfs-tools with microcode', 'initramfs-tools', {unmkinitramfs: unpack('$2/main')}, 'claims\n'],
      ['initramfs-tools without claims', 'initramfs-tools', {unmkinitramfs: ':'}, ''],
      ['mkinitcpio', 'mkinitcpio', {lsinitcpio: `[ "$1" = -x ]; cat "$2" >&2; ${unpack('.')}`}, 'claims\n'],
      [
        'dracut',
        'dracut',
        {
          lsinitrd: `if [ "$1" = --file ]; then [ "$2" = ${claims.slice(1)} ]; echo claims; else cat "$1"; fi`,
        },
        'claims\n',
      ],
      ['dracut without claims', 'dracut', {lsinitrd: 'if [ "$1" = --file ]; then exit 2; fi'}, ''],
    ] as const)
      it(`prints the claims in an image of ${what}`, () => {
        assert.deepEqual(claimsIn(generator, tools), {status: 0, stdout: expected});
      });

    for (const [generator, tool] of [
      ['initramfs-tools', 'unmkinitramfs'],
      ['mkinitcpio', 'lsinitcpio'],
      ['dracut', 'lsinitrd'],
    ] as const)
      it(`fails if ${tool} cannot read the image`, () => {
        const {status, stdout} = claimsIn(generator, {[tool]: 'exit 1'});
        assert.notEqual(status, 0);
        assert.equal(stdout, '');
      });
  });
});
