import type {HostReader} from '../host/host.js';

/** A line of mountinfo, see proc(5). */
export interface Mount {
  readonly id: string;
  /** `major:minor` of its files. */
  readonly number: string;
  readonly target: string;
  readonly type: string;
  /** What was mounted: text that the user who mounted it chose. */
  readonly source: string;
  /** The options of the file system, as `rw,pagesize=2M`. */
  readonly options: string;
}

/**
 * File systems of the kernel alone, whose stat(2) of an open file asks no server and no other process. FUSE, network
 * file systems, 9p and autofs may wait for ever; so may overlayfs, which may be on top of one.
 */
const localTypes = new Set(
  'devtmpfs tmpfs ramfs ext2 ext3 ext4 xfs btrfs bcachefs f2fs squashfs erofs vfat'.split(' '),
);

/** The mounts of a process's mount namespace; `self` for this one's. */
export function readMounts(host: HostReader, pid = 'self'): Mount[] {
  const text = host.readText(`/proc/${pid}/mountinfo`);
  return (text === undefined || text === '' ? [] : text.split('\n')).map((line) => {
    const [head = '', tail = ''] = line.split(' - ');
    const [id = '', , number = '', , target = ''] = head.split(' ');
    const [type = '', source = '', options = ''] = tail.split(' ');
    return {id, number, target: unescape(target), type, source: unescape(source), options};
  });
}

/** The file systems that open files are on, without asking the file systems. */
export class MountTypes {
  readonly #host: HostReader;
  /** By the ID of the mount, of which the kernel has one for all namespaces. */
  readonly #types = new Map<string, string>();
  readonly #read = new Set<string>();

  constructor(host: HostReader) {
    this.#host = host;
  }

  /**
   * Whether stat(2) of this open file is sure to return.
   * @param file the number of the descriptor, as in /proc/<pid>/fd.
   */
  isLocal(pid: string, file: string): boolean {
    const info = this.#host.readText(`/proc/${pid}/fdinfo/${file}`);
    const id = /^mnt_id:\s*(\d+)/m.exec(info ?? '')?.[1];
    return id !== undefined && localTypes.has(this.#typeOf(id, pid) ?? '');
  }

  #typeOf(id: string, pid: string): string | undefined {
    for (const from of ['self', pid]) {
      const known = this.#types.get(id);
      if (known !== undefined) return known;
      if (!this.#read.has(from))
        for (const mount of readMounts(this.#host, from)) this.#types.set(mount.id, mount.type);
      this.#read.add(from);
    }
    return this.#types.get(id);
  }
}

/** Space, tab, newline and backslash are written in octal in the kernel's files. */
export function unescape(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}
