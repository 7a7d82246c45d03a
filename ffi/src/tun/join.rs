//! Packets of a burst joined to super-packets for a TUN device, which the kernel then routes 64 KB at a time. Invariant:
//! cutting what was joined gives the same packets; packets of one flow keep their order; and a packet with a wrong checksum
//! is never joined, which would hide it. Does no I/O.

use crate::layout::{Arena, BURST_CAPACITY, Block, PACKET_BYTES_MAX};
use crate::packet::{
    FRAGMENT_MASK, IPV4_BYTES, IPV6_BYTES, PROTOCOL_TCP, PROTOCOL_UDP, TCP_BYTES, TCP_CHECKSUM, UDP_BYTES,
    UDP_CHECKSUM, add, add_words, fold, pseudo_header, read_u16, read_u32, write_ip_length, write_u16,
};
use crate::tun::offload::{
    FLAG_ACK, FLAG_ECE, FLAG_PSH, KIND_TCP_IPV4, KIND_TCP_IPV6, KIND_UDP, NEEDS_CHECKSUM, OffloadHeader,
    SUPER_BYTES_MAX,
};

/// Packets in one super-packet; UDP_MAX_SEGMENTS of the oldest kernels that cut them.
pub const SEGMENTS_MAX: usize = 64;
/// IPv4 or IPv6 without options and TCP with all it can have.
pub const HEADERS_BYTES_MAX: usize = 40 + 60;
const GROUPS: usize = 2 * BURST_CAPACITY;
const NOBODY: u16 = u16::MAX;
pub const DONT_FRAGMENT: u8 = 0x40;

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
                && read_u16(packet, 6) & FRAGMENT_MASK == 0
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

    fn protocol(&self) -> u8 {
        if self.is_tcp { PROTOCOL_TCP } else { PROTOCOL_UDP }
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
            && fold(
                pseudo_header(packet, self.is_ipv6, self.protocol(), length) + add(&packet[self.transport..]),
            ) == 0xffff
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
        let sum = fold(pseudo_header(out, is_ipv6, self.shape.protocol(), total - transport));
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
