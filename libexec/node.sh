# Sourced by what starts Node: the command and the programs of this folder.
node='@NODE@'
libdir='@LIBDIR@'

# run_node PROGRAM ARGUMENT...: replaces this shell by Node with a program of dist/, from the startup snapshot if there
# is one for this Node. A program that runs as root must not let the environment control Node. Reading certificates alone
# triples its start.
run_node() {
  unset NODE_OPTIONS NODE_PATH NODE_EXTRA_CA_CERTS NODE_V8_COVERAGE NODE_DEBUG NODE_PENDING_DEPRECATION NODE_COMPILE_CACHE NODE_REDIRECT_WARNINGS NODE_ICU_DATA OPENSSL_CONF SSL_CERT_DIR SSL_CERT_FILE
  program=$libdir/$1.cjs
  shift
  set -- "$program" "$@"
  if snapshot_fits; then set -- --snapshot-blob "$libdir/cache/snapshot" "$@"; fi
  # One helper thread is enough for a run this short, and so is a common seed for all hash tables: the input comes from the
  # kernel and from root. V8 accepts the code cache and the snapshot only if they were created with the same flags.
  exec "$node" --v8-pool-size=1 --no-rehash-snapshot "$@"
}

# snapshot_fits: whether the files that the snapshot was made with are still the same. Node 18 does not check that
# itself, and with another build of the same version it would crash.
snapshot_fits() {
  [ -e "$libdir/cache/snapshot-of" ] || return 1
  { read -r made_of && read -r files; } <"$libdir/cache/snapshot-of" || return 1
  # shellcheck disable=SC2086 # one word for each file
  [ "$(stat --dereference --printf='%i %s %Z ' $files 2>/dev/null)" = "$made_of " ]
}
