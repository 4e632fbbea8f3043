# Sourced by the programs in this folder: decides which record the shell uses. Node applies the same rule
# (src/state/records) and handles every case that is not simple. Builtins and ls(1) only, for dash and busybox.
records=@SYSCONFDIR@/pearasys/pci
# The kind of records that read_record reads, and the keys that each must have besides slot and id.
kind=claim needed=DRIVER
. "@LIBEXECDIR@/trust.sh"
. "@LIBEXECDIR@/reserve.sh"

# read_record SLOT VENDOR PRODUCT MODE LINKS OWNER GROUP SIZE...: sets $record to the record for this card in this slot
# ("any": for this id), $wanted to its driver, and $subsystem, $path and $serial to what else is known of the card, as in
# a line of a list of claims; $settings to the lines of its settings, and $by_unit to "yes" if they need more than the
# plain writes of the udev rule. The rest are the fields of its line of `ls -ln`. Fails unless the record is trusted and all
# its lines are valid and complete. With $kind "sriov" the record is that of a physical function: see read_count.
read_record() {
  record=$records/$1-$2-$3 wanted='' subsystem=- path=- serial=- settings='' by_unit=no
  vfs='' autoprobe=yes vf_driver=- vf_drivers=-
  is_trusted - "$4" "$5" "$6" || return 1
  [ "$8" -le 65536 ] || return 1
  seen=' ' count=0 size=0 line=''
  while IFS= read -r line; do
    count=$((count + 1)) size=$((size + ${#line} + 1))
    # No record is that long: reading more would only take time.
    [ "$count" -le 100 ] || return 1
    case $line in
      '' | '#'*) continue ;;
      PEARASYS_SLOT="$1" | PEARASYS_ID="${2#0x}:${3#0x}") ;;
      PEARASYS_DRIVER=*)
        wanted=${line#PEARASYS_DRIVER=}
        is_driver "$wanted" || return 1
        ;;
      PEARASYS_TOGETHER=*)
        all_are is_slot , "${line#PEARASYS_TOGETHER=}" || return 1
        case ,${line#PEARASYS_TOGETHER=}, in *,"$1",*) ;; *) return 1 ;; esac
        ;;
      PEARASYS_SUBSYSTEM=[0-9a-f][0-9a-f][0-9a-f][0-9a-f]:[0-9a-f][0-9a-f][0-9a-f][0-9a-f])
        subsystem=${line#PEARASYS_SUBSYSTEM=}
        subsystem=0x${subsystem%:*}-0x${subsystem#*:}
        ;;
      PEARASYS_PATH=*)
        path=${line#PEARASYS_PATH=}
        is_path "$path" || return 1
        ;;
      PEARASYS_SERIAL=pcie:?* | PEARASYS_SERIAL=nvme:?* | PEARASYS_SERIAL=mac:?*)
        serial=${line#PEARASYS_SERIAL=}
        case $serial in *[!A-Za-z0-9:._-]*) return 1 ;; esac
        ;;
      # Who may open its nodes: the rules for that are derived by pearasys.
      PEARASYS_USER=* | PEARASYS_GROUP=*) is_account "${line#*=}" || return 1 ;;
      PEARASYS_MODE=06[0246][0246]) ;;
      PEARASYS_MODE=* | PEARASYS_SLOT=* | PEARASYS_ID=* | PEARASYS_SUBSYSTEM=* | PEARASYS_SERIAL=*) return 1 ;;
      # A setting, or a key of a newer version.
      PEARASYS_*=*)
        key=${line%%=*}
        case ${key#PEARASYS_} in '' | *[!A-Z0-9_]*) return 1 ;; esac
        case $line in *[!\ -~]*) return 1 ;; esac
        ;;
      *) return 1 ;;
    esac
    case $kind,$line in
      sriov,*) read_count "$line" || return 1 ;;
      *,PEARASYS_SET_*) read_setting "$line" || return 1 ;;
    esac
    # Each key may occur once.
    case $seen in *" ${line%%=*} "*) return 1 ;; esac
    seen="$seen${line%%=*} "
  done <"$record"
  # The last line has no newline: the file is truncated. Or it has NUL bytes, which read drops.
  [ -z "$line" ] && [ "$size" = "$8" ] || return 1
  for key in SLOT ID $needed; do
    case $seen in *" PEARASYS_$key "*) ;; *) return 1 ;; esac
  done
  [ "$vf_drivers" = - ] || check_numbers
}

# read_count LINE: reads a line of a physical function's record: $vfs (how many virtual functions), $autoprobe, $vf_driver
# (for all of them) and $vf_drivers (NUMBER:DRIVER,... for single ones). Fails if it is invalid.
# shellcheck disable=SC2034 # $autoprobe is for libexec/early
read_count() {
  case $1 in
    PEARASYS_DRIVER=* | PEARASYS_TOGETHER=* | PEARASYS_SET_*) return 1 ;;
    PEARASYS_VFS=*)
      vfs=${1#*=}
      case $vfs in '' | 0* | *[!0-9]* | ??????*) return 1 ;; esac
      [ "$vfs" -le 65535 ] || return 1
      ;;
    PEARASYS_VF_AUTOPROBE=yes | PEARASYS_VF_AUTOPROBE=no) autoprobe=${1#*=} ;;
    PEARASYS_VF_AUTOPROBE=*) return 1 ;;
    PEARASYS_VF_DRIVER=*) vf_driver=${1#*=} && is_driver "$vf_driver" ;;
    PEARASYS_VF_DRIVERS=*) vf_drivers=${1#*=} ;;
  esac
}

