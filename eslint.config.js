import js from '@eslint/js';
import {defineConfig} from 'eslint/config';
import tseslint from 'typescript-eslint';

/** The house rule "nothing looks up": each folder of src may import only from the ones named for it. */
const below = {
  host: [],
  pci: ['host'],
  mdev: ['host', 'pci'],
  guest: ['host', 'pci'],
  record: ['host', 'pci'],
  unit: ['host', 'pci', 'record'],
  plan: ['host', 'pci', 'mdev', 'guest', 'record', 'unit'],
  handlers: ['host', 'pci', 'mdev', 'guest', 'record', 'unit', 'plan'],
};
const rooms = [...Object.keys(below), 'cli'];

export default defineConfig(
  {ignores: ['dist/', 'node_modules/']},
  js.configs.recommended,
  ...tseslint.configs.strictTypeChecked,
  {
    languageOptions: {
      parserOptions: {
        projectService: {allowDefaultProject: ['eslint.config.js']},
        tsconfigRootDir: import.meta.dirname,
      },
    },
    rules: {
      '@typescript-eslint/restrict-template-expressions': ['error', {allowNumber: true}],
      '@typescript-eslint/switch-exhaustiveness-check': ['error', {considerDefaultExhaustiveForUnions: true}],
      '@typescript-eslint/no-confusing-void-expression': ['error', {ignoreArrowShorthand: true}],
      '@typescript-eslint/consistent-type-imports': 'error',
      eqeqeq: 'error',
    },
  },
  ...Object.entries(below).map(([room, allowed]) => ({
    files: [`src/${room}/**/*.ts`],
    rules: {
      'no-restricted-imports': [
        'error',
        {
          patterns: [
            {
              group: rooms
                .filter((other) => other !== room && !allowed.includes(other))
                .map((other) => `**/${other}/**`),
              message: `src/${room} may not look up.`,
            },
          ],
        },
      ],
    },
  })),
  {
    files: ['src/**/*.ts'],
    ignores: ['src/plan/**'],
    rules: {
      'no-restricted-syntax': [
        'error',
        {
          selector: 'CallExpression[callee.property.name=/^(writeAttribute|writeFile|removeFile|signal)$/]',
          message: 'What changes the machine is a step of a plan.',
        },
      ],
    },
  },
  {
    files: ['test/**/*.ts'],
    rules: {
      '@typescript-eslint/no-non-null-assertion': 'off',
      '@typescript-eslint/no-unused-expressions': 'off',
    },
  },
);
