import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import fs from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {completionScript} from '../../src/entry/cli/completion.js';
import {loadableCommands} from '../../src/entry/cli/config.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';
import {run} from './runs.js';

const bashScript = () => completionScript('bash', loadableCommands(), '/etc/pearasys');

/** What bash would offer for the last of these words. */
async function offered(...words: string[]): Promise<string[]> {
  const script = `${await bashScript()}
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_pearasys
printf '%s\\n' "\${COMPREPLY[@]}"`;
  const {status, stdout, stderr} = spawnSync('bash', ['--norc', '-c', script, 'bash', 'pearasys', ...words], {
    encoding: 'utf8',
  });
  assert.equal(stderr, '');
  assert.equal(status, 0);
  return stdout.trimEnd().split('\n');
}

describe('completion', () => {
  const cases: [words: string[], expected: string[]][] = [
    [['li'], ['list']],
    [
      ['service', ''],
      ['install', 'uninstall', 'list', 'set', 'show', 'adopt', 'import'],
    ],
    [['-s', '04:00.0', 'service', 'un'], ['uninstall']],
    [['list', '--cl'], ['--class']],
    [
      ['list', '--class', 'd'],
      ['display', 'docking'],
    ],
    [
      ['pci', 'device', 're'],
      ['rescan', 'remove-id', 'remove', 'reset'],
    ],
    [
      ['completion', ''],
      ['bash', 'zsh'],
    ],
    [['bind', 'vfio-pci', '--sib'], ['--siblings']],
    [['bind', 'no'], ['none']],
    [['bind', '--group', 'no'], ['none']],
    [['--root', '/us'], ['/usr']],
    [
      ['service', 'set', '04:00.0', 're'],
      ['reset_method=', 'reset=', ...[0, 1, 2, 3, 4, 5].map((bar) => `resource${bar}_resize=`)],
    ],
    [['service', 'install', 'vfio-pci', '--set', 'd3'], ['d3cold_allowed=']],
  ];
  for (const [words, expected] of cases)
    it(`of ${words.join(' ')}`, async () => {
      assert.deepEqual(await offered(...words), expected);
    });

  it('has a syntax that bash accepts', async () => {
    const {status, stderr} = spawnSync('bash', ['-n'], {
      input: await bashScript(),
      encoding: 'utf8',
    });
    assert.equal(stderr, '');
    assert.equal(status, 0);
  });

  describe('of names that others chose', () => {
    const harmless = ['win11', 'guest with blanks', "it's", 'a"b', '日本'];
    const harmful = [
      '$(touch ran)',
      '`touch ran`',
      '; touch ran',
      '*',
      'a\\b',
      '~root',
      '#x',
      '!!',
      'x${HOME}',
      '{a,b}',
    ];
    const hidden = ['-rf', 'two\nlines', 'esc\u001b[31m'];
    let folder: string;
    beforeEach(() => {
      folder = fs.mkdtempSync(join(tmpdir(), 'pearasys-names-'));
      for (const name of [...harmless, ...harmful, ...hidden])
        fs.writeFileSync(join(folder, `${name}.conf`), '');
    });
    afterEach(() => fs.rmSync(folder, {recursive: true, force: true}));

    /** What is printed by a shell that completes; nothing that a name says may be done. */
    const complete = (shell: string, args: readonly string[], script: string): string[] => {
      const {status, stdout, stderr, error} = spawnSync(
        shell,
        [
          ...args,
          '-c',
          script.replaceAll('/etc/pearasys/guests', folder).replaceAll('/etc/libvirt/qemu', '/none'),
        ],
        {encoding: 'utf8', cwd: folder, env: {...process.env, LC_ALL: 'C.UTF-8'}},
      );
      assert.ifError(error);
      assert.deepEqual([stderr, status], ['', 0]);
      assert.equal(fs.existsSync(join(folder, 'ran')), false);
      return stdout.split('\n').slice(0, -1).sort();
    };
    const inBash = async (typed: string) =>
      complete(
        'bash',
        ['--norc'],
        `${await bashScript()}
COMP_WORDS=(pearasys guest show ${typed}) COMP_CWORD=3
_pearasys
for word in "\${COMPREPLY[@]}"; do printf '%s\\n' "$word"; done`,
      );
    /** The words as bash reads them from the command line. */
    const read = (words: readonly string[]) =>
      complete('bash', ['--norc'], words.map((word) => `printf '%s\\n' ${word}\n`).join(''));
    const all = [...harmless, ...harmful].sort();

    it('bash offers them as quoted words', async () => {
      assert.deepEqual(read(await inBash("''")), all);
    });

    it('also inside quotes of either kind', async () => {
      assert.deepEqual(
        read((await inBash(`"'"`)).map((word) => `'${word}'`)),
        all.filter((name) => !name.includes("'")),
      );
      assert.deepEqual(
        read((await inBash(`'"'`)).map((word) => `"${word}"`)),
        all.filter((name) => !/["$`\\!]/.test(name)),
      );
    });

    it('a quoted beginning is completed', async () => {
      assert.deepEqual(await inBash(String.raw`'guest\ w'`), [String.raw`guest\ with\ blanks`]);
      assert.deepEqual(await inBash(String.raw`'\$(to'`), [String.raw`\$\(touch\ ran\)`]);
      assert.deepEqual(await inBash("'['"), []);
    });

    it('zsh gets them as they are, and quotes them itself', async function () {
      if (spawnSync('zsh', ['--version']).status !== 0) this.skip();
      const script = await completionScript('zsh', loadableCommands(), '/etc/pearasys');
      const found = complete(
        'zsh',
        ['-f'],
        `compdef() { :; }
compadd() { print -rl -- "\${(@P)@[-1]}"; }
${script}
words=(pearasys guest show '') CURRENT=4
_pearasys`,
      );
      assert.deepEqual(found, all);
    });
  });

  describe('the command', () => {
    let host: SimulatedHost;
    before(() => (host = SimulatedHost.standard()));
    after(() => host.dispose());

    it('prints the script for the shell that runs it', async () => {
      const {exitCode, stdout} = await run(host, ['--show-completion'], {
        environment: {SHELL: '/usr/bin/zsh'},
      });
      assert.equal(exitCode, 0);
      assert.match(stdout, /^#compdef pearasys\n/);
    });

    it('writes it where the shell looks for it', async () => {
      const environment = {SHELL: '/bin/bash', HOME: '/root'};
      const {exitCode, stdout} = await run(host, ['--install-completion'], {environment});
      assert.equal(exitCode, 0);
      const path = '/root/.local/share/bash-completion/completions/pearasys';
      assert.match(stdout, new RegExp(`^Written to ${path}`));
      assert.match(host.readText(path) ?? '', /^complete -F _pearasys pearasys$/m);
    });

    it('needs no root, shows the file with --dry-run, and writes it once', async () => {
      host.userId = 1000;
      const environment = {SHELL: '/bin/bash', HOME: '/home/ann'};
      const path = '/home/ann/.local/share/bash-completion/completions/pearasys';
      const dry = await run(host, ['completion', '--install', '--dry-run'], {environment});
      assert.deepEqual([dry.exitCode, dry.stdout.split('\n')[0]], [0, `cat > ${path} <<'EOF'`]);
      assert.equal(host.readText(path), undefined);
      await run(host, ['completion', '--install'], {environment});
      const again = await run(host, ['completion', '--install', '-v'], {environment});
      assert.deepEqual([again.exitCode, again.stderr], [0, '']);
    });

    it('refuses a shell it does not know', async () => {
      const {exitCode, stderr} = await run(host, ['completion', 'tcsh']);
      assert.equal(exitCode, 2);
      assert.match(stderr, /one of bash, zsh/);
    });
  });
});
