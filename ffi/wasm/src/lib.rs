//! The client's TCP without a device (../src/dial.rs) as WebAssembly: the same sources, which build.sh lays beside this file, and the same
//! calls as in the native library, over memory of its own, into which the caller copies packets. Invariant: no source of the stack
//! stands in this folder.
#![allow(dead_code)]

mod bbr;
mod connection;
mod delivery;
mod dial;
mod layout;
mod packet;
mod receiver;
mod segment;
mod sender;
mod stack;
