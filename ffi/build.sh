#!/bin/sh
# Builds the native libraries into ffi/prebuilt/: for x86-64 and arm64, or for the targets that are named. Needs cargo, a C
# compiler and Debian's libipsec-mb-dev; for arm64 also Debian's gcc-aarch64-linux-gnu, rustc-web and
# libstd-rust-web-dev:arm64 (after `dpkg --add-architecture arm64`), unless the default rustc has a std for it. The same
# sources, toolchain and packages give the same bytes in any folder: every path that could get in is mapped away.
set -eu
cd "$(dirname "$0")"
cargo_home=${CARGO_HOME:-$HOME/.cargo}
target_folder=${CARGO_TARGET_DIR:-$PWD/target}
given_cflags=${CFLAGS-}

build() { # build TARGET TARGET-CPU
  RUSTFLAGS="-C target-cpu=$2 --remap-path-prefix=$PWD=oxrelay --remap-path-prefix=$cargo_home=cargo --remap-path-prefix=$target_folder=target"
  CFLAGS=$given_cflags
  for folder in "$cargo_home"/registry/src/*; do
    RUSTFLAGS="$RUSTFLAGS --remap-path-prefix=$folder=crates"
    CFLAGS="$CFLAGS -ffile-prefix-map=$folder=crates"
  done
  CFLAGS="$CFLAGS -ffile-prefix-map=$target_folder=target -g0"
  export RUSTFLAGS CFLAGS
  cargo build --release --locked --target "$1"
  mkdir -p "prebuilt/$1"
  # Renamed into place: a running relay that has the old file mapped keeps it whole.
  cp "$target_folder/$1/release/liboxrelay.so" "prebuilt/$1/liboxrelay.so.new"
  mv "prebuilt/$1/liboxrelay.so.new" "prebuilt/$1/liboxrelay.so"
}

for target in ${*:-x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu}; do
  case $target in
    x86_64-unknown-linux-gnu) build "$target" x86-64-v2 ;;
    aarch64-unknown-linux-gnu) (
      export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
      # rustup's compiler has a std for its own machine only; Debian packages one for both.
      [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ] || export RUSTC=/usr/bin/rustc
      # The baseline of all 64-bit processors: AES and wider vectors are asked for at run time.
      build "$target" generic
    ) ;;
    *) echo "build.sh: $target: choose x86_64-unknown-linux-gnu or aarch64-unknown-linux-gnu" >&2; exit 2 ;;
  esac
done
