/**
 * Run by `make install`: writes units from the templates in systemd-templates/. Arguments: the folder, `key=value` for
 * each value, and the names of the units. One run writes all of them because starting Node takes longer than the work.
 */
import {writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {render} from './templates.js';

const [folder = '', ...words] = process.argv.slice(2);
const settings = words.filter((word) => word.includes('='));
const values = Object.fromEntries(
  settings.map((setting) => {
    const cut = setting.indexOf('=');
    return [setting.slice(0, cut), setting.slice(cut + 1)];
  }),
);
for (const name of words.filter((word) => !word.includes('=')))
  writeFileSync(join(folder, name), render(name, values), {mode: 0o644});
