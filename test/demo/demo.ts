/**
 * What pearasys does, shown on a simulated machine: each command line as a person types it, and what it prints.
 * Nothing here touches the machine it runs on. It checks what it shows, and exits with 1 if a check fails.
 */
import {readFileSync} from 'node:fs';
import {join} from 'node:path';
import {main} from '../../src/entry/cli/main.js';
import {DescriptorOutput} from '../../src/entry/cli/output.js';
import {claim} from '../../src/entry/handlers/claim.js';
import {report, type Handler, type HandlerContext} from '../../src/entry/handlers/handler.js';
import {release} from '../../src/entry/handlers/release.js';
import {ExitCode} from '../../src/host/errors.js';
import {defaultLayout} from '../../src/config/layout.js';
import {devicePath} from '../../src/devices/pci/device.js';
import {parseSlot} from '../../src/devices/pci/slot.js';
import {SimulatedHost, type EffectHook} from '../simulated-host/simulated-host.js';
import {functionOf} from '../simulated-host/standard-machine.js';

/** The graphics card that nothing uses, and its sound function. */
const card = '0000:02:00.0';
const sound = '0000:02:00.1';
const terminal = new DescriptorOutput(1);

/** A simulated machine with pearasys installed, and a user at its terminal. */
class Stage {
  readonly machine = SimulatedHost.standard((declaration) => {
    const rules = readFileSync(join(import.meta.dirname, '../../udev/60-pearasys.rules'), 'utf8');
    // As `make install` does it.
    declaration.files['/usr/lib/udev/rules.d/60-pearasys.rules'] = rules.replaceAll('@SYSCONFDIR@', '/etc');
  });
  /** What happens on the machine while a command is at work. */
  meanwhile: EffectHook = () => undefined;
  /** What the units' programs have done to the machine. */
  unitEffects: readonly string[] = [];
  readonly #failures: string[];

  constructor(failures: string[]) {
    this.#failures = failures;
    this.machine.userland.execute = (unit, argv) => this.#execute(unit, argv);
  }

  /** Types a command line, and prints it with its output and its exit code. @returns what it printed. */
  async type(line: string, exitCode: ExitCode = ExitCode.done): Promise<string> {
    print(`$ ${line}`);
    let printed = '';
    const output = {
      isTerminal: true,
      columns: terminal.isTerminal ? terminal.columns : 140,
      write: (text: string) => {
        printed += text;
        terminal.write(text);
      },
    };
    // Each command line is a process of its own, and reads the machine again.
    const host = new SimulatedHost(this.machine.machine);
    host.beforeEffect((effect) => this.meanwhile(effect));
    const got = await main(line.replace(/^(?:sudo )?pearasys /, '').split(' '), {
      host,
      stdout: output,
      stderr: output,
      interactive: false,
      environment: terminal.isTerminal ? process.env : {NO_COLOR: '1'},
    });
    await host.userland.idle();
    if (got !== ExitCode.done) print(`(exit code ${got})`);
    this.check(`\`${line}\` ends with ${exitCode}`, got === exitCode);
    return printed;
  }

  /** Tells what happens to the machine, and lets it happen. */
  async happens(what: string, action: () => void): Promise<void> {
    print(`# ${what}`);
    action();
    await this.machine.userland.idle();
  }

  check(what: string, isSo: boolean): void {
    if (isSo) return;
    this.#failures.push(what);
    print(`FAILED: ${what}`);
  }

  checkDrivers(...wanted: readonly (string | undefined)[]): void {
    const found = [card, sound].map((slot) => this.machine.machine.functions.get(slot)?.driver);
    this.check(
      `${card} and ${sound} are on ${wanted.join(' and ')}, not ${found.join(' and ')}`,
      found.join() === wanted.join(),
    );
  }

  /** What libexec's programs do for a unit; its warnings are what the journal has. */
  async #execute(unit: string, [program = '', ...args]: readonly string[]): Promise<number> {
    const handler = handlers.get(program);
    if (handler === undefined) throw new Error(`${unit} runs ${program}`);
    // libexec/release: the device has gone, and there is nothing to release.
    if (handler === release && !this.machine.exists(devicePath(parseSlot(args[0] ?? '')))) return 0;
    const log: HandlerContext['log'] = (priority, text) => {
      if (priority <= 4) print(`journal: ${unit}: ${text}`);
    };
    const host = new SimulatedHost(this.machine.machine);
    try {
      await handler({host, layout: defaultLayout, log}, args);
      return 0;
    } catch (error) {
      return report(error, log);
    } finally {
      this.unitEffects = [...this.unitEffects, ...host.effects()];
    }
  }
}

/** What Node runs for the programs that the demo's units run. */
const handlers: ReadonlyMap<string, Handler> = new Map([
  [`${defaultLayout.libexec}/claim`, claim],
  [`${defaultLayout.libexec}/release`, release],
]);

/** A part of the demo, on a machine of its own. */
interface Scene {
  readonly title: string;
  readonly play: (stage: Stage) => Promise<void>;
}

