//! Super-packets, as Linux passes them over devices with a virtio_net_hdr: up to 64 KB of one TCP or UDP flow under
//! one set of headers (TSO, USO). Here they are cut into packets, and packets of a burst are joined to them.
//! Invariant: cutting what was joined gives the same packets; packets of one flow keep their order; a packet with a
//! wrong checksum is never joined, which would hide it; and no length is believed before it was checked. Does no I/O.

use crate::layout::{Arena, BURST_CAPACITY, Block, HEADROOM, SLOT_BYTES, TAILROOM};

/// The longest packet that a slot takes.
pub const PACKET_BYTES_MAX: usize = SLOT_BYTES - HEADROOM - TAILROOM;
/// The longest IP packet with its headers, in both versions of IP for simplicity.
const SUPER_BYTES_MAX: usize = 65535;
/// Packets in one super-packet; UDP_MAX_SEGMENTS of the oldest kernels that cut them.
pub const SEGMENTS_MAX: usize = 64;
/// IPv4 or IPv6 without options and TCP with all it can have.
pub const HEADERS_BYTES_MAX: usize = 40 + 60;
const GROUPS: usize = 2 * BURST_CAPACITY;
const NOBODY: u16 = u16::MAX;

// Of linux/virtio_net.h.
const NEEDS_CHECKSUM: u8 = 1;
const KIND_NONE: u8 = 0;
const KIND_TCP_IPV4: u8 = 1;
const KIND_TCP_IPV6: u8 = 4;
const KIND_UDP: u8 = 5;
const KIND_ECN: u8 = 0x80;

const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const TCP_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;
const FLAG_FIN: u8 = 0x01;
const FLAG_PSH: u8 = 0x08;
const FLAG_ACK: u8 = 0x10;
const FLAG_ECE: u8 = 0x40;
const FLAG_CWR: u8 = 0x80;
const DONT_FRAGMENT: u8 = 0x40;

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

#[inline(always)]
fn add_words(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum::<u64>()
        + u64::from(u32::from_ne_bytes(last))
}

#[target_feature(enable = "avx2")]
fn add_words_avx2(bytes: &[u8]) -> u64 {
    add_words(bytes)
}

/// The sum that RFC 1071 complements, of words as they lie in memory (section 2 B: the byte order cancels out), not
/// yet folded. The bytes are at most 2^32.
pub fn add(bytes: &[u8]) -> u64 {
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor was just asked.
        unsafe { add_words_avx2(bytes) }
    } else {
        add_words(bytes)
    }
}

pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The pseudo-header's sum (RFC 9293 section 3.1, RFC 8200 section 8.1) for `length` bytes of TCP or UDP.
pub fn pseudo_header(packet: &[u8], is_ipv6: bool, is_tcp: bool, length: usize) -> u64 {
    let addresses = if is_ipv6 { &packet[8..40] } else { &packet[12..20] };
    let protocol = u16::from(if is_tcp { PROTOCOL_TCP } else { PROTOCOL_UDP });
    add(addresses) + u64::from(protocol.to_be()) + u64::from((length as u16).to_be())
}

pub fn read_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub fn write_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Writes an IPv4 total length or IPv6 payload length, and IPv4's checksum over `header` bytes.
fn write_ip_length(packet: &mut [u8], is_ipv6: bool, header: usize, length: usize) {
    if is_ipv6 {
        write_u16(packet, 4, (length - IPV6_BYTES) as u16);
        return;
    }
    write_u16(packet, 2, length as u16);
    packet[10..12].fill(0);
    let sum = !fold(add(&packet[..header]));
    packet[10..12].copy_from_slice(&sum.to_ne_bytes());
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
    // The field holds the pseudo-header's sum. Zero would mean "none" to UDP (RFC 768), so it becomes its twin.
    let sum = match !fold(add(&packet[start..])) {
        0 => 0xffff,
        sum => sum,
    };
    packet[field..field + 2].copy_from_slice(&sum.to_ne_bytes());
    true
}

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
        let sum = !fold(pseudo_header(out, is_ipv6, is_tcp, length - transport) + add(&out[transport..]));
        let sum = if sum == 0 && !is_tcp { 0xffff } else { sum };
        out[field..field + 2].copy_from_slice(&sum.to_ne_bytes());
        length
    }
}

