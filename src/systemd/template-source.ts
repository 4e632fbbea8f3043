import {existsSync, readdirSync, readFileSync} from 'node:fs';
import {basename, join} from 'node:path';
import Handlebars from 'handlebars';

/** The partials of several templates, by name. */
const partialsFolder = join(import.meta.dirname, '../../systemd-templates/partials');

/** A compiled template. */
export type Template = (values: object) => string;

/** Compiled ones, by name. */
const templates = new Map<string, Template>();

/**
 * Compiles a template of systemd-templates/ or libvirt-templates/ when it is first used. Only a checkout runs this: build/templates.ts
 * puts the templates it has compiled, with Handlebars' runtime alone, in this module's place.
 */
export function loadTemplate(name: string): Template {
  const template = templates.get(name) ?? compile(name);
  templates.set(name, template);
  return template;
}

function compile(name: string): Template {
  const paths = ['systemd-templates', 'libvirt-templates'].map((folder) =>
    join(import.meta.dirname, '../..', folder, `${name}.hbs`),
  );
  const path = paths.find((each) => existsSync(each));
  if (path === undefined) throw new Error(`there is no template ${name}`);
  for (const partial of readdirSync(partialsFolder))
    Handlebars.registerPartial(
      basename(partial, '.hbs'),
      readFileSync(join(partialsFolder, partial), 'utf8'),
    );
  const text = readFileSync(path, 'utf8');
  // Unit files are no HTML, and a value that is missing must not become an empty one.
  return Handlebars.compile(text, {noEscape: true, strict: true});
}
