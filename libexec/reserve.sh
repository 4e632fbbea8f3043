# Sourced by libexec/early and, in the initramfs, by the script that runs before udev there: finds the card of each claim
# in a list, and writes its override. Node applies the same rule (src/state/records). Builtins only, for dash, busybox
# and klibc's sh, and od(1) if a claim has a serial number.
#
# A line of the list: SLOT 0xVENDOR-0xDEVICE DRIVER SUBSYSTEM PATH SERIAL, and "-" for what is not known.
newline='
'
devices=/sys/bus/pci/devices
released=/run/pearasys/released
quarantined=/run/pearasys/quarantined
. "@LIBEXECDIR@/rescue.sh"

# on_card CARD SLOT IDS DRIVER: is called for each claim whose card is present; $written is "yes" if the override was
# written now. In the initramfs: notes it for libexec/early, which clears the override if the image is older than the
# records and no claim needs it any more.
on_card() {
  if [ "$written" = no ]; then return 0; fi
  # shellcheck disable=SC2174 # /run/pearasys itself is 0755, as RuntimeDirectory= makes it
  [ -d /run/pearasys ] || mkdir -p -m 755 /run/pearasys
  echo "$1 $4" >>/run/pearasys/reserved
}

# reserve_claims FILE: writes the override of each claim's card: of the claims in the file, if it exists, and of those on
# the kernel command line. A card that cannot be identified for certain is not touched. First the claims whose cards are
# known by their serial numbers, then those by their paths, then those by their slots: a card belongs to the first claim
# that finds it. Sets $failed to 1 if an override could not be written.
reserve_claims() {
  taken=' ' cards=''
  read_rescue
  if [ "$off" = yes ]; then return 0; fi
  if [ -e "$1" ]; then find_cards "$1"; fi
  subsystem=-
  for word in $claimed; do
    if read_claim "$word"; then take_card slot || :; fi
  done
}

# find_cards FILE: calls found_card for each line of the list whose card is found.
find_cards() {
  list=$1 by_serial=' ' numbered=' ' placed=' '
  # Serial numbers are read in the recorded slots first. Usually all cards are there, and no other card has to be read.
  set --
  while read -r slot ids driver subsystem path serial _; do
    case $slot,$serial in
      ,* | *[!0-9a-f:.]*,*) ;;
      *,pcie:*)
        numbered="$numbered${slot%.*} "
        if is_kind "$slot"; then set -- "$@" "$devices/$slot/config"; fi
        ;;
    esac
  done <"$list"
  read_serials "$@"
  take_cards here
  if [ "$by_serial" != ' ' ]; then
    set --
    for device in "$devices"/*; do
      if read_ids "${device##*/}"; then
        case $by_serial in *" $vendor-$product "*) set -- "$@" "$device/config" ;; esac
      fi
    done
    read_serials "$@"
    take_cards serial
  fi
  take_cards path
  take_cards slot
}

# take_cards here|serial|path|slot: takes the cards of the lines that are known in this way. Adds the ids of those that
# are not where their serial number was recorded to $by_serial.
take_cards() {
  while read -r slot ids driver subsystem path serial _; do
    case $slot in '' | *[!0-9a-f:.]*) continue ;; esac
    case $1,$serial,$path in
      here,pcie:*) take_card here || by_serial="$by_serial$ids " ;;
      serial,pcie:* | path,[!p]*,[!-]* | slot,[!p]*,-) take_card "$1" || : ;;
    esac
  done <"$list"
}

# read_claim SLOT,ID,DRIVER: sets $slot, $ids and $driver as in a list. Fails if it is not a claim.
read_claim() {
  slot=${1%%,*} ids=${1#*,} driver=${1##*,}
  ids=${ids%%,*}
  case $1 in "$slot,$ids,$driver") ;; *) return 1 ;; esac
  case $slot in ??:??.?) slot=0000:$slot ;; esac
  case $slot in *[!0-9a-f:.]*) return 1 ;; ????*:??:??.[0-7]) ;; *) return 1 ;; esac
  case $ids in *[!0-9a-f:]* | *:*:*) return 1 ;; ????:????) ids=0x${ids%:*}-0x${ids#*:} ;; *) return 1 ;; esac
  case $driver in '' | [!A-Za-z0-9]* | *[!A-Za-z0-9_.-]* | *..*) return 1 ;; esac
}

# take_card here|serial|path|slot: finds the card of a line. Fails if it is not found.
take_card() {
  find_card "$1" || return 1
  taken="$taken$card "
  case $1 in here | serial) placed="$placed${slot%.*}@${card%.*} " ;; esac
  found_card
}

# found_card: is called for each line whose card, $card, is found. Writes its override.
found_card() {
  reserve "$card" "$slot" "$driver"
  on_card "$card" "$slot" "$ids" "$driver"
}

