import js from '@eslint/js';
import {defineConfig} from 'eslint/config';
import tseslint from 'typescript-eslint';

/** The rooms of src, from the lowest: each may import only from those before it. */
const rooms = [
  'host',
  'config',
  'devices',
  'systemd',
  'state',
  'usage',
  'plan',
  'engine',
  'operations',
  'entry',
];

export default defineConfig(
  {ignores: ['coverage/', 'dist/', 'node_modules/']},
  js.configs.recommended,
  ...tseslint.configs.strictTypeChecked,
  {
    languageOptions: {
      parserOptions: {
        projectService: {
          allowDefaultProject: [
            'eslint.config.js',
            'test/mutation/stryker.config.mjs',
            'test/vm/stop-at.mjs',
          ],
        },
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
  ...rooms.slice(0, -1).map((room, index) => ({
    files: [`src/${room}/**/*.ts`],
    rules: {
      'no-restricted-imports': [
        'error',
        {
          patterns: [
            {
              group: rooms.slice(index + 1).map((other) => `**/${other}/**`),
              message: `src/${room} may not look up.`,
            },
          ],
        },
      ],
    },
  })),
  {
    files: ['src/**/*.ts'],
    ignores: ['src/host/**', 'src/engine/**'],
    rules: {
      'no-restricted-syntax': [
        'error',
        {
          selector:
            'CallExpression[callee.object.name=/^(host|libvirt|machine)$/][callee.property.name=/^(writeAttribute|writeFile|makeLink|removeFile|tidyFolder|syncFiles|run|signal|lock|noteUnfinished)$/]',
          message: 'What changes the machine is a step of a plan, and src/engine applies it.',
        },
      ],
    },
  },
  {
    files: ['src/entry/**/*.ts'],
    rules: {
      '@typescript-eslint/no-restricted-imports': [
        'error',
        {
          patterns: [
            {
              group: ['**/engine/**'],
              allowTypeImports: true,
              message: 'What a run does is an operation: src/operations.',
            },
          ],
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
