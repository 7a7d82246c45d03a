//! Oxrelay's native library: a C ABI over bursts whose memory belongs to TypeScript. Only buffers, handles and
//! u32s cross, results are i32 with negative errno values for errors, and no call panics or unwinds. This file is
//! the list of modules; each exports its own functions.

mod aead;
mod bbr;
mod blake2s;
mod connection;
#[cfg(test)]
mod connection_sim;
#[cfg(test)]
mod connection_test;
mod datagram;
mod delivery;
mod dial;
mod far_socket;
mod flows;
mod gf256;
mod gso;
mod icmp;
mod keys;
mod layout;
mod lz4;
mod mmsg;
mod protect;
mod receiver;
mod segment;
mod sender;
mod stack;
mod steer;
mod sys;
mod tcp;
mod tun;
mod udp;
mod uring;
mod x25519;
