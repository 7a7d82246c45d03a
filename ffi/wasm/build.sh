#!/bin/sh
# Builds ffi/prebuilt/wasm32/oxdial.wasm.base64, the client's TCP for systems without the native library, out of the native library's sources.
# Needs cargo and rustc with a std for wasm32-unknown-unknown, and a linker for it: `rustup target add wasm32-unknown-unknown`, or
# Debian's (sid's, for a new enough compiler) rustc, cargo, libstd-rust-dev-wasm32 and lld with RUSTFLAGS="-C linker=wasm-ld".
set -eu
cd "$(dirname "$0")"
work=${CARGO_TARGET_DIR:-$PWD/../target}/oxdial
rm -rf "$work/crate"
mkdir -p "$work/crate"
cp -r Cargo.toml libc src "$work/crate/"
for name in bbr connection delivery dial packet receiver segment sender stack; do
  cp "../src/$name.rs" "$work/crate/src/"
  if [ -d "../src/$name" ]; then cp -r "../src/$name" "$work/crate/src/"; fi
done
export RUSTFLAGS="${RUSTFLAGS-} --remap-path-prefix=$work/crate=oxrelay"
CARGO_TARGET_DIR=$work/target cargo build --release --offline --target wasm32-unknown-unknown --manifest-path "$work/crate/Cargo.toml"
mkdir -p ../prebuilt/wasm32
base64 -w 0 "$work/target/wasm32-unknown-unknown/release/oxdial.wasm" > ../prebuilt/wasm32/oxdial.wasm.base64
