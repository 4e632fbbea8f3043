import {readdirSync, readFileSync} from 'node:fs';
import {join} from 'node:path';
import type {Plugin} from 'esbuild';
import Handlebars from 'handlebars';

/** Puts compiled templates, and Handlebars' runtime alone, in the place of src/unit/template-source.ts. */
export function precompiledTemplates(root: string): Plugin {
  const folder = join(root, 'systemd-templates');
  return {
    name: 'precompiled-templates',
    setup(build) {
      build.onLoad({filter: /\/src\/unit\/template-source\.ts$/}, () => {
        const names = readdirSync(folder).filter((name) => name.endsWith('.hbs'));
        const compiled = names.map((name) => {
          const text = readFileSync(join(folder, name), 'utf8');
          const code = Handlebars.precompile(text, {noEscape: true, strict: true}) as string;
          return `${JSON.stringify(name.slice(0, -'.hbs'.length))}: ${code}`;
        });
        return {
          contents: `
            import Handlebars from 'handlebars/runtime.js';
            const compiled = {${compiled.join(',\n')}};
            export function loadTemplate(name) {
              if (!Object.hasOwn(compiled, name)) throw new Error('there is no template ' + name);
              return Handlebars.template(compiled[name]);
            }`,
          resolveDir: root,
          watchDirs: [folder],
          watchFiles: names.map((name) => join(folder, name)),
        };
      });
    },
  };
}
