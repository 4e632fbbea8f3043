# Sourced by `make uninstall` and by the package's postrm: removes what pearasys has written for single devices below
# $root (empty for this machine). No device is touched: each stays on its driver, and mediated devices stay.

# remove_units: the units of single slots.
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

# rebuild_initramfs LIST: an image that still has the claims of LIST would reserve their devices, and nothing would
# return them to the host. In an image of a system nothing can be run.
rebuild_initramfs() {
  if ! grep -qs '^[^#]' "$1"; then
    rm -f "$1"
    return
  fi
  rm -f "$1"
  if [ -n "$root" ]; then
    echo "rebuild the initramfs of $root: it still reserves devices" >&2
  elif command -v update-initramfs >/dev/null; then
    update-initramfs -u -k all
  elif command -v mkinitcpio >/dev/null; then
    mkinitcpio -P
  elif command -v dracut >/dev/null; then
    dracut --regenerate-all --force
  fi
}
