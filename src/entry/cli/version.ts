import manifest from '../../../package.json' with {type: 'json'};

/** Name, version and description of this program, from package.json. */
export const {name, version, description} = manifest;