# check_numbers: whether $vf_drivers is valid for $vfs virtual functions.
check_numbers() {
  rest=$vf_drivers, seen=' '
  case $rest in *,,* | ,*) return 1 ;; esac
  while [ -n "$rest" ]; do
    one=${rest%%,*} rest=${rest#*,}
    case $one in *:*) ;; *) return 1 ;; esac
    case ${one%%:*} in '' | 0?* | *[!0-9]* | ??????*) return 1 ;; esac
    [ "${one%%:*}" -lt "$vfs" ] && is_driver "${one#*:}" || return 1
    case $seen in *" ${one%%:*} "*) return 1 ;; esac
    seen="$seen${one%%:*} "
  done
}

# is_driver NAME
is_driver() {
  case $1 in '' | [!A-Za-z0-9]* | *[!A-Za-z0-9_.-]* | *..*) return 1 ;; esac
  [ ${#1} -le 64 ]
}

# all_are TEST SEPARATOR TEXT: whether each part of the text passes the test.
all_are() {
  rest=$3$2
  while [ -n "$rest" ]; do
    "$1" "${rest%%"$2"*}" || return 1
    rest=${rest#*"$2"}
  done
}

# is_slot TEXT: whether it is a slot in full, as the kernel prints it.
is_slot() {
  case ${1%%:*} in '' | ? | ?? | ??? | 0????* | ?????????* | *[!0-9a-f]*) return 1 ;; esac
  case ${1#*:} in [0-9a-f][0-9a-f]:[01][0-9a-f].[0-7]) ;; *) return 1 ;; esac
}

# is_path TEXT: whether it is a root bus and the functions below it.
is_path() {
  root=${1%%/*}
  case ${root%%:*} in '' | ? | ?? | ??? | *[!0-9a-f]*) return 1 ;; esac
  case ${root#*:} in [0-9a-f][0-9a-f]) ;; *) return 1 ;; esac
  all_are is_function / "${1#*/}"
}

# is_function TEXT: whether it is a part of a path.
is_function() {
  case $1 in [0-9a-f][0-9a-f].[0-7]) ;; *) return 1 ;; esac
}

# is_account TEXT: whether it is a name or number that a record may have for a user or group.
is_account() {
  case $1 in
    '' | *[!A-Za-z0-9_.-]* | [.-]* | 0?*) return 1 ;;
    [0-9]*)
      case $1 in *[!0-9]*) return 1 ;; esac
      [ ${#1} -le 10 ] && [ "$1" -lt 4294967295 ]
      ;;
    *) [ ${#1} -le 32 ] ;;
  esac
}

# read_setting LINE: adds the line to $settings if this version knows the setting. Fails if its value is invalid.
# shellcheck disable=SC2034 # $by_unit is for libexec/early
read_setting() {
  case $1 in
    PEARASYS_SET_RESET_METHOD=*)
      case " ${1#*=} " in *[!a-z0-9_\ ]* | *' '[!a-z]*) return 1 ;; esac
      ;;
    PEARASYS_SET_RESET=none) ;;
    PEARASYS_SET_RESET=*)
      case ${1#*=} in '' | [!a-z]* | *[!a-z0-9_]*) return 1 ;; esac
      by_unit=yes
      ;;
    PEARASYS_SET_D3COLD_ALLOWED=[01] | PEARASYS_SET_POWER_CONTROL=auto | PEARASYS_SET_POWER_CONTROL=on) ;;
    PEARASYS_SET_VARIANT=no) ;;
    PEARASYS_SET_VARIANT=yes | PEARASYS_SET_RESOURCE[0-5]_RESIZE=[0-9]) by_unit=yes ;;
    PEARASYS_SET_RESOURCE[0-5]_RESIZE=[1-3][0-9] | PEARASYS_SET_RESOURCE[0-5]_RESIZE=4[0-3]) by_unit=yes ;;
    PEARASYS_SET_D3COLD_ALLOWED=* | PEARASYS_SET_POWER_CONTROL=* | PEARASYS_SET_VARIANT=*) return 1 ;;
    PEARASYS_SET_RESOURCE[0-5]_RESIZE=*) return 1 ;;
    *) return 0 ;;
  esac
  settings="$settings$1$newline"
}

# is_right SLOT DRIVER: whether the device is on the driver; "none" means the override "none" and no driver.
is_right() {
  if [ "$2" = none ]; then
    override=''
    [ ! -e "$devices/$1/driver" ] && read -r override <"$devices/$1/driver_override" && [ "$override" = none ]
  else
    [ -e "/sys/bus/pci/drivers/$2/$1" ]
  fi
}
