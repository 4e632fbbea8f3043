import {strict as assert} from 'node:assert';
import {nodeTooOld} from '../../src/entry/node-version.js';

describe('nodeTooOld', () => {
  for (const version of ['18.19.0', '18.20.4', '20.0.0', '26.1.0'])
    it(`accepts ${version}`, () => {
      assert.equal(
        nodeTooOld('18.19', version, () => undefined),
        undefined,
      );
    });

  for (const version of ['12.22.12', '18.18.2', '18.9.1', '17.20.0'])
    it(`refuses ${version}`, () => {
      assert.equal(
        nodeTooOld('18.19', version, () => undefined)?.problem,
        `Node.js 18.19 or newer is required; ${process.execPath} is v${version}`,
      );
    });

  for (const [osRelease, next] of [
    ['PRETTY_NAME="Debian GNU/Linux 11"\nID=debian\n', /^Debian has it .* since Debian 12$/],
    ['ID=ubuntu\nID_LIKE=debian\n', /^Ubuntu has it .* since 24\.04$/],
    ['ID=linuxmint\nID_LIKE="ubuntu debian"\n', /^Ubuntu/],
    ['ID="rocky"\nID_LIKE="rhel centos fedora"\n', /^dnf module enable/],
    ['ID=fedora\n', /^dnf install nodejs$/],
    ['ID=arch\n', /^pacman -S nodejs$/],
    ['ID="opensuse-leap"\nID_LIKE="suse opensuse"\n', /^zypper install/],
    ['ID=gentoo\n', /^install a newer one from your distribution/],
    ['', /^install a newer one/],
    [undefined, /^install a newer one/],
  ] as const)
    it(`advises for ${JSON.stringify(osRelease)}`, () => {
      assert.match(nodeTooOld('18.19', '12.0.0', () => osRelease)?.next ?? '', next);
    });
});
