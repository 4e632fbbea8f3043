import {CHECKOUT, type Machine} from './machine.js';

/** Where the product is installed from: a copy, as the checkout itself is read-only in the machine. */
const COPY = '/opt/pearasys-checkout';

/**
 * Installs the product in the machine with `make install`, from the checkout as it was last built on the host. Times
 * are kept, so that make finds nothing to build.
 */
export async function installProduct(machine: Machine): Promise<void> {
  const without = ['.git', 'node_modules', 'test'].map((name) => `--exclude=./${name}`).join(' ');
  await machine.sh(
    `rm -rf ${COPY} && mkdir -p ${COPY} && tar -C ${CHECKOUT} ${without} -cf - . | tar -C ${COPY} -xf - && make -C ${COPY} -o dist/pearasys.cjs install`,
    {timeout: 180_000},
  );
}
