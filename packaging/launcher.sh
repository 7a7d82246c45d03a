#!/bin/sh
# Starts Oxrelay's subcommand in $1 with the permissions that its task in deno.json has, and for the places of an installed
# program: state in $OXRELAY_STATE_DIR, else /var/lib/oxrelay for root and $XDG_STATE_HOME/oxrelay for others; the
# configuration in $OXRELAY_CONFIG, else /etc/oxrelay/oxrelay.toml or $XDG_CONFIG_HOME/oxrelay/oxrelay.toml, else ./oxrelay.toml.
# Files that the command line names may be read; the one after --out, or backup's, be written. Uses no network to start.
set -eu

self=$(readlink -f "$0")
root=$(dirname "$(dirname "$self")")

# Deno: in the package itself, or where npm puts the dependency, beside the package or in a folder above it.
deno=
case "$(uname -s)-$(uname -m)" in
  Linux-x86_64) platform=linux-x64-glibc ;;
  Linux-aarch64) platform=linux-arm64-glibc ;;
  Darwin-x86_64) platform=darwin-x64 ;;
  Darwin-arm64) platform=darwin-arm64 ;;
  *) platform=none ;;
esac
if [ -x "$root/bin/deno" ]; then
  deno=$root/bin/deno
else
  above=$root
  while [ -z "$deno" ] && [ "$above" != / ]; do
    for modules in "$above/node_modules" "$above/node_modules/deno/node_modules"; do
      [ -x "$modules/@deno/$platform/deno" ] && deno=$modules/@deno/$platform/deno && break
    done
    above=$(dirname "$above")
  done
fi
if [ -z "$deno" ]; then
  if [ "$(uname -s)" = Linux ] && [ ! -e /lib64/ld-linux-x86-64.so.2 ] && [ ! -e /lib/ld-linux-aarch64.so.1 ]; then
    echo "oxrelay: this system has no glibc (musl, as on Alpine, will not do); run the container image instead" >&2
    exit 1
  fi
  echo "oxrelay: there is no Deno for $(uname -s) on $(uname -m) beside $root; install the package again, with its optional dependencies" >&2
  exit 1
fi

user=$(id -u)
if [ "$user" = 0 ]; then
  state=/var/lib/oxrelay
  config=/etc/oxrelay
else
  [ -n "${HOME-}" ] || { echo "oxrelay: HOME is not set; set it, or OXRELAY_STATE_DIR and XDG_CONFIG_HOME" >&2; HOME=/nonexistent; }
  state=${XDG_STATE_HOME:-$HOME/.local/state}/oxrelay
  config=${XDG_CONFIG_HOME:-$HOME/.config}/oxrelay
  [ -r "$config/oxrelay.toml" ] || [ ! -r /etc/oxrelay/oxrelay.toml ] || config=/etc/oxrelay
fi
state=${OXRELAY_STATE_DIR:-$state}
if [ -z "${OXRELAY_CONFIG-}" ] && [ -f "$config/oxrelay.toml" ]; then
  export OXRELAY_CONFIG="$config/oxrelay.toml"
fi

# The flags of each task in deno.json, put here when the package is made.
case ${1-} in
  #TASKS#
  *) flags= reads=none writes=none ;;
esac

# Deno separates paths by commas.
list=
allow() {
  case $1 in *,*) echo "oxrelay: $1: a path with a comma cannot be used" >&2; exit 2 ;; esac
  list=$list,$1
}
allow "$root"
allow "$state"
allow "$config"
allow /etc/oxrelay
if [ "$PWD" = / ]; then allow /oxrelay.toml; allow /oxrelay-connect.conf; else allow "$PWD"; fi
[ -z "${OXRELAY_CONFIG-}" ] || allow "$OXRELAY_CONFIG"
write=$state
# "." of a task is the project's folder; of an installed program, the one that it is called in.
for path in $(echo "$reads" | tr , ' '); do case $path in /*) allow "$path" ;; esac; done
for path in $(echo "$writes" | tr , ' '); do
  case $path in
    /*) write=$write,$path ;;
    .) [ "$PWD" = / ] || write=$write,$PWD ;;
  esac
done
# What is restored or taken over may bring a configuration, which an installed program has in its own place.
case "${1-} ${2-}" in
  restore\ * | "peer import")
    case " $* " in *" --config"*) ;; *)
      if [ -z "${OXRELAY_CONFIG-}" ]; then
        mkdir -p "$config"
        set -- "$@" --config "$config/oxrelay.toml"
        write=$write,$config
      fi ;;
    esac ;;
esac
previous= named=
for word in "$@"; do
  value=${word#--*=}
  [ ! -f "$value" ] || allow "$(readlink -f "$value")"
  out=
  case $word in --out=*) out=$value ;; *) [ "$previous" != --out ] || out=$word ;; esac
  # The first word that is not --config's value: of backup the file to write, of restore the one to read, which may be missing.
  if [ -z "$named" ] && [ -n "$previous" ] && [ "$previous" != --config ]; then
    case $word in -*) ;; *) named=$word ;; esac
    case "$1 $named" in
      backup\ ?*) out=$named ;;
      restore\ ?*) allow "$(readlink -f "$named" || echo "$named")" ;;
    esac
  fi
  if [ -n "$out" ] && [ "$writes" != none ]; then
    folder=$(readlink -f "$(dirname "$out")") || { echo "oxrelay: $(dirname "$out"): there is no such folder" >&2; exit 1; }
    case $out in /*) ;; *) out=$PWD/$out ;; esac
    # That file alone, under the name given and without links on the way, and the one that it is made of (createFile).
    for file in "$out" "${folder%/}/$(basename "$out")"; do
      for file in "$file" "$file.new.tmp"; do
        allow "$file"
        write=$write,$file
      done
    done
    # Its folder is read to learn whose it is, and to sync the name.
    [ "$folder" = / ] || allow "$folder"
  fi
  previous=$word
done

# npm runs this in a shell that dies of SIGTERM without passing it on: the program ends when that shell does.
[ "${npm_command-}" != exec ] || export OXRELAY_PARENT="$PPID"
export OXRELAY_STATE_DIR="$state" DENO_DIR="$root/cache" DENO_NO_UPDATE_CHECK=1 DENO_NO_PACKAGE_JSON=1
# shellcheck disable=SC2086 # flags are words
set -- "$root/main.ts" "$@"
[ "$writes" = none ] || set -- "--allow-write=$write" "$@"
[ "$reads" = none ] || set -- "--allow-read=${list#,}" "$@"
exec "$deno" run --quiet --no-prompt --cached-only --no-code-cache --config "$root/deno.json" $flags "$@"
