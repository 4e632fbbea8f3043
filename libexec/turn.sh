# Sourced by the programs of units: one Node works for all units that wait, as each would take the others' time.
#
# A unit leaves a ticket (/run/pearasys/<what>/<name>: its process), and waits for the lock. Whoever has it runs Node,
# which works for each ticket and writes beside it what came of it, in <name>.result: the process of the ticket and the
# exit code, then the lines for the journal. While the machine boots Node also works for units that have no ticket yet:
# "boot", the uptime in seconds and the exit code are for the first one that asks, within a minute.

# take_turn WHAT NAME ARGUMENT...: waits for the lock, then runs this program again with --turn before ARGUMENT....
# Waits without a limit: the unit has one.
take_turn() {
  what=$1 name=$2
  shift 2
  for folder in lock "$what"; do
    [ -d "/run/pearasys/$folder" ] || mkdir -p -m 700 "/run/pearasys/$folder"
  done
  read_process
  echo "$process" >"/run/pearasys/$what/$name"
  # Without a child, so that the end of the unit's time ends the wait. The lock goes with Node, however it ends.
  exec flock --no-fork "/run/pearasys/lock/$what" "$0" --turn "$@"
}

# report_result WHAT NAME: if another unit's Node has worked for this one, ends with what it has said.
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
  # A later start of the unit is a new question.
  : >"$result"
  printf %s "$text" >&2
  exit "$code"
}

# run_node PROGRAM ARGUMENT...
run_node() {
  program=$1
  shift
  unset NODE_OPTIONS NODE_PATH NODE_EXTRA_CA_CERTS
  # Not giving each hash table a seed of its own takes an eighth off the start; what is read here is the kernel's.
  exec @NODE@ --no-rehash-snapshot "@LIBDIR@/$program.cjs" "$@"
}

# read_process: sets $process to what no other process has: the number, and when it was started (proc_pid_stat(5)).
read_process() {
  read -r process </proc/$$/stat
  set -- ${process##*) }
  shift 19
  process="$$ $1"
}