/// A packet of TCP or UDP without IP options, extension headers or fragments.
#[derive(Clone, Copy)]
struct Shape {
    is_ipv6: bool,
    is_tcp: bool,
    transport: usize,
    header: usize,
    payload: usize,
    /// Whether others may be joined to it, its checksum apart.
    joins: bool,
}

impl Shape {
    fn of(packet: &[u8]) -> Option<Self> {
        let is_ipv6 = packet.first()? >> 4 == 6;
        let transport = if is_ipv6 { IPV6_BYTES } else { IPV4_BYTES };
        if packet.len() < transport + UDP_BYTES || packet.len() > PACKET_BYTES_MAX {
            return None;
        }
        let is_plain = if is_ipv6 {
            usize::from(read_u16(packet, 4)) + IPV6_BYTES == packet.len()
        } else {
            packet[0] == 0x45
                && usize::from(read_u16(packet, 2)) == packet.len()
                && read_u16(packet, 6) & 0x3fff == 0
        };
        let is_tcp = match packet[if is_ipv6 { 6 } else { 9 }] {
            PROTOCOL_TCP => true,
            PROTOCOL_UDP => false,
            _ => return None,
        };
        if !is_plain || is_tcp && packet.len() < transport + TCP_BYTES {
            return None;
        }
        let header =
            transport + if is_tcp { usize::from(packet[transport + 12] >> 4) * 4 } else { UDP_BYTES };
        let least = transport + if is_tcp { TCP_BYTES } else { UDP_BYTES };
        if header < least || header > packet.len() {
            return None;
        }
        let payload = packet.len() - header;
        let joins = payload > 0
            && if is_tcp {
                packet[transport + 13] & !(FLAG_PSH | FLAG_ECE) == FLAG_ACK
            } else {
                usize::from(read_u16(packet, transport + 4)) == packet.len() - transport
                    && read_u16(packet, transport + 6) != 0
            };
        Some(Self { is_ipv6, is_tcp, transport, header, payload, joins })
    }

    fn is_flow_of(&self, packet: &[u8], other: &Self, of: &[u8]) -> bool {
        let addresses = if self.is_ipv6 { 8 } else { 12 };
        self.is_ipv6 == other.is_ipv6
            && self.is_tcp == other.is_tcp
            && packet[addresses..self.transport + 4] == of[addresses..self.transport + 4]
    }

    fn hash(&self, packet: &[u8]) -> usize {
        let addresses = if self.is_ipv6 { 8 } else { 12 };
        let sum = add_words(&packet[addresses..self.transport + 4]);
        (sum ^ sum >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize >> 40 & (GROUPS - 1)
    }

    fn has_right_checksums(&self, packet: &[u8]) -> bool {
        let length = packet.len() - self.transport;
        let has_right_header = self.is_ipv6 || fold(add_words(&packet[..IPV4_BYTES])) == 0xffff;
        has_right_header
            && fold(pseudo_header(packet, self.is_ipv6, self.is_tcp, length) + add(&packet[self.transport..]))
                == 0xffff
    }

    /// Whether the headers of the next packet differ from those of the group's first only as cutting makes them.
    fn follows(&self, packet: &[u8], group: &Group, first: &[u8]) -> bool {
        let at = self.transport;
        let same = |from: usize, to: usize| packet[from..to] == first[from..to];
        let same_ip = if self.is_ipv6 {
            same(0, 4) && same(6, 8)
        } else {
            // The identification of a packet that may not be fragmented means nothing (RFC 6864 section 4.1).
            same(1, 2)
                && same(6, 9)
                && (packet[6] & DONT_FRAGMENT != 0
                    || read_u16(packet, 4) == read_u16(first, 4).wrapping_add(group.rows))
        };
        let same_transport = !self.is_tcp
            || read_u32(packet, at + 4) == read_u32(first, at + 4).wrapping_add(group.payload as u32)
                && same(at + 8, at + 13)
                && packet[at + 13] & !FLAG_PSH == first[at + 13]
                && same(at + 14, at + 16)
                && same(at + 18, self.header);
        same_ip && same_transport
    }
}

/// Packets of a burst that are written as one.
#[derive(Clone, Copy)]
pub struct Group {
    head: u16,
    tail: u16,
    pub rows: u16,
    shape: Shape,
    /// Payload bytes of all its packets.
    payload: usize,
    /// Whether it may take more, and whether its first packet's checksums have been found right.
    is_open: bool,
    is_verified: bool,
}

/// A row's bytes, or None when they do not all lie in the arena.
pub fn packet_of<'a>(block: &Block, arena: &'a Arena, row: usize) -> Option<&'a [u8]> {
    let length = block.length[row] as usize;
    let start = arena.pointer(block.offset[row], length)?;
    // SAFETY: `pointer` checked the range; nobody writes to the arena while it is borrowed and TypeScript waits.
    Some(unsafe { std::slice::from_raw_parts(start, length) })
}

