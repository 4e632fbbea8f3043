#!/bin/sh
# initramfs-tools.sh ROOT
# Gives the system under ROOT Debian's own initramfs, with the drivers of the devices under test forced into it. It has
# no more than the machine needs, because a complete one takes minutes on the emulated processor.
set -eu
root=$1
kernel=$(basename "$root"/lib/modules/*)

mkdir -p "$root/etc/initramfs-tools/conf.d"
cat >"$root/etc/initramfs-tools/conf.d/test" <<END
MODULES=list
COMPRESS=zstd
COMPRESSLEVEL=1
FSTYPE=ext4
RESUME=none
END
printf '%s\n' virtio_pci virtio_blk ext4 crc32c_generic nvme e1000e bochs snd_hda_intel \
  >"$root/etc/initramfs-tools/modules"
# update-initramfs looks for kernels here, and in their settings for what they can unpack. The machine's own kernel is
# outside of its disk.
touch "$root/boot/vmlinuz-$kernel"
printf '%s\n' CONFIG_RD_ZSTD=y CONFIG_RD_GZIP=y >"$root/boot/config-$kernel"

chroot "$root" sh -eu -s "$kernel" <<'END'
apt-get update -q
apt-get install -q --yes --no-install-recommends -o Dpkg::Options::=--force-unsafe-io \
  -o Dpkg::Options::=--force-confold initramfs-tools
rm -f /usr/share/initramfs-tools/hooks/keymap /usr/share/initramfs-tools/hooks/thermal \
  /usr/share/initramfs-tools/hooks/fsck /usr/share/initramfs-tools/hooks/resume \
  /usr/share/initramfs-tools/hooks/dmsetup
rm -rf /var/lib/apt/lists/* /var/cache/apt/*
[ -e "/boot/initrd.img-$1" ] || update-initramfs -c -k "$1"
update-initramfs -u -k all
END
