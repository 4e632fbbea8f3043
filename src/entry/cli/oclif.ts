let loading: Promise<void> | undefined;

/**
 * Loads oclif. While it loads, it accesses process.stdout to ignore a closed pipe there. Node creates that stream on
 * first access, which takes as long as the rest of a short command, and it would stay unused:
 * {@link DescriptorOutput} does the writing, and handles closed pipes.
 */
export function loadOclif(): Promise<void> {
  // Once: of two loads at the same time, the second would restore the stand-in of the first.
  return (loading ??= load());
}

async function load(): Promise<void> {
  const stdout = Object.getOwnPropertyDescriptor(process, 'stdout');
  if (stdout?.configurable !== true) return;
  Object.defineProperty(process, 'stdout', {configurable: true, value: {on: () => undefined}});
  try {
    await import('@oclif/core/command');
  } finally {
    Object.defineProperty(process, 'stdout', stdout);
  }
}
