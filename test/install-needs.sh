#!/bin/sh
# install-needs.sh: installs those of test/debian-packages that are missing. Who is not root, or has no apt-get, learns
# which these are; the tests fail without them.
set -eu
cd "$(dirname "$0")"
command -v dpkg-query >/dev/null || { echo "the tests need what test/debian-packages names, from your distribution" >&2; exit 0; }
missing=''
while read -r package; do
  case $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) in installed) ;; *) missing="$missing $package" ;; esac
done <debian-packages
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "the tests need these packages: apt install$missing" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet
# shellcheck disable=SC2086 # one word for each package
apt-get install --quiet --yes --no-install-recommends $missing
