#!/bin/sh
# capture.sh [ROOT]
# Prints the PCI devices of this machine, or of the tree below ROOT, as a file of test/fixtures/trees: slots, ids,
# classes, drivers, IOMMU groups. Runs on any Linux, as any user, changes nothing, and prints no serial numbers or
# addresses. The README of test/fixtures says what the words mean.
set -eu
root=${1:-}
devices=$root/sys/bus/pci/devices

# value FILE: sets $value to the first line of an attribute, to "-" where there is none.
value() {
  value=-
  if [ -r "$1" ]; then IFS= read -r value <"$1" || value=-; fi
}

# name LINK: sets $name to the last name of what a link leads to, to "-" where there is none.
name() {
  name=-
  if [ -h "$1" ]; then
    name=$(readlink "$1")
    name=${name##*/}
  fi
}

# describe DEVICE: prints the line of a device.
describe() {
  slot=${1##*/}
  value "$1/vendor"
  id=${value#0x}
  value "$1/device"
  id=$id:${value#0x}
  value "$1/class"
  line="$slot $id ${value#0x}"
  name "$1/driver"
  line="$line $name"
  name "$1/iommu_group"
  line="$line $name"
  value "$1/numa_node"
  case $value in -*) value=- ;; esac
  line="$line $value"
  above=$(readlink "$1")
  above=${above%/*}
  above=${above##*/}
  case $above in *:*:*.*) ;; *) above=- ;; esac
  line="$line $above"
  value "$1/boot_vga"
  if [ "$value" = 1 ]; then line="$line boot"; fi
  value "$1/driver_override"
  case $value in - | '(null)') ;; *) line="$line override=$value" ;; esac
  case $(od -A n -t x1 -N 4 "$1/config" 2>/dev/null || :) in *'ff ff ff ff'*) line="$line dead" ;; esac
  value "$1/sriov_totalvfs"
  case $value in
    - | 0) ;;
    *)
      total=$value
      value "$1/sriov_vf_device"
      words=$total,${id%:*}:$value
      for attribute in offset stride; do
        value "$1/sriov_$attribute"
        words=$words,$value
      done
      name "$1/virtfn0/iommu_group"
      if [ "$name" = - ]; then name=; fi
      line="$line sriov=$words,$name"
      value "$1/sriov_numvfs"
      case $value in - | 0) ;; *) enabled="$enabled${enabled:+, }\"$slot\": $value" ;; esac
      ;;
  esac
  printf '%s    "%s"' "$comma" "$line"
  comma=',
'
}

value "$root/proc/sys/kernel/osrelease"
printf '{\n  "release": "%s",\n' "$value"
iommu=false
for each in "$root"/sys/class/iommu/*; do
  if [ -e "$each" ]; then iommu="\"${each##*/}\""; break; fi
done
printf '  "iommu": %s,\n' "$iommu"
if [ ! -d "$root/sys/kernel/iommu_groups" ]; then printf '  "omitGroups": true,\n'; fi
# What no device has is what this kernel does not know.
omit=
for attribute in driver_override numa_node d3cold_allowed reset_method uevent modalias config power_state \
  power/control; do
  set -- "$devices"/*/"$attribute"
  if [ ! -e "$1" ]; then omit="$omit${omit:+, }\"$attribute\""; fi
done
if [ -n "$omit" ]; then printf '  "omit": [%s],\n' "$omit"; fi
printf '  "devices": [\n'
comma='' enabled=''
for device in "$devices"/*; do
  # Virtual functions come with their physical one.
  if [ -h "$device" ] && [ ! -h "$device/physfn" ]; then describe "$device"; fi
done
printf '\n  ]'
if [ -n "$enabled" ]; then printf ',\n  "vfs": {%s}' "$enabled"; fi
printf '\n}\n'
