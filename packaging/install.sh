#!/bin/sh
# Installs Oxrelay: looks which package fits this machine, fetches it, compares its SHA-256 with the one written here when the
# package was made, installs it, and says what to do next. Changes nothing when the hash is another, and says "Installed" only
# when the installed program has told its version.
#
#   sh install.sh                      from the folder that this file lies in
#   OXRELAY_FROM=https://HOST/FOLDER sh install.sh      from a web server's folder (needs curl or wget)
#   OXRELAY_PACKAGE=binary sh install.sh                the single file, also where dpkg is (or: deb)
set -eu

sums='
#SUMS#
'

fail() { echo "install.sh: $*" >&2; exit 1; }

from=${OXRELAY_FROM:-$(dirname "$0")}
[ "$(uname -s)" = Linux ] || fail "this is $(uname -s); Oxrelay's packages are for Linux. With Node: npx oxrelay connect --socks"
case $(uname -m) in
  x86_64) deb=amd64 binary=x64 ;;
  aarch64) deb=arm64 binary=arm64 ;;
  *) fail "$(uname -m): there are packages for x86_64 and aarch64 only" ;;
esac
[ -e /lib64/ld-linux-x86-64.so.2 ] || [ -e /lib/ld-linux-aarch64.so.1 ] ||
  fail "this system has no glibc (musl, as on Alpine and OpenWrt, will not do); run the container image instead"

package=${OXRELAY_PACKAGE:-}
if [ -z "$package" ]; then
  if [ "$(id -u)" = 0 ] && command -v dpkg >/dev/null; then package=deb; else package=binary; fi
fi
case $package in
  deb) pattern="oxrelay_[0-9.]*_$deb[.]deb" ;;
  binary) pattern="oxrelay-linux-$binary" ;;
  *) fail "OXRELAY_PACKAGE=$package: choose deb or binary" ;;
esac
line=$(echo "$sums" | grep -E "^[0-9a-f]{64}  $pattern\$") || fail "no $package for $(uname -m) was made with this install.sh"
hash=${line%% *} name=${line##* }

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
case $from in
  http://* | https://*)
    if command -v curl >/dev/null; then curl -fsSL -o "$folder/$name" "$from/$name"
    elif command -v wget >/dev/null; then wget -q -O "$folder/$name" "$from/$name"
    else fail "neither curl nor wget is here; install one, or fetch $from/$name and run install.sh beside it"
    fi || fail "$from/$name cannot be fetched" ;;
  *) cp "$from/$name" "$folder/$name" || fail "$from/$name is not there; set OXRELAY_FROM to the folder or the address that has it" ;;
esac
found=$(sha256sum "$folder/$name")
[ "${found%% *}" = "$hash" ] || fail "$name has SHA-256 ${found%% *}, expected $hash; it is damaged or not from this release; nothing was installed"

if [ "$package" = deb ]; then
  [ "$(id -u)" = 0 ] || fail "a package needs root; use sudo, or OXRELAY_PACKAGE=binary"
  chmod 755 "$folder"
  if ! dpkg -i "$folder/$name"; then
    command -v apt-get >/dev/null || fail "$name cannot be installed; see above"
    apt-get update -q && apt-get install -q -y --no-install-recommends -f || fail "$name cannot be installed; see above"
  fi
  # apt-get may have put things right by removing the package.
  status=$(dpkg-query -W -f '${db:Status-Status}' oxrelay) || status=unknown
  [ "$status" = installed ] || fail "$name is not installed: the package oxrelay is \"$status\"; see above"
  command=oxrelay
  version=$("$command" --version) || fail "$name is installed, but \"$command --version\" fails; see above"
  if [ ! -d /run/systemd/system ]; then start="Start the relay: oxrelay serve"
  elif systemctl --quiet is-active oxrelay; then start="The relay runs; see: systemctl status oxrelay"
  else start="The relay does not run; see: systemctl status oxrelay"; fi
else
  if [ "$(id -u)" = 0 ]; then bin=/usr/local/bin; else bin=$HOME/.local/bin; fi
  mkdir -p "$bin"
  # Renamed into place when it works: one that runs keeps its own file.
  cp "$folder/$name" "$bin/.oxrelay.new"
  chmod 755 "$bin/.oxrelay.new"
  if ! version=$("$bin/.oxrelay.new" --version); then
    rm -f "$bin/.oxrelay.new"
    fail "$name does not run here; see above; nothing was installed"
  fi
  mv "$bin/.oxrelay.new" "$bin/oxrelay"
  case :$PATH: in *:"$bin":*) command=oxrelay ;; *) command=$bin/oxrelay ;; esac
  start="Start the relay: $command serve"
fi
echo "Installed Oxrelay $version ($name). $start"
echo "Next: let a device connect with"
echo "  $command peer add phone --endpoint YOUR.PUBLIC.ADDRESS:4433"