/// Sorts a burst's packets into groups. Scratch memory of fixed size.
pub struct Joiner {
    group_of: [u16; GROUPS],
    following: [u16; BURST_CAPACITY],
    pub groups: Vec<Group>,
}

const NO_SHAPE: Shape =
    Shape { is_ipv6: false, is_tcp: true, transport: 0, header: 0, payload: 0, joins: false };

impl Joiner {
    pub fn new() -> Self {
        Self {
            group_of: [NOBODY; GROUPS],
            following: [NOBODY; BURST_CAPACITY],
            groups: Vec::with_capacity(BURST_CAPACITY),
        }
    }

    /// Groups the rows whose `next` is `step`. A row whose bytes are not in the arena makes an empty group.
    pub fn join(&mut self, block: &Block, arena: &Arena, count: usize, step: u8, joins_udp: bool) {
        self.group_of.fill(NOBODY);
        self.groups.clear();
        for row in (0..count).filter(|&row| block.next[row] == step) {
            self.following[row] = NOBODY;
            let packet = packet_of(block, arena, row).unwrap_or(&[]);
            let found = Shape::of(packet);
            let mut shape = found.unwrap_or(NO_SHAPE);
            shape.joins &= shape.is_tcp || joins_udp;
            let new = Group {
                head: row as u16,
                tail: row as u16,
                rows: 1,
                shape,
                payload: shape.payload,
                is_open: shape.joins && !(shape.is_tcp && packet[shape.transport + 13] & FLAG_PSH != 0),
                is_verified: false,
            };
            if found.is_none() {
                // It might belong to any flow (fragments do), so nothing is joined across it.
                self.group_of.fill(NOBODY);
            } else if self.place(block, arena, row, packet, &shape) {
                continue;
            }
            self.groups.push(new);
        }
    }

    /// Appends the row to its flow's group, or, returning false, makes the group that comes next its flow's.
    fn place(&mut self, block: &Block, arena: &Arena, row: usize, packet: &[u8], shape: &Shape) -> bool {
        let mut slot = shape.hash(packet);
        // Ends: fewer groups than slots.
        while self.group_of[slot] != NOBODY {
            let group = &mut self.groups[usize::from(self.group_of[slot])];
            let head = usize::from(group.head);
            let first = packet_of(block, arena, head).unwrap_or(&[]);
            if shape.is_flow_of(packet, &group.shape, first) {
                if !group.takes(shape, packet, first) {
                    break;
                }
                self.following[usize::from(group.tail)] = row as u16;
                group.tail = row as u16;
                group.rows += 1;
                group.payload += shape.payload;
                group.is_open = shape.payload == group.shape.payload
                    && !(shape.is_tcp && packet[shape.transport + 13] & FLAG_PSH != 0);
                return true;
            }
            slot = (slot + 1) & (GROUPS - 1);
        }
        self.group_of[slot] = self.groups.len() as u16;
        false
    }

