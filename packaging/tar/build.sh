#!/bin/sh
# build.sh OUT VERSION ARCH NODE: makes OUT/pearasys-VERSION-linux-ARCH.tar.gz of what is built: what `make install`
# installs with its own Node, and install.sh. NODE is the folder of npm's package node-linux-ARCH. Nothing in it is run:
# ARCH may be of another machine. The same commit gives the same bytes (SOURCE_DATE_EPOCH).
#
# Node is a program of its own, not a single executable application with the bundle: that would be larger, because the
# handlers need a Node too, and no faster. Measured in turns with Node 24, processor time: `list` 61 ms, as one
# executable 68, which cannot be given the flags of V8; `--version` 35 and 32.
set -eu
cd "$(dirname "$0")/../.."
version=$2 arch=$3 node=$4
case $arch in
  x64) machine=x86_64 ;;
  arm64) machine=aarch64 ;;
  *) echo "make dist: ARCH is x64 or arm64, not $arch" >&2; exit 1 ;;
esac
install -d "$1"
out=$(cd "$1" && pwd)
umask 022
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

. packaging/stage.sh
name=pearasys-$version-linux-$arch
prefix=/@PREFIX@
# install.sh puts the folder in. It is below DESTDIR, where other prefixes than /usr have their parts for an initramfs.
stage_files "$name/tree" 'initramfs-tools dracut mkinitcpio' "$prefix" "$prefix/libexec/pearasys/node"
# The digests are of files before install.sh has put the folder in.
rm "$stage/$name/tree$prefix/libexec/pearasys/files.sha256"
install -m 755 "$node/bin/node" "$stage/$name/tree$prefix/libexec/pearasys/node"
node --import tsx build/add-node.ts "$node" "$stage/$name/tree$prefix/share/doc/pearasys"

include_scriptlets packaging/tar/install.sh | sed "s/@MACHINE@/$machine/" >"$stage/$name/install.sh"
chmod 755 "$stage/$name/install.sh"
# For --uninstall, when the tarball is gone.
install -m 755 "$stage/$name/install.sh" "$stage/$name/tree$prefix/libexec/pearasys"
install -m 644 LICENSE README.md "$stage/$name"

# list_files NAME FOLDER: what install.sh does, in this order, because it has no find(1): folders that are empty, files,
# links. The kind of files is p if they have the prefix: to look for it takes seconds in Node.
list_files() {
  (cd "$2" && grep -rlF "$prefix" . | sed 's/^.//') >"$stage/with-prefix" || [ ! -s "$stage/with-prefix" ]
  find "$2" \( -type d -empty -printf 'd 755 /%P\n' \) -o \( -type f -printf 'f %m /%P\n' \) -o \( -type l -printf 'l %l /%P\n' \) |
    awk 'NR == FNR { found[$0]; next } $1 == "f" && $3 in found { $1 = "p" } { print }' "$stage/with-prefix" - |
    LC_ALL=C sort -k 3 >"$1"
}
list_files "$stage/$name/tree.list" "$stage/$name/tree"
# The names that another package may own.
make --no-print-directory --silent install-mdevctl DESTDIR="$stage/$name/tree" PREFIX="$prefix"
list_files "$stage/all.list" "$stage/$name/tree"
LC_ALL=C sort "$stage/$name/tree.list" >"$stage/main.list"
LC_ALL=C sort "$stage/all.list" | LC_ALL=C comm -23 - "$stage/main.list" >"$stage/$name/tree.mdevctl.list"

tar --format=ustar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner \
  -C "$stage" -cf "$stage/tar" "$name"
gzip -n <"$stage/tar" >"$out/$name.tar.gz"
echo "$out/$name.tar.gz"
