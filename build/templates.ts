import {readdirSync, readFileSync} from 'node:fs';
import {basename, join} from 'node:path';
import type {Plugin} from 'esbuild';
import Handlebars from 'handlebars';

/** The folders of templates: for units, for libvirt's hook, and for completion. */
const folders = ['systemd-templates', 'libvirt-templates', 'completion'];

/** The partials of several templates. */
const partialsFolder = 'systemd-templates/partials';

/** Puts compiled templates, and Handlebars' runtime alone, instead of src/systemd/template-source.ts. */
export function precompiledTemplates(root: string): Plugin {
  return {
    name: 'precompiled-templates',
    setup(build) {
      build.onLoad({filter: /\/src\/systemd\/template-source\.ts$/}, () => {
        const filesIn = (folder: string) =>
          readdirSync(join(root, folder))
            .filter((name) => name.endsWith('.hbs'))
            .map((name) => join(root, folder, name));
        const precompile = (file: string) => {
          const code = Handlebars.precompile(readFileSync(file, 'utf8'), {
            noEscape: true,
            strict: true,
          }) as string;
          return `${JSON.stringify(basename(file, '.hbs'))}: ${code}`;
        };
        const files = folders.flatMap(filesIn);
        const partials = filesIn(partialsFolder);
        return {
          contents: `
            import Handlebars from 'handlebars/runtime.js';
            const compiled = {${files.map(precompile).join(',\n')}};
            const partials = {${partials.map(precompile).join(',\n')}};
            for (const [name, code] of Object.entries(partials))
              Handlebars.registerPartial(name, Handlebars.template(code));
            export function loadTemplate(name) {
              if (!Object.hasOwn(compiled, name)) throw new Error('there is no template ' + name);
              return Handlebars.template(compiled[name]);
            }`,
          resolveDir: root,
          watchDirs: [...folders, partialsFolder].map((folder) => join(root, folder)),
          watchFiles: [...files, ...partials],
        };
      });
    },
  };
}