    /// The rows of a group, in their order.
    pub fn rows(&self, group: &Group) -> impl Iterator<Item = usize> {
        let mut row = group.head;
        std::iter::from_fn(move || {
            let this = (row != NOBODY).then_some(usize::from(row))?;
            row = self.following[this];
            Some(this)
        })
    }
}

impl Group {
    /// Bytes of headers in front of each packet's payload.
    pub fn header(&self) -> usize {
        self.shape.header
    }

    /// The headers under which a group of two and more is one super-packet: the device's and, in `out`, those of IP and
    /// TCP or UDP. Returns them with the bytes used. `first` and `last` are the group's first and last packet.
    pub fn headers(
        &self,
        first: &[u8],
        last: &[u8],
        out: &mut [u8; HEADERS_BYTES_MAX],
    ) -> (OffloadHeader, usize) {
        let Shape { is_ipv6, is_tcp, transport, header, payload, .. } = self.shape;
        let total = header + self.payload;
        let out = &mut out[..header];
        out.copy_from_slice(&first[..header]);
        write_ip_length(out, is_ipv6, transport, total);
        let (kind, offset) = if is_tcp {
            out[transport + 13] |= last[transport + 13] & FLAG_PSH;
            (if is_ipv6 { KIND_TCP_IPV6 } else { KIND_TCP_IPV4 }, TCP_CHECKSUM)
        } else {
            write_u16(out, transport + 4, (total - transport) as u16);
            (KIND_UDP, UDP_CHECKSUM)
        };
        // The device adds the rest to it.
        let sum = fold(pseudo_header(out, is_ipv6, is_tcp, total - transport));
        out[transport + offset..transport + offset + 2].copy_from_slice(&sum.to_ne_bytes());
        let offload = OffloadHeader {
            flags: NEEDS_CHECKSUM,
            kind,
            header_bytes: header as u16,
            segment_bytes: payload as u16,
            checksum_start: transport as u16,
            checksum_offset: offset as u16,
        };
        (offload, header)
    }

