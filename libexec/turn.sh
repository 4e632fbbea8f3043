# Sourced by the programs of units: one Node serves all waiting units, because several would slow each other down.
#
# A unit writes a ticket (/run/pearasys/<what>/<name>: its process) and waits for the lock. The unit that gets the lock
# runs Node, which does the work of each ticket and writes the result next to it, in <name>.result: the process of the
# ticket and the exit code, then the lines for the journal. During boot Node also works for units without a ticket yet:
# a result with "boot", the uptime in seconds and the exit code is for the first unit that asks within a minute.
. "@LIBEXECDIR@/node.sh"

# take_turn WHAT NAME ARGUMENT...: waits for the lock, then runs this program again with --turn before ARGUMENT....
# Waits without a time limit: the unit has one.
take_turn() {
  what=$1 name=$2
  shift 2
  for folder in lock "$what"; do
    # shellcheck disable=SC2174 # /run/pearasys itself is 0755, as RuntimeDirectory= makes it
    [ -d "/run/pearasys/$folder" ] || mkdir -p -m 700 "/run/pearasys/$folder"
  done
  read_process
  echo "$process" >"/run/pearasys/$what/$name"
  # Without a child process, so that the unit's timeout ends the wait. The lock is released with Node, however it ends.
  exec flock --no-fork "/run/pearasys/lock/$what" "$0" --turn "$@"
}

# report_result WHAT NAME: if another unit's Node did the work of this one, exits with its result.
report_result() {
  read_process
  result=/run/pearasys/$1/$2.result
  [ -s "$result" ] || return 0
  text='' code=''
  {
    read -r owner since code || return 0
    if [ "$owner" = boot ]; then
      read -r now _ </proc/uptime
      [ "$((${now%.*} - since))" -lt 60 ] || return 0
    elif [ "$owner $since" != "$process" ]; then
      return 0
    fi
    while IFS= read -r line; do
      text="$text$line
"
    done
  } <"$result"
  # A later start of the unit needs a new result.
  : >"$result"
  printf %s "$text" >&2
  exit "$code"
}

# read_process: sets $process to the PID and the start time, which are unique together (proc_pid_stat(5)).
read_process() {
  read -r process </proc/$$/stat
  # shellcheck disable=SC2086 # one word for each field
  set -- ${process##*) }
  shift 19
  process="$$ $1"
}
