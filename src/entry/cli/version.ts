import manifest from '../../../package.json' with {type: 'json'};

/** What this program is, as package.json says it. */
export const {name, version, description} = manifest;
