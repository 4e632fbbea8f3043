/** The text of a manual page, see man(7): from Markdown, and from single lines. */
import {marked, type Token, type Tokens} from 'marked';

/** What a link in Markdown becomes. */
export type Resolve = (target: string, text: string) => string;

/** A part of a Markdown file below one heading; the first part is below the title. */
export interface Part {
  readonly heading: string;
  /** 1 for the title. */
  readonly depth: number;
  readonly tokens: readonly Token[];
}

/** The parts of a Markdown file, in their order. A part has all that is below its heading up to the next one. */
export function parts(markdown: string): Part[] {
  const found: {heading: string; depth: number; tokens: Token[]}[] = [];
  for (const token of marked.lexer(markdown)) {
    if (token.type === 'heading') {
      const {text, depth} = token as Tokens.Heading;
      found.push({heading: text, depth, tokens: []});
    } else if (token.type !== 'space') found.at(-1)?.tokens.push(token);
  }
  return found;
}

/** A heading's anchor, as in a link. */
export function anchor(heading: string): string {
  return heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
    .replaceAll(' ', '-');
}

/** The heading of a section, or with depth 2 of a part of a section. */
export function heading(text: string, depth: 1 | 2 = 1): string {
  const plain = text.replaceAll('`', '');
  return depth === 1 ? `.SH ${escape(plain.toUpperCase())}` : `.SS ${escape(plain)}`;
}

/** An entry of a list of terms. */
export function item(term: string, says: string): string[] {
  return ['.TP', `\\fB${escape(term)}\\fR`, text(says)];
}

/** A paragraph's text, in which what is between backticks is bold. */
export function text(words: string): string {
  return line(escape(words).replaceAll(/`([^`]+)`/g, '\\fB$1\\fR'));
}

/** Command lines and files, as they are. */
export function example(code: string): string[] {
  return [
    '.RS 4',
    '.EX',
    ...code.split('\n').map((each) => line(escape(each).replaceAll('`', '\\(ga'))),
    '.EE',
    '.RE',
  ];
}

/** The lines of Markdown below a heading. */
export function body(tokens: readonly Token[], resolve: Resolve): string[] {
  return tokens.flatMap((token, index) => block(token, resolve, index === 0));
}

/** @param isFirst whether it follows a heading or the mark of a list, after which there is no new paragraph. */
function block(token: Token, resolve: Resolve, isFirst: boolean): string[] {
  const paragraph = isFirst ? [] : ['.PP'];
  switch (token.type) {
    case 'paragraph':
    case 'text':
      return [...paragraph, inline(token as Tokens.Paragraph | Tokens.Text, resolve)];
    case 'code':
      return [...paragraph, ...example((token as Tokens.Code).text)];
    case 'list':
      return list(token as Tokens.List, resolve);
    case 'table':
      return table(token as Tokens.Table, resolve);
    case 'space':
      return [];
    default:
      throw new Error(`no form for the Markdown of a manual page: ${token.type}: ${token.raw}`);
  }
}

function list({items, ordered, start}: Tokens.List, resolve: Resolve): string[] {
  return items.flatMap((one, index) => {
    const mark = ordered ? `${Number(start) + index}. 4` : '\\(bu 2';
    const [first, ...rest] = one.tokens.filter(({type}) => type !== 'space');
    return [
      `.IP ${mark}`,
      ...(first === undefined ? [] : block(first, resolve, true)),
      ...(rest.length === 0 ? [] : ['.RS', ...rest.flatMap((token) => block(token, resolve, false)), '.RE']),
    ];
  });
}

/** Each row is a term and what it means; the columns after the second begin with their heads. */
function table({header, rows}: Tokens.Table, resolve: Resolve): string[] {
  return rows.flatMap(([term, says, ...more]) => [
    '.TP',
    bold(inlineOf(term?.tokens ?? [], resolve)),
    line(inlineOf(says?.tokens ?? [], resolve)),
    ...more.flatMap(({tokens}, index) => [
      '.br',
      line(`${capital(escape(header[index + 2]?.text ?? ''))}: ${inlineOf(tokens, resolve)}`),
    ]),
  ]);
}

function bold(words: string): string {
  return line(`\\fB${words.replaceAll(/\\f[BIR]/g, '')}\\fR`);
}

function capital(words: string): string {
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** The text of a block: in a list marked puts it in a token of its own. */
function inline(token: Tokens.Paragraph | Tokens.Text, resolve: Resolve): string {
  return line(inlineOf(token.tokens ?? [token], resolve));
}

function inlineOf(tokens: readonly Token[], resolve: Resolve): string {
  return tokens
    .map((token) => {
      switch (token.type) {
        case 'text':
        case 'escape':
          return escape((token as Tokens.Text).text.replaceAll('\n', ' '));
        case 'codespan':
        case 'strong':
          return `\\fB${escape((token as Tokens.Codespan).text)}\\fR`;
        case 'em':
          return `\\fI${escape((token as Tokens.Em).text)}\\fR`;
        case 'link': {
          const {href, text: words} = token as Tokens.Link;
          return escape(resolve(href, words)).replaceAll(/`([^`]+)`/g, '\\fB$1\\fR');
        }
        default:
          throw new Error(`no form for the Markdown of a manual page: ${token.type}: ${token.raw}`);
      }
    })
    .join('');
}

/** A line of text: one that begins like a request of roff begins with nothing that is seen. */
function line(words: string): string {
  return words.replace(/^(['.])/, '\\&$1');
}

/** Escapes what roff would read as its own or print as another character, and what is not ASCII. */
function escape(words: string): string {
  return words
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll('^', '\\(ha')
    .replaceAll('~', '\\(ti')
    .replaceAll("'", '\\(aq')
    .replaceAll(
      /[^\n -~]/gu,
      (char) => `\\[u${char.codePointAt(0)?.toString(16).toUpperCase().padStart(4, '0') ?? ''}]`,
    );
}
