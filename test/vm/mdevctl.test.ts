/** The mdevctl replacement compared with Debian's mdevctl 1.2: the same commands on the same state and real parents. */
import assert from 'node:assert/strict';
import {installProduct} from './install.js';
import {BOOT_LIMIT, explainFailures, Machine, skipUnlessAvailable} from './machine.js';
import {mdevRecipe} from './recipes.js';
import {closeShared} from './shared.js';

/** Sorted before any random UUID, so that the lists of both programs have the same order. */
const [A, B, C, D] = ['1', '2', '3', '4'].map(
  (digit) =>
    `${'0'.repeat(8)}-${digit.repeat(4)}-4${digit.repeat(3)}-8${digit.repeat(3)}-${digit.repeat(12)}`,
) as [string, string, string, string];

/** The output and exit codes of one program, and the final state. */
interface Trace {
  /** One for each command: standard output, then `[exit code]`. */
  readonly answers: readonly string[];
  /** The files of definitions, the calls of the scripts, and the existing devices. */
  readonly left: string;
}

const theirs = '/usr/bin/mdevctl';
const ours = '/usr/local/sbin/mdevctl';

/** Commands by subject; each group begins without devices and definitions. */
const groups: Readonly<Record<string, readonly string[]>> = {
  'help and versions': [
    'mdevctl',
    'mdevctl --version',
    'mdevctl -V',
    'mdevctl --help',
    'mdevctl -h',
    'lsmdev --version',
    'lsmdev --help',
    ...['list', 'types'].flatMap((verb) => [
      `mdevctl ${verb} --help`,
      `mdevctl ${verb} -h`,
      `mdevctl help ${verb}`,
    ]),
  ],
  types: [
    'mdevctl types',
    'mdevctl types -p mtty',
    'mdevctl types --parent=mdpy --dumpjson',
    'mdevctl types -p nosuch',
    'mdevctl types -p nosuch --dumpjson',
    'mdevctl types --dumpjson',
  ],
  'invalid words': [
    'mdevctl nosuch',
    'mdevctl list --nosuch',
    'mdevctl list extra',
    'mdevctl list -u',
    'mdevctl list -u nonsense',
    'mdevctl define',
    'mdevctl define -t mtty-1',
    'mdevctl define -p mtty',
    `mdevctl define -u ${A}`,
    `mdevctl define -u ${A} -p mtty -t mtty-1 --manual`,
    'mdevctl undefine',
    'mdevctl modify -p mtty --auto',
    `mdevctl modify -u ${A} --auto`,
    `mdevctl undefine -u ${A}`,
    'mdevctl start',
    'mdevctl start -p mtty',
    `mdevctl start -u ${A}`,
    `mdevctl start -u ${A} -p mtty`,
    `mdevctl start -u ${A} -t mtty-1`,
    `mdevctl start -u ${A} -p nosuch -t mtty-1`,
    `mdevctl start -u ${A} -p mtty -t nosuch`,
    'mdevctl stop',
    `mdevctl stop -u ${A}`,
    'lsmdev --nosuch',
  ],
  definitions: [
    `mdevctl define -u ${A} -p mtty -t mtty-1`,
    `mdevctl define -u ${A} -p mtty -t mtty-2`,
    `mdevctl define -u ${A} -p mdpy -t mdpy-vga --auto`,
    `mdevctl define -u ${B} --parent mtty --type mtty-2 -a`,
    `mdevctl define -u ${C.toUpperCase()} -p nosuch -t anything -a`,
    `mdevctl define -u ${D.replaceAll('-', '')} -p mtty -t mtty-1`,
    'mdevctl define -p mtty -t mtty-1',
    'mdevctl undefine -u $(ls /etc/mdevctl.d/mtty | grep -v -e 1111 -e 2222 -e 4444)',
    'mdevctl list',
    'mdevctl list -d',
    'mdevctl list -dv',
    'mdevctl list -d --dumpjson',
    `mdevctl list -d -u ${A}`,
    `mdevctl list -d -u ${A} --dumpjson`,
    `mdevctl list -d -u ${B} --dumpjson`,
    'mdevctl list -d -p mtty --dumpjson',
    `mdevctl list -d -p mtty -u ${A} --dumpjson`,
    `mdevctl list -u ${A}`,
    'lsmdev -d',
    `lsmdev --defined --uuid ${B} --dumpjson`,
    `mdevctl undefine -u ${A} -p nosuch`,
    `mdevctl undefine -u ${A} -p mdpy`,
    `mdevctl undefine -u ${B}`,
    'mdevctl list -d',
  ],
  'definitions from a file': [
    ...[
      'good',
      'more',
      'notype',
      'nostart',
      'noattrs',
      'badstart',
      'badattrs',
      'broken',
      'array',
      'missing',
    ].map(
      (name, index) => `mdevctl define -u ${A.slice(0, -1)}${index} -p mtty --jsonfile /root/${name}.json`,
    ),
    `mdevctl define -u ${B} --jsonfile /root/good.json`,
    `mdevctl define -u ${B} -p mtty -t mtty-1 --jsonfile /root/good.json`,
    `mdevctl define -u ${B} -p mtty -a --jsonfile /root/good.json`,
    'mdevctl list -dv',
    `mdevctl start -p mtty --jsonfile /root/noattrs.json -u ${B}`,
    `mdevctl stop -u ${B}`,
    `mdevctl start --jsonfile /root/noattrs.json -u ${B}`,
    `mdevctl start -p mtty --jsonfile /root/broken.json -u ${B}`,
    `mdevctl start -p mtty --jsonfile /root/missing.json -u ${B}`,
  ],
  'changes of a definition': [
    `mdevctl define -u ${A} -p mtty -t mtty-1`,
    `mdevctl define -u ${A} -p mdpy -t mdpy-vga`,
    `mdevctl define -u ${B} -p mtty -t mtty-2`,
    `mdevctl modify -u ${A} --auto`,
    `mdevctl modify -u ${A} -p mtty --auto`,
    `mdevctl modify -u ${B}`,
    `mdevctl modify -u ${B} -a -m`,
    `mdevctl modify -u ${B} -a`,
    `mdevctl modify -u ${B} -m`,
    `mdevctl modify -u ${B} --type mtty-1`,
    `mdevctl modify -u ${B} --addattr=a --value=1`,
    `mdevctl modify -u ${B} --addattr=b --value=2`,
    `mdevctl modify -u ${B} --addattr c --value 3 --index 0`,
    `mdevctl modify -u ${B} --addattr d --value 4 -i 1`,
    `mdevctl modify -u ${B} --addattr e --value 5 -i 99`,
    `mdevctl modify -u ${B} --addattr e`,
    `mdevctl list -dv -u ${B}`,
    `mdevctl modify -u ${B} --delattr -i 99`,
    `mdevctl modify -u ${B} --delattr -i 1`,
    `mdevctl modify -u ${B} --delattr`,
    `mdevctl list -dv -u ${B}`,
    `mdevctl list -d -u ${B} --dumpjson`,
  ],
  'start and stop': [
    `mdevctl start -u ${A} -p mtty -t mtty-1`,
    'mdevctl list',
    'mdevctl list -v',
    'mdevctl list --dumpjson',
    `mdevctl list -u ${A} --dumpjson`,
    'mdevctl list -p mdpy',
    `mdevctl start -u ${A} -p mtty -t mtty-1`,
    `mdevctl start -u ${A} -p mdpy -t mdpy-vga`,
    `mdevctl define -u ${A}`,
    `mdevctl define -u ${A} -a`,
    'mdevctl list',
    'mdevctl list -d',
    `mdevctl modify -u ${A} --auto`,
    'mdevctl list',
    `mdevctl stop -u ${A}`,
    `mdevctl stop -u ${A}`,
    'mdevctl list -d',
    `mdevctl start -u ${A} -t mtty-2`,
    `mdevctl start -u ${A} -t mtty-1`,
    `mdevctl stop -u ${A}`,
    `mdevctl start -u ${A} -p mdpy`,
    `mdevctl start -u ${A} -p mdpy -t mdpy-vga`,
    `mdevctl define -u ${A}`,
    'mdevctl list -d',
    `mdevctl stop -u ${A}`,
    `mdevctl start -u ${A}`,
    `mdevctl start -u ${A} -p mdpy`,
    'mdevctl list',
    'mdevctl start-parent-mdevs mtty',
    'mdevctl start-parent-mdevs nosuch',
    `mdevctl stop -u ${A}`,
    'mdevctl start-parent-mdevs mtty',
    'mdevctl list',
    'mdevctl start -p mbochs -t mbochs-small',
    'mdevctl list',
  ],
  attributes: [
    ...['good', 'badvalue', 'noattr', 'escape'].flatMap((name) => [
      `mdevctl define -u ${A} -p mtty --jsonfile /root/${name}.json`,
      `mdevctl start -u ${A}`,
      'mdevctl list',
      `mdevctl list -u ${A} --dumpjson`,
      'mdevctl list --dumpjson',
      `mdevctl stop -u ${A}`,
      `mdevctl undefine -u ${A}`,
    ]),
  ],
  'a full parent': [
    ...Array.from({length: 12}, () => 'mdevctl start -p mtty -t mtty-2'),
    'mdevctl types -p mtty',
    `mdevctl start -u ${A} -p mtty -t mtty-2`,
    `mdevctl define -u ${A} -p mtty -t mtty-2`,
    `mdevctl start -u ${A}`,
  ],
  ...Object.fromEntries(
    [0, 1, 2, 3].map((code) => [
      `a script that answers ${code}`,
      [
        `echo ${code} >/root/script.code`,
        'ln -s /root/script /etc/mdevctl.d/scripts.d/callouts/script',
        'ln -s /root/script /etc/mdevctl.d/scripts.d/notifiers/script',
        `mdevctl define -u ${A} -p mtty -t mtty-1`,
        `mdevctl modify -u ${A} --auto`,
        `mdevctl start -u ${A}`,
        'mdevctl list',
        `mdevctl stop -u ${A}`,
        'mdevctl start-parent-mdevs mtty',
        `mdevctl stop -u ${A}`,
        `mdevctl undefine -u ${A}`,
        `mdevctl start -u ${B} -p mtty -t mtty-1`,
        `mdevctl define -u ${B}`,
        'mdevctl list -d',
      ],
    ]),
  ),
};

