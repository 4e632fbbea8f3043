import {existsSync, readdirSync, readFileSync} from 'node:fs';
import {basename, join} from 'node:path';
import Handlebars from 'handlebars';

/** The folder of partials, which several templates share. */
const partialsFolder = join(import.meta.dirname, '../../systemd-templates/partials');

/** A compiled template. */
type Template = (values: object) => string;

/** The compiled templates, by name. */
const templates = new Map<string, Template>();

/**
 * Compiles a template of systemd-templates/, libvirt-templates/ or completion/ when it is first used. Runs only in a
 * checkout: in the bundle, build/templates.ts replaces this module with compiled templates, which need only Handlebars'
 * runtime.
 */
export function loadTemplate(name: string): Template {
  const template = templates.get(name) ?? compile(name);
  templates.set(name, template);
  return template;
}

function compile(name: string): Template {
  const paths = ['systemd-templates', 'libvirt-templates', 'completion'].map((folder) =>
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
  // Unit files are not HTML, and a missing value must be an error instead of an empty text.
  return Handlebars.compile(text, {noEscape: true, strict: true});
}
