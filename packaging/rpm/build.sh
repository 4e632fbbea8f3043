#!/bin/sh
# build.sh OUT VERSION: makes OUT/pearasys-VERSION-1.noarch.rpm of what is built. What is installed is what `make install`
# installs; the same commit gives the same bytes (SOURCE_DATE_EPOCH).
set -eu
cd "$(dirname "$0")/../.."
install -d "$1"
out=$(cd "$1" && pwd) version=$2
command -v rpmbuild >/dev/null || { echo 'make rpm needs rpmbuild: dnf install rpm-build, or apt install rpm' >&2; exit 1; }
umask 022
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

. packaging/stage.sh
stage_files root dracut /usr /usr/bin/node
compress_manuals root
set_times root
# Folders that only pearasys has, then files: those in /etc are settings of the administrator.
(
  cd "$stage/root"
  find etc usr -type d -name '*pearasys*' -printf '%%dir /%p\n'
  find etc/pearasys -mindepth 1 -type d -printf '%%dir /%p\n'
  find etc -type f -printf '%%config(noreplace) /%p\n'
  find usr ! -type d -printf '/%p\n'
) | LC_ALL=C sort >"$stage/files"
# A percent sign would begin a macro.
sed 's/%/%%/g' packaging/scriptlets.sh >"$stage/scriptlets.sh"
include_scriptlets packaging/rpm/pearasys.spec "$stage/scriptlets.sh" >"$stage/pearasys.spec"
rpmbuild -bb --quiet "$stage/pearasys.spec" \
  --define "_topdir $stage/rpmbuild" --define "_rpmdir $out" --define '_rpmfilename %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm' \
  --define "package_version $version" --define "stage $stage/root" --define "file_list $stage/files" \
  --define '_buildhost reproducible' --define 'use_source_date_epoch_as_buildtime 1' \
  --define 'clamp_mtime_to_source_date_epoch 1' --define '_build_id_links none' --define '__os_install_post %{nil}'
echo "$out/pearasys-$version-1.noarch.rpm"
