import {isIP} from 'node:net';

/** What a name is the name of; part of the word that replaces it. */
export type NameKind = 'host' | 'user' | 'guest' | 'volume' | 'path';

/** Names of this machine that are to be replaced. */
export type Names = Readonly<Record<NameKind, readonly string[]>>;

/** What is found by its form. */
type PatternKind = 'serial' | 'uuid' | 'mac' | 'address' | 'disk';

/** A form of private text. */
interface Form {
  readonly pattern: RegExp;
  /** The text that stays before the private part, and the private part; undefined if it is not private after all. */
  readonly split: (match: RegExpExecArray) => readonly [kept: string, secret: string] | undefined;
  readonly kind: PatternKind | NameKind;
}

/** A dash, also as systemd escapes it in the name of a unit. */
const dash = String.raw`(?:-|\\x2d)`;

/** Folders whose entries belong to users. The names of the folders stay. */
const ownFolders = String.raw`/(?:home|media|mnt|srv|run/media)/`;

/** A part of a path, up to what ends it in a sentence, in JSON or in a file of settings. */
const part = String.raw`[^\s/"'\`,;:()<>\[\]\\]+`;

/** In this order: what is found first is not looked at again. */
const forms: readonly Form[] = [
  {
    pattern: new RegExp(`(${ownFolders})(${part}(?:/${part})*)`, 'g'),
    split: ([, kept = '', secret = '']) => [kept, secret],
    kind: 'path',
  },
  {
    // As records have them, see PEARASYS_SERIAL= in records.md.
    pattern: /\b(pcie:|nvme:|mac:)([A-Za-z0-9:._-]*[A-Za-z0-9])/g,
    split: ([, kept = '', secret = '']) => [kept, secret],
    kind: 'serial',
  },
  {
    pattern: new RegExp(String.raw`(\b(?:by-id|by-uuid|by-label|by-partuuid|by-partlabel)/)(${part})`, 'g'),
    split: ([, kept = '', secret = '']) => [kept, secret],
    kind: 'disk',
  },
  {
    pattern: /\b(eui\.|naa\.|nqn\.|iqn\.)([\w.:-]*\w)/g,
    split: ([, kept = '', secret = '']) => [kept, secret],
    kind: 'serial',
  },
  {
    pattern: new RegExp(
      `(?<![0-9a-f])[0-9a-f]{8}${dash}?(?:[0-9a-f]{4}${dash}?){3}[0-9a-f]{12}(?![0-9a-f])`,
      'gi',
    ),
    split: ([secret]) => ['', secret.toLowerCase().replaceAll(new RegExp(dash, 'g'), '')],
    kind: 'uuid',
  },
  {
    // Names of interfaces contain it without colons, see systemd.net-naming-scheme(7).
    pattern: /(?<![\w:])(en|wl|ww|ib|sl)x([0-9a-f]{12})(?![0-9a-f])/g,
    split: ([, kept = '', secret = '']) => [`${kept}x`, secret],
    kind: 'mac',
  },
  {
    pattern: /(?<![\w:-])[0-9a-f]{2}(?:([:-])[0-9a-f]{2})(?:\1[0-9a-f]{2}){4,18}(?![\w:-])/gi,
    split: ([secret]) => ['', secret.toLowerCase().replaceAll(/[:-]/g, '')],
    kind: 'mac',
  },
  {
    pattern: /(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\w)/g,
    split: ([secret]) => (isIP(secret) === 0 || /^(?:127|0)\./.test(secret) ? undefined : ['', secret]),
    kind: 'address',
  },
  {
    pattern: /(?<![\w:.])[0-9a-f]*:[0-9a-f]*:[0-9a-f:]*(?![\w:])/gi,
    split: ([text]) => {
      const secret = text.toLowerCase();
      return isIP(secret) === 0 || secret === '::' || secret === '::1' ? undefined : ['', secret];
    },
    kind: 'address',
  },
];

/**
 * Replaces what is private in the texts of a report by words such as `uuid-1`. The same word always stands for the same
 * thing, so that a reader can still follow it from one text to another.
 */
export class Pseudonyms {
  readonly #words = new Map<string, string>();
  readonly #counts = new Map<string, number>();
  /** In the order in which they are looked for. */
  readonly #forms: readonly Form[];

  constructor(names: Names) {
    const {path, ...others} = names;
    // A known path may contain blanks, which the form of a path may not.
    this.#forms = [...formsOf({path}, `(?:/${part})*`), ...forms, ...formsOf(others, '')];
  }

  /** The text without what is private. */
  replace(text: string): string {
    // The words that replace something are at the odd indexes.
    let pieces = [text];
    for (const form of this.#forms)
      pieces = pieces.flatMap((piece, index) => (index % 2 === 1 ? [piece] : this.#cut(piece, form)));
    return pieces.join('');
  }

  /** The same for all texts in a value that JSON can have. Its keys stay. */
  replaceIn(value: unknown): unknown {
    if (typeof value === 'string') return this.replace(value);
    if (Array.isArray(value)) return value.map((one) => this.replaceIn(one));
    if (typeof value !== 'object' || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, this.replaceIn(one)]));
  }

  /** The text, cut at what has this form: between the pieces of it are the words for what is private. */
  #cut(text: string, {pattern, split, kind}: Form): string[] {
    const pieces: string[] = [];
    let from = 0;
    for (const match of text.matchAll(pattern)) {
      const found = split(match);
      if (found === undefined) continue;
      const [kept, secret] = found;
      pieces.push(text.slice(from, match.index) + kept, this.#wordFor(kind, secret));
      from = match.index + match[0].length;
    }
    return [...pieces, text.slice(from)];
  }

  #wordFor(kind: string, secret: string): string {
    const known = this.#words.get(`${kind} ${secret}`);
    if (known !== undefined) return known;
    const count = (this.#counts.get(kind) ?? 0) + 1;
    const word = `${kind}-${count}`;
    this.#counts.set(kind, count);
    this.#words.set(`${kind} ${secret}`, word);
    return word;
  }
}

/** The forms of names, longer ones first: a name may begin with another one. */
function formsOf(names: Partial<Names>, rest: string): Form[] {
  return Object.entries(names)
    .flatMap(([kind, ofKind]) => ofKind.map((name) => ({kind: kind as NameKind, name})))
    .filter(({name}) => name !== '')
    .sort((one, other) => other.name.length - one.name.length)
    .map(({kind, name}) => ({
      pattern: new RegExp(
        String.raw`(?<=^|\W|_|\\x[0-9a-f]{2})${escapePattern(name)}${rest}(?![A-Za-z0-9])`,
        'g',
      ),
      split: ([secret]) => ['', secret],
      kind,
    }));
}

function escapePattern(text: string): string {
  return text.replaceAll(/[.*+?^${}()|[\]\\/-]/g, String.raw`\$&`);
}
