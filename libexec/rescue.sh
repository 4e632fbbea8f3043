# Sourced by the programs in this folder: what the kernel command line switches off for this boot, see pearasys(8). Node
# applies the same rule (src/state/rescue.ts). Builtins only, unless a slot is written in capitals.

# read_rescue: reads what the kernel command line switches off for this boot. Sets $off ("yes" for pearasys=off) and
# $skipped (the slots of pearasys.skip=, each between two commas).
read_rescue() {
  off=no skipped=, cmdline=''
  IFS= read -r cmdline </proc/cmdline || :
  set -f
  for word in $cmdline; do
    case $word in
      pearasys=off) off=yes ;;
      pearasys.skip=*) skipped=$skipped${word#pearasys.skip=}, ;;
    esac
  done
  set +f
  case $skipped in *[A-F]*) skipped=$(echo "$skipped" | tr A-F a-f) ;; esac
}

# is_off SLOT: after read_rescue, whether it switches this device's claim off.
is_off() {
  case $off$skipped in yes* | *,"$1",* | *,"${1#0000:}",*) return 0 ;; esac
  return 1
}
