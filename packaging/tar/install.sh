#!/bin/sh
# Installs pearasys from this folder, with its own Node, without a network. Needs only sh, coreutils, sed and grep.
#
#   ./install.sh              installs, or upgrades an earlier version; no unit is started or stopped
#   ./install.sh --mdevctl    also as mdevctl and lsmdev
#   ./install.sh --uninstall  removes the program; records, definitions and settings stay
#   ./install.sh --purge      removes records and settings too
#
# --prefix DIR installs below DIR instead of /usr/local. With DESTDIR in the environment, the system is the image in that
# folder, and nothing in it is run.
set -eu
@SCRIPTLETS@
root=${DESTDIR:-}
root=${root%/}
# In the copy that is installed, `place` has put the folder in.
prefix='/@PREFIX@'
case $prefix in /@*) prefix=/usr/local ;; esac

fail() {
  echo "pearasys: $1" >&2
  exit 1
}

# locate FILE: sets $to to where a file of the folder tree belongs. systemd and udev search in /etc for what other
# prefixes have.
locate() {
  case $prefix:$1 in
    /usr:/@*/* | /usr/local:/@*/*) to=$prefix/${1#/@*/} ;;
    *:/@*/lib/systemd/* | *:/@*/lib/udev/* | *:/@*/lib/tmpfiles.d/*) to=/etc/${1#/@*/lib/} ;;
    *:/@*/*) to=$prefix/${1#/@*/} ;;
    *) to=$1 ;;
  esac
}

# listed KIND PATH: whether it is in the list of what was installed. KIND is f for a file, l for a link, d for a folder
# that did not exist before.
listed() {
  grep -qsxF "$1 $2" "$list" "$list.old"
}

# note KIND PATH: before the effect, so that an installation that was interrupted can be repeated and removed.
pending=
note() {
  pending="$pending$1 $2
"
  if [ -d "${list%/*}" ]; then
    printf '%s' "$pending" >>"$list"
    pending=
  fi
}

make_folder() {
  if [ ! -d "$root$1/" ]; then
    make_folder "${1%/*}"
    mkdir "$root$1"
    note d "$1"
  fi
}

# place KIND MODE FILE: replaces $to in one step, so that a running program keeps the one it has. Files of the kind p have
# the prefix put in.
place() {
  make_folder "${to%/*}"
  note f "$to"
  if [ "$1" = p ]; then
    sed "s|/@""PREFIX@|$prefix|g" "$3" >"$root$to.new"
    chmod "$2" "$root$to.new"
  else
    install -m "$2" "$3" "$root$to.new"
  fi
  mv -f "$root$to.new" "$root$to"
}

place_link() {
  make_folder "${2%/*}"
  note l "$2"
  ln -sfn "$1" "$root$2"
}

# remove KIND PATH: what is in the list, except folders; also what an interrupted `place` has left.
remove() {
  if [ "$1" = f ] || [ -h "$root$2" ]; then rm -f "$root$2"; fi
  rm -f "$root$2.new"
}

# check: one sentence instead of half an installation.
check() {
  if [ ! -d "$tree" ]; then fail "$tree does not exist: run the install.sh that is in the unpacked tarball"; fi
  for folder in /etc /usr/lib /usr/local/lib; do
    rule=$folder/udev/rules.d/60-pearasys.rules
    if [ -e "$root$rule" ] && ! listed f "$rule"; then
      fail "$root$rule is of another installation: remove that first, with apt, dnf, make uninstall or its install.sh"
    fi
  done
  for name in $mdevctl; do
    if [ -e "$root$prefix/sbin/$name" ] && [ "$(readlink "$root$prefix/sbin/$name")" != pearasys ]; then
      fail "$root$prefix/sbin/$name was not installed by pearasys: remove its package first, or choose another --prefix"
    fi
  done
  if [ -n "$root" ]; then return; fi
  if [ "$(uname -m)" != '@MACHINE@' ]; then
    fail "this is for @MACHINE@, and this machine is $(uname -m): take the other tarball"
  fi
  problem=$("$tree/@""PREFIX@/libexec/pearasys/node" --version 2>&1) ||
    fail "its Node does not run here, it needs glibc 2.28 or newer and libstdc++: $(echo "$problem" | head -n 1)"
}

place_all() {
  while read -r kind detail file; do
    locate "$file"
    case $kind in
      d) make_folder "$to" ;;
      f | p) place "$kind" "$detail" "$tree$file" ;;
      l) place_link "$detail" "$to" ;;
    esac
  done <"$1"
}

install_all() {
  check
  if [ -n "$root" ]; then mkdir -p "$root"; fi
  make_folder "$libdir"
  # Until the end both lists together have all that there is.
  if [ -e "$list" ]; then
    cat "$list" >>"$list.old"
    sed -n '/^d /p' "$list.old" >"$list"
  fi
  place_all "$tree.list"
  if [ -n "$mdevctl" ] || listed l "$prefix/sbin/mdevctl"; then place_all "$tree.mdevctl.list"; fi
  export LC_ALL=C
  sort -u -o "$list" "$list"
  if [ -e "$list.old" ]; then
    # What only the earlier version had.
    sort -u "$list.old" | comm -23 - "$list" | while read -r kind file; do
      if ! cut -d ' ' -f 2- "$list" | grep -qxF "$file"; then remove "$kind" "$file"; fi
    done
    rm "$list.old"
  fi
  rm -rf "$root$libdir/cache"
  post_install
  echo "installed: $prefix/sbin/pearasys"
}

uninstall_all() {
  if [ ! -e "$list" ]; then fail "nothing is installed below $prefix by install.sh"; fi
  pre_remove
  remove_units
  all=$(cat "$list.old" "$list" 2>/dev/null | LC_ALL=C sort -ru)
  echo "$all" | while read -r kind file; do
    if [ "$kind" != d ]; then remove "$kind" "$file"; fi
  done
  rm -f "$list.old" "$list"
  post_remove
  if [ -n "$purge" ]; then
    remove_everything "$root/etc/pearasys"
    reload
  fi
  # The innermost first.
  echo "$all" | while read -r kind file; do
    if [ "$kind" = d ] && [ -d "$root$file" ]; then rmdir --ignore-fail-on-non-empty "$root$file"; fi
  done
}

action=install purge='' mdevctl=''
while [ $# -gt 0 ]; do
  case $1 in
    --prefix)
      if [ $# = 1 ]; then fail '--prefix needs a folder'; fi
      prefix=$2
      shift
      ;;
    --prefix=*) prefix=${1#*=} ;;
    --mdevctl) mdevctl='mdevctl lsmdev' ;;
    --uninstall) action=uninstall ;;
    --purge) action=uninstall purge=yes ;;
    --help)
      sed -n '2,/^set/{s/^# \{0,1\}//p;}' "$0"
      exit
      ;;
    *) fail "unknown option $1: see ./install.sh --help" ;;
  esac
  shift
done
prefix=${prefix%/}
case $prefix in
  /*[!A-Za-z0-9/._+-]* | [!/]* | '') fail '--prefix must be an absolute path of letters, digits, and / . _ + -' ;;
esac
if [ -z "$root" ] && [ "$(id -u)" != 0 ]; then fail 'only root can do this: run it with sudo'; fi
umask 022
tree=$(cd "$(dirname "$0")" && pwd)/tree
libdir=$prefix/lib/pearasys
node=$prefix/libexec/pearasys/node
program=$prefix/sbin/pearasys
list=$root$libdir/installed-files
case $action in
  install) install_all ;;
  uninstall) uninstall_all ;;
esac
