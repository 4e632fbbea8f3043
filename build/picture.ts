/** The picture of the demo: scenes as a terminal shows them, with text that can be selected and searched. */
import {execFileSync} from 'node:child_process';
import {join} from 'node:path';
import Handlebars from 'handlebars';

const repository = join(import.meta.dirname, '..');

/** The scenes of the picture, in the demo's order. */
const scenes = [
  'A device in use is refused, and its holders are named',
  'A switch that fails halfway is rolled back',
  'A card is installed once, and claimed at every boot and at every hot-add',
];

/** Sizes in pixels. The width of a character is said for each row, because each system has another monospace font. */
const columns = 104;
const character = {width: 7.8, height: 18, size: 13};
const margin = 16;

/** White space within a text would be shown. */
const template = Handlebars.compile(
  `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{width}} {{height}}" width="{{width}}" height="{{height}}">
<title>What make demo prints</title>
<style>
  rect { fill: #ffffff; stroke: #d0d7de; }
  text { font: {{size}}px ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace; fill: #1f2328; }
  .scene, .command { font-weight: bold; }
  .scene { fill: #0550ae; }
  .event { fill: #59636e; }
  .error { fill: #b42318; }
  @media (prefers-color-scheme: dark) {
    rect { fill: #0d1117; stroke: #3d444d; }
    text { fill: #e6edf3; }
    .scene { fill: #79c0ff; }
    .event { fill: #9198a1; }
    .error { fill: #ff9492; }
  }
</style>
<rect width="{{width}}" height="{{height}}" rx="8"/>
{{#each texts}}
<text class="{{kind}}" xml:space="preserve">{{#each pieces}}<tspan x="{{x}}" y="{{y}}" textLength="{{length}}">{{piece}}</tspan>{{/each}}</text>
{{/each}}
</svg>
`,
  {strict: true},
);

/** What a line of the demo is, by how it begins. */
const kinds: readonly (readonly [start: string, kind: string])[] = [
  ['== ', 'scene'],
  ['$ ', 'command'],
  ['# ', 'event'],
  ['pearasys: ', 'error'],
  ['(exit code ', 'event'],
];

/** What `make demo` prints where there is no terminal. */
export function demoOutput(): string {
  return execFileSync(process.execPath, ['--import', 'tsx', 'test/demo/demo.ts'], {
    cwd: repository,
    encoding: 'utf8',
  });
}

/** The lines of what the demo has printed that the picture shows; an empty one is between two scenes. */
export function shownLines(printed: string): string[] {
  const parts = printed.split('\n\n').map((part) => part.trimEnd().split('\n'));
  return scenes.flatMap((title, index) => {
    const part = parts.find(([first]) => first === `== ${title}`);
    if (part === undefined) throw new Error(`the demo has no scene “${title}”`);
    return index === 0 ? part : ['', ...part];
  });
}

/** The picture of these lines. A line that is too long continues in the next row, and stays one text. */
export function picture(lines: readonly string[]): string {
  let row = 0;
  const texts = lines.flatMap((line) => {
    if (line === '') {
      row += 1;
      return [];
    }
    const [, kind = 'output'] = kinds.find(([start]) => line.startsWith(start)) ?? [];
    const pieces = (line.match(new RegExp(`.{1,${columns}}`, 'g')) ?? []).map((piece) => ({
      piece,
      x: margin,
      y: margin + character.size + character.height * row++,
      length: rounded(piece.length * character.width),
    }));
    return [{kind, pieces}];
  });
  return template({
    texts,
    size: character.size,
    width: rounded(columns * character.width + 2 * margin),
    height: row * character.height + 2 * margin,
  });
}

const rounded = (length: number) => Math.round(length * 10) / 10;
