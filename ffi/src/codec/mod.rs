//! Bytes to bytes, in place or from one buffer to another: AEADs and header protection over bursts, X25519 and BLAKE2s
//! for handshakes, LZ4, and arithmetic of GF(256) for repair. Invariant: no file of this room makes a system call on the
//! data path or knows a socket.

pub mod aead;
pub mod blake2s;
pub mod ciphers;
pub mod datagram;
pub mod gf256;
pub mod keys;
pub mod lz4;
pub mod protect;
pub mod x25519;