const files: Readonly<Record<string, string>> = {
  good: '{"mdev_type": "mtty-1", "start": "manual", "attrs": [{"power/control": "on"}, {"power/control": "auto"}]}',
  more: '{"start": "manual", "later": [1, {"b": 2}], "mdev_type": "mtty-2", "attrs": [{"power/control": "auto"}]}',
  notype: '{"start": "manual", "attrs": []}',
  nostart: '{"mdev_type": "mtty-2", "attrs": []}',
  noattrs: '{"mdev_type": "mtty-2", "start": "manual"}',
  badstart: '{"mdev_type": "mtty-2", "start": "perhaps"}',
  badattrs: '{"mdev_type": "mtty-2", "start": "auto", "attrs": {"a": "b"}}',
  broken: '{"mdev_type": ',
  array: '[]',
  badvalue: '{"mdev_type": "mtty-1", "start": "manual", "attrs": [{"power/control": "nonsense"}]}',
  noattr: '{"mdev_type": "mtty-1", "start": "manual", "attrs": [{"nosuch": "on"}]}',
  escape: '{"mdev_type": "mtty-1", "start": "manual", "attrs": [{"../../../power/control": "on"}]}',
};

/** Logs its arguments and input, and ends with a configured exit code. */
const script = `#!/bin/sh
{ printf '%s |' "\${0##*/callouts/}" "$@"; cat; echo; } | sed 's|^.*/scripts.d/||' >>/root/script.log
exit "$(cat /root/script.code)"
`;

