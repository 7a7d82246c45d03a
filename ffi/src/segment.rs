//! TCP segments as they lie in IP packets (RFC 9293 §3.1; options of RFC 7323 §2 and RFC 2018): reading, with checksums
//! verified, and writing. Invariant: nothing beyond what the IP header counts is read, and no length is believed before
//! the bytes are there. Knows no connection.

pub use crate::packet::TCP_BYTES;
use crate::packet::{
    FRAGMENT_MASK, HOP_LIMIT, IPV4_BYTES, IPV6_BYTES, PROTOCOL_TCP, TCP_CHECKSUM, add, add_pseudo_header,
    fold, write_checksum, write_ipv4_checksum,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;
/// RFC 7323 §2.3.
const SCALE_MAX: u8 = 14;
/// Four blocks fill the options (RFC 2018 §3).
pub const SACKS_MAX: usize = 4;

/// A flow as its client's packets name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub source_port: u16,
    pub destination_port: u16,
}

impl Key {
    /// The greatest segment that goes into a packet of `mtu` bytes.
    pub fn mss(&self, mtu: usize) -> usize {
        mtu - TCP_BYTES - if self.source.is_ipv4() { IPV4_BYTES } else { IPV6_BYTES }
    }
}

/// Ranges of sequence numbers, the first inclusive, the second not.
#[derive(Clone, Copy, Default)]
pub struct Sacks {
    ranges: [(u32, u32); SACKS_MAX],
    count: usize,
}

impl Sacks {
    pub fn push(&mut self, range: (u32, u32)) {
        if self.count < SACKS_MAX {
            self.ranges[self.count] = range;
            self.count += 1;
        }
    }

    pub fn list(&self) -> &[(u32, u32)] {
        &self.ranges[..self.count]
    }
}

/// What the TCP header says, on its way in or out.
#[derive(Clone, Copy, Default)]
pub struct Header {
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    /// As it stands there, unscaled.
    pub window: u16,
    /// Of a SYN: the greatest segment, and what else is offered.
    pub mss: Option<u16>,
    pub scale: Option<u8>,
    pub sack_permitted: bool,
    pub sacks: Sacks,
}

pub struct Segment<'a> {
    pub key: Key,
    pub header: Header,
    pub payload: &'a [u8],
}

impl Segment<'_> {
    pub fn has(&self, flag: u8) -> bool {
        self.header.flags & flag != 0
    }

    /// Sequence numbers that it takes.
    pub fn span(&self) -> u32 {
        self.payload.len() as u32 + u32::from(self.has(SYN)) + u32::from(self.has(FIN))
    }
}

/// Whether `a` comes before `b` on the circle of sequence numbers (RFC 9293 §3.4).
pub fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

fn is_unicast(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            !(address.is_unspecified() || address.is_multicast() || address.is_broadcast())
        }
        IpAddr::V6(address) => !(address.is_unspecified() || address.is_multicast()),
    }
}

/// Addresses of an unfragmented IP packet without extension headers, its addresses' bytes and its TCP part.
fn unwrap(packet: &[u8]) -> Option<(IpAddr, IpAddr, &[u8], &[u8])> {
    match packet.first()? >> 4 {
        4 => {
            let header = usize::from(packet[0] & 15) * 4;
            let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
            if header < IPV4_BYTES || total < header || packet.len() < total {
                return None;
            }
            let fragment = u16::from_be_bytes([packet[6], packet[7]]) & FRAGMENT_MASK;
            if packet[9] != PROTOCOL_TCP || fragment != 0 || fold(add(&packet[..header])) != 0xffff {
                return None;
            }
            let address = |at: usize| {
                let bytes: [u8; 4] = packet[at..at + 4].try_into().expect("four bytes");
                IpAddr::V4(Ipv4Addr::from(bytes))
            };
            Some((address(12), address(16), &packet[12..20], &packet[header..total]))
        }
        6 => {
            let length = usize::from(u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]));
            if packet.len() < IPV6_BYTES + length || packet[6] != PROTOCOL_TCP {
                return None;
            }
            let address = |at: usize| {
                let bytes: [u8; 16] = packet[at..at + 16].try_into().expect("sixteen bytes");
                IpAddr::V6(Ipv6Addr::from(bytes))
            };
            Some((address(8), address(24), &packet[8..40], &packet[IPV6_BYTES..IPV6_BYTES + length]))
        }
        _ => None,
    }
}

/// What a packet is.
pub enum Parsed<'a> {
    Segment(Segment<'a>),
    /// TCP whose checksum or lengths are wrong, which nobody answers.
    Damaged,
    /// No TCP, or in fragments, or behind extension headers, or from or to what is no single host.
    Other,
}

