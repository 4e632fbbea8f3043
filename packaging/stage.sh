# Sourced by the scripts that build packages, with $stage set: stages what the package has.

# stage_files NAME INITRAMFS [VARIABLE=VALUE]...: below $stage/NAME all that `make install` installs with these variables, with
# the parts for these generators of an initramfs, the documents, and compressed manual pages.
stage_files() {
  name=$1 initramfs=$2
  shift 2
  make --no-print-directory --silent install DESTDIR="$stage/$name" PREFIX=/usr NODE=/usr/bin/node INITRAMFS="$initramfs" "$@"
  set -- "$name"
  install -d "$stage/$1/usr/share/doc/pearasys/docs"
  install -m 644 README.md SECURITY.md LICENSE "$stage/$1/usr/share/doc/pearasys"
  install -m 644 CHANGELOG.md "$stage/$1/usr/share/doc/pearasys/NEWS.md"
  install -m 644 docs/*.md "$stage/$1/usr/share/doc/pearasys/docs"
  find "$stage/$1/usr/share/man" -type f -exec gzip -9n {} +
}

# set_times NAME: all files of a package have the same time.
set_times() {
  find "$stage/$1" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
}
