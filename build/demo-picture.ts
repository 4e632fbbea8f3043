/** Writes docs/demo.svg from what the demo prints. */
import {writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {demoOutput, picture, shownLines} from './picture.js';

writeFileSync(join(import.meta.dirname, '../docs/demo.svg'), picture(shownLines(demoOutput())));