const reset = `for device in /sys/bus/mdev/devices/*/remove; do [ ! -e "$device" ] || echo 1 >"$device"; done
rm -rf /etc/mdevctl.d/* /root/script.log
mkdir -p /etc/mdevctl.d/scripts.d/callouts /etc/mdevctl.d/scripts.d/notifiers
`;

const left = `cd /etc/mdevctl.d && find . -mindepth 1 -printf '%y %m %p\\n' | sort
find . -type f | sort | while read -r file; do echo "== $file"; cat "$file"; echo '|'; done
# Questions, which change nothing: 1.2 does not ask for capabilities, and for attributes at other times (docs/mdev.md).
grep -v -F -e '-e |get |' /root/script.log 2>/dev/null
ls /sys/bus/mdev/devices`;

/** The options in a help text and their descriptions, on the same line or below. */
function optionsIn(help: string): ReadonlyMap<string, string> {
  const options = help.slice(help.indexOf('OPTIONS:'));
  return new Map(
    [...options.matchAll(/^ +((?:-\w, )?--[\w-]+(?: <\w+>)?)\s+(\S.*)$/gm)].map(
      ([, option = '', text = '']) => [option, text],
    ),
  );
}

describe('mdevctl compared with mdevctl 1.2', function () {
  this.timeout(600_000);
  let machine: Machine;

  before(async function () {
    this.timeout(BOOT_LIMIT);
    const recipe = mdevRecipe();
    if (recipe.suite !== 'bookworm') this.skip();
    await skipUnlessAvailable(this, recipe);
    // The host may not have the resources for two machines.
    await closeShared();
    machine = await Machine.boot(recipe);
    await installProduct(machine);
    await machine.sh('make -C /opt/pearasys-checkout -o dist/pearasys.cjs install-mdevctl');
    // Only the two programs may write definitions here.
    await machine.sh(`for rule in 60-mdevctl 60-pearasys-mdev; do ln -s /dev/null /etc/udev/rules.d/$rule.rules; done
udevadm control --reload; modprobe -a mtty mdpy mbochs; udevadm settle`);
    for (const [name, text] of Object.entries(files)) await machine.writeFile(`/root/${name}.json`, text);
    await machine.writeFile('/root/script', script, 0o755);
  });
  after(async () => (machine as Machine | undefined)?.close());
  explainFailures(() => machine);

  async function trace(program: string, commands: readonly string[]): Promise<Trace> {
    const lsmdev = program.replace(/mdevctl$/, 'lsmdev');
    const text = commands.map((command) => `${command} 2>/dev/null; printf '[%s]\\0' "$?"`).join('\n');
    const printed = await machine.sh(
      `mdevctl() { ${program} "$@"; }\nlsmdev() { ${lsmdev} "$@"; }\n${reset}${text}\n`,
      {timeout: 300_000},
    );
    // Random UUIDs of a program.
    const known = new Set([A, B, C, D]);
    const level = (each: string) =>
      each.replaceAll(/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, (uuid) =>
        known.has(uuid) || uuid.startsWith(A.slice(0, -1)) ? uuid : 'a-new-uuid',
      );
    return {
      answers: printed
        .split('\0')
        .slice(0, -1)
        .map((answer, index) => level(`${commands[index] ?? ''}\n${answer}`)),
      left: level(await machine.sh(left)),
    };
  }

  for (const [name, commands] of Object.entries(groups))
    it(`has the same output and final state: ${name}`, async () => {
      const expected = await trace(theirs, commands);
      const actual = await trace(ours, commands);
      assert.equal(expected.answers.length, commands.length);
      assert.deepEqual(actual, expected);
    });

  for (const verb of ['define', 'undefine', 'modify', 'start', 'stop'])
    it(`has the same help for ${verb}, except for options of later versions`, async () => {
      for (const words of [`${verb} --help`, `${verb} -h`, `help ${verb}`]) {
        const expected = await machine.sh(`${theirs} ${words}`);
        const actual = await machine.sh(`${ours} ${words}`);
        // The description of modify mentions such options.
        if (verb !== 'modify') assert.equal(actual.split('USAGE:')[0], expected.split('USAGE:')[0], words);
        // The help and the usage also contain options of later versions.
        const [known, options] = [optionsIn(expected), optionsIn(actual)];
        assert.ok(known.size > 1, words);
        for (const [option, text] of known) assert.equal(options.get(option), text, `${words}: ${option}`);
      }
    });

  it('starts definitions of the other program, in both directions', async () => {
    for (const [definer, starter] of [
      [theirs, ours],
      [ours, theirs],
    ] as const) {
      await machine.sh(reset);
      await machine.sh(`${definer} define -u ${A} -p mtty --jsonfile /root/good.json
${starter} start -u ${A}; ${definer} modify -u ${A} --addattr x --value y; ${starter} modify -u ${A} --delattr`);
      assert.equal(await machine.sh(`cat /sys/bus/mdev/devices/${A}/power/control`), 'auto');
      assert.equal(
        await machine.sh(`${theirs} list -d --dumpjson`),
        await machine.sh(`${ours} list -d --dumpjson`),
      );
      await machine.sh(`${definer} stop -u ${A} && ${starter} undefine -u ${A}`);
    }
  });
});
