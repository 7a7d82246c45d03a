//! Which ports of this host are some client's, over all threads' flows: what a packet on its way to this host may reach.
//! Invariant: a port is marked for exactly as long as a flow holds it.

use std::sync::atomic::{AtomicU64, Ordering};

/// The ports of this host that are some client's, of all threads' flows, a bit each: IPv4's, then IPv6's.
static PORTS: [[AtomicU64; 1024]; 2] = [const { [const { AtomicU64::new(0) }; 1024] }; 2];

pub fn mark_port(is_ipv6: bool, port: u16, is_open: bool) {
    let word = &PORTS[usize::from(is_ipv6)][usize::from(port >> 6)];
    let bit = 1 << (port & 63);
    if is_open {
        word.fetch_or(bit, Ordering::Relaxed)
    } else {
        word.fetch_and(!bit, Ordering::Relaxed)
    };
}

pub fn is_flow_port(is_ipv6: bool, port: u16) -> bool {
    PORTS[usize::from(is_ipv6)][usize::from(port >> 6)].load(Ordering::Relaxed) >> (port & 63) & 1 == 1
}
