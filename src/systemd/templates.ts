import {loadTemplate} from './template-source.js';

/**
 * The text of a file from its template in systemd-templates/, libvirt-templates/ or completion/.
 * @param name the template's file name without `.hbs`.
 * @param values the values that the template uses; a missing one is an error.
 */
export function render(name: string, values: object): string {
  return loadTemplate(name)(values);
}
