# What installing and removing does besides copying and deleting files, for all packages: the scripts of Debian's and
# Fedora's packages and install.sh contain this text, Arch's package has it as it is and calls the functions by these
# names, and `make uninstall` sources it. Nothing is started, stopped or restarted, and no device is touched: units and
# rules of the new version are in effect at the next event.

# For packages. $root is the folder of an image, in which nothing can be run, and empty for this machine.
root='' node=/usr/bin/node libdir=/usr/lib/pearasys program=pearasys

make_caches() {
  if [ -n "$root" ]; then return; fi
  # With the flags of V8 that programs have. Without it the start is only slower, so a Node that does not run must not
  # leave a package half configured.
  "$node" --no-rehash-snapshot "$libdir/make-caches.cjs" ||
    echo 'pearasys: no cache: commands start more slowly' >&2
}

reload() {
  if [ -n "$root" ]; then return; fi
  if [ -d /run/systemd/system ]; then systemctl --system daemon-reload; fi
  if [ -e /run/udev/control ]; then udevadm control --reload; fi
}

# As debhelper and Fedora's macro do. Without systemd, the programs create the folder when they need it.
create_folders() {
  if [ -n "$root" ] || ! command -v systemd-tmpfiles >/dev/null; then return; fi
  systemd-tmpfiles --create pearasys.conf || echo 'pearasys: /run/pearasys was not created' >&2
}

post_install() {
  make_caches
  create_folders
  reload
  # The images contain the scripts of the old version.
  if has_claims "$root/etc/pearasys/initramfs-claims"; then rebuild_images -u; fi
}

post_upgrade() {
  post_install
}

pre_remove() {
  # A hook that stays would keep guests from starting: their unit goes.
  if [ -z "$root" ] && ! "$program" guest remove-hooks >/dev/null; then
    echo 'pearasys: the libvirt hooks stay: remove them manually, see docs/guests.md' >&2
  fi
  rm -rf "$root$libdir/cache"
}

# Records and settings stay.
post_remove() {
  reload
  rebuild_initramfs "$root/etc/pearasys/initramfs-claims"
}

# remove_units: the units of single slots, and what is until the next boot.
remove_units() {
  units=$root/etc/systemd/system
  # Templates in another folder (--prefix) are links here.
  for link in "$units"/pearasys-*:*@.service; do
    if [ -h "$link" ]; then rm -f "$root$(readlink "$link")"; fi
  done
  rm -rf "$units"/pearasys-*:*@* "$units"/sys-bus-pci-devices-*.wants/pearasys-*:*@*
  rmdir --ignore-fail-on-non-empty "$units"/sys-bus-pci-devices-*.wants 2>/dev/null || true
  rm -rf "$root/run/pearasys"
  rm -f "$root"/etc/udev/rules.d/61-pearasys-access*.rules "$root"/run/udev/rules.d/62-pearasys-access*.rules
  if [ -e "$root/etc/modprobe.d/pearasys-no-iommu.conf" ]; then
    echo "$root/etc/modprobe.d/pearasys-no-iommu.conf stays: it turns VFIO's no-IOMMU mode on at each boot" >&2
  fi
}

# remove_everything CONFIG: after that, records, settings and what holds at each boot, for a purge.
remove_everything() {
  rm -rf "$1"
  rm -f "$root/etc/tmpfiles.d/pearasys-hugepages.conf" "$root/etc/modprobe.d/pearasys-no-iommu.conf"
  for unit in "$root"/etc/systemd/system/*.mount; do
    if [ -f "$unit" ] && head -n 1 "$unit" | grep -q 'Written by .*pearasys'; then
      rm -f "$unit" "$root/etc/systemd/system/local-fs.target.wants/${unit##*/}"
    fi
  done
  echo 'pearasys: devices stay on their present drivers, and huge pages allocated, until the next boot' >&2
}

# has_claims LIST: whether the initramfs has claims.
has_claims() {
  grep -qs '^[^#]' "$1"
}

# rebuild_images OPTION...: the options are those of update-initramfs.
rebuild_images() {
  if [ -n "$root" ]; then
    echo "rebuild the initramfs of $root: it still has the present claims and scripts" >&2
  elif command -v update-initramfs >/dev/null; then
    update-initramfs "$@"
  elif command -v mkinitcpio >/dev/null; then
    mkinitcpio -P
  elif command -v dracut >/dev/null; then
    dracut --regenerate-all --force
  fi
}

# rebuild_initramfs LIST: an image that still has the claims of LIST would reserve their devices, and nothing would
# return them to the host.
rebuild_initramfs() {
  if has_claims "$1"; then
    rm -f "$1"
    rebuild_images -u -k all
  else
    rm -f "$1"
  fi
}
