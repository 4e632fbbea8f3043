#!/bin/sh
# mdev.sh ROOT
# Gives the system under ROOT the kernel's own sample parents mtty, mdpy and mbochs, built from Debian's source of
# the very kernel that it boots. What builds them is removed again: the machine's disk holds only what is tested.
set -eu
root=$1
kernel=$(basename "$root"/lib/modules/*)
version=$(printf '%s' "$kernel" | cut -d. -f1,2)

chroot "$root" sh -eu -s "$kernel" "$version" <<'END'
kernel=$1 version=$2
apt-get update -q
apt-mark showmanual | sort >/tmp/manual
apt-get install -q --yes --no-install-recommends -o Dpkg::Options::=--force-unsafe-io \
  "linux-headers-$kernel" "linux-source-$version" make xz-utils
# A module of another source may load and not work: one version everywhere, or no image. Debian's own revision of the
# source may be ahead: kernels are signed some days after they are built.
of() { dpkg-query --showformat='${Version}' --show "$1"; }
headers=$(of "linux-headers-$kernel") source=$(of "linux-source-$version") image=$(of "linux-image-$kernel")
if [ "$headers" != "$image" ] || [ "${source%-*}" != "${image%-*}" ]; then
  echo "the headers are $headers, the source is $source, the kernel $kernel is $image" >&2
  exit 1
fi

mkdir /tmp/build
tar -C /tmp/build --strip-components=3 -xf "/usr/src/linux-source-$version.tar.xz" \
  "linux-source-$version/samples/vfio-mdev"
cd /tmp/build
echo 'obj-m := mtty.o mdpy.o mbochs.o' >Makefile
make -C "/lib/modules/$kernel/build" M=/tmp/build modules
install -D -m 644 -t "/lib/modules/$kernel/extra" mtty.ko mdpy.ko mbochs.ko
depmod "$kernel"

apt-mark showmanual | sort >/tmp/manual.now
comm -13 /tmp/manual /tmp/manual.now | xargs -r apt-mark auto
apt-get autoremove -q --yes --purge -o Dpkg::Options::=--force-unsafe-io
cd /
rm -rf /tmp/build /tmp/manual /tmp/manual.now /var/lib/apt/lists/* /var/cache/apt/*
for module in mtty mdpy mbochs; do modinfo -k "$kernel" "$module" >/dev/null; done
END
