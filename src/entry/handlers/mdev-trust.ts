import {distrustDefinition, type Definition} from '../../state/definitions/definition.js';
import {ignoredNote} from '../../state/desired.js';
import type {HandlerContext} from './handler.js';

/** The definitions that a unit may use; the journal names the others. */
export function selectTrusted(
  {host, log}: HandlerContext,
  definitions: readonly Definition[],
): readonly Definition[] {
  return definitions.filter((definition) => {
    const {kind, path} = definition;
    const reason = distrustDefinition(host, definition);
    if (reason !== undefined) log(4, ignoredNote({kind, path, reason}));
    return reason === undefined;
  });
}
