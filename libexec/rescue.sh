# Sourced by the programs in this folder: what the kernel command line says for this boot, see pearasys(8). Node applies
# the same rule (src/state/rescue.ts). Builtins only: an initramfs may have no tr(1).

# read_rescue: reads what the kernel command line switches off for this boot. Sets $off ("yes" for pearasys=off) and
# $skipped (the slots of pearasys.skip=, each between two commas). Also sets $claimed to the values of pearasys.claim=.
read_rescue() {
  off=no skipped=, claimed='' cmdline=''
  IFS= read -r cmdline </proc/cmdline || :
  set -f
  for word in $cmdline; do
    case $word in
      pearasys=off) off=yes ;;
      pearasys.skip=*) skipped=$skipped${word#pearasys.skip=}, ;;
      pearasys.claim=*) claimed="$claimed ${word#pearasys.claim=}" ;;
    esac
  done
  set +f
  for letter in Aa Bb Cc Dd Ee Ff; do
    while case $skipped in *"${letter%?}"*) ;; *) false ;; esac; do
      skipped=${skipped%%"${letter%?}"*}${letter#?}${skipped#*"${letter%?}"}
    done
  done
}

# is_off SLOT: after read_rescue, whether it switches this device's claim off.
is_off() {
  case $off$skipped in yes* | *,"$1",* | *,"${1#0000:}",*) return 0 ;; esac
  return 1
}
