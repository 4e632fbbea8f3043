# Sourced by the scripts that build packages, with $stage set: stages what the package has.

# stage_files NAME INITRAMFS PREFIX NODE [VARIABLE=VALUE]...: below $stage/NAME all that `make install` installs with these
# variables, with the parts for these generators of an initramfs, and the documents.
stage_files() {
  staged=$1 initramfs=$2 prefix=$3 interpreter=$4
  shift 4
  make --no-print-directory --silent install DESTDIR="$stage/$staged" PREFIX="$prefix" NODE="$interpreter" INITRAMFS="$initramfs" "$@"
  doc=$stage/$staged$prefix/share/doc/pearasys
  install -d "$doc/docs"
  install -m 644 README.md SECURITY.md LICENSE "$doc"
  install -m 644 CHANGELOG.md "$doc/NEWS.md"
  install -m 644 docs/*.md "$doc/docs"
}

# compress_manuals NAME: as distributions have them.
compress_manuals() {
  find "$stage/$1/usr/share/man" -type f -exec gzip -9n {} +
}

# set_times NAME: all files of a package have the same time.
set_times() {
  find "$stage/$1" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
}

# include_scriptlets FILE [TEXT]: prints FILE with the text of scriptlets.sh in place of its line @SCRIPTLETS@.
include_scriptlets() {
  sed -e "/^@SCRIPTLETS@\$/{r ${2:-packaging/scriptlets.sh}" -e 'd}' "$1"
}