# find_card here|serial|path|slot: sets $card to the slot of the claim's card. Fails if it is absent or not certain.
find_card() {
  card=''
  # The functions of a card are beside each other: the serial number of one of them decides for all.
  case $1,$numbered in
    here,* | serial,*) ;;
    *" ${slot%.*} "*)
      case $placed in *" ${slot%.*}@"*) ;; *) return 1 ;; esac
      card=${placed#*" ${slot%.*}@"}
      card=${card%% *}.${slot##*.}
      is_kind "$card" || return 1
      case $taken in *" $card "*) return 1 ;; esac
      return 0
      ;;
  esac
  case $1 in
    here)
      # At the recorded path too: no other card with this number can be it.
      case $path,$serials in -,*) return 1 ;; *" ${serial#pcie:}@$slot "*) ;; *) return 1 ;; esac
      if is_kind "$slot" && is_at "$slot"; then card=$slot; fi
      ;;
    serial)
      # All functions of a card have its serial number, and some makers give one to all their cards: then the path
      # decides.
      found=''
      for one in $serials; do
        case $one in "${serial#pcie:}@"*) one=${one#*@} ;; *) continue ;; esac
        if [ "${one##*.}" = "${slot##*.}" ] && is_kind "$one"; then found="$found $one"; fi
      done
      case $found in
        '') return 1 ;;
        ' '*' '*) for one in $found; do if is_at "$one"; then card=$one; fi; done ;;
        *) card=${found# } ;;
      esac
      ;;
    path)
      # Where it was, or below the same bridges with other bus numbers.
      if is_at "$slot"; then
        card=$slot
      else
        if [ -z "$cards" ]; then read_paths; fi
        case $cards in *" $path@"*) ;; *) return 1 ;; esac
        card=${cards#*" $path@"}
        card=${card%% *}
      fi
      is_kind "$card" || return 1
      ;;
    slot) if is_kind "$slot"; then card=$slot; fi ;;
  esac
  [ -n "$card" ] || return 1
  case $taken in *" $card "*) return 1 ;; esac
}

# is_kind SLOT: whether the device has the ids of the claim.
is_kind() {
  read_ids "$1" && [ "$vendor-$product" = "$ids" ] || return 1
  if [ "$subsystem" = - ]; then return 0; fi
  read -r vendor <"$devices/$1/subsystem_vendor" && read -r product <"$devices/$1/subsystem_device" &&
    [ "$vendor-$product" = "$subsystem" ]
}

# is_at SLOT: whether the device is at the path of the claim.
is_at() {
  read_path "$1" && [ "$place" = "$path" ]
}

# read_ids SLOT: sets $vendor and $product to the ids of the device, as sysfs prints them. Fails without a device.
read_ids() {
  vendor='' product=''
  [ -r "$devices/$1/vendor" ] || return 1
  read -r vendor <"$devices/$1/vendor" && read -r product <"$devices/$1/device"
}

# read_path SLOT: sets $place to the device's path, which has no number of a bus but the root's:
# /sys/devices/pci0000:00/0000:00:1c.0/0000:02:00.0 is 0000:00/1c.0/00.0.
read_path() {
  place=''
  cd -P "$devices/$1" 2>/dev/null || return 1
  IFS=/
  set -f
  for part in $PWD; do
    case $part in
      pci*:??) place=${place:-${part#pci}} ;;
      *:*:??.?) place=${place:+$place/${part##*:}} ;;
    esac
  done
  set +f
  unset IFS
  [ -n "$place" ]
}

# read_paths: sets $cards to the path and the slot of each device, as PATH@SLOT.
read_paths() {
  cards=' '
  for device in "$devices"/*; do
    if read_path "${device##*/}"; then cards="$cards$place@${device##*/} "; fi
  done
}

# read_serials FILE...: sets $serials to the serial number and the slot of each device with such a configuration space,
# as SERIAL@SLOT.
read_serials() {
  serials=' ' files=$*
  if [ "$#" = 0 ]; then return 0; fi
  # One process for all of them. A device without extended configuration space would shift what follows: then each
  # line does not begin with the ids of its device, and there is a process for each.
  dump=$(od -An -v -tx4 -w4096 "$@" 2>/dev/null) || return 0
  found='' whole=yes
  IFS=$newline
  # shellcheck disable=SC2086 # one word for each line
  for line in $dump; do
    unset IFS
    if [ "$#" = 0 ]; then whole=no; break; fi
    read_serial "$1" "$line" || whole=no
    shift
  done
  unset IFS
  if [ "$#" != 0 ] || [ "$whole" = no ]; then
    found=''
    for file in $files; do
      read_serial "$file" "$(od -An -v -tx4 -w4096 "$file" 2>/dev/null)" || :
    done
  fi
  serials="$found "
}

# read_serial FILE WORDS: adds the Device Serial Number in the words of a configuration space to $found, printed as in
# lspci(8). Fails if they are not those of the device. See the PCI Express specification, 7.9.3.
read_serial() {
  one=${1%/config}
  one=${one##*/}
  # shellcheck disable=SC2086 # one word for each
  set -- $2
  read_ids "$one" && [ "$1" = "${product#0x}${vendor#0x}" ] || return 1
  at=65 steps=0
  while [ "$at" -ge 65 ] && [ "$at" -le "$#" ] && [ "$steps" -lt 100 ]; do
    steps=$((steps + 1))
    eval "word=\${$at}"
    case $word in
      ????0003)
        if [ "$((at + 2))" -gt "$#" ]; then return 0; fi
        eval "number=\${$((at + 2))}\${$((at + 1))}"
        case $number in 0000000000000000 | ffffffffffffffff) return 0 ;; esac
        text=''
        while [ -n "$number" ]; do
          text=$text-${number%"${number#??}"}
          number=${number#??}
        done
        found="$found ${text#-}@$one"
        return 0
        ;;
    esac
    at=$((0x${word%?????} / 4 + 1))
  done
}

# reserve CARD SLOT DRIVER: writes the override. A device that has a driver (from the initramfs) may be in use, and is
# left to its unit. Sets $written to "yes" or "no".
reserve() {
  written=no
  if [ -e "$devices/$1/driver" ] || [ -e "$released/$1" ] || [ -e "$quarantined/$1" ]; then return 0; fi
  if is_off "$1" || is_off "$2"; then return 0; fi
  # After an error the device is left to the rule and the unit.
  if echo "$3" >"$devices/$1/driver_override"; then
    written=yes
  else
    echo "<4>could not set the override of $1 to $3: the device is left to its unit" >&2
    # shellcheck disable=SC2034 # for libexec/early
    failed=1
  fi
}
