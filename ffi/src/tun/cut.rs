//! Super-packets of a TUN device, up to 64 KB of one TCP or UDP flow under one set of headers (TSO, USO), cut into packets
//! that fit slots. Invariant: the packets are those that the kernel's own segmentation would send, and a super-packet whose
//! header disagrees with its bytes is refused. Does no I/O.

use crate::layout::PACKET_BYTES_MAX;
use crate::packet::{
    IPV4_BYTES, IPV6_BYTES, PROTOCOL_TCP, PROTOCOL_UDP, TCP_BYTES, TCP_CHECKSUM, UDP_BYTES, UDP_CHECKSUM,
    add, pseudo_header, read_u16, read_u32, write_checksum, write_checksum_of_udp, write_ip_length,
    write_u16,
};
use crate::tun::offload::{
    FLAG_CWR, FLAG_FIN, FLAG_PSH, KIND_ECN, KIND_NONE, KIND_TCP_IPV4, KIND_TCP_IPV6, KIND_UDP,
    NEEDS_CHECKSUM, OffloadHeader, SUPER_BYTES_MAX,
};

/// A super-packet whose headers were checked.
#[derive(Clone, Copy)]
pub struct SuperPacket {
    is_ipv6: bool,
    is_tcp: bool,
    /// Where the TCP or UDP header begins.
    transport: usize,
    /// Bytes of all headers.
    header: usize,
    /// Payload bytes of every packet but the last.
    segment: usize,
    bytes: usize,
}

impl SuperPacket {
    /// Whether the device says that this is a super-packet.
    pub fn is_announced(offload: &OffloadHeader) -> bool {
        offload.kind != KIND_NONE
    }

    /// Checks what the device says against the packet; None when they disagree or a packet would fit no slot.
    pub fn parse(offload: &OffloadHeader, packet: &[u8]) -> Option<Self> {
        let is_ipv6 = match packet.first()? >> 4 {
            4 => false,
            6 => true,
            _ => return None,
        };
        let is_tcp = match (offload.kind & !KIND_ECN, is_ipv6) {
            (KIND_TCP_IPV4, false) | (KIND_TCP_IPV6, true) => true,
            (KIND_UDP, _) => false,
            _ => return None,
        };
        let transport = usize::from(offload.checksum_start);
        let begins_right = if is_ipv6 {
            transport >= IPV6_BYTES // extension headers may lie before it
        } else {
            transport >= IPV4_BYTES && transport == usize::from(packet[0] & 15) * 4
        };
        let (least, field) = if is_tcp { (TCP_BYTES, TCP_CHECKSUM) } else { (UDP_BYTES, UDP_CHECKSUM) };
        if !begins_right
            || offload.flags & NEEDS_CHECKSUM == 0
            || usize::from(offload.checksum_offset) != field
            || packet.len() > SUPER_BYTES_MAX + IPV6_BYTES
            || packet.len() <= transport + least
        {
            return None;
        }
        let header = transport + if is_tcp { usize::from(packet[transport + 12] >> 4) * 4 } else { least };
        let segment = usize::from(offload.segment_bytes);
        let fits = header >= transport + least
            && header < packet.len()
            && segment > 0
            && header + segment <= PACKET_BYTES_MAX;
        fits.then_some(Self { is_ipv6, is_tcp, transport, header, segment, bytes: packet.len() })
    }

    /// Packets that it is cut into.
    pub fn count(&self) -> usize {
        (self.bytes - self.header).div_ceil(self.segment)
    }

    /// Writes packet `index`, which is below `count`, to `out`, which has room for PACKET_BYTES_MAX bytes. `packet` is
    /// what was parsed. Returns the bytes.
    pub fn cut(&self, packet: &[u8], index: usize, out: &mut [u8]) -> usize {
        let Self { is_ipv6, is_tcp, transport, header, segment, bytes } = *self;
        let start = header + index * segment;
        let end = (start + segment).min(bytes);
        let length = header + end - start;
        let out = &mut out[..length];
        out[..header].copy_from_slice(&packet[..header]);
        out[header..].copy_from_slice(&packet[start..end]);
        if !is_ipv6 {
            write_u16(out, 4, read_u16(packet, 4).wrapping_add(index as u16));
        }
        write_ip_length(out, is_ipv6, transport, length);
        let field = if is_tcp {
            let sequence = read_u32(packet, transport + 4).wrapping_add((index * segment) as u32);
            out[transport + 4..transport + 8].copy_from_slice(&sequence.to_be_bytes());
            if end < bytes {
                out[transport + 13] &= !(FLAG_FIN | FLAG_PSH);
            }
            if index > 0 {
                out[transport + 13] &= !FLAG_CWR; // RFC 3168 section 6.1.2: once per window
            }
            transport + TCP_CHECKSUM
        } else {
            write_u16(out, transport + 4, (length - transport) as u16);
            transport + UDP_CHECKSUM
        };
        out[field..field + 2].fill(0);
        let protocol = if is_tcp { PROTOCOL_TCP } else { PROTOCOL_UDP };
        let sum = pseudo_header(out, is_ipv6, protocol, length - transport) + add(&out[transport..]);
        if is_tcp {
            write_checksum(out, field, sum)
        } else {
            write_checksum_of_udp(out, field, sum)
        };
        length
    }
}
