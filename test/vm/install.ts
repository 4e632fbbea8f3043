import {CHECKOUT, type Machine} from './machine.js';

/** The folder from which pearasys is installed: a copy, because the checkout is read-only in the machine. */
const COPY = '/opt/pearasys-checkout';

/**
 * Installs pearasys in the machine with `make install`, as last built in the host's checkout. The copy keeps the times
 * of files, so that make does not build anything.
 */
export async function installProduct(machine: Machine): Promise<void> {
  const without = ['.git', 'node_modules', 'test'].map((name) => `--exclude=./${name}`).join(' ');
  await machine.sh(
    `rm -rf ${COPY} && mkdir -p ${COPY} && tar -C ${CHECKOUT} ${without} -cf - . | tar -C ${COPY} -xf - && make -C ${COPY} -o dist/pearasys.cjs install`,
    {timeout: 180_000},
  );
}
