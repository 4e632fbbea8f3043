import {readFileSync} from 'node:fs';
import {join} from 'node:path';
import Handlebars from 'handlebars';

/** A compiled template. */
export type Template = (values: object) => string;

/**
 * Compiles a template of systemd-templates/ when it is first used. Only a checkout runs this: build/templates.ts
 * puts the templates it has compiled, with Handlebars' runtime alone, in this module's place.
 */
export function loadTemplate(name: string): Template {
  const text = readFileSync(join(import.meta.dirname, '../../systemd-templates', `${name}.hbs`), 'utf8');
  // Unit files are no HTML, and a value that is missing must not become an empty one.
  return Handlebars.compile(text, {noEscape: true, strict: true});
}