    fn takes(&mut self, shape: &Shape, packet: &[u8], first: &[u8]) -> bool {
        let fits = self.is_open
            && shape.joins
            && shape.header == self.shape.header
            && shape.payload <= self.shape.payload
            && usize::from(self.rows) < SEGMENTS_MAX
            && self.shape.header + self.payload + shape.payload <= SUPER_BYTES_MAX
            && shape.follows(packet, self, first);
        if !fits {
            return false;
        }
        // Only when there is something to join, and each packet once.
        self.is_verified = self.is_verified || self.shape.has_right_checksums(first);
        self.is_verified && shape.has_right_checksums(packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{
        TO_EXIT, ox_arena_register, ox_arena_release, ox_burst_register, ox_burst_release, with_burst,
    };

    const SEED: u64 = 0x0e1a_7a1b;

    /// xorshift64*, so that a failure repeats.
    struct Random(u64);
    impl Random {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % limit
        }
        fn one_in(&mut self, chances: u64) -> bool {
            self.below(chances) == 0
        }
        fn bytes(&mut self, count: usize) -> Vec<u8> {
            (0..count).map(|_| self.below(256) as u8).collect()
        }
    }

    /// RFC 1071 by the letter: big-endian words, one after the other.
    fn plain_checksum(parts: &[&[u8]]) -> u16 {
        let bytes = parts.concat();
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    /// What the next packet of a flow is made of.
    #[derive(Clone)]
    struct Flow {
        is_ipv6: bool,
        is_tcp: bool,
        host: u8,
        identifier: u16,
        sequence: u32,
        flags: u8,
        options: Vec<u8>,
        ttl: u8,
        traffic_class: u8,
        window: u16,
        acknowledged: u32,
    }

    impl Flow {
        fn new(is_ipv6: bool, is_tcp: bool, host: u8) -> Self {
            Self {
                is_ipv6,
                is_tcp,
                host,
                identifier: 0xfffe,
                sequence: u32::MAX - 2000,
                flags: FLAG_ACK,
                options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
                ttl: 64,
                traffic_class: 0,
                window: 500,
                acknowledged: 0,
            }
        }

        fn packet(&mut self, payload: &[u8]) -> Vec<u8> {
            let transport = if self.is_ipv6 { IPV6_BYTES } else { IPV4_BYTES };
            let header = transport + if self.is_tcp { TCP_BYTES + self.options.len() } else { UDP_BYTES };
            let length = header + payload.len();
            let mut out = vec![0; header];
            let addresses = if self.is_ipv6 {
                out[0] = 0x60;
                out[1] = self.traffic_class << 4;
                write_u16(&mut out, 4, (length - IPV6_BYTES) as u16);
                out[6] = if self.is_tcp { PROTOCOL_TCP } else { PROTOCOL_UDP };
                out[7] = self.ttl;
                out[23] = self.host;
                out[39] = 99;
                8..40
            } else {
                out[0] = 0x45;
                out[1] = self.traffic_class;
                write_u16(&mut out, 2, length as u16);
                write_u16(&mut out, 4, self.identifier);
                out[8] = self.ttl;
                out[9] = if self.is_tcp { PROTOCOL_TCP } else { PROTOCOL_UDP };
                out[12..20].copy_from_slice(&[10, 66, 0, self.host, 192, 0, 2, 99]);
                let sum = plain_checksum(&[&out[..20]]);
                write_u16(&mut out, 10, sum);
                12..20
            };
            write_u16(&mut out, transport, 40000 + u16::from(self.host));
            write_u16(&mut out, transport + 2, 443);
            let field = if self.is_tcp {
                out[transport + 4..transport + 8].copy_from_slice(&self.sequence.to_be_bytes());
                out[transport + 12] = ((header - transport) * 4) as u8;
                out[transport + 13] = self.flags;
                out[transport + 8..transport + 12].copy_from_slice(&self.acknowledged.to_be_bytes());
                write_u16(&mut out, transport + 14, self.window);
                out[transport + TCP_BYTES..].copy_from_slice(&self.options);
                transport + TCP_CHECKSUM
            } else {
                write_u16(&mut out, transport + 4, (length - transport) as u16);
                transport + UDP_CHECKSUM
            };
            out.extend(payload);
            let pseudo = [0, if self.is_tcp { PROTOCOL_TCP } else { PROTOCOL_UDP }];
            let bytes = ((length - transport) as u16).to_be_bytes();
            let sum = plain_checksum(&[&out[addresses], &pseudo, &bytes, &out[transport..]]);
            write_u16(&mut out, field, if sum == 0 && !self.is_tcp { 0xffff } else { sum });
            self.identifier = self.identifier.wrapping_add(1);
            self.sequence = self.sequence.wrapping_add(payload.len() as u32);
            out
        }
    }

    fn right_header(packet: &mut [u8]) {
        packet[10..12].fill(0);
        let sum = plain_checksum(&[&packet[..20]]);
        write_u16(packet, 10, sum);
    }

    /// Joins packets as rows of a burst, and returns each group's rows with what the device would be given.
    fn join(packets: &[Vec<u8>]) -> Vec<(Vec<usize>, Option<OffloadHeader>, Vec<u8>)> {
        let mut memory = vec![0u8; BURST_CAPACITY * SLOT_BYTES];
        // SAFETY: for these columns all zero bytes are a valid value.
        let mut block: Box<Block> = Box::new(unsafe { std::mem::zeroed() });
        for (row, packet) in packets.iter().enumerate() {
            let start = row * SLOT_BYTES + HEADROOM;
            memory[start..start + packet.len()].copy_from_slice(packet);
            block.offset[row] = start as u32;
            block.length[row] = packet.len() as u32;
            block.next[row] = TO_EXIT;
        }
        // SAFETY: both outlive their handles.
        let (arena, burst) = unsafe {
            let arena = ox_arena_register(memory.as_mut_ptr(), memory.len() as u32);
            let block = (&raw mut *block).cast();
            (arena, ox_burst_register(block, size_of::<Block>() as u32, arena as u32))
        };
        let mut joined = Vec::new();
        with_burst(burst as u32, |block, arena| {
            let mut joiner = Joiner::new();
            joiner.join(block, arena, packets.len(), TO_EXIT, true);
            for group in &joiner.groups {
                let rows: Vec<usize> = joiner.rows(group).collect();
                assert_eq!(rows.len(), usize::from(group.rows));
                let (first, last) = (&packets[rows[0]], &packets[rows[rows.len() - 1]]);
                if rows.len() == 1 {
                    joined.push((rows, None, first.clone()));
                    continue;
                }
                let mut scratch = [0; HEADERS_BYTES_MAX];
                let (offload, header) = group.headers(first, last, &mut scratch);
                let mut bytes = scratch[..header].to_vec();
                rows.iter().for_each(|&row| bytes.extend(&packets[row][header..]));
                joined.push((rows, Some(offload), bytes));
            }
            0
        });
        ox_burst_release(burst as u32);
        ox_arena_release(arena as u32);
        joined
    }

    fn cut_all(offload: &OffloadHeader, bytes: &[u8]) -> Vec<Vec<u8>> {
        let packet = SuperPacket::parse(offload, bytes).expect("it was made well");
        let mut out = vec![0; PACKET_BYTES_MAX];
        (0..packet.count())
            .map(|index| {
                let length = packet.cut(bytes, index, &mut out);
                out[..length].to_vec()
            })
            .collect()
    }

    #[test]
    fn what_was_joined_is_cut_into_the_same_packets_in_the_same_order() {
        let mut random = Random(SEED);
        let (mut packets_seen, mut groups_seen) = (0, 0);
        for _ in 0..300 {
            let size = 1 + random.below(1400) as usize;
            let calm = 1 + random.below(30);
            let mut flows: Vec<Flow> = (0..1 + random.below(6) as u8)
                .map(|host| Flow::new(random.one_in(2), random.one_in(2), host))
                .collect();
            let mut packets = Vec::new();
            let mut owners = Vec::new();
            for _ in 0..1 + random.below(BURST_CAPACITY as u64) {
                let owner = random.below(flows.len() as u64) as usize;
                let flow = &mut flows[owner];
                flow.flags = FLAG_ACK;
                let mut length = size;
                if random.one_in(calm) {
                    match random.below(12) {
                        0 => length = random.below(1500) as usize,
                        1 => flow.flags |= FLAG_PSH,
                        2 => flow.flags = 1 << random.below(8),
                        3 => flow.sequence = flow.sequence.wrapping_add(1),
                        4 => flow.identifier = flow.identifier.wrapping_add(7),
                        5 => flow.options[7] ^= 1,
                        6 => flow.options.truncate(flow.options.len() / 8 * 4),
                        7 => flow.ttl -= 1,
                        8 => flow.traffic_class ^= 3,
                        9 => flow.window ^= 1,
                        10 => flow.acknowledged += 1,
                        _ => {
                            // Damaged: a byte, or the end.
                            let mut packet = flow.packet(&random.bytes(length));
                            let at = random.below(packet.len() as u64) as usize;
                            if random.one_in(2) {
                                packet[at] ^= 1 << random.below(8);
                            } else {
                                packet.truncate(at);
                            }
                            packets.push(packet);
                            owners.push(usize::MAX);
                            continue;
                        }
                    }
                    if flow.options.len() < 8 {
                        flow.options = vec![1; 12];
                    }
                }
                packets.push(flow.packet(&random.bytes(length)));
                owners.push(owner);
            }
            let joined = join(&packets);
            let mut written = Vec::new();
            for (rows, offload, bytes) in &joined {
                let pieces = offload.map_or_else(|| vec![bytes.clone()], |offload| cut_all(&offload, bytes));
                assert_eq!(pieces.len(), rows.len());
                for (piece, &row) in pieces.iter().zip(rows) {
                    assert!(*piece == packets[row], "row {row} of {rows:?}");
                }
                written.extend(rows);
            }
            for owner in 0..flows.len() {
                let order: Vec<usize> = written.iter().copied().filter(|&row| owners[row] == owner).collect();
                assert!(order.is_sorted(), "flow {owner}: {order:?}");
            }
            written.sort();
            assert_eq!(written, (0..packets.len()).collect::<Vec<_>>());
            packets_seen += packets.len();
            groups_seen += joined.len();
        }
        // Or this was about nothing.
        assert!(packets_seen > 3 * groups_seen, "{packets_seen} packets in {groups_seen} groups");
    }

    #[test]
    fn one_bulk_flow_is_one_super_packet_up_to_its_limits() {
        for (is_ipv6, is_tcp) in [(false, true), (true, true), (false, false), (true, false)] {
            let mut flow = Flow::new(is_ipv6, is_tcp, 1);
            let mut packets: Vec<Vec<u8>> = (0..100).map(|i| flow.packet(&[i; 1000])).collect();
            packets.push(flow.packet(&[7; 999]));
            packets.push(flow.packet(&[7; 999]));
            let sizes: Vec<usize> = join(&packets).iter().map(|(rows, ..)| rows.len()).collect();
            assert_eq!(sizes, [64, 37, 1]); // a shorter one ends it
            let packets: Vec<Vec<u8>> = (0..100).map(|i| flow.packet(&[i; 1400])).collect();
            let sizes: Vec<usize> = join(&packets).iter().map(|(rows, ..)| rows.len()).collect();
            assert_eq!(sizes, [46, 46, 8]); // 64 KB
        }
    }

    #[test]
    fn identifications_matter_only_where_a_packet_may_be_fragmented() {
        for (flags, groups) in [(0, 3), (DONT_FRAGMENT, 1)] {
            let mut flow = Flow::new(false, false, 1);
            let packets: Vec<Vec<u8>> = (0..3)
                .map(|i| {
                    flow.identifier = 0;
                    let mut packet = flow.packet(&[i; 100]);
                    packet[6] = flags;
                    right_header(&mut packet);
                    packet
                })
                .collect();
            assert_eq!(join(&packets).len(), groups);
        }
    }

    #[test]
    fn what_is_wrong_stays_alone() {
        type Change = fn(&mut Vec<u8>);
        let changes: [(&str, Change); 6] = [
            ("its payload is not what the checksum says", |packet| packet[100] ^= 1),
            ("it has no checksum", |packet| packet[26..28].fill(0)),
            ("its header is not what the checksum says", |packet| packet[10] ^= 1),
            ("it is a fragment", |packet| {
                packet[6] |= 0x20;
                right_header(packet);
            }),
            ("it has IPv4 options", |packet| packet[0] = 0x46),
            ("it is longer than it says", |packet| packet.push(0)),
        ];
        for (what, change) in changes {
            let mut flow = Flow::new(false, false, 1);
            let mut packets: Vec<Vec<u8>> = (0..5).map(|i| flow.packet(&[i; 200])).collect();
            change(&mut packets[2]);
            let sizes: Vec<usize> = join(&packets).iter().map(|(rows, ..)| rows.len()).collect();
            assert_eq!(sizes, [2, 1, 2], "{what}");
        }
        let mut flow = Flow::new(false, false, 1);
        let mut fragments: Vec<Vec<u8>> = (0..2).map(|i| flow.packet(&[i; 200])).collect();
        for packet in &mut fragments {
            packet[6] |= 0x20;
            right_header(packet);
        }
        assert_eq!(join(&fragments).len(), 2, "fragments look like datagrams");
        let mut packets: Vec<Vec<u8>> = (0..2).map(|i| flow.packet(&[i; 200])).collect();
        packets[0][100] ^= 1;
        assert_eq!(join(&packets).len(), 2, "the first of a group is judged too");
    }

    #[test]
    fn only_the_first_packet_has_cwr_and_only_the_last_psh_and_fin() {
        let mut flow = Flow::new(true, true, 1);
        flow.flags = FLAG_ACK | FLAG_PSH | FLAG_FIN | FLAG_CWR;
        let bytes = flow.packet(&[5; 2500]);
        let offload = OffloadHeader {
            flags: NEEDS_CHECKSUM,
            kind: KIND_TCP_IPV6 | KIND_ECN,
            header_bytes: 0,
            segment_bytes: 1000,
            checksum_start: 40,
            checksum_offset: 16,
        };
        let mut twin = Flow::new(true, true, 1);
        let mut expected = Vec::new();
        for (flags, length) in [(FLAG_CWR, 1000), (0, 1000), (FLAG_PSH | FLAG_FIN, 500)] {
            twin.flags = FLAG_ACK | flags;
            expected.push(twin.packet(&vec![5; length]));
        }
        assert_eq!(cut_all(&offload, &bytes), expected);
    }

    #[test]
    fn a_checksum_left_to_the_device_is_completed() {
        for is_ipv6 in [false, true] {
            let whole = Flow::new(is_ipv6, false, 3).packet(&[9; 333]);
            let mut packet = whole.clone();
            let start = if is_ipv6 { 40 } else { 20 };
            let sum = fold(pseudo_header(&packet, is_ipv6, false, packet.len() - start));
            packet[start + 6..start + 8].copy_from_slice(&sum.to_ne_bytes());
            let mut offload =
                OffloadHeader { flags: NEEDS_CHECKSUM, checksum_start: start as u16, ..Default::default() };
            offload.checksum_offset = 6;
            assert!(complete_checksum(&offload, &mut packet));
            assert_eq!(packet, whole);
            offload.checksum_start = (packet.len() - 7) as u16;
            assert!(!complete_checksum(&offload, &mut packet));
        }
    }

    #[test]
    fn sums_agree_with_the_plain_one_at_every_length() {
        let bytes = Random(SEED).bytes(300);
        for length in 0..bytes.len() {
            for start in 0..4.min(length) {
                let part = &bytes[start..length];
                assert_eq!(!fold(add(part)), plain_checksum(&[part]).to_be());
                assert_eq!(add(part), add_words(part));
            }
        }
    }

    #[test]
    fn a_hostile_device_is_survived() {
        let mut random = Random(SEED);
        let mut parsed = 0;
        for round in 0..40_000 {
            let mut flow = Flow::new(random.one_in(2), random.one_in(2), 1);
            let mut packet = flow.packet(&vec![1; 1 + random.below(3000) as usize]);
            let mut offload = OffloadHeader {
                flags: NEEDS_CHECKSUM,
                kind: match (flow.is_tcp, flow.is_ipv6) {
                    (true, false) => KIND_TCP_IPV4,
                    (true, true) => KIND_TCP_IPV6,
                    _ => KIND_UDP,
                },
                header_bytes: random.below(65536) as u16,
                segment_bytes: random.below(1600) as u16,
                checksum_start: if flow.is_ipv6 { 40 } else { 20 },
                checksum_offset: if flow.is_tcp { 16 } else { 6 },
            };
            for _ in 0..round % 4 {
                match random.below(7) {
                    0 => offload.flags = random.below(256) as u8,
                    1 => offload.kind = random.below(256) as u8,
                    2 => offload.segment_bytes = random.below(65536) as u16,
                    3 => offload.checksum_start = random.below(100) as u16,
                    4 => offload.checksum_offset = random.below(65536) as u16,
                    5 => packet.truncate(random.below(packet.len() as u64 + 1) as usize),
                    _ => {
                        let end = packet.len().clamp(1, 60) as u64;
                        if let Some(byte) = packet.get_mut(random.below(end) as usize) {
                            *byte = random.below(256) as u8;
                        }
                    }
                }
            }
            complete_checksum(&offload, &mut packet.clone());
            if let Some(announced) = SuperPacket::parse(&offload, &packet) {
                parsed += 1;
                assert!(announced.count() <= packet.len());
                for piece in cut_all(&offload, &packet) {
                    assert!(piece.len() <= PACKET_BYTES_MAX && piece.len() > 28);
                }
            }
        }
        assert!(parsed > 10_000, "{parsed}");
    }
}
