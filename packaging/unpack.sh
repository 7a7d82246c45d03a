#!/bin/sh
# Oxrelay for #PLATFORM# in one file: unpacks itself once into a folder of this user, then starts the subcommand from there.
set -eu
digest=#DIGEST#
if [ "$(id -u)" = 0 ]; then cache=/var/cache/oxrelay; else cache=${XDG_CACHE_HOME:-${HOME:?oxrelay: HOME is not set}/.cache}/oxrelay; fi
cache=${OXRELAY_CACHE_DIR:-$cache}
place=$cache/$digest
if [ ! -x "$place/bin/oxrelay" ]; then
  mkdir -p "$(dirname "$cache")"
  mkdir -m 700 "$cache" 2>/dev/null || [ -d "$cache" ] || { echo "oxrelay: $cache cannot be made; set OXRELAY_CACHE_DIR" >&2; exit 1; }
  # Another user's folder could hold another's program.
  [ -O "$cache" ] && [ ! -L "$cache" ] || { echo "oxrelay: $cache belongs to somebody else; set OXRELAY_CACHE_DIR to a folder of yours" >&2; exit 1; }
  chmod 700 "$cache"
  fresh=$(mktemp -d "$cache/new.XXXXXX")
  trap 'rm -rf "$fresh"' EXIT
  if ! tail -n +#LINES# "$0" | tar -xzf - -C "$fresh"; then
    echo "oxrelay: $0 cannot be unpacked into $cache (is the disk full?)" >&2
    exit 1
  fi
  # Two that start at once both unpack; one of them wins.
  mv -T "$fresh" "$place" 2>/dev/null || [ -x "$place/bin/oxrelay" ]
  trap - EXIT
  rm -rf "$fresh"
fi
exec "$place/bin/oxrelay" "$@"
