#!/bin/sh
# fetch-node.sh ARCH: fetches the Node of the lock file into node/ARCH/node_modules. With npm pack and our own comparison
# of the digest, because the npm of Debian 12 cannot install a package for another architecture. It needs no Node that can
# run the development tools.
set -eu
cd "$(dirname "$0")/node"
arch=$1
name=node-linux-$arch
# locked KEY: of the package in the lock file.
locked() {
  sed -n "/\"node_modules\/$name\": {/,/}/s/^ *\"$1\": \"\(.*\)\",*$/\1/p" package-lock.json
}
version=$(locked version)
expected=$(locked integrity | sed 's/^sha512-//' | base64 -d | od -A n -v -t x1 | tr -d ' \n')
rm -rf "$arch"
mkdir -p "$arch/node_modules/$name"
cd "$arch"
npm pack --silent "$name@$version" >/dev/null
if [ "$(sha512sum <"$name-$version.tgz")" != "$expected  -" ]; then
  echo "$name-$version.tgz is not the package of packaging/tar/node/package-lock.json: its sha512 differs" >&2
  exit 1
fi
tar -xzf "$name-$version.tgz" --strip-components=1 -C "node_modules/$name"
rm "$name-$version.tgz"
touch node_modules/.package-lock.json
