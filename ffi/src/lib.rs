//! Oxrelay's native library: a C ABI over bursts whose memory belongs to TypeScript. Only buffers, handles and u32s cross,
//! results are i32 with negative errno values for errors, and no call panics or unwinds. This file lists the modules; each
//! exports its own functions, and no module is used by one that it uses.

mod bbr;
mod codec;
mod connection;
#[cfg(test)]
mod connection_sim;
#[cfg(test)]
mod connection_test;
mod delivery;
mod dial;
mod far_socket;
mod flows;
mod icmp;
mod layout;
mod packet;
mod port;
mod receiver;
mod segment;
mod sender;
mod stack;
mod sys;
mod tcp;
mod tun;
