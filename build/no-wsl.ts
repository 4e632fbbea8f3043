/** Replaces the package wsl-utils in the bundle: oclif calls it at each start to check for Windows. */
export const isWsl = false;
