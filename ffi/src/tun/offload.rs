//! The header that Linux puts in front of packets of devices made with IFF_VNET_HDR (struct virtio_net_hdr): what a
//! super-packet is made of, and which checksum is left to the device. Invariant: no length in it is believed before it was
//! checked against the packet. Does no I/O.

use crate::packet::{add, write_checksum_of_udp};

/// The longest IP packet with its headers, in both versions of IP for simplicity.
pub const SUPER_BYTES_MAX: usize = 65535;

// Of linux/virtio_net.h.
pub const NEEDS_CHECKSUM: u8 = 1;
pub const KIND_NONE: u8 = 0;
pub const KIND_TCP_IPV4: u8 = 1;
pub const KIND_TCP_IPV6: u8 = 4;
pub const KIND_UDP: u8 = 5;
pub const KIND_ECN: u8 = 0x80;

// Of a TCP header's flags.
pub const FLAG_FIN: u8 = 0x01;
pub const FLAG_PSH: u8 = 0x08;
pub const FLAG_ACK: u8 = 0x10;
pub const FLAG_ECE: u8 = 0x40;
pub const FLAG_CWR: u8 = 0x80;

/// struct virtio_net_hdr, in the byte order of the machine.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct OffloadHeader {
    pub flags: u8,
    pub kind: u8,
    pub header_bytes: u16,
    pub segment_bytes: u16,
    pub checksum_start: u16,
    pub checksum_offset: u16,
}

/// Completes the checksum that the kernel left to the device. False when there is no room where it should be.
pub fn complete_checksum(offload: &OffloadHeader, packet: &mut [u8]) -> bool {
    if offload.flags & NEEDS_CHECKSUM == 0 {
        return true;
    }
    let start = usize::from(offload.checksum_start);
    let field = start + usize::from(offload.checksum_offset);
    if field + 2 > packet.len() {
        return false;
    }
    // The field holds the pseudo-header's sum. Zero and all ones are one number here, so UDP's rule does for TCP too.
    let sum = add(&packet[start..]);
    write_checksum_of_udp(packet, field, sum);
    true
}