/// Reads an unfragmented TCP packet without extension headers in its way.
pub fn parse(packet: &[u8]) -> Parsed<'_> {
    let Some((source, destination, addresses, tcp)) = unwrap(packet) else { return Parsed::Other };
    if tcp.len() < TCP_BYTES
        || fold(add_pseudo_header(addresses, PROTOCOL_TCP, tcp.len()) + add(tcp)) != 0xffff
    {
        return Parsed::Damaged;
    }
    let at = usize::from(tcp[12] >> 4) * 4;
    if at < TCP_BYTES || tcp.len() < at {
        return Parsed::Damaged;
    }
    let word = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().expect("four bytes"));
    let key = Key {
        source,
        destination,
        source_port: u16::from_be_bytes([tcp[0], tcp[1]]),
        destination_port: u16::from_be_bytes([tcp[2], tcp[3]]),
    };
    if !is_unicast(&source) || !is_unicast(&destination) || key.source_port == 0 || key.destination_port == 0
    {
        return Parsed::Other;
    }
    let mut header = Header {
        seq: word(4),
        ack: word(8),
        flags: tcp[13],
        window: u16::from_be_bytes([tcp[14], tcp[15]]),
        ..Header::default()
    };
    header.read_options(&tcp[TCP_BYTES..at]);
    Parsed::Segment(Segment { key, header, payload: &tcp[at..] })
}

impl Header {
    /// Takes options up to the first that is damaged; unknown ones are passed over.
    fn read_options(&mut self, mut options: &[u8]) {
        while let [kind, rest @ ..] = options {
            let length = match (kind, rest.first()) {
                (0, _) => return,
                (1, _) => 1,
                (_, Some(&length)) if length >= 2 && usize::from(length) <= options.len() => {
                    usize::from(length)
                }
                _ => return,
            };
            match (kind, &options[1.min(length)..length]) {
                (2, [_, high, low]) => self.mss = Some(u16::from_be_bytes([*high, *low])),
                (3, [_, scale]) => self.scale = Some((*scale).min(SCALE_MAX)),
                (4, [_]) => self.sack_permitted = true,
                (5, [_, blocks @ ..]) => {
                    for block in blocks.chunks_exact(8) {
                        let half =
                            |at: usize| u32::from_be_bytes(block[at..at + 4].try_into().expect("four bytes"));
                        self.sacks.push((half(0), half(4)));
                    }
                }
                _ => {}
            }
            options = &options[length..];
        }
    }

    fn options(&self) -> ([u8; 40], usize) {
        let mut bytes = [1u8; 40];
        let mut length = 0;
        let mut put = |option: &[u8]| {
            bytes[length..length + option.len()].copy_from_slice(option);
            length += option.len();
        };
        if let Some(mss) = self.mss {
            put(&[2, 4, (mss >> 8) as u8, mss as u8]);
        }
        if let Some(scale) = self.scale {
            put(&[1, 3, 3, scale]);
        }
        if self.sack_permitted {
            put(&[1, 1, 4, 2]);
        }
        let sacks = self.sacks.list();
        if !sacks.is_empty() {
            put(&[1, 1, 5, 2 + 8 * sacks.len() as u8]);
            for (from, to) in sacks {
                put(&from.to_be_bytes());
                put(&to.to_be_bytes());
            }
        }
        (bytes, length)
    }
}

/// Writes the packet that goes back to the flow's client. IPv4 without DF: a tunnel whose path shrinks may cut it, and
/// `identification` tells its pieces from others' (RFC 6864).
pub fn write(
    packet: &mut Vec<u8>,
    flow: &Key,
    header: &Header,
    payload: (&[u8], &[u8]),
    identification: u16,
) {
    let (options, option_bytes) = header.options();
    let tcp_bytes = TCP_BYTES + option_bytes + payload.0.len() + payload.1.len();
    packet.clear();
    let addresses = match (flow.destination, flow.source) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let total = ((IPV4_BYTES + tcp_bytes) as u16).to_be_bytes();
            let number = identification.to_be_bytes();
            packet.extend([
                0x45,
                0,
                total[0],
                total[1],
                number[0],
                number[1],
                0,
                0,
                HOP_LIMIT,
                PROTOCOL_TCP,
                0,
                0,
            ]);
            packet.extend(from.octets());
            packet.extend(to.octets());
            write_ipv4_checksum(packet, IPV4_BYTES);
            12..IPV4_BYTES
        }
        (from, to) => {
            let octets = |address: IpAddr| match address {
                IpAddr::V6(address) => address.octets(),
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            };
            let length = (tcp_bytes as u16).to_be_bytes();
            packet.extend([0x60, 0, 0, 0, length[0], length[1], PROTOCOL_TCP, HOP_LIMIT]);
            packet.extend(octets(from));
            packet.extend(octets(to));
            8..IPV6_BYTES
        }
    };
    let at = packet.len();
    packet.extend(flow.destination_port.to_be_bytes());
    packet.extend(flow.source_port.to_be_bytes());
    packet.extend(header.seq.to_be_bytes());
    packet.extend(header.ack.to_be_bytes());
    packet.extend([((TCP_BYTES + option_bytes) << 2) as u8, header.flags]);
    packet.extend(header.window.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend(&options[..option_bytes]);
    packet.extend(payload.0);
    packet.extend(payload.1);
    let sum = add_pseudo_header(&packet[addresses], PROTOCOL_TCP, tcp_bytes) + add(&packet[at..]);
    write_checksum(packet, at + TCP_CHECKSUM, sum);
}