const scenes: readonly Scene[] = [
  {
    title: 'The devices of a machine, their drivers, and what uses them',
    play: async (stage) => {
      const listed = await stage.type('pearasys list');
      stage.check('the list names the display server', listed.includes('Xorg[901]'));
    },
  },
  {
    title: 'A device in use is refused, and its holders are named',
    play: async (stage) => {
      const refused = await stage.type('sudo pearasys bind vfio-pci 01:00.0 --siblings', ExitCode.refused);
      stage.check('the refusal names the process', refused.includes('process 901 (Xorg)'));
      const disk = await stage.type('sudo pearasys bind vfio-pci nvme0n1 --force', ExitCode.refused);
      stage.check('the refusal names the mount', disk.includes('/dev/nvme0n1p2 is mounted at /'));
    },
  },
  {
    title: 'A card is switched to another driver with all its functions, and back',
    play: async (stage) => {
      await stage.type('pearasys list --group 2');
      await stage.type('sudo pearasys -v bind vfio-pci 02:00.0 --siblings');
      stage.checkDrivers('vfio-pci', 'vfio-pci');
      await stage.type('pearasys list --group 2');
      await stage.type('sudo pearasys bind default 02:00.0 --siblings');
      stage.checkDrivers('nouveau', 'snd_hda_intel');
    },
  },
  {
    title: 'A switch that fails halfway is rolled back',
    play: async (stage) => {
      await stage.happens("vfio-pci does not accept the card's second function", () =>
        stage.machine.refuseProbe(sound, 'vfio-pci'),
      );
      await stage.type('sudo pearasys bind vfio-pci 02:00.0 --siblings', ExitCode.failed);
      stage.checkDrivers('nouveau', 'snd_hda_intel');
    },
  },
  {
    title: 'A write to the kernel that never returns does not hang the command',
    play: async (stage) => {
      const {machine} = stage.machine;
      await stage.type('sudo pearasys bind vfio-pci 02:00.0 --siblings');
      print('# while the next command runs, a guest opens the card');
      stage.meanwhile = (effect) => {
        if (effect.kind !== 'write' || !effect.path.endsWith('/unbind')) return;
        stage.meanwhile = () => undefined;
        machine.addProcess({
          pid: 4242,
          comm: 'qemu-system-x86',
          holds: ['/dev/vfio/2', 'anon_inode:[vfio-device]'],
        });
      };
      const stuck = await stage.type('sudo pearasys bind default 02:00.0 --siblings', ExitCode.stuck);
      stage.check('the error names the guest', stuck.includes('4242 (qemu-system-x86)'));
      await stage.happens('the guest ends', () => machine.endProcess(4242));
      await stage.type('sudo pearasys bind default 02:00.0 --siblings');
      stage.checkDrivers('nouveau', 'snd_hda_intel');
    },
  },
  {
    title: 'A card is installed once, and claimed at every boot and at every hot-add',
    play: async (stage) => {
      const {machine, userland} = stage.machine;
      await stage.type('sudo pearasys -s 02:00.0 service install vfio-pci --siblings --now');
      stage.checkDrivers('vfio-pci', 'vfio-pci');
      await stage.happens('the card is pulled out', () => {
        for (const slot of [sound, card]) machine.hotRemove(slot);
      });
      stage.unitEffects = [];
      await stage.happens('it is plugged in again, and the kernel binds it to its default drivers', () => {
        for (const slot of [card, sound]) machine.hotAdd(slot);
        stage.checkDrivers('nouveau', 'snd_hda_intel');
      });
      print(
        '# the udev rule has bound it to vfio-pci without starting a process, and the units had nothing to do',
      );
      stage.checkDrivers('vfio-pci', 'vfio-pci');
      stage.check('the rule starts no process', userland.processes.length === 0);
      stage.check('the units have nothing to do', stage.unitEffects.length === 0);
      await stage.type('pearasys service list');
    },
  },
  {
    title: 'Another card in the slot is left alone',
    play: async (stage) => {
      const {machine} = stage.machine;
      await stage.type('sudo pearasys -s 02:00.0 service install vfio-pci --siblings --now');
      await stage.happens('the card is pulled out', () => {
        for (const slot of [sound, card]) machine.hotRemove(slot);
      });
      await stage.happens('another model is plugged into its slot', () => {
        machine.hotAdd({...functionOf(machine.declaration, card), id: '10de:1b81'});
        machine.hotAdd({...functionOf(machine.declaration, sound), id: '10de:10f1'});
      });
      stage.checkDrivers('nouveau', 'snd_hda_intel');
      const listed = await stage.type('pearasys service list');
      stage.check('service list shows it', listed.includes('other-card'));
      await stage.type('sudo pearasys -s 02:00.0 -s 02:00.1 service uninstall');
      stage.checkDrivers('nouveau', 'snd_hda_intel');
    },
  },
];

function print(line: string): void {
  terminal.write(`${line}\n`);
}

const failures: string[] = [];
for (const [index, {title, play}] of scenes.entries()) {
  print(`${index === 0 ? '' : '\n'}== ${title}`);
  const stage = new Stage(failures);
  try {
    await play(stage);
  } finally {
    stage.machine.dispose();
  }
}
print(
  `\n== ${scenes.length} scenes on simulated machines; this one was not touched. ` +
    (failures.length === 0 ? 'All checks passed.' : `${failures.length} checks failed:`),
);
for (const failure of failures) print(`   ${failure}`);
process.exitCode = failures.length === 0 ? 0 : 1;
