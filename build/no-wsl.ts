/** Stands for the package wsl-utils in the bundle: oclif asks it at each start whether it runs on Windows. */
export const isWsl = false;
