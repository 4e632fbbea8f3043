import path from 'node:path';
import {libvirtPackages} from './domain.js';
import {chosenSuite, type Recipe} from './image.js';

/**
 * An image with the kernel's sample parents, `mtty`, `mdpy` and `mbochs`, and Debian's mdevctl: 1.2 in bookworm. The
 * parent `mtty` supports 24 devices `mtty-1` or 12 devices `mtty-2`. The module `nvidia_sample` has the attributes of
 * NVIDIA's vGPUs on the edu devices: two units for all of them, types 588 of one unit and 589 of two.
 */
export function mdevRecipe(): Recipe {
  return {
    suite: chosenSuite(),
    packages: ['mdevctl'],
    script: path.join(import.meta.dirname, 'recipes/mdev.sh'),
  };
}

/** An image with libvirt and the parents of {@link mdevRecipe}, and with completion for people who try pearasys. */
export function libvirtRecipe(): Recipe {
  return {
    suite: chosenSuite(),
    packages: [...libvirtPackages, 'bash-completion', 'less'],
    script: path.join(import.meta.dirname, 'recipes/mdev.sh'),
  };
}

/** An image with a real initramfs, which has the drivers of the devices under test: of dracut in trixie. */
export function initramfsRecipe(): Recipe {
  const suite = chosenSuite();
  const generator = suite === 'bookworm' ? 'initramfs-tools' : 'dracut';
  return {suite, script: path.join(import.meta.dirname, `recipes/${generator}.sh`)};
}
