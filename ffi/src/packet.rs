//! IP packets as bytes, the only place where their headers are written and internet checksums computed: what every file
//! that looks into a packet shares. Invariant: functions that take whole headers say how many bytes must be there; those
//! that return an Option believe no length. Knows no socket, no flow and no burst.

use std::net::Ipv4Addr;

pub const PROTOCOL_ICMP: u8 = 1;
pub const PROTOCOL_TCP: u8 = 6;
pub const PROTOCOL_UDP: u8 = 17;
pub const PROTOCOL_ICMPV6: u8 = 58;
/// Bytes of headers without options and extension headers.
pub const IPV4_BYTES: usize = 20;
pub const IPV6_BYTES: usize = 40;
pub const TCP_BYTES: usize = 20;
pub const UDP_BYTES: usize = 8;
/// Where the checksum lies in each header.
pub const TCP_CHECKSUM: usize = 16;
pub const UDP_CHECKSUM: usize = 6;
/// The TTL or hop limit of packets that begin here (RFC 1700).
pub const HOP_LIMIT: u8 = 64;
/// Everything in IPv4's fragment field but the flags that a whole packet may have: more fragments, and an offset.
pub const FRAGMENT_MASK: u16 = 0x3fff;

/// Bytes of an IP header without options and extension headers.
pub const fn ip_bytes(is_ipv6: bool) -> usize {
    if is_ipv6 { IPV6_BYTES } else { IPV4_BYTES }
}

/// Whether a packet is IPv6's; anything else is taken for IPv4's. False for no bytes.
pub fn is_ipv6(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first >> 4 == 6)
}

pub fn read_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub fn write_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// The sum of `add`, without looking for a faster way: for a few dozen bytes.
#[inline(always)]
pub fn add_words(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum::<u64>()
        + u64::from(u32::from_ne_bytes(last))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn add_words_avx2(bytes: &[u8]) -> u64 {
    add_words(bytes)
}

/// The sum that RFC 1071 complements, of words as they lie in memory (section 2 B: the byte order cancels out), not
/// yet folded. The bytes are at most 2^32.
pub fn add(bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor was just asked.
        return unsafe { add_words_avx2(bytes) };
    }
    // Elsewhere the compiler makes vectors of what the whole target has.
    add_words(bytes)
}

/// A sum folded into 16 bits, in memory's byte order; 0xffff over bytes that hold their own right checksum.
pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The pseudo-header's sum (RFC 9293 section 3.1, RFC 8200 section 8.1) for `length` bytes of the protocol, from the bytes
/// of both addresses, 8 or 32.
pub fn add_pseudo_header(addresses: &[u8], protocol: u8, length: usize) -> u64 {
    add(addresses) + u64::from(u16::from(protocol).to_be()) + u64::from((length as u16).to_be())
}

/// The same for a packet, whose IP header must be there.
pub fn pseudo_header(packet: &[u8], is_ipv6: bool, protocol: u8, length: usize) -> u64 {
    let addresses = if is_ipv6 { &packet[8..40] } else { &packet[12..20] };
    add_pseudo_header(addresses, protocol, length)
}

/// Writes the complement of a sum, the checksum itself.
pub fn write_checksum(packet: &mut [u8], at: usize, sum: u64) {
    packet[at..at + 2].copy_from_slice(&(!fold(sum)).to_ne_bytes());
}

/// The same where a checksum of zero would mean "none", as in UDP, so that zero is sent as all ones (RFC 768).
pub fn write_checksum_of_udp(packet: &mut [u8], at: usize, sum: u64) {
    let sum = match !fold(sum) {
        0 => 0xffff,
        sum => sum,
    };
    packet[at..at + 2].copy_from_slice(&sum.to_ne_bytes());
}

/// Writes the checksum of the IPv4 header that is the first `header` bytes.
pub fn write_ipv4_checksum(packet: &mut [u8], header: usize) {
    packet[10..12].fill(0);
    let sum = add(&packet[..header]);
    write_checksum(packet, 10, sum);
}

/// Writes an IPv4 total length or IPv6 payload length for a packet of `length` bytes, and IPv4's checksum over `header`
/// bytes.
pub fn write_ip_length(packet: &mut [u8], is_ipv6: bool, header: usize, length: usize) {
    if is_ipv6 {
        write_u16(packet, 4, (length - IPV6_BYTES) as u16);
        return;
    }
    write_u16(packet, 2, length as u16);
    write_ipv4_checksum(packet, header);
}

