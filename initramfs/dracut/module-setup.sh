#!/bin/bash
# A module of dracut.modules(7): adds to the image what reserves the claimed devices before udev starts. Without claims
# it adds nothing.
claims=@SYSCONFDIR@/pearasys/initramfs-claims

# Called by dracut.
check() {
  # shellcheck disable=SC2154 # set by dracut
  grep -qs '^[^#]' "${dracutsysrootdir-}$claims"
}

# Called by dracut.
depends() {
  return 0
}

# Called by dracut.
install() {
  inst_simple "$claims"
  inst_simple @LIBEXECDIR@/reserve.sh
  inst_simple @LIBEXECDIR@/rescue.sh
  # shellcheck disable=SC2154 # set by dracut
  # Before parse-kernel.sh, which loads the drivers of rd.driver.pre= and force_drivers=.
  inst_hook cmdline 00 "$moddir/pearasys.sh"
  # Without this, systemd loads the modules of modules-load.d at the same time.
  if dracut_module_included systemd; then
    # shellcheck disable=SC2154 # set by dracut
    local folder=$initdir/etc/systemd/system/systemd-modules-load.service.d
    mkdir -p "$folder"
    printf '[Unit]\nAfter=dracut-cmdline.service\n' >"$folder/pearasys.conf"
  fi
  # It reads the serial numbers of cards.
  if grep -q '^[^#].* pcie:' "${dracutsysrootdir-}$claims"; then inst_multiple od; fi
}
