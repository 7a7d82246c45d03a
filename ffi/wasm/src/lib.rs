//! The client's TCP without a device (../src/dial.rs) as WebAssembly: the same sources and the same calls as in the native library, over
//! memory of its own, into which the caller copies packets. Invariant: no source of the stack stands here a second time.

#[path = "../../src/bbr.rs"]
mod bbr;
#[path = "../../src/connection.rs"]
mod connection;
#[path = "../../src/delivery.rs"]
mod delivery;
#[path = "../../src/dial.rs"]
mod dial;
mod layout;
#[allow(dead_code)]
#[path = "../../src/packet.rs"]
mod packet;
#[path = "../../src/receiver.rs"]
mod receiver;
#[path = "../../src/segment.rs"]
mod segment;
#[path = "../../src/sender.rs"]
mod sender;
#[allow(dead_code)]
#[path = "../../src/stack.rs"]
mod stack;