/// Writes the IP header, without options, of a packet that fills `packet`, HOP_LIMIT hops from its end. The addresses'
/// bytes are in network order, 4 or 16; more are passed over.
pub fn write_ip_header(packet: &mut [u8], is_ipv6: bool, protocol: u8, from: &[u8], to: &[u8]) {
    let total = packet.len();
    packet[..ip_bytes(is_ipv6)].fill(0);
    if is_ipv6 {
        packet[0] = 0x60;
        (packet[6], packet[7]) = (protocol, HOP_LIMIT);
        packet[8..24].copy_from_slice(&from[..16]);
        packet[24..40].copy_from_slice(&to[..16]);
    } else {
        packet[0] = 0x45;
        (packet[8], packet[9]) = (HOP_LIMIT, protocol);
        packet[12..16].copy_from_slice(&from[..4]);
        packet[16..20].copy_from_slice(&to[..4]);
    }
    write_ip_length(packet, is_ipv6, IPV4_BYTES, total);
}

/// Writes the headers of a UDP packet that fills `packet` and whose payload is there already, from one address and port
/// to another; IPv4 addresses in the first four bytes.
pub fn write_udp_headers(packet: &mut [u8], is_ipv6: bool, from: (&[u8; 16], u16), to: (&[u8; 16], u16)) {
    write_ip_header(packet, is_ipv6, PROTOCOL_UDP, from.0, to.0);
    let header = ip_bytes(is_ipv6);
    let length = packet.len() - header;
    write_u16(packet, header, from.1);
    write_u16(packet, header + 2, to.1);
    write_u16(packet, header + 4, length as u16);
    packet[header + UDP_CHECKSUM..header + UDP_BYTES].fill(0);
    let sum = pseudo_header(packet, is_ipv6, PROTOCOL_UDP, length) + add(&packet[header..]);
    write_checksum_of_udp(packet, header + UDP_CHECKSUM, sum);
}

/// The TTL or hop limit of a whole IP packet behind this exit, 1 to 254.
pub fn hops_of(packet: &[u8]) -> u8 {
    packet[if packet[0] >> 4 == 6 { 7 } else { 8 }].max(2) - 1
}

/// The source and destination of a packet with a whole IP header, IPv4 in the first four bytes.
pub fn addresses_of(packet: &[u8], is_ipv6: bool) -> ([u8; 16], [u8; 16]) {
    let (mut from, mut to) = ([0; 16], [0; 16]);
    if is_ipv6 {
        from.copy_from_slice(&packet[8..24]);
        to.copy_from_slice(&packet[24..40]);
    } else {
        from[..4].copy_from_slice(&packet[12..16]);
        to[..4].copy_from_slice(&packet[16..20]);
    }
    (from, to)
}

/// Whether a packet with a whole IP header goes to a multicast or broadcast address.
pub fn is_to_many(packet: &[u8], is_ipv6: bool) -> bool {
    if is_ipv6 { packet[24] == 0xff } else { packet[16] >= 224 }
}

/// The destination of a whole inner packet, IPv4 mapped; 0 for what is none.
pub fn destination(packet: &[u8]) -> u128 {
    match packet {
        [first, ..] if first >> 4 == 4 && packet.len() >= IPV4_BYTES => {
            u128::from(Ipv4Addr::from_octets(packet[16..20].try_into().unwrap_or_default()).to_ipv6_mapped())
        }
        _ => packet.get(24..40).and_then(|bytes| bytes.try_into().ok()).map_or(0, u128::from_be_bytes),
    }
}

/// Whether an address lies in the first `bits` of a prefix, IPv4 mapped in both.
pub fn lies_in(address: u128, prefix: u128, bits: u32) -> bool {
    bits == 0 || (address ^ prefix) >> (128 - bits.min(128)) == 0
}

/// A prefix's 16 bytes in network order, IPv4 mapped, as they come over the C ABI; None for null or more than 128 bits.
///
/// # Safety
/// `address` is null or valid for 16 bytes.
pub unsafe fn read_prefix(address: *const u8, bits: u32) -> Option<u128> {
    if address.is_null() || bits > 128 {
        return None;
    }
    // SAFETY: the caller gives 16 bytes.
    Some(u128::from_be_bytes(unsafe { address.cast::<[u8; 16]>().read_unaligned() }))
}
