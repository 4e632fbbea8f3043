# Sourced by what starts Node: the command and the programs of this folder.
node='@NODE@'
libdir='@LIBDIR@'
# One helper thread is enough for runs this short, and so is a common seed for all hash tables: the input comes from the
# kernel and from root. V8 accepts the code cache and the snapshot only if they were created with the same flags.
flags='--v8-pool-size=1 --no-rehash-snapshot'

# run_node PROGRAM ARGUMENT...: replaces this shell by Node with a program of dist/, from the startup snapshot if it can.
# A program that runs as root must not let the environment control Node. Reading certificates alone triples its start.
run_node() {
  unset NODE_OPTIONS NODE_PATH NODE_EXTRA_CA_CERTS NODE_V8_COVERAGE NODE_DEBUG NODE_PENDING_DEPRECATION NODE_COMPILE_CACHE NODE_REDIRECT_WARNINGS NODE_ICU_DATA OPENSSL_CONF SSL_CERT_DIR SSL_CERT_FILE
  program=$libdir/$1.cjs
  shift
  set -- "$program" "$@"
  if snapshot_fits; then set -- --snapshot-blob "$libdir/cache/snapshot" "$@"; fi
  # shellcheck disable=SC2086 # one word for each flag
  exec "$node" $flags "$@"
}

# snapshot_fits: whether the files that the snapshot was made of are still the same, and Node starts from it. Node 18 does
# not notice another build of the same version, and every Node refuses a snapshot that was made on another CPU, as in the
# image of a disk. The first run as root in a boot finds out; the answer is in /run/pearasys/snapshot.
snapshot_fits() {
  [ -e "$libdir/cache/snapshot-of" ] || return 1
  { read -r made_of && read -r files; } <"$libdir/cache/snapshot-of" || return 1
  # shellcheck disable=SC2086 # one word for each file
  [ "$(stat --dereference --printf='%i %s %Z ' $files 2>/dev/null)" = "$made_of " ] || return 1
  answer=''
  if [ -r /run/pearasys/snapshot ]; then read -r answer </run/pearasys/snapshot || :; fi
  case $answer in
    "yes $made_of") return 0 ;;
    "no $made_of") return 1 ;;
  esac
  [ -d /run/pearasys ] || mkdir -m 755 /run/pearasys 2>/dev/null || return 1
  [ -w /run/pearasys ] || return 1
  answer=no
  if is_same_cpu || starts_from_snapshot; then answer=yes; fi
  echo "$answer $made_of" >/run/pearasys/snapshot
  [ $answer = yes ]
}

# is_same_cpu: whether the first CPU is the one that the snapshot was made on, with the same features.
is_same_cpu() {
  sed -n -e '/^$/q' -e '/^\(vendor_id\|cpu family\|model\|stepping\|flags\|Features\|CPU [a-z]*\)\t/p' /proc/cpuinfo 2>/dev/null |
    cmp -s - "$libdir/cache/cpu"
}

# starts_from_snapshot: another CPU, or the same with another kernel, which may name features otherwise.
starts_from_snapshot() {
  # shellcheck disable=SC2086 # one word for each flag
  "$node" $flags --snapshot-blob "$libdir/cache/snapshot" "$libdir/start.cjs" --version </dev/null >/dev/null 2>&1
}
