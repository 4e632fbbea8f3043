/** The program as it is built: from the bundle, with the packages that are loaded only when they are used. */
import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import {mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {commands} from '../../src/cli/commands.js';
import {SimulatedHost} from '../simulated-host/simulated-host.js';

const launcher = join(import.meta.dirname, '../../sbin/pearasys');

function built(...words: string[]) {
  return spawnSync(launcher, words, {encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe']});
}

describe('the built program', () => {
  it('helps with every command', function () {
    // One start of Node for each.
    this.timeout(60_000);
    for (const id of Object.keys(commands)) {
      const {status, stdout, stderr} = built('help', ...id.split(':'));
      assert.equal(status, 0, stderr);
      assert.ok(stdout.includes(`$ pearasys ${id.replace(':', ' ')}`), stdout);
    }
  });

  it('tells of wrong words with 2', () => {
    for (const words of [['lisst'], ['list', '--nonsense'], ['bind'], ['pci', 'device']]) {
      const {status, stderr} = built(...words);
      assert.equal(status, 2, words.join(' '));
      assert.doesNotMatch(stderr, /internal error|at .*\.cjs/);
    }
  });

  describe('on a simulated machine', () => {
    let host: SimulatedHost;
    before(() => (host = SimulatedHost.standard()));
    after(() => host.dispose());

    it('lists, shows and plans', () => {
      const {folder} = host.machine;
      for (const words of [
        ['list', '--json'],
        ['show', '02:00.0'],
        ['bind', 'vfio-pci', '02:00.0', '--siblings', '--dry-run'],
        ['-s', '02:00.0', 'pci', 'device', '--driver', 'vfio-pci', 'bind', '--dry-run'],
        ['-s', '02:00.0', 'service', 'install', 'vfio-pci', '--dry-run'],
        ['service', 'list'],
      ]) {
        const {status, stdout, stderr} = built('--root', folder, ...words);
        assert.equal(status, 0, `${words.join(' ')}: ${stderr}`);
        assert.doesNotMatch(stderr, /internal error/);
        if (words[0] !== 'service') assert.notEqual(stdout, '');
      }
    });

    it('draws a table on a terminal', function () {
      const line = `${launcher} list --root ${host.machine.folder}`;
      const {error, status, stdout} = spawnSync('script', ['-qec', line, '/dev/null'], {
        encoding: 'utf8',
        env: {...process.env, TERM: 'xterm'},
      });
      // Debian has it in bsdutils, which is always there.
      if (error !== undefined) this.skip();
      assert.equal(status, 0, stdout);
      assert.match(stdout, /SLOT.*ID.*CLASS.*DRIVER/);
    });
  });

  it('installs an image: files, and the record of a device that is named by slot and id', () => {
    const image = mkdtempSync(join(tmpdir(), 'pearasys-image-'));
    try {
      mkdirSync(join(image, 'etc/systemd/system'), {recursive: true});
      const words = ['-s', '04:00.0', '-d', '10de:1b80', 'service', 'install', 'vfio-pci', '--dry-run'];
      const {status, stdout, stderr} = built('--root', image, ...words);
      assert.equal(status, 0, stderr);
      assert.match(stdout, /^cat > \/etc\/pearasys\/pci\/0000:04:00\.0-0x10de-0x1b80/m);
    } finally {
      rmSync(image, {recursive: true});
    }
  });

  it('is installed with a code cache that V8 takes from its launcher', () => {
    const prefix = mkdtempSync(join(tmpdir(), 'pearasys-installed-'));
    try {
      const folders = ['SYSCONFDIR', 'UNITDIR', 'UDEVDIR'].map((name) => `${name}=${join(prefix, name)}`);
      const made = spawnSync('make', ['install', `PREFIX=${prefix}`, ...folders, 'reload='], {
        cwd: join(import.meta.dirname, '../..'),
        encoding: 'utf8',
      });
      assert.equal(made.status, 0, made.stderr);
      const flags = /^exec node (.*?) "/m.exec(readFileSync(join(prefix, 'sbin/pearasys'), 'utf8'))?.[1];
      const library = join(prefix, 'lib/pearasys');
      const [cache = ''] = readdirSync(library).filter((name) => name.endsWith('.cache'));
      const look = `const {readFileSync} = require('fs'), {Script} = require('vm');
        const script = new Script(readFileSync('pearasys.cjs', 'latin1'), {cachedData: readFileSync(${JSON.stringify(cache)})});
        console.log(script.cachedDataRejected)`;
      const {stdout, stderr} = spawnSync('node', [...(flags ?? '').split(' '), '-e', look], {
        cwd: library,
        encoding: 'utf8',
      });
      assert.equal(stdout, 'false\n', stderr);
    } finally {
      rmSync(prefix, {recursive: true});
    }
  });
});
