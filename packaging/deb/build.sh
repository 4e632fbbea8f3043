#!/bin/sh
# build.sh OUT VERSION: makes OUT/pearasys_VERSION_all.deb and OUT/pearasys-mdevctl_VERSION_all.deb of what is built.
# What is installed is what `make install` installs; the same commit gives the same bytes (SOURCE_DATE_EPOCH).
set -eu
cd "$(dirname "$0")/../.."
out=$1 version=$2
command -v dpkg-deb >/dev/null || { echo 'make deb needs dpkg-deb: apt install dpkg' >&2; exit 1; }
umask 022
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
here=packaging/deb

. packaging/stage.sh
main=$stage/pearasys
# Debian's zsh looks there, and not in share/zsh/site-functions.
zshdir=/usr/share/zsh/vendor-completions
stage_files pearasys 'initramfs-tools dracut' /usr /usr/bin/node zshdir=$zshdir
compress_manuals pearasys
# Debian's policy wants it in the file copyright.
rm "$main/usr/share/doc/pearasys/LICENSE"

# The names that another package may own are a package of their own.
mdevctl=$stage/pearasys-mdevctl
make --no-print-directory --silent install-mdevctl DESTDIR="$main" PREFIX=/usr zshdir=$zshdir
install -d "$mdevctl/usr/share/man/man8" "$mdevctl/etc"
mv "$main/etc/mdevctl.d" "$mdevctl/etc"
for link in mdevctl lsmdev; do
  for file in usr/sbin/$link usr/lib/pearasys/completion/$link usr/share/bash-completion/completions/$link \
    ${zshdir#/}/_$link usr/share/fish/vendor_completions.d/$link.fish; do
    install -d "$mdevctl/${file%/*}"
    mv "$main/$file" "$mdevctl/$file"
  done
  ln -s pearasys-mdev.8.gz "$mdevctl/usr/share/man/man8/$link.8.gz"
done

# document PACKAGE: what each package has in /usr/share/doc.
document() {
  doc=$stage/$1/usr/share/doc/$1
  install -d "$doc"
  { cat "$here/copyright"; sed -n '/^Permission/,$p' LICENSE | sed 's/^$/./; s/^/ /'; } >"$doc/copyright"
  printf 'pearasys (%s) unstable; urgency=medium\n\n  * See NEWS.md for the changes.\n\n -- The pearasys developers <maintainers@pearasys.invalid>  %s\n' \
    "$version" "$(date --utc --rfc-email --date="@$SOURCE_DATE_EPOCH")" | gzip -9n >"$doc/changelog.gz"
}
document pearasys
document pearasys-mdevctl

control() {
  cat <<END
Package: $1
Version: $version
Architecture: all
Maintainer: The pearasys developers <maintainers@pearasys.invalid>
Installed-Size: $(du --apparent-size -sk "$stage/$1" | cut -f 1)
Section: admin
Priority: optional
END
}
install -d "$main/DEBIAN" "$mdevctl/DEBIAN"
{
  control pearasys
  cat <<'END'
Depends: nodejs (>= 18.19), systemd, udev, kmod
Recommends: pci.ids
Suggests: libvirt-daemon-system
Description: decides which driver has which PCI device
 Binds PCI devices to drivers (vfio-pci, those for DPDK and SPDK, or the
 device's own), creates mediated devices and virtual functions, and hands
 devices to libvirt guests: now, at every boot and at every hot-add.
 .
 udev rules and systemd units do the work. No process is started for a
 device that is already right.
END
} >"$main/DEBIAN/control"
{
  control pearasys-mdevctl
  cat <<END
Depends: pearasys (= $version)
Conflicts: mdevctl
Replaces: mdevctl
Provides: mdevctl (= 1.4.0)
Description: mdevctl and lsmdev, provided by pearasys
 Manages mediated devices with the commands, options and files of mdevctl.
END
} >"$mdevctl/DEBIAN/control"
(cd "$main" && find etc -type f -printf '/%p\n' | LC_ALL=C sort) >"$main/DEBIAN/conffiles"
[ -s "$main/DEBIAN/conffiles" ] || rm "$main/DEBIAN/conffiles"
install -m 644 $here/triggers "$main/DEBIAN/triggers"
for script in postinst prerm postrm; do
  include_scriptlets "$here/$script" >"$main/DEBIAN/$script"
  chmod 755 "$main/DEBIAN/$script"
done

for package in pearasys pearasys-mdevctl; do
  (cd "$stage/$package" && find . -path ./DEBIAN -prune -o -type f -printf '%P\n' | LC_ALL=C sort | xargs -r md5sum) >"$stage/$package/DEBIAN/md5sums"
  set_times "$package"
  install -d "$out"
  dpkg-deb --root-owner-group --uniform-compression -Zxz --build "$stage/$package" "$out/${package}_${version}_all.deb" >/dev/null
  echo "$out/${package}_${version}_all.deb"
done
