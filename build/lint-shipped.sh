#!/bin/sh
# lint-shipped.sh: checks what is shipped, rendered into a scratch folder as it is installed: shell programs with
# the linter for shell, completion scripts also with the shells that are installed, units with systemd-analyze(1), rules with udevadm(8) where it can (since systemd 254), manual
# pages with mandoc(1) and groff(1), the description for software centers with appstreamcli(1) where it is installed.
set -eu
cd "$(dirname "$0")/.."
for program in shellcheck systemd-analyze mandoc groff; do
  command -v "$program" >/dev/null || { echo "make lint needs $program: test/install-needs.sh" >&2; exit 1; }
done
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for each in libexec sbin udev systemd-generators; do mkdir "$folder/$each"; done
(cd initramfs && find . -type d) | while read -r each; do mkdir -p "$folder/initramfs/$each"; done

# render FILE...: as `make install` does, but below the scratch folder.
render() {
  for file; do
    sed -e "s|@LIBEXECDIR@|$folder/libexec|g" -e "s|@LIBDIR@|$folder/lib|g" -e 's|@SYSCONFDIR@|/etc|g' \
      -e 's|@NODE@|/usr/bin/node|g' "$file" >"$folder/$file"
  done
}
render libexec/* sbin/* udev/* systemd-generators/* initramfs/reserve initramfs/initramfs-tools/* initramfs/dracut/* initramfs/mkinitcpio/*/*
chmod 755 "$folder"/libexec/* "$folder"/sbin/* "$folder"/systemd-generators/*

# Those of packages, with what they share.
mkdir "$folder/packaging"
stage=$folder
. packaging/stage.sh
for each in packaging/tar/install.sh packaging/deb/postinst packaging/deb/prerm packaging/deb/postrm; do
  include_scriptlets "$each" >"$folder/packaging/${each##*/}"
done

# Those with an interpreter line; what they source is checked along with them.
# shellcheck disable=SC2046 # one word for each file
shellcheck --external-sources --check-sourced $(grep -l '^#!' "$folder"/libexec/* "$folder/sbin/pearasys" "$folder"/systemd-generators/*) \
  "$folder"/initramfs/reserve "$folder"/initramfs/initramfs-tools/* "$folder"/initramfs/dracut/* \
  "$folder"/initramfs/mkinitcpio/install/* packaging/*/build.sh packaging/tar/fetch-node.sh "$folder"/packaging/* packaging/deb/autopkgtest/debian/tests/installed .ci/run build/*.sh test/*.sh test/simulated-host/*.sh test/vm/recipes/*.sh

shellcheck completion/complete
shellcheck --shell=bash dist/share/completion/*.bash
for script in dist/share/completion/*; do
  shell=${script##*.}
  if command -v "$shell" >/dev/null; then
    if [ "$shell" = fish ]; then fish --no-execute "$script"; else "$shell" -n "$script"; fi
  fi
done

# A slot in a file's name has colons, which separate a file from its alias here: the slot is called x.
set --
for template in systemd-templates/*-slot@.service.hbs; do
  name=$(basename "$template" .hbs)
  set -- "$@" "$name"
done
for template in systemd-templates/*.hbs; do
  case $template in *-slot@*|*/hugepages.mount.hbs) ;; *) set -- "$@" "$(basename "$template" .hbs)" ;; esac
done
node dist/render-template.cjs "$folder" libexec="$folder/libexec" config=/etc/pearasys slot=x siblings= "$@"
for unit in "$folder"/*-slot@.service; do mv "$unit" "${unit%-slot@.service}-x@.service"; done
for unit in "$folder"/*@.*; do mv "$unit" "${unit%%@.*}@x.${unit##*.}"; done
# It ends with 0 after a warning.
found=$(systemd-analyze --man=no verify "$folder"/*.service "$folder"/*.target 2>&1) || :
if [ -n "$found" ]; then
  printf '%s\n' "$found" >&2
  exit 1
fi
for unit in "$folder"/*.service; do
  # 7.0 of 10: the scripts of others that run in some of them need what the unit of udev has.
  systemd-analyze security --offline=yes --threshold=70 "$unit" >/dev/null ||
    { echo "${unit##*/} is exposed more than 7.0: systemd-analyze security" >&2; exit 1; }
done

if udevadm verify --help >/dev/null 2>&1; then udevadm verify "$folder"/udev/*.rules; fi

mandoc -T lint -W warning dist/share/man/*/*
# It ends with 0 after a warning.
found=$(for page in dist/share/man/*/*; do groff -ww -man -T utf8 -z "$page" 2>&1; done)
if [ -n "$found" ]; then
  printf '%s\n' "$found" >&2
  exit 1
fi

if command -v appstreamcli >/dev/null; then
  found=$(appstreamcli validate --no-net --no-color share/metainfo/*.metainfo.xml) || {
    printf '%s\n' "$found" >&2
    exit 1
  }
fi
