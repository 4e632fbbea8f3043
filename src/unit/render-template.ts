/** Run by `make install`: prints a template of systemd-templates/. Arguments: its name, then `key=value` for each value. */
import {render} from './templates.js';

const [name = '', ...settings] = process.argv.slice(2);
const values = Object.fromEntries(
  settings.map((setting) => {
    const cut = setting.indexOf('=');
    return [setting.slice(0, cut), setting.slice(cut + 1)];
  }),
);
process.stdout.write(render(name, values));
