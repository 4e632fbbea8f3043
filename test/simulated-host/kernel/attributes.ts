import {Errno} from '../errno.js';
import {wholeNumber} from './input.js';
import type {SimulatedMachine} from './machine.js';
import {setVgpuType} from './vgpu.js';

/** One write as the table sees it. */
interface Write {
  readonly machine: SimulatedMachine;
  /** The attribute's path without links. */
  readonly real: string;
  readonly value: string;
  /** What the groups of the path's expression matched. */
  readonly words: readonly (string | undefined)[];
}

/** A kind of attribute and the kernel's answer to a write to it. */
interface Answer {
  readonly path: RegExp;
  readonly write: (write: Write) => void;
}

const device = (attribute: string) =>
  new RegExp(`^/sys/devices/pci[^/]+/(?:[^/]+/)*([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\\.[0-7])/${attribute}$`);
const uuidText = '[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}';
const word = (write: Write, index = 0) => write.words[index] ?? '';
/** A value that names a device or a state may end with one newline. */
const name = ({value}: Write) => value.replace(/\n$/, '');

/** The first whose path matches answers. */
export const answers: readonly Answer[] = [
  {path: /^\/sys\/bus\/pci\/drivers\/([^/]+)\/bind$/, write: (w) => w.machine.drivers.bind(word(w), name(w))},
  {
    path: /^\/sys\/bus\/pci\/drivers\/([^/]+)\/unbind$/,
    write: (w) => w.machine.drivers.unbind(word(w), name(w)),
  },
  {
    path: /^\/sys\/bus\/pci\/drivers\/([^/]+)\/new_id$/,
    write: (w) => w.machine.drivers.addId(word(w), w.value),
  },
  {
    path: /^\/sys\/bus\/pci\/drivers\/([^/]+)\/remove_id$/,
    write: (w) => w.machine.drivers.removeId(word(w), w.value),
  },
  {path: /^\/sys\/bus\/pci\/drivers_probe$/, write: (w) => w.machine.drivers.probe(name(w))},
  {
    path: /^\/sys\/bus\/pci\/drivers_autoprobe$/,
    write: (w) => w.machine.drivers.setAutoprobe(!w.value.startsWith('0')),
  },
  {
    path: /^\/sys\/bus\/pci\/rescan$/,
    write: ({machine, value}) => {
      if (wholeNumber(value) !== 0) machine.pci.rescan();
    },
  },
  {
    path: /\/pci_bus\/([^/]+)\/rescan$/,
    write: (w) => {
      if (wholeNumber(w.value) !== 0) w.machine.pci.rescan(word(w));
    },
  },
  {
    // The bus the device is on, not the one behind it.
    path: device('rescan'),
    write: (w) => {
      if (wholeNumber(w.value) !== 0) w.machine.pci.rescan(word(w).slice(0, 7));
    },
  },
  {
    path: device('remove'),
    write: (w) => {
      if (wholeNumber(w.value) !== 0) w.machine.pci.remove(word(w));
    },
  },
  {
    path: device('reset'),
    write: (w) => {
      if (wholeNumber(w.value) !== 1) throw new Errno('EINVAL');
      w.machine.pci.reset(word(w));
    },
  },
  {path: device('driver_override'), write: (w) => w.machine.drivers.setOverride(word(w), w.value)},
  {path: device('reset_method'), write: (w) => w.machine.pci.setResetMethods(word(w), w.value)},
  {path: device('sriov_numvfs'), write: (w) => w.machine.sriov.setVirtualFunctions(word(w), w.value)},
  {
    path: device('resource(\\d)_resize'),
    write: (w) => w.machine.pci.resize(word(w), Number(word(w, 1)), w.value),
  },
  {
    path: device('sriov_drivers_autoprobe'),
    write: (w) => w.machine.sriov.setVirtualAutoprobe(word(w), w.value),
  },
  {
    path: device('nvidia/current_vgpu_type'),
    write: (w) => setVgpuType(w.machine, word(w), w.real, w.value),
  },
  {path: device('enable'), write: (w) => w.machine.pci.enable(word(w), w.value)},
  {path: device('power/control'), write: (w) => w.machine.pci.setPowerControl(word(w), w.value)},
  {
    path: device('(?:d3cold_allowed|msi_bus)'),
    write: ({machine, real, value}) => machine.store(real, wholeNumber(value) === 0 ? '0' : '1'),
  },
  {
    path: /^\/sys\/devices\/virtual\/vtconsole\/vtcon(\d+)\/bind$/,
    write: (w) => w.machine.console.bindConsole(word(w), wholeNumber(w.value) !== 0),
  },
  {
    path: /^\/sys\/bus\/platform\/drivers\/([^/]+)\/(bind|unbind)$/,
    write: (w) => w.machine.console.bindFirmwareFramebuffer(word(w), name(w), word(w, 1) === 'bind'),
  },
  {
    path: /^\/sys\/devices\/.*\/uevent$/,
    write: (w) => {
      const [action = '', uuid] = name(w).split(' ');
      if (!['add', 'remove', 'change', 'move', 'online', 'offline', 'bind', 'unbind'].includes(action))
        throw new Errno('EINVAL');
      w.machine.events.trigger(w.real, action, uuid);
    },
  },
  {
    path: /^(\/sys\/devices\/.+)\/mdev_supported_types\/([^/]+)\/create$/,
    write: (w) => w.machine.mdevs.create(word(w), word(w, 1), w.value),
  },
  {
    path: new RegExp(`^/sys/devices/.+/(${uuidText})/remove$`),
    write: (w) => {
      if (wholeNumber(w.value) !== 0) w.machine.mdevs.remove(word(w));
    },
  },
  {
    path: new RegExp(`^/sys/devices/.+/(${uuidText})/([^/]+)$`),
    write: (w) => w.machine.mdevs.setAttribute(word(w), word(w, 1), w.value),
  },
  {
    path: /^(\/sys\/.*\/hugepages-\d+kB)\/nr_hugepages$/,
    write: (w) => w.machine.hugePages.setPages(word(w), w.value),
  },
  {path: /^\/(?:sys\/module\/[^/]+\/parameters|proc\/sys)\//, write: (w) => w.machine.store(w.real, w.value)},
  {
    path: device('(.+)'),
    write: (w) => {
      const declared = w.machine.functions.get(word(w))?.declaration.attributes ?? {};
      if (declared[word(w, 1)] === undefined)
        throw new Error(
          `the simulation has no answer to a write to ${w.real}: add one to the table in attributes.ts`,
        );
      w.machine.store(w.real, w.value);
    },
  },
];
