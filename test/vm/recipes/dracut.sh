#!/bin/sh
# dracut.sh ROOT
# Gives the system under ROOT an initramfs of dracut, with the drivers of the devices under test forced into it. It has
# no more than the machine needs, because a complete one takes minutes on the emulated processor.
set -eu
root=$1
kernel=$(basename "$root"/lib/modules/*)

mkdir -p "$root/etc/dracut.conf.d"
cat >"$root/etc/dracut.conf.d/test.conf" <<END
hostonly="no"
early_microcode="no"
compress="zstd -1"
show_modules="no"
omit_dracutmodules+=" bash bluetooth btrfs crypt dm dmraid drm i18n kernel-modules-extra lunmask lvm mdraid memstrack modsign multipath nvdimm nvmf qemu resume systemd terminfo usrmount virtiofs "
drivers=" virtio_pci virtio_blk ext4 crc32c_generic nvme e1000e bochs snd_hda_intel "
force_drivers=" nvme e1000e bochs snd_hda_intel "
END
# Only then dracut writes the image to the folder of the kernels. The machine's own kernel is outside of its disk.
touch "$root/boot/vmlinuz-$kernel"

chroot "$root" sh -eu -s "$kernel" <<'END'
apt-get update -q
apt-get install -q --yes --no-install-recommends -o Dpkg::Options::=--force-unsafe-io dracut
rm -rf /var/lib/apt/lists/* /var/cache/apt/*
dracut --force --kver "$1"
test -e "/boot/initrd.img-$1"
END
