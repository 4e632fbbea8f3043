/**
 * Loads oclif. As it is loaded it names process.stdout, to ignore a closed pipe there; Node makes that stream when
 * it is first named, which takes as long as all else that a short command does, and it would stay unused:
 * {@link DescriptorOutput} writes, and knows of closed pipes.
 */
export async function loadOclif(): Promise<void> {
  const stdout = Object.getOwnPropertyDescriptor(process, 'stdout');
  if (stdout?.configurable !== true) return;
  Object.defineProperty(process, 'stdout', {configurable: true, value: {on: () => undefined}});
  try {
    await import('@oclif/core/command');
  } finally {
    Object.defineProperty(process, 'stdout', stdout);
  }
}
