#!/bin/sh
# Builds the native library into ffi/prebuilt/. Needs cargo, a C compiler and Debian's libipsec-mb-dev. The same
# sources, toolchain and packages give the same bytes in any folder: every path that could get in is mapped away.
set -eu
cd "$(dirname "$0")"
target=x86_64-unknown-linux-gnu
cargo_home=${CARGO_HOME:-$HOME/.cargo}
target_folder=${CARGO_TARGET_DIR:-$PWD/target}
export RUSTFLAGS="-C target-cpu=x86-64-v2 --remap-path-prefix=$PWD=oxrelay --remap-path-prefix=$cargo_home=cargo --remap-path-prefix=$target_folder=target"
for folder in "$cargo_home"/registry/src/*; do
  RUSTFLAGS="$RUSTFLAGS --remap-path-prefix=$folder=crates"
  CFLAGS="${CFLAGS-} -ffile-prefix-map=$folder=crates"
done
export CFLAGS="$CFLAGS -ffile-prefix-map=$target_folder=target -g0"
cargo build --release --locked --target "$target"
mkdir -p "prebuilt/$target"
# Renamed into place: a running relay that has the old file mapped keeps it whole.
cp "$target_folder/$target/release/liboxrelay.so" "prebuilt/$target/liboxrelay.so.new"
mv "prebuilt/$target/liboxrelay.so.new" "prebuilt/$target/liboxrelay.so"
