/** `KEY{attribute}operator"value"` of a rule. */
export interface Token {
  readonly key: string;
  readonly attribute: string | undefined;
  readonly operator: string;
  readonly value: string;
}

/** One line of a rules file. */
export interface Rule {
  readonly file: string;
  readonly line: number;
  readonly tokens: readonly Token[];
}

/**
 * Within one line udev does not go from left to right: it sorts by kind, matches first. So an ENV match sees what
 * was there before an IMPORT on the same line, and a TEST is done before it.
 */
const order = [
  'match ACTION',
  'match DEVPATH',
  'match KERNEL',
  'match ENV',
  'match TAG',
  'match SUBSYSTEM',
  'match DRIVER',
  'match ATTR',
  'match KERNELS',
  'match SUBSYSTEMS',
  'match DRIVERS',
  'match ATTRS',
  'match TEST',
  'match PROGRAM',
  'IMPORT file',
  'IMPORT program',
  'IMPORT db',
  'IMPORT cmdline',
  'match RESULT',
  'set OPTIONS',
  'set OWNER',
  'set GROUP',
  'set MODE',
  'set ENV',
  'set TAG',
  'set SYMLINK',
  'set ATTR',
  'set RUN',
  'set GOTO',
  'set LABEL',
];

export const comparisons = new Set(['==', '!=']);

function kindOf(token: Token): string {
  if (token.key === 'IMPORT') return `IMPORT ${token.attribute ?? ''}`;
  if (token.key === 'TEST' || token.key === 'PROGRAM') return `match ${token.key}`;
  return `${comparisons.has(token.operator) ? 'match' : 'set'} ${token.key}`;
}

/**
 * Reads a rules file.
 * @throws Error for anything that this subset does not know: a rule that is skipped silently would prove nothing.
 */
export function parseRules(text: string, file = 'rules'): Rule[] {
  const rules: Rule[] = [];
  const lines = text.split('\n');
  for (let index = 0; index < lines.length; index++) {
    const number = index + 1;
    const fail = (why: string): never => {
      throw new Error(`${file}:${number}: ${why}`);
    };
    let line = (lines[index] ?? '').trim();
    if (line === '' || line.startsWith('#')) continue;
    while (line.endsWith('\\')) {
      const next = (lines[++index] ?? '').trim();
      // A comment within a continued line is left out, and the line goes on.
      line = line.slice(0, -1) + (next.startsWith('#') ? '\\' : next);
    }
    const tokens: Token[] = [];
    const expression = /\s*([A-Z]+)(?:\{([^}]*)\})?\s*(==|!=|\+=|-=|:=|=)\s*"((?:[^"\\]|\\.)*)"\s*(,|$)/y;
    for (let at = 0; at < line.length; at = expression.lastIndex) {
      expression.lastIndex = at;
      const match = expression.exec(line);
      if (match === null) return fail(`not a rule of this subset: ${line.slice(at)}`);
      const [, key = '', attribute, operator = '', value = ''] = match as (string | undefined)[];
      const token: Token = {key, attribute, operator, value: value.replaceAll('\\"', '"')};
      if (!order.includes(kindOf(token))) fail(`${key}${operator} is not in this subset`);
      check(token, fail);
      tokens.push(token);
    }
    tokens.sort((one, other) => order.indexOf(kindOf(one)) - order.indexOf(kindOf(other)));
    rules.push({file, line: number, tokens});
  }
  for (const rule of rules)
    for (const token of rule.tokens)
      if (token.key === 'GOTO' && findLabel(rules, rule, token.value) === -1)
        throw new Error(`${file}:${rule.line}: no label ${token.value} after this line`);
  return rules;
}

const withAttribute = new Set(['ENV', 'ATTR', 'ATTRS']);

const operators: Readonly<Record<string, readonly string[]>> = {
  'set ENV': ['=', '+='],
  'set TAG': ['=', '+=', '-='],
  'set SYMLINK': ['=', '+=', '-='],
  'set ATTR': ['='],
  'set RUN': ['=', '+=', ':='],
};

function check(token: Token, fail: (why: string) => never): void {
  const {key, attribute, operator, value} = token;
  const kind = kindOf(token);
  if (withAttribute.has(key) && (attribute === undefined || attribute === ''))
    fail(`${key} needs a name in braces`);
  const braces = withAttribute.has(key) || key === 'TEST' || key === 'IMPORT' || key === 'RUN';
  if (!braces && attribute !== undefined) fail(`${key} takes no braces`);
  if (key === 'RUN' && attribute !== undefined && !['builtin', 'program'].includes(attribute))
    fail(`RUN{${attribute}} is not in this subset`);
  if (key === 'TEST' && attribute !== undefined && !/^[0-7]+$/.test(attribute))
    fail(`TEST{${attribute}} is no mode`);
  const allowed = operators[kind];
  if (allowed !== undefined && !allowed.includes(operator)) fail(`${key}${operator} is not allowed`);
  // On the left of a match udev compares patterns: a substitution there stays text, which is never meant.
  if (
    kind.startsWith('match') &&
    !['TEST', 'PROGRAM'].includes(key) &&
    /\$(?:kernel|attr|env|id|devpath)/.test(value)
  )
    fail(`${key} does not substitute in what it matches: ${value}`);
}

/** A label is looked for after the line that goes there. */
export function findLabel(rules: readonly Rule[], from: Rule, label: string): number {
  return rules.findIndex(
    (rule) =>
      rule.file === from.file &&
      rule.line > from.line &&
      rule.tokens.some((token) => token.key === 'LABEL' && token.value === label),
  );
}
