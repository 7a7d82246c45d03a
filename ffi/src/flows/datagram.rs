//! Inner UDP packets, read: whose they are, where they go, and where their payload lies. Invariant: no length in a packet is
//! believed before the bytes are there. Knows no flow and no socket.

use crate::packet::{
    FRAGMENT_MASK, IPV4_BYTES, IPV6_BYTES, PROTOCOL_UDP, UDP_BYTES, addresses_of, ip_bytes, is_ipv6, read_u16,
};
use std::net::Ipv4Addr;

/// Where an inner packet comes from, IPv4 addresses in the first four bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source {
    pub is_ipv6: bool,
    pub address: [u8; 16],
}

/// Who has a flow: an inner source and its port.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub source: Source,
    pub port: u16,
}

impl Source {
    /// The address, IPv4 mapped.
    pub fn mapped(&self) -> u128 {
        if self.is_ipv6 {
            return u128::from_be_bytes(self.address);
        }
        let [a, b, c, d, ..] = self.address;
        u128::from(Ipv4Addr::new(a, b, c, d).to_ipv6_mapped())
    }
}

/// An inner UDP packet whose lengths were checked.
pub struct Datagram {
    pub key: Key,
    /// Where its payload begins and how long it is.
    pub payload: usize,
    pub bytes: usize,
    pub to: [u8; 16],
    pub to_port: u16,
}

/// Where the UDP header of a plain packet begins: not a fragment, and in IPv6 without extension headers.
pub fn plain_segment(packet: &[u8]) -> Option<usize> {
    match packet.first()? >> 4 {
        4 if packet.len() >= IPV4_BYTES => {
            let whole = read_u16(packet, 6) & FRAGMENT_MASK == 0;
            (packet[9] == PROTOCOL_UDP && whole).then_some(usize::from(packet[0] & 15) * 4)
        }
        6 if packet.len() >= IPV6_BYTES => (packet[6] == PROTOCOL_UDP).then_some(IPV6_BYTES),
        _ => None,
    }
}

/// Reads a packet whose UDP header begins at `segment`; None when its lengths are not as they should be.
pub fn parse(packet: &[u8], segment: usize) -> Option<Datagram> {
    let is_ipv6 = is_ipv6(packet);
    let header = ip_bytes(is_ipv6);
    if segment < header || packet.len() < segment + UDP_BYTES {
        return None;
    }
    let total = if is_ipv6 {
        IPV6_BYTES + usize::from(read_u16(packet, 4))
    } else {
        usize::from(read_u16(packet, 2))
    };
    let size = usize::from(read_u16(packet, segment + 4));
    if size < UDP_BYTES || segment + size > total.min(packet.len()) {
        return None;
    }
    let (from, to) = addresses_of(packet, is_ipv6);
    let source = Source { is_ipv6, address: from };
    Some(Datagram {
        key: Key { source, port: read_u16(packet, segment) },
        payload: segment + UDP_BYTES,
        bytes: size - UDP_BYTES,
        to,
        to_port: read_u16(packet, segment + 2),
    })
}

pub fn is_loopback(is_ipv6: bool, address: &[u8; 16]) -> bool {
    if is_ipv6 { u128::from_be_bytes(*address) == 1 } else { address[0] == 127 }
}
