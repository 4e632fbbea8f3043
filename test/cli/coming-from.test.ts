/** The commands in docs/coming-from.md: each is run, in the order of the page, on a machine for each section. */
import assert from 'node:assert/strict';
import {readFileSync} from 'node:fs';
import {join} from 'node:path';
import type {MachineDeclaration} from '../simulated-host/declaration.js';
import {addNvidia, addParents} from '../simulated-host/standard-machine.js';
import {machines, runUnits} from '../unit/services.js';
import {run} from './runs.js';

const page = readFileSync(join(import.meta.dirname, '../../docs/coming-from.md'), 'utf8');

interface Section {
  readonly title: string;
  /** The left column: what people type today. */
  readonly before: string;
  /** The commands of the right column, and the cells that have none. */
  readonly commands: readonly string[];
  readonly without: readonly string[];
}

/** The code in a cell or in a text. */
const codeIn = (text: string) => [...text.matchAll(/`([^`]+)`/g)].map(([, code = '']) => code);

/** A pearasys command line, or one that a shell evaluates; not a part of one, which has an ellipsis. */
const isCommand = (code: string) => /^(?:[A-Z_]+=\S+ |eval "\$\()*pearasys [^…]+$/.test(code);

const sections: readonly Section[] = page
  .split(/^## /m)
  .slice(1)
  .map((text) => {
    const rows = [...text.matchAll(/^\| (.*) \| (.*) \|$/gm)]
      .map(([, left = '', right = '']) => ({left, right: right.trim()}))
      .filter(({right}) => right !== 'with pearasys' && !/^-+$/.test(right));
    const commandsIn = (right: string) => codeIn(right).filter(isCommand);
    return {
      title: text.split('\n')[0] ?? '',
      before: rows.map(({left}) => left).join('\n'),
      commands: rows.flatMap(({right}) => commandsIn(right)),
      without: rows.map(({right}) => right).filter((right) => commandsIn(right).length === 0),
    };
  });

/** The words of a command line: as the shell gives them, for what the page has. */
const wordsOf = (line: string) =>
  (line.match(/(?:[^\s'"]|'[^']*')+/g) ?? []).map((word) => word.replaceAll("'", ''));

const withUsers = (declaration: MachineDeclaration) => {
  declaration.files['/etc/passwd'] = 'root:x:0:0::/:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n';
  declaration.files['/etc/group'] = 'root:x:0:\nvfio:x:990:\n';
  declaration.hugePages = [
    {node: 0, size: 2048},
    {node: 0, size: 1_048_576},
  ];
};

/** For each section: the machine, and what its commands must not miss of the tool. */
const tools: Readonly<
  Record<string, {readonly verbs: string; readonly machine?: (declaration: MachineDeclaration) => void}>
> = {
  driverctl: {
    verbs:
      'list-devices list-overrides set-override unset-override load-override none --nosave --noprobe -v saved',
    machine: (declaration) => {
      declaration.files['/etc/driverctl.d/pci-0000:05:00.0'] = 'vfio-pci\n';
    },
  },
  'dpdk-devbind.py': {
    verbs: '-s --status-dev -b -u none --force --noiommu-mode -U -G eth1',
    machine: withUsers,
  },
  "SPDK's setup.sh": {
    verbs: 'status config reset PCI_ALLOWED PCI_BLOCKED DRIVER_OVERRIDE TARGET_USER HUGEMEM',
    machine: withUsers,
  },
  mdevctl: {
    verbs:
      'types list lsmdev define undefine modify start stop --addattr --delattr --value --dumpjson -u -p -t -a -m ' +
      '-d -i list-all list-available create-mdev list-mdevs start-mdev stop-mdev list-saved remove-mdev',
    machine: addParents,
  },
  "virt-aid's guest-devices": {
    verbs: 'setup-devices $VA_QUERY virsh guest',
    machine: (declaration) => {
      declaration.files['/etc/libvirt/qemu/win11.xml'] =
        "<domain type='kvm'><name>win11</name><devices><hostdev mode='subsystem' type='pci'><source>" +
        "<address domain='0x0000' bus='0x02' slot='0x00' function='0x0'/></source></hostdev></devices></domain>";
    },
  },
  'GPU Pit Crew and other libvirt hooks': {
    verbs: 'installer fake nodedev-detach nodedev-reattach vfio-pci.ids',
  },
  'The Python pearasys': {
    verbs:
      '-s -d -v pci driver bind unbind new-id remove-id ls device driver-override remove rescan reset service ' +
      'install uninstall --prefix --install-completion --show-completion',
    machine: (declaration) => {
      addNvidia(declaration);
      // The chains are by ids: there is one such card, and nothing uses it.
      declaration.functions = declaration.functions.filter(({slot}) => !slot.startsWith('0000:01:00.'));
      declaration.processes = declaration.processes.filter(({pid}) => pid === 1);
    },
  },
};

describe('docs/coming-from.md', () => {
  const made = machines();

  it('has a section for each tool', () => {
    assert.deepEqual(
      sections.map(({title}) => title),
      Object.keys(tools),
    );
  });

  for (const {title, before, commands, without} of sections) {
    const {verbs = '', machine} = tools[title] ?? {};

    it(`${title}: nothing that people use is missing`, () => {
      const words = new Set(before.split(/[\s`,|=]+/));
      for (const verb of verbs.split(' ')) assert.ok(words.has(verb), verb);
      for (const cell of without) assert.match(cell, /^nothing to run: /);
    });

    it(`${title}: each command works`, async () => {
      const host = made(machine);
      runUnits(host);
      assert.ok(commands.length >= 4, commands.join('\n'));
      for (const line of commands) {
        const words = wordsOf(line.replace(/^eval "\$\((.*)\)"$/, '$1'));
        const start = words.indexOf('pearasys');
        const environment: NodeJS.ProcessEnv = {HOME: '/root'};
        for (const word of words.slice(0, start)) {
          const [name = '', value] = word.split('=');
          environment[name] = value;
        }
        const {exitCode, stderr} = await run(host, words.slice(start + 1), {environment});
        assert.equal(exitCode, 0, `${line}: ${stderr}`);
        await host.userland.idle();
      }
    });
  }
});
