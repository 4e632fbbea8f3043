import type {FileCase} from './files.js';

/**
 * Valid and invalid definitions of mediated devices, each with the expected result: what happens to the device when
 * its parent registers. libexec/mdev-parent handles definitions in the exact form that mdevctl writes, and leaves all
 * others to TypeScript (src/state/definitions).
 */

/** The device of all definitions, and its parent. */
export const definitionSubject = {
  uuid: '11111111-1111-4111-8111-111111111111',
  parent: 'mtty',
  type: 'mtty-1',
} as const;

/** The path of the definition. */
export const definitionPlace = `/etc/mdevctl.d/${definitionSubject.parent}/${definitionSubject.uuid}`;

/** One definition. */
export interface DefinitionCase extends FileCase {
  readonly name: string;
  /** `auto`: the device is started; `manual`: it is not started; `ignored`: the file is ignored. */
  readonly answer: 'auto' | 'manual' | 'ignored';
  /** Whether the shell must handle it without Node. */
  readonly quick?: boolean;
}

const lines = (start: string, attrs = '[]') => [
  '{',
  `  "mdev_type": "${definitionSubject.type}",`,
  `  "start": "${start}",`,
  `  "attrs": ${attrs}`,
  '}',
];
const auto = lines('auto').join('\n');
const manual = lines('manual').join('\n');

/** The text of an automatic definition with one line replaced. */
const replaced = (index: number, line: string) =>
  lines('auto')
    .map((own, at) => (at === index ? line : own))
    .join('\n');

const one = (
  answer: DefinitionCase['answer'],
  name: string,
  content: string,
  more: Partial<DefinitionCase> = {},
): DefinitionCase => ({name, content, answer, ...more});

export const definitionCases: readonly DefinitionCase[] = [
  one('auto', 'as mdevctl writes it', auto, {quick: true}),
  one('manual', 'as mdevctl writes a manual one', manual, {quick: true}),
  one('auto', 'with a newline at its end', `${auto}\n`, {quick: true}),
  one('auto', 'with empty lines at its end', `${auto}\n\n\n`),
  one('auto', 'on one line', '{"mdev_type": "mtty-1", "start": "auto", "attrs": []}'),
  one('auto', 'with DOS line endings', auto.replaceAll('\n', '\r\n')),
  one('auto', 'with attributes', lines('auto', '[\n    {\n      "a": "b"\n    }\n  ]').join('\n')),
  one('auto', 'without attributes', '{"mdev_type": "mtty-1", "start": "auto"}'),
  one('auto', 'with a member of a newer version', auto.replace('[]', '[],\n  "later": 1')),
  one('manual', 'with an invalid start', auto.replace('"auto"', '"Auto"')),
  one('auto', 'that only root can read', auto, {mode: 0o600, quick: true}),
  one('auto', 'that is a link', auto, {kind: 'link'}),
  one('ignored', 'that is empty', ''),
  one('ignored', 'that is truncated', auto.slice(0, -2)),
  one('ignored', 'with text after its end', `${auto}\n{}`),
  one('ignored', 'with text after an empty line after its end', `${auto}\n\n{}`),
  one('ignored', 'with a bare word for its type', replaced(1, 'mtty-1')),
  one('ignored', 'with an unterminated type', replaced(1, '  "mdev_type": "mtty-1')),
  one('ignored', 'with a type without a comma', replaced(1, '  "mdev_type": "mtty-1"')),
  one('ignored', 'with another key for its type', replaced(1, '  "type": "mtty-1",')),
  one('ignored', 'with a type that is a path', replaced(1, '  "mdev_type": "../mtty-1",')),
  one('ignored', 'with a NUL in its type', replaced(1, '  "mdev_type": "mtty\0-1",')),
  one('ignored', 'with NULs at its end', `${auto}\0\0`),
  one('ignored', 'with a NUL after its last newline', `${auto}\n\0`),
  one('ignored', 'with a comment', `// auto\n${auto}`),
  one('ignored', 'with invalid attributes', auto.replace('[]', '{}')),
  one('ignored', 'that others can write', auto, {mode: 0o646}),
  one('ignored', 'that a group can write', auto, {mode: 0o664}),
  one('ignored', 'in a folder that others can write', auto, {folderMode: 0o777}),
  one('ignored', 'in a folder that a group can write', auto, {folderMode: 0o775}),
  one('ignored', 'of another user', auto, {foreign: 'file'}),
  one('ignored', "in another user's folder", auto, {foreign: 'folder'}),
  one('ignored', 'that is a folder', auto, {kind: 'folder'}),
  one('ignored', 'that is a FIFO', auto, {kind: 'fifo'}),
];
